"""The caller's key is verified before the body is read; bodies that anybody may send are cheap to read."""

import asyncio
import json
import re
from contextlib import suppress
from typing import Any

import pytest

from functions.call import Call
from functions.dispatch import Dispatcher
from functions.hosts import asgi, aws
from functions.hosts.asgi import Application
from functions.registry import VERIFY_CLIENT, dialect_module, dialect_router, every_route
from functions.web.contract import Route
from functions.web.message import build_request
from shared.errors import TrustError
from shared.records import Role
from tests.support import certs
from tests.support.bounds import measure_cost
from tests.support.harness import Client, Service, basic, multipart

pytestmark = pytest.mark.stores("sqlite")  # the key is read in one batch, as for a verdict

UPLOAD = "/api/v0002/uploadCA"
SERVED = "/edge/v1/served"
VERIFY = "/verifyClient"
CPU_MAX = 0.005  # seconds


class Body:
    """The body of a request, which says how often it was asked for."""

    def __init__(self, body: bytes, *, ends: bool = True) -> None:
        self._body, self._ends = body, ends
        self.asked = 0

    async def receive(self) -> Any:
        self.asked += 1
        if self.asked > 1:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": self._body, "more_body": not self._ends}


def ask(service: Service, path: str, body: Body, auth: str = "", *, method: str = "POST") -> tuple[int, Any]:
    """Return (status, JSON) of the answer to a request; (0, None) if there is no answer."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = {"content-type": "application/json", "content-length": "1000", "authorization": auth}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items() if value],
        "client": ("127.0.0.1", 1),
    }
    asyncio.run(Application(service.app)(scope, body.receive, send))
    return (sent[0]["status"], json.loads(sent[1]["body"])) if sent else (0, None)


def auth_of(client: Client) -> str:
    return basic(client.key, client.token)


def with_body() -> list[Any]:
    """Return every route that takes a body, but those of verifyClient."""
    routes = [route for route in every_route() if route.endpoint.body and route.endpoint.function != VERIFY_CLIENT]
    return [pytest.param(route, id=f"{route.method} {route.path}") for route in routes]


@pytest.mark.parametrize("route", with_body())
def test_no_body_is_received_from_a_stranger(service: Service, route: Route) -> None:
    body = Body(b"{}")
    path = re.sub(r"\{\w+\}", "x", route.path)
    for auth in ("", basic("a-mtxpd0-1234567890", "wrong"), auth_of(service.client("broker"))):
        assert ask(service, path, body, auth, method=route.method)[0] in (401, 403)
    assert body.asked == 0


def test_no_body_is_received_where_there_is_no_such_address(service: Service) -> None:
    body = Body(b"{}")
    assert ask(service, "/nowhere", body)[0] == 404
    assert body.asked == 0


def test_a_body_is_received_from_a_known_caller(service: Service) -> None:
    upload = json.dumps({"certificate": certs.ca().pem}).encode()
    assert ask(service, UPLOAD, Body(upload), auth_of(service.client("operator")))[0] == 201
    served = json.dumps({"edge": "one", "hosts": []}).encode()
    assert ask(service, SERVED, Body(served), auth_of(service.client("edge")))[0] == 200


def test_a_request_that_is_cut_off_is_not_handled(service: Service) -> None:
    """What has arrived may look like a whole body."""
    upload = json.dumps({"certificate": certs.ca().pem}).encode()
    operator = service.client("operator")
    assert ask(service, UPLOAD, Body(upload, ends=False), auth_of(operator)) == (0, None)
    assert operator.get("/authentication/cacertificates").ok()["results"] == []


def test_a_body_that_does_not_arrive_in_time_is_refused(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the application itself, for a server without limits. A broker is refused in its own format."""
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.01)

    class Silent(Body):
        async def receive(self) -> Any:
            await asyncio.sleep(60)

    status, problem = ask(service, UPLOAD, Silent(b""), auth_of(service.client("operator")))
    assert (status, problem["code"]) == (408, "request_timeout")
    assert ask(service, "/verifyClient/emqx", Silent(b"")) == (200, {"result": "deny"})


