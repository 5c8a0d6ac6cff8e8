"""The decision whether a client may connect: the ten steps of verifyClient as one pure function.

`presented` reads what a client sent; `deny_list.questions` says what must be known to judge it (`facts`), so that the
caller can ask for all of it in one read; `judge` runs the steps in order, and the first failure is the answer.
"""

from collections.abc import Collection, Container, Iterator
from datetime import datetime
from enum import StrEnum
from itertools import zip_longest
from typing import Final

import msgspec

from shared import errors
from shared.errors import FaultyCertificate
from shared.text import format_time
from shared.validation import identity
from shared.validation.deny_list import CertificateIds, fingerprint_id, identity_id, key_id, serial_id
from shared.validation.facts import Anchor, OrgFacts, Scope
from shared.validation.names import ClientId, DeviceName, messaging_host
from shared.validation.policy import Decision, Level, Presence, needs_tls, outcome, outcome_for
from shared.validation.presented import CERTIFICATES_MAX, FEWER_PARTS, UNREAD, Presented
from shared.validation.session import format_basis
from shared.x509 import path as certification_path
from shared.x509.budget import REGISTERED_ELEMENTS_MAX, Budget
from shared.x509.certificate import Certificate, CertificationPath
from shared.x509.digests import key_digests, serial_digests
from shared.x509.moment import Moment

STEPS: Final = (
    "Server name",
    "Client ID",
    "Security level",
    "Certificate can be read",
    "An active CA",
    "Chain",
    "Dates",
    "Key usage",
    "Not revoked",
    "Identity",
)
"""The ten steps by name; their numbers count from 1 (`errors.Refused.step`)."""

CHAIN_STEP: Final = 6

_SERVER_NAME_MAX: Final = 256  # characters of a server name in a refusal
_WATSON_BY_STEP: Final = {1: 163, 2: 166, 3: 163}
_WATSON_LATER: Final = 170  # of all later steps
_WATSON_CERTIFICATE_MISSING: Final = 169


def find_org_id(presented: Presented, scope: Scope) -> str | None:
    """Return the org in question: the server name's, or else the client ID's, or else the caller's key's (step 1)."""
    if _sni_counts(presented, scope) and presented.server_name is not None:
        return None if presented.server is None else presented.server.org_id
    if isinstance(presented.client_id, ClientId):
        return presented.client_id.org_id
    return scope.org_id


def _sni_counts(presented: Presented, scope: Scope) -> bool:
    return presented.tls and not scope.no_sni


# -------------------------------------------------------------------------------------------------- the judgement


class Step(msgspec.Struct, frozen=True):
    """One of the ten steps, as `explain` shows it. *status*: "passed", "failed" or "not reached"."""

    number: int
    name: str
    status: str
    found: str | None = None
    expected: str | None = None


class Action(StrEnum):  # noqa: D101 - openapi.json would show the docstring
    ACTIVATE_CA = "activate_ca"  # the id of the CA
    CLIENT_ID = "client_id"  # the client ID to set
    SERVER_NAME = "server_name"  # the host to connect to
    TYPE_CERTIFICATES = "type_certificates"  # to be switched on
    SECURITY_LEVEL = "security_level"  # the level for the type of the device
    LIFT_DENIAL = "lift_denial"  # entries of the deny list


class Cure(msgspec.Struct, frozen=True):
    """One change after which the client passes.

    Args:
        value: what to set, see `Action`.
        decision: what the client would get then: allow, or continue.
    """

    action: Action
    value: str
    decision: Decision


class TrustedCA(msgspec.Struct, frozen=True, array_like=True):
    """The registered CA that an accepted path ends with."""

    id: str
    subject: str


