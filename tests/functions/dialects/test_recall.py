"""A remembered verdict on the embedded store is given by the event loop itself, and never makes the loop wait."""

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from functions.dispatch import Dispatcher
from functions.hosts.asgi import Application
from functions.web.deadline import EMBEDDED
from functions.web.message import Request
from shared.adapters import sqlite_store
from shared.composition import App, build
from shared.config import Settings, SQLite
from shared.records import Role
from shared.usecases.callers import Caller, Member
from shared.usecases.cas.manage import upload_ca
from shared.usecases.orgs.api_keys import create_key
from shared.usecases.orgs.organizations import create_org, set_suspended
from tests.functions.dialects.test_deadline import PROMISED, call
from tests.support import certs
from tests.support.certs import NOON
from tests.support.harness import DOMAIN, basic

ROOT = certs.ca("Root")
DEVICE = certs.leaf("d:thermo:42", ROOT)
ORG = "mtxpd0"
PATH = "/verifyClient"


def nginx_headers(authorization: str) -> dict[str, str]:
    """Return a question in nginx's format, which needs no body."""
    return {
        "authorization": authorization,
        "x-sni": f"{ORG}.messaging.{DOMAIN}",
        "x-client-id": f"d:{ORG}:thermo:42",
        "x-client-cert": quote(DEVICE.pem),
    }


class Server:
    """The functions on an event loop, with one organization and its broker."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "trust.db"
        self.app: App = build(
            Settings(data=folder, store=SQLite(self.path), domain=DOMAIN, metrics="off"), clock=lambda: NOON
        )
        org = create_org(self.app.context, ORG)
        upload_ca(self.app.context, Member(Caller("test", Role.OPERATOR, ORG), org), ROOT.pem.encode())
        key, token = create_key(self.app.context, org_id=ORG, role=Role.BROKER)
        self._headers = {"content-type": "application/json", "authorization": basic(key.key, token)}
        self._application = Application(self.app)
        self._body = json.dumps(
            {
                "serverName": f"{ORG}.messaging.{DOMAIN}",
                "clientId": f"d:{ORG}:thermo:42",
                "certificate": certs.bundle(DEVICE),
            }
        ).encode()

    async def ask(self) -> str:
        """Return the code of the verdict on the device."""
        _, body = await call(self._application, PATH, self._body, self._headers)
        code: str = json.loads(body)["code"]
        return code

    async def ask_as_nginx(self, body: bytes = b"", query: bytes = b"") -> int:
        """Return the status of the verdict on the device."""
        headers = nginx_headers(self.authorization)
        status, _ = await call(self._application, "/verifyClient/nginx", body, headers, query=query)
        return int(status)

    async def get_description(self) -> int:
        """Return the status of a request that is no verdict."""
        status, _ = await call(self._application, "/healthz", b"", {})
        return int(status)

    async def ask_with(self, headers: dict[str, str]) -> int:
        """Return the status of nginx's question with *headers*."""
        status, _ = await call(self._application, "/verifyClient/nginx", b"", headers)
        return int(status)

    @property
    def authorization(self) -> str:
        return self._headers["authorization"]

    @property
    def answers(self) -> int:
        """How many answers came from the memory."""
        return self.app.verifier.memory.answers


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.app.close()


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by each verdict that a thread is asked for."""
    asked: list[str] = []
    submit = EMBEDDED.submit

    def noting(work: Any, **more: Any) -> Any:
        asked.append("asked")
        return submit(work, **more)

    monkeypatch.setattr(EMBEDDED, "submit", noting)
    return asked


def test_a_remembered_verdict_needs_no_thread(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asyncio.run(server.ask()) == "allowed"

    def no_thread(*_: Any, **__: Any) -> None:
        raise AssertionError("a thread was asked")

    monkeypatch.setattr(EMBEDDED, "submit", no_thread)
    assert asyncio.run(server.ask()) == "allowed"
    assert server.answers == 1


def test_a_verdict_that_does_not_hold_any_more_is_computed_in_a_thread(server: Server) -> None:
    assert asyncio.run(server.ask()) == "allowed"
    set_suspended(server.app.context, ORG, True)
    assert asyncio.run(server.ask()) == "org_suspended"
    set_suspended(server.app.context, ORG, False)
    assert asyncio.run(server.ask()) == "allowed"
    assert server.answers == 0


@pytest.mark.parametrize(
    "more",
    [{"body": b"x" * (300 * 1024)}, {"query": b"&".join(b"a%d=1" % number for number in range(200))}],
    ids=["body too large", "too many fields"],
)
def test_a_request_that_is_refused_is_not_answered_from_the_memory(server: Server, more: dict[str, bytes]) -> None:
    """nginx's question is in its headers. A refused request is refused, whatever its headers ask."""
    assert [asyncio.run(server.ask_as_nginx()) for _ in range(2)] == [204, 204]
    assert server.answers == 1
    assert asyncio.run(server.ask_as_nginx(**more)) == 403
    assert server.answers == 1


