"""The local server, killed when it is about to append a line to the feed of withdrawals."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from functions.hosts.machine import run
from shared.ports import DocumentStore, Key
from tests.support.harness import CountingStore


def _kill_at_the_line(name: str, key: Key | None, call: Callable[[], Any]) -> Any:
    if name == "put" and key is not None and key.partition == "feed/withdrawals":
        os.kill(os.getpid(), signal.SIGKILL)
    return call()


def _wrap(store: DocumentStore) -> DocumentStore:
    counting = CountingStore(store)
    counting.between = _kill_at_the_line
    return counting


if __name__ == "__main__":
    sys.exit(run(wrap=_wrap))
