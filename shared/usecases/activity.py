"""The activity list of an organization, newest first."""

import heapq
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Final

import msgspec

from shared.org_repository import OrgRepository
from shared.records import Activity, ActivityKind, ActivityPage
from shared.refs import activity_moment, activity_partition
from shared.usecases.callers import label_key

_PAGE: Final = 50
_SPREAD: Final = 60 * 1_000_000  # microseconds that the entries of one stored page may lie apart
READ_MAX: Final = 5_000  # entries that one search reads


class ActivitySearch(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries are searched for.

    Args:
        text: is part of a text of the entry, in any case. Empty: every entry.
        since, until: the first and the last time; None: no bound.
    """

    text: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def matches(self, entry: Activity) -> bool:
        """Return whether *entry* has the text. The name of a platform key is not searched: its label is shown."""
        text = self.text.strip().casefold()
        return not text or any(text in part.casefold() for part in _texts_of(entry) if part)


EVERYTHING: Final = ActivitySearch()


class FoundActivity(msgspec.Struct, frozen=True):
    """The result of a search.

    Args:
        entries: a page, newest first.
        bookmark: the id after which the search goes on; None: there is nothing more. A page may have few entries, or
            none, and a bookmark: the search has read READ_MAX entries.
    """

    entries: Sequence[Activity]
    bookmark: str | None


def list_activity(
    repository: OrgRepository,
    kinds: Collection[ActivityKind],
    search: ActivitySearch = EVERYTHING,
    *,
    after: str,
    limit: int,
) -> FoundActivity:
    """Return at most *limit* entries of *kinds* that follow the entry whose id is *after*, newest first."""
    if search.until is not None:
        after = max(after, activity_moment(search.until))
    streams = [_iterate(repository, kind, after) for kind in kinds]
    found: list[Activity] = []
    last = after
    for number, entry in enumerate(heapq.merge(*streams, key=lambda entry: entry.id)):
        if search.since is not None and entry.at < search.since:
            break
        if len(found) == limit or number == READ_MAX:
            return FoundActivity(found, last)
        last = entry.id
        if search.matches(entry):
            found.append(entry)
    return FoundActivity(found, None)


def who_of(entry: Activity) -> str:
    """Return who acted, as an organization may see it. A refused client chooses its name itself."""
    return entry.who if entry.kind is ActivityKind.REFUSAL else label_key(entry.who)


def _texts_of(entry: Activity) -> Iterator[str | None]:
    yield from (who_of(entry), entry.what, entry.result, entry.code, entry.client_id, entry.server_name)
    yield from (entry.reason, label_key(entry.asked_by), entry.fingerprint, *entry.detail.values())


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
