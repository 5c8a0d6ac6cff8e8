"""activityLog: what happened, newest first."""

import heapq
from collections.abc import Collection, Iterator

from shared.records import Activity, ActivityKind, ActivityPage
from shared.repository import Repository, activity_partition

_PAGE = 50


def list_activity(
    repository: Repository, org_id: str, kinds: Collection[ActivityKind], *, after: str, limit: int
) -> list[Activity]:
    """At most *limit* entries of *kinds*, newest first, beginning behind the entry whose id is *after*."""
    streams = [_stream(repository, org_id, kind, after) for kind in kinds]
    merged = heapq.merge(*streams, key=lambda entry: entry.id)
    return [entry for entry, _ in zip(merged, range(limit), strict=False)]


def _stream(repository: Repository, org_id: str, kind: ActivityKind, after: str) -> Iterator[Activity]:
    """The entries of one kind, newest first. A stored page has the id of its newest entry or a later one's."""
    partition = activity_partition(org_id, kind)
    # Entries of one page lie within seconds of it: begin a little earlier in the order, and drop what was told.
    start = _earlier(after)
    held: list[Activity] = []  # pages of several writers overlap: told once no later page can hold a newer one
    while page := repository.list(partition, ActivityPage, after=start, limit=_PAGE):
        start = page[-1][0]
        held = sorted([*held, *(entry for _, one in page for entry in one.entries)], key=lambda entry: entry.id)
        yield from (entry for entry in held if after < entry.id <= start)
        held = [entry for entry in held if entry.id > start]
    yield from (entry for entry in held if entry.id > after)


_SPREAD = 60 * 1_000_000  # microseconds that the entries of one stored page may lie apart


def _earlier(entry_id: str) -> str:
    head, _, _ = entry_id.partition("-")
    try:
        return f"{max(int(head, 16) - _SPREAD, 0):016x}"
    except ValueError:
        return ""
