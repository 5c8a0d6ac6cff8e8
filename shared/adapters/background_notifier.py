"""Notifier with a thread: a bounded buffer, and one thread that sends its content."""

import logging
from collections.abc import Callable
from typing import Final

from shared.adapters.background_thread import BackgroundThread

log = logging.getLogger(__name__)

_CAPACITY: Final = 10_000  # messages

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
        self._thread = BackgroundThread(capacity=capacity)

    def notify(self, message_id: str, body: bytes) -> None:
        """Add a message to the buffer, or drop it if the buffer is full."""
        if not self._thread.offer(lambda: self._deliver(message_id, body)):
            log.error("a notification was dropped: the buffer is full", extra={"message_id": message_id})

    def close(self) -> None:
        """Send the content of the buffer within a few seconds, and stop the thread. May be called twice."""
        self._thread.close()

    def _deliver(self, message_id: str, body: bytes) -> None:
        try:
            self._send(message_id, body)
        except Exception as error:  # noqa: BLE001 - edges read the same from their feed
            log.error("a notification was lost: %s", type(error).__name__, extra={"message_id": message_id})
