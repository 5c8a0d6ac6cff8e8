"""SightingQueue in this process: a bounded queue, and one thread that writes what it holds.

At most one write a second per org: what comes in between is put together. A process that is killed loses at most
what its queue held, which is a sample anyway.
"""

import logging
import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

from shared.records import Sighting

log = logging.getLogger(__name__)

_ROOM: Final = 10_000  # sightings
_PAUSE: Final = 1.0  # seconds between two writes of one org

Write = Callable[[str, Sequence[Sighting]], None]


class LocalQueue:
    """See `shared.ports.SightingQueue`.

    Args:
        write: called in the queue's own thread with an org and its sightings.
        pause: seconds between two writes of one org.
        room: sightings that are held at most.
    """

    def __init__(self, write: Write, *, pause: float = _PAUSE, room: int = _ROOM) -> None:
        self._write = write
        self._pause = pause
        self._waiting: queue.Queue[Sighting] = queue.Queue(room)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.dropped = 0  # sightings that found the queue full

    def offer(self, sighting: Sighting) -> None:
        try:
            self._waiting.put_nowait(sighting)
        except queue.Full:
            self.dropped += 1
            return
        if self._thread is None:
            self._start()

    def close(self) -> None:
        """Write what is held, and stop. Safe to call twice."""
        self._stopping.set()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        self.flush()

    def flush(self) -> None:
        """Write what is held, in the caller's thread."""
        held: dict[str, list[Sighting]] = defaultdict(list)
        while True:
            try:
                one = self._waiting.get_nowait()
            except queue.Empty:
                break
            held[one.org_id].append(one)
        for org_id, sightings in held.items():
            try:
                self._write(org_id, sightings)
            except Exception:
                log.warning("sightings were lost", extra={"org": org_id, "count": len(sightings)}, exc_info=True)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="sightings", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(self._pause):
            self.flush()
