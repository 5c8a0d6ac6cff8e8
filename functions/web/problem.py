"""Refusals as problem documents (RFC 9457)."""

import logging
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec

from functions.web.errors import BodyLate, MethodNotAllowed, PreconditionRequired, UnsupportedMediaType
from functions.web.message import NO_STORE, Reply, Request
from shared import errors
from shared.config import base_url
from shared.ports import SealBroken

log = logging.getLogger(__name__)

PROBLEM: Final = "application/problem+json"

_STATUS: Final[Mapping[type[errors.TrustError], int]] = {
    errors.BadRequest: 400,
    errors.NotAuthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    MethodNotAllowed: 405,
    BodyLate: 408,
    errors.Conflict: 409,
    errors.Stale: 412,
    errors.TooLarge: 413,
    UnsupportedMediaType: 415,
    errors.Rejected: 422,
    PreconditionRequired: 428,
    errors.RateLimited: 429,
    errors.StoreUnavailable: 503,
    errors.Overloaded: 503,
    errors.IssuerUnavailable: 503,
}


def page_of(code: str, prefix: str = "") -> str:
    """Return the address of the page about *code*: absolute where TRUST_URL is set, else the path behind *prefix*."""
    return f"{base_url() or prefix}/docs/errors/{code}"


def status_of(kind: type[errors.TrustError]) -> int:
    """Return the HTTP status of a refusal; 500 if its family is not in the table."""
    return next((_STATUS[family] for family in kind.__mro__ if family in _STATUS), 500)


class Violation(msgspec.Struct, frozen=True):
    """What is wrong with one field; *id* is the record to turn to instead, where there is one."""

    field: str
    code: str
    message: str
    id: str | msgspec.UnsetType = msgspec.UNSET


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An RFC 9457 problem document. *type* is the address of the page about *code*; *title* is the status's own."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    violations: tuple[Violation, ...] | msgspec.UnsetType = msgspec.UNSET


def problem(request: Request, error: Exception) -> Reply:
    """Return the reply to *error*.

    The text of an unexpected error is left out: the reply and the log share an id instead.
    """
    if not isinstance(error, errors.TrustError):
        return _unexpected(request, error)
    status = status_of(type(error))
    if isinstance(error, errors.StoreUnavailable):
        log.warning("the store does not answer", exc_info=error)
    other_id = str(error.facts["id"]) if isinstance(error, errors.UseFulfil) else msgspec.UNSET
    violations = (Violation(error.field, error.code, str(error), other_id),) if error.field else ()
    return _document(request, status, str(error), error.code, _headers(request, error, status), violations)


def _headers(request: Request, error: errors.TrustError, status: int) -> dict[str, str]:
    headers: dict[str, str] = {**NO_STORE}
    if status == 401 and not request.is_from_page:
        headers["WWW-Authenticate"] = 'Basic realm="mqtt-trust", charset="UTF-8"'
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = str(error.facts["allowed"])
    if isinstance(error, errors.RateLimited):
        headers["Retry-After"] = str(error.facts["seconds"])
    if isinstance(error, errors.IssuerUnavailable):
        headers["Retry-After"] = "60"
    if isinstance(error, errors.StoreUnavailable | errors.Overloaded):
        headers["Retry-After"] = "2"
    return headers


def _unexpected(request: Request, error: Exception) -> Reply:
    error_id = secrets.token_hex(8)
    log.error(
        "unforeseen error %s: %s",
        error_id,
        type(error).__name__,
        extra={"error_id": error_id},
        exc_info=without_text(error),
    )
    code = "key_not_opened" if isinstance(error, SealBroken) else "internal"
    return _document(request, 500, f"Something went wrong here. Its id in the log is {error_id}.", code, NO_STORE)


def without_text(error: Exception) -> tuple[type[Exception], Exception, Any]:
    """Return `exc_info` for a log: the traceback without the error's text, which may quote secrets."""
    bare = Exception(type(error).__name__)
    return (Exception, bare, error.__traceback__)


def _document(
    request: Request,
    status: int,
    detail: str,
    code: str,
    headers: Mapping[str, str],
    violations: tuple[Violation, ...] = (),
) -> Reply:
    document = Problem(
        type=page_of(code, request.prefix),
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        violations=violations or msgspec.UNSET,
    )
    return Reply(status, msgspec.json.encode(document), PROBLEM, headers)
