"""The functions as functions-framework targets: Cloud Run functions, Cloud Run and Knative.

One target a function, named like it (`FUNCTION_TARGET=verifyClient`), and `service`, which answers every route in one
process. `main.py` at the top is where functions-framework looks for them.

Targets are asynchronous, so functions-framework starts gunicorn with uvicorn's workers (docs/decisions/0093).
"""

import asyncio
import itertools
import os
import types
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast

import functions_framework.aio
from msgspec.structs import replace
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from functions.dispatch import dispatch_async, refuse
from functions.hosts import asgi, hosted_console, process
from functions.hosts.static import Console
from functions.routes import CONSOLE, ROUTES
from functions.web.http import Reply
from functions.web.http import Request as Asked

SERVICE: Final = "service"
# Of several processes behind one port, whichever is first takes a new connection, and keeps it: all that a broker holds
# open often lie with one (docs/decisions/0093). One that is closed now and then is opened anew, by who has leisure.
SPREAD: Final = 100  # answers of a process; nginx (keepalive_requests) and Envoy do the same
TARGETS: Final = (*dict.fromkeys(route.function for route in ROUTES), CONSOLE, SERVICE)


def target(name: str) -> types.FunctionType:
    """What functions-framework calls for the target *name*, one of TARGETS."""
    answer = _Answer(None if name == SERVICE else name)

    async def handle(_: Request) -> Any:
        return answer  # a response is whatever can be called like one (Starlette, "Responses"): nothing is built twice

    handle.__name__ = name
    return cast("types.FunctionType", functions_framework.aio.http(handle))


class _Answer:
    """ASGI: one request and its reply. Never raises: functions-framework would tell the caller the error's text."""

    def __init__(self, function: str | None) -> None:
        self._function = function
        self._pool = ThreadPoolExecutor(asgi.THREADS, thread_name_prefix="function")
        self._has_siblings = os.environ.get("WORKERS", "1") != "1"  # functions-framework's own variable
        self._answers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Who connects is the platform's own proxy: neither its address nor what it says of TLS tells who asks, and how.
        asked = await asgi.request(scope, receive, path=self._path(scope), scheme="http")
        try:
            reply = await self._reply(asked)
        except Exception as error:  # noqa: BLE001 - a broker may take the framework's own 500 for leave to go on
            reply = refuse(asked, error, function=self._function)
        close = self._has_siblings and next(self._answers) % SPREAD == 0
        await asgi.answer(reply, send, close=close)

    async def _reply(self, asked: Asked) -> Reply:
        loop = asyncio.get_running_loop()
        if self._function == CONSOLE or (self._function is None and Console.answers(asked.path)):
            return await loop.run_in_executor(self._pool, lambda: hosted_console.console().reply(asked))
        app = process.built()
        if app is None:
            app = await loop.run_in_executor(self._pool, process.app)
        if app.settings.behind_tls:
            asked = replace(asked, scheme="https")
        return await dispatch_async(app, asked, self._pool, function=self._function)

    def _path(self, scope: Scope) -> str:
        """At a function's own address (…cloudfunctions.net/uploadCA) the platform takes the name away; back with it."""
        path = asgi.sent_path(scope)
        return f"/{self._function}" if self._function and path in ("", "/") else path
