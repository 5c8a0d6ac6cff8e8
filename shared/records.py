"""The stored records, as frozen structs, and their JSON form.

    Org                 org/{orgId}             an organization: settings, policy, the active server certificate, the
                                                index of its server certificates
    CAsOfOneName        ca/{orgId}/{name}       the CA certificates of one subject name: one document, because a verdict
                                                looks them up by the issuer name of a certificate
    CAIndex             caindex/{orgId}         the index of all CA certificates: an upload reserves a line, so that
                                                the limits hold under any number of concurrent uploads
    ServerCertificate   server/{orgId}/{id}     a server certificate with its sealed key, or a request for one
    DefaultCertificate  platform/default        the server certificate of the platform
    Denials             deny/{orgId}/{lookUp}   the deny-list entries that one look-up finds
    DenyCount           denycount/{orgId}/count how many entries the deny list has
    ApiKey              key/{orgId}/{key}       an API key, without its token
    ActivityPage        activity/{orgId}/{kind} activity entries, newest first
    ReportRun           platform/expiry-report  the progress of the day's expiry report
    DeliveredMessage    told/{day}/{message}    the webhook messages of a day that were delivered

The records of connections are in `shared.connection_records`, those of TLS edges in `shared.edge_records`.

Every document of an organization carries the organization's incarnation (`OrgRecord`). An id that is deleted and
created again has another incarnation, and `shared.org_repository` treats a document of another incarnation as absent.

`shared.refs` builds the keys. `to_body` and `from_body` convert: bytes to base64, times to RFC 3339. A field whose
stored name differs from its attribute declares that name with `name=`.
"""

import datetime as dt
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from typing import Any, Final, TypeVar

import msgspec

from shared.validation.names import messaging_host
from shared.validation.policy import Policy

DEFAULT: Final = "default"  # the id of the platform's default certificate, in every organization
PLATFORM: Final = "platform"  # takes the place of an orgId where something belongs to the platform


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """The base of all stored records."""


class OrgRecord(Record, frozen=True, kw_only=True):
    """The base of the records of an organization.

    Args:
        incarnation: of the organization that the record belongs to. Incarnations of one id are ordered as text. The
            first has no mark, and neither have records that were stored before incarnations existed.
    """

    incarnation: str = ""

    def belongs_to(self, incarnation: str) -> bool:
        """Return whether the record counts for the organization of that *incarnation*."""
        return self.incarnation == incarnation


R = TypeVar("R", bound=Record)


def to_body(record: Record) -> dict[str, Any]:
    """Return a record as a JSON object."""
    body: dict[str, Any] = msgspec.to_builtins(record)
    return body


def from_body(kind: type[R], body: Mapping[str, Any]) -> R:
    """Return the record of *kind* in a JSON object that `to_body` made."""
    return msgspec.convert(body, kind)


def decode(kind: type[R], text: bytes | str) -> R:
    """Return the record of *kind* in the JSON text of such an object."""
    record: R = _decoder(kind).decode(text)
    return record


@cache
def _decoder(kind: type[R]) -> msgspec.json.Decoder[R]:
    return msgspec.json.Decoder(kind)


class ActivityKind(StrEnum):
    """The kinds of activity entries. Each kind has a partition of its own."""

    CHANGE = "change"
    UPLOAD = "upload"
    REFUSAL = "refusal"
    EDGE = "edge"


class Activity(Record, frozen=True):
    """An entry of the activity list. *detail* holds ids, codes and levels, never the free text of a user."""

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
    certificate: bytes | None = None  # DER of a refused leaf; version 0.1.0 stored the certificate here
    fingerprint: str | None = None  # of a refused leaf: SHA-256, hex; `ShownChain` may have the certificate
    failing: dict[str, str] | None = None
    step: int | None = None  # of a refusal, with its sentences as they were decided
    reason: str = ""
    mend: str = ""
    asked_by: str = ""  # of a refusal: the broker's API key, its format, and what it passed of the client
    dialect: str = ""
    passed: str = ""


class ActivityPage(OrgRecord, frozen=True):
    """A stored group of activity entries. The id of the document is that of the newest entry."""

    entries: tuple[Activity, ...] = ()


class Sealed(Record, frozen=True):
    """A secret under envelope encryption: AES-256-GCM under a data key that a master key wraps."""

    master: str  # names the master key
    wrapped: bytes
    nonce: bytes
    ciphertext: bytes

    def __repr__(self) -> str:  # ciphertext is not secret, but does not belong in a log
        return f"Sealed(master={self.master!r})"


class Revision(Record, frozen=True):
    """Who created and who last changed a record, and the version that a change must name (ETag)."""

    version: str
    created_at: dt.datetime
    created_by: str
    updated_at: dt.datetime
    updated_by: str


