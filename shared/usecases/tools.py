"""What every use case works with: the ports, and the few settings that rules need. Made once, in composition."""

from collections.abc import Callable, Container
from datetime import datetime
from functools import cached_property

import msgspec

from shared.errors import RateLimited
from shared.feed import Feed
from shared.ports import Announcer, Clock, KeySealer, NoAnnouncer, SightingQueue, TokenVerifier
from shared.records import Activity, ActivityKind, Changed, HostsChanged, Pace, Withdrawal
from shared.repository import Repository, activity_id, new_version
from shared.validation.topics import TopicPrefix


class SignIn(msgspec.Struct, frozen=True):
    """Where people sign in, and as which client of it the console does."""

    issuer: str
    client_id: str
    audience: str


class Tools(msgspec.Struct, frozen=True, dict=True):
    repository: Repository
    sealer: KeySealer
    sightings: SightingQueue
    clock: Clock
    platform_domain: str
    embedded: bool = False  # whether the store is in this process: nobody waits for a network
    weak_keys: Container[str] = frozenset()  # ids of keys known to be weak (shared.validation.strength)
    rate_per_minute: int = 10  # new server certificates and requests of an org
    ca_rate_per_minute: int = 600  # new CA certificates of an org
    decided: Callable[[str | None, str, str], None] = lambda org_id, code, decision: None  # counts decisions
    tokens: TokenVerifier | None = None  # None: API keys only
    sign_in: SignIn | None = None
    announcer: Announcer = msgspec.field(default_factory=NoAnnouncer)
    topic_prefix: TopicPrefix = msgspec.field(default_factory=TopicPrefix)  # under which a device has its topics

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


def made(at: datetime, who: str) -> Changed:
    """The stamp of a thing that is new."""
    return Changed(new_version(), at, who, at, who)


def touched(changed: Changed, at: datetime, who: str) -> Changed:
    """The stamp of a thing that was changed now."""
    return msgspec.structs.replace(changed, version=new_version(), updated_at=at, updated_by=who)


def paced(pace: Pace, at: datetime, limit: int, what: str) -> Pace:
    """One more new thing in this minute. Raises: RateLimited, beyond *limit*."""
    seconds = int(at.timestamp())
    minute = seconds // 60
    so_far = pace.made if pace.minute == minute else 0
    if so_far >= limit:
        raise RateLimited(limit=limit, what=what, seconds=60 - seconds % 60)
    return Pace(minute, so_far + 1)