def test_a_late_request_is_not_answered_from_the_memory(server: Server) -> None:
    """Its client was refused meanwhile. A broker must not read an allow after that."""
    headers = nginx_headers(server.authorization)
    dispatcher, pool = Dispatcher(lambda: server.app), ThreadPoolExecutor(1)

    def ask(arrived: float) -> int:
        request = Request("GET", "/verifyClient/nginx", headers=headers, arrived=arrived)
        return asyncio.run(dispatcher.dispatch_async(request, pool)).status

    assert [ask(time.monotonic()), ask(time.monotonic())] == [204, 204]
    assert ask(time.monotonic() - 120) == 403
    assert server.answers == 1
    pool.shutdown()


def test_a_large_request_is_read_by_a_thread(server: Server, threads: list[str]) -> None:
    """Headers count as well: reading them must not take the loop's time."""
    headers = {**nginx_headers(server.authorization), "x-more": "x" * 16 * 1024}
    for _ in range(2):
        assert asyncio.run(server.ask_with(headers)) == 204
    assert threads == ["asked", "asked"]


def test_a_thread_answers_where_the_store_is_busy(
    server: Server, threads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asyncio.run(server.ask()) == "allowed"
    threads.clear()
    monkeypatch.setattr(server.app.store, "try_get_many", lambda keys: None)
    assert asyncio.run(server.ask()) == "allowed"
    assert threads == ["asked"]
    assert server.answers == 1, "the thread remembers as well"


def test_a_writer_makes_no_reader_wait(server: Server) -> None:
    """Another process holds the lock of writers; a remembered verdict is given all the same."""
    assert asyncio.run(server.ask()) == "allowed"
    other = sqlite3.connect(server.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        assert asyncio.run(server.ask()) == "allowed"
        assert server.answers == 1
    finally:
        other.close()


def test_the_loop_goes_on_while_the_file_is_locked_for_3_seconds(server: Server) -> None:
    """The client is refused in time, other requests are answered meanwhile, and the verdict comes again afterwards."""
    assert asyncio.run(server.ask()) == "allowed"
    server.app.queue.flush()
    server.app.store.close()  # an exclusive lock is granted only while no other connection is open
    is_locked, may_end = threading.Event(), threading.Event()

    def lock() -> None:
        other = sqlite3.connect(server.path, isolation_level=None)
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        is_locked.set()
        may_end.wait(3)
        other.close()

    locker = threading.Thread(target=lock)
    locker.start()
    assert is_locked.wait(10)

    async def run() -> None:
        began = time.monotonic()
        verdict = asyncio.ensure_future(server.ask())
        for _ in range(5):
            assert await server.get_description() == 405
        assert not verdict.done(), "other requests were answered meanwhile"
        assert await verdict == "unavailable"
        assert time.monotonic() - began < PROMISED

    asyncio.run(run())
    locker.join()
    assert asyncio.run(server.ask()) == "allowed"


def test_a_slow_disk_delays_the_loop_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a slow read the threads read, side by side, until some time has passed."""
    assert asyncio.run(server.ask()) == "allowed"
    loop_thread = threading.get_ident()
    readers: list[int] = []
    select = sqlite_store._select

    def slow(*args: Any) -> Any:
        readers.append(threading.get_ident())
        time.sleep(0.2)
        return select(*args)

    monkeypatch.setattr(sqlite_store, "_select", slow)

    async def run() -> list[str]:
        return [await server.ask(), *await asyncio.gather(*(server.ask() for _ in range(4)))]

    assert asyncio.run(run()) == ["allowed"] * 5
    assert readers.count(loop_thread) == 1
    assert len(readers) >= 5  # the queue of connection events reads besides


@pytest.mark.parametrize("memory", [0, 64])
def test_the_event_loop_is_used_for_the_embedded_store_and_a_memory_only(tmp_path: Path, memory: int) -> None:
    store = SQLite(tmp_path / "trust.db")
    app = build(Settings(data=tmp_path, store=store, verdict_memory=memory))
    assert (app.recalling is None) is (memory == 0)
    app.close()