class Verdict(msgspec.Struct, frozen=True):
    """A decision with its reasons.

    Args:
        certificates: what each certificate presented is looked up by, leaf first; of a verdict that does not deny.
        key_digests, serial_digests: of each certificate on the accepted path, leaf first (`shared.x509.digests`); empty
            where no chain was judged.
        basis: what else a session depends on, for `shared.validation.session`; an edge keeps and returns the text.
        cures: of a refusal that is explained: the single changes after which the client passes.
        proof: the basis of the verdict: "chain", or "broker" if the broker judged the chain and passes names only.
    """

    decision: Decision
    code: str
    reason: str
    mend: str = ""
    org_id: str | None = None
    identity: DeviceName | None = None
    bound: bool = False
    ca: TrustedCA | None = None
    failing: FaultyCertificate | None = None
    failed_step: int | None = None
    expires_at: datetime | None = None
    steps: tuple[Step, ...] = ()
    presence: Presence = Presence.NONE
    certificates: tuple[CertificateIds, ...] = ()
    key_digests: tuple[str, ...] = ()
    serial_digests: tuple[str, ...] = ()
    basis: str = ""
    cures: tuple[Cure, ...] = ()
    proof: str = "chain"

    @property
    def fingerprints(self) -> tuple[tuple[str, ...], ...]:
        """The fingerprints of each certificate presented, leaf first."""
        return tuple(ids.fingerprints for ids in self.certificates)

    @property
    def watson_reason(self) -> int | None:
        """The reason number of the IBM Watson IoT Platform for a refusal; None where the platform had none."""
        if self.failed_step is None:
            return None
        if self.code == errors.CertificateMissing.code:
            return _WATSON_CERTIFICATE_MISSING
        return _WATSON_BY_STEP.get(self.failed_step, _WATSON_LATER)


def unavailable(org_id: str | None = None) -> Verdict:
    """Return the verdict if the store cannot be read: deny."""
    return Verdict(
        Decision.DENY, "unavailable", "The service could not know, so it refused.", "Try again.", org_id=org_id
    )


def judge(
    presented: Presented,
    scope: Scope,
    facts: OrgFacts | None,
    *,
    platform_domain: str,
    moment: Moment,
    weak: Container[str] = frozenset(),
    explain: bool = True,
    budget: Budget | None = None,
) -> Verdict:
    """Run the ten steps in order; the first failure is the answer.

    Args:
        facts: of the org that `find_org_id` returns; None where it does not exist.
        moment: the time that counts. It records every comparison of the steps with a date.
        weak: ids of keys known to be weak (`shared.x509.public_keys.key_ids`).
        explain: whether the verdict lists its steps; wording them takes as long as running them.
        budget: what the certificates may cost, with the time limit of the decision; None: without a time limit.

    Raises: what the time limit of *budget* raises."""
    return _Judgement(presented, scope, facts, platform_domain, moment, weak, explain, budget).verdict()


