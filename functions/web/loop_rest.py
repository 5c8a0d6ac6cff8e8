"""A pause of the event loop while threads compute for the loop."""

from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


class LoopRest:
    """The pauses of an event loop: one in each turn in which the loop has started work in threads.

    Python runs a single thread at a time. A loop that stays awake takes Python's lock whenever a thread releases the
    lock, at each call of SQLite and OpenSSL. That costs a third of the verdicts per second
    (docs/measurements/server.md). So the loop waits for all work that it started in the turn, PAUSE seconds at most.
    """

    PAUSE: Final = 0.002  # a verdict takes 0.3 ms

    def __init__(self) -> None:
        self._pending: list[Future[Any]] = []

    def rest_for(self, future: "Future[Any]", loop: "AbstractEventLoop") -> None:
        """Include *future* in the next pause, which begins after *loop* has read what has arrived."""
        self._pending.append(future)
        if len(self._pending) == 1:
            loop.call_soon(self._rest)

    def _rest(self) -> None:
        pending, self._pending = self._pending, []
        wait(pending, timeout=self.PAUSE)
