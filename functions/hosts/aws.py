"""The functions as AWS Lambda handlers.

HTTP requests come from an API Gateway HTTP API (payload format 2.0) or a function URL; events come from S3, SQS and
EventBridge; AWS IoT invokes verifyClient itself.

The handler of an HTTP function is derived from functions/registry.py: `functions/hosts/aws.verify_client` answers
verifyClient's addresses. Imports inside a function here load what one deployed function needs; its entry in the
registry names the same modules, and its package holds them. This module does not import boto3; the adapters that the
settings choose do.
"""

# ruff: noqa: E402 - the collector is paused before anything else is loaded
from functions.hosts import collector

collector.pause()

import base64
import binascii
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from msgspec.structs import replace

from functions.dispatch import Dispatcher
from functions.hosts.settings import configure_log
from functions.registry import BY_HANDLER, CONSOLE, VERIFY_CLIENT, Function, Trigger, preload
from functions.web.body import BODY_MAX, body_too_large
from functions.web.errors import MalformedBody
from functions.web.message import Reply, Request, build_request, reply_headers
from shared import log
from shared.errors import TrustError

if TYPE_CHECKING:
    from shared.composition import App
    from shared.ports import ObjectReader

Event = Mapping[str, Any]
Handler = Callable[[Event, Any], dict[str, Any]]


def __getattr__(name: str) -> Handler:
    """Return the Lambda handler of an HTTP function: `verify_client` for verifyClient."""
    function = BY_HANDLER.get(name)
    if function is None or function.trigger is not Trigger.HTTP:
        raise AttributeError(name)
    return _handler(function)


@cache
def _handler(function: Function) -> Handler:
    preload(function)
    if function.name == CONSOLE:
        return _console
    dispatcher = Dispatcher(_app, function.name)

    def handle(event: Event, context: Any) -> dict[str, Any]:
        if function.name == VERIFY_CLIENT and "requestContext" not in event:
            return _authorize(event, context)
        answer = encode_reply(_reply(function, dispatcher, event, context))
        collector.resume()
        return answer

    return handle


def _reply(function: Function, dispatcher: Dispatcher, event: Event, context: Any) -> Reply:
    request = request_of(event, context)
    try:
        if not function.needs_app:
            configure_log()
        return dispatcher.dispatch(_add_body(request, event))
    except Exception as error:  # noqa: BLE001 - a broker may read the gateway's own 500 as permission
        return dispatcher.refuse(request, error)


def _app() -> "App":
    from functions.hosts import process

    return process.app()


def _authorize(event: Event, context: Any) -> dict[str, Any]:
    """Return the answer to AWS IoT, which invokes verifyClient without a gateway.

    The permission to invoke the function authenticates the caller.
    """
    from functions.dialects.aws_iot import authorize

    return authorize(_app, event, getattr(context, "invoked_function_arn", ""))


def request_of(event: Event, context: Any) -> Request:
    """Return the request in a gateway's event, without its body.

    An HTTP API is reached over TLS only. X-Request-Id becomes the platform's id of the invocation.
    """
    gateway = event["requestContext"]
    request_id = getattr(context, "aws_request_id", "") or gateway.get("requestId", "")
    headers = {**event.get("headers", {}), "x-request-id": request_id}
    if event.get("cookies"):
        headers["cookie"] = "; ".join(event["cookies"])
    query = event.get("rawQueryString", "")
    prefix = _stage_of(event)
    path = _path(event, prefix)
    return build_request(gateway["http"]["method"], path, query, headers, scheme="https", prefix=prefix)


def _stage_of(event: Event) -> str:
    """Return the name of the stage as the path begins with it, "/prod"; "" for the stage $default.

    A custom domain may map its paths to a stage: then `rawPath` has no stage."""
    stage = f"/{event['requestContext'].get('stage', '$default')}"
    path: str = event["rawPath"]
    return stage if stage != "/$default" and (path == stage or path.startswith(f"{stage}/")) else ""


def _path(event: Event, prefix: str) -> str:
    """Return the path, percent-encoded and without *prefix*.

    An HTTP API gives `rawPath` decoded, a function URL as it was sent. A decoded path is encoded again, so that a `%`
    in a name is not decoded twice. A slash that was sent encoded now splits a segment, and finds no route.
    """
    gateway = event["requestContext"]
    path: str = event["rawPath"].removeprefix(prefix) or "/"
    if ".lambda-url." in gateway.get("domainName", ""):
        return path
    return quote(path, safe="/:@!$&'()*+,;=~")


def _add_body(request: Request, event: Event) -> Request:
    """Return *request* with its body. A body that is refused is refused after the caller is known."""
    try:
        return replace(request, body=_body(event))
    except TrustError as error:
        return replace(request, refusal=request.refusal or error)


def _body(event: Event) -> bytes:
    """Return the decoded body. Raises: TooLarge (by the encoded length, before decoding), MalformedBody."""
    text: str = event.get("body") or ""
    if len(text) > BODY_MAX * 4 // 3 + 4:
        raise body_too_large()
    if not event.get("isBase64Encoded"):
        return text.encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise MalformedBody(format="base64", found="the gateway's encoding cannot be read") from None


_TEXT: Final = ("text/", "application/json", "application/problem+json", "application/x-pem-file")


def encode_reply(reply: Reply) -> dict[str, Any]:
    """Return *reply* as the gateway takes it: text as it is, anything else in base64."""
    is_binary = not reply.content_type.startswith(_TEXT)
    body = base64.b64encode(reply.body).decode() if is_binary else reply.body.decode()
    return {"statusCode": reply.status, "headers": reply_headers(reply), "body": body, "isBase64Encoded": is_binary}


def _console(event: Event, context: Any) -> dict[str, Any]:
    """Answer with a file of the console. The body of the request is not read."""
    from functions.hosts import process

    answer = encode_reply(process.console().reply(request_of(event, context)))
    collector.resume()
    return answer


# ---------------------------------------------------------------------------------------------------------- events


@cache
def _objects() -> "ObjectReader":
    from shared.composition import s3_objects

    return s3_objects()


def on_upload(event: Any, context: Any) -> None:
    """Import the objects of an S3 notification, direct or carried by SQS, SNS or EventBridge."""
    from functions.events.uploads import import_all, parse_s3, upload_bucket
    from functions.hosts import process

    with log.request(_request_id(context)):
        app = process.app()
        import_all(app, _objects(), parse_s3(event), bucket=upload_bucket(app.settings))


def record_sightings(event: Any, context: Any) -> None:
    """Record the connection events in the messages of the queue."""
    from functions.events.sightings import RECORDER, parse_sqs
    from functions.hosts import process

    with log.request(_request_id(context)):
        RECORDER.record(process.app().context, parse_sqs(event))


def expiry_report(event: Any, context: Any) -> None:
    """Report what expires, on the daily schedule. Lambda repeats a call that raised; the report goes on from there."""
    from functions.events.expiry import report_expiry
    from functions.hosts import process

    with log.request(_request_id(context)):
        report_expiry(process.app(), seconds_left=lambda: context.get_remaining_time_in_millis() / 1000)


def _request_id(context: Any) -> str | None:
    return getattr(context, "aws_request_id", None)
