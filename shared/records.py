"""What is kept, as frozen records, and the one place that knows their stored form.

    Org                 org/{orgId}             what is true of an organization: settings, policy, which certificate
                                                is active, which server certificates there are
    CAsOfOneName        ca/{orgId}/{name}       its CA certificates of one subject name: one document, because a
                                                decision asks for them by a certificate's issuer name
    CAIndex             caindex/{orgId}         which CA certificates there are: a reservation, so that the limit
                                                per org holds under any number of concurrent uploads
    ServerCertificate   server/{orgId}/{id}     a server certificate with its sealed key, or a request waiting for one
    DefaultCertificate  platform/default        the platform's own
    Denials             deny/{orgId}/{what}     deny-list entries that one look-up finds
    ApiKey              key/{orgId}/{key}
    Activity            activity/{orgId}/{kind} what happened, newest first
    Usage               usage/{orgId}/{day}     who connected: per CA, and a sample of identities
    ReportRun           platform/expiry-report  how far the day's expiry report has come
    DeliveredMessage                told/{day}/{message}    which webhook messages of the day have arrived
    OrgHosts            hosts/{orgId}           what the TLS edges serve for an org, made from the documents above

`stored` and `loaded` translate; bytes travel as base64, times as RFC 3339, names as they stand here.
"""

import datetime as dt
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from typing import Any, Final, TypeVar

import msgspec

from shared.validation.names import messaging_host
from shared.validation.policy import Policy, Presence

DEFAULT: Final = "default"  # the id of the platform's default certificate, in every org
PLATFORM: Final = "platform"  # stands where an orgId stands, for what belongs to the platform


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of what is stored."""


R = TypeVar("R", bound=Record)


def stored(record: Record) -> dict[str, Any]:
    """A record as a JSON object."""
    body: dict[str, Any] = msgspec.to_builtins(record)
    return body


def loaded(kind: type[R], body: Mapping[str, Any]) -> R:
    """The record of *kind* in a JSON object that `stored` made."""
    return msgspec.convert(body, kind)


def read(kind: type[R], text: bytes | str) -> R:
    """The same, from the object's JSON text."""
    record: R = _decoder(kind).decode(text)
    return record


@cache
def _decoder(kind: type[R]) -> msgspec.json.Decoder[R]:
    return msgspec.json.Decoder(kind)


class ActivityKind(StrEnum):
    CHANGE = "change"
    UPLOAD = "upload"
    REFUSAL = "refusal"
    EDGE = "edge"


class Activity(Record, frozen=True):
    """One line of the activity list. No free text of users: *detail* holds ids, codes and levels."""

    id: str  # sorts newest first
    at: dt.datetime
    kind: ActivityKind
    who: str
    what: str
    result: str = "done"
    code: str | None = None
    detail: dict[str, str] = {}
    client_id: str | None = None
    server_name: str | None = None
    certificate: bytes | None = None  # DER of a refused leaf
    failing: dict[str, str] | None = None


class ActivityPage(Record, frozen=True):
    """A stored group of activity entries; their ids begin with the document's."""

    entries: tuple[Activity, ...] = ()


class Sealed(Record, frozen=True):
    """A secret under envelope encryption: AES-256-GCM under a data key that a master key wraps."""

    master: str  # names the master key
    wrapped: bytes
    nonce: bytes
    ciphertext: bytes

    def __repr__(self) -> str:  # ciphertext is no secret, but has no place in a log either
        return f"Sealed(master={self.master!r})"


class Revision(Record, frozen=True):
    """Who changed a thing last, and the version a change must name."""

    version: str
    created_at: dt.datetime
    created_by: str
    updated_at: dt.datetime
    updated_by: str


class Outboxed(Record, frozen=True):
    """A document that carries its latest activity entries until they are copied to the activity list."""

    outbox: tuple[Activity, ...] = ()


# ------------------------------------------------------------------------------------------------ organization


class CustomDomains(Record, frozen=True):
    enabled: bool = False
    domains: tuple[str, ...] = ()


