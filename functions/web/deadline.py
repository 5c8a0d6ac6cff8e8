"""Bounded pools of threads for work with a time limit, shared fairly by the owners of the work.

A thread cannot be stopped from outside: if its store does not answer, the thread is occupied until the store's own
time-out ends the call. A pool therefore replaces threads that are stuck, up to a bound, and refuses work at once when
too much is waiting. Work whose caller has stopped waiting is not started.

Work has an owner, an organization mostly. An owner may use every thread and every waiting place that no other owner
wants. While others wait, the next thread goes to the owner that occupies the fewest, and of several to the owner
whose last turn is the longest ago. So costly work of one owner makes others wait for the end of a single piece of it.
"""

import queue
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, NamedTuple, TypeVar

T = TypeVar("T")

_WAITING: Final = 512


class Busy(Exception):
    """Every thread is occupied, and too much work is waiting."""


class Late(Exception):
    """The time limit has passed."""


def check_time(end: float) -> None:
    """End work whose caller has stopped waiting: after *end* (`time.monotonic`). Raises: Late."""
    if time.monotonic() > end:
        raise Late


class _Work(NamedTuple):
    owner: str
    future: "Future[Any]"
    call: Callable[[], Any]


class Workers:
    """A pool of threads.

    The threads are daemons: a store that does not answer cannot keep a process from ending.

    Args:
        size: how many threads work at the same time.
        spares: how many more threads may replace those that are stuck.
        stuck: seconds of one piece of work after which its thread is replaced.
        waiting: how much work may wait for a thread.
        per_owner: how many threads one owner may occupy at the same time; None: all of them.
    """

    def __init__(
        self, size: int, *, spares: int, stuck: float, waiting: int = _WAITING, per_owner: int | None = None
    ) -> None:
        self._size = size
        self._spares = spares
        self._stuck = stuck
        self._per_owner = size + spares if per_owner is None else per_owner
        self._line = _Line(waiting)
        self._lock = threading.Lock()  # for all that follows, and for the line
        self._started: dict[int, float] = {}  # thread -> when it started its work
        self._occupied: Counter[str] = Counter()  # owner -> threads
        self._threads = 0
        self._idle = 0  # threads that wait for a signal
        self._signals: queue.SimpleQueue[None] = queue.SimpleQueue()  # one for each idle thread that shall look again

    @property
    def threads(self) -> int:
        """How many threads there are."""
        return self._threads

    def submit(self, call: Callable[[], T], *, owner: str = "") -> "Future[T]":
        """Return the future result of *call*; cancel it to keep waiting work from being started.

        Args:
            owner: who shares the pool with others. All work without an owner has one owner.

        Where too much is waiting, work of the owner with the longest line is refused: its future raises Busy.

        Raises: Busy, where that owner is *owner*.
        """
        future: Future[T] = Future()
        with self._lock:
            displaced = self._line.add(_Work(owner, future, call))
            if not self._signal():
                self._grow()
        if displaced is not None and displaced.future.set_running_or_notify_cancel():
            displaced.future.set_exception(Busy())
        return future

    def _signal(self) -> bool:
        """Make one idle thread look for work. Return whether there is an idle thread. The caller holds the lock."""
        if not self._idle:
            return False
        self._idle -= 1
        self._signals.put(None)
        return True

    def _grow(self) -> None:
        """Start a thread if work waits for a thread and the pool may grow. The caller holds the lock."""
        free = self._threads - len(self._started)
        if free >= len(self._line) or self._threads >= self._limit():
            return
        try:
            threading.Thread(target=self._run, name="worker", daemon=True).start()
        except RuntimeError:  # the process may have no more threads: the next request tries again
            return
        self._threads += 1

    def _limit(self) -> int:
        """How many threads there may be now."""
        before = time.monotonic() - self._stuck
        stuck = sum(started < before for started in self._started.values())
        return self._size + min(stuck, self._spares)

    def _run(self) -> None:
        while (work := self._next()) is not None:
            result, failure = None, None
            try:
                result = work.call()
            except BaseException as error:  # noqa: BLE001 - the caller receives it
                failure = error
            self._finish(work.owner)
            if failure is None:
                work.future.set_result(result)
            else:
                work.future.set_exception(failure)
            del work, result, failure  # a thread that waits holds no reference to the last request

    def _next(self) -> _Work | None:
        """Wait for work and return it, started; None where this thread must end."""
        while True:
            with self._lock:
                if self._threads > self._size and self._threads > self._limit():
                    self._threads -= 1  # this thread replaced one that is no longer stuck
                    self._signal()  # the signal that woke this thread is another thread's now
                    return None
                work = self._line.take(self._occupied, self._per_owner)
                if work is not None:
                    self._started[threading.get_ident()] = time.monotonic()
                    self._occupied[work.owner] += 1
                    return work
                self._idle += 1
            self._signals.get()

    def _finish(self, owner: str) -> None:
        with self._lock:
            del self._started[threading.get_ident()]
            self._occupied[owner] -= 1
            if not self._occupied[owner]:
                del self._occupied[owner]
            self._line.send_back(owner)


