"""The context of every use case, and the helpers that stamp and limit changes."""

import secrets
from collections.abc import Container
from datetime import datetime, timedelta
from functools import cached_property

import msgspec

from shared.call_counter import CallCounter
from shared.edge_records import HostsChanged
from shared.errors import RateLimited, Stale
from shared.feed import Feed
from shared.heartbeats import Heartbeats
from shared.org_repository import OrgRepository
from shared.ports import (
    Background,
    Clock,
    ConnectionEventQueue,
    InlineKeyWorker,
    KeyWorker,
    NoEvents,
    NoNotifier,
    Notifier,
    RunAtOnce,
)
from shared.records import Activity, ActivityKind, Org, RateWindow, Revision, Withdrawal
from shared.refs import activity_id
from shared.repository import Repository
from shared.text import format_time


class Context(msgspec.Struct, frozen=True, dict=True):
    """The store, the clock and the settings that nearly every use case needs.

    Key sealers, queues and token verifiers are arguments of their own: a signature says who may open a private key.

    Args:
        platform_domain: devices connect to `orgId.messaging.<platform_domain>`.
        weak_keys: ids of keys known to be weak (`shared.x509.public_keys.key_ids`).
        rate_per_minute: new server certificates and certificate requests of one organization in a minute, failed
            attempts included.
        ca_rate_per_minute: new CA certificates of one organization in a minute.
        notifier: receives withdrawals for the operator's broker.
        background: runs what must not delay an answer.
        org_quarantine: how long the id of a deleted organization cannot be created again.
        key_work: opens uploaded private keys and makes new ones; it opens no stored key.
        events: takes what is counted of connections and calls, asynchronously.
    """

    repository: Repository
    clock: Clock
    platform_domain: str
    weak_keys: Container[str] = frozenset()
    rate_per_minute: int = 10
    ca_rate_per_minute: int = 600
    notifier: Notifier = msgspec.field(default_factory=NoNotifier)
    background: Background = msgspec.field(default_factory=RunAtOnce)
    org_quarantine: timedelta = timedelta(days=30)
    key_work: KeyWorker = msgspec.field(default_factory=InlineKeyWorker)
    events: ConnectionEventQueue = msgspec.field(default_factory=NoEvents)

    def of(self, org: Org) -> OrgRepository:
        """Return the records of *org*, bound to its incarnation."""
        return OrgRepository(self.repository, org.org_id, org.incarnation)

    @cached_property
    def host_changes(self) -> Feed[HostsChanged]:
        """The feed of changes at the hosts that TLS edges serve."""
        return Feed(self.repository, "hosts", HostsChanged)

    @cached_property
    def heartbeats(self) -> Heartbeats:
        """When each TLS edge asked last."""
        return Heartbeats(self.repository, self.clock, self.background)

    @cached_property
    def call_counter(self) -> CallCounter:
        """Counts the calls of known keys that make no connection event."""
        return CallCounter(self.clock, self.events.offer)

    @cached_property
    def withdrawals(self) -> Feed[Withdrawal]:
        """The feed of withdrawals, for which live sessions must end."""
        return Feed(self.repository, "withdrawals", Withdrawal)


def make_entry(
    at: datetime,
    who: str,
    what: str,
    *,
    kind: ActivityKind = ActivityKind.CHANGE,
    result: str = "done",
    code: str | None = None,
    **detail: str,
) -> Activity:
    """Return an entry for the activity list; *detail* holds ids, codes and levels, never the free text of a user."""
    return Activity(activity_id(at), at, kind, who, what, result, code, detail)


def make_revision(at: datetime, who: str) -> Revision:
    """Return the revision of a new record."""
    return Revision(_new_version(), at, who, at, who)


def update_revision(revision: Revision, at: datetime, who: str) -> Revision:
    """Return the revision of a record that is changed now."""
    return msgspec.structs.replace(revision, version=_new_version(), updated_at=at, updated_by=who)


def _new_version() -> str:
    """Return a new version (ETag) of a record.

    No version is used twice, even if a record is deleted and created again."""
    return secrets.token_hex(6)


def count_in_window(window: RateWindow, at: datetime, limit: int, what: str) -> RateWindow:
    """Count one more new record in this minute. Raises: RateLimited, beyond *limit*."""
    seconds = int(at.timestamp())
    minute = seconds // 60
    count = window.made if window.minute == minute else 0
    if count >= limit:
        raise RateLimited(limit=limit, what=what, seconds=60 - seconds % 60)
    return RateWindow(minute, count + 1)


def check_version(revision: Revision, expected_version: str | None) -> None:
    """Refuse a change that is based on an older version than the stored version.

    Args:
        expected_version: the version in If-Match; None accepts any.

    Raises: Stale, which names who changed the record and when."""
    if expected_version is not None and expected_version != revision.version:
        raise Stale(who=revision.updated_by, when=format_time(revision.updated_at))
