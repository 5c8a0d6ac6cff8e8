"""The documents of one batched read, as records."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from shared.ports import Document, Key, Version
from shared.records import OrgRecord, Record, decode
from shared.refs import Ref

R = TypeVar("R", bound=Record)


class Batch:
    """The documents of one batched read, as records.

    Args:
        incarnation: records of an organization are absent unless they belong to this incarnation; None: all count.
    """

    def __init__(
        self, keys: Collection[Key], documents: Mapping[Key, Document], incarnation: str | None = None
    ) -> None:
        self._keys = keys
        self._documents = documents
        self._incarnation = incarnation
        self._records: dict[Key, Record] = {}  # decoded records: a verdict takes its organization twice

    def of(self, incarnation: str) -> "Batch":
        """Return the same documents for an organization of that *incarnation*."""
        batch = Batch(self._keys, self._documents, incarnation)
        batch._records = self._records
        return batch

    def get(self, ref: Ref[R]) -> R | None:
        """Return the record at *ref*, or None where no document exists.

        Raises: KeyError, where the batch did not ask for *ref*."""
        document = self.document(ref)
        if document is None:
            return None
        record = self._records.get(ref.key)
        if not isinstance(record, ref.kind):
            record = self._records[ref.key] = decode(ref.kind, document.text)
        return record if counts_for(self._incarnation, record) else None

    def existing(self, partition: str, kind: type[R]) -> dict[str, R]:
        """Return the records of *partition* that the batch asked for and that exist, by id.

        Most look-ups of a verdict find nothing, and this method spends nothing on them."""
        refs = [Ref(key, kind) for key in self._documents if key.partition == partition]
        return {ref.key.id: record for ref in refs if (record := self.get(ref)) is not None}

    def document(self, ref: Ref[Any]) -> Document | None:
        """Return the document at *ref* as it was read. Raises: KeyError, as `get` does."""
        if ref.key not in self._keys:
            raise KeyError(ref.key)
        return self._documents.get(ref.key)

    def versions(self, keys: Iterable[Key]) -> tuple[Version | None, ...]:
        """Return the version of the document at each of *keys* as it was read; None where no document exists."""
        read = self._documents
        return tuple([document.version if (document := read.get(key)) is not None else None for key in keys])

    def replace(self, ref: Ref[Any], document: Document | None) -> "Batch":
        """Return a batch that holds *document* at *ref*; None: no document exists there."""
        documents = {key: kept for key, kept in self._documents.items() if key != ref.key}
        if document is not None:
            documents[ref.key] = document
        return Batch({*self._keys, ref.key}, documents, self._incarnation)


def counts_for(incarnation: str | None, record: Record) -> bool:
    """Return whether *record* is one for a reader of that *incarnation* (None: a reader of every record)."""
    return incarnation is None or not isinstance(record, OrgRecord) or record.belongs_to(incarnation)
