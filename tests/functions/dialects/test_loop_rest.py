"""The event loop pauses while threads compute verdicts, and still answers every connection."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from functions.hosts.asgi import Application
from functions.web.deadline import Workers
from functions.web.loop_rest import LoopRest
from tests.functions.dialects.test_deadline import call
from tests.support.harness import Client, Service, basic, make_service
from tests.support.stores import Place


@pytest.fixture
def service(tmp_path: Path, place: Place) -> Iterator[Service]:
    service = make_service(tmp_path / "data", store=place)
    yield service
    service.app.close()


@pytest.mark.parametrize("threads", [1, 4])
def test_all_verdicts_of_a_turn_are_answered(threads: int) -> None:
    """Many verdicts start in the same turn of the loop. Each has its own answer, and so has a verdict after them."""
    workers, loop_rest = Workers(threads, spares=0, stuck=30), LoopRest()

    async def judge(number: int) -> int:
        future = workers.submit(lambda: number)
        loop_rest.rest_for(future, asyncio.get_running_loop())
        return await asyncio.wrap_future(future)

    async def run() -> None:
        assert await asyncio.gather(*map(judge, range(50))) == list(range(50))
        assert await judge(50) == 50

    asyncio.run(run())


def test_the_loop_runs_while_a_verdict_hangs() -> None:
    """The pause ends although the verdict has no answer. A later verdict in the same loop is answered."""
    loop_rest = LoopRest()
    hanging: Future[str] = Future()
    answered: Future[str] = Future()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop_rest.rest_for(hanging, loop)
        await asyncio.sleep(0)
        assert not hanging.done()
        loop_rest.rest_for(answered, loop)
        loop.call_soon(answered.set_result, "answered")
        assert await asyncio.wrap_future(answered) == "answered"
        assert not hanging.done()

    asyncio.run(run())


def test_other_connections_are_answered_while_a_verdict_hangs(
    service: Service, broker: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store does not return from a single read. Other clients get their verdicts, and other requests replies."""
    structs.force_setattr(service.app, "verdict_seconds", 60)
    go, began = threading.Event(), threading.Event()
    read = service.store.get_many

    def get_many(keys: Any) -> Any:
        if not began.is_set():  # the first read alone
            began.set()
            go.wait(60)
        return read(keys)

    monkeypatch.setattr(service.store, "get_many", get_many)
    application = Application(service.app)
    headers = {"content-type": "application/json", "authorization": basic(broker.key, broker.token)}
    body = b'{"clientid": "d:mtxpd0:thermo:42"}'

    async def run() -> None:
        hanging = asyncio.ensure_future(call(application, "/verifyClient/emqx", body, headers))
        while not began.is_set():
            await asyncio.sleep(0.001)
        answers = await asyncio.gather(*(call(application, "/verifyClient/emqx", body, headers) for _ in range(8)))
        assert answers == [(200, b'{"result":"deny"}')] * 8
        assert (await call(application, "/healthz", b"", {}))[0] == 405
        assert not hanging.done()
        go.set()
        assert await hanging == (200, b'{"result":"deny"}')

    asyncio.run(run())