class FeedLine(Record, frozen=True, kw_only=True):
    """A change in a feed (`shared.feed`). *id* is random; a line of version 0.1.0 has none."""

    id: str = ""


class Withdrawal(FeedLine, frozen=True, kw_only=True):
    """A line of the feed `withdrawals`: which live sessions must end (`shared.usecases.edges.withdrawals`).

    *key_digest* and *serial_digest* are those of `shared.x509.digests`."""

    org_id: str
    kind: str
    value: str
    at: dt.datetime
    incarnation: str = ""  # of the organization
    key_digest: str | None = None
    serial_digest: str | None = None


class RecordWithOutbox(OrgRecord, frozen=True):
    """A document that carries what its changes must make known elsewhere.

    Args:
        outbox: the newest activity entries, until they are copied to the activity list.
        withdrawals: until the feed has them. None is dropped.
    """

    outbox: tuple[Activity, ...] = ()
    withdrawals: tuple[Withdrawal, ...] = ()


# ------------------------------------------------------------------------------------------------ organization


class CustomDomainSettings(Record, frozen=True):
    """The custom domains of an organization, and whether they are switched on."""

    enabled: bool = False
    domains: tuple[str, ...] = ()


class OrgSettings(Record, frozen=True):
    """The settings of an organization."""

    custom_domains: CustomDomainSettings = CustomDomainSettings()
    type_certificates: bool = False

    @property
    def domains(self) -> tuple[str, ...]:
        """The custom domains in force: none while they are switched off."""
        return self.custom_domains.domains if self.custom_domains.enabled else ()


class ServerIndexLine(Record, frozen=True):
    """A server certificate in the index of its organization: enough to find the records of a key.

    *version*: of a certificate whose chain was completed later, the version of its hosts (`OrgHosts`) since then; else
    empty.
    """

    key_hash: str  # SHA-256 of SubjectPublicKeyInfo, hex
    version: str = ""


class Activation(Record, frozen=True):
    """Which server certificate devices receive."""

    active: str = DEFAULT
    previous: str | None = None
    activated_at: dt.datetime | None = None


class RateWindow(Record, frozen=True):
    """How many records were created in the current minute (minutes since 1970)."""

    minute: int = 0
    made: int = 0


class Deletion(Record, frozen=True, kw_only=True):
    """When the deletion of an organization began, and when all its documents were deleted (None: not yet)."""

    began_at: dt.datetime
    ended_at: dt.datetime | None = None


class Org(RecordWithOutbox, frozen=True, kw_only=True):
    """An organization, or the tombstone of a deleted organization.

    Args:
        deletion: of a tombstone. A tombstone is suspended as well, because version 0.1.0 does not know this field.
        servers: the index of its server certificates and requests, by id.
        has_ca: whether a CA is registered. Kept by `shared.usecases.cas.documents`.
        rate_window: counts new server certificates and requests.
    """

    org_id: str
    created_at: dt.datetime
    suspended: bool = False
    deletion: Deletion | None = None
    settings: OrgSettings = OrgSettings()
    settings_changed: Revision
    policy: Policy = Policy()
    policy_changed: Revision
    activation: Activation = Activation()
    activation_changed: Revision
    servers: dict[str, ServerIndexLine] = {}
    has_ca: bool = False
    rate_window: RateWindow = msgspec.field(default=RateWindow(), name="pace")

    def belongs_to(self, incarnation: str) -> bool:
        """Return whether this is the organization of that *incarnation*, and no tombstone."""
        return self.incarnation == incarnation and self.deletion is None

    @property
    def is_deleting(self) -> bool:
        """Whether this is the tombstone of an organization that still has documents."""
        return self.deletion is not None and self.deletion.ended_at is None

    @property
    def requires_sni(self) -> bool:
        """Whether devices must send SNI: the organization has a CA, or a server certificate of its own."""
        return self.has_ca or bool(self.servers)

    def hosts(self, platform_domain: str) -> list[str]:
        """Return the messaging hosts of the organization.

        The first is under the platform's domain, the others are under the custom domains in force."""
        return [messaging_host(self.org_id, domain) for domain in (platform_domain, *self.settings.domains)]


# ------------------------------------------------------------------------------------------------ certificates


class CAStatus(StrEnum):  # noqa: D101 - openapi.json would show the docstring
    ACTIVE = "active"
    INACTIVE = "inactive"


class CA(Record, frozen=True, kw_only=True):
    """A registered CA certificate. What the certificate itself says is not stored again."""

    der: bytes
    status: CAStatus = CAStatus.ACTIVE
    comments: str = ""
    denied_at: dt.datetime | None = None  # when the first entry of the deny list that means this CA was made
    changed: Revision


