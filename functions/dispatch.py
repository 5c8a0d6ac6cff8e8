"""From a request to its reply: route, caller, handler, and any error as a problem document or in a broker's dialect.

A verdict comes in time (functions/web/deadline.py), whichever way the request came in: this is the one place that
sees to it.
"""

import time
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING

from msgspec.structs import replace

from functions import dialects, routes
from functions.dialects.dialect import Dialect, Late
from functions.web import deadline, http
from functions.web.contract import Call
from functions.web.http import Reply, Request
from shared import errors, log
from shared.composition import App
from shared.usecases.callers import admit
from shared.validation.verdict import unavailable

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_Answered = tuple[Reply, str]  # the reply, and the function that gave it


def dispatch(app: App, request: Request, *, function: str | None = None) -> Reply:
    """Answer *request*. Never raises.

    Args:
        function: answer only for this function's routes (one deployed by itself); None: for all of them."""
    with log.request(log.get_request_id(request.headers)):
        return _dispatch(app, request, function)


def refuse(request: Request, error: Exception, *, function: str | None = None) -> Reply:
    """The answer where *request* did not come as far as `dispatch`: a broker's own words, or a problem document."""
    with log.request(log.get_request_id(request.headers)):
        dialect = _dialect(request, function)
        return http.problem(request, error) if dialect is None else dialect.refuse(request, error)


def _dispatch(app: App, request: Request, function: str | None) -> Reply:
    began = time.monotonic()
    dialect = _dialect(request, function)
    work = _work(app, request, function, dialect)
    if dialect is None:
        return _told(work(), request, began)
    try:
        left = _left(request)
        answered = deadline.WORKERS.submit(work, enough=_enough(app, request)).result(left)
    except (TimeoutError, deadline.Busy):
        answered = _refused(app, dialect, request, Late()), "verifyClient"
    return _told(answered, request, began)


async def dispatch_async(
    app: App, request: Request, pool: "ThreadPoolExecutor", *, function: str | None = None
) -> Reply:
    """The same from an event loop: work runs in *pool*, but for verdicts, which wait for nobody there."""
    import asyncio  # on AWS Lambda there is no loop, and a new process does not load one

    with log.request(log.get_request_id(request.headers)):
        began = time.monotonic()
        dialect = _dialect(request, function)
        work = _work(app, request, function, dialect)
        if dialect is None:
            return _told(await asyncio.get_running_loop().run_in_executor(pool, work), request, began)
        try:
            answered = await deadline.WORKERS.answer(work, _left(request), enough=_enough(app, request))
        except (TimeoutError, deadline.Busy):
            answered = _refused(app, dialect, request, Late()), "verifyClient"
        return _told(answered, request, began)


def _dialect(request: Request, function: str | None) -> Dialect | None:
    """Brokers ask verifyClient; another function, deployed by itself, has no dialect with it."""
    return dialects.spoken_at(request.path) if function in (None, "verifyClient") else None


def _work(app: App, request: Request, function: str | None, dialect: Dialect | None) -> Callable[[], _Answered]:
    """`_answered`, for another thread to call: what the log knows of the request goes with it."""
    variables = copy_context()
    return lambda: variables.run(_answered, app, request, function, dialect)


def _enough(app: App, request: Request) -> int | None:
    """How many threads do as much as many; None where a verdict may wait for a network: that of the store, or that of
    the OIDC issuer, whose keys are fetched to judge a sign-in token, anybody's."""
    waits = not app.is_embedded or request.headers.get("authorization", "")[:7].lower() == "bearer "
    return None if waits else deadline.FEW


def _left(request: Request) -> float:
    """Seconds that are left for a verdict. Raises: TimeoutError, where none are."""
    left = request.arrived + deadline.SECONDS - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _refused(app: App, dialect: Dialect, request: Request, error: Exception) -> Reply:
    """*error* in the broker's words. A failure of ours counts as a decision; whether the org is here is unknown."""
    reply = dialect.refuse(request, error)
    if not isinstance(error, errors.TrustError) or isinstance(error, errors.StoreUnavailable):
        failed = unavailable()
        app.decisions(None, failed.code, failed.decision.value)
    return reply


def _answered(app: App, request: Request, function: str | None, dialect: Dialect | None) -> _Answered:
    name = "-"
    try:
        route, params = routes.find(request.method, request.path)
        name = route.function
        if function is not None and name != function:
            raise errors.NotFound(what="such address")
        if request.too_large:
            raise http.body_too_large()
        if params:
            request = replace(request, params=params)
        admitted = admit(app.context, app.tokens, request.authorization, route.roles) if route.admits else None
        reply = route.load(Call(request, app, admitted))
    except Exception as error:  # noqa: BLE001 - the one place where errors become answers
        reply = http.problem(request, error) if dialect is None else _refused(app, dialect, request, error)
    return reply, name


def _told(answered: _Answered, request: Request, began: float) -> Reply:
    reply, name = answered
    if request.method == "HEAD":
        length = {"content-length": str(len(reply.body))}  # GET's, or none at all (RFC 9110, 8.6)
        reply = Reply(reply.status, b"", reply.content_type, {**reply.headers, **length})
    log.access(function=name, method=request.method, status=reply.status, seconds=time.monotonic() - began)
    return reply