class _Judgement:
    """One run of the ten steps. Holds the results of the steps, for the verdict and for `explain`."""

    def __init__(
        self,
        presented: Presented,
        scope: Scope,
        facts: OrgFacts | None,
        platform_domain: str,
        moment: Moment,
        weak: Container[str],
        explain: bool,
        budget: Budget | None,
    ) -> None:
        self._presented = presented
        self._scope = scope
        self._facts = facts
        self._domain = platform_domain
        self._moment = moment
        self._weak = weak
        self._explain = explain
        self._budget = budget
        self._passed: list[Step] = []
        self._level = Level.CERTIFICATE
        self._path: CertificationPath = ()
        self._identity: DeviceName | None = None
        self._presence = Presence.NONE

    def verdict(self) -> Verdict:
        try:
            facts = self._check_server_name()
            self._check_client_id(facts)
            if self._needs_certificate(facts):
                self._presence = Presence.INVALID
                self._check_readable(facts)
                self._check_active_ca(facts)
                self._check_chain(facts)
                self._presence = self._check_identity(facts)
        except (errors.Refused, errors.OrgSuspended) as refusal:
            return self._refused(refusal)
        return self._satisfied(facts)

    # Each step raises its refusal, or records its result.

    def _check_server_name(self) -> OrgFacts:
        """Step 1: the org in question exists, and the caller may ask about it. Returns what is known of it."""
        presented, scope, facts = self._presented, self._scope, self._facts
        org_id = find_org_id(presented, scope)
        incarnation = facts.incarnation if facts is not None and facts.org_id == org_id else None
        if org_id is not None and not scope.may_ask_about(org_id, incarnation):
            # The caller may not learn whether that org exists.
            raise errors.OrgMismatch(
                what="server name or client ID", a=org_id, where="caller's key", b=scope.org_id or "other orgs"
            )
        counts = _sni_counts(presented, scope)
        if counts and presented.server_name is not None:
            name = presented.server
            text = presented.server_name[:_SERVER_NAME_MAX]
            if name is None:
                raise errors.SNIUnknown(name=text, host=self._own_host())
            if name.domain != self._domain and (facts is None or name.domain not in facts.custom_domains):
                if facts is not None and name.domain in facts.listed_domains:
                    raise errors.DomainSwitchedOff(domain=name.domain, host=self._host(name.org_id))
                raise errors.SNIUnknown(name=text, host=self._host(name.org_id))
        if facts is None or org_id is None:
            raise errors.OrgUnknown(domain=self._domain)
        if facts.suspended:
            raise errors.OrgSuspended
        if counts and presented.server_name is None and facts.requires_sni:
            raise errors.SNIMissing(host=self._host(org_id))
        if self._explain:
            self._pass(1, presented.server_name if counts else None, self._host(org_id))
        return facts

    def _check_client_id(self, facts: OrgFacts) -> None:
        """Step 2: the client ID is of that org. Whether the caller may ask about it is checked in step 1."""
        presented = self._presented
        org_id, client = facts.org_id, presented.client_id
        if isinstance(client, errors.ClientIdInvalid):
            is_unnamed = bool(presented.certificates) and not presented.identities
            raise errors.ClientIdInvalid(org=org_id, is_unnamed=is_unnamed)
        if client is not None and client.org_id != org_id:
            raise errors.OrgMismatch(what="client ID", a=client.org_id, where="server name", b=org_id)
        self._pass(2, client.text if client else None, f"d:{org_id}:type:device")

    def _needs_certificate(self, facts: OrgFacts) -> bool:
        """Step 3: what the policy asks of this device type. Returns whether there is a certificate to judge."""
        presented, device = self._presented, self._presented.device
        client = presented.client_id
        if isinstance(client, ClientId) and client.device is None:  # an application
            self._level = facts.policy.default
            if not presented.tls and needs_tls(self._level):
                raise errors.TLSRequired(level=self._level.value)
            # An application has no certificate. The broker asks for its API key.
            self._level = Level.TOKEN if presented.tls else Level.TLS_OPTIONAL
            self._pass(3, "an application", self._level.value)
            return False
        self._level = facts.policy.level_for(device.type_id if device else None)
        if not presented.tls and needs_tls(self._level):
            raise errors.TLSRequired(level=self._level.value)
        if presented.chain == ():
            if outcome(self._level, tls=presented.tls, presence=Presence.NONE) is Decision.DENY:
                raise errors.CertificateMissing(level=self._level.value)
            for denial in _identity_denials(facts, device):
                raise denial
        self._pass(3, "a certificate" if presented.chain else "no certificate", self._level.value)
        return presented.chain != ()

    def _check_readable(self, facts: OrgFacts) -> None:
        """Step 4: the certificates can be read, but for CAs that the org has registered: those were read as such."""
        if isinstance(self._presented.chain, errors.CertificateMalformed):
            raise self._presented.chain
        if self._presented.unread:
            registered = {ca.certificate.der for ca in facts.anchors}
            if not registered.issuperset(self._presented.unread):
                raise errors.CertificateMalformed(found=UNREAD, hint=FEWER_PARTS)
        sent = len(self._presented.certificates)
        self._pass(4, f"{sent} certificate{'s' if sent > 1 else ''}", f"1 to {CERTIFICATES_MAX}")

    def _check_active_ca(self, facts: OrgFacts) -> None:
        """Step 5: the org has an active CA."""
        if facts.has_active_ca is False:
            raise self._no_active_ca(facts)
        self._pass(5, None, "an active CA")

    def _no_active_ca(self, facts: OrgFacts) -> errors.NoTrustedCA:
        issuers = {cert.issuer.canonical for cert in self._presented.certificates}
        for ca in facts.anchors:
            if not ca.active and ca.certificate.subject.canonical in issuers:
                since = f" since {format_time(ca.deactivated_at)}" if ca.deactivated_at else ""
                subject = ca.certificate.subject_text
                return errors.NoTrustedCA(hint=f"Activate the CA certificate {subject}, which is deactivated{since}.")
        return errors.NoTrustedCA()

    def _check_chain(self, facts: OrgFacts) -> None:
        """Run steps 6 to 9. One valid path is enough, so another path is searched around denied certificates."""
        if facts.has_more_cas:  # a CA that was not read may be inactive, and forbid a path
            limit = f"{REGISTERED_ELEMENTS_MAX:,} elements of DER in the registered CAs that the certificates name"
            raise errors.ChainTooCostly(limit=limit, hint="Register smaller CAs, and send fewer certificates.")
        self._path = path = self._find_path(facts)
        if self._explain:
            self._pass(6, f"a path of {len(path)} certificates", f"a path to a CA of this org: {path[-1].subject_text}")
            self._pass(7, f"valid until {format_time(_end(path))}", format_time(self._moment.at))
            self._pass(8, "may be a TLS client", "clientAuth, digitalSignature where named")
            self._pass(9, "not on the deny list", None)

    def _find_path(self, facts: OrgFacts) -> CertificationPath:
        """Run steps 6 to 9: return a path on which nothing is denied.

        Raises: the refusal of the path that got furthest; if there are good paths, the first denial."""
        avoided: set[bytes] = set()
        denials: list[errors.CertificateRevoked] = []
        for path in self._good_paths(facts, avoided):
            denied = next(self._denials(facts, path), None)
            if denied is None:
                return path
            denials.append(denied)
            ca = next((ca for ca in path[1:] if ca is denied.cert), None)
            if ca is None:  # the leaf is denied, or the device that it names
                break
            avoided.add(ca.der)
        raise denials[0]

    def _good_paths(self, facts: OrgFacts, avoided: Collection[bytes]) -> Iterator[CertificationPath]:
        """Run steps 6 to 8: yield the paths without the certificates *avoided*, by their DER."""
        leaf, *sent = self._presented.certificates
        anchors = facts.anchors
        try:
            yield from certification_path.good_paths(
                leaf,
                sent,
                [ca.certificate for ca in anchors if ca.active],
                [ca.certificate for ca in anchors if not ca.active],
                self._moment,
                weak=self._weak,
                avoided=avoided,
                budget=self._budget,
            )
        except errors.SelfSigned:
            raise
        except errors.UntrustedIssuer as refusal:
            if not self._presented.leaf_only:
                raise
            raise errors.IssuerNotPassed(cert=refusal.cert, issuer=refusal.facts["issuer"]) from refusal
        except errors.CAInactive as refusal:
            since = next(
                (ca.deactivated_at for ca in anchors if not ca.active and _is_same_ca(ca.certificate, refusal.cert)),
                None,
            )
            raise errors.CAInactive(
                cert=refusal.cert,
                subject=refusal.facts["subject"],
                when=f" since {format_time(since)}" if since else "",
            ) from refusal

    def _denials(self, facts: OrgFacts, path: CertificationPath) -> Iterator[errors.CertificateRevoked]:
        """Step 9: return what the deny list says about the certificates on *path*, the CA included.

        A serial number counts for the CA that issued it only."""
        for cert, issuer in zip_longest(path, path[1:]) if facts.denied else ():
            for sha256 in cert.fingerprints:
                for entry in facts.denied.get(fingerprint_id(sha256), ()):
                    yield errors.CertificateRevoked(cert=cert, time=format_time(entry.since))
            for entry in facts.denied.get(key_id(cert.key_hash), ()):
                yield errors.CertificateRevoked(cert=cert, time=format_time(entry.since))
            for entry in facts.denied.get(serial_id(cert), ()):
                if issuer is not None and entry.issuer_key_hash == issuer.key_hash:
                    yield errors.CertificateRevoked(cert=cert, time=format_time(entry.since))
        anchor = _find_anchor(facts, path)
        if anchor is not None and anchor.denied_at is not None:
            yield errors.CertificateRevoked(cert=path[-1], time=format_time(anchor.denied_at))
        yield from _identity_denials(facts, self._presented.device)

    def _check_identity(self, facts: OrgFacts) -> Presence:
        """Step 10: the certificate identifies the device that the client ID names, or no device where a token counts.

        Returns which of both."""
        client = self._presented.client_id
        expected = client.device if isinstance(client, ClientId) else None
        device, tls = self._presented.device, self._presented.tls
        decision = outcome_for(facts.policy, device.type_id if device else None, tls=tls, presence=Presence.UNNAMED)
        if not self._presented.identities and decision is not Decision.DENY:
            self._pass(10, "no device", "a device, or a token")
            return Presence.UNNAMED
        self._identity = identity.match(
            self._presented.certificates[0],
            self._presented.identities,
            expected,
            type_certificates=facts.type_certificates,
            org_id=facts.org_id,
        )
        self._pass(10, str(self._identity), str(expected) if expected else "exactly one identity")
        return Presence.VALID

    # The answer.

    def _satisfied(self, facts: OrgFacts) -> Verdict:
        decision = outcome(self._level, tls=self._presented.tls, presence=self._presence)
        client = self._presented.client_id
        named = client.device if isinstance(client, ClientId) else None
        if decision is Decision.ALLOW:
            code, reason = "allowed", f"{self._identity} is allowed."
        else:
            code, reason = "token_required", "Certificate part passed; the broker asks for the token next."
        return Verdict(
            decision,
            code,
            reason,
            org_id=facts.org_id,
            identity=self._identity or named,
            bound=isinstance(client, ClientId),
            ca=_trusted_ca(facts, self._path),
            expires_at=_end(self._path) if self._path else None,
            steps=self._all_steps(),
            presence=self._presence,
            certificates=self._presented.certificate_ids,
            key_digests=key_digests(self._path),
            serial_digests=serial_digests(self._path),
            basis=format_basis(
                decision,
                by_type=self._is_by_type_certificate(),
                unnamed=self._presence is Presence.UNNAMED,
                incarnation=facts.incarnation,
            ),
        )

    def _is_by_type_certificate(self) -> bool:
        """Return whether the certificate names the type of the device, and not the device."""
        return self._identity is not None and self._identity not in self._presented.identities

    def _refused(self, refusal: errors.Refused | errors.OrgSuspended) -> Verdict:
        number = refusal.step
        client = self._presented.client_id
        expected = refusal.facts.get("expected")
        failed = Step(number, STEPS[number - 1], "failed", refusal.reason, None if expected is None else str(expected))
        for earlier in range(len(self._passed) + 1, number):  # steps 6 to 9 are run together
            is_judged = self._presented.certificates or earlier <= 3  # a denied identity needs no certificate
            self._passed.append(Step(earlier, STEPS[earlier - 1], "passed" if is_judged else "not reached"))
        about = self._facts if number > 2 or refusal.code in ("client_id_invalid", "sni_missing") else None
        return Verdict(
            Decision.DENY,
            refusal.code,
            refusal.reason,
            refusal.advice,
            org_id=about.org_id if about else self._own_org(),
            identity=client.device if isinstance(client, ClientId) and about else None,
            bound=False,
            failing=refusal.cert,
            failed_step=number,
            steps=self._all_steps(failed),
            presence=self._presence,
        )

    def _pass(self, number: int, found: str | None, expected: str | None) -> None:
        if self._explain:
            self._passed.append(Step(number, STEPS[number - 1], "passed", found, expected))

    def _all_steps(self, failed: Step | None = None) -> tuple[Step, ...]:
        if not self._explain:
            return ()
        reached = [*self._passed, failed] if failed else self._passed
        rest = (Step(number, STEPS[number - 1], "not reached") for number in range(len(reached) + 1, len(STEPS) + 1))
        return (*reached, *rest)

    def _own_org(self) -> str | None:
        facts = self._facts
        is_asked = facts is not None and self._scope.may_ask_about(facts.org_id, facts.incarnation)
        return self._scope.org_id or (facts.org_id if facts is not None and is_asked else None)

    def _own_host(self) -> str:
        """Return the host to name in a refusal where the server name names no org."""
        client = self._presented.client_id
        org_id = self._scope.org_id or (client.org_id if isinstance(client, ClientId) else "<orgId>")
        return self._host(org_id)

    def _host(self, org_id: str) -> str:
        return messaging_host(org_id, self._domain)


