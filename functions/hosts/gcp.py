"""The functions as functions-framework targets: Cloud Run functions, Cloud Run and Knative.

Each function is a target of its own name (`FUNCTION_TARGET=verifyClient`); the target `service` answers every address
in one process. functions-framework looks for targets in `main.py`.

HTTP targets are asynchronous, so functions-framework starts gunicorn with uvicorn's workers (docs/decisions/0093),
which limit neither headers nor connections: a proxy in front must (docs/operations.md). The container's command starts
functions/hosts/server.py instead. The other targets take CloudEvents (FUNCTION_SIGNATURE_TYPE=cloudevent). The platform
checks who may invoke them (IAM: only the trigger's own identity).
"""

import time
from functools import cache
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, cast

import functions_framework
import functions_framework.aio
from starlette.requests import Request

from functions.hosts import process
from functions.hosts.target import SERVICE, Target
from functions.registry import FUNCTIONS
from shared import log

if TYPE_CHECKING:
    from shared.ports import ObjectReader

TARGETS: Final = (*(function.name for function in FUNCTIONS), SERVICE)
_EVENT_SECONDS: Final = 540.0  # the longest run of an event-driven function (Cloud Run functions, "Quotas")


def target(name: str) -> FunctionType:
    """Return what functions-framework calls for the target *name*, one of TARGETS."""
    return cast("FunctionType", _EVENTS[name]) if name in _EVENTS else _http_target(name)


def _http_target(name: str) -> FunctionType:
    endpoint = Target(name)

    async def handle(_: Request) -> Any:
        return endpoint  # any ASGI application can be a response (Starlette, "Responses")

    handle.__name__ = name
    return cast("FunctionType", functions_framework.aio.http(handle))


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
