"""Strangers on the network take what the HTTP server gives: connections, headers, bodies, waiting requests.

Each server is the real process: as `make run` starts it, and as the container's command does.
"""

import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial

import pytest

from benchmarks.faults.load import KeepAliveCaller
from benchmarks.faults.strangers import KINDS, MEMORY_MAX, is_allowed, meet
from demo.stack import DOMAIN
from shared.records import Role
from tests.attacks.rig import Attacked, attacked, attacked_container
from tests.support import certs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ORG = "alpha1"
VERDICT_SECONDS = 2.0  # in which a broker is promised its answer


@pytest.fixture(scope="module", params=["make run", "container"])
def functions(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    folder = tmp_path_factory.mktemp("attacked")
    start = attacked if request.param == "make run" else attacked_container
    with start(folder) as running:
        yield running


@pytest.fixture(scope="module")
def ask(functions: Attacked) -> Iterator[Callable[[], bool]]:
    """Ask for a verdict on a device that may connect, as another organization's broker does."""
    operator, root = functions.create_org(ORG), certs.ca("Root")
    functions.call(operator, "POST", "/authentication/cacertificates", {"certificate": root.pem})
    question = {
        "serverName": f"{ORG}.messaging.{DOMAIN}",
        "clientId": f"d:{ORG}:thermo:1",
        "certificate": certs.leaf("d:thermo:1", root).pem,
    }
    address = f"127.0.0.1:{functions.port}"
    with closing(KeepAliveCaller(lambda: address, functions.key(Role.BROKER, ORG))) as broker:
        yield partial(is_allowed, broker, question)


@pytest.mark.parametrize("kind", KINDS)
def test_strangers_take_neither_the_verdicts_nor_the_memory(
    functions: Attacked, ask: Callable[[], bool], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert functions.process is not None
    assert ask()
    met = meet(kind, functions.port, functions.process.pid, ask, seconds=6)
    with capsys.disabled():
        sys.stdout.write(f"\n{met}\n")
    assert met.failed == 0, met
    assert max(met.seconds) < VERDICT_SECONDS, met
    assert met.memory < MEMORY_MAX, met


def open_and_send(functions: Attacked, data: bytes, *, seconds: float) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", functions.port), timeout=seconds)
    with suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(data)
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    """Return what is answered until the server closes the connection. Raises: TimeoutError."""
    answer = b""
    with closing(connection), suppress(ConnectionResetError, BrokenPipeError):
        while piece := connection.recv(65536):
            answer += piece
    return answer


HALF = {
    "nothing": b"",
    "empty lines": b"\r\n\r\n",
    "half a line": b"POST /verify",
    "half a header": b"GET /healthz HTTP/1.1\r\nHost: x\r\n",
    "half a body": b"POST /verifyClient HTTP/1.1\r\nContent-Length: 9\r\n\r\n{",
}


def test_half_requests_are_ended(functions: Attacked) -> None:
    """10 s for a header, 15 s for a body; the time-out of the sockets leaves room for a busy machine."""
    opened = {what: open_and_send(functions, half, seconds=30) for what, half in HALF.items()}
    for what, connection in opened.items():
        answer = read_to_end(connection)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408 "), what


@pytest.mark.parametrize("kind", ["one line", "many lines", "the query", "trailers", "chunk extensions"])
def test_a_header_that_is_too_large_is_refused(functions: Attacked, kind: str) -> None:
    chunked = b"POST /verifyClient HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    request = {
        "one line": b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        "many lines": b"GET /healthz HTTP/1.1\r\n" + b"X: a\r\n" * 101 + b"\r\n",
        "the query": b"GET /healthz?a=" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        "trailers": chunked + b"1\r\n{\r\n0\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        "chunk extensions": chunked + b"1;" + b"a" * 200_000 + b"\r\n{\r\n0\r\n\r\n",
    }[kind]
    answer = read_to_end(open_and_send(functions, request, seconds=5))
    assert re.match(rb"HTTP/1\.1 (431|414|400) ", answer) or answer == b""


def test_the_key_is_verified_before_a_body_is_sent(functions: Attacked) -> None:
    """A stranger's body is not read: the refusal comes when only the header has arrived."""
    head = b"POST /api/v0002/uploadCA HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 200000\r\n\r\n"
    with closing(socket.create_connection(("127.0.0.1", functions.port), timeout=5)) as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_no_socket_is_upgraded(functions: Attacked) -> None:
    upgrade = (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with closing(socket.create_connection(("127.0.0.1", functions.port), timeout=5)) as connection:
        connection.sendall(upgrade)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
