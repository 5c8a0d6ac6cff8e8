"""The verdict on a client of which the broker passes only names (docs/rules.md, "Names without a certificate").

A broker that judged the certificate itself passes the CN as the user name. The name counts as proven only for a key
that is marked so (`--proof broker`), and only from the listener that the key names. That listener trusts the CAs of
that org alone, and no client can type a name there. The deny list's identities and the policy apply in any case.
Otherwise the client is treated as a client without a certificate.
"""

from functools import cached_property

import msgspec

from shared import errors
from shared.text import format_time
from shared.validation.deny_list import identity_id
from shared.validation.facts import OrgFacts
from shared.validation.identity import mismatch
from shared.validation.names import ClientId, DeviceName
from shared.validation.policy import Decision, Presence, outcome
from shared.validation.verdict import Verdict

CHAIN, BROKER = "chain", "broker"  # what a verdict rests on
NO_LISTENER = ""  # of a key that proves names and names no listener


class NamedClient(msgspec.Struct, frozen=True, dict=True):
    """The names of a client, as a broker passes them.

    Args:
        typed: whether the client sent the user name itself, so that the name is not from a certificate.
        listeners: the names that the broker has for the client's listener.
        may_be_typed: whether this broker has no sign of a typed name, so that only the listener shows where the name
            is from.
    """

    username: str | None
    client_id: str | None = None
    typed: bool = False
    listeners: frozenset[str] = frozenset()
    may_be_typed: bool = False

    def is_from(self, listener: str | None) -> bool:
        """Whether the name is from a certificate, for a key that names *listener*.

        Args:
            listener: `NO_LISTENER` for a key that names none; None for a key of the version before, which had no
                listeners: then every listener is accepted.
        """
        if self.typed:
            return False
        if listener is None:
            return True
        return not self.may_be_typed if listener == NO_LISTENER else listener in self.listeners

    @cached_property
    def device(self) -> DeviceName | None:
        """The identity in the user name."""
        return DeviceName.parse(self.username) if self.username else None

    @cached_property
    def client(self) -> ClientId | errors.ClientIdInvalid | None:
        if not self.client_id:
            return None
        try:
            return ClientId.parse(self.client_id)
        except errors.ClientIdInvalid as refusal:
            return refusal

    @property
    def denials(self) -> list[str]:
        """The deny list's look-up ids of every device that the client may be."""
        named = self.client.device if isinstance(self.client, ClientId) else None
        devices = (device for device in (self.device, named) if device is not None and not device.is_type)
        return sorted(set(map(identity_id, devices)))


def judge_named(named: NamedClient, facts: OrgFacts | None, *, is_proven: bool, platform_domain: str) -> Verdict:
    """Return the verdict on *named*, in the order of the ten steps. The broker ran the steps about a certificate.

    Args:
        facts: of the org of the caller's key; None where it does not exist, or the key is the platform's.
        is_proven: whether the name is from a certificate that the broker judged."""
    try:
        return _judge(named, facts, is_proven, platform_domain)
    except (errors.Refused, errors.OrgSuspended) as refusal:
        return Verdict(
            Decision.DENY,
            refusal.code,
            refusal.reason,
            refusal.advice,
            org_id=facts.org_id if facts else None,
            failed_step=refusal.step,
            proof=BROKER if is_proven else CHAIN,
            presence=Presence.INVALID if is_proven else Presence.NONE,
        )


def _judge(named: NamedClient, facts: OrgFacts | None, is_proven: bool, platform_domain: str) -> Verdict:
    if facts is None:
        raise errors.OrgUnknown(domain=platform_domain)
    if facts.suspended:
        raise errors.OrgSuspended
    client = named.client
    if isinstance(client, errors.ClientIdInvalid):
        raise errors.ClientIdInvalid(org=facts.org_id)
    if client is not None and client.org_id != facts.org_id:
        raise errors.OrgMismatch(what="Client ID", a=client.org_id, where="the caller's key", b=facts.org_id)
    for look_up in named.denials:
        for entry in facts.denied.get(look_up, ()):
            raise errors.CertificateRevoked(time=format_time(entry.since))
    if client is not None and client.device is None:  # an application: the broker asks for its API key
        return _satisfied(facts, None, Decision.CONTINUE, bound=True, is_proven=False)
    expected = client.device if client else None
    device = _match(named, expected, facts) if is_proven else expected or named.device
    level = facts.policy.level_for(device.type_id if device else None)
    decision = outcome(level, tls=True, presence=Presence.VALID if is_proven else Presence.NONE)
    if decision is Decision.DENY:
        raise errors.CertificateMissing(level=level.value)
    return _satisfied(facts, device if is_proven else expected, decision, bound=client is not None, is_proven=is_proven)


def _match(named: NamedClient, expected: DeviceName | None, facts: OrgFacts) -> DeviceName:
    """Return the device that the proven name identifies (step 10)."""
    device = named.device
    if device is None:
        raise errors.IdentityMissing(found="the user name is not of the form d:type:device", name="d:type:device")
    if expected is None:
        if device.is_type:
            raise errors.IdentityMissing(
                found=f"{device} is for a whole device type, and no client ID is known", name="d:type:device"
            )
        return device
    if not device.covers(expected):
        raise mismatch((device,), expected, facts.org_id)
    if device.is_type and not facts.type_certificates:
        raise errors.TypeCertificateRefused(type=device.type_id)
    return expected


def _satisfied(
    facts: OrgFacts, device: DeviceName | None, decision: Decision, *, bound: bool, is_proven: bool
) -> Verdict:
    if decision is Decision.ALLOW:
        code, reason = "allowed", f"{device} is allowed."
    else:
        code, reason = "token_required", "Certificate part passed; the broker asks for the token next."
    return Verdict(
        decision,
        code,
        reason,
        org_id=facts.org_id,
        identity=device,
        bound=bound,
        proof=BROKER if is_proven else CHAIN,
        presence=Presence.VALID if is_proven else Presence.NONE,
    )
