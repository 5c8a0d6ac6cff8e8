"""Bounded pools of threads for work with a time limit.

A thread cannot be stopped from outside: if its store does not answer, the thread is occupied until the store's own
time-out ends the call. A pool therefore replaces threads that are stuck, up to a bound, and refuses work at once when
too much is waiting. Work whose caller has stopped waiting is not started.
"""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

T = TypeVar("T")

_WAITING: Final = 512


class Busy(Exception):
    """Every thread is occupied, and too much work is waiting."""


class Late(Exception):
    """The time limit has passed."""


class Workers:
    """A pool of threads.

    The threads are daemons: a store that does not answer cannot keep a process from ending.

    Args:
        size: how many threads work at the same time.
        spares: how many more threads may replace those that are stuck.
        stuck: seconds of one piece of work after which its thread is replaced.
        waiting: how much work may wait for a thread.
    """

    def __init__(self, size: int, *, spares: int, stuck: float, waiting: int = _WAITING) -> None:
        self._size = size
        self._spares = spares
        self._stuck = stuck
        self._waiting_max = waiting
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started: dict[int, float] = {}  # thread -> when it started its work
        self._threads = 0

    @property
    def threads(self) -> int:
        """How many threads there are."""
        return self._threads

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Return the future result of *work*; cancel it to keep waiting work from being started.

        Raises: Busy.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._waiting.qsize() >= self._waiting_max:
                raise Busy
            self._waiting.put((future, work))
        self._grow()
        return future

    def _grow(self) -> None:
        """Start a thread if work waits for a thread and the pool may grow."""
        with self._lock:
            free = self._threads - len(self._started)
            if free >= self._waiting.qsize() or self._threads >= self._limit():
                return
            try:
                threading.Thread(target=self._run, name="verdict", daemon=True).start()
            except RuntimeError:  # the process may have no more threads: the next request tries again
                return
            self._threads += 1

    def _limit(self) -> int:
        """How many threads there may be now."""
        before = time.monotonic() - self._stuck
        stuck = sum(started < before for started in list(self._started.values()))
        return self._size + min(stuck, self._spares)

    def _run(self) -> None:
        thread = threading.get_ident()
        while not self._is_surplus():
            future, work = self._waiting.get()
            self._started[thread] = time.monotonic()
            try:
                if future.set_running_or_notify_cancel():
                    future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - the caller receives it
                future.set_exception(error)
            finally:
                del self._started[thread]
            del future, work  # a thread that waits holds no reference to the last request

    def _is_surplus(self) -> bool:
        """Whether this thread replaced one that is no longer stuck; if so, it is no longer counted and must end."""
        if self._threads <= self._size:
            return False
        with self._lock:
            if self._threads <= self._limit():
                return False
            self._threads -= 1
            return True


NETWORK: Final = Workers(32, spares=32, stuck=30.0)
"""For verdicts that may wait for a network: each thread waits most of the time."""

EMBEDDED: Final = Workers(4, spares=60, stuck=1.0)
"""For verdicts on the embedded store, which compute: more threads would only contend for Python's lock."""
