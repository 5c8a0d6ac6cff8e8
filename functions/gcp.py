"""The functions as functions-framework targets: Cloud Run functions, Cloud Run and Knative.

One target a function, named like it (`FUNCTION_TARGET=verifyClient`), and `service`, which answers every route in one
process. `main.py` at the top is where functions-framework looks for them.
"""

import types
from dataclasses import replace
from typing import Final, cast
from urllib.parse import quote

import flask

from functions import hosted_console, process, wire
from functions.dispatch import dispatch, refuse
from functions.http import BODY_MAX, Reply
from functions.routes import CONSOLE, ROUTES

SERVICE: Final = "service"
TARGETS: Final = (*dict.fromkeys(route.function for route in ROUTES), CONSOLE, SERVICE)


def target(name: str) -> types.FunctionType:
    """What functions-framework calls for the target *name*, one of TARGETS."""
    function = None if name == SERVICE else name

    def handle(sent: flask.Request) -> flask.Response:
        return _response(_reply(sent, function))

    handle.__name__ = name
    return cast("types.FunctionType", handle)


def _reply(sent: flask.Request, function: str | None) -> Reply:
    """Never raises: functions-framework would tell the caller the error's text."""
    request = wire.request(sent.method, _path(sent, function), sent.query_string.decode("latin-1"), dict(sent.headers))
    try:
        if function in (None, CONSOLE):
            console = hosted_console.console()
            if function == CONSOLE or console.answers(request.path):
                return console.reply(request)
        app = process.app()
        body = _body(sent)
        # Who connects is the platform's own proxy: its address says nothing about who asks.
        scheme = "https" if app.settings.behind_tls else sent.scheme
        whole = replace(request, body=body or b"", too_large=body is None, scheme=scheme)
        return dispatch(app.tools, whole, function=function)
    except Exception as error:  # noqa: BLE001 - a broker may take the framework's own 500 for leave to go on
        return refuse(request, error, function=function)


def _path(sent: flask.Request, function: str | None) -> str:
    """The path as it was sent. Flask's own is decoded, which would let an encoded slash split a segment.

    At a function's own address (…cloudfunctions.net/uploadCA) the platform takes the name away; it is put back.
    """
    raw = sent.environ.get("RAW_URI") or sent.environ.get("REQUEST_URI") or quote(sent.path)
    path = str(raw).partition("?")[0]
    if "://" in path:  # RFC 9112, 3.2.2: absolute form
        path = "/" + path.partition("://")[2].partition("/")[2]
    return f"/{function}" if function and path in ("", "/") else path


def _body(sent: flask.Request) -> bytes | None:
    """The body; None where it is larger than any call may be. Not read into memory then."""
    if (sent.content_length or 0) > BODY_MAX:
        return None
    body = sent.stream.read(BODY_MAX + 1)
    return body if len(body) <= BODY_MAX else None


def _response(reply: Reply) -> flask.Response:
    response = flask.Response(reply.body, reply.status)
    del response.headers["Content-Type"]  # flask's default; an answer without content has none
    response.headers.update(wire.headers(reply))
    return response
