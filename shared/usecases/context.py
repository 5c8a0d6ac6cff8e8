"""What every use case works with: the ports, and the few settings that rules need. Made once, in composition."""

from collections.abc import Container
from datetime import datetime
from functools import cached_property

import msgspec

from shared.errors import RateLimited, Stale
from shared.feed import Feed
from shared.ports import Clock, NoNotifier, Notifier
from shared.records import Activity, ActivityKind, HostsChanged, RateWindow, Revision, Withdrawal
from shared.repository import Repository, activity_id, new_version
from shared.x509.text import format_time


class Context(msgspec.Struct, frozen=True, dict=True):
    """The store, the clock and the settings that nearly every use case needs.

    Key sealers, queues and token verifiers are arguments of their own: a signature says who may open a private key.

    Args:
        platform_domain: devices connect to `orgId.messaging.<platform_domain>`.
        weak_keys: ids of keys known to be weak (`shared.x509.public_keys.key_ids`).
        rate_per_minute: new server certificates and certificate requests of one organization in a minute.
        ca_rate_per_minute: new CA certificates of one organization in a minute.
        notifier: receives withdrawals for the operator's broker.
    """

    repository: Repository
    clock: Clock
    platform_domain: str
    weak_keys: Container[str] = frozenset()
    rate_per_minute: int = 10
    ca_rate_per_minute: int = 600
    notifier: Notifier = msgspec.field(default_factory=NoNotifier)

    @cached_property
    def host_changes(self) -> Feed[HostsChanged]:
        """What changed at the hosts that TLS edges serve."""
        return Feed(self.repository, "hosts", HostsChanged)

    @cached_property
    def withdrawals(self) -> Feed[Withdrawal]:
        """Whose live sessions must end."""
        return Feed(self.repository, "withdrawals", Withdrawal)


def entry(
    at: datetime,
    who: str,
    what: str,
    *,
    kind: ActivityKind = ActivityKind.CHANGE,
    result: str = "done",
    code: str | None = None,
    **detail: str,
) -> Activity:
    """A line for the activity list; *detail* holds ids, codes and levels, never a user's free text."""
    return Activity(activity_id(at), at, kind, who, what, result, code, detail)


def made(at: datetime, who: str) -> Revision:
    """The stamp of a thing that is new."""
    return Revision(new_version(), at, who, at, who)


def touched(changed: Revision, at: datetime, who: str) -> Revision:
    """The stamp of a thing that was changed now."""
    return msgspec.structs.replace(changed, version=new_version(), updated_at=at, updated_by=who)


def count_in_window(pace: RateWindow, at: datetime, limit: int, what: str) -> RateWindow:
    """One more new thing in this minute. Raises: RateLimited, beyond *limit*."""
    seconds = int(at.timestamp())
    minute = seconds // 60
    so_far = pace.made if pace.minute == minute else 0
    if so_far >= limit:
        raise RateLimited(limit=limit, what=what, seconds=60 - seconds % 60)
    return RateWindow(minute, so_far + 1)


def check_version(revision: Revision, seen: str | None) -> None:
    """Refuse a change that is based on an older version than the stored one.

    Args:
        seen: the version in If-Match; None overrides.

    Raises: Stale, which names who changed the record and when."""
    if seen is not None and seen != revision.version:
        raise Stale(who=revision.updated_by, when=format_time(revision.updated_at))
