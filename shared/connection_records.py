"""The stored records of connections, and the message that brings verdicts to them.

    Usage               usage/{orgId}/{day}     which clients connected: per CA, and a sample of identities; which
                                                API keys called, and how often they were refused
    Traffic             traffic/{orgId}/{day}   how many clients connected and were refused, by the hour
    RefusalPages        refusals/{orgId}/{day}  the ring of the day's refusals: their pages in the activity list
    ShownChain          shown/{orgId}/{leaf}    a certificate that a client presented, by its fingerprint
    ShownIndex          shownindex/{orgId}      the ring of these certificates

Each process sums up the verdicts of an organization as a `ConnectionEventBatch`, the message of a queue. The reader of
the queue adds the batch to these records.
"""

import datetime as dt
from enum import StrEnum

import msgspec

from shared.records import OrgRecord, Record
from shared.validation.policy import Presence


class ConnectionEvent(Record, frozen=True, kw_only=True):
    """A verdict on one connection, for usage and the activity list.

    Args:
        certificate: DER of the leaf, in events of version 0.1.0 only.
        fingerprint: of the leaf: SHA-256, hex.
        chain: DER of the certificates, leaf first. A batch has chains of its own (`ShownChain`).
        unread: of a verdict from the memory, in place of *chain*: the certificate and the chain as the broker passed
            them (`shared.validation.presented.ConnectingClient`).
        way: a digest of the broker's key and format and of everything that the broker passed; empty: not computed. Two
            events with the same way and decision differ in their time only.
        reached_ca: whether a path from the leaf reached a CA of the organization.
        step, reason, mend: of a refusal, as it was decided.
        key: the API key of the broker that asked.
        dialect: the broker's format.
        form: what the broker passed of the client.
        no_sni, leaf_only, is_cut: see `ShownChain`.
    """

    org_id: str
    at: dt.datetime
    decision: str
    code: str
    tls: bool
    presence: Presence = msgspec.field(name="shown")
    client_id: str | None = None
    server_name: str | None = None
    identity: str | None = None
    ca_id: str | None = None
    certificate: bytes | None = None
    fingerprint: str | None = None
    chain: tuple[bytes, ...] = ()
    unread: tuple[bytes, bytes] | None = None
    way: bytes = b""
    reached_ca: bool = False
    failing: dict[str, str] | None = None
    step: int | None = None
    reason: str = ""
    mend: str = ""
    key: str = ""
    dialect: str = ""
    form: str = ""
    no_sni: bool = False
    leaf_only: bool = False
    is_cut: bool = False
    incarnation: str = ""  # of the organization


class Form(StrEnum):
    """What a broker passed of a client."""

    CHAIN = "chain"  # the certificate and others above it
    CERTIFICATE = "certificate"  # the client's own alone
    NAMES = "names"  # of a certificate that the broker judged
    NOTHING = "nothing"  # no certificate


class CallFailure(StrEnum):
    """Why a call with a known API key was refused."""

    TOKEN = "wrong_token"
    REVOKED = "key_revoked"
    ROLE = "wrong_role"


class FailedCalls(Record, frozen=True, kw_only=True):
    """Calls with one API key that were refused for one reason, counted by one process.

    Args:
        org_id: of the key; PLATFORM for a platform key.
        needed: the role that the called function needs: broker or edge.
        dialect: the broker's format; empty for another function than verifyClient.
        since: the time of the first.
        at: the time of the last.
    """

    org_id: str
    key: str
    failure: CallFailure
    needed: str = ""
    dialect: str = ""
    count: int
    since: dt.datetime
    at: dt.datetime
    incarnation: str = ""  # of the key's organization


class AnsweredCalls(Record, frozen=True, kw_only=True):
    """Calls with one API key that were answered, and that make no `ConnectionEvent`.

    Args:
        dialect: the broker's format.
        at: the time of the last.
    """

    org_id: str
    key: str
    dialect: str = ""
    at: dt.datetime
    incarnation: str = ""  # of the organization


class EdgeRefusals(Record, frozen=True, kw_only=True):
    """Clients that a TLS edge refused by itself, after verifyClient let them pass.

    Args:
        key: the API key of the edge.
        code: why, for example `token_of_another`.
        incarnation: of the organization.
    """

    org_id: str
    key: str
    code: str
    count: int
    at: dt.datetime
    incarnation: str = ""


QueuedEvent = ConnectionEvent | FailedCalls | AnsweredCalls | EdgeRefusals
"""What the queue of connection events takes."""


class FailedHour(Record, frozen=True, array_like=True):
    """The calls of an API key within an hour that were refused for one reason.

    Args:
        first, last: seconds from the start of the hour.
    """

    count: int
    first: int
    last: int


class HourOfCalls(Record, frozen=True, kw_only=True):
    """The calls of an API key within an hour.

    Args:
        answered: verdicts, with *denied* and *continued* among them.
        failed: calls that were refused, by `CallFailure`.
        refused: clients that an edge refused by itself, by code.
    """

    answered: int = 0
    denied: int = 0
    continued: int = 0
    failed: dict[str, FailedHour] = {}
    refused: dict[str, int] = {}


class LastFailure(Record, frozen=True):
    """The last call that was refused for one reason, by a function that needs the role *needed*."""

    at: dt.datetime
    needed: str = ""