class CAsOfOneName(RecordWithOutbox, frozen=True):
    """The CA certificates of one canonical subject name, by id."""

    cas: dict[str, CA] = {}


class CAIndex(OrgRecord, frozen=True):
    """The CAs of an organization: id -> whether the CA is active.

    An interrupted call may leave a line without a CA (`shared.usecases.cas.documents`). *rate_window* counts new CAs.
    """

    cas: dict[str, bool] = {}
    rate_window: RateWindow = msgspec.field(default=RateWindow(), name="pace")


class Source(StrEnum):
    """The origin of a server certificate."""

    DEFAULT = "default"
    UPLOAD = "upload"
    CSR = "csr"


class ServerCertificate(RecordWithOutbox, frozen=True, kw_only=True):
    """A messaging server certificate, or a certificate request that is not fulfilled yet (*leaf* None).

    Args:
        has_later_chain: a later upload completed the chain. So the line in the index has the version of the hosts, or
            gets that version when the upload is repeated.
        served_since: when an edge first reported to serve the certificate after its latest activation.
    """

    source: Source
    key: Sealed
    key_hash: str  # SHA-256 of SubjectPublicKeyInfo, hex
    leaf: bytes | None = None
    chain: tuple[bytes, ...] = ()
    has_later_chain: bool = False
    csr: bytes | None = None
    comments: str = ""
    served_since: dt.datetime | None = None
    changed: Revision


class DefaultCertificate(Record, frozen=True, kw_only=True):
    """The platform's default server certificate, one for all organizations."""

    key: Sealed
    leaf: bytes
    chain: tuple[bytes, ...] = ()
    served_since: dt.datetime | None = None  # as an edge reported
    changed: Revision


# ---------------------------------------------------------------------------------------------------- deny list


class DenialKind(StrEnum):  # noqa: D101 - openapi.json would show the docstring
    FINGERPRINT = "fingerprint"
    SERIAL = "serial"
    IDENTITY = "identity"
    KEY = "key"


class Denial(Record, frozen=True, kw_only=True):
    """An entry of the deny list."""

    id: str
    kind: DenialKind
    value: str
    reason: str = ""
    issuer_key_hash: str | None = None  # of a serial number: SHA-256 of the CA's SubjectPublicKeyInfo, hex
    key_digest: str | None = None  # of a key from a certificate: finds the sessions over its subject and key
    created_at: dt.datetime
    created_by: str


class Denials(RecordWithOutbox, frozen=True):
    """The entries that one look-up finds, by id.

    A serial number is looked up by the name of its issuer, so one document may hold entries for several CAs.
    """

    entries: dict[str, Denial] = {}


class DenyCount(OrgRecord, frozen=True, kw_only=True):
    """How many entries the deny list of an organization has, and when a call changed the number last.

    An interrupted call may leave the number too large (`shared.usecases.denials`). A sweep counts again.
    """

    entries: int
    changed_at: dt.datetime


# ------------------------------------------------------------------------------------------------------- callers


class Role(StrEnum):
    """The role of a caller."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    BROKER = "broker"
    EDGE = "edge"


class Proof(StrEnum):
    """The basis of a verdict: the chain, or a broker that judged the chain itself and passes names only."""

    CHAIN = "chain"
    BROKER = "broker"


class ApiKey(OrgRecord, frozen=True, kw_only=True):
    """An API key. Its token is shown once and not stored.

    *listener*: of a key with the proof `broker`, the broker's listener from which names are proven; "" where the key
    names none. None: the key was made before keys named a listener.
    """

    key: str
    role: Role
    token_hash: str  # SHA-256, hex
    org_id: str | None = None  # None: a platform key
    orgs: tuple[str, ...] = ()  # of a platform key: the organizations it may ask about; empty: all
    incarnations: dict[str, str] = {}  # of *orgs*, by id; without those that have no mark
    no_sni: bool = False
    proof: Proof = Proof.CHAIN
    listener: str | None = None
    created_at: dt.datetime
    revoked_at: dt.datetime | None = None

    def __repr__(self) -> str:
        return f"ApiKey({self.key!r}, {self.role.value})"


# ---------------------------------------------------------------------------------------------------- daily report


class ReportRun(Record, frozen=True, kw_only=True):
    """The progress of the day's expiry report. The next run continues an interrupted run from here."""

    day: str
    after: str = ""  # the last organization that is done
    done: bool = False


class DeliveredMessage(Record, frozen=True):
    """A webhook message that was delivered."""

    at: dt.datetime