def _identity_denials(facts: OrgFacts, device: DeviceName | None) -> Iterator[errors.CertificateRevoked]:
    """Return what the deny list says about *device*."""
    for entry in facts.denied.get(identity_id(device), ()) if device is not None else ():
        yield errors.CertificateRevoked(time=format_time(entry.since))


def _find_anchor(facts: OrgFacts, path: CertificationPath) -> Anchor | None:
    """Return the active CA that *path* ends with."""
    anchors = facts.anchors if path else ()
    return next((ca for ca in anchors if ca.active and ca.certificate == path[-1]), None)


def _trusted_ca(facts: OrgFacts, path: CertificationPath) -> TrustedCA | None:
    """Return the active CA that *path* ends with, as a verdict names it."""
    anchor = _find_anchor(facts, path)
    return TrustedCA(anchor.id, anchor.certificate.subject_text) if anchor is not None else None


def _is_same_ca(ca: Certificate, other: FaultyCertificate | None) -> bool:
    """Whether both have one name and key: a renewed or cross-signed certificate is the same CA."""
    return (
        isinstance(other, Certificate)
        and ca.subject.canonical == other.subject.canonical
        and ca.public_key == other.public_key
    )


def _end(path: CertificationPath) -> datetime:
    """Return when the first certificate of *path* ends: a session must not outlive it."""
    return min(cert.not_after for cert in path)