class KeyCalls(Record, frozen=True, kw_only=True):
    """The calls of an API key within a day.

    Args:
        answered_at: the last call that was answered.
        failures: the last of each `CallFailure`.
        forms: the last time of each `Form`.
        dialects: the last time of each dialect.
        hours: the start of an hour in UTC, `2026-11-27T09` -> the calls within it.
    """

    answered_at: dt.datetime | None = None
    failures: dict[str, LastFailure] = {}
    forms: dict[str, dt.datetime] = {}
    dialects: dict[str, dt.datetime] = {}
    hours: dict[str, HourOfCalls] = {}


class CAUse(Record, frozen=True):
    """How many connections rested on a CA, and when the last one was."""

    count: int
    last: dt.datetime


class LastConnection(Record, frozen=True):
    """How a client connected last."""

    tls: bool
    presence: Presence = msgspec.field(name="shown")
    at: dt.datetime


class Usage(OrgRecord, frozen=True):
    """One day of an organization: connections per CA, a sample of its clients by identity, and its callers by key."""

    cas: dict[str, CAUse] = {}
    clients: dict[str, LastConnection] = {}
    batches: tuple[str, ...] = ()  # ids of the latest batches that were added: a queue may deliver a batch twice
    callers: dict[str, KeyCalls] = {}
    has_more_callers: bool = False  # keys were left out of *callers*


class HourOfTraffic(Record, frozen=True):
    """The verdicts on the clients of an organization within an hour.

    Args:
        allowed: clients that may connect.
        continued: clients whose token the broker checks next.
        denied: clients that were refused, by code. A client that an edge refused by itself is among them, and among
            *allowed* or *continued* as well.
    """

    allowed: int = 0
    continued: int = 0
    denied: dict[str, int] = {}


class Traffic(OrgRecord, frozen=True):
    """The verdicts of a day. *hours*: the start of an hour in UTC, `2026-11-27T09` -> the verdicts within it."""

    hours: dict[str, HourOfTraffic] = {}


class ShownKind(StrEnum):
    """Who presented a certificate. A stranger's path reached no CA of the organization."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    STRANGER = "stranger"


class ShownChain(OrgRecord, frozen=True, kw_only=True):
    """A certificate that a client presented, and what followed it.

    Args:
        fingerprint: of the leaf: SHA-256, hex.
        group: the CA and the type of an allowed device.
        chain: DER, leaf first; cut off where it is too long.
        is_cut: whether the client sent more than *chain* holds.
        server_name, client_id: of that connection; None where the broker passed none, and in records of version 0.1.0.
        no_sni: whether the server name meant nothing, because the broker's key is marked so; None in records of version
            0.1.0, of which the way of the connection is not known.
        leaf_only: whether the broker passes no certificate but the client's own.
    """

    fingerprint: str
    kind: ShownKind
    group: str = ""
    at: dt.datetime
    chain: tuple[bytes, ...] = ()
    is_cut: bool = False
    server_name: str | None = None
    client_id: str | None = None
    no_sni: bool | None = None
    leaf_only: bool = False


class ShownLine(Record, frozen=True):
    """A certificate in `ShownIndex`.

    Args:
        at: by which the certificates of the index are ordered and leave.
        way: a digest of what its client sent, and of how; empty in lines of before.
        changes: how often the certificate was stored again on the day of *last*.
        last_at: when the client connected last in a way that was stored, if that was later than *at*: a certificate
            that reaches no CA any more keeps its place in the order.
    """

    kind: ShownKind
    at: dt.datetime
    group: str = ""
    way: str = ""
    changes: int = 0
    last_at: dt.datetime | None = None

    @property
    def last(self) -> dt.datetime:
        """The time of the connection that was stored last."""
        return self.last_at or self.at


class ShownIndex(OrgRecord, frozen=True):
    """The certificates that are stored as `ShownChain`, by fingerprint."""

    lines: dict[str, ShownLine] = {}


class RefusalPages(OrgRecord, frozen=True):
    """The pages of the activity list that hold the refusals of one day, oldest first, with the number of entries.

    *count*: how many refusals the day had at least; the oldest are no longer stored."""

    pages: dict[str, int] = {}
    count: int = 0


class ConnectionEventBatch(Record, frozen=True, kw_only=True):
    """Connection events of one organization, summed up by one process: the message of a queue. Of bounded size."""

    id: str
    org_id: str
    at: dt.datetime  # of the newest event
    cas: dict[str, CAUse] = {}
    clients: dict[str, LastConnection] = {}
    refusals: tuple[ConnectionEvent, ...] = ()  # newest first
    refused: int = 0  # how many refusals there were
    traffic: dict[str, HourOfTraffic] = {}  # by the start of the hour, as in `Traffic`
    chains: tuple[ShownChain, ...] = ()
    callers: dict[str, KeyCalls] = {}
    has_more_callers: bool = False  # keys were left out of *callers*
    incarnation: str = ""  # of the organization

    def encode(self) -> bytes:
        """Return the body of a message."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes | str) -> "ConnectionEventBatch":
        """Return the batch in a message. Raises: ValueError, where *data* is malformed."""
        try:
            return msgspec.json.decode(data, type=cls)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ValueError("not a batch of connection events") from error
