"""The strangers of `make faults` end when their time is over, and with the measurement that started them."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator

import pytest

from benchmarks.faults import strangers


@pytest.fixture
def port() -> Iterator[int]:
    """A server that accepts connections and answers nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener.getsockname()[1]


def test_strangers_end_although_a_connection_fails_at_the_end_of_their_time(port: int) -> None:
    """`asyncio.TaskGroup` raises the failure of a task and loses a cancellation that comes at the same moment."""

    async def fail_at_the_end(reader: strangers.Reader, writer: strangers.Writer, seen: object) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ExceptionGroup("unhandled errors in a TaskGroup", [ConnectionResetError()]) from None

    async def run() -> set[asyncio.Task[None]]:
        end = time.monotonic() + 0.2
        task = asyncio.create_task(strangers._repeat(port, fail_at_the_end, strangers._Seen(), end))
        _, pending = await asyncio.wait([task], timeout=5)
        return pending

    with asyncio.Runner() as runner:
        pending = runner.run(run())
    assert pending == set()


def test_strangers_end_with_the_measurement(port: int) -> None:
    """A test that fails, or reaches its time-out, waits for no stranger."""

    def fail() -> bool:
        raise TimeoutError

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        strangers.meet("1,100 half requests", port, os.getpid(), fail, seconds=60)
    assert time.monotonic() - began < 30
