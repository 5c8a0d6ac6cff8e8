"""From a request to its reply: route, caller, handler, and any error as a problem document or in a broker's dialect.

A verdict is given within `App.verdict_seconds` on every host: this module applies the limit.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec.structs import replace

from functions.registry import EDGE_FEED, VERIFY_CLIENT, api_router, dialect_at, dialect_module, dialect_router
from functions.web.body import body_too_large
from functions.web.contract import Dialect
from functions.web.deadline import EDGES, EMBEDDED, MANAGEMENT, NETWORK, Busy, Late, Workers
from functions.web.loop_rest import LoopRest
from functions.web.message import Reply, Request
from functions.web.problem import problem
from shared import log
from shared.errors import NotFound, Overloaded, StoreUnavailable, TrustError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from shared.composition import App

_Answer = tuple[Reply, str]  # the reply, and the function that it came from
_Refuse = Callable[[Request, Exception], Reply]
_AT_ONCE: Final = 1.0  # seconds to wait for an answer that exists already


class Dispatcher:
    """Answers the requests of a process. No method raises.

    Args:
        get_app: returns the process's App; called for endpoints that need one. Raises: WrongSetting, StoreUnavailable.
        function: the function that is deployed alone; None answers the addresses of all functions.
    """

    def __init__(self, get_app: "Callable[[], App]", function: str | None = None) -> None:
        self._get_app = get_app
        self._function = function
        self._loop_rest = LoopRest()

    def dispatch(self, request: Request) -> Reply:
        """Return the reply to *request*."""
        with log.request(log.get_request_id(request.headers)):
            started = time.monotonic()
            module = self._dialect_module(request)
            if module is None:
                return _finish(request, self._answer(request, None, problem), started)
            verdict = self._start_verdict(request, module)
            try:
                answer = verdict.future.result(verdict.seconds)
            except (TimeoutError, Busy):
                verdict.future.cancel()
                answer = verdict.refuse(request, Late()), VERIFY_CLIENT
            return _finish(request, answer, started)

    async def dispatch_async(self, request: Request, pool: "ThreadPoolExecutor") -> Reply:
        """Return the reply to *request* without blocking the event loop.

        Args:
            pool: runs what needs no caller. All else has pools of its own (functions/web/deadline.py).
        """
        import asyncio  # not at the top: AWS Lambda has no event loop, and a cold start should not load one

        with log.request(log.get_request_id(request.headers)):
            started = time.monotonic()
            module = self._dialect_module(request)
            if module is None:
                work = partial(copy_context().run, self._answer, request, None, problem)
                workers, owner = self._workers_for(request)
                if workers is None:
                    return _finish(request, await asyncio.get_running_loop().run_in_executor(pool, work), started)
                try:
                    answer = await asyncio.wrap_future(workers.submit(work, owner=owner))
                except Busy:
                    answer = problem(request, Overloaded()), "-"
                return _finish(request, answer, started)
            verdict = self._start_verdict(request, module)
            if verdict.workers is EMBEDDED:
                self._loop_rest.rest_for(verdict.future, asyncio.get_running_loop())
            try:
                answer = await asyncio.wait_for(asyncio.wrap_future(verdict.future), verdict.seconds)
            except (TimeoutError, Busy):
                answer = verdict.refuse(request, Late()), VERIFY_CLIENT
            return _finish(request, answer, started)

    def refuse(self, request: Request, error: Exception) -> Reply:
        """Return the reply to an *error* that occurred before `dispatch`."""
        with log.request(log.get_request_id(request.headers)):
            module = self._dialect_module(request)
            return problem(request, error) if module is None else dialect_at(module).refuse(request, error)

    def _dialect_module(self, request: Request) -> str | None:
        """Return the module of the dialect that answers *request*. The package of another function has no dialects."""
        return dialect_module(request.path) if self._function in (None, VERIFY_CLIENT) else None

    def _workers_for(self, request: Request) -> tuple[Workers | None, str]:
        """Return the pool of a call that is no verdict, and the owner of the work. What needs no caller has no pool."""
        try:
            endpoint, _ = api_router(self._function).find(request.method, request.path)
        except TrustError:
            return None, ""
        if not endpoint.roles:
            return None, ""
        return EDGES if endpoint.function == EDGE_FEED else MANAGEMENT, endpoint.owner(request, self._get_app)

    def _answer(self, request: Request, module: str | None, refuse: _Refuse) -> _Answer:
        function = "-"
        try:
            router = api_router(self._function) if module is None else dialect_router(module)
            endpoint, params = router.find(request.method, request.path)
            if self._function not in (None, endpoint.function):
                raise NotFound(what="such address")
            function = endpoint.function
            if request.too_large:
                raise body_too_large()
            if params:
                request = replace(request, params=params)
            return endpoint.handler(endpoint.prepare(request, self._get_app, endpoint.roles)), function
        except Exception as error:  # noqa: BLE001 - the one place where errors become replies
            return refuse(request, error), function

    def _start_verdict(self, request: Request, module: str) -> "_Verdict":
        """Start a verdict in a pool."""
        dialect = dialect_at(module)
        try:
            app = self._get_app()
        except Exception as error:  # noqa: BLE001 - a broker may read another server's 500 as permission
            return _answer_at_once(dialect.refuse(request, error), dialect.refuse)
        refuse = partial(_refuse, app, dialect)
        seconds = request.arrived + app.verdict_seconds - time.monotonic()
        # A sign-in token may wait for the network, on every store: the keys of its issuer are fetched.
        workers = EMBEDDED if app.is_embedded and request.bearer_token is None else NETWORK
        try:
            if seconds <= 0:
                raise Late
            work = partial(copy_context().run, self._answer, request, module, refuse)
            future = workers.submit(work, owner=dialect.owner(request))
        except (Late, Busy):
            return _answer_at_once(refuse(request, Late()), refuse)
        return _Verdict(future, seconds, refuse, workers)


class _Verdict(NamedTuple):
    """A verdict that was started.

    Args:
        seconds: how long to wait for it.
        refuse: returns the reply to an error.
        workers: the pool that computes the verdict; None for an answer that exists already.
    """

    future: "Future[_Answer]"
    seconds: float
    refuse: _Refuse
    workers: Workers | None


def _answer_at_once(reply: Reply, refuse: _Refuse) -> _Verdict:
    """Return a verdict whose answer is *reply* already."""
    future: Future[_Answer] = Future()
    future.set_result((reply, VERIFY_CLIENT))
    return _Verdict(future, _AT_ONCE, refuse, None)


def _refuse(app: "App", dialect: Dialect, request: Request, error: Exception) -> Reply:
    """Return *error* in the broker's format, and count a failure of this service as a decision of no organization."""
    reply = dialect.refuse(request, error)
    if not isinstance(error, TrustError) or isinstance(error, StoreUnavailable):
        app.decisions(None, StoreUnavailable.code, "deny")
    return reply


def _finish(request: Request, answer: _Answer, started: float) -> Reply:
    """Write the access log and return the reply; without its body, for HEAD."""
    reply, function = answer
    if request.method == "HEAD":
        length = {"content-length": str(len(reply.body))}  # the length of GET's body (RFC 9110, 8.6)
        reply = Reply(reply.status, b"", reply.content_type, {**reply.headers, **length})
    log.access(function=function, method=request.method, status=reply.status, seconds=time.monotonic() - started)
    return reply
