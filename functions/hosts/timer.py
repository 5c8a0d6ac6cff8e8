"""Work that a process does from time to time, beside its requests."""

import logging
import threading
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

HOUR: Final = 3600.0  # seconds


class Timer:
    """Calls *work* every *seconds* in a thread of its own, the first time after *seconds*. A failure is logged."""

    def __init__(self, work: Callable[[], None], *, seconds: float = HOUR) -> None:
        self._work = work
        self._seconds = seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="timer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread, after the work that is in progress. May be called twice, and before `start`."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            try:
                self._work()
            except Exception as error:
                log.warning("work of the timer failed: %s", type(error).__name__, exc_info=True)
