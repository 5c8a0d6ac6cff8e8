"""What the dialects share: reading what brokers send, and refusing in their words whatever goes wrong."""

import logging
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

import msgspec

from functions.web.http import BODY_MAX, JSON, Reply, Request, body_too_large, file_bytes, without_text
from shared import errors
from shared.validation.policy import Decision
from shared.validation.verdict import Verdict, unavailable

log = logging.getLogger(__name__)

TEXT: Final = "text/plain; charset=utf-8"
_FORM: Final = "application/x-www-form-urlencoded"
_UNSET: Final = ("", "undefined", "null")  # how brokers write that they know no value
NO_STORE: Final = {"Cache-Control": "no-store"}


class Late(Exception):
    """No verdict in time."""


class Dialect(Protocol):
    """How one broker is told a verdict."""

    def tell(self, request: Request, verdict: Verdict) -> Reply:
        """*verdict* in the broker's words."""
        ...

    def refuse(self, request: Request, error: Exception) -> Reply:
        """The answer to *error*: whatever it is, nobody is let in. Never raises."""
        ...


class EncodingDialect:
    """Base of the dialects: an error is told as a verdict."""

    def tell(self, request: Request, verdict: Verdict) -> Reply:
        raise NotImplementedError

    def refuse(self, request: Request, error: Exception) -> Reply:
        return self.tell(request, denied(error))


def denied(error: Exception) -> Verdict:
    """Deny, because of *error*; one that is not a refusal loses its text."""
    if isinstance(error, errors.StoreUnavailable):
        log.warning("a client was refused because the store does not answer", exc_info=error)
        return unavailable()
    if isinstance(error, errors.TrustError):
        return Verdict(Decision.DENY, error.code, error.reason, error.advice)
    if isinstance(error, Late):
        _tell_of_late()
        return unavailable()
    log.error("a client was refused because of %s", type(error).__name__, exc_info=without_text(error))
    return unavailable()


_late_told = 0.0


def _tell_of_late() -> None:
    """At most one line a second: a store that hangs makes every client late."""
    global _late_told
    now = time.monotonic()
    if now - _late_told >= 1:
        _late_told = now
        log.error("clients are refused because no verdict comes in time")


def json_reply(value: object, status: int = 200) -> Reply:
    return Reply(status, msgspec.json.encode(value), JSON, NO_STORE)


# ------------------------------------------------------------------------------------------------------- reading


def fields(request: Request) -> Mapping[str, Any]:
    """What a broker sent: JSON, a form, or the query of a GET. Fields that are not known here are no mistake.

    Raises: MalformedBody, UnsupportedMediaType, TooLarge."""
    if request.method == "GET" and not request.body:
        return request.query
    if len(request.body) > BODY_MAX:
        raise body_too_large(len(request.body))
    media = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if media == _FORM:
        return dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=100))
    if media != JSON and not media.endswith("+json"):
        raise errors.UnsupportedMediaType(found=media[:100] or "(none)")
    return json_object(request.body)


def json_object(body: bytes) -> Mapping[str, Any]:
    """Raises: MalformedBody."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise errors.MalformedBody(format="JSON", found="it is none") from None
    if not isinstance(found, dict):
        raise errors.MalformedBody(format="JSON", found="it is no object")
    return found


def text(found: Mapping[str, Any], name: str) -> str | None:
    """A field that is text; None where the broker knows no value. Raises: WrongValue."""
    value = found.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise errors.WrongValue(field=name, found=f"{name} is no text")
    return None if value in _UNSET else value


def required(found: Mapping[str, Any], name: str) -> str:
    """Raises: MissingField, WrongValue."""
    value = text(found, name)
    if value is None:
        raise errors.MissingField(field=name, name=name)
    return value


def certificate(value: str | None, name: str) -> bytes | None:
    """A certificate in a field: PEM as text, or DER (or PEM) in base64. What is none is judged as that.

    Raises: MalformedBase64."""
    return None if value is None else file_bytes(value, name)
