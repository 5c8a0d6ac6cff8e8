"""The documents of an organization's deny list, and the only way to change them.

A document holds the entries that one look-up finds. A serial number is looked up by the name of its issuer, so one
document may hold entries for several CAs of that name; every other document holds one entry.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from shared.errors import NotFound
from shared.org_repository import OrgRepository
from shared.records import Activity, Denial, Denials
from shared.refs import Ref, denials_ref
from shared.repository import Batch

_SERIAL: Final = "s-"  # begins the look-up ids of serial numbers


def denial_id(look_up: str, issuer_key_hash: str | None) -> str:
    """Return the id of the entry that *look_up* finds; *issuer_key_hash* is set for a serial number."""
    return look_up if issuer_key_hash is None else f"{look_up}-{issuer_key_hash[:16]}"


class DenyList:
    """The deny list of one organization."""

    def __init__(self, repository: OrgRepository) -> None:
        self._repository = repository
        self._org_id = repository.org_id
        self._partition = f"deny/{self._org_id}"

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
        start = _look_up_of(after)
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

    # ------------------------------------------------------------------------------------------------ changing

    def add(self, look_up: str, denial: Denial, *, activity: Activity) -> tuple[Denial, bool]:
        """Add *denial*, which *look_up* finds. Return the stored entry of its id, and whether the entry is new."""
        for attempt in self._repository.changing(self.ref(look_up), activity_of=self._org_id):
            with attempt as document:
                entries = document.entries if document else {}
                is_new = denial.id not in entries
                if is_new:
                    attempt.write(Denials(entries={**entries, denial.id: denial}), activity=activity)
        return entries.get(denial.id, denial), is_new

    def remove(self, entry_id: str, *, activity: Activity) -> Denial:
        """Remove an entry, and its document if that was the last entry. Return the removed entry.

        Raises: NotFound."""
        ref = self.ref(_look_up_of(entry_id))
        removed: dict[str, Denial] = {}
        for attempt in self._repository.changing(ref, activity_of=self._org_id):
            with attempt as document:
                entries = document.entries if document else {}
                if entry_id in entries:
                    removed = {entry_id: entries[entry_id]}
                    remaining = {key: denial for key, denial in entries.items() if key != entry_id}
                    attempt.write(Denials(entries=remaining), activity=activity)
                elif not removed:  # else the attempt before this one was written, although its answer was lost
                    raise NotFound(what="such entry on the deny list")
        self._delete_if_empty(ref, attempt.batch)
        return removed[entry_id]

    def delete_empty_documents(self) -> None:
        """Delete documents whose last entry was removed by a call that was cut short."""
        for look_up, document in self._repository.iterate(self._partition, Denials):
            if not document.entries:
                self._delete_if_empty(self.ref(look_up))

    def _delete_if_empty(self, ref: Ref[Denials], first: Batch | None = None) -> None:
        for attempt in self._repository.changing(ref, first=first, activity_of=self._org_id):
            with attempt as document:
                if document is not None and not document.entries:
                    attempt.delete()


def _look_up_of(entry_id: str) -> str:
    """Return the look-up id of an entry: the id of a serial number's entry continues it with the issuer's key."""
    return entry_id.rpartition("-")[0] if entry_id.startswith(_SERIAL) else entry_id
