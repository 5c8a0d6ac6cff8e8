"""An event loop that goes in turns with the thread that computes for it (functions/turns.py)."""

import asyncio
import threading
import time

import pytest

from functions.turns import LOOK_AGAIN, PAUSE
from functions.web.deadline import FEW, Workers

LONG = 60.0


def busy(seconds: float) -> None:
    """Computes, as a verdict does."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_everybody_gets_their_own_answer() -> None:
    """Many at once, some longer than a turn; errors too."""
    workers = Workers()

    async def ask(number: int) -> int:
        def work() -> int:
            busy(PAUSE * 2 if number % 10 == 0 else PAUSE / 20)
            return number if number % 7 else number // 0

        return await workers.answer(work, LONG, enough=FEW)

    async def run() -> None:
        for _ in range(3):
            found = await asyncio.gather(*(ask(number) for number in range(60)), return_exceptions=True)
            for number, answer in enumerate(found):
                assert answer == number if number % 7 else isinstance(answer, ZeroDivisionError)

    asyncio.run(run())


class Counting(Workers):
    """Counts the turns that looked whether anything hangs."""

    looked = 0

    def relieve(self) -> bool:
        self.looked += 1
        return super().relieve()


def test_others_are_served_while_one_hangs() -> None:
    """The loop sleeps beside what computes, never beside what hangs; and what waits behind that gets a thread."""
    workers = Counting()
    go = threading.Event()

    async def run() -> None:
        hanging = asyncio.ensure_future(workers.answer(lambda: go.wait(LONG), LONG, enough=FEW))
        behind = asyncio.ensure_future(workers.answer(lambda: "behind", LONG, enough=FEW))
        assert await behind == "behind", "nothing else asks for a thread for it"
        for _ in range(20):
            assert await workers.answer(lambda: 42, LONG, enough=FEW) == 42
        looked, began = workers.looked, time.monotonic()
        await asyncio.sleep(LOOK_AGAIN * 3)
        looks = (time.monotonic() - began) / LOOK_AGAIN + 1
        assert workers.looked - looked <= looks, "no turn is taken beside it"
        assert not hanging.done()
        go.set()
        assert await hanging is True
        assert await workers.answer(lambda: "afterwards", LONG, enough=FEW) == "afterwards"

    asyncio.run(run())


def test_what_waits_behind_several_that_hang_gets_a_thread_too() -> None:
    """Each of them takes the thread that was made because of the one before; nothing new comes in between."""
    workers = Workers()
    go = threading.Event()

    async def run() -> None:
        hanging = [asyncio.ensure_future(workers.answer(lambda: go.wait(LONG), LONG, enough=FEW)) for _ in range(3)]
        await asyncio.sleep(0)  # they are first
        assert await workers.answer(lambda: "behind", LONG, enough=FEW) == "behind"
        go.set()
        assert await asyncio.gather(*hanging) == [True] * 3

    asyncio.run(run())


class Blind(Counting):
    """Never sees that anything hangs, and so never helps out."""

    def relieve(self) -> bool:
        self.looked += 1
        return False


def test_no_turn_is_taken_for_work_that_nobody_waits_for() -> None:
    """It waited too long, so that its thread passes it over and never tells."""
    workers = Blind()
    go = threading.Event()

    async def run() -> None:
        first = asyncio.ensure_future(workers.answer(lambda: go.wait(LONG), LONG, enough=FEW))
        await asyncio.sleep(0)  # it begins
        with pytest.raises(TimeoutError):
            await workers.answer(lambda: None, PAUSE * 5, enough=FEW)
        go.set()
        assert await first is True
        await asyncio.sleep(PAUSE * 5)
        looked = workers.looked
        assert looked > 1, "turns were taken while there was something to wait for"
        await asyncio.sleep(PAUSE * 20)
        assert workers.looked == looked

    asyncio.run(run())


def test_each_loop_has_turns_of_its_own() -> None:
    """A process may run one loop after the other; what is told to one that is closed is told to nobody."""
    workers = Workers()
    go = threading.Event()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await workers.answer(lambda: go.wait(LONG), 0.01, enough=FEW)

    async def ask() -> int:
        return await workers.answer(lambda: 42, LONG, enough=FEW)

    asyncio.run(give_up())
    go.set()
    assert asyncio.run(ask()) == 42
