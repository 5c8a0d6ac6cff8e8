"""What the API shows of records: the answers' types, from which the OpenAPI document is made too.

No view but `HostKeyView`, for TLS edges, has a field for a private key; none has one for a passphrase or a token.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

import msgspec
from msgspec import UNSET, UnsetType

from functions.verdict_wire import Failing
from functions.web.contract import View
from shared.records import CA, DEFAULT, Activity, Denial, Org, Revision
from shared.usecases.devices.usage import RecentUsage
from shared.usecases.edges.reports import is_served_since
from shared.usecases.servers.documents import ParsedServerCertificate
from shared.validation.notices import Notice
from shared.x509.certificate import Certificate
from shared.x509.public_keys import describe_key


class Warned(View, frozen=True, kw_only=True):
    """A warning: accepted, and yet worth saying."""

    code: str
    message: str


def warned(notices: Sequence[Notice]) -> tuple[Warned, ...]:
    return tuple(Warned(code=one.code, message=one.message) for one in notices)


class CertificateView(View, frozen=True, kw_only=True):
    """The fields of a certificate that people ask for. Times are UTC, both ends included."""

    subject: str
    issuer: str
    serial_number: str  # hex
    not_before: datetime
    not_after: datetime
    fingerprint_sha256: str = msgspec.field(name="fingerprintSha256")  # hex
    key_algorithm: str


def _common(cert: Certificate) -> dict[str, object]:
    return {
        "subject": cert.subject_text,
        "issuer": cert.issuer.text,
        "serial_number": f"{cert.serial_number:x}",
        "not_before": cert.not_before,
        "not_after": cert.not_after,
        "fingerprint_sha256": cert.fingerprint,
        "key_algorithm": describe_key(cert.public_key),
    }


def certificate_view(cert: Certificate) -> CertificateView:
    return CertificateView(**_common(cert))  # type: ignore[arg-type]


@lru_cache(maxsize=2048)
def parsed(der: bytes) -> Certificate:
    """A stored certificate never changes."""
    return Certificate.from_der(der)


def as_pem(*certs: Certificate) -> str:
    """Certificates as PEM, one after the other."""
    return "".join(cert.pem for cert in certs)


def pem(der: bytes) -> str:
    """A stored certificate as PEM."""
    return as_pem(parsed(der))


class _Stamped(View, frozen=True, kw_only=True):
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str
    version: str


def _stamp(changed: Revision) -> dict[str, object]:
    return {
        "created_at": changed.created_at,
        "created_by": changed.created_by,
        "updated_at": changed.updated_at,
        "updated_by": changed.updated_by,
        "version": changed.version,
    }


# -------------------------------------------------------------------------------------------- CA certificates


class CAView(_Stamped, frozen=True, kw_only=True):
    """A registered CA certificate."""

    id: str
    status: str  # "active" or "inactive"
    subject: str
    issuer: str
    serial_number: str
    not_before: datetime
    not_after: datetime
    fingerprint_sha256: str = msgspec.field(name="fingerprintSha256")
    key_algorithm: str
    comments: str
    denied_at: datetime | None  # on the deny list since then
    last_used: datetime | None
    connections_30d: int = msgspec.field(name="connections30d")
    warnings: tuple[Warned, ...] | UnsetType = UNSET


def ca_view(ca_id: str, ca: CA, lately: RecentUsage, warnings: Sequence[Notice] | None = None) -> CAView:
    use = lately.of_ca(ca_id)
    return CAView(
        id=ca_id,
        status=ca.status.value,
        comments=ca.comments,
        denied_at=ca.denied_at,
        last_used=use.last if use else None,
        connections_30d=use.count if use else 0,
        warnings=UNSET if warnings is None else warned(warnings),
        **_common(parsed(ca.der)),  # type: ignore[arg-type]
        **_stamp(ca.changed),  # type: ignore[arg-type]
    )


class CAList(View, frozen=True, kw_only=True):
    results: tuple[CAView, ...]
    bookmark: str | None


class CAEffect(View, frozen=True, kw_only=True):
    """What deleting or deactivating a CA would touch. At least so many connections: they are a sample."""

    connections_30d: int = msgspec.field(name="connections30d")
    last_used: datetime | None
    also_vouched_by: tuple[str, ...]  # ids of other active CAs with the same name and key


# ---------------------------------------------------------------------------------------- server certificates


class ServerView(_Stamped, frozen=True, kw_only=True):
    """A messaging server certificate, or a request that waits for its signature (status `csr`)."""

    id: str
    status: str  # "certificate" or "csr"
    source: str  # "default", "upload" or "csr"
    active: bool
    served_since: datetime | None
    names: tuple[str, ...]
    hosts: tuple[str, ...]  # those of the org that it covers
    chain: tuple[CertificateView, ...]
    subject: str
    issuer: str | None
    serial_number: str | None
    not_before: datetime | None
    not_after: datetime | None
    fingerprint_sha256: str | None = msgspec.field(name="fingerprintSha256")
    key_algorithm: str
    comments: str
    csr: str | None  # PEM
    warnings: tuple[Warned, ...] | UnsetType = UNSET


def server_view(
    one: ParsedServerCertificate, org: Org, hosts: Sequence[str], warnings: Sequence[Notice] | None = None
) -> ServerView:
    return ServerView(
        id=one.id,
        status="certificate" if one.leaf else "csr",
        source=one.source.value,
        active=org.activation.active == one.id,
        served_since=_served_since(one, org),
        names=tuple(one.names),
        hosts=tuple(hosts),
        chain=tuple(certificate_view(cert) for cert in one.chain),
        subject=one.subject,
        issuer=one.leaf.issuer.text if one.leaf else None,
        serial_number=f"{one.leaf.serial_number:x}" if one.leaf else None,
        not_before=one.leaf.not_before if one.leaf else None,
        not_after=one.leaf.not_after if one.leaf else None,
        fingerprint_sha256=one.leaf.fingerprint if one.leaf else None,
        key_algorithm=describe_key(one.public_key),
        comments=one.comments,
        csr=one.csr_pem,
        warnings=UNSET if warnings is None else warned(warnings),
        **_stamp(one.changed),  # type: ignore[arg-type]
    )


def _served_since(one: ParsedServerCertificate, org: Org) -> datetime | None:
    """Since when an edge shows it to devices; None while none does. The default serves hosts beside the active one."""
    if one.id == DEFAULT:
        return one.served_since
    activated = org.activation.activated_at if org.activation.active == one.id else None
    return one.served_since if activated is not None and is_served_since(one.served_since, activated) else None


class ServerList(View, frozen=True, kw_only=True):
    results: tuple[ServerView, ...]
    bookmark: str | None


class ActiveView(View, frozen=True, kw_only=True):
    """Which server certificate is shown to devices, and which one before it."""

    active: str
    previous: str | None
    activated_at: datetime | None
    version: str


class ActivationView(ActiveView, frozen=True, kw_only=True):
    """The answer to an activation, or to its preflight."""

    hosts: tuple[str, ...]  # those it is shown at
    not_after: datetime
    chain_complete: bool
    warnings: tuple[Warned, ...]


class AcceptanceView(View, frozen=True, kw_only=True):
    """Whether a certificate would be accepted, and why not."""

    accepted: bool
    code: str | None = None
    message: str | None = None
    warnings: tuple[Warned, ...] = ()


class PreviewView(CertificateView, frozen=True, kw_only=True):
    """The fields of a certificate that nobody has saved yet."""

    names: tuple[str, ...]
    self_signed: bool
    ca: AcceptanceView
    server: AcceptanceView


# ------------------------------------------------------------------------------- policy, settings, deny list


class LevelRule(View, frozen=True, kw_only=True):
    device_type: str
    level: str


class PolicyView(View, frozen=True, kw_only=True):
    default: str
    rules: tuple[LevelRule, ...]
    updated_at: datetime
    updated_by: str
    version: str


class LevelChange(View, frozen=True, kw_only=True):
    """A device type whose level would differ."""

    device_type: str
    from_: str = msgspec.field(name="from")
    to: str


class Sample(View, frozen=True, kw_only=True):
    """How many clients were seen in the last 30 days (of those that are kept), the oldest of them when."""

    identities: int
    since: datetime | None


class DryRunView(View, frozen=True, kw_only=True):
    changed: tuple[LevelChange, ...]
    sample: Sample
    refused: int
    refused_types: tuple[str, ...]


class CustomDomainsView(View, frozen=True, kw_only=True):
    enabled: bool
    domains: tuple[str, ...]


class SettingsView(View, frozen=True, kw_only=True):
    custom_domains: CustomDomainsView
    type_certificates: bool
    updated_at: datetime
    updated_by: str
    version: str


class DenialView(View, frozen=True, kw_only=True):
    """An entry of the deny list."""

    id: str
    kind: str
    value: str
    reason: str
    created_at: datetime
    created_by: str


def denial_view(one: Denial) -> DenialView:
    return DenialView(
        id=one.id,
        kind=one.kind.value,
        value=one.value,
        reason=one.reason,
        created_at=one.created_at,
        created_by=one.created_by,
    )


class DenialList(View, frozen=True, kw_only=True):
    results: tuple[DenialView, ...]
    bookmark: str | None


# -------------------------------------------------------------------------------------------------- TLS edges


class HostView(View, frozen=True, kw_only=True):
    """A host at its version. *removed*: no longer served; *certificateId* is `default` for the platform's own."""

    server_name: str
    org: str
    version: str
    removed: bool
    client_certificate: str
    certificate_id: str


