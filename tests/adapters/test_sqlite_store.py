"""What is the embedded store's own; what it promises like every other is in tests/conformance."""

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
    for one in threads:
        one.start()
    for _ in range(40):
        reading.acquire()
    store.close()
    for one in threads:
        one.join()
    store.close()
"""


def test_a_store_that_is_closed_while_threads_read_ends_no_process(tmp_path: Path) -> None:
    """A verdict that came too late still reads while the service stops. SQLite would end the process (SIGSEGV)."""
    done = subprocess.run([sys.executable, "-c", _CLOSED_WHILE_READ, str(tmp_path)], timeout=120, check=False)
    assert done.returncode == 0
