"""The functions as an ASGI application: all of them in one process, for any ASGI server."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any, Final

from msgspec.structs import replace

from functions.dispatch import Dispatcher, ReadBody
from functions.hosts.static import Console
from functions.web.body import BODY_MAX, body_too_large
from functions.web.errors import BodyLate
from functions.web.message import Reply, Request, build_request, reply_headers
from shared import log
from shared.composition import App

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

THREADS: Final = 8  # a store's client blocks its thread, which must not be the event loop's
BODY_SECONDS: Final = 15.0  # in which a body must arrive


class Application:
    """ASGI 3: HTTP and lifespan."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._dispatcher = Dispatcher(lambda: app)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="function")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await serve_lifespan(receive, send, self._close)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = read_head(scope, peer=(scope.get("client") or ("",))[0])
        if self._app.settings.behind_tls:
            request = replace(request, scheme="https")
        if Console.answers(request.path):
            reply = await asyncio.get_running_loop().run_in_executor(self._pool, self._show_console, request)
        else:
            try:
                reply = await self._dispatcher.dispatch_async(request, self._pool, body_reader(request, receive))
            except Disconnected:
                return
        await send_reply(reply, send)

    @cached_property
    def _console(self) -> Console:
        """The console, read when its first file is asked for."""
        tokens = self._app.tokens
        return Console(origins=tokens.origins) if tokens else Console()

    def _show_console(self, request: Request) -> Reply:
        return self._console.reply(request)

    def _close(self) -> None:
        self._pool.shutdown()
        self._app.close()


async def serve_lifespan(receive: Receive, send: Send, close: Callable[[], None]) -> None:
    """Answer the server's lifespan events (ASGI, "Lifespan Protocol"). *close* is called when the server ends."""
    while True:
        event = (await receive())["type"]
        if event == "lifespan.shutdown":
            close()
            log.LINES.flush()  # the process may end by a signal
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return


def read_head(scope: Scope, *, path: str | None = None, scheme: str | None = None, peer: str = "") -> Request:
    """Return the request without its body.

    Args:
        path, scheme: replace those of *scope*.
        peer: the client's address, if it is known.
    """
    return build_request(
        scope["method"],
        path or sent_path(scope),
        scope["query_string"].decode("latin-1"),
        _headers(scope["headers"]),
        scheme=scheme or scope.get("scheme", "http"),
        peer=peer,
    )


def body_reader(request: Request, receive: Receive) -> ReadBody | None:
    """Return what receives the body of *request*; None if its header announces no body (RFC 9112, 6.3)."""
    if request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
        return None
    return partial(_read_body, receive)


def sent_path(scope: Scope) -> str:
    """Return the path as it was sent, percent-encoded: decoded, an encoded slash would split a segment."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.decode("latin-1")


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Join headers that were sent several times into one list (RFC 9110, 5.3).

    A header that a client adds can thus not hide the header that a proxy wrote.
    """
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


class Disconnected(Exception):
    """The client closed the connection before its whole request arrived."""


async def _read_body(receive: Receive) -> bytes:
    """Return the body. What exceeds BODY_MAX is left to the server, which drops it after the reply.

    Raises: TooLarge; BodyLate; Disconnected.
    """
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > BODY_MAX:
                    raise body_too_large()
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError:
        raise BodyLate(seconds=f"{BODY_SECONDS:g}") from None


async def send_reply(reply: Reply, send: Send) -> None:
    """Send *reply*."""
    headers = reply_headers(reply)
    if reply.status not in (204, 304):
        headers.setdefault("content-length", str(len(reply.body)))
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": raw})
    await send({"type": "http.response.body", "body": reply.body})
