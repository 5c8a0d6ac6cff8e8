"""uvicorn with the limits of a server that strangers can reach.

uvicorn bounds neither the size of a header, nor the time in which a request must arrive and its reply be read, nor the
requests that wait on a connection, nor the connections and the memory that all of them hold. `Config` adds these
limits. Each limit is of one process.

Sources: RFC 9112 (HTTP/1.1); RFC 6585, section 5 (431); RFC 9110, 15.5.9 (408), 15.5.15 (414) and 15.6.4 (503).
"""

import asyncio
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from enum import Enum
from http import HTTPStatus
from typing import Any, Final

import httptools
import msgspec
import uvicorn
from msgspec.structs import replace
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from functions.web.problem import PROBLEM, Problem, page_of

_PIECE: Final = 16 * 1024  # bytes that are parsed between two looks at the limits
_SWEEP: Final = 0.5  # seconds between two looks at the deadlines
_NEVER: Final = float("inf")
_OTHER_FILES: Final = 128  # that a process needs besides its clients' connections: the store's, the log's, modules


class ServerLimits(msgspec.Struct, frozen=True):
    """What clients may take of a process.

    Args:
        head: bytes of a request besides its body: request line, header lines, the framing of chunks, trailers.
        path: bytes of the path, without the query.
        header_lines: lines of a header.
        head_seconds: from the opened connection, or a request's first byte, to the end of its header.
        body_seconds: from the end of the header to the end of the body.
        write_seconds: how long a reply may wait for its reader.
        idle_seconds: how long a connection may wait for its next request.
        body: bytes of a body that are taken from the connection, most of them to be dropped: many clients read a
            refusal only after they have sent the whole body.
        pipelined: requests on a connection that wait while another is answered.
        connections: open connections.
        held: bytes of all requests that are not answered yet.
    """

    head: int = 64 * 1024
    path: int = 4 * 1024
    header_lines: int = 100
    head_seconds: float = 10.0
    body_seconds: float = 20.0
    write_seconds: float = 30.0
    idle_seconds: float = 75.0
    body: int = 4 * 1024 * 1024
    pipelined: int = 8
    connections: int = 1000
    held: int = 32 * 1024 * 1024


class Config(uvicorn.Config):
    """The configuration of a server with limits. It can be sent to a process that is started with it.

    Args:
        app: the ASGI application, or its address as `module:name`.
        limits: the defaults of `ServerLimits` if absent.
        options: other arguments of `uvicorn.Config`.
    """

    def __init__(self, app: Callable[..., Any] | str, *, limits: ServerLimits | None = None, **options: Any) -> None:
        super().__init__(
            app,
            http=LimitedProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # the connection shows the caller; a client can write such headers too
            timeout_graceful_shutdown=10,  # seconds
            **options,
        )
        limits = limits or ServerLimits()
        self.pool = ConnectionPool(replace(limits, connections=_reserve_files(limits.connections)))


def _reserve_files(connections: int) -> int:
    """Return for how many of *connections* this process may open files; its soft limit is raised as far as needed.

    A process that may open no more files accepts no connection, so that connections are ended before.
    """
    if sys.platform == "win32":
        return connections
    import resource

    needed = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return connections
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, allowed - _OTHER_FILES)


