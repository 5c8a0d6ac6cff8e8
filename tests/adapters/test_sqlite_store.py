"""Tests of the SQLite store alone. Tests of all stores are in tests/conformance."""

import subprocess
import sys
from pathlib import Path

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
