"""Requests and replies, neutral of any cloud; bodies to typed values; refusals to problem documents (RFC 9457)."""

import base64
import binascii
import ipaddress
import logging
import re
import secrets
import time
from collections.abc import Mapping
from functools import cached_property
from http import HTTPStatus
from typing import Any, Final, TypeVar

import msgspec

from shared import errors
from shared.ports import SealBroken
from shared.usecases.callers import BearerToken, Credentials

log = logging.getLogger(__name__)

BODY_MAX: Final = 256 * 1024  # bytes of one request
JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
PEM: Final = "application/x-pem-file"

ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]{0,199}")  # every id here is of this form; nothing else asks a store

T = TypeVar("T")


class Request(msgspec.Struct, frozen=True, dict=True):
    """One HTTP request.

    Args:
        path: as it was sent, still percent-encoded, without the query.
        headers: names in lower case.
        params: what the route's template found in the path, decoded.
        scheme: "https" where the client spoke TLS: to this process, or to the platform that stands before it and whose
            word the adapter takes. A header of the client's own is never asked.
        peer: the address the connection came from; "" where the platform hides it.
        too_large: the body was longer than any call may be, and was dropped.
        arrived: when the whole request was here (`time.monotonic`).
    """

    method: str
    path: str
    query: Mapping[str, str] = msgspec.field(default_factory=dict)
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""
    params: Mapping[str, str] = msgspec.field(default_factory=dict)
    scheme: str = "http"
    peer: str = ""
    too_large: bool = False
    arrived: float = msgspec.field(default_factory=time.monotonic)

    def __repr__(self) -> str:
        """Without headers and body: they hold tokens and keys."""
        return f"Request({self.method} {self.path})"

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can read the answer: TLS, or this very machine."""
        return self.scheme == "https" or _is_loopback(self.peer)

    @cached_property
    def credentials(self) -> Credentials:
        """The API key and token in the Authorization header (RFC 7617). Raises: NotAuthenticated."""
        scheme, _, encoded = self.headers.get("authorization", "").partition(" ")
        try:
            key, colon, token = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            raise errors.NotAuthenticated from None
        if scheme.lower() != "basic" or not colon:
            raise errors.NotAuthenticated
        return Credentials(key, token)

    @property
    def authorization(self) -> Credentials | BearerToken:
        """What proves who is calling: an API key, or a token of the OIDC issuer (RFC 6750, 2.1).

        Raises: NotAuthenticated."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return BearerToken(token.strip()) if scheme.lower() == "bearer" else self.credentials

    @property
    def is_from_a_page(self) -> bool:
        """Whether a browser's fetch() sent it (Fetch Metadata): to such a caller, no prompt of the browser's own."""
        return "sec-fetch-mode" in self.headers

    def flag(self, name: str) -> bool:
        """A query parameter that is `true`, `false` or not there. Raises: WrongValue."""
        value = self.query.get(name, "false").lower()
        if value not in ("true", "false"):
            raise errors.WrongValue(field=name, found=f"{name} is true or false")
        return value == "true"

    def fields(self, kind: type[T]) -> T:
        """The body as *kind*, a msgspec Struct: JSON or multipart/form-data, the same fields.

        Raises: BadRequest's, TooLarge, UnsupportedMediaType."""
        if len(self.body) > BODY_MAX:
            raise body_too_large(len(self.body))
        media = self.headers.get("content-type", JSON).partition(";")[0].strip().lower()
        if media == JSON or media.endswith("+json"):
            return typed(_json_object(self.body), kind)
        if media == "multipart/form-data":
            return typed(_form(self.headers["content-type"], self.body), kind, from_text=True)
        raise errors.UnsupportedMediaType(found=media[:100] or "(none)")


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def body_too_large(size: int | None = None) -> errors.TooLarge:
    return errors.TooLarge(
        size=f"{size:,} bytes" if size else f"More than {BODY_MAX:,} bytes",
        limit=f"{BODY_MAX:,} bytes (256 KiB)",
        hint="Send the certificate alone.",
    )


# --------------------------------------------------------------------------------------------------- bodies


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        why = "it is empty" if not body else str(error)[:200] or "it is nested too deep"
        raise errors.MalformedBody(format="JSON", found=why) from None
    if not isinstance(found, dict):
        raise errors.MalformedBody(format="JSON", found="it is no object")
    return found


