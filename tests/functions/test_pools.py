"""Which calls share threads: edges are answered while management is busy, and organizations leave room for others."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from functions.call import owner_of
from functions.dispatch import Dispatcher
from functions.registry import PREFIX
from functions.web.deadline import Workers
from functions.web.message import Reply, Request
from shared.config import Oidc
from shared.errors import PassphraseWrong
from shared.ports import ServerFiles
from tests.support import certs
from tests.support.harness import Client, Service, basic, make_service
from tests.support.issuer import AUDIENCE, CLIENT, run_issuer

SERVERS = "/authentication/servercertificates"
UPLOAD = {"certificate": certs.server("x.example").pem, "privateKey": certs.server("x.example").key_pem}


class StuckKeyWork:
    """Key work that lasts until the test ends it."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = threading.Event()
        self._lock = threading.Lock()

    def read(self, files: ServerFiles, *, org_id: str) -> Any:
        with self._lock:
            self.begun += 1
        self.ended.wait(60)
        raise PassphraseWrong(part="passphrase")

    def make(self, algorithm: str, *, org_id: str) -> Any:
        raise AssertionError("not asked for")


@pytest.fixture
def stuck() -> Iterator[StuckKeyWork]:
    work = StuckKeyWork()
    yield work
    work.ended.set()


@pytest.fixture
def service(tmp_path: Path, stuck: StuckKeyWork) -> Iterator[Service]:
    service = make_service(tmp_path)
    service.app = replace(service.app, context=replace(service.app.context, key_work=stuck))
    yield service
    service.app.close()


def ask(client: Client, method: str, path: str, fields: Any = None) -> Request:
    headers = {"content-type": "application/json", "authorization": basic(client.key, client.token)}
    body = b"" if fields is None else json.dumps(fields).encode()
    return Request(method, path, {}, headers, body, scheme="https")


class Caller:
    """Sends requests to one dispatcher, as a host does."""

    def __init__(self, service: Service) -> None:
        self._dispatcher = Dispatcher(lambda: service.app)
        self._pool = ThreadPoolExecutor(1)

    def begin(self, request: Request) -> "asyncio.Task[Reply]":
        return asyncio.create_task(self._dispatcher.dispatch_async(request, self._pool))


async def until_begun(stuck: StuckKeyWork, number: int) -> None:
    while stuck.begun < number:
        await asyncio.sleep(0.005)


def test_edges_and_other_organizations_are_answered_while_one_is_busy(service: Service, stuck: StuckKeyWork) -> None:
    """One organization occupies two threads however many requests it sends. Its further requests wait."""
    operator = service.client("operator")
    other = service.client("viewer", service.other_org())
    edge = service.platform("edge")

    async def run() -> list[int]:
        caller = Caller(service)
        uploads = [caller.begin(ask(operator, "POST", PREFIX + SERVERS, UPLOAD)) for _ in range(40)]
        await until_begun(stuck, 2)
        answered = [
            await caller.begin(ask(other, "GET", PREFIX + SERVERS)),
            await caller.begin(ask(edge, "GET", "/edge/v1/withdrawals")),
            await caller.begin(ask(edge, "GET", "/edge/v1/hosts")),
            await caller.begin(Request("GET", "/healthz")),
        ]
        assert stuck.begun == 2
        assert not any(upload.done() for upload in uploads)
        stuck.ended.set()
        assert {(await upload).status for upload in uploads} == {422}
        return [reply.status for reply in answered]

    assert asyncio.run(asyncio.wait_for(run(), 60)) == [200, 200, 200, 200]


def test_edges_are_answered_while_every_thread_of_management_is_busy(service: Service, stuck: StuckKeyWork) -> None:
    """Many organizations together occupy all threads of management, and none of those for edges."""
    operators = [service.client("operator", service.other_org(f"busy{number:02}")) for number in range(8)]
    edge = service.platform("edge")

    async def run() -> int:
        caller = Caller(service)
        uploads = [caller.begin(ask(one, "POST", PREFIX + SERVERS, UPLOAD)) for one in operators for _ in range(3)]
        await until_begun(stuck, 8)
        status = (await caller.begin(ask(edge, "GET", "/edge/v1/withdrawals"))).status
        stuck.ended.set()
        await asyncio.gather(*uploads)
        return status

    assert asyncio.run(asyncio.wait_for(run(), 60)) == 200


def test_what_is_too_much_is_refused(service: Service, stuck: StuckKeyWork, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where too much waits, the organization with the most waiting requests gets 503 and may try again."""
    monkeypatch.setattr("functions.dispatch.MANAGEMENT", Workers(8, spares=0, stuck=30, waiting=4, per_owner=2))
    operator = service.client("operator")
    other = service.client("viewer", service.other_org())

    async def run() -> tuple[list[Reply], Reply]:
        caller = Caller(service)
        uploads = [caller.begin(ask(operator, "POST", PREFIX + SERVERS, UPLOAD)) for _ in range(9)]
        await until_begun(stuck, 2)
        answered = await caller.begin(ask(other, "GET", PREFIX + SERVERS))
        stuck.ended.set()
        return list(await asyncio.gather(*uploads)), answered

    uploads, answered = asyncio.run(asyncio.wait_for(run(), 60))
    assert answered.status == 200
    refused = [reply for reply in uploads if reply.status == 503]
    assert refused
    assert {json.loads(reply.body)["code"] for reply in refused} == {"overloaded"}
    assert {reply.headers["Retry-After"] for reply in refused} == {"2"}


def test_the_owner_of_a_request_is_the_organization_that_it_names(tmp_path: Path) -> None:
    """By the name of the API key or the claim of a token, before anything is verified; else callers share one place."""
    with run_issuer() as issuer:
        service = make_service(tmp_path, oidc=Oidc(issuer.url, AUDIENCE, CLIENT))
        get_app = lambda: service.app  # noqa: E731

        def owner(authorization: str) -> str:
            return owner_of(Request("GET", "/", headers={"authorization": authorization}), get_app)

        assert owner(basic("a-mtxpd0-AbCdEfGh12", "wrong")) == "mtxpd0"
        assert owner(basic("p-AbCdEfGh12", "any")) == ""
        assert owner(f"Bearer {issuer.token(org='mtxpd0', role='viewer')}") == "mtxpd0"
        assert owner(f"Bearer {issuer.token(org='../x', role='viewer')}") == ""
        assert owner("Bearer no.token.here") == ""
        assert owner("Bearer " + "a" * 100_000) == ""
        assert owner_of(Request("GET", "/"), get_app) == ""
        service.app.close()
