"""May this client connect? The ten steps of verifyClient as one pure function over what is known.

`Presented.of` reads what a client sent; `questions` tells what must be known to judge it (so that the caller can ask
for all of it in one read); `judge` runs the steps in order, and the first failure is the answer.
"""

import hashlib
from collections.abc import Collection, Container, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from shared import errors
from shared.validation import identity
from shared.validation.names import ClientId, DeviceName, ServerName, messaging_host
from shared.validation.policy import Decision, Level, Policy, Presence, needs_tls, outcome
from shared.x509 import distinguished_name, pem
from shared.x509 import path as trust
from shared.x509.certificate import Certificate
from shared.x509.encoding import public_key_info
from shared.x509.validity import shown_time

CERTIFICATES_MAX: Final = 10
CERTIFICATES_BYTES: Final = 64 * 1024  # as PEM or DER, together
_DENIED_PATHS: Final = 8  # how often another path is looked for, around denied certificates

STEPS: Final = (
    "Server name",
    "Client ID",
    "Level",
    "Readable",
    "A CA",
    "Chain",
    "Dates",
    "Use",
    "Not revoked",
    "Identity",
)
"""The ten steps by name; their numbers count from 1."""

STEP_OF: Final[Mapping[str, int]] = {
    code: number
    for number, codes in enumerate(
        (
            ("sni_missing", "sni_unknown", "org_unknown", "org_suspended"),
            ("client_id_invalid", "org_mismatch"),
            ("tls_required", "certificate_missing"),
            ("certificate_malformed",),
            ("no_trusted_ca",),
            ("untrusted_issuer", "signature_invalid", "chain_invalid", "weak_key", "weak_signature", "ca_inactive"),
            ("certificate_expired", "certificate_not_yet_valid", "ca_expired"),
            ("wrong_key_usage",),
            ("certificate_revoked",),
            ("identity_missing", "identity_mismatch", "type_certificate_refused"),
        ),
        start=1,
    )
    for code in codes
}

_WATSON_BY_STEP: Final = {1: 163, 2: 166, 3: 163}  # all later steps: 170
_WATSON_BY_CODE: Final = {"certificate_missing": 169}


def watson_reason(code: str) -> int | None:
    """The reason number of the IBM Watson IoT Platform for a refusal code; None where it has none."""
    step = STEP_OF.get(code)
    return None if step is None else _WATSON_BY_CODE.get(code, _WATSON_BY_STEP.get(step, 170))


# ------------------------------------------------------------------------------------------ what a client shows


class Presented(msgspec.Struct, frozen=True, dict=True):
    """What a client showed, read as far as it can be read.

    *client_id* and *chain* hold the refusal where they cannot be read: it is the answer of a later step.
    """

    server_name: str | None
    client_id: ClientId | errors.ClientIdInvalid | None
    chain: tuple[Certificate, ...] | errors.CertificateMalformed  # leaf first; empty: no certificate
    tls: bool

    @classmethod
    def of(
        cls,
        *,
        server_name: str | None = None,
        client_id: str | None = None,
        certificate: bytes | None = None,
        chain: bytes = b"",
        tls: bool = True,
    ) -> "Presented":
        """Read what came in.

        Args:
            certificate: the leaf, PEM (others may follow it) or DER.
            chain: what the client sent after it, PEM or concatenated DER."""
        name: ClientId | errors.ClientIdInvalid | None = None
        if client_id:
            try:
                name = ClientId.parse(client_id)
            except errors.ClientIdInvalid as refusal:
                name = refusal
        sent: tuple[Certificate, ...] | errors.CertificateMalformed = ()
        if certificate and tls:  # without TLS nothing proves that the client has the key
            try:
                sent = _read(certificate, chain)
            except errors.CertificateMalformed as refusal:
                sent = refusal
        return cls(server_name or None, name, sent, tls)

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """What was sent, leaf first; empty where there is none, or it cannot be read."""
        return self.chain if isinstance(self.chain, tuple) else ()

    @cached_property
    def identities(self) -> tuple[DeviceName, ...]:
        """The identities the leaf carries."""
        return identity.candidates(self.certificates[0]) if self.certificates else ()

    @cached_property
    def server(self) -> ServerName | None:
        """The server name taken apart; None where there is none, or it is no messaging host's."""
        return None if self.server_name is None else ServerName.parse(self.server_name)

    @property
    def device(self) -> DeviceName | None:
        """The device this is about: the client ID's, else the single one the certificate names."""
        if isinstance(self.client_id, ClientId):
            return self.client_id.device
        return identity.single(self.identities)


