"""Tests of the SQLite store alone. Tests of all stores are in tests/conformance."""

import os
import sqlite3
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.adapters.sqlite_store import SQLiteStore
from shared.errors import StoreUnavailable
from shared.ports import Key

_CLOSED_WHILE_READ = """
import sys, threading
from pathlib import Path
from shared.adapters.sqlite_store import SQLiteStore
from shared.errors import StoreUnavailable
from shared.ports import Key

for turn in range(5):
    store = SQLiteStore(Path(sys.argv[1]) / f"{turn}.db")
    reading = threading.Semaphore(0)

    def read():
        for _ in range(100):
            reading.release()
            try:
                store.get_many([Key("org", str(number)) for number in range(50)])
            except StoreUnavailable:
                pass

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        reading.acquire()
    store.close()
    for thread in threads:
        thread.join()
    store.close()
"""


def test_closing_the_store_while_threads_read_does_not_crash_the_process(tmp_path: Path) -> None:
    """A late verdict may still read while the service stops. An unprotected close would crash SQLite (SIGSEGV)."""
    process = subprocess.run([sys.executable, "-c", _CLOSED_WHILE_READ, str(tmp_path)], timeout=120, check=False)
    assert process.returncode == 0


def modes(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


def test_no_other_user_can_read_the_store(tmp_path: Path) -> None:
    """A new store, its folder, and the files that SQLite keeps beside it, whatever the umask of the process."""
    before = os.umask(0)
    try:
        store = SQLiteStore(tmp_path / "data" / "trust.db")
        store.put(Key("org", "a"), {}, expected=None)
        assert modes(tmp_path / "data") == {"trust.db": 0o600, "trust.db-wal": 0o600, "trust.db-shm": 0o600}
        store.close()
    finally:
        os.umask(before)
    assert modes(tmp_path) == {"data": 0o700}


def test_a_store_that_others_could_read_is_closed_to_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A store of an earlier version; a line of the log says so."""
    first = SQLiteStore(tmp_path / "trust.db")
    first.put(Key("org", "a"), {}, expected=None)
    for file in tmp_path.iterdir():
        file.chmod(0o644)
    second = SQLiteStore(tmp_path / "trust.db")
    assert set(modes(tmp_path).values()) == {0o600}
    assert "other users could read a file of the store" in caplog.text
    assert second.get_many([Key("org", "a")])
    first.close()
    second.close()


def test_a_sweep_deletes_all_expired_documents(tmp_path: Path) -> None:
    """Also where there are more than one statement deletes."""
    store = SQLiteStore(tmp_path / "trust.db")
    past, future = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1)
    with sqlite3.connect(tmp_path / "trust.db") as file:
        rows = [(f"activity\x1f{number}", "1", "{}", int(past.timestamp())) for number in range(2500)]
        file.executemany("INSERT INTO documents VALUES (?, ?, ?, ?)", rows)
    file.close()
    store.put(Key("activity", "kept"), {}, expected=None, expires=future)
    store.put(Key("activity", "for ever"), {}, expected=None)
    store.sweep()
    assert [document.key.id for document in store.list("activity", limit=10)] == ["for ever", "kept"]
    store.close()


def test_a_read_that_must_not_wait_returns_at_once_while_the_file_is_locked(tmp_path: Path) -> None:
    """The lock is that of a process which has the file for itself. Afterwards the documents are read again."""
    store = SQLiteStore(tmp_path / "trust.db")
    key = Key("org", "mtxpd0")
    version = store.put(key, {"a": 1}, expected=None)
    documents = store.try_get_many([key, Key("org", "other1")])
    assert documents == store.get_many([key])
    store.close()
    other = sqlite3.connect(tmp_path / "trust.db", isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    assert store.try_get_many([key]) is None
    other.close()
    documents = store.try_get_many([key])
    assert documents is not None
    assert documents[key].version == version
    store.close()


def test_a_read_that_must_not_wait_reports_a_broken_file(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "trust.db")
    store.close()
    (tmp_path / "trust.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreUnavailable):
        store.try_get_many([Key("org", "mtxpd0")])


@pytest.mark.parametrize(
    "key", [Key("a\x1fb", "c"), Key("a", "b\x1fc"), Key("a", "b\x00"), Key("", "a"), Key("a", ""), Key("a", "\ud800")]
)
def test_an_impossible_key_finds_nothing_beside_others(tmp_path: Path, key: Key) -> None:
    """The separator inside a name must not make the key of another document."""
    store = SQLiteStore(tmp_path / "trust.db")
    documents: dict[Key, dict[str, str]] = {Key("a", "b"): {}, Key("a\x20b", "c"): {}}
    for there, body in documents.items():
        store.put(there, body, expected=None)
    assert set(store.get_many([key, *documents])) == set(documents)
    assert set(store.try_get_many([key, *documents]) or ()) == set(documents)
    store.close()
