"""The functions as functions-framework targets: Cloud Run functions, Cloud Run and Knative.

Each function is a target of its own name (`FUNCTION_TARGET=verifyClient`); the target `service` answers every address
in one process. functions-framework looks for targets in `main.py`.

HTTP targets are asynchronous, so functions-framework starts gunicorn with uvicorn's workers (docs/decisions/0093). The
others take CloudEvents (FUNCTION_SIGNATURE_TYPE=cloudevent). The platform checks who may invoke them (IAM: only the
trigger's own identity).
"""

import asyncio
import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, cast

import functions_framework
import functions_framework.aio
from msgspec.structs import replace
from starlette.requests import Request as FrameworkRequest
from starlette.types import Receive, Scope, Send

from functions.dispatch import Dispatcher
from functions.hosts import asgi, process
from functions.hosts.settings import configure_log
from functions.hosts.static import Console
from functions.registry import BY_NAME, CONSOLE, FUNCTIONS
from functions.web.message import Reply, Request
from shared import log

if TYPE_CHECKING:
    from shared.ports import ObjectReader

SERVICE: Final = "service"
TARGETS: Final = (*(function.name for function in FUNCTIONS), SERVICE)
# Of several processes behind one port, the first to accept a connection keeps it, and a broker's connections may all
# belong to one process (docs/decisions/0093). Closing a connection now and then lets an idle process accept the next.
REPLIES_MAX: Final = 100  # between two closed connections of a process; as keepalive_requests of nginx
_EVENT_SECONDS: Final = 540.0  # the longest run of an event-driven function (Cloud Run functions, "Quotas")


def target(name: str) -> FunctionType:
    """Return what functions-framework calls for the target *name*, one of TARGETS."""
    return cast("FunctionType", _EVENTS[name]) if name in _EVENTS else _http_target(name)


def _http_target(name: str) -> FunctionType:
    endpoint = _Target(None if name == SERVICE else name)

    async def handle(_: FrameworkRequest) -> Any:
        return endpoint  # any ASGI application can be a response (Starlette, "Responses")

    handle.__name__ = name
    return cast("FunctionType", functions_framework.aio.http(handle))


class _Target:
    """ASGI: one request and its reply. Never raises: functions-framework would send the error's text to the caller."""

    def __init__(self, function: str | None) -> None:
        self._function = function
        self._needs_app = function is None or BY_NAME[function].needs_app
        self._dispatcher = Dispatcher(process.app, function)
        self._pool = ThreadPoolExecutor(asgi.THREADS, thread_name_prefix="function")
        self._has_siblings = os.environ.get("WORKERS", "1") != "1"  # functions-framework's own variable
        self._replies = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The connection is the platform's own proxy: neither its address nor its headers show how the client connected.
        request = await asgi.read_request(scope, receive, path=self._path(scope), scheme="http")
        try:
            reply = await self._reply(request)
        except Exception as error:  # noqa: BLE001 - a broker may read the framework's own 500 as permission
            reply = self._dispatcher.refuse(request, error)
        close = self._has_siblings and next(self._replies) % REPLIES_MAX == 0
        await asgi.send_reply(reply, send, close=close)

    async def _reply(self, request: Request) -> Reply:
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
        return await self._dispatcher.dispatch_async(request, self._pool)

    def _path(self, scope: Scope) -> str:
        """Return the path. At a function's own URL (…cloudfunctions.net/uploadCA) the platform removes the name."""
        path = asgi.sent_path(scope)
        return f"/{self._function}" if self._function and path in ("", "/") else path


# ---------------------------------------------------------------------------------------------------------- events


@cache
def _objects() -> "ObjectReader":
    from shared.composition import gcs_objects

    return gcs_objects()


@functions_framework.cloud_event
def on_upload(event: Any) -> None:
    """Import the object of a google.cloud.storage.object.v1.finalized event."""
    from functions.events.uploads import import_all, parse_gcs, upload_bucket

    with log.request(event["id"]):
        app = process.app()
        uploads = parse_gcs(event["type"], event["source"], event.data)
        import_all(app, _objects(), uploads, bucket=upload_bucket(app.settings))


@functions_framework.cloud_event
def record_sightings(event: Any) -> None:
    """Record the connection events in a message of the queue."""
    from functions.events.sightings import RECORDER, parse_pubsub

    with log.request(event["id"]):
        RECORDER.record(process.app().context, parse_pubsub(event["type"], event.data))


@functions_framework.cloud_event
def expiry_report(event: Any) -> None:
    """Report what expires, on the daily schedule. Pub/Sub delivers the message again if this raises."""
    from functions.events.expiry import report_expiry

    end = time.monotonic() + _EVENT_SECONDS
    with log.request(event["id"]):
        report_expiry(process.app(), seconds_left=lambda: end - time.monotonic())


_EVENTS: Final[dict[str, Any]] = {
    "onUpload": on_upload,
    "recordSightings": record_sightings,
    "expiryReport": expiry_report,
}