def _form(content_type: str, body: bytes) -> dict[str, Any]:
    """Fields of a multipart/form-data body (RFC 7578); a file's bytes become base64, as JSON carries DER."""
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import FormParser, parse_options_header

    found: dict[str, Any] = {}
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")

    def on_field(part: Any) -> None:
        found[_name(part.field_name)] = (part.value or b"").decode("utf-8", "replace")

    def on_file(part: Any) -> None:
        part.file_object.seek(0)
        found[_name(part.field_name)] = base64.b64encode(part.file_object.read()).decode()
        part.close()

    whole = False

    def on_end() -> None:
        nonlocal whole
        whole = True

    try:
        if not boundary:
            raise FormParserError("its boundary is missing")
        parser = FormParser("multipart/form-data", on_field, on_file, on_end, boundary=boundary)
        parser.write(body)
        parser.finalize()
        if body and not whole:  # what was cut off may have been a field
            raise FormParserError("its end is missing")
    except FormParserError as error:
        raise errors.MalformedBody(format="multipart/form-data", found=str(error)[:200]) from None
    if not found and body.strip(b"-\r\n \t"):
        raise errors.MalformedBody(format="multipart/form-data", found="there is no field in it")
    return found


def _name(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")


_AT: Final = r" - at `\$\.?(.*?)`$"
_UNKNOWN: Final = r"(?s)Object contains unknown field `(.*?)`"
_MISSING: Final = r"Object missing required field `(.*?)`"


def typed(raw: object, kind: type[T], *, from_text: bool = False) -> T:
    """*raw* as *kind*. *from_text*: all values are text, as a form sends them.

    Raises: UnknownField, MissingField, WrongValue."""
    try:
        return msgspec.convert(raw, kind, strict=not from_text)
    except msgspec.ValidationError as error:
        raise _validation(str(error), kind) from None


def _validation(message: str, kind: type) -> errors.BadRequest:
    where = found[1] if (found := re.search(_AT, message)) else ""
    said = re.sub(_AT, "", message)
    prefix = f"{where}." if where else ""
    if unknown := re.search(_UNKNOWN, said):
        name = unknown[1][:64]
        known = ", ".join(one.encode_name for one in msgspec.structs.fields(kind)) if not where else "others"
        return errors.UnknownField(field=prefix + name, name=prefix + name, known=known)
    if missing := re.search(_MISSING, said):
        return errors.MissingField(field=prefix + missing[1], name=prefix + missing[1])
    return errors.WrongValue(field=where or None, found=f"{where or 'The body'}: {said[:300]}")


_BASE64: Final = r"[A-Za-z0-9+/]*={0,2}"


def file_bytes(value: str, name: str) -> bytes:
    """A file in a field: PEM as text, DER in base64 (what `_form` makes of a file's bytes too).

    Text that is neither is given back as it is: the rule that reads it says what is wrong with it.

    Raises: MalformedBase64."""
    if "-----BEGIN" in value:
        return value.encode()
    packed = "".join(value.split())
    if not re.fullmatch(_BASE64, packed):
        return value.encode("utf-8", "replace")
    try:
        return base64.b64decode(packed, validate=True)
    except binascii.Error:
        raise errors.MalformedBase64(field=name, field_name=name) from None


# -------------------------------------------------------------------------------------------------- replies


class Reply(msgspec.Struct, frozen=True):
    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        """Without the body: an edge's holds private keys."""
        return f"Reply({self.status}, {self.content_type})"


_encoder: Final = msgspec.json.Encoder()


def reply(value: object, *, status: int = 200, version: str | None = None) -> Reply:
    """*value* (a msgspec Struct) as JSON; *version* becomes the ETag (RFC 9110, 8.8.3)."""
    headers = {"ETag": f'"{version}"'} if version is not None else {}
    return Reply(status, _encoder.encode(value), JSON, {**headers, "Cache-Control": "no-store"})


def pem_reply(text: str, filename: str) -> Reply:
    headers = {"Content-Disposition": f'attachment; filename="{filename}"', "Cache-Control": "no-store"}
    return Reply(200, text.encode(), PEM, headers)


NO_CONTENT: Final = Reply(204)

_STATUS: Final[Mapping[type[errors.TrustError], int]] = {
    errors.BadRequest: 400,
    errors.NotAuthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.Conflict: 409,
    errors.Stale: 412,
    errors.TooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.Rejected: 422,
    errors.PreconditionRequired: 428,
    errors.RateLimited: 429,
    errors.StoreUnavailable: 503,
    errors.IssuerUnavailable: 503,
}


def status_of(kind: type[errors.TrustError]) -> int:
    """The HTTP status of a refusal; 500 where it is of no listed family."""
    return next((_STATUS[one] for one in kind.__mro__ if one in _STATUS), 500)


class Violation(msgspec.Struct, frozen=True):
    """What is wrong with one field; *id* is the record to turn to instead, where there is one."""

    field: str
    code: str
    message: str
    id: str | msgspec.UnsetType = msgspec.UNSET


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An RFC 9457 problem document. *code* is stable and says what *type* would; *title* is the status's own."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    violations: tuple[Violation, ...] | msgspec.UnsetType = msgspec.UNSET


def problem(request: Request, error: Exception) -> Reply:
    """The answer to *error*. One that is not a refusal loses its text: only an id stays, which the log has too."""
    headers: dict[str, str] = {"Cache-Control": "no-store"}
    if not isinstance(error, errors.TrustError):
        return _unforeseen(error, headers)
    status = status_of(type(error))
    if status == 401 and not request.is_from_a_page:
        headers["WWW-Authenticate"] = 'Basic realm="mqtt-trust", charset="UTF-8"'
    if isinstance(error, errors.MethodNotAllowed):
        headers["Allow"] = str(error.facts["allowed"])
    if isinstance(error, errors.RateLimited):
        headers["Retry-After"] = str(error.facts["seconds"])
    if isinstance(error, errors.IssuerUnavailable):
        headers["Retry-After"] = "60"
    if isinstance(error, errors.StoreUnavailable):
        headers["Retry-After"] = "2"
        log.warning("the store does not answer", exc_info=error)
    turn_to = str(error.facts["id"]) if isinstance(error, errors.UseFulfil) else msgspec.UNSET
    violations = (Violation(error.field, error.code, str(error), turn_to),) if error.field else ()
    return _document(status, str(error), error.code, headers, violations)


def _unforeseen(error: Exception, headers: Mapping[str, str]) -> Reply:
    number = secrets.token_hex(8)
    log.error(
        "unforeseen error %s: %s",
        number,
        type(error).__name__,
        extra={"error_id": number},
        exc_info=without_text(error),
    )
    code = "key_not_opened" if isinstance(error, SealBroken) else "internal"
    return _document(500, f"Something went wrong here. Its id in the log is {number}.", code, headers)


def without_text(error: Exception) -> tuple[type[Exception], Exception, Any]:
    """For a log: the traceback without the error's own text, which may quote what it choked on."""
    bare = Exception(type(error).__name__)
    return (Exception, bare, error.__traceback__)


def _document(
    status: int, detail: str, code: str, headers: Mapping[str, str], violations: tuple[Violation, ...] = ()
) -> Reply:
    document = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        violations=violations or msgspec.UNSET,
    )
    return Reply(status, _encoder.encode(document), PROBLEM, headers)


# ----------------------------------------------------------------------------------------------- conditions


def if_match(request: Request, *, required: bool = True) -> str | None:
    """The version in If-Match (RFC 9110, 13.1.1); None for `*`, or where it is not required and not there.

    Raises: PreconditionRequired, WrongValue (a list, or a weak tag)."""
    value = request.headers.get("if-match", "").strip()
    if not value:
        if required:
            raise errors.PreconditionRequired
        return None
    if value == "*":
        return None
    tag = value.strip('"')
    if not re.fullmatch(r"[0-9A-Za-z-]{1,64}", tag):
        raise errors.WrongValue(field="If-Match", found='If-Match takes one version in quotes, like "4f2a", or *')
    return tag


def page(request: Request) -> tuple[int, str]:
    """`limit` (1 to 200, 100 where not given) and `bookmark`. Raises: WrongValue."""
    text = request.query.get("limit", "100")
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= 200:
        raise errors.WrongValue(field="limit", found="limit is a number from 1 to 200")
    bookmark = request.query.get("bookmark", "")
    if bookmark and not ID.fullmatch(bookmark):
        raise errors.WrongValue(field="bookmark", found="This is no bookmark of a list here")
    return int(text), bookmark
