"""Notifier with a thread: a bounded buffer, and one thread that sends its content."""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

_CAPACITY: Final = 10_000  # messages
_CLOSE_SECONDS: Final = 5.0  # how long `close` waits for the thread

Send = Callable[[str, bytes], None]


class BackgroundNotifier:
    """A notifier for a process that continues after the response, see `shared.ports.Notifier`.

    Args:
        send: sends a message (id, body) and retries; may take long, and may raise any exception.
        capacity: the largest number of messages in the buffer.
    """

    def __init__(self, send: Send, *, capacity: int = _CAPACITY) -> None:
        """Create an empty buffer. The thread starts with the first message."""
        self._send = send
        self._buffer: queue.Queue[tuple[str, bytes] | None] = queue.Queue(capacity)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def notify(self, message_id: str, body: bytes) -> None:
        """Add a message to the buffer, or drop it if the buffer is full."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)
                self._thread.start()
        try:
            self._buffer.put_nowait((message_id, body))
        except queue.Full:
            log.error("a notification was dropped: the buffer is full", extra={"message_id": message_id})

    def close(self) -> None:
        """Send the content of the buffer within a few seconds, and stop the thread. May be called twice."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._buffer.put(None)
            thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        while (message := self._buffer.get()) is not None:
            message_id, body = message
            try:
                self._send(message_id, body)
            except Exception as error:  # noqa: BLE001 - the thread must continue; edges read the same from their feed
                log.error("a notification was lost: %s", type(error).__name__, extra={"message_id": message_id})
