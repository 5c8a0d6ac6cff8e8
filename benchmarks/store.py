"""Measure what the store's wrapper adds to the query of a verdict on SQLite.

The keys are those of a decision about a device with a leaf and an intermediate: four documents exist, the others are
entries that a deny list does not have. The same connection settings, the same statement and the same values are used on
both sides; the older form of the statement, `key IN (…)`, is stated beside.
"""

import sqlite3
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

from benchmarks.fleet import deployment, make_fleet
from benchmarks.table import STATED, Row, Target, measure_interleaved, microseconds, ratio
from shared.adapters.sqlite_store import SQLiteStore, make_query
from shared.ports import Document, Key

_WRAPPED: Final = "get_many"
_BARE: Final = "its bare query"
_IN: Final = "the bare query with IN"


def measure(quick: bool) -> list[Row]:
    devices = make_fleet("P-256", 20)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, deployment(Path(folder), devices.root) as deployed:
        store = deployed.app.store
        assert isinstance(store, SQLiteStore)
        keys = _keys_of_a_decision(store, deployed.forgetful.decisions(devices))
        paths = tuple(f"{key.partition}\x1f{key.id}" for key in keys)
        connection = sqlite3.connect(Path(folder) / "trust.db", isolation_level=None, cached_statements=32)
        query = make_query(len(paths))
        marks = ",".join("?" * len(paths))
        older = f"SELECT key, version, body FROM documents WHERE key IN ({marks})"
        ways = {
            _WRAPPED: lambda: store.get_many(keys),
            _BARE: lambda: connection.execute(query, paths).fetchall(),
            _IN: lambda: connection.execute(older, paths).fetchall(),
        }
        samples = measure_interleaved(ways, rounds=3 if quick else 300, clock=time.process_time)
        connection.close()
    figures = microseconds(samples)
    name = f"the read of a decision, {len(keys)} keys"
    return [
        Row(
            name,
            other,
            ratio(samples, _WRAPPED, other),
            target,
            figures={way: figures[way] for way in (_WRAPPED, other)},
        )
        for other, target in ((_BARE, Target(at_most=1.3)), (_IN, STATED))
    ]


def _keys_of_a_decision(store: SQLiteStore, decide: object) -> list[Key]:
    """Return the keys that a decision reads."""
    read: list[Key] = []
    get_many = store.get_many

    def note(keys: Collection[Key]) -> dict[Key, Document]:
        read[:] = keys
        return get_many(keys)

    store.get_many = note  # type: ignore[method-assign]
    try:
        assert callable(decide)
        decide()
    finally:
        del store.get_many
    return read
