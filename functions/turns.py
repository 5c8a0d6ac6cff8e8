"""An event loop that sleeps while a thread computes for it.

Python runs one thread at a time. While a verdict is computed in a thread, a loop that wakes for what other connections
send takes Python's lock from it and gives it back: some 16 changes between threads for one request, a third of its CPU
(docs/decisions/0093). So where verdicts compute and wait for no network, a loop goes in turns: it takes in what has
come, leaves it to the thread and sleeps until all of it is done, PAUSE at most; then it answers, and looks again.

It does not sleep beside a verdict that hangs: that one's result comes as from any other thread. Then it looks now and
then whether what waits behind that one has a thread.
"""

import asyncio
import queue
from collections import deque
from contextlib import suppress
from typing import Any, Final, Protocol

PAUSE: Final = 0.002  # seconds; a verdict takes 0.3 ms
LOOK_AGAIN: Final = 0.05  # seconds, while something hangs


class Crew(Protocol):
    """The threads that work for the loop."""

    def is_idle(self) -> bool:
        """Whether no work waits for a thread."""

    def relieve(self) -> bool:
        """Whether some work takes much longer than computing does; then there are threads for what waits behind it."""


class Turns:
    """Of one loop. All but `tell` is called on it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, crew: Crew) -> None:
        self.loop = loop
        self._crew = crew
        self._expected: set[asyncio.Future[Any]] = set()
        self._told: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_coming = False  # whether a turn is: it will look at what was told
        self._is_asleep = False
        self._will_look = False  # whether `_look` is due

    def expect(self, future: "asyncio.Future[Any]") -> None:
        """Work that only computes was given to a thread: go in turns with it, until it is told or forgotten."""
        self._expected.add(future)
        self._go_on()

    def forget(self, future: "asyncio.Future[Any]") -> None:
        """Nobody waits for it any more."""
        self._expected.discard(future)

    def tell(self, future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
        """Called by the thread that did the work.

        It tells, then looks whether the loop sleeps; a turn says that it sleeps, then looks what was told: one of the
        two sees the other."""
        self._told.append((future, result, error))
        if self._is_asleep:
            if self._crew.is_idle():
                self._bell.put(None)
        elif not self._is_coming:
            with suppress(RuntimeError):  # the loop was closed meanwhile
                self.loop.call_soon_threadsafe(self._settle)

    def _go_on(self) -> None:
        if self._is_coming or not self._expected:
            return
        if not self._crew.relieve():
            self._is_coming = True
            self.loop.call_soon(self._turn)
        elif not self._will_look:
            self._will_look = True
            self.loop.call_later(LOOK_AGAIN, self._look)

    def _look(self) -> None:
        self._will_look = False
        self._go_on()

    def _turn(self) -> None:
        self._is_asleep = True
        self._is_coming = False
        if len(self._told) < len(self._expected):
            with suppress(queue.Empty):
                self._bell.get(timeout=PAUSE)
        self._is_asleep = False
        self._settle()
        self._go_on()

    def _settle(self) -> None:
        while self._told:
            future, result, error = self._told.popleft()
            self._expected.discard(future)
            settle(future, result, error)


def settle(future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    """Give *future* its end, where it has none yet."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
