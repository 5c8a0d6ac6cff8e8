"""The functions as an ASGI application: what a server needs to run them all in one process."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from msgspec.structs import replace

from functions.dispatch import dispatch_async
from functions.hosts import wire
from functions.hosts.static import Console
from functions.web.http import BODY_MAX, Reply, Request
from shared.composition import App

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

THREADS: Final = 8  # a store's client blocks; it must not block the loop


class Application:
    """ASGI 3: HTTP and lifespan."""

    def __init__(self, app: App) -> None:
        self._app = app
        tokens = app.tokens
        self._console = Console(origins=tokens.origins) if tokens else Console()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="function")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = await request(scope, receive, peer=(scope.get("client") or ("",))[0])
        if self._app.settings.behind_tls:
            asked = replace(asked, scheme="https")
        if self._console.answers(asked.path):
            reply = await asyncio.get_running_loop().run_in_executor(self._pool, self._console.reply, asked)
        else:
            reply = await dispatch_async(self._app, asked, self._pool)
        await answer(reply, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            event = (await receive())["type"]
            if event == "lifespan.shutdown":
                self._pool.shutdown()
                self._app.close()
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return


async def request(
    scope: Scope, receive: Receive, *, path: str | None = None, scheme: str | None = None, peer: str = ""
) -> Request:
    """The request that *scope* and *receive* tell of, once all of it is here.

    Args:
        path, scheme: instead of those of *scope*.
        peer: the address of who asks, where it is known."""
    headers = _headers(scope["headers"])
    return wire.request(
        scope["method"],
        path or sent_path(scope),
        scope["query_string"].decode("latin-1"),
        headers,
        await _body(receive),
        scheme=scheme or scope.get("scheme", "http"),
        peer=peer,
    )


def sent_path(scope: Scope) -> str:
    """Still percent-encoded: decoded, an encoded slash would split a segment."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.decode("latin-1")


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """One sent several times is one list (RFC 9110, 5.3): what a client adds never hides what a proxy wrote."""
    found: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


async def _body(receive: Receive) -> bytes | None:
    """The request's body; None where it is larger than any call may be. What is too much is read and dropped, up to a
    bound, so that the client sees the answer rather than a broken pipe."""
    chunks, size = [], 0
    while True:
        message = await receive()
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= BODY_MAX:
            chunks.append(chunk)
        elif size > 16 * BODY_MAX:
            return None
        if not message.get("more_body", False):
            return b"".join(chunks) if size <= BODY_MAX else None


async def answer(reply: Reply, send: Send, *, close: bool = False) -> None:
    """Send *reply*. *close*: it is the last one on its connection (RFC 9112, 9.6)."""
    length = {} if reply.status in (204, 304) else {"content-length": str(len(reply.body))}
    last = {"connection": "close"} if close else {}
    found = wire.headers(reply) | length | last
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in found.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": raw})
    await send({"type": "http.response.body", "body": reply.body})
