"""An event loop that sleeps for a moment while a thread computes for it.

Python runs a single thread at a time. While a thread computes a verdict, a loop that stays awake takes Python's lock
whenever the thread releases it, at each call of SQLite and OpenSSL, and gives it back. That is a quarter of the CPU of
a request (docs/measurements/server.md). So the loop waits for the verdicts that it has started, PAUSE at most, and
then goes on. It never waits a second time for the same verdict.
"""

import asyncio
import time
from concurrent.futures import CancelledError, Future
from typing import Any, Final

from functions.web.deadline import Workers

PAUSE: Final = 0.002  # seconds; a verdict takes 0.3 ms


class LoopRest:
    """The pauses of one event loop, which calls every method.

    Args:
        workers: the pool that computes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, workers: Workers) -> None:
        self.loop = loop
        self._workers = workers
        self._pending: list[Future[Any]] = []
        self._will_relieve = False  # whether a call of `_relieve` is scheduled

    def rest_beside(self, future: "Future[Any]") -> None:
        """Sleep while *future* is computed, as soon as the loop has taken in what has arrived."""
        self._pending.append(future)
        if len(self._pending) == 1:
            self.loop.call_soon(self._rest)

    def _rest(self) -> None:
        pending, self._pending = self._pending, []
        end = time.monotonic() + PAUSE
        try:
            for future in pending:
                future.exception(end - time.monotonic())
        except (TimeoutError, CancelledError):
            self._relieve_later()

    def _relieve_later(self) -> None:
        if not self._will_relieve:
            self._will_relieve = True
            self.loop.call_later(self._workers.stuck, self._relieve)

    def _relieve(self) -> None:
        """Replace threads that are stuck, until no work waits behind them."""
        self._will_relieve = False
        self._workers.grow()
        if self._workers.has_waiting:
            self._relieve_later()
