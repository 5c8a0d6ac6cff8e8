"""The declaration of an endpoint: route, roles, request body, replies, refusals and handler together.

A decorator registers an endpoint when its module is imported. The dispatcher, the OpenAPI document and the deployments
are all made from these declarations (functions/registry.py lists the modules).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec

from functions.web.message import Reply, Request
from shared.errors import TrustError


class View(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of what replies show: camelCase names."""


PEM_TEXT: Final = "PEM"
"""In `Endpoint.answers`: the reply is a PEM file."""
CSV_TEXT: Final = "CSV"
"""In `Endpoint.answers`: the reply is a table of comma-separated values (RFC 4180)."""
PUBLIC: Final[frozenset[str]] = frozenset()
"""The roles of an endpoint that needs no caller."""

Answer = type[msgspec.Struct] | tuple[type[msgspec.Struct], ...] | str | None
Admitted = Callable[[Request], Any]
"""Makes a handler's argument from the request, whose body may have arrived after its caller was admitted."""
Owner = Callable[[Request, Callable[[], Any]], str]
Prepare = Callable[[Request, Callable[[], Any], frozenset[str]], Admitted]
Handler = TypeVar("Handler", bound=Callable[[Any], Reply])


def _pass_request(request: Request, get_app: Callable[[], Any], roles: frozenset[str]) -> Admitted:
    return lambda complete: complete


def _no_owner(request: Request, get_app: Callable[[], Any]) -> str:
    return ""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A handler with what it takes and what it returns.

    Args:
        function: the name of the deployable function that the endpoint belongs to.
        prepare: admits the caller of a request, whose body may be missing still, with a getter of the process's App
            and *roles*; returns what makes the handler's argument.
        owner: names the organization that a request seems to come from, before anything is verified, so that
            organizations share the workers (functions/web/deadline.py); "" if unknown. Never raises.
        roles: who may call; empty: everyone.
        answers: status -> a msgspec Struct, a tuple of Structs of which the reply is one, PEM_TEXT, CSV_TEXT, or
            None for a reply without a described body.
        query: names of query parameters -> what they mean.
        if_match: "no", "optional" or "required".
        refusals: errors that the handler raises, besides those that every endpoint of its kind may raise.
        is_dialect: every reply, refusals too, is in a broker's own format (functions/dialects).
    """

    function: str
    handler: Callable[[Any], Reply]
    summary: str
    answers: Mapping[int, Answer]
    prepare: Prepare = _pass_request
    owner: Owner = _no_owner
    roles: frozenset[str] = PUBLIC
    body: type[msgspec.Struct] | None = None
    query: Mapping[str, str] = {}
    if_match: str = "no"
    refusals: Sequence[type[TrustError]] = ()
    is_dialect: bool = False


class Dialect(Protocol):
    """A format of its own for every reply at some addresses, refusals too."""

    def refuse(self, request: Request, error: Exception) -> Reply:
        """Return the reply to *error*. Never raises."""
        ...

    def owner(self, request: Request) -> str:
        """Return whose share of the workers the answer takes (`functions.web.deadline`). Never raises."""
        ...


class Route(msgspec.Struct, frozen=True, eq=False):
    """A method and a path of an endpoint.

    Args:
        path: a template. `{id}` is one segment, `{*rest}` is everything that follows.
        operation_id: the name in the OpenAPI document; None leaves the route out of it.
    """

    method: str
    path: str
    endpoint: Endpoint
    operation_id: str | None


_declared: Final[dict[str, list[Route]]] = {}  # module -> its routes, in the order of the declarations


def declare(endpoint: Endpoint, addresses: Iterable[tuple[str, str, str | None]]) -> None:
    """Register *endpoint* at each of *addresses*: method, path, operation id."""
    routes = _declared.setdefault(endpoint.handler.__module__, [])
    routes += (Route(method, path, endpoint, operation_id) for method, path, operation_id in addresses)


def endpoint(
    method: str, path: str, *, operation_id: str | None = None, **contract: Any
) -> Callable[[Handler], Handler]:
    """Declare a handler that takes the request alone. *contract*: the fields of `Endpoint`."""

    def register(handler: Handler) -> Handler:
        declare(Endpoint(handler=handler, **contract), [(method, path, operation_id or handler.__name__)])
        return handler

    return register


Refuse = Callable[[str, str], None]
"""Raises the refusal of a method and a path that no endpoint of the process has."""

_fallbacks: Final[dict[str, Refuse]] = {}  # module -> what it declares with `fallback`


def fallback(refuse: Refuse) -> Refuse:
    """Declare a function that refuses unknown addresses.

    It is used where the module's own function is deployed alone; a process with all functions knows every address.
    """
    _fallbacks[refuse.__module__] = refuse
    return refuse


def declared_routes(module: str) -> Sequence[Route]:
    """Return the routes that *module*, which has been imported, declares."""
    return _declared.get(module, ())


def declared_fallback(module: str) -> Refuse | None:
    """Return the fallback that *module*, which has been imported, declares."""
    return _fallbacks.get(module)