def _read(leaf: bytes, more: bytes) -> tuple[Certificate, ...]:
    """Leaf and what follows it, every field read. Raises: CertificateMalformed."""
    size = len(leaf) + len(more)
    if size > CERTIFICATES_BYTES:
        raise errors.CertificateMalformed(found=f"{size:,} bytes were sent, at most {CERTIFICATES_BYTES:,} are read")
    ders = [der for data in (leaf, more) if data for der in _split(data)]
    if len(ders) > CERTIFICATES_MAX:
        raise errors.CertificateMalformed(found=f"{len(ders)} certificates were sent, at most {CERTIFICATES_MAX} are")
    return trust.parse_presented(ders)


def _split(data: bytes) -> list[bytes]:
    try:
        return pem.split(data)
    except errors.Rejected as error:
        raise errors.CertificateMalformed(found="there is no certificate in it, neither PEM nor DER") from error


# ------------------------------------------------------------------------------------------------ what is known


class Scope(msgspec.Struct, frozen=True):
    """Who asks: the caller's key, as far as it matters to the answer.

    *org_id* is None for a platform key; *orgs* empty then means every org."""

    org_id: str | None
    orgs: Collection[str] = ()
    no_sni: bool = False

    def may_ask_about(self, org_id: str) -> bool:
        return org_id == self.org_id if self.org_id is not None else not self.orgs or org_id in self.orgs


class Anchor(msgspec.Struct, frozen=True):
    """A registered CA."""

    id: str
    certificate: Certificate
    active: bool
    denied_at: datetime | None = None
    deactivated_at: datetime | None = None

    @property
    def cert(self) -> x509.Certificate:
        return self.certificate.cert


class Denied(msgspec.Struct, frozen=True):
    """A deny-list entry that was found. *issuer_key_hash* is set for a serial's."""

    since: datetime
    issuer_key_hash: str | None = None


class OrgFacts(msgspec.Struct, frozen=True):
    """What must be known of an org to judge one of its clients.

    Args:
        denied: the entries found, by the look-up ids that `questions` named.
        has_active_ca: None where only the CAs that matter to this client were read.
    """

    org_id: str
    suspended: bool
    requires_sni: bool
    custom_domains: Collection[str]
    type_certificates: bool
    policy: Policy
    anchors: Sequence[Anchor] = ()
    denied: Mapping[str, Sequence[Denied]] = msgspec.field(default_factory=dict)
    has_active_ca: bool | None = None


def asked_org(presented: Presented, asker: Scope) -> str | None:
    """The org a question is about: the server name's, else the client ID's, else the caller's key's (step 1)."""
    if _sni_counts(presented, asker) and presented.server_name is not None:
        return None if presented.server is None else presented.server.org_id
    if isinstance(presented.client_id, ClientId):
        return presented.client_id.org_id
    return asker.org_id


def _sni_counts(presented: Presented, asker: Scope) -> bool:
    return presented.tls and not asker.no_sni


class Questions(msgspec.Struct, frozen=True):
    """What must be looked up to judge a client: CAs by subject name, deny-list entries by look-up id."""

    issuer_names: tuple[str, ...]
    denials: tuple[str, ...]


