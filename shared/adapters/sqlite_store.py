"""DocumentStore in one SQLite file: the embedded default.

WAL, so that readers never wait for a writer; synchronous=FULL, so that what was answered survives a lost power
supply too. One connection per thread, made at its first call.
"""

import secrets
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from shared.adapters.documents import can_exist, check_key, encoded, position
from shared.errors import StoreUnavailable
from shared.ports import Document, Key, Version, WriteConflict

_CACHE_KIB: Final = 512  # of pages, for each thread's connection: the system keeps the file in memory anyway
_BUSY_SECONDS: Final = 5.0  # how long a writer waits for the one before it
_SEPARATOR: Final = "\x1f"  # between partition and id; neither holds control characters
_AFTER_SEPARATOR: Final = "\x20"

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS documents (
    key TEXT NOT NULL PRIMARY KEY,  -- partition, separator, id
    version TEXT NOT NULL,
    body BLOB NOT NULL,             -- JSON
    expires INTEGER                 -- seconds since 1970, or NULL
);
CREATE INDEX IF NOT EXISTS documents_by_expiry ON documents (expires) WHERE expires IS NOT NULL;
"""


class SQLiteStore:
    """See `shared.ports.DocumentStore`."""

    def __init__(self, path: Path) -> None:
        """Opens the file at *path*, or makes it (and its folder), and drops documents that have expired."""
        self._path = path
        self._local = threading.local()
        self._opened: list[_Opened] = []
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._connection() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)
        self.sweep()

    def get_many(self, keys: Collection[Key]) -> dict[Key, Document]:
        by_path = {f"{key.partition}{_SEPARATOR}{key.id}": key for key in keys if can_exist(key)}
        if not by_path:
            return {}
        marks = ",".join("?" * len(by_path))
        query = f"SELECT key, version, body FROM documents WHERE key IN ({marks})"  # noqa: S608 - only question marks
        with self._connection() as connection:
            rows = connection.execute(query, tuple(by_path)).fetchall()
        return {by_path[path]: Document(by_path[path], version, body) for path, version, body in rows}

    def put(
        self, key: Key, body: Mapping[str, Any], *, expected: Version | None, expires: datetime | None = None
    ) -> Version:
        check_key(key)
        version = secrets.token_hex(8)
        data = encoded(body)
        until = int(expires.timestamp()) if expires else None
        with self._connection() as connection:
            if expected is None:
                done = connection.execute(
                    "INSERT INTO documents (key, version, body, expires) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (_path(key), version, data, until),
                )
            else:
                done = connection.execute(
                    "UPDATE documents SET version = ?, body = ?, expires = ? WHERE key = ? AND version = ?",
                    (version, data, until, _path(key), expected),
                )
        if done.rowcount != 1:
            raise WriteConflict(key)
        return version

    def delete(self, key: Key, *, expected: Version) -> None:
        check_key(key)
        with self._connection() as connection:
            done = connection.execute("DELETE FROM documents WHERE key = ? AND version = ?", (_path(key), expected))
        if done.rowcount != 1:
            raise WriteConflict(key)

    def list(self, partition: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        if limit < 1 or not can_exist(Key(partition, "any")):
            return []
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT key, version, body FROM documents WHERE key > ? AND key < ? ORDER BY key LIMIT ?",
                (partition + _SEPARATOR + position(after), partition + _AFTER_SEPARATOR, limit),
            ).fetchall()
        return [Document(Key(partition, path.partition(_SEPARATOR)[2]), version, body) for path, version, body in rows]

    def sweep(self) -> None:
        """Drop what has expired."""
        with self._connection() as connection:
            connection.execute("DELETE FROM documents WHERE expires < ?", (int(time.time()),))

    def close(self) -> None:
        with self._lock:
            opened, self._opened = self._opened, []
        for one in opened:
            with one.in_use:
                one.connection.close()
        self._local = threading.local()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection; each statement is a transaction of its own.

        Raises: StoreUnavailable, where the file is locked for too long, full, unreadable or closed."""
        try:
            mine: _Opened | None = getattr(self._local, "mine", None)
            if mine is None:
                mine = self._local.mine = self._open()
            with mine.in_use:
                yield mine.connection
        except sqlite3.Error as error:  # "database is locked", "disk I/O error", "database or disk is full", ...
            raise StoreUnavailable from error

    def _open(self) -> "_Opened":
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=32
        )
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        opened = _Opened(connection)
        with self._lock:
            self._opened.append(opened)
        return opened


class _Opened:
    """A thread's connection. A statement that runs (a verdict that came too late, say) is waited for by `close`: SQLite
    bears no connection that is closed under it."""

    __slots__ = ("connection", "in_use")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.in_use = threading.Lock()


def _path(key: Key) -> str:
    return f"{key.partition}{_SEPARATOR}{key.id}"