class HostsView(View, frozen=True, kw_only=True):
    """What changed since. *head*: to ask with next, at once where *more*. *full*: pages of everything, beginning with
    the *first*; once `more` is false, a host on none of them is gone."""

    head: str
    hosts: tuple[HostView, ...]
    more: bool
    full: bool
    first: bool
    default_version: str | None


class HostKeyView(View, frozen=True, kw_only=True):
    """What an edge needs to serve a host. The only answer of this API that has a private key in it."""

    server_name: str
    org: str
    version: str
    certificate_id: str
    certificate: str  # PEM, leaf first
    private_key: str  # PEM, PKCS#8
    client_certificate: str

    def __repr__(self) -> str:
        return f"HostKeyView({self.server_name!r})"


class ServedView(View, frozen=True, kw_only=True):
    """*stale*: hosts whose version is not the one that stands, or that are not the caller's."""

    taken: int
    stale: tuple[str, ...]


class WithdrawalView(View, frozen=True, kw_only=True):
    """Live sessions to end. *kind* and *value*: `org`; `ca` and its id; `identity` and `d:type:device`; `fingerprint`
    and SHA-256 of a certificate; `serial` and `<CA id>:<serial number in hex>`."""

    org: str
    kind: str
    value: str
    at: datetime


class WithdrawalsView(View, frozen=True, kw_only=True):
    """*head*: to ask with next, at once where *more*. *missed*: the edge fell too far behind, and must end all."""

    head: str
    withdrawals: tuple[WithdrawalView, ...]
    more: bool
    missed: bool


