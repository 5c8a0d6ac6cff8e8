"""A verdict comes in time, whatever the store does: the work runs in a bounded pool, and its caller waits so long only.

A thread cannot be stopped from outside. One whose store hangs keeps its place until the store's own time-out ends the
call, so places are many, and as many again stand by for those that hang for long; beyond, and with too many waiting,
work is refused at once. Work that nobody waits for any more is not begun.

Where the store lies in this very process, threads that compute only take Python's lock from one another, and from an
event loop: there one thread works, and the loop goes in turns with it (turns.py). More are made for those that hang.
"""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from functions.turns import Turns

SECONDS: Final = 1.5  # from the request's arrival to its verdict; 2 s are promised, to a crowd too
FEW: Final = 1  # threads that are enough where no verdict waits for a network
_THREADS: Final = 32
_WAITING: Final = 512
_SLOW: Final = 0.1  # seconds after which a verdict is waiting for something, where few threads are enough
_STUCK: Final = 30.0  # seconds after which a thread is not counted on any more

T = TypeVar("T")


class Busy(Exception):
    """Nobody is free, and too many wait."""


# Whether anybody still waits for it; what is to be done; whom to tell the result, or the error.
_Job = tuple[Callable[[], bool], Callable[[], Any], Callable[[Any, BaseException | None], None]]


class Workers:
    """At most *size* threads for work, and at most as many beside those that have hung for *stuck* seconds.

    Threads are daemons: a store that hangs does not keep a process from ending."""

    def __init__(self, size: int = _THREADS, *, waiting: int = _WAITING, stuck: float = _STUCK) -> None:
        self._size = size
        self._room = waiting
        self._stuck = stuck
        self._waiting: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._begun: dict[int, float] = {}  # thread -> when it began what it does
        self._threads = 0
        self._enough = size
        self._turns: Turns | None = None

    @property
    def threads(self) -> int:
        return self._threads

    def submit(self, work: Callable[[], T], *, enough: int | None = None) -> "Future[T]":
        """For a caller that waits in a thread of its own.

        Args:
            enough: threads beyond so many are made only for those that hang; None: as many as there may be.

        Raises: Busy."""
        future: Future[T] = Future()

        def tell(result: Any, error: BaseException | None) -> None:
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self._put((future.set_running_or_notify_cancel, work, tell), enough)
        return future

    async def answer(self, work: Callable[[], T], seconds: float, *, enough: int | None = None) -> T:
        """For a caller on an event loop: what *work* gives, within *seconds*.

        Raises: Busy, TimeoutError, and what *work* raises."""
        import asyncio  # whoever asks has loaded it; on AWS Lambda nobody asks

        from functions.turns import Turns, settle

        loop = asyncio.get_running_loop()
        if self._turns is None or self._turns.loop is not loop:
            self._turns = Turns(loop, self)
        turns = self._turns
        future: asyncio.Future[T] = loop.create_future()

        def tell(result: Any, error: BaseException | None) -> None:
            turns.tell(future, result, error)

        self._put((lambda: not future.done(), work, tell), enough)
        if enough is not None:
            turns.expect(future)
        timer = loop.call_later(seconds, settle, future, None, TimeoutError())
        try:
            return await future
        finally:
            timer.cancel()
            turns.forget(future)

    def _put(self, job: _Job, enough: int | None) -> None:
        """Raises: Busy."""
        with self._lock:
            if self._waiting.qsize() >= self._room:
                raise Busy
            self._waiting.put(job)
            self._enough = enough or self._size
            self._grow()

    def is_idle(self) -> bool:
        """Whether no work waits for a thread."""
        return self._waiting.empty()

    def relieve(self) -> bool:
        """Whether some work hangs; then there are threads for what waits behind it."""
        hangs = self._since(_SLOW) > 0
        if hangs:
            with self._lock:
                self._grow()
        return hangs

    def _grow(self) -> None:
        """One thread more, where it is of use."""
        free = self._threads - len(self._begun)
        if free < self._waiting.qsize() and self._threads < self._useful():
            try:
                threading.Thread(target=self._run, name="verdict", daemon=True).start()
            except RuntimeError:  # the system gives no more: the next request tries again
                return
            self._threads += 1

    def _useful(self) -> int:
        """How many threads there may be now."""
        most = self._size + min(self._since(self._stuck), self._size)
        return most if self._enough >= self._size else min(self._enough + self._since(_SLOW), most)

    def _since(self, seconds: float) -> int:
        """How many threads have been at the same thing for so long."""
        before = time.monotonic() - seconds
        return sum(begun < before for begun in list(self._begun.values()))

    def _run(self) -> None:
        me = threading.get_ident()
        while not self._leaves():
            wanted, work, tell = self._waiting.get()
            self._begun[me] = time.monotonic()
            try:
                if wanted():
                    tell(work(), None)
            except BaseException as error:  # noqa: BLE001 - whoever waits gets it
                tell(None, error)
            finally:
                del self._begun[me]
            del wanted, work, tell

    def _leaves(self) -> bool:
        """Whether this thread ends: it was made for one that hung, and that is over."""
        if self._threads <= self._enough:
            return False
        with self._lock:
            if self._threads <= self._useful():
                return False
            self._threads -= 1
            return True


WORKERS: Final = Workers()
"""The process's own, for every verdict."""
