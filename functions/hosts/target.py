"""One function, or all of them, as an ASGI application for a process that a platform started."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from msgspec.structs import replace

from functions.dispatch import Dispatcher, ReadBody
from functions.hosts import asgi, collector, process
from functions.hosts.settings import configure_log
from functions.hosts.static import Console
from functions.registry import BY_NAME, CONSOLE
from functions.web.message import Reply, Request

SERVICE: Final = "service"  # the target that answers every address in one process


class Target:
    """ASGI 3: HTTP and lifespan. Never raises: a server would send an answer of its own, which a broker may misread.

    Args:
        name: a function's name, or SERVICE.
    """

    def __init__(self, name: str) -> None:
        self._function = None if name == SERVICE else name
        self._needs_app = self._function is None or BY_NAME[self._function].needs_app
        self._dispatcher = Dispatcher(process.app, self._function)
        self._pool = ThreadPoolExecutor(asgi.THREADS, thread_name_prefix="function")

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        if scope["type"] == "lifespan":
            await asgi.serve_lifespan(receive, send, self._close)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _http(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        # The connection is the platform's own proxy: neither its address nor its headers show how the client connected.
        request = asgi.read_head(scope, path=self._path(scope), scheme="http")
        try:
            reply = await self._reply(request, asgi.body_reader(request, receive))
        except asgi.Disconnected:
            return
        except Exception as error:  # noqa: BLE001 - a broker may read a server's own 500 as permission
            reply = self._dispatcher.refuse(request, error)
        await asgi.send_reply(reply, send)
        collector.resume()

    async def _reply(self, request: Request, read_body: ReadBody | None) -> Reply:
        loop = asyncio.get_running_loop()
        if self._function == CONSOLE or (self._function is None and Console.answers(request.path)):
            return await loop.run_in_executor(self._pool, lambda: process.console().reply(request))
        if self._needs_app:
            app = process.built_app()
            if app is None:
                app = await loop.run_in_executor(self._pool, process.app)
            if app.settings.behind_tls:
                request = replace(request, scheme="https")
        else:
            configure_log()
        return await self._dispatcher.dispatch_async(request, self._pool, read_body)

    def _path(self, scope: asgi.Scope) -> str:
        """Return the path. At a function's own URL (…cloudfunctions.net/uploadCA) the platform removes the name."""
        path = asgi.sent_path(scope)
        return f"/{self._function}" if self._function and path in ("", "/") else path

    def _close(self) -> None:
        self._pool.shutdown()
        app = process.built_app()
        if app is not None:
            app.close()
