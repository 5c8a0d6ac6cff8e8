"""A verdict comes in time, whatever the store does: the work runs in a bounded pool, and its caller waits so long only.

A thread cannot be stopped from outside. One whose store hangs keeps its place until the store's own time-out ends the
call, so places are many, and as many again stand by for those that hang for long; beyond, and with too many waiting,
work is refused at once. Work that nobody waits for any more is not begun.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

log = logging.getLogger(__name__)

SECONDS: Final = 1.5  # from the request's arrival to its verdict; 2 s are promised, to a crowd too
_THREADS: Final = 32
_WAITING: Final = 512
_STUCK: Final = 30.0  # seconds after which a thread is not counted on any more

T = TypeVar("T")


class Busy(Exception):
    """Nobody is free, and too many wait."""


class Workers:
    """At most *size* threads for work, and at most as many beside those that have hung for *stuck* seconds.

    Threads are daemons: a store that hangs does not keep a process from ending."""

    def __init__(self, size: int = _THREADS, *, waiting: int = _WAITING, stuck: float = _STUCK) -> None:
        self._size = size
        self._stuck = stuck
        self._waiting: queue.Queue[tuple[Future[Any], Callable[[], Any]]] = queue.Queue(waiting)
        self._lock = threading.Lock()
        self._idle = 0
        self._begun: dict[int, float] = {}  # thread -> when it began what it does
        self._threads = 0

    @property
    def threads(self) -> int:
        return self._threads

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Raises: Busy."""
        future: Future[T] = Future()
        with self._lock:
            try:
                self._waiting.put_nowait((future, work))
            except queue.Full:
                raise Busy from None
            if self._idle < self._waiting.qsize() and self._threads < self._size + self._hanging():
                self._threads += 1
                threading.Thread(target=self._run, name="verdict", daemon=True).start()
        return future

    def _hanging(self) -> int:
        before = time.monotonic() - self._stuck
        return min(sum(begun < before for begun in self._begun.values()), self._size)

    def _run(self) -> None:
        me = threading.get_ident()
        while True:
            with self._lock:
                self._idle += 1
            future, work = self._waiting.get()
            with self._lock:
                self._idle -= 1
                self._begun[me] = time.monotonic()
            try:
                if future.set_running_or_notify_cancel():
                    future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - whoever waits gets it
                future.set_exception(error)
            finally:
                with self._lock:
                    del self._begun[me]
            del future, work


WORKERS: Final = Workers()
"""The process's own, for every verdict."""
