"""`functions.local` with a failing store: it does to SQLite's adapter what a network does to the clouds' stores.

    python -m benchmarks.faults.serve ORDERS

ORDERS is a file that another process writes (`Orders`); every call to the store obeys its current content.
"""

import random
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from functions.hosts import machine
from shared.errors import StoreUnavailable
from shared.ports import Document, DocumentStore, Key, Version


class Orders(msgspec.Struct, frozen=True, omit_defaults=True):
    """Shares (0 to 1) of the calls to the store with a fault.

    Args:
        away: refused, and not made.
        lost: made, and reported as failed.
        late: share, and the longest wait in seconds.
        stuck: share, and the seconds for which a call hangs before it is made.
    """

    away: float = 0.0
    lost: float = 0.0
    late: tuple[float, float] = (0.0, 0.0)
    stuck: tuple[float, float] = (0.0, 0.0)

    def write(self, file: Path) -> None:
        partial_file = file.with_suffix(".partial")
        partial_file.write_bytes(msgspec.json.encode(self))
        partial_file.rename(file)


class FailingStore:
    """A `shared.ports.DocumentStore` that passes calls to a real store, with faults before and after them."""

    def __init__(self, store: DocumentStore, orders: Path) -> None:
        self._store = store
        self._file = orders
        self._draw = random.Random(6)
        self._lock = threading.Lock()

    def get_many(self, keys: Collection[Key]) -> dict[Key, Document]:
        self._before()
        return self._store.get_many(keys)

    def put(
        self, key: Key, body: Mapping[str, Any], *, expected: Version | None, expires: datetime | None = None
    ) -> Version:
        lost = self._before()
        version = self._store.put(key, body, expected=expected, expires=expires)
        if lost:
            raise StoreUnavailable
        return version

    def delete(self, key: Key, *, expected: Version) -> None:
        lost = self._before()
        self._store.delete(key, expected=expected)
        if lost:
            raise StoreUnavailable

    def list(self, partition: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        self._before()
        return self._store.list(partition, after=after, limit=limit)

    def close(self) -> None:
        self._store.close()

    def _before(self) -> bool:
        """Apply the faults before a call. Return whether its answer is to be lost. Raises: StoreUnavailable."""
        orders = msgspec.json.decode(self._file.read_bytes(), type=Orders)
        with self._lock:
            away, lost, late, stuck = (self._draw.random() for _ in range(4))
            wait = self._draw.uniform(0, orders.late[1]) if late < orders.late[0] else 0.0
        if stuck < orders.stuck[0]:
            wait += orders.stuck[1]
        if wait:
            time.sleep(wait)
        if away < orders.away:
            raise StoreUnavailable
        return lost < orders.lost


def main() -> int:
    orders = Path(sys.argv[1])
    return machine.run(wrap=lambda store: FailingStore(store, orders))


if __name__ == "__main__":
    sys.exit(main())