class Settings(Record, frozen=True):
    """What an org has switched on."""

    custom_domains: CustomDomains = CustomDomains()
    type_certificates: bool = False

    @property
    def domains(self) -> tuple[str, ...]:
        """The custom domains in force."""
        return self.custom_domains.domains if self.custom_domains.enabled else ()


class Listed(Record, frozen=True):
    """A server certificate in the org's index: enough to find the record of a key."""

    key_hash: str  # SHA-256 of SubjectPublicKeyInfo, hex


class Activation(Record, frozen=True):
    """Which server certificate is shown to devices."""

    active: str = DEFAULT
    previous: str | None = None
    activated_at: dt.datetime | None = None


class RateWindow(Record, frozen=True):
    """How many new things were made in the current minute (minutes since 1970)."""

    minute: int = 0
    made: int = 0


class Org(Outboxed, frozen=True, kw_only=True):
    org_id: str
    created_at: dt.datetime
    suspended: bool = False
    settings: Settings = Settings()
    settings_changed: Revision
    policy: Policy = Policy()
    policy_changed: Revision
    activation: Activation = Activation()
    activation_changed: Revision
    servers: dict[str, Listed] = {}
    has_ca: bool = False  # a CA was registered and not all are deleted: devices must then send SNI
    pace: RateWindow = RateWindow()

    @property
    def requires_sni(self) -> bool:
        """Whether a TLS connection must name its server: the org has a CA, or a server certificate of its own."""
        return self.has_ca or bool(self.servers)

    def hosts(self, platform_domain: str) -> list[str]:
        """Return the messaging hosts of the organization: under the platform's domain, then under each custom domain
        in force."""
        return [messaging_host(self.org_id, domain) for domain in (platform_domain, *self.settings.domains)]


# ------------------------------------------------------------------------------------------------ certificates


class CAStatus(StrEnum):
    ACTIVE = "active"
    INACTIVE = "inactive"


class CA(Record, frozen=True, kw_only=True):
    """A registered CA certificate. All that can be read from the certificate is not kept beside it."""

    der: bytes
    status: CAStatus = CAStatus.ACTIVE
    comments: str = ""
    denied_at: dt.datetime | None = None  # on the deny list since then
    changed: Revision


class CAsOfOneName(Outboxed, frozen=True):
    """The CA certificates of one canonical subject name, by id."""

    cas: dict[str, CA] = {}


class CAIndex(Record, frozen=True):
    """Every CA of an org: id -> whether it is active. May name one whose upload was cut short; never misses one."""

    cas: dict[str, bool] = {}
    pace: RateWindow = RateWindow()


class Source(StrEnum):
    DEFAULT = "default"
    UPLOAD = "upload"
    CSR = "csr"


class ServerCertificate(Outboxed, frozen=True, kw_only=True):
    """A messaging server certificate, or a request that waits for one (*leaf* None)."""

    source: Source
    key: Sealed
    key_hash: str  # SHA-256 of SubjectPublicKeyInfo, hex
    leaf: bytes | None = None
    chain: tuple[bytes, ...] = ()
    csr: bytes | None = None
    comments: str = ""
    served_since: dt.datetime | None = None
    changed: Revision


class DefaultCertificate(Record, frozen=True, kw_only=True):
    """The platform's own server certificate, one for all orgs."""

    key: Sealed
    leaf: bytes
    chain: tuple[bytes, ...] = ()
    served_since: dt.datetime | None = None  # by an edge's own word
    changed: Revision


# ---------------------------------------------------------------------------------------------------- TLS edges


class HostsChanged(Record, frozen=True):
    """A line of the feed `hosts`: what is served for an org changed. What it is now stands in `OrgHosts`."""

    org_id: str


class OrgHosts(Record, frozen=True, kw_only=True):
    """What the TLS edges serve for an org; made from its other documents, so that a listing reads nothing else.

    Args:
        certificate_id: the active server certificate.
        hosts: each host -> the version of the active certificate, or "" where the platform's default is to serve it.
        gone: hosts that were here once.
        basis: what it was made from (`shared.usecases.edges.hosts`), so that a sweep finds a difference without reading
            certificates.
        told: whether the feed has it.
    """

    certificate_id: str = DEFAULT
    activated_at: dt.datetime | None = None
    hosts: dict[str, str] = {}
    gone: tuple[str, ...] = ()
    basis: str = ""
    told: bool = False
    changed_at: dt.datetime


