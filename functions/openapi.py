"""GET /openapi.json: the API's description (OpenAPI 3.1), made from the routes and the types of the bodies."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import msgspec

from functions.routes import ANYBODY, ROUTES, Route
from functions.web.contract import CONTRACTS, PEM_TEXT, Answer, Call, Contract, endpoint
from functions.web.http import JSON, PEM, PROBLEM, Problem, Reply, status_of
from shared import errors
from shared.records import Role
from shared.version import VERSION

_REF: Final = "#/components/schemas/{name}"
_ALWAYS: Final = (errors.StoreUnavailable, errors.IssuerUnavailable)
_ADMITTED: Final = (errors.NotAuthenticated, errors.Forbidden, errors.OrgSuspended)
_WITH_BODY: Final = (errors.BadRequest, errors.TooLarge, errors.UnsupportedMediaType)


class Description(msgspec.Struct):
    """An OpenAPI 3.1 document."""


@endpoint("This description", {200: Description})
def openapi(call: Call) -> Reply:
    return Reply(200, _encoded(), JSON)


@lru_cache(maxsize=1)
def _encoded() -> bytes:
    return msgspec.json.encode(document())


def document() -> dict[str, Any]:
    """The whole description as a JSON object."""
    contracts = {route: CONTRACTS[route.load] for route in ROUTES}
    types = {one for contract in contracts.values() for one in _types(contract)}
    ordered = sorted(types, key=lambda one: one.__name__)
    _, schemas = msgspec.json.schema_components([*ordered, Problem], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route, contract in contracts.items():
        paths.setdefault(route.full_path.replace("{*", "{"), {})[route.method.lower()] = _operation(route, contract)
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


def _types(contract: Contract) -> Iterator[type[msgspec.Struct]]:
    if contract.body is not None:
        yield contract.body
    for answer in contract.answers.values():
        for one in answer if isinstance(answer, tuple) else (answer,):
            if isinstance(one, type):
                yield one


def _codes() -> dict[str, Any]:
    """Every code a problem document or a verdict can have."""
    codes = sorted(
        {kind.code for kind in errors.every_error()} | {"allowed", "token_required", "internal", "key_not_opened"}
    )
    return {"type": "string", "enum": codes, "description": "Stable; new ones may come."}


def _operation(route: Route, contract: Contract) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(route, contract),
        "tags": [route.function],
        "summary": contract.summary,
        "parameters": list(_parameters(route, contract)),
        "responses": _responses(route, contract),
        "security": _security(route),
    }
    if route.roles:
        operation["description"] = f"Role: {' or '.join(sorted(role.value for role in route.roles))}."
    if contract.body is not None:
        schema = {"$ref": _REF.format(name=contract.body.__name__)}
        operation["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": schema}, "multipart/form-data": {"schema": schema}},
        }
    return operation


def _security(route: Route) -> list[dict[str, list[str]]]:
    if route.roles == ANYBODY:
        return []
    people = route.roles & {Role.VIEWER, Role.OPERATOR}
    return [{"apiKey": []}, {"signIn": []}] if people else [{"apiKey": []}]


def _operation_id(route: Route, contract: Contract) -> str:
    module, _, handler = route.handler.partition(":")
    if contract.dialect:
        rest = "_below" if "{" in route.path else ""
        return f"{module.removeprefix('dialects.')}_{handler}_{route.method.lower()}{rest}"
    return f"{handler}_alias" if route.alias else handler


def _parameters(route: Route, contract: Contract) -> Iterator[dict[str, Any]]:
    for name in route.pattern.groupindex:
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    for name, meaning in contract.query.items():
        yield {"name": name, "in": "query", "description": meaning, "schema": _QUERY.get(name, {"type": "string"})}
    if contract.if_match != "no":
        yield {
            "name": "If-Match",
            "in": "header",
            # A missing one is answered with 428 by the function itself, so it is not required of a client's generator.
            "required": False,
            "description": "The version that was read, in quotes; or *"
            + (" (428 without it)" if contract.if_match == "required" else ""),
            "schema": {"type": "string"},
        }


_QUERY: Final[dict[str, Any]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 200, "default": 100},
    "bookmark": {"type": "string", "maxLength": 200},
    "dryrun": {"type": "boolean", "default": False},
}


def _responses(route: Route, contract: Contract) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, answer in sorted(contract.answers.items()):
        found[str(status)] = _answer(status, answer)
    problems: dict[int, set[str]] = {}
    for kind in _refusals(route, contract):
        for code in _codes_of(kind):
            problems.setdefault(status_of(kind), set()).add(code)
    for status, codes in sorted(problems.items()):
        schema = {"$ref": _REF.format(name="Problem")}
        found[str(status)] = {
            "description": ", ".join(sorted(codes)),
            "content": {PROBLEM: {"schema": schema}},
        }
    return found


def _answer(status: int, answer: Answer) -> dict[str, Any]:
    if answer is None:
        return {"description": "Done"}
    if answer == PEM_TEXT:
        return {"description": "PEM", "content": {PEM: {"schema": {"type": "string"}}}}
    assert not isinstance(answer, str)  # noqa: S101 - PEM_TEXT is the only one
    schemas = [_schema(one) for one in (answer if isinstance(answer, tuple) else (answer,))]
    schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
    return {"description": "Created" if status == 201 else "Done", "content": {JSON: {"schema": schema}}}


def _schema(answer: type[msgspec.Struct]) -> dict[str, Any]:
    return {"type": "object"} if answer is Description else {"$ref": _REF.format(name=answer.__name__)}


def _refusals(route: Route, contract: Contract) -> Iterator[type[errors.TrustError]]:
    if contract.dialect:
        return
    if route.roles != ANYBODY:
        yield from _ALWAYS
        yield from _ADMITTED
    if contract.body is not None:
        yield from _WITH_BODY
    if contract.query or contract.if_match != "no":
        yield errors.BadRequest
    if contract.if_match == "required":
        yield errors.PreconditionRequired
    if contract.if_match != "no" or contract.body is not None:
        yield errors.TooBusy
        yield errors.DocumentTooLarge
    yield from contract.refusals


def _codes_of(kind: type[errors.TrustError]) -> Iterator[str]:
    if "code" in vars(kind):
        yield kind.code
    for child in kind.__subclasses__():
        yield from _codes_of(child)
