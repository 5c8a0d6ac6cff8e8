"""Notifier in this process: a bounded queue, and one thread that tells what it holds."""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

_ROOM: Final = 10_000  # messages
_LAST_SECONDS: Final = 5.0  # that a stop waits for what is held

Tell = Callable[[str, bytes], None]


class BackgroundNotifier:
    """See `shared.ports.Notifier`.

    Args:
        tell: delivers a message (id, body), with tries of its own; may take long, and raise where it gives up.
        room: messages that are held at most.
    """

    def __init__(self, tell: Tell, *, room: int = _ROOM) -> None:
        self._tell = tell
        self._waiting: queue.Queue[tuple[str, bytes] | None] = queue.Queue(room)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def announce(self, message_id: str, body: bytes) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)
                self._thread.start()
        try:
            self._waiting.put_nowait((message_id, body))
        except queue.Full:
            log.error("a message to the operator was dropped: too many wait", extra={"announced": message_id})

    def close(self) -> None:
        """Tell what is held, as far as a few seconds allow, and stop. Safe to call twice."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            thread.join(_LAST_SECONDS)

    def _run(self) -> None:
        while (one := self._waiting.get()) is not None:
            try:
                self._tell(*one)
            except Exception as error:  # noqa: BLE001 - the thread goes on; the edges' feed has it all the same
                log.error("a message to the operator was lost: %s", type(error).__name__, extra={"announced": one[0]})