def questions(presented: Presented) -> Questions:
    """Everything needed is known from what was sent, so one batched read answers it."""
    names: set[str] = set()
    denials: set[str] = set()
    for one in presented.certificates:
        names.add(one.issuer_digest[:16])
        denials.update(map(fingerprint_id, one.fingerprints))
        denials.add(issuer_serial_id(one.issuer_digest, one.cert.serial_number))
    if (device := presented.device) is not None:
        denials.add(identity_id(device))
    return Questions(tuple(sorted(names)), tuple(sorted(denials)))


def fingerprint(cert: x509.Certificate) -> str:
    """SHA-256 of the certificate, hex."""
    return cert.fingerprint(hashes.SHA256()).hex()


def key_hash(cert: x509.Certificate) -> str:
    """SHA-256 of the certificate's SubjectPublicKeyInfo, hex."""
    return public_key_hash(cert.public_key())


def public_key_hash(key: object) -> str:
    """SHA-256 of a public key's SubjectPublicKeyInfo, hex."""
    return hashlib.sha256(public_key_info(key)).hexdigest()


def fingerprint_id(sha256: str) -> str:
    """The deny list's look-up id of the very certificate whose SHA-256, in hex, is *sha256*."""
    return f"f-{sha256}"


def serial_id(cert: x509.Certificate) -> str:
    """The deny list's look-up id of an issuer's name and a serial number."""
    return issuer_serial_id(distinguished_name.digest(cert.issuer), cert.serial_number)


def issuer_serial_id(issuer_digest: str, serial: int) -> str:
    return f"s-{issuer_digest[:32]}-{serial:x}"


def identity_id(device: DeviceName) -> str:
    """The deny list's look-up id of a device or gateway."""
    return f"i-{device}"


# -------------------------------------------------------------------------------------------------- the judgement


class Step(msgspec.Struct, frozen=True):
    """One of the ten, as `explain` shows it. *status*: "passed", "failed" or "not reached"."""

    number: int
    name: str
    status: str
    found: str | None = None
    expected: str | None = None


class Verdict(msgspec.Struct, frozen=True):
    """The answer, and why."""

    decision: Decision
    code: str
    reason: str
    mend: str = ""
    org_id: str | None = None
    identity: DeviceName | None = None
    bound: bool = False
    ca: Anchor | None = None
    failing: x509.Certificate | None = None
    expires_at: datetime | None = None
    steps: tuple[Step, ...] = ()
    shown: Presence = Presence.NONE
    fingerprints: tuple[tuple[str, ...], ...] = ()  # of each certificate shown, leaf first (`fingerprints.of`)
    proof: str = "chain"  # what it rests on: the chain judged here, or a "broker" that judged it and passes names

    @property
    def watson_reason(self) -> int | None:
        return watson_reason(self.code) if self.decision is Decision.DENY else None


def unavailable(org_id: str | None = None) -> Verdict:
    """The answer where the service could not know: deny."""
    return Verdict(
        Decision.DENY, "unavailable", "The service could not know, so it refused.", "Try again.", org_id=org_id
    )


def judge(
    presented: Presented,
    asker: Scope,
    facts: OrgFacts | None,
    *,
    platform_domain: str,
    at: datetime,
    weak: Container[str] = frozenset(),
    explain: bool = True,
) -> Verdict:
    """Run the ten steps in order; the first failure is the answer.

    Args:
        facts: of the org that `asked_org` names; None where it does not exist.
        at: now, aware.
        weak: ids of keys known to be weak (`shared.x509.strength`).
        explain: whether the verdict tells its steps, which take as long to put into words as to run."""
    return _Judgement(presented, asker, facts, platform_domain, at, weak, explain).verdict()


