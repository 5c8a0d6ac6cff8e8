"""A store for the event loop: reads that never wait."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from shared.errors import StoreUnavailable
from shared.ports import Document, ImmediateReads, Key, Version


class ImmediateStore:
    """The reads of another store, as a `shared.ports.DocumentStore` that does not wait.

    A read that would wait raises StoreUnavailable, and so does every other method.
    """

    def __init__(self, store: ImmediateReads) -> None:
        """Read from *store*, from one thread only."""
        self._store = store

    def get_many(self, keys: Collection[Key]) -> dict[Key, Document]:
        """Return the documents that exist among *keys*. Raises: StoreUnavailable."""
        documents = self._store.try_get_many(keys)
        if documents is None:
            raise StoreUnavailable
        return documents

    def put(
        self, key: Key, body: Mapping[str, Any], *, expected: Version | None, expires: datetime | None = None
    ) -> Version:
        """Raise StoreUnavailable."""
        _refuse()

    def delete(self, key: Key, *, expected: Version) -> None:
        """Raise StoreUnavailable."""
        _refuse()

    def list(self, partition: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        """Raise StoreUnavailable."""
        _refuse()

    def close(self) -> None:
        """Do nothing: the other store is closed by itself."""


def _refuse() -> NoReturn:
    raise StoreUnavailable