@pytest.mark.parametrize("path", [UPLOAD, SERVED])
def test_lambda_reads_no_body_of_a_stranger(service: Service, path: str) -> None:
    """The body has arrived with the event. It is not decoded, however wrong it is."""
    event = {
        "rawPath": path,
        "headers": {"content-type": "application/json"},
        "body": "no base64!",
        "isBase64Encoded": True,
        "requestContext": {"http": {"method": "POST"}},
    }
    dispatcher = Dispatcher(lambda: service.app)

    def send(auth: str) -> int:
        request = aws.request_of({**event, "headers": {"authorization": auth}}, None)
        return dispatcher.dispatch(aws._add_body(request, event)).status

    role = Role.OPERATOR if path == UPLOAD else Role.EDGE
    assert send(basic("a-mtxpd0-1234567890", "wrong")) == 401
    assert send(auth_of(service.client(role))) == 400


# ---------------------------------------------------------------------------------------------- bodies of strangers


def form(parts: int) -> tuple[str, bytes]:
    return multipart({f"field{number}": "x" for number in range(parts)})


def test_a_form_to_verify_client_is_parsed_for_a_known_caller_only(service: Service) -> None:
    content_type, body = form(9)
    broker = service.client("broker")
    stranger = Client(service.app, broker.key, "wrong")
    headers = {"content-type": content_type}
    assert stranger.send("POST", VERIFY, body, headers=headers).status == 401
    refused = broker.send("POST", VERIFY, body, headers=headers)
    assert (refused.status, refused.code) == (400, "malformed_body")
    assert "more than 8 parts" in refused.json["detail"]


def test_a_form_to_verify_client_costs_one_read_more(service: Service) -> None:
    root = certs.ca("Root")
    service.client("operator").post("/authentication/cacertificates", {"certificate": root.pem}).ok(201)
    device = certs.leaf("d:thermo:42", root)
    content_type, body = multipart({"serverName": service.host(), "certificate": device.pem.encode()})
    broker = service.client("broker")
    calls = service.store.calls.total()
    answer = broker.send("POST", VERIFY, body, headers={"content-type": content_type})
    assert answer.ok()["decision"] == "allow"
    assert service.store.calls.total() - calls == 2


def test_a_form_has_at_most_eight_parts(operator: Client) -> None:
    for parts, code in ((8, "unknown_field"), (9, "malformed_body")):
        content_type, body = form(parts)
        assert operator.send("POST", "/uploadCA", body, headers={"content-type": content_type}).code == code


def test_a_content_type_that_is_too_long_is_refused(operator: Client) -> None:
    content_type, body = form(1)
    long = content_type + "; a=b" * 300
    assert operator.send("POST", "/uploadCA", body, headers={"content-type": long}).code == "malformed_body"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"a":[' + b",".join([b"[]"] * 87_000) + b"]}"),
        ("application/json", b'{"a":[' + b",".join([b"{}"] * 87_000) + b"]}"),
        ("application/json", b"[" * 256_000),
        ("application/json", b"{" + b",".join(b'"%d":1' % number for number in range(26_000)) + b"}"),
        ("application/x-www-form-urlencoded", b"a=" + b"%41" * 87_000),
        ("application/x-www-form-urlencoded", b"&".join([b"a="] * 80_000)),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n\r\n' * 3800),
    ],
    ids=["arrays", "objects", "depth", "fields", "escapes", "form fields", "parts"],
)
@pytest.mark.parametrize("path", [VERIFY, "/verifyClient/emqx", "/verifyClient/rabbitmq/user"])
def test_a_strangers_question_costs_little(service: Service, path: str, content_type: str, body: bytes) -> None:
    """256 KiB of anything are refused within 5 ms of CPU, measured as in tests/support/bounds.py."""
    stranger = {"content-type": content_type, "authorization": basic("a-mtxpd0-1234567890", "wrong")}
    handler, _ = dialect_router(str(dialect_module(path))).find("POST", path)
    call = Call(build_request("POST", path, "", stranger, body), service.app)

    def answer() -> None:
        with suppress(TrustError):
            handler.handler(call)

    answer()  # loads what the first answer needs
    assert not measure_cost(answer, seconds=CPU_MAX).exceeds(CPU_MAX)


def test_a_query_has_at_most_a_hundred_fields(service: Service, operator: Client) -> None:
    for query, is_taken in (("a=&" * 99 + "a=", True), ("a=&" * 100, False), ("a=" + "%41" * 8001, False)):
        headers = {"authorization": basic(operator.key, operator.token)}
        request = build_request("GET", "/api/v0002/session", query, headers)
        reply = Dispatcher(lambda: service.app).dispatch(request)
        assert (reply.status == 200) == is_taken
        assert is_taken or json.loads(reply.body)["code"] == "too_many_fields"
