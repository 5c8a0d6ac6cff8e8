"""The records of one organization, bound to its incarnation.

An id may be deleted and created again. The keys of documents follow from a request, because an allow is one batched
read. So a document that a call of the deleted organization wrote late has the key of a document of the new one. The
incarnation, a field of both, tells them apart:

* A reader takes only documents of its own incarnation. Any other document is absent.
* A writer stamps its own incarnation. The writer overwrites a document of an older incarnation, and stops with OrgGone
  at a newer one.
* The organization's own document is written only while it is the document of that incarnation, and no tombstone.

The incarnation is that of the organization for which the caller was admitted. `Context.of` makes the view.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec

from shared.batch import counts_for
from shared.errors import OrgGone
from shared.ports import Document, WriteConflict
from shared.records import Org, OrgRecord, Record, Withdrawal, decode
from shared.refs import Ref
from shared.repository import Repository

R = TypeVar("R", bound=Record)

_PAGE: Final = 200  # documents in one page of a partition


class _Mark(msgspec.Struct, frozen=True):
    """The incarnation of any document."""

    incarnation: str = ""


_MARKS: Final = msgspec.json.Decoder(_Mark)


class OrgRepository(Repository):
    """The records of one organization.

    Args:
        repository: of all organizations.
        org_id: the organization.
        incarnation: the incarnation whose records are read and written.
    """

    incarnation: str

    def __init__(self, repository: Repository, org_id: str, incarnation: str) -> None:
        super().__init__(repository._store)
        self._copied, self._published = repository._copied, repository._published
        self.org_id = org_id
        self.incarnation = incarnation

    # ------------------------------------------------------------------------------------------------- reading

    def list(self, partition: str, kind: type[R], *, after: str = "", limit: int = 100) -> list[tuple[str, R]]:
        """Return at most *limit* pairs (id, record) of *partition* whose ids come after *after*, ordered by id."""
        records: list[tuple[str, R]] = []
        while len(records) < limit:
            missing = limit - len(records)
            page = super().list(partition, kind, after=after, limit=missing)
            records += [(key, record) for key, record in page if counts_for(self.incarnation, record)]
            if len(page) < missing:
                break
            after = page[-1][0]
        return records

    # ------------------------------------------------------------------------------------------------- writing

    def _create_in_place(self, ref: Ref[R], record: R, expires: datetime | None) -> bool:
        """Create the record in place of a record of an older incarnation. Raises: OrgGone."""
        for attempt in self.changing(ref, expires=expires):
            with attempt as existing:
                if existing is None:
                    attempt.write(record)
        return existing is None

    def delete_older(self, partition: str) -> int:
        """Delete the documents of older incarnations in *partition*. Return their number."""
        return self._delete(partition, lambda mark: mark < self.incarnation)

    def delete_partition(self, partition: str) -> None:
        """Delete the documents of *partition*, except those of a newer incarnation."""
        while self._delete(partition, lambda mark: mark <= self.incarnation):
            continue  # a document may have been written meanwhile: the next pass shows it

    def _delete(self, partition: str, is_included: Callable[[str], bool]) -> int:
        count = 0
        for document in self._documents(partition):
            if is_included(_mark_of(document)):
                with suppress(WriteConflict):  # written or deleted meanwhile: the next pass shows which
                    self._store.delete(document.key, expected=document.version)
                count += 1
        return count

    def _documents(self, partition: str) -> Iterator[Document]:
        after = ""
        while page := self._store.list(partition, after=after, limit=_PAGE):
            yield from page
            after = page[-1].key.id

    def mark_withdrawal(self, withdrawal: Withdrawal) -> Withdrawal:
        """Return *withdrawal* with the incarnation: edges of an earlier organization do not receive it."""
        return msgspec.structs.replace(withdrawal, incarnation=self.incarnation)

    def _stamp(self, record: R) -> R:
        if not isinstance(record, OrgRecord):
            return record
        return msgspec.structs.replace(record, incarnation=self.incarnation)

    def _check_write(self, ref: Ref[Any], document: Document | None) -> None:
        """Refuse a write where the organization of this incarnation is gone. Raises: OrgGone."""
        if issubclass(ref.kind, Org):
            is_gone = document is None or not decode(Org, document.text).belongs_to(self.incarnation)
        else:
            is_gone = issubclass(ref.kind, OrgRecord) and document is not None and _mark_of(document) > self.incarnation
        if is_gone:
            raise OrgGone(org=self.org_id)


def _mark_of(document: Document) -> str:
    return _MARKS.decode(document.text).incarnation