# --------------------------------------------------------------------------------------------------- activity


class ActivityView(View, frozen=True, kw_only=True, omit_defaults=True):
    """What happened. Of a refusal also who tried, where, and with which certificate (PEM)."""

    id: str
    at: datetime
    kind: str
    who: str
    what: str
    result: str
    code: str | None = None
    detail: dict[str, str] = {}
    client_id: str | None = None
    server_name: str | None = None
    certificate: str | None = None
    failing: Failing | None = None


def activity_view(entry: Activity) -> ActivityView:
    return ActivityView(
        id=entry.id,
        at=entry.at,
        kind=entry.kind.value,
        who=entry.who,
        what=entry.what,
        result=entry.result,
        code=entry.code,
        detail=entry.detail,
        client_id=entry.client_id,
        server_name=entry.server_name,
        certificate=pem(entry.certificate) if entry.certificate else None,
        failing=Failing(subject=entry.failing["subject"], fingerprint_sha256=entry.failing["fingerprintSha256"])
        if entry.failing
        else None,
    )


class ActivityList(View, frozen=True, kw_only=True):
    results: tuple[ActivityView, ...]
    bookmark: str | None


class SessionView(View, frozen=True, kw_only=True):
    """Who is signed in."""

    org: str
    role: str
    messaging_host: str
    key: str


class SignInView(View, frozen=True, kw_only=True, omit_defaults=True):
    """The OIDC issuer to sign in with, where one is configured."""

    issuer: str | None = None
    client_id: str | None = None
    audience: str | None = None


class HealthView(View, frozen=True, kw_only=True):
    status: str
