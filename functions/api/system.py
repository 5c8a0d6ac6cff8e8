"""Whether this process answers, and the description of the API. Neither needs a store, a key or a caller."""

import importlib.resources
from collections.abc import Iterator
from functools import cache
from typing import Final, NoReturn

import msgspec

from functions.registry import PREFIX
from functions.web.contract import Endpoint, Route, View, endpoint, fallback
from functions.web.message import JSON, Reply, Request, json_reply
from functions.web.router import Router
from shared.errors import NotFound

FUNCTION: Final = "health"


class HealthView(View, frozen=True, kw_only=True):
    status: str


@endpoint("GET", "/healthz", function=FUNCTION, summary="Whether the service answers", answers={200: HealthView})
def health(request: Request) -> Reply:
    return json_reply(HealthView(status="ok"))


class Description(msgspec.Struct):
    """An OpenAPI 3.1 document."""


@endpoint("GET", "/openapi.json", function=FUNCTION, summary="This description", answers={200: Description})
def openapi(request: Request) -> Reply:
    return Reply(200, _description(), JSON)


@cache
def _description() -> bytes:
    """Return openapi.json, which `python -m infra.generate` writes beside this module, without its indentation."""
    text = importlib.resources.files(__package__).joinpath("openapi.json").read_bytes()
    return msgspec.json.format(text, indent=-1)


@fallback
def refuse_address(method: str, path: str) -> NoReturn:
    """Refuse an address of no function, or a method that the address does not take.

    API gateways and load balancers send every request here that no route of another function matches.

    Raises: NotFound, MethodNotAllowed.
    """
    _described_router().find(method, path)
    raise NotFound(what="such address")  # another function answers there


class _Operation(msgspec.Struct):
    tags: tuple[str, ...]  # the name of the function


class _Description(msgspec.Struct):
    paths: dict[str, dict[str, _Operation]]


@cache
def _described_router() -> Router:
    """Return a router with the addresses of every function, from the description."""
    return Router(_described_routes())


def _described_routes() -> Iterator[Route]:
    for path, operations in msgspec.json.decode(_description(), type=_Description).paths.items():
        template = path.replace("{rest}", "{*rest}")
        for method, operation in operations.items():
            function = operation.tags[0]
            described = Endpoint(function=function, handler=_answer_elsewhere, summary="", answers={})
            yield Route(method.upper(), template, described, None)
            own_name = template.removeprefix(PREFIX)
            if f"{own_name}/".startswith(f"/{function}/"):  # also reachable without the prefix
                yield Route(method.upper(), own_name, described, None)


def _answer_elsewhere(request: Request) -> Reply:
    """Take the place of a handler in `_described_router`, which only finds addresses. Never called."""
    raise NotFound(what="such address")
