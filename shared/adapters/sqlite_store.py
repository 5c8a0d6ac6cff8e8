"""DocumentStore in one SQLite file: the embedded default.

The journal mode is WAL, so that readers never wait for a writer. The synchronous mode is FULL, so that completed writes
survive a power failure. Each thread has a connection of its own, opened at its first call.

Source: SQLite documentation ("Write-Ahead Logging", "PRAGMA synchronous").
"""

import logging
import os
import secrets
import sqlite3
import stat
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from shared.adapters.documents import can_exist, check_key, encode, normalize_bookmark
from shared.errors import StoreUnavailable
from shared.ports import Document, Key, Version, WriteConflict

log = logging.getLogger(__name__)

_CACHE_KIB: Final = 512  # page cache of each connection; the operating system caches the file as well
_BUSY_SECONDS: Final = 5.0  # how long a writer waits for another writer
_SWEPT_AT_ONCE: Final = 1000  # documents that one statement deletes
_SEPARATOR: Final = "\x1f"  # between partition and id; neither contains control characters
_AFTER_SEPARATOR: Final = "\x20"
_LOCKED: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

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
    """A document store in one file, see `shared.ports.DocumentStore`."""

    def __init__(self, path: Path) -> None:
        """Open or create the file at *path* and its folder, for this user alone, and delete expired documents.

        Raises: StoreUnavailable.
        """
        self._path = path
        self._local = threading.local()
        self._connections: list[_Connection] = []
        self._immediate: _Connection | None = None  # of `try_get_many`
        self._lock = threading.Lock()
        _make_private(path)
        with self._connection() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)
        self.sweep()

    def get_many(self, keys: Collection[Key]) -> dict[Key, Document]:
        """Return the documents that exist among *keys*, with one query."""
        by_path = _paths(keys)
        if not by_path:
            return {}
        try:  # not `_connection`, which takes as long as a part of the query
            connection = self._own_connection()
            with connection.in_use:
                return _select(connection.sqlite, by_path)
        except sqlite3.Error as error:
            raise StoreUnavailable from error

    def try_get_many(self, keys: Collection[Key]) -> dict[Key, Document] | None:
        """Return the documents that exist among *keys*, or None where another connection has locked the file.

        The method has a connection of its own, which does not wait for a lock.

        Raises: StoreUnavailable.
        """
        by_path = _paths(keys)
        if not by_path:
            return {}
        try:
            connection = self._immediate  # `close` in another thread may set the attribute meanwhile
            if connection is None:
                connection = self._immediate = self._open(wait=0.0)
            with connection.in_use:
                return _select(connection.sqlite, by_path)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in _LOCKED:
                return None
            raise StoreUnavailable from error
        except sqlite3.Error as error:
            raise StoreUnavailable from error

    def put(
        self, key: Key, body: Mapping[str, Any], *, expected: Version | None, expires: datetime | None = None
    ) -> Version:
        """Store *body* if the document is at version *expected*, and return the new version."""
        check_key(key)
        version = secrets.token_hex(8)
        data = encode(body)
        expiry = int(expires.timestamp()) if expires else None
        with self._connection() as connection:
            if expected is None:
                cursor = connection.execute(
                    "INSERT INTO documents (key, version, body, expires) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (_path(key), version, data, expiry),
                )
            else:
                cursor = connection.execute(
                    "UPDATE documents SET version = ?, body = ?, expires = ? WHERE key = ? AND version = ?",
                    (version, data, expiry, _path(key), expected),
                )
        if cursor.rowcount != 1:
            raise WriteConflict(key)
        return version

    def delete(self, key: Key, *, expected: Version) -> None:
        """Delete the document if it is at version *expected*."""
        check_key(key)
        with self._connection() as connection:
            cursor = connection.execute("DELETE FROM documents WHERE key = ? AND version = ?", (_path(key), expected))
        if cursor.rowcount != 1:
            raise WriteConflict(key)

    def list(self, partition: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        """Return at most *limit* documents of *partition*, ordered by id, with ids greater than *after*."""
        if limit < 1 or not can_exist(Key(partition, "any")):
            return []
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT key, version, body FROM documents WHERE key > ? AND key < ? ORDER BY key LIMIT ?",
                (partition + _SEPARATOR + normalize_bookmark(after), partition + _AFTER_SEPARATOR, limit),
            ).fetchall()
        return [Document(Key(partition, path.partition(_SEPARATOR)[2]), version, body) for path, version, body in rows]

    def sweep(self) -> None:
        """Delete expired documents, some at a time, so that no other writer waits long."""
        now = int(time.time())
        deleted = _SWEPT_AT_ONCE
        while deleted == _SWEPT_AT_ONCE:
            with self._connection() as connection:
                deleted = connection.execute(
                    "DELETE FROM documents WHERE key IN (SELECT key FROM documents WHERE expires < ? LIMIT ?)",
                    (now, _SWEPT_AT_ONCE),
                ).rowcount

    def close(self) -> None:
        """Close the connections of all threads, after their running statements. May be called twice."""
        with self._lock:
            connections, self._connections = self._connections, []
            self._immediate = None
        for connection in connections:
            with connection.in_use:
                connection.sqlite.close()
        self._local = threading.local()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Lend this thread's connection. Each statement is a transaction of its own.

        Raises: StoreUnavailable, if the file is locked for too long, full, unreadable or closed.
        """
        try:
            connection = self._own_connection()
            with connection.in_use:
                yield connection.sqlite
        except sqlite3.Error as error:  # "database is locked", "disk I/O error", "database or disk is full", ...
            raise StoreUnavailable from error

    def _own_connection(self) -> "_Connection":
        """Return this thread's connection. Raises: sqlite3.Error."""
        connection: _Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._open()
        return connection

    def _open(self, *, wait: float = _BUSY_SECONDS) -> "_Connection":
        """Open a connection that waits *wait* seconds for a lock. Raises: sqlite3.Error."""
        sqlite = sqlite3.connect(
            self._path, timeout=wait, isolation_level=None, check_same_thread=False, cached_statements=32
        )
        sqlite.execute("PRAGMA synchronous=FULL")
        sqlite.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        connection = _Connection(sqlite)
        with self._lock:
            self._connections.append(connection)
        return connection