class _Line:
    """The work that waits, in the order of its owners' turns. Not safe for threads.

    Args:
        places: how much work may wait.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._length = 0
        self._waiting: OrderedDict[str, deque[_Work]] = OrderedDict()

    def __len__(self) -> int:
        return self._length

    def add(self, work: _Work) -> _Work | None:
        """Add *work*. Return the work that lost its place to it, if any.

        Raises: Busy, where its owner has as much waiting as any other owner.
        """
        displaced = self._displace_for(work.owner) if self._length >= self._places else None
        self._waiting.setdefault(work.owner, deque()).append(work)
        self._length += 1
        return displaced

    def _displace_for(self, owner: str) -> _Work | None:
        """Make room for work of *owner*: of work that is cancelled, or else of the last of the longest line."""
        self._drop_cancelled()
        if self._length < self._places:
            return None
        longest, line = max(self._waiting.items(), key=lambda entry: len(entry[1]), default=("", ()))
        if len(line) <= len(self._waiting.get(owner, ())) + 1:  # an exchange would not make the lines more equal
            raise Busy
        self._length -= 1
        return self._waiting[longest].pop()

    def _drop_cancelled(self) -> None:
        """Drop cancelled work at the head of each line: the oldest work is cancelled first."""
        for owner, line in list(self._waiting.items()):
            while line and line[0].future.cancelled():
                line.popleft()
                self._length -= 1
            if not line:
                del self._waiting[owner]

    def take(self, occupied: Counter[str], per_owner: int) -> _Work | None:
        """Return the next work, whose future is running from now on; None if none may start.

        Args:
            occupied: how many threads each owner occupies.
            per_owner: how many it may occupy.
        """
        while True:
            chosen, fewest = None, per_owner
            for owner in self._waiting:
                if occupied[owner] < fewest:
                    chosen, fewest = owner, occupied[owner]
                    if not fewest:
                        break
            if chosen is None:
                return None
            work = self._pop(chosen)
            if work.future.set_running_or_notify_cancel():
                return work

    def _pop(self, owner: str) -> _Work:
        line = self._waiting[owner]
        work = line.popleft()
        self._length -= 1
        if not line:
            del self._waiting[owner]
        return work

    def send_back(self, owner: str) -> None:
        """Note that *owner* has had a turn: at equal numbers of threads, every other owner that waits is next."""
        if owner in self._waiting:
            self._waiting.move_to_end(owner)


NETWORK: Final = Workers(32, spares=32, stuck=30.0)
"""For verdicts that may wait for a network: each thread waits most of the time."""

EMBEDDED: Final = Workers(4, spares=60, stuck=1.0)
"""For verdicts on the embedded store, which compute: more threads would only contend for Python's lock."""

EDGES: Final = Workers(8, spares=24, stuck=5.0)
"""For the questions of the TLS edges: a withdrawal must arrive in time, whatever the other calls cost."""

MANAGEMENT: Final = Workers(8, spares=24, stuck=30.0, per_owner=2)
"""For all other calls of known callers. Some take seconds, so one organization occupies a part of the threads."""
