"""The functions as an ASGI application: all of them in one process, for any ASGI server."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from msgspec.structs import replace

from functions.dispatch import Dispatcher
from functions.hosts.static import Console
from functions.web.body import BODY_MAX
from functions.web.message import Reply, Request, build_request, reply_headers
from shared.composition import App

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

THREADS: Final = 8  # a store's client blocks its thread, which must not be the event loop's
_DROP_MAX: Final = 16 * BODY_MAX  # bytes of a body that are read and dropped


class Application:
    """ASGI 3: HTTP and lifespan."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._dispatcher = Dispatcher(lambda: app)
        self._console = Console(origins=app.tokens.origins) if app.tokens else Console()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="function")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = await read_request(scope, receive, peer=(scope.get("client") or ("",))[0])
        if self._app.settings.behind_tls:
            request = replace(request, scheme="https")
        if self._console.answers(request.path):
            reply = await asyncio.get_running_loop().run_in_executor(self._pool, self._console.reply, request)
        else:
            reply = await self._dispatcher.dispatch_async(request, self._pool)
        await send_reply(reply, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            event = (await receive())["type"]
            if event == "lifespan.shutdown":
                self._pool.shutdown()
                self._app.close()
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return


async def read_request(
    scope: Scope, receive: Receive, *, path: str | None = None, scheme: str | None = None, peer: str = ""
) -> Request:
    """Return the request, once all of it has arrived.

    Args:
        path, scheme: replace those of *scope*.
        peer: the client's address, if it is known.
    """
    headers = _headers(scope["headers"])
    return build_request(
        scope["method"],
        path or sent_path(scope),
        scope["query_string"].decode("latin-1"),
        headers,
        await _body(receive),
        scheme=scheme or scope.get("scheme", "http"),
        peer=peer,
    )


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


async def _body(receive: Receive) -> bytes | None:
    """Return the body; None if it exceeds BODY_MAX.

    The excess is read and dropped, up to a bound, so that the client receives the reply instead of a broken pipe.
    """
    chunks, size = [], 0
    while True:
        message = await receive()
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= BODY_MAX:
            chunks.append(chunk)
        elif size > _DROP_MAX:
            return None
        if not message.get("more_body", False):
            return b"".join(chunks) if size <= BODY_MAX else None


async def send_reply(reply: Reply, send: Send, *, close: bool = False) -> None:
    """Send *reply*. *close*: the connection ends with it (RFC 9112, 9.6)."""
    headers = reply_headers(reply)
    if reply.status not in (204, 304):
        headers.setdefault("content-length", str(len(reply.body)))
    if close:
        headers["connection"] = "close"
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": raw})
    await send({"type": "http.response.body", "body": reply.body})