class ConnectionPool:
    """The connections of a process, and what they hold together."""

    def __init__(self, limits: ServerLimits) -> None:
        self.limits = limits
        self.held = 0  # bytes of requests that are not answered yet
        self._open: set[LimitedProtocol] = set()
        self._is_watched = False

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: "LimitedProtocol") -> None:
        """Add a connection. Where there are too many, others are ended (`_in_order_of_end`)."""
        self._open.add(connection)
        if not self._is_watched:
            self._is_watched = True
            connection.loop.call_later(_SWEEP, self._sweep, connection.loop)
        excess = len(self._open) - self.limits.connections
        if excess > 0:
            order = _in_order_of_end(self._open, lambda each: 1, most=self.limits.connections // 2)
            # Some more than needed: the next connections find room without another search.
            more = [each for each in order[excess : excess + self.limits.connections // 50] if not each.is_busy]
            for each in order[:excess] + more:
                each.end()

    def remove(self, connection: "LimitedProtocol") -> None:
        """Forget a connection that has ended."""
        self._open.discard(connection)

    def is_full(self) -> bool:
        """Whether unanswered requests hold too much, after others were ended (`_in_order_of_end`)."""
        limit = self.limits.held
        if self.held > limit:
            holding = [each for each in self._open if each.held]
            for each in _in_order_of_end(holding, lambda each: each.held, most=limit // 2):
                if self.held <= (limit if each.is_busy else limit * 0.9):
                    break
                each.end()
        return self.held > limit

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the connections that are late; again in half a second while there are connections."""
        now = time.monotonic()
        for each in tuple(self._open):
            each.end_if_late(now)
        self._is_watched = bool(self._open)
        if self._is_watched:
            loop.call_later(_SWEEP, self._sweep, loop)


def _in_order_of_end(
    connections: "Iterable[LimitedProtocol]", weigh: "Callable[[LimitedProtocol], int]", *, most: int
) -> "list[LimitedProtocol]":
    """Return the connections that may be ended; the first is ended first.

    The address with the largest weight comes first. Of an address, unfinished requests come before idle connections,
    and longer waits before shorter waits. Connections whose clients wait for an answer are left out, except those of
    an address with more weight than *most*: they come last of the address. Otherwise a client that always has requests
    to be answered would shut all others out.

    Args:
        weigh: returns what a connection takes of the limit.
    """
    every = list(connections)
    weights: Counter[str] = Counter()
    for each in every:
        weights[each.address] += weigh(each)
    ended = [each for each in every if not each.is_busy or weights[each.address] > most]
    return sorted(ended, key=lambda each: (-weights[each.address], each.is_busy, each.is_idle, each.waits_since or 0.0))


class _Phase(Enum):
    """What arrives on a connection."""

    NOTHING = "between two requests"
    HEAD = "a request's header"
    BODY = "a request's body"


class _Exceeded(Exception):
    """A limit is exceeded. The parser replaces what its callbacks raise by an error of its own."""


class LimitedProtocol(HttpToolsProtocol):
    """A connection of uvicorn with httptools, within the limits of its pool.

    The pool looks at the deadlines of all connections twice a second. A timer for each request would cost more.
    """

    config: Config
    transport: asyncio.Transport

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.address = ""
        self.held = 0  # bytes of this connection's requests that are not answered yet
        self.waits_since: float | None = None  # when the connection began to wait for its client
        self._pool = config.pool
        self._limits = config.pool.limits
        self._phase = _Phase.NOTHING
        self._deadline = _NEVER
        self._unsent_since: float | None = None
        self._unanswered: deque[int] = deque()  # the size of each request, oldest first
        self._lines = 0  # of the arriving header
        self._size = 0  # bytes of the arriving header's fields
        self._spent = 0  # bytes of the arriving request besides its body
        self._partial = 0  # of `held`: bytes of a header that is not complete
        self._body = 0  # bytes of the arriving body
        self._bodies = 0  # bytes of all bodies of this connection
        self._refusal = _MALFORMED

    @property
    def is_busy(self) -> bool:
        """Whether the client waits for an answer."""
        return self.waits_since is None

    @property
    def is_idle(self) -> bool:
        """Whether no request is arriving."""
        return self._phase is _Phase.NOTHING

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self._wait(self._limits.head_seconds)
        self._pool.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._release()
        self._pool.remove(self)
        super().connection_lost(exc)

    # ------------------------------------------------------------------------------------------- what arrives

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, piece by piece: the parser collects a header until it is complete."""
        if len(data) <= _PIECE:
            self._parse(data)
            return
        for start in range(0, len(data), _PIECE):
            if not self.transport.is_closing():
                self._parse(data[start : start + _PIECE])

    def _parse(self, piece: bytes) -> None:
        bodies = self._bodies
        try:
            self._feed(piece)
        except httptools.HttpParserError:
            self._refuse(*self._refusal)
            return
        # Where a piece also holds the end of the request before, the count is too high, by less than a piece.
        self._spent += len(piece) - (self._bodies - bodies)
        partial = self._spent if self._phase is _Phase.HEAD else 0
        if partial or self._partial:
            self._hold(partial - self._partial)
            self._partial = partial
        if self._spent > self._limits.head:
            self._refuse(*_HEAD_TOO_LARGE)
        elif self._body > self._limits.body:
            self._refuse(*_BODY_TOO_LARGE)
        elif self._phase is not _Phase.NOTHING and self._pool.is_full():
            self._refuse(*_FULL)

    def _feed(self, piece: bytes) -> None:
        """Parse *piece*. No other protocol is offered, so a request that asks for one is read as any (RFC 9110, 7.8).

        The parser stops after such a request, and what follows is HTTP/1.1 still.
        """
        while piece:
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as stop:
                piece = piece[stop.args[0] :]
            else:
                return

    def on_message_begin(self) -> None:
        if len(self._unanswered) > self._limits.pipelined:
            raise _Exceeded
        super().on_message_begin()
        self._phase = _Phase.HEAD
        self._lines = self._size = self._spent = self._body = 0
        self._wait(self._limits.head_seconds)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is _Phase.BODY:
            return  # a trailer: no function reads one
        self._lines += 1
        self._size += len(name) + len(value)
        if self._lines > self._limits.header_lines:
            self._refusal = _HEAD_TOO_LARGE
            raise _Exceeded
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        size = self._size + len(self.url)
        if len(self.url.partition(b"?")[0]) > self._limits.path:
            self._refusal = _PATH_TOO_LONG
            raise _Exceeded
        if size > self._limits.head:  # all of it arrived in one piece
            self._refusal = _HEAD_TOO_LARGE
            raise _Exceeded
        if self.parser.should_upgrade() and _announces_body(self.headers):
            self._refusal = _UPGRADE_WITH_BODY
            raise _Exceeded
        super().on_headers_complete()
        self._unanswered.append(size)
        self._hold(size)
        self._phase = _Phase.BODY
        self._wait(self._limits.body_seconds)

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        self._bodies += len(body)
        if not self.cycle.response_complete:
            self._unanswered[-1] += len(body)
            self._hold(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._phase = _Phase.NOTHING
        self._wait_for_next()

    # ----------------------------------------------------------------------------------------------- what is sent

    def on_response_complete(self) -> None:
        """Start the next request that waits on this connection. Replaces uvicorn's method, which sets a timer."""
        if self._unanswered:
            self._hold(-self._unanswered.popleft())
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._phase is _Phase.NOTHING:
            self._wait_for_next()

    def _refuse(self, status: HTTPStatus, code: str, detail: str) -> None:
        """End the connection; before that, answer the request that arrives, if its answer is next."""
        if self._is_next():
            document = Problem(type=page_of(code), title=status.phrase, status=status.value, detail=detail, code=code)
            body = msgspec.json.encode(document)
            head = f"content-type: {PROBLEM}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[status.value] + head.encode() + body)
        self.transport.close()

    def _is_next(self) -> bool:
        """Whether an answer that is written now belongs to the request that arrives (RFC 9112, 9.3.2)."""
        if self._phase is _Phase.BODY:
            return len(self._unanswered) == 1 and not self.cycle.response_started
        return not self._unanswered

    # ---------------------------------------------------------------------------------------------- what it costs

    def end(self) -> None:
        """End the connection at once, with whatever it holds."""
        self._release()
        self.waits_since = None
        self.transport.abort()

    def end_if_late(self, now: float) -> None:
        """End the connection if its client is late. *now*: `time.monotonic`."""
        if not self.transport.get_write_buffer_size():
            self._unsent_since = None
        elif self._unsent_since is None:
            self._unsent_since = now
        elif now - self._unsent_since > self._limits.write_seconds:
            self.end()
            return
        if now <= self._deadline or self.transport.is_closing():
            return
        if self._phase is _Phase.NOTHING:
            self.transport.close()
        else:
            self._refuse(*_LATE)

    def _wait(self, seconds: float) -> None:
        """Begin to wait for the client, *seconds* at most."""
        self.waits_since = time.monotonic()
        self._deadline = self.waits_since + seconds

    def _wait_for_next(self) -> None:
        """Begin to wait for the next request, once all others are answered."""
        if self._unanswered:
            self.waits_since, self._deadline = None, _NEVER
        else:
            self._wait(self._limits.idle_seconds)

    def _hold(self, size: int) -> None:
        self.held += size
        self._pool.held += size

    def _release(self) -> None:
        """Hold nothing any more: the connection ends."""
        self._hold(-self.held)
        self._unanswered.clear()


def _announces_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether a body follows *headers* (RFC 9112, 6.3). Their names are in lower case."""
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)


_MALFORMED: Final = (HTTPStatus.BAD_REQUEST, "malformed_request", "The request cannot be read as HTTP/1.1.")
_HEAD_TOO_LARGE: Final = (
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "header_too_large",
    "The request line and the header are too large. Send at most 100 lines, and 64 KiB in all.",
)
_PATH_TOO_LONG: Final = (HTTPStatus.REQUEST_URI_TOO_LONG, "path_too_long", "The path is longer than 4 KiB.")
_BODY_TOO_LARGE: Final = (
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "file_too_large",
    "The body is far larger than the 256 KiB that are taken. Send the certificate alone.",
)
# The parser takes such a body for the other protocol, so that a part of the body would be read as the next request.
_UPGRADE_WITH_BODY: Final = (
    HTTPStatus.BAD_REQUEST,
    "upgrade_with_body",
    "The request has a body and asks for another protocol (Upgrade). Send the request without Upgrade, as HTTP/1.1.",
)
_LATE: Final = (HTTPStatus.REQUEST_TIMEOUT, "request_timeout", "The request did not arrive in time. Send it again.")
_FULL: Final = (
    HTTPStatus.SERVICE_UNAVAILABLE,
    "server_busy",
    "Too many requests wait for their answers. Send the request again.",
)
