"""An event loop that sleeps while a thread computes for it (functions/web/rest.py)."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import pytest

from functions.web.deadline import Workers
from functions.web.rest import PAUSE, LoopRest

LONG = 60.0
T = TypeVar("T")


def compute(seconds: float) -> None:
    """Keep Python busy, as a verdict does."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


class Pool:
    """A pool like the one for the embedded store, beside the running loop."""

    def __init__(self, spares: int = 8) -> None:
        self.workers = Workers(1, spares=spares, stuck=0.05)
        self._rest = LoopRest(asyncio.get_running_loop(), self.workers)

    def start(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        future: Future[T] = self.workers.submit(work)
        self._rest.rest_beside(future)
        return asyncio.wrap_future(future)


def test_every_caller_gets_its_own_result() -> None:
    """Many at once, some longer than the loop sleeps; errors too."""

    async def run() -> None:
        pool = Pool()

        def work(number: int) -> int:
            compute(PAUSE * 2 if number % 10 == 0 else PAUSE / 20)
            return number if number % 7 else number // 0

        for _ in range(3):
            calls = [pool.start(lambda number=number: work(number)) for number in range(60)]  # type: ignore[misc]
            results = await asyncio.gather(*calls, return_exceptions=True)
            for number, result in enumerate(results):
                assert result == number if number % 7 else isinstance(result, ZeroDivisionError)

    asyncio.run(run())


def test_the_loop_does_not_sleep_beside_work_that_hangs() -> None:
    """The loop sleeps once, for PAUSE; after that it serves others, also those that wait behind the work that hangs."""
    go = threading.Event()

    async def run() -> None:
        pool = Pool()
        hanging = pool.start(lambda: go.wait(LONG))
        behind = pool.start(lambda: "behind")
        assert await behind == "behind", "a spare thread takes it, without any further request"
        for _ in range(20):
            assert await pool.start(lambda: 42) == 42
        began = time.monotonic()
        for _ in range(100):
            await asyncio.sleep(0)
        assert time.monotonic() - began < PAUSE * 50, "no iteration of the loop sleeps"
        assert not hanging.done()
        go.set()
        assert await hanging is True

    asyncio.run(run())


def test_work_behind_several_that_hang_gets_a_thread() -> None:
    """Each of them occupies the thread that was started because of the one before. No request comes in between."""
    go = threading.Event()

    async def run() -> None:
        pool = Pool()
        hanging = [pool.start(lambda: go.wait(LONG)) for _ in range(3)]
        assert await asyncio.wait_for(pool.start(lambda: "behind"), LONG) == "behind"
        assert not any(call.done() for call in hanging)
        go.set()
        await asyncio.gather(*hanging)
        while pool.workers.threads > 1:
            await pool.start(lambda: None)

    asyncio.run(run())


def test_cancelled_work_does_not_end_the_rest() -> None:
    """A client that is refused in time cancels its verdict; the others are computed."""
    go = threading.Event()

    async def run() -> None:
        pool = Pool()
        first = pool.start(lambda: go.wait(LONG))
        second = pool.start(lambda: "second")
        third = pool.start(lambda: "third")
        second.cancel()
        await asyncio.sleep(0)
        go.set()
        assert await third == "third"
        assert await first is True
        assert second.cancelled()

    asyncio.run(run())


def test_many_waiting_verdicts_are_relieved_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store hangs, the loop looks for stuck threads at one pace, and not once more for each client."""
    go = threading.Event()
    calls: list[float] = []
    grow = Workers.grow

    def counted(workers: Workers) -> None:
        calls.append(time.monotonic())
        grow(workers)

    async def run() -> None:
        pool = Pool(spares=0)
        hanging = pool.start(lambda: go.wait(LONG))
        waiting = []
        for number in range(30):  # each in an iteration of its own
            waiting.append(pool.start(lambda number=number: number))  # type: ignore[misc]
            await asyncio.sleep(0.004)
        monkeypatch.setattr(Workers, "grow", counted)
        await asyncio.sleep(0.25)
        go.set()
        assert await asyncio.gather(*waiting) == list(range(30))
        assert await hanging is True

    asyncio.run(run())
    assert 1 <= len(calls) <= 6
