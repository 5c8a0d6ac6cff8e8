"""The documents of an organization's deny list, and the only way to change them.

A document holds the entries that one look-up finds. A serial number is looked up by the name of its issuer, so one
document may hold entries for several CAs of that name; every other document holds one entry.

The number of entries is limited. A call that adds an entry reserves a place in the counter before it writes the entry,
so the limit holds under any number of concurrent calls. An interrupted call may leave the counter too large, which a
sweep repairs. Entries beyond the limit, from before there was one, stay.

The last entry of a document leaves an empty document. The caller deletes that document once everything that follows
from the entry is done (`DenyList.delete_if_empty`). So a repeated call finds out that a call was cut short.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final

from shared.batch import Batch
from shared.errors import NotFound, TooManyDenials
from shared.org_repository import OrgRepository
from shared.records import Activity, Denial, Denials, DenyCount, Withdrawal
from shared.refs import Ref, denials_partition, denials_ref, deny_count_ref
from shared.repository import Waiting
from shared.validation.deny_list import DenyListEntry

DENIALS_MAX: Final = 10_000  # entries of an organization

_SERIAL: Final = "s-"  # begins the look-up ids of serial numbers
_REST: Final = timedelta(minutes=1)  # after the last change of the counter no call holds a reservation any more


def denial_id(look_up: str, issuer_key_hash: str | None) -> str:
    """Return the id of the entry that *look_up* finds; *issuer_key_hash* is set for a serial number."""
    return look_up if issuer_key_hash is None else f"{look_up}-{issuer_key_hash[:16]}"


def entry_of(denial: Denial) -> DenyListEntry:
    """Return *denial* as a verdict sees it."""
    return DenyListEntry(denial.created_at, denial.issuer_key_hash)


class DenyList:
    """The deny list of one organization."""

    def __init__(self, repository: OrgRepository) -> None:
        self._repository = repository
        self._org_id = repository.org_id
        self._partition = denials_partition(self._org_id)
        self._count_ref = deny_count_ref(self._org_id)

    # ------------------------------------------------------------------------------------------------- reading

    def ref(self, look_up: str) -> Ref[Denials]:
        """Return the ref of the entries that *look_up* finds."""
        return denials_ref(self._org_id, look_up)

    def refs(self, look_ups: Iterable[str]) -> list[Ref[Denials]]:
        """Return the ref of each of *look_ups*."""
        return [self.ref(look_up) for look_up in look_ups]

    def entries(self, batch: Batch, look_ups: Iterable[str]) -> list[Denial]:
        """Return the entries of *look_ups*, whose documents *batch* holds."""
        documents = (batch.get(self.ref(look_up)) for look_up in look_ups)
        return [denial for document in documents if document is not None for denial in document.entries.values()]

    def list_page(self, *, after: str, limit: int) -> list[Denial]:
        """Return at most *limit* entries whose ids come after *after*, ordered by id."""
        denials: list[Denial] = []
        start = look_up_of(after)
        first = self._repository.get(self.ref(start)) if start else None  # the document may hold more than one entry
        if first is not None:
            denials += [denial for denial in first.entries.values() if denial.id > after]
        while len(denials) < limit:
            page = self._repository.list(self._partition, Denials, after=start, limit=limit)
            if not page:
                break
            denials += [denial for _, document in page for denial in document.entries.values() if denial.id > after]
            start = page[-1][0]
        return sorted(denials, key=lambda denial: denial.id)[:limit]

    def iterate(self) -> Iterator[Denial]:
        """Yield every entry."""
        for document in self.iterate_documents():
            yield from document.entries.values()

    def iterate_documents(self) -> Iterator[Denials]:
        """Yield every document."""
        return (document for _, document in self._repository.iterate(self._partition, Denials))

    def iterate_refs(self) -> Iterator[tuple[Ref[Denials], Denials]]:
        """Yield every document with its ref."""
        for look_up, document in self._repository.iterate(self._partition, Denials):
            yield self.ref(look_up), document

    def check_room(self, look_up: str, entry_id: str) -> None:
        """Refuse an entry that `add` would refuse for the number of entries. Raises: TooManyDenials."""
        ref = self.ref(look_up)
        batch = self._repository.read_batch([ref, self._count_ref])
        stored = batch.get(ref)
        if stored is None or entry_id not in stored.entries:
            self._check_number(batch.get(self._count_ref))

    # ------------------------------------------------------------------------------------------------ changing

    def add(
        self, look_up: str, denial: Denial, *, activity: Activity, withdrawal: Withdrawal
    ) -> tuple[Denial, bool, Waiting]:
        """Add *denial*, which *look_up* finds.

        Return the stored entry of its id, whether the entry is new, and the withdrawals that are to be published.

        Raises: TooManyDenials."""
        ref = self.ref(look_up)
        batch = self._repository.read_batch([ref, self._count_ref])
        stored = batch.get(ref)
        if stored is not None and denial.id in stored.entries:
            return stored.entries[denial.id], False, Waiting(self._repository, ref, stored.withdrawals, batch)
        self._reserve(activity.at, batch)
        for attempt in self._repository.changing(ref, first=batch, activity_of=self._org_id):
            with attempt as document:
                entries = document.entries if document else {}
                is_new = denial.id not in entries
                if is_new:
                    added = Denials(entries={**entries, denial.id: denial})
                    attempt.write(added, activity=activity, withdrawals=[withdrawal])
        if not is_new:  # another call added the entry meanwhile
            self._release(activity.at)
        return entries.get(denial.id, denial), is_new, attempt.waiting

    def remove(self, entry_id: str, *, activity: Activity) -> tuple[Denial | None, Waiting]:
        """Remove an entry.

        Return the removed entry, or None where an earlier call has removed the entry, and the withdrawals that are to
        be published.

        An empty document stays, until `delete_if_empty` deletes it.

        Raises: NotFound, where no document for such an entry exists."""
        removed: dict[str, Denial] = {}
        for attempt in self._repository.changing(
            self.ref(look_up_of(entry_id)), also=[self._count_ref], activity_of=self._org_id
        ):
            with attempt as document:
                if document is None and not removed:
                    raise NotFound(what="such entry on the deny list")
                entries = document.entries if document else {}
                if entry_id in entries:
                    removed = {entry_id: entries[entry_id]}
                    remaining = {key: denial for key, denial in entries.items() if key != entry_id}
                    attempt.write(Denials(entries=remaining), activity=activity)
        if removed:
            self._release(activity.at, attempt.batch)
        return removed.get(entry_id), attempt.waiting

    def delete_if_empty(self, look_up: str) -> None:
        """Delete the document that *look_up* finds, if its last entry was removed and no withdrawal waits there."""
        for attempt in self._repository.changing(self.ref(look_up), activity_of=self._org_id):
            with attempt as document:
                if document is not None and not document.entries and not attempt.withdrawals:
                    attempt.delete()

    def delete_empty_documents(self) -> None:
        """Delete documents whose last entry was removed by a call that was cut short."""
        for look_up, document in self._repository.iterate(self._partition, Denials):
            if not document.entries:
                self.delete_if_empty(look_up)

    def repair_count(self, at: datetime) -> bool:
        """Make the counter agree with the list, unless a call may hold a reservation. Return whether it differed."""
        is_changed = False
        for attempt in self._repository.changing(self._count_ref):
            with attempt as count:
                if count is not None and at - count.changed_at >= _REST:
                    entries = self._count()  # read after the counter, at each attempt
                    is_changed = entries != count.entries
                    if is_changed:
                        attempt.write(DenyCount(entries=entries, changed_at=at))
        return is_changed

    # -------------------------------------------------------------------------------------------- the counter

    def _reserve(self, at: datetime, first: Batch) -> None:
        """Reserve a place for an entry. Raises: TooManyDenials."""
        for attempt in self._repository.changing(self._count_ref, first=first):
            with attempt as count:
                entries = self._check_number(count)
                attempt.write(DenyCount(entries=entries + 1, changed_at=at))

    def _check_number(self, count: DenyCount | None) -> int:
        """Return how many entries the list has, by its counter. Raises: TooManyDenials, if no place is free."""
        entries = self._count() if count is None else count.entries
        if entries >= DENIALS_MAX:
            raise TooManyDenials(limit=DENIALS_MAX)
        return entries

    def _release(self, at: datetime, first: Batch | None = None) -> None:
        """Give back the place of an entry."""
        for attempt in self._repository.changing(self._count_ref, first=first):
            with attempt as count:
                if count is not None:
                    attempt.write(DenyCount(entries=max(count.entries - 1, 0), changed_at=at))

    def _count(self) -> int:
        return sum(len(document.entries) for document in self.iterate_documents())


def look_up_of(entry_id: str) -> str:
    """Return the look-up id of an entry: the id of a serial number's entry continues it with the issuer's key."""
    return entry_id.rpartition("-")[0] if entry_id.startswith(_SERIAL) else entry_id
