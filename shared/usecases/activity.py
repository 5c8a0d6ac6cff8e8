"""The activity list of an organization, newest first."""

import heapq
from collections.abc import Collection, Iterator
from typing import Final

from shared.org_repository import OrgRepository
from shared.records import Activity, ActivityKind, ActivityPage
from shared.refs import activity_partition

_PAGE: Final = 50
_SPREAD: Final = 60 * 1_000_000  # microseconds that the entries of one stored page may lie apart


def list_activity(
    repository: OrgRepository, kinds: Collection[ActivityKind], *, after: str, limit: int
) -> list[Activity]:
    """Return at most *limit* entries of *kinds* that follow the entry whose id is *after*, newest first."""
    streams = [_iterate(repository, kind, after) for kind in kinds]
    merged = heapq.merge(*streams, key=lambda entry: entry.id)
    return [entry for entry, _ in zip(merged, range(limit), strict=False)]


def _iterate(repository: OrgRepository, kind: ActivityKind, after: str) -> Iterator[Activity]:
    """Yield the entries of one kind, newest first.

    The id of a stored page is that of its newest entry, or of a later one. Entries of one page lie within seconds of
    each other, so reading begins a little earlier in the order, and skips the entries up to *after*. The pages of
    several writers overlap, so an entry is held back until no later page can hold a newer one."""
    partition = activity_partition(repository.org_id, kind)
    start = _earlier(after)
    held: list[Activity] = []
    while page := repository.list(partition, ActivityPage, after=start, limit=_PAGE):
        start = page[-1][0]
        held = sorted([*held, *(entry for _, record in page for entry in record.entries)], key=lambda entry: entry.id)
        yield from (entry for entry in held if after < entry.id <= start)
        held = [entry for entry in held if entry.id > start]
    yield from (entry for entry in held if entry.id > after)


def _earlier(entry_id: str) -> str:
    """Return an id that sorts before *entry_id* by _SPREAD; "" where *entry_id* is not an entry's."""
    head, _, _ = entry_id.partition("-")
    try:
        return f"{max(int(head, 16) - _SPREAD, 0):016x}"
    except ValueError:
        return ""
