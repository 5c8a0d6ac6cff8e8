"""The API's description (OpenAPI 3.1), made from the declarations of the endpoints.

`python -m infra.generate` writes it to functions/api/openapi.json, which GET /openapi.json returns.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import msgspec

from functions.api.system import Description
from functions.call import OPERATORS
from functions.registry import FUNCTIONS, every_route
from functions.web.contract import CSV_TEXT, PEM_TEXT, PUBLIC, Answer, Endpoint, Route
from functions.web.errors import PreconditionRequired, UnsupportedMediaType
from functions.web.message import JSON, PEM
from functions.web.problem import PROBLEM, Problem, status_of
from functions.web.router import parameters_of
from functions.web.table_file import CSV
from infra.imports import reachable
from shared import errors
from shared.records import Role
from shared.version import VERSION

_REF: Final = "#/components/schemas/{name}"
_ALWAYS: Final = (errors.StoreUnavailable, errors.IssuerUnavailable)
_WITH_CALLER: Final = (errors.NotAuthenticated, errors.Forbidden, errors.OrgSuspended)
_WITH_BODY: Final = (errors.BadRequest, errors.TooLarge, UnsupportedMediaType)


def document() -> dict[str, Any]:
    """Return the whole description as a JSON object."""
    routes = [route for route in every_route() if route.operation_id is not None]
    types = {kind for route in routes for kind in _types(route.endpoint)}
    ordered = sorted(types, key=lambda kind: kind.__name__)
    _, schemas = msgspec.json.schema_components([*ordered, Problem], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path.replace("{*", "{"), {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "MQTT Trust",
            "version": VERSION,
            "description": "Certificates for MQTT messaging: whose devices are trusted, which certificate the server "
            "shows, and whether a client may connect.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Code": _codes()},
            "securitySchemes": {
                "apiKey": {"type": "http", "scheme": "basic", "description": "API key as user, its token as password"},
                "signIn": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A token of the configured OpenID Connect issuer; role viewer or operator",
                },
            },
        },
    }


def _types(endpoint: Endpoint) -> Iterator[type[msgspec.Struct]]:
    if endpoint.body is not None:
        yield endpoint.body
    for answer in endpoint.answers.values():
        yield from _structs(answer)


def _structs(answer: Answer) -> Iterator[type[msgspec.Struct]]:
    for kind in answer if isinstance(answer, tuple) else (answer,):
        if isinstance(kind, type):
            yield kind


def _codes() -> dict[str, Any]:
    """Return the schema of the codes of problem documents and verdicts."""
    codes = {kind.code for kind in errors.every_error() if _is_of_api(kind)}
    codes |= {"allowed", "token_required", "internal", "key_not_opened"}
    return {"type": "string", "enum": sorted(codes), "description": "Stable; new ones may come."}


def _operation(route: Route) -> dict[str, Any]:
    endpoint = route.endpoint
    operation: dict[str, Any] = {
        "operationId": route.operation_id,
        "tags": [endpoint.function],
        "summary": endpoint.summary,
        "parameters": list(_parameters(route)),
        "responses": _responses(endpoint),
        "security": _security(endpoint.roles),
    }
    if endpoint.roles:
        operation["description"] = f"Role: {' or '.join(sorted(endpoint.roles))}."
    if endpoint.body is not None:
        schema = _reference(endpoint.body)
        operation["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": schema}, "multipart/form-data": {"schema": schema}},
        }
    return operation


def _reference(kind: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}


def _security(roles: frozenset[str]) -> list[dict[str, list[str]]]:
    """Return how callers authenticate. People may sign in; brokers and edges have keys."""
    if roles == PUBLIC:
        return []
    return [{"apiKey": []}, {"signIn": []}] if roles & {Role.VIEWER, Role.OPERATOR} else [{"apiKey": []}]


def _parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name in parameters_of(route.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    for name, meaning in route.endpoint.query.items():
        yield {"name": name, "in": "query", "description": meaning, "schema": _QUERY.get(name, {"type": "string"})}
    if route.endpoint.if_match != "no":
        yield {
            "name": "If-Match",
            "in": "header",
            # The function itself answers 428 without the header, so generated clients need not require it.
            "required": False,
            "description": "The version that was read, in quotes; or *"
            + (" (428 without it)" if route.endpoint.if_match == "required" else ""),
            "schema": {"type": "string"},
        }


_QUERY: Final[dict[str, Any]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 200, "default": 100},
    "bookmark": {"type": "string", "maxLength": 200},
    "dryrun": {"type": "boolean", "default": False},
}


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    responses = {str(status): _answer(status, answer) for status, answer in sorted(endpoint.answers.items())}
    problems: dict[int, set[str]] = {}
    for kind in _refusals(endpoint):
        for code in _codes_of(kind):
            problems.setdefault(status_of(kind), set()).add(code)
    for status, codes in sorted(problems.items()):
        responses[str(status)] = {
            "description": ", ".join(sorted(codes)),
            "content": {PROBLEM: {"schema": _reference(Problem)}},
        }
    return responses


def _answer(status: int, answer: Answer) -> dict[str, Any]:
    if answer is None:
        return {"description": "Done"}
    if answer == PEM_TEXT:
        return {"description": "PEM", "content": {PEM: {"schema": {"type": "string"}}}}
    if answer == CSV_TEXT:
        return {"description": "CSV", "content": {CSV: {"schema": {"type": "string"}}}}
    schemas = [{"type": "object"} if kind is Description else _reference(kind) for kind in _structs(answer)]
    schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
    return {"description": "Created" if status == 201 else "Done", "content": {JSON: {"schema": schema}}}


def _refusals(endpoint: Endpoint) -> Iterator[type[errors.TrustError]]:
    if endpoint.is_dialect:
        return
    if endpoint.roles != PUBLIC:
        yield from _ALWAYS
        yield from _WITH_CALLER
    if endpoint.body is not None:
        yield from _WITH_BODY
    if endpoint.query or endpoint.if_match != "no" or endpoint.roles == OPERATORS:  # a change refuses `dryrun`
        yield errors.BadRequest
    if endpoint.if_match == "required":
        yield PreconditionRequired
    if endpoint.if_match != "no" or endpoint.body is not None:
        yield errors.TooBusy
        yield errors.DocumentTooLarge
    yield from endpoint.refusals


def _codes_of(kind: type[errors.TrustError]) -> Iterator[str]:
    if "code" in vars(kind) and _is_of_api(kind):
        yield kind.code
    for child in kind.__subclasses__():
        yield from _codes_of(child)


def _is_of_api(kind: type[errors.TrustError]) -> bool:
    """Whether a function can raise the error. This process may have loaded commands, which have errors of their own."""
    return kind.__module__ in _api_modules()


@cache
def _api_modules() -> frozenset[str]:
    return reachable(frozenset(module for function in FUNCTIONS for module in function.modules))
