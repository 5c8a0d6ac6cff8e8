"""What every queue behind the answer shares: bounded room, and one thread that hands on what is held.

At most once a second per org: what comes in between is put together. A process that is killed loses at most what its
queue held, which is a sample anyway. Where the platform stops a process between two requests (AWS Lambda, Cloud Run
with CPU by request), the thread goes on with the next request: later, never in an answer's way.
"""

import logging
import queue
import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from shared.records import ConnectionEvent

log = logging.getLogger(__name__)

_ROOM: Final = 10_000  # sightings
_PAUSE: Final = 1.0  # seconds between two hand-overs


class BufferedQueue(ABC):
    """See `shared.ports.ConnectionEventQueue`.

    Args:
        pause: seconds between two hand-overs.
        room: sightings that are held at most.
    """

    def __init__(self, *, pause: float = _PAUSE, room: int = _ROOM) -> None:
        self._pause = pause
        self._waiting: queue.Queue[ConnectionEvent] = queue.Queue(room)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._handing_on = threading.Lock()
        self.dropped = 0  # sightings that found the queue full

    @abstractmethod
    def _hand_on(self, held: Mapping[str, Sequence[ConnectionEvent]]) -> None:
        """Pass on what was held, by org. In the queue's own thread; what raises is lost."""

    def offer(self, sighting: ConnectionEvent) -> None:
        try:
            self._waiting.put_nowait(sighting)
        except queue.Full:
            self.dropped += 1
            return
        if self._thread is None:
            self._start()

    def close(self) -> None:
        """Hand on what is held, and stop. Safe to call twice."""
        self._stopping.set()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        self.flush()

    def flush(self) -> None:
        """Hand on what is held, in the caller's thread; what another thread is handing on has arrived then too."""
        with self._handing_on:
            self._flush()

    def _flush(self) -> None:
        held: dict[str, list[ConnectionEvent]] = defaultdict(list)
        while True:
            try:
                one = self._waiting.get_nowait()
            except queue.Empty:
                break
            held[one.org_id].append(one)
        if held:
            try:
                self._hand_on(held)
            except Exception:  # noqa: BLE001 - whatever it is, `lost` tells it, and the queue goes on
                self.lost(sum(map(len, held.values())))

    def lost(self, count: int) -> None:
        """Say that sightings were lost; called where an error is being handled."""
        log.warning("sightings were lost", extra={"count": count}, exc_info=True)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="sightings", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(self._pause):
            self.flush()