class _Judgement:
    """One run of the ten steps. Holds what the steps found, for the verdict and for `explain`."""

    def __init__(
        self,
        presented: Presented,
        asker: Scope,
        facts: OrgFacts | None,
        platform_domain: str,
        at: datetime,
        weak: Container[str],
        explain: bool,
    ) -> None:
        self._presented = presented
        self._asker = asker
        self._known = facts
        self._domain = platform_domain
        self._at = at
        self._weak = weak
        self._explain = explain
        self._passed: list[Step] = []
        self._level = Level.CERTIFICATE
        self._path: trust.Path = ()
        self._identity: DeviceName | None = None
        self._shown = Presence.NONE

    def verdict(self) -> Verdict:
        try:
            self._server_name()
            self._client_id()
            if not self._level_needs_certificate():
                return self._satisfied()
            self._shown = Presence.INVALID
            self._readable()
            self._a_ca()
            self._chain_dates_use()
            self._identity_matches()
        except errors.TrustError as refusal:
            return self._refused(refusal)
        self._shown = Presence.VALID
        return self._satisfied()

    # Each step raises its refusal, or records what it found.

    def _server_name(self) -> None:
        """Step 1: which org, and is it here."""
        presented, asker = self._presented, self._asker
        org_id = asked_org(presented, asker)
        if org_id is not None and not asker.may_ask_about(
            org_id
        ):  # whether that org exists is not the caller's to know
            raise errors.OrgMismatch(
                what="Server name or client ID", a=org_id, where="the caller's key", b=asker.org_id or "other orgs"
            )
        counts = _sni_counts(presented, asker)
        if counts and presented.server_name is not None:
            name = presented.server
            if name is None:
                raise errors.SNIUnknown(name=presented.server_name[:256], host=self._own_host())
            if name.domain != self._domain and (self._known is None or name.domain not in self._known.custom_domains):
                raise errors.SNIUnknown(name=presented.server_name[:256], host=self._host(name.org_id))
        if self._known is None or org_id is None:
            raise errors.OrgUnknown(domain=self._domain)
        if self._known.suspended:
            raise errors.OrgSuspended
        if counts and presented.server_name is None and self._known.requires_sni:
            raise errors.SNIMissing(host=self._host(org_id))
        if self._explain:
            self._pass(1, presented.server_name if counts else None, self._host(org_id))

    def _client_id(self) -> None:
        """Step 2: the client ID speaks of that org (whether the caller's key may, step 1 has asked)."""
        org_id, client = self._facts.org_id, self._presented.client_id
        if isinstance(client, errors.ClientIdInvalid):
            raise errors.ClientIdInvalid(org=org_id)
        if client is not None and client.org_id != org_id:
            raise errors.OrgMismatch(what="Client ID", a=client.org_id, where="server name", b=org_id)
        self._pass(2, client.text if client else None, f"d:{org_id}:type:device")

    def _level_needs_certificate(self) -> bool:
        """Step 3: what the policy asks of this device type. False where there is no certificate to judge."""
        presented, device = self._presented, self._presented.device
        client = presented.client_id
        if isinstance(client, ClientId) and client.device is None:  # an application: the broker asks for its API key
            self._level = self._facts.policy.default
            if not presented.tls and needs_tls(self._level):
                raise errors.TLSRequired(level=self._level.value)
            # Never a certificate, always its API key, which the broker asks for
            self._level = Level.TOKEN if presented.tls else Level.TLS_OPTIONAL
            self._pass(3, "an application", self._level.value)
            return False
        self._level = self._facts.policy.level_for(device.type_id if device else None)
        if not presented.tls and needs_tls(self._level):
            raise errors.TLSRequired(level=self._level.value)
        if presented.chain == ():
            if outcome(self._level, tls=presented.tls, shown=Presence.NONE) is Decision.DENY:
                raise errors.CertificateMissing(level=self._level.value)
            if device is not None:
                self._check_denied(identity_id(device), None)
        self._pass(3, "a certificate" if presented.chain else "no certificate", self._level.value)
        return presented.chain != ()

    def _readable(self) -> None:
        """Step 4."""
        if isinstance(self._presented.chain, errors.CertificateMalformed):
            raise self._presented.chain
        sent = len(self._presented.certificates)
        self._pass(4, f"{sent} certificate{'s' if sent > 1 else ''}", f"1 to {CERTIFICATES_MAX}")

    def _a_ca(self) -> None:
        """Step 5: the org trusts somebody."""
        if self._facts.has_active_ca is False:
            raise errors.NoTrustedCA
        self._pass(5, None, "an active CA")

    def _chain_dates_use(self) -> None:
        """Steps 6 to 9: any path that passes is enough, so another is looked for around denied certificates."""
        denied: set[bytes] = set()
        refusal: errors.CertificateRevoked | None = None
        for _ in range(_DENIED_PATHS):
            try:
                path = self._verified(denied)
            except errors.TrustError:
                if refusal is None:
                    raise
                raise refusal from None
            try:
                self._not_denied(path)
            except errors.CertificateRevoked as found:
                refusal = refusal or found
                at_fault = next((one for one in path[1:] if one.cert is found.cert), None)
                if at_fault is None:  # the leaf itself, or whom it names
                    break
                denied.add(at_fault.der)
                continue
            self._path = path
            if self._explain:
                anchor = distinguished_name.shown(path[-1].subject_name)
                self._pass(6, f"a path of {len(path)} certificates", f"a path to a CA of this org: {anchor}")
                self._pass(7, f"valid until {shown_time(_end(path))}", shown_time(self._at))
                self._pass(8, "may be a TLS client", "clientAuth, digitalSignature where named")
                self._pass(9, "not on the deny list", None)
            return
        assert refusal is not None  # noqa: S101 - the loop ends early only with one
        raise refusal

    def _verified(self, without: Collection[bytes]) -> trust.Path:
        leaf, *sent = self._presented.certificates
        anchors = self._facts.anchors
        try:
            return trust.verify(
                leaf,
                [one for one in sent if one.der not in without],
                [one.certificate for one in anchors if one.active and one.certificate.der not in without],
                [one.certificate for one in anchors if not one.active],
                self._at,
                weak=self._weak,
            )
        except errors.CAInactive as refusal:
            since = next(
                (one.deactivated_at for one in anchors if not one.active and _is_same_ca(one.cert, refusal.cert)), None
            )
            raise errors.CAInactive(
                cert=refusal.cert,
                subject=refusal.facts["subject"],
                when=f" since {shown_time(since)}" if since else "",
            ) from refusal

    def _not_denied(self, path: trust.Path) -> None:
        """Step 9: no certificate on the path, the CA included. A serial counts for the CA that issued it only."""
        for number, one in enumerate(path if self._facts.denied else ()):
            for sha256 in one.fingerprints:
                self._check_denied(fingerprint_id(sha256), one.cert)
            issuer = path[number + 1] if number + 1 < len(path) else None
            for entry in self._facts.denied.get(issuer_serial_id(one.issuer_digest, one.cert.serial_number), ()):
                if issuer is not None and entry.issuer_key_hash == key_hash(issuer.cert):
                    raise errors.CertificateRevoked(cert=one.cert, time=shown_time(entry.since))
        anchor = self._anchor(path)
        if anchor is not None and anchor.denied_at is not None:
            raise errors.CertificateRevoked(cert=path[-1].cert, time=shown_time(anchor.denied_at))
        device = self._presented.device
        if device is not None:
            self._check_denied(identity_id(device), None)

    def _check_denied(self, look_up: str, cert: x509.Certificate | None) -> None:
        for entry in self._facts.denied.get(look_up, ()):
            raise errors.CertificateRevoked(cert=cert, time=shown_time(entry.since))

    def _identity_matches(self) -> None:
        """Step 10."""
        client = self._presented.client_id
        expected = client.device if isinstance(client, ClientId) else None
        self._identity = identity.match(
            self._presented.certificates[0].cert,
            self._presented.identities,
            expected,
            type_certificates=self._facts.type_certificates,
        )
        self._pass(10, str(self._identity), str(expected) if expected else "exactly one identity")

    # The answer.

    def _satisfied(self) -> Verdict:
        decision = outcome(self._level, tls=self._presented.tls, shown=self._shown)
        client = self._presented.client_id
        named = client.device if isinstance(client, ClientId) else None
        if decision is Decision.ALLOW:
            code, reason = "allowed", f"{self._identity} is let in."
        else:
            code, reason = "token_required", "Certificate part passed; the broker asks for the token next."
        return Verdict(
            decision,
            code,
            reason,
            org_id=self._facts.org_id,
            identity=self._identity or named,
            bound=isinstance(client, ClientId),
            ca=self._anchor(self._path),
            expires_at=_end(self._path) if self._path else None,
            steps=self._every_step(),
            shown=self._shown,
            fingerprints=tuple(one.fingerprints for one in self._presented.certificates),
        )

    def _refused(self, refusal: errors.TrustError) -> Verdict:
        number = STEP_OF[refusal.code]
        client = self._presented.client_id
        expected = refusal.facts.get("expected")
        failed = Step(number, STEPS[number - 1], "failed", refusal.reason, None if expected is None else str(expected))
        for earlier in range(len(self._passed) + 1, number):  # steps 6 to 9 are taken together
            judged = self._presented.certificates or earlier <= 3  # a denied identity needs no certificate
            self._passed.append(Step(earlier, STEPS[earlier - 1], "passed" if judged else "not reached"))
        about = self._known if number > 2 or refusal.code in ("client_id_invalid", "sni_missing") else None
        return Verdict(
            Decision.DENY,
            refusal.code,
            refusal.reason,
            refusal.advice,
            org_id=about.org_id if about else self._own_org(),
            identity=client.device if isinstance(client, ClientId) and about else None,
            bound=False,
            failing=refusal.cert,
            steps=self._every_step(failed),
            shown=self._shown,
        )

    @property
    def _facts(self) -> OrgFacts:
        assert self._known is not None  # noqa: S101 - step 1 has refused otherwise
        return self._known

    def _pass(self, number: int, found: str | None, expected: str | None) -> None:
        if not self._explain:
            return
        self._passed.append(Step(number, STEPS[number - 1], "passed", found, expected))

    def _every_step(self, failed: Step | None = None) -> tuple[Step, ...]:
        if not self._explain:
            return ()
        reached = [*self._passed, failed] if failed else self._passed
        rest = (Step(number, STEPS[number - 1], "not reached") for number in range(len(reached) + 1, len(STEPS) + 1))
        return (*reached, *rest)

    def _anchor(self, path: trust.Path) -> Anchor | None:
        anchors = self._facts.anchors if path else ()
        return next((one for one in anchors if one.active and one.certificate.der == path[-1].der), None)

    def _own_org(self) -> str | None:
        known = self._known.org_id if self._known else None
        return self._asker.org_id or (known if known is not None and self._asker.may_ask_about(known) else None)

    def _own_host(self) -> str:
        """The host to tell where the server name names no org."""
        client = self._presented.client_id
        org_id = self._asker.org_id or (client.org_id if isinstance(client, ClientId) else "<orgId>")
        return self._host(org_id)

    def _host(self, org_id: str) -> str:
        return messaging_host(org_id, self._domain)


def _is_same_ca(one: x509.Certificate, other: x509.Certificate | None) -> bool:
    """Same name and key: a renewed or cross-signed certificate is the same CA."""
    return other is not None and (
        distinguished_name.canonical(one.subject) == distinguished_name.canonical(other.subject)
        and one.public_key() == other.public_key()
    )


def _end(path: trust.Path) -> datetime:
    """When the first certificate of the path ends: a session must not outlive it."""
    return min(one.ends for one in path)
