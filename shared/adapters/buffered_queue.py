"""Base of all queues for connection events: a bounded buffer, and one thread that delivers its content.

The thread delivers once a second, and all events of an organization together. A process that is killed loses the
content of its buffer at most; the events are a sample anyway. Some platforms stop a process between two requests (AWS
Lambda; Cloud Run with CPU by request). There the thread continues during the next request and delays no response.
"""

import logging
import threading
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from shared.connection_records import ConnectionEvent, QueuedEvent

log = logging.getLogger(__name__)

_CAPACITY: Final = 10_000  # events
_CHAINS_MAX: Final = 8 * 1024 * 1024  # bytes of certificates in the buffer; further events lose theirs
_INTERVAL: Final = 1.0  # seconds between two deliveries


class BufferedQueue(ABC):
    """Base of all queues, see `shared.ports.ConnectionEventQueue`. A subclass delivers.

    Args:
        interval: seconds between two deliveries.
        capacity: the largest number of events in the buffer.
    """

    def __init__(self, *, interval: float = _INTERVAL, capacity: int = _CAPACITY) -> None:
        """Create an empty buffer. The thread starts with the first event."""
        self._interval = interval
        self._capacity = capacity
        self._buffer: deque[QueuedEvent] = deque()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._delivering = threading.Lock()
        self._chain_bytes = 0  # in the buffer, about
        self.dropped = 0  # events that did not fit into the buffer

    @abstractmethod
    def _deliver(self, events_by_org: Mapping[str, Sequence[QueuedEvent]]) -> None:
        """Deliver the content of the buffer; keys are orgIds. If this method raises, the events are lost."""

    def offer(self, event: QueuedEvent) -> None:
        """Add *event* to the buffer, or drop it if the buffer is full."""
        if isinstance(event, ConnectionEvent):
            size = sum(map(len, event.chain or event.unread or ()))
            if self._chain_bytes + size > _CHAINS_MAX:
                event = msgspec.structs.replace(event, chain=(), unread=None)
            else:
                self._chain_bytes += size
        if len(self._buffer) >= self._capacity:
            self.dropped += 1
            return
        self._buffer.append(event)
        if self._thread is None:
            self._start()

    def close(self) -> None:
        """Deliver the content of the buffer and stop the thread. May be called twice."""
        self._stopping.set()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        self.flush()

    def flush(self) -> None:
        """Deliver the content of the buffer in the caller's thread, after a delivery that is in progress."""
        with self._delivering:
            events_by_org = self._drain()
            if not events_by_org:
                return
            try:
                self._deliver(events_by_org)
            except Exception:  # noqa: BLE001 - logged; the queue must continue after any failure
                self._log_loss(sum(map(len, events_by_org.values())))

    def _drain(self) -> dict[str, list[QueuedEvent]]:
        events_by_org: dict[str, list[QueuedEvent]] = defaultdict(list)
        self._chain_bytes = 0
        for _ in range(len(self._buffer)):  # what is added meanwhile waits for the next delivery
            event = self._buffer.popleft()
            events_by_org[event.org_id].append(event)
        return events_by_org

    def _log_loss(self, count: int) -> None:
        """Log that *count* events were lost; called while an exception is handled."""
        log.warning("connection events were lost", extra={"count": count}, exc_info=True)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="connection-events", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            self.flush()
