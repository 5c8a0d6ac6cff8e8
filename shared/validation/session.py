"""Would a live session be refused now? The rule for edges that look again at the sessions of a withdrawal.

An edge keeps of each session what its verdict said: organization, server name, identity, CA, digests of the accepted
path (`shared.x509.digests`), fingerprints, and the *basis*, a text that only this module reads. The device's
certificates are not kept, so a session is judged by these facts alone. In doubt a session is refused: the device
connects again and is judged by its certificates.
"""

from collections.abc import Collection, Mapping, Set
from hashlib import sha256
from typing import Final

import msgspec

from shared import errors
from shared.validation.names import DeviceName, ServerName
from shared.validation.policy import Decision, Policy, Presence, outcome_for

FINGERPRINT_DIGITS: Final = 16  # hexadecimal digits of a fingerprint that an edge keeps
IN_DOUBT: Final = "in_doubt"  # in place of a code, where the session does not say enough to be judged
TOKEN_REQUIRED: Final = "token_required"

_BY_TYPE: Final = "type"
_UNNAMED: Final = "unnamed"
_INCARNATION_DIGITS: Final = 8


def format_basis(decision: Decision, *, by_type: bool, incarnation: str, unnamed: bool = False) -> str:
    """Return the basis of a session.

    Args:
        by_type: whether the certificate names a type in place of the device.
        unnamed: whether the certificate names no device.
        incarnation: of the organization.
    """
    parts = [decision.value]
    if by_type:
        parts.append(_BY_TYPE)
    if unnamed:
        parts.append(_UNNAMED)
    if incarnation:
        parts.append(_mark(incarnation))
    return ".".join(parts)


def _mark(incarnation: str) -> str:
    return f"i{sha256(incarnation.encode()).hexdigest()[:_INCARNATION_DIGITS]}"


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """What an edge knows of a live session.

    Args:
        identity: the device, `d:type:device`; None for an application.
        ca_id: the id of the CA that vouched; None without a certificate.
        key_digests, serial_digests: of the accepted path, leaf first.
        fingerprints: the first 16 hexadecimal digits of each fingerprint, the leaf's first.
        complete: whether the digests are those of the whole path.
        basis: the basis in the verdict; empty where the edge did not keep it.
    """

    org_id: str
    server_name: str | None = None
    identity: str | None = None
    ca_id: str | None = None
    key_digests: Collection[str] = ()
    serial_digests: Collection[str] = ()
    fingerprints: Collection[str] = ()
    complete: bool = True
    basis: str = ""

    @property
    def has_certificate(self) -> bool:
        return self.ca_id is not None or bool(self.key_digests)


class SessionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What must be known of an organization to judge its sessions.

    Args:
        valid_keys: the key digests of the CAs that are active, not denied, and within their validity.
        inactive_keys: the key digests of the inactive CAs. A path may pass through another certificate with the name
            and key of a CA that has expired or is denied, and not of one that is inactive (`shared.x509.path`).
        ca_keys: the key digest of each registered CA, by id.
        unlimited_keys: the key digests among *valid_keys* of a CA without path length, name constraints and policies.
        vouched_cas: the ids of the CAs that are trusted, and of those for whose certificates a trusted CA vouches.
        denied_identities, denied_fingerprints, denied_serials, denied_keys: the deny list; fingerprints with
            FINGERPRINT_DIGITS digits, serial numbers and keys as digests.
    """

    incarnation: str = ""
    suspended: bool
    custom_domains: Collection[str]
    type_certificates: bool
    policy: Policy
    valid_keys: Set[str]
    inactive_keys: Set[str]
    ca_keys: Mapping[str, str]
    unlimited_keys: Set[str]
    vouched_cas: Set[str]
    denied_identities: Set[str]
    denied_fingerprints: Set[str]
    denied_serials: Set[str]
    denied_keys: Set[str] = frozenset()


def find_refusal(session: Session, facts: SessionFacts | None, *, platform_domain: str) -> str | None:
    """Return the code with which the client of *session* would be refused now; None: the session may stay.

    Args:
        facts: of the session's organization; None where the organization does not exist.
    """
    if facts is None or not _is_of(session, facts):
        return errors.OrgUnknown.code
    if facts.suspended:
        return errors.OrgSuspended.code
    if not _is_host(session, facts, platform_domain):
        return errors.SNIUnknown.code
    if session.identity is not None and session.identity in facts.denied_identities:
        return errors.CertificateRevoked.code
    return _find_policy_refusal(session, facts) or (
        _find_chain_refusal(session, facts) if session.has_certificate else None
    )


def _is_of(session: Session, facts: SessionFacts) -> bool:
    """Return whether the session is one of this organization, and not of an earlier one with the same id."""
    marks = [part for part in session.basis.split(".")[1:] if part not in (_BY_TYPE, _UNNAMED)]
    return not session.basis or marks == ([_mark(facts.incarnation)] if facts.incarnation else [])


def _is_host(session: Session, facts: SessionFacts, platform_domain: str) -> bool:
    """Return whether the server name is a host of the organization. Without a name, the caller's key decided that."""
    if session.server_name is None:
        return True
    name = ServerName.parse(session.server_name)
    if name is None or name.org_id != session.org_id:
        return False
    return name.domain == platform_domain or name.domain in facts.custom_domains


def _find_policy_refusal(session: Session, facts: SessionFacts) -> str | None:
    """Return why the connection policy or the settings refuse the session. An application needs no certificate."""
    decision, *flags = session.basis.split(".")
    if _BY_TYPE in flags and not facts.type_certificates:
        return errors.TypeCertificateRefused.code
    if session.identity is None and not session.has_certificate:
        return None
    device = DeviceName.parse(session.identity) if session.identity is not None else None
    presence = Presence.VALID if session.has_certificate else Presence.NONE
    if _UNNAMED in flags:
        presence = Presence.UNNAMED
    now = outcome_for(facts.policy, device.type_id if device else None, tls=True, presence=presence)
    if now is Decision.DENY:
        return errors.IdentityMissing.code if presence is Presence.UNNAMED else errors.CertificateMissing.code
    if now is Decision.CONTINUE and decision == Decision.ALLOW:  # the broker has never asked for the token
        return TOKEN_REQUIRED
    return None


def _find_chain_refusal(session: Session, facts: SessionFacts) -> str | None:
    """Return why the accepted path would not be accepted now."""
    keys = list(session.key_digests)
    anchor = keys[-1] if keys else facts.ca_keys.get(session.ca_id or "")
    if anchor not in facts.valid_keys:
        return errors.CAInactive.code if anchor in facts.inactive_keys else errors.UntrustedIssuer.code
    if session.ca_id not in facts.vouched_cas and anchor not in facts.unlimited_keys:
        return IN_DOUBT  # another CA with the name and key may have limits that the CA of the session did not have
    if not (facts.inactive_keys - facts.valid_keys).isdisjoint(keys):
        return errors.CAInactive.code
    if not facts.denied_fingerprints.isdisjoint(
        fingerprint[:FINGERPRINT_DIGITS] for fingerprint in session.fingerprints
    ):
        return errors.CertificateRevoked.code
    if not facts.denied_serials.isdisjoint(session.serial_digests) or not facts.denied_keys.isdisjoint(keys):
        return errors.CertificateRevoked.code
    if not session.complete and (
        facts.inactive_keys - facts.valid_keys or facts.denied_fingerprints or facts.denied_serials or facts.denied_keys
    ):
        return IN_DOUBT
    return None
