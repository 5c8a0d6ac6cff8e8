"""The functions as AWS Lambda handlers behind an API Gateway HTTP API (payload format 2.0) or a function URL.

One handler a function: `functions/aws.verify_client`. A handler answers its own function's routes and loads only its
own function's module; the App is built at the first call. Nothing here imports boto3: adapters do, where chosen.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from msgspec.structs import replace

from functions.dispatch import dispatch, refuse
from functions.hosts import process, wire
from functions.web import http
from functions.web.http import BODY_MAX, Reply, Request
from shared import errors

Event = Mapping[str, Any]
Handler = Callable[[Event, Any], dict[str, Any]]


def _handler(function: str) -> Handler:
    def handle(event: Event, context: Any) -> dict[str, Any]:
        if function == "verifyClient" and "requestContext" not in event:
            return _authorized(event, context)  # no gateway: AWS IoT invokes the function itself
        return answer(_reply(event, context, function))

    return handle


def _reply(event: Event, context: Any, function: str) -> Reply:
    request = request_of(event, context)
    try:
        whole = replace(request, body=_body(event))
        return dispatch(process.app(), whole, function=function)
    except Exception as error:  # noqa: BLE001 - a broker may take the gateway's own 500 for leave to go on
        return refuse(request, error, function=function)


def _authorized(event: Event, context: Any) -> dict[str, Any]:
    """The answer to AWS IoT's event. Whoever may invoke the function may ask: the permission is the caller's proof."""
    from functions.dialects.aws_iot import authorize

    return authorize(lambda: process.app().verifier, event, getattr(context, "invoked_function_arn", ""))


def request_of(event: Event, context: Any) -> Request:
    """All but the body. An HTTP API is reached over TLS only. The platform's id of the call stands in X-Request-Id,
    whatever the client sent there."""
    asked = event["requestContext"]
    request_id = getattr(context, "aws_request_id", "") or asked.get("requestId", "")
    headers = {**event.get("headers", {}), "x-request-id": request_id}
    if event.get("cookies"):
        headers["cookie"] = "; ".join(event["cookies"])
    return wire.request(asked["http"]["method"], _path(event), event.get("rawQueryString", ""), headers, scheme="https")


def _path(event: Event) -> str:
    """The path, percent-encoded and without the stage's name.

    An HTTP API gives `rawPath` decoded, a function URL as it was sent. What was decoded is encoded again, so that a `%`
    in a name is not decoded twice; a slash that was sent encoded has become one that splits, and finds no route.
    """
    asked = event["requestContext"]
    path: str = event["rawPath"]
    stage = asked.get("stage", "$default")
    if stage != "$default":
        path = path.removeprefix(f"/{stage}") or "/"
    if ".lambda-url." in asked.get("domainName", ""):
        return path
    return quote(path, safe="/:@!$&'()*+,;=~")


def _body(event: Event) -> bytes:
    """Raises: TooLarge (told from the encoded length, before anything is decoded), MalformedBody."""
    text: str = event.get("body") or ""
    if len(text) > BODY_MAX * 4 // 3 + 4:
        raise http.body_too_large()
    if not event.get("isBase64Encoded"):
        return text.encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise errors.MalformedBody(format="base64", found="the gateway's encoding cannot be read") from None


_TEXT: Final = ("text/", "application/json", "application/problem+json", "application/x-pem-file")


def answer(reply: Reply) -> dict[str, Any]:
    """The gateway takes text as it is, and anything else in base64."""
    binary = not reply.content_type.startswith(_TEXT)
    body = base64.b64encode(reply.body).decode() if binary else reply.body.decode()
    return {"statusCode": reply.status, "headers": wire.headers(reply), "body": body, "isBase64Encoded": binary}


upload_ca: Final = _handler("uploadCA")
upload_server_cert: Final = _handler("uploadServerCert")
activate_server_cert: Final = _handler("activateServerCert")
generate_csr: Final = _handler("generateCSR")
fulfill_csr: Final = _handler("fulfillCSR")
verify_client: Final = _handler("verifyClient")
manage_certificates: Final = _handler("manageCertificates")
connection_policy: Final = _handler("connectionPolicy")
activity_log: Final = _handler("activityLog")
edge_feed: Final = _handler("edgeFeed")
health: Final = _handler("health")
