"""Background work in one thread."""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

_CAPACITY: Final = 100
_CLOSE_SECONDS: Final = 5.0  # how long `close` waits for the thread


class BackgroundThread:
    """A bounded buffer, and one thread that works it off, see `shared.ports.Background`.

    Some platforms stop a process between two requests; there the thread continues during the next request.

    Args:
        capacity: how many pieces of work the buffer holds.
    """

    def __init__(self, *, capacity: int = _CAPACITY) -> None:
        """Create an empty buffer. The thread starts with the first piece of work."""
        self._buffer: queue.Queue[Callable[[], None] | None] = queue.Queue(capacity)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def run(self, work: Callable[[], None]) -> None:
        """Add *work* to the buffer, or drop it if the buffer is full."""
        if not self.offer(work):
            log.warning("background work was dropped: the buffer is full")

    def offer(self, work: Callable[[], None]) -> bool:
        """Add *work* to the buffer. Return False, and do nothing, if the buffer is full."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="background", daemon=True)
                self._thread.start()
        try:
            self._buffer.put_nowait(work)
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """Do what is in the buffer within a few seconds, and stop the thread. May be called twice."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._buffer.put(None)
            thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        while (work := self._buffer.get()) is not None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - the thread must continue
                log.error("background work failed: %s", type(error).__name__)
