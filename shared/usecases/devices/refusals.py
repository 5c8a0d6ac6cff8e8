"""The refusals of an organization, in the activity list: a ring for each day.

Anyone can be refused as often as he likes. So a day has 1,000 pages and 2,000 entries at most, and the newest stay.
"""

from collections.abc import Sequence
from typing import Final

from shared.connection_records import RefusalPages
from shared.org_repository import OrgRepository
from shared.ports import Key
from shared.records import Activity, ActivityKind, ActivityPage
from shared.refs import Ref, activity_partition, refusal_pages_ref
from shared.repository import KEEP_REFUSALS

PAGES_MAX: Final = 1_000  # documents of a day
ENTRIES_MAX: Final = 2_000  # refusals of a day


def add_refusals(repository: OrgRepository, day: str, entries: Sequence[Activity], *, count: int) -> None:
    """Append *entries* as a page, and delete the oldest pages of *day* that the ring has no room for.

    The ring is written first, so that a call that is cut short leaves no page that the ring does not know.

    Args:
        count: how many refusals there were; *entries* may be the latest of them.

    Raises: OrgGone, TooBusy, StoreUnavailable."""
    if not entries:
        return
    page = min(entry.id for entry in entries)  # the id of the newest, as `Repository.append` chooses
    expires = max(entry.at for entry in entries) + KEEP_REFUSALS
    org_id, dropped = repository.org_id, list[str]()
    for attempt in repository.changing(refusal_pages_ref(org_id, day), expires=expires):
        with attempt as stored:
            ring = stored or RefusalPages()
            pages = {**ring.pages, page: len(entries)}
            dropped = _surplus(pages)
            kept = {name: size for name, size in pages.items() if name not in dropped}
            attempt.write(RefusalPages(kept, ring.count + max(count, len(entries))))
    repository.append(org_id, ActivityKind.REFUSAL, entries)
    for name in dropped:
        repository.delete(Ref(Key(activity_partition(org_id, ActivityKind.REFUSAL), name), ActivityPage))


def _surplus(pages: dict[str, int]) -> list[str]:
    """Return the oldest pages beyond the bounds. An id that sorts later is older."""
    number, entries, surplus = 0, 0, []
    for name in sorted(pages):
        number, entries = number + 1, entries + pages[name]
        if number > PAGES_MAX or entries > ENTRIES_MAX:
            surplus.append(name)
    return surplus
