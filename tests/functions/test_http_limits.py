"""The limits of the HTTP server (functions/hosts/limits.py), over sockets, with small limits."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
import uvicorn

from functions.hosts.limits import Config, ServerLimits
from functions.web.body import BODY_MAX

SMALL = ServerLimits(
    head=4096,
    path=100,
    header_lines=10,
    head_seconds=0.4,
    body_seconds=0.4,
    write_seconds=0.4,
    idle_seconds=0.4,
    body=100_000,
    pipelined=2,
    connections=4,
    held=50_000,
)
PATIENT = {"head_seconds": 60.0, "body_seconds": 60.0, "idle_seconds": 60.0, "write_seconds": 60.0}
GET = b"GET / HTTP/1.1\r\n\r\n"


class Application:
    """Answer each path in its own way, and count."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hang = asyncio.Event()

    def answer_all(self) -> None:
        """Answer the requests that hang."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._hang.set)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            self._loop = asyncio.get_running_loop()
            while True:
                event = (await receive())["type"]
                await send({"type": f"{event}.complete"})
                if event == "lifespan.shutdown":
                    return
        self.asked.append(scope["path"])
        size = 2
        if scope["path"] == "/hang":
            await self._hang.wait()
        elif scope["path"] == "/large":
            size = 20_000_000
        elif scope["path"] == "/body":
            while (message := await receive()).get("more_body"):
                pass
            if message["type"] == "http.disconnect":
                return
        headers = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * size})


class Running:
    def __init__(self, port: int, config: Config, application: Application) -> None:
        self.port, self.config, self.application = port, config, application
        self._stack = ExitStack()

    def open(self, data: bytes = b"", *, source: str = "127.0.0.1") -> socket.socket:
        """Open a connection from the address *source*, and send *data*."""
        made = socket.create_connection(("127.0.0.1", self.port), timeout=10, source_address=(source, 0))
        connection = self._stack.enter_context(made)
        connection.sendall(data)
        return connection

    def send(self, data: bytes) -> bytes:
        """Send *data*. Return everything until the server closes the connection."""
        return read_all(self.open(data))

    def close(self) -> None:
        self._stack.close()


def read_all(connection: socket.socket) -> bytes:
    answer = b""
    try:
        while piece := connection.recv(65536):
            answer += piece
    except ConnectionResetError:  # the server closed before it had read everything
        pass
    return answer


def read_answer(connection: socket.socket) -> bytes:
    """Return the head of an answer; its body, two bytes, is read too."""
    answer = b""
    while not answer.endswith(b"\r\n\r\nxx"):
        piece = connection.recv(1)
        assert piece, answer
        answer += piece
    return answer


def is_answered(connection: socket.socket) -> bool:
    """Return whether an answer comes before the connection ends."""
    try:
        return bool(connection.recv(65536))
    except ConnectionResetError:
        return False


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)


@contextmanager
def serving(limits: ServerLimits) -> Iterator[Running]:
    listener = socket.create_server(("127.0.0.1", 0))
    application = Application()
    config = Config(application, limits=limits)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    until(lambda: server.started)
    running = Running(listener.getsockname()[1], config, application)
    try:
        yield running
    finally:
        running.close()
        application.answer_all()
        server.should_exit = True
        thread.join()
    assert config.pool.held == 0, "what was held is released"


@pytest.fixture
def small() -> Iterator[Running]:
    with serving(SMALL) as running:
        yield running


def with_limits(**changes: Any) -> ServerLimits:
    return ServerLimits(**{**{name: getattr(SMALL, name) for name in SMALL.__struct_fields__}, **changes})


# --------------------------------------------------------------------------------------------------- time and size


@pytest.mark.parametrize("half", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nA: b\r\n", b"\r\n\r\n"])
def test_a_header_must_arrive_in_time(small: Running, half: bytes) -> None:
    answer = small.send(half)
    assert answer.startswith(b"HTTP/1.1 408 ") if half.strip() else answer == b""


def test_the_time_of_a_header_is_its_whole_time(small: Running) -> None:
    """A client that sends a byte now and then is not idle, and is ended all the same."""
    connection = small.open(b"GET / HTTP/1.1\r\nA: ")
    connection.setblocking(False)
    answer = b""
    end = time.monotonic() + 10
    while not answer and time.monotonic() < end:
        time.sleep(0.02)
        try:
            connection.send(b"a")
            answer = connection.recv(65536)
        except BlockingIOError:
            pass
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_body_must_arrive_in_time(small: Running) -> None:
    answer = small.send(b"POST /body HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcd")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "request_timeout"


def test_an_idle_connection_is_closed(small: Running) -> None:
    assert small.send(GET).count(b"HTTP/1.1 ") == 1


def test_empty_lines_keep_no_connection_open(small: Running) -> None:
    connection = small.open(GET)
    read_answer(connection)
    connection.sendall(b"\r\n\r\n")
    assert read_all(connection) == b""


CHUNKED = b"POST /body HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 5000, 431),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 5000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: a\r\n" * 11 + b"\r\n", 431),
        (b"GET /?" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET /" + b"a" * 101 + b" HTTP/1.1\r\n\r\n", 414),
        (CHUNKED + b"1\r\n{\r\n0\r\nA: " + b"a" * 5000, 431),
        (CHUNKED + b"1;" + b"a" * 5000, 431),
        (CHUNKED + b"1\r\na\r\n" * 1000, 431),
        (b"POST /body HTTP/1.1\r\nContent-Length: 999999\r\n\r\n" + b"a" * 49_000, 408),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
    ],
)
def test_what_is_too_large_or_malformed_is_refused(small: Running, request_: bytes, status: int) -> None:
    answer = small.send(request_)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == status


def test_a_header_within_the_limits_is_answered(small: Running) -> None:
    header = b"A: " + b"a" * 3900 + b"\r\n" + b"A: a\r\n" * 9
    assert small.send(b"GET /?a HTTP/1.1\r\n" + header + b"\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_large_header_of_the_second_request_is_refused_too(small: Running) -> None:
    """The first request and its body are no part of the second header."""
    body = b"a" * 30_000
    first = b"POST /body HTTP/1.1\r\nContent-Length: 30000\r\n\r\n" + body
    assert small.send(first + b"GET / HTTP/1.1\r\nA: b\r\n\r\n").count(b"HTTP/1.1 200 ") == 2
    connection = small.open(first)
    read_answer(connection)
    connection.sendall(b"GET / HTTP/1.1\r\nA: " + b"a" * 5000)
    assert read_all(connection).startswith(b"HTTP/1.1 431 ")


def test_an_answer_before_the_body_keeps_the_connection(small: Running) -> None:
    """The body is dropped as it arrives, so that the client reads the answer; then the next request is answered."""
    connection = small.open(b"POST / HTTP/1.1\r\nContent-Length: 90000\r\n\r\n")
    read_answer(connection)
    for _ in range(9):
        connection.sendall(b"a" * 10_000)
    connection.sendall(GET)
    assert read_answer(connection).startswith(b"HTTP/1.1 200 ")


def test_a_body_that_is_dropped_has_an_end(small: Running) -> None:
    connection = small.open(b"POST / HTTP/1.1\r\nContent-Length: 9000000\r\n\r\n")
    read_answer(connection)
    with pytest.raises(OSError):
        connection.sendall(b"a" * 9_000_000)


def test_an_answer_that_is_not_read_is_dropped() -> None:
    with serving(with_limits(idle_seconds=60.0)) as running:
        connection = running.open(b"GET /large HTTP/1.1\r\n\r\n")
        until(lambda: len(running.config.pool) == 0 and bool(running.application.asked))
        assert len(read_all(connection)) < 20_000_000


# ------------------------------------------------------------------------------------------------------- order


def test_few_requests_wait_on_a_connection(small: Running) -> None:
    """Two may wait for the first; with more, the connection ends, and no later answer is taken for an earlier one."""
    assert small.send(GET * 3).count(b"HTTP/1.1 200 ") == 3
    answer = small.send(b"GET /hang HTTP/1.1\r\n\r\n" + GET * 10)
    assert answer == b""


def test_a_refusal_is_never_taken_for_the_answer_to_the_request_before(small: Running) -> None:
    for second in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + b"a" * 5000):
        assert small.send(b"GET /hang HTTP/1.1\r\n\r\n" + second) == b""


def test_an_upgrade_is_not_offered(small: Running) -> None:
    upgrade = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert small.send(upgrade).startswith(b"HTTP/1.1 200 ")
    assert small.send(upgrade + GET).count(b"HTTP/1.1 200 ") == 2, "the next request is read"


@pytest.mark.parametrize("length", [b"Content-Length: 22", b"Transfer-Encoding: chunked"])
def test_the_body_of_an_upgrade_is_no_request(small: Running, length: bytes) -> None:
    """The parser takes the body for another protocol; a body in a packet of its own would be the next request."""
    head = b"POST /body HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n" + length + b"\r\n\r\n"
    connection = small.open(head)
    until(lambda: len(small.config.pool) == 0 or bool(small.application.asked))
    with suppress(OSError):
        connection.sendall(b"GET /body HTTP/1.1\r\n\r\n")
    answer = read_all(connection)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "upgrade_with_body"
    assert small.application.asked == []


# ----------------------------------------------------------------------------------------- connections and memory


def test_a_half_request_makes_room_for_a_new_connection() -> None:
    """The half request goes first, although another connection has been idle for longer."""
    with serving(with_limits(**PATIENT)) as running:
        idle = running.open(GET)
        read_answer(idle)
        half = running.open(b"GET / HTTP/1.1\r\nA: ")
        busy = running.open(b"GET /hang HTTP/1.1\r\n\r\n")
        until(lambda: "/hang" in running.application.asked)
        later = running.open(b"GET / HTTP/1.1\r\nA: ")
        until(lambda: len(running.config.pool) == 4)
        new = running.open(GET)
        assert read_answer(new).startswith(b"HTTP/1.1 200 ")
        assert read_all(half) == b""
        for connection in (idle, new):
            connection.sendall(GET)
            read_answer(connection)
        later.sendall(b"b\r\n\r\n")
        assert read_answer(later).startswith(b"HTTP/1.1 200 ")
        running.application.answer_all()
        assert read_answer(busy)


def test_a_new_connection_is_refused_if_all_others_are_being_answered() -> None:
    with serving(with_limits(**PATIENT)) as running:
        for _ in range(4):
            running.open(b"GET /hang HTTP/1.1\r\n\r\n")
        until(lambda: running.application.asked == ["/hang"] * 4)
        assert running.send(GET) == b""
        assert len(running.config.pool) == 4


def test_a_client_that_keeps_every_connection_busy_shuts_nobody_out() -> None:
    """A connection of the address that has more than half of them is ended, in spite of its request."""
    with serving(with_limits(**PATIENT)) as running:
        busy = [running.open(b"GET /hang HTTP/1.1\r\n\r\n", source="127.0.0.2") for _ in range(4)]
        until(lambda: running.application.asked == ["/hang"] * 4)
        assert read_answer(running.open(GET)).startswith(b"HTTP/1.1 200 ")
        assert len(running.config.pool) == 4
        running.application.answer_all()
        assert sum(map(is_answered, busy)) == 3


def test_bodies_hold_a_bounded_memory_together() -> None:
    """The body that has been arriving longest goes first; a complete request is answered."""
    with serving(with_limits(**PATIENT)) as running:
        half = b"POST /body HTTP/1.1\r\nContent-Length: 40000\r\n\r\n" + b"a" * 20_000
        first, second = running.open(half), running.open()
        until(lambda: "/body" in running.application.asked)
        second.sendall(half)
        until(lambda: running.application.asked == ["/body"] * 2)
        third = running.open(half)
        assert read_all(first) == b""
        for connection in (second, third):
            connection.sendall(b"a" * 20_000)
        assert read_answer(third)
        assert running.config.pool.held <= 50_000


def test_a_request_is_refused_if_complete_requests_hold_everything() -> None:
    with serving(with_limits(**PATIENT)) as running:
        request = b"POST /hang HTTP/1.1\r\nContent-Length: 20000\r\n\r\n" + b"a" * 20_000
        for _ in range(2):
            running.open(request)
        until(lambda: running.application.asked == ["/hang"] * 2)
        until(lambda: running.config.pool.held >= 40_000)
        answer = running.send(request)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 503 ")
        assert running.config.pool.held <= 50_000


def test_a_client_whose_requests_hold_everything_shuts_nobody_out() -> None:
    """A connection of the address that holds more than half is ended, in spite of its request."""
    with serving(with_limits(**PATIENT)) as running:
        request = b"POST /hang HTTP/1.1\r\nContent-Length: 20000\r\n\r\n" + b"a" * 20_000
        busy = [running.open(request, source="127.0.0.2") for _ in range(2)]
        until(lambda: running.application.asked == ["/hang"] * 2 and running.config.pool.held >= 40_000)
        body = b"POST /body HTTP/1.1\r\nContent-Length: 20000\r\n\r\n" + b"a" * 20_000
        assert read_answer(running.open(body)).startswith(b"HTTP/1.1 200 ")
        running.application.answer_all()
        assert sum(map(is_answered, busy)) == 1


def test_the_defaults_take_every_body_of_the_api() -> None:
    limits = ServerLimits()
    assert limits.body > BODY_MAX
    assert limits.held > 100 * BODY_MAX
