"""From a request to its reply: route, caller, handler, and any error as a problem document."""

import time
from dataclasses import replace

from functions import http, routes
from functions.endpoint import Call
from functions.http import Reply, Request
from shared import errors
from shared.log import access
from shared.usecases.callers import admit
from shared.usecases.tools import Tools


def dispatch(tools: Tools, request: Request, *, function: str | None = None) -> Reply:
    """Answer *request*. Never raises.

    Args:
        function: answer only for this function's routes (one deployed by itself); None: for all of them."""
    began = time.monotonic()
    name = "-"
    try:
        route, params = routes.find(request.method, request.path)
        name = route.function
        if function is not None and name != function:
            raise errors.NotFound(what="such address")
        request = replace(request, params=params)
        if request.too_large:
            raise http.body_too_large()
        admitted = admit(tools, request.credentials, route.roles) if route.admits else None
        reply = route.load(Call(request, tools, admitted))
    except Exception as error:  # noqa: BLE001 - the one place where errors become answers
        reply = http.problem(request, error)
    if request.method == "HEAD":
        length = {"content-length": str(len(reply.body))}  # GET's, or none at all (RFC 9110, 8.6)
        reply = Reply(reply.status, b"", reply.content_type, {**reply.headers, **length})
    access(function=name, method=request.method, status=reply.status, seconds=time.monotonic() - began)
    return reply