class _Connection:
    """A thread's connection, locked while a statement runs.

    `close` waits for the lock. A thread may still run a statement while the process stops, for example after the
    deadline of a verdict, and SQLite crashes if a connection is closed while a statement runs.
    """

    __slots__ = ("in_use", "sqlite")

    def __init__(self, sqlite: sqlite3.Connection) -> None:
        self.sqlite = sqlite
        self.in_use = threading.Lock()


def _make_private(path: Path) -> None:
    """Let this user alone read the database: a new file is created so, and an existing file is changed.

    SQLite gives the files beside the database (`-wal`, `-shm`) the mode of the database. The file of a database that is
    open must not be opened and closed here: that would drop SQLite's locks (SQLite, "How To Corrupt An SQLite Database
    File", 2.2).

    Raises: StoreUnavailable.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise StoreUnavailable from error
    for file in (path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))):
        with suppress(FileNotFoundError):
            _close_to_others(file)


def _close_to_others(file: Path) -> None:
    mode = stat.S_IMODE(file.stat().st_mode)
    if not mode & 0o077:
        return
    try:
        file.chmod(mode & 0o700)
    except PermissionError:  # another user owns the file
        log.warning("other users can read a file of the store", extra={"file": str(file)})
    else:
        log.warning("other users could read a file of the store; now they cannot", extra={"file": str(file)})


@lru_cache
def make_query(count: int) -> str:
    """Return the query for *count* keys. SQLite's module knows a prepared statement by its text.

    SQLite looks up each key in turn. It would sort the keys of `key IN (…)` first, which takes half as long again."""
    marks = ",".join(["(?)"] * count)
    wanted = f"WITH wanted(path) AS (VALUES {marks})"
    return f"{wanted} SELECT key, version, body FROM wanted CROSS JOIN documents ON key = path"  # noqa: S608


def _select(sqlite: sqlite3.Connection, by_path: Mapping[str, Key]) -> dict[Key, Document]:
    rows = sqlite.execute(make_query(len(by_path)), tuple(by_path))
    return {(key := by_path[path]): Document(key, version, body) for path, version, body in rows}


def _paths(keys: Collection[Key]) -> dict[str, Key]:
    """Return those of *keys* that a document may have, by their paths."""
    by_path = {f"{key.partition}\x1f{key.id}": key for key in keys}
    text = "".join(by_path)
    # All at once in the common case. A path with one separator is the path of one key only, and no document has a path
    # with another control character.
    if text.isascii() and text.count(_SEPARATOR) == len(by_path):
        return by_path
    return {path: key for path, key in by_path.items() if can_exist(key)}


def _path(key: Key) -> str:
    return f"{key.partition}{_SEPARATOR}{key.id}"
