"""From a request to its reply: route, caller, handler, and any error as a problem document or in a broker's dialect.

A verdict is given within `App.verdict_seconds` on every host: this module applies the limit.
"""

import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from msgspec.structs import replace

from functions.registry import EDGE_FEED, VERIFY_CLIENT, api_router, dialect_at, dialect_module, dialect_router
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

T = TypeVar("T")
ReadBody = Callable[[], Awaitable[bytes]]
"""Receives the body of a request. Raises: TrustError, if the body is refused; any other error ends the request."""

_Run = Callable[[Callable[[], Any]], Awaitable[Any]]  # runs work in a pool
_Answer = tuple[Reply, str]  # the reply, and the function that it came from
_Refuse = Callable[[Request, Exception], Reply]
_RECALLED_BYTES: Final = 16 * 1024  # of a request that the event loop reads; a certificate with its chain takes 4 KiB
_SLOW: Final = 0.1  # seconds of a recall, after which the disk may be slow
_PAUSE: Final = 10.0  # seconds without recalls on the event loop after a slow recall
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
        self._recalls_from = 0.0  # time.monotonic()

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

    async def dispatch_async(
        self, request: Request, pool: "ThreadPoolExecutor", read_body: ReadBody | None = None
    ) -> Reply:
        """Return the reply to *request* without blocking the event loop.

        Args:
            pool: runs what needs no caller. All else has pools of its own (functions/web/deadline.py).
            read_body: receives the body, which is not read before the caller is admitted, except for a verdict. None:
                the request has no body.

        Raises: what *read_body* raises, except TrustError.
        """
        import asyncio  # not at the top: AWS Lambda has no event loop, and a cold start should not load one

        log.LINES.wait_for_turns_of(asyncio.get_running_loop())
        with log.request(log.get_request_id(request.headers)):
            started = time.monotonic()
            module = self._dialect_module(request)
            if module is None:
                workers, owner = self._workers_for(request)
                run = partial(_run_in, pool.submit if workers is None else partial(workers.submit, owner=owner))
                try:
                    answer = await self._answer_async(request, read_body, run)
                except Busy:
                    answer = problem(request, Overloaded()), "-"
                return _finish(request, answer, started)
            if read_body is not None:
                request = await _complete(request, read_body)
            recalled = self._recall(request, module)
            if recalled is not None:
                return _finish(request, recalled, started)
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

    async def _answer_async(self, request: Request, read_body: ReadBody | None, run: _Run) -> _Answer:
        """Return the answer to a request that is no verdict; its body is read once the caller is admitted."""
        answer: _Answer
        if read_body is None:
            answer = await run(partial(self._answer, request, None, problem))
            return answer
        admitted: _Admitted | _Answer = await run(partial(self._admit, request, None, problem))
        if not isinstance(admitted, _Admitted):
            return admitted
        complete = await _complete(admitted.request, read_body)
        answer = await run(partial(admitted.answer, complete, problem))
        return answer

    def _answer(self, request: Request, module: str | None, refuse: _Refuse) -> _Answer:
        admitted = self._admit(request, module, refuse)
        return admitted.answer(admitted.request, refuse) if isinstance(admitted, _Admitted) else admitted

    def _admit(self, request: Request, module: str | None, refuse: _Refuse) -> "_Admitted | _Answer":
        """Find the endpoint and admit the caller, without the body. Return the answer if either is refused."""
        function = "-"
        try:
            router = api_router(self._function) if module is None else dialect_router(module)
            endpoint, params = router.find(request.method, request.path)
            if self._function not in (None, endpoint.function):
                raise NotFound(what="such address")
            function = endpoint.function
            if params:
                request = replace(request, params=params)
            prepared = endpoint.prepare(request, self._get_app, endpoint.roles)
            return _Admitted(request, function, lambda complete: endpoint.handler(prepared(complete)))
        except Exception as error:  # noqa: BLE001 - the one place where a refusal becomes a reply
            return refuse(request, error), function

    def _recall(self, request: Request, module: str) -> _Answer | None:
        """Return the answer that the memory for verdicts gives, without a thread; None where a thread must find out.

        The event loop calls this method. Only small requests are read here, and only a store that waits for no lock.
        A disk can be slow all the same. After a slow recall the threads answer for a while, so that no more than one
        request makes the others wait.
        """
        size = len(request.body) + sum(map(len, request.headers.values()))
        if request.refusal is not None or size > _RECALLED_BYTES or request.bearer_token is not None:
            return None
        began = time.monotonic()
        if began < self._recalls_from:
            return None
        try:
            app = self._get_app().recalling
            if app is None or began >= request.arrived + app.verdict_seconds:
                return None
            endpoint, params = dialect_router(module).find(request.method, request.path)
            if params:
                request = replace(request, params=params)
            return endpoint.handler(endpoint.prepare(request, lambda: app, endpoint.roles)(request)), VERIFY_CLIENT
        except Exception:  # noqa: BLE001 - nothing is remembered, the store is busy, or an error that the thread reports
            return None
        finally:
            if time.monotonic() - began > _SLOW:
                self._recalls_from = time.monotonic() + _PAUSE

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


class _Admitted(NamedTuple):
    """A request whose caller may make it.

    Args:
        request: with the parameters in its path.
        handle: returns the reply to the complete request.
    """

    request: Request
    function: str
    handle: Callable[[Request], Reply]

    def answer(self, complete: Request, refuse: _Refuse) -> _Answer:
        """Return the answer to the *complete* request."""
        try:
            if complete.refusal is not None:
                raise complete.refusal
            return self.handle(complete), self.function
        except Exception as error:  # noqa: BLE001 - the one place where a handler's errors become replies
            return refuse(complete, error), self.function


async def _complete(request: Request, read_body: ReadBody) -> Request:
    """Return *request* with its body, or with the refusal of its body."""
    try:
        body = await read_body()
    except TrustError as error:
        return replace(request, refusal=request.refusal or error, arrived=time.monotonic())
    return replace(request, body=body, arrived=time.monotonic())


async def _run_in(submit: "Callable[[Callable[[], Any]], Future[Any]]", work: Callable[[], T]) -> T:
    """Run *work* in a pool, in the present context: the log knows the request's id by it. Raises: Busy."""
    import asyncio

    result: T = await asyncio.wrap_future(submit(partial(copy_context().run, work)))
    return result


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