class Withdrawal(Record, frozen=True, kw_only=True):
    """A line of the feed `withdrawals`: whose live sessions must end (`shared.usecases.edges.withdrawals`)."""

    org_id: str
    kind: str
    value: str
    at: dt.datetime


# ---------------------------------------------------------------------------------------------------- deny list


class DenialKind(StrEnum):
    FINGERPRINT = "fingerprint"
    SERIAL = "serial"
    IDENTITY = "identity"


class Denial(Record, frozen=True, kw_only=True):
    id: str
    kind: DenialKind
    value: str
    reason: str = ""
    issuer_key_hash: str | None = None  # of a serial: SHA-256 of the issuing CA's SubjectPublicKeyInfo, hex
    created_at: dt.datetime
    created_by: str


class Denials(Outboxed, frozen=True):
    """The entries one look-up finds: serials are looked up by issuer name, so several CAs' can meet here."""

    entries: dict[str, Denial] = {}


# ------------------------------------------------------------------------------------------------------- callers


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    BROKER = "broker"
    EDGE = "edge"


class Proof(StrEnum):
    """What a verdict rests on: the chain judged here, or a broker that judged it and passes names only."""

    CHAIN = "chain"
    BROKER = "broker"


class ApiKey(Record, frozen=True, kw_only=True):
    """An API key. The token itself is shown once and not kept."""

    key: str
    role: Role
    token_hash: str  # SHA-256, hex
    org_id: str | None = None  # None: a platform key
    orgs: tuple[str, ...] = ()  # of a platform key: those it may speak for; empty: all
    no_sni: bool = False
    proof: Proof = Proof.CHAIN
    created_at: dt.datetime
    revoked_at: dt.datetime | None = None

    def __repr__(self) -> str:
        return f"ApiKey({self.key!r}, {self.role.value})"


# --------------------------------------------------------------------------------------------------------- usage


class ConnectionEvent(Record, frozen=True, kw_only=True):
    """What a verdict leaves behind it."""

    org_id: str
    at: dt.datetime
    decision: str
    code: str
    tls: bool
    shown: Presence
    client_id: str | None = None
    server_name: str | None = None
    identity: str | None = None
    ca_id: str | None = None
    certificate: bytes | None = None  # DER of the leaf
    failing: dict[str, str] | None = None


class CAUse(Record, frozen=True):
    count: int
    last: dt.datetime


class Seen(Record, frozen=True):
    """How a client showed itself last."""

    tls: bool
    shown: Presence
    at: dt.datetime


class Usage(Record, frozen=True):
    """One day of an org: connections per CA, and a sample of the clients seen (identity -> how)."""

    cas: dict[str, CAUse] = {}
    clients: dict[str, Seen] = {}
    batches: tuple[str, ...] = ()  # ids of the latest that were added: a queue may deliver one twice


class ConnectionEventBatch(Record, frozen=True, kw_only=True):
    """What one process saw of one org in a moment, added up: what travels through a queue. Of bounded size."""

    id: str
    org_id: str
    at: dt.datetime  # of the newest
    cas: dict[str, CAUse] = {}
    clients: dict[str, Seen] = {}
    refusals: tuple[ConnectionEvent, ...] = ()  # newest first

    def encoded(self) -> bytes:
        """As a message's body."""
        return msgspec.json.encode(self)

    @classmethod
    def decoded(cls, data: bytes | str) -> "ConnectionEventBatch":
        """Raises: ValueError, where it is none."""
        try:
            return msgspec.json.decode(data, type=cls)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ValueError("no batch of sightings") from error


# ---------------------------------------------------------------------------------------------------- daily report


class ReportRun(Record, frozen=True, kw_only=True):
    """How far the day's expiry report has come: a run that is cut short goes on from here."""

    day: str
    after: str = ""  # the last org that is done
    done: bool = False


class DeliveredMessage(Record, frozen=True):
    """A webhook message that has arrived."""

    at: dt.datetime
