"""What the dialects share: declaring and reading a broker's questions, and refusing in the broker's format."""

import logging
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import unquote_plus

import msgspec

from functions.call import BROKERS, Call, prepare_call, with_and_without_prefix
from functions.registry import VERIFY_CLIENT
from functions.web.body import check_size, file_bytes, is_json, media_type, parse_json_object
from functions.web.contract import Endpoint, declare
from functions.web.deadline import Late
from functions.web.errors import MissingField, UnsupportedMediaType
from functions.web.message import JSON, NO_STORE, Reply, Request, parse_fields
from functions.web.problem import without_text
from shared.errors import ClientIdInvalid, StoreUnavailable, TrustError, WrongValue
from shared.usecases.callers import Credentials
from shared.validation.names import ClientId, ServerName
from shared.validation.policy import Decision
from shared.validation.verdict import Verdict, unavailable

log = logging.getLogger(__name__)

TEXT: Final = "text/plain; charset=utf-8"
VALUES_MAX: Final = 1000  # of a question in JSON, which is read before its caller is known
_FORM: Final = "application/x-www-form-urlencoded"
_FORM_NAMES: Final = re.compile(rb"(?:^|&)(serverName|clientid)=([^&]{0,512})(?=&|$)")
_UNSET: Final = ("", "undefined", "null")  # how brokers write a value that they do not know

_Handler = TypeVar("_Handler", bound=Callable[[Call], Reply])


class Names(msgspec.Struct, frozen=True):
    """What in a question names an organization, where the caller's key names none."""

    server_name: str | None = None
    client_id: str | None = None

    @property
    def org_id(self) -> str | None:
        """The organization, as a verdict finds it; None where the names do not have the form of this service."""
        if self.server_name not in (None, *_UNSET):
            server = ServerName.parse(self.server_name or "")
            return None if server is None else server.org_id
        try:
            return ClientId.parse(self.client_id).org_id if self.client_id else None
        except ClientIdInvalid:
            return None


class EncodingDialect(ABC):
    """Base of the dialects (`functions.web.contract.Dialect`): an error is encoded as a verdict that denies."""

    @abstractmethod
    def encode(self, verdict: Verdict) -> Reply:
        """Return *verdict* in the broker's format."""

    def refuse(self, request: Request, error: Exception) -> Reply:
        return self.encode(deny(error))

    def owner(self, request: Request) -> str:
        """Return the organization that *request* seems to be about, before anything is verified; "" if unknown."""
        pair = request.basic_credentials
        org_id = Credentials(*pair).org_id if pair else None
        return org_id or self.names(request).org_id or ""

    def names(self, request: Request) -> Names:
        """Return the names in *request*, read at small cost: the event loop calls this method. Never raises."""
        return Names()


def question(
    *methods: str, paths: Sequence[str], summary: str, statuses: Sequence[int]
) -> Callable[[_Handler], _Handler]:
    """Declare a handler that answers a broker's question.

    Args:
        paths: below /verifyClient, each reachable with and without the API's prefix.
        statuses: of the replies, whose bodies are the broker's and not described.
    """

    def register(handler: _Handler) -> _Handler:
        endpoint = Endpoint(
            function=VERIFY_CLIENT,
            handler=handler,
            prepare=prepare_call,
            roles=BROKERS,
            summary=summary,
            answers=dict.fromkeys(statuses),
            is_dialect=True,
        )
        broker = handler.__module__.rpartition(".")[2]
        addresses: list[tuple[str, str, str | None]] = []
        for path in paths:
            below = "_below" if "{" in path else ""
            for method in methods:
                name = f"{broker}_{handler.__name__}_{method.lower()}{below}"
                addresses += with_and_without_prefix(method, f"/{VERIFY_CLIENT}/{path}", name)
        declare(endpoint, addresses)
        return handler

    return register


def deny(error: Exception) -> Verdict:
    """Return the verdict that denies because of *error*. The text of an unexpected error is left out."""
    if isinstance(error, StoreUnavailable):
        log.warning("a client was refused because the store does not answer", exc_info=error)
        return unavailable()
    if isinstance(error, TrustError):
        return Verdict(Decision.DENY, error.code, error.reason, error.advice)
    if isinstance(error, Late):
        _late_log.write()
        return unavailable()
    log.error("a client was refused because of %s", type(error).__name__, exc_info=without_text(error))
    return unavailable()


class _LateLog:
    """Logs late verdicts, at most once a second: a store that does not answer makes every verdict late."""

    def __init__(self) -> None:
        self._written = 0.0

    def write(self) -> None:
        now = time.monotonic()
        if now - self._written >= 1:
            self._written = now
            log.error("clients are refused because no verdict comes in time")


_late_log: Final = _LateLog()


def json_reply(value: object, status: int = 200) -> Reply:
    """Return *value* as JSON."""
    return Reply(status, msgspec.json.encode(value), JSON, NO_STORE)


def identity_headers(verdict: Verdict) -> Mapping[str, str]:
    """Return the headers that name an allowed client to the broker behind a TLS proxy.

    The client ID names the organization as well: an identity is one device in each organization. `X-Client-Identity`
    alone is for proxies with the configuration of version 0.1.0.
    """
    device, org_id = verdict.identity, verdict.org_id
    if device is None or org_id is None:
        return {}
    client_id = f"{device.client_class}:{org_id}:{device.type_id}:{device.device_id}"
    return {"X-Client-Id": client_id, "X-Client-Org": org_id, "X-Client-Identity": str(device)}


# ------------------------------------------------------------------------------------------------------- reading


def read_fields(request: Request) -> Mapping[str, Any]:
    """Return what a broker sent: JSON, a form, or the query of a GET. Unknown fields are ignored.

    Raises: MalformedBody, UnsupportedMediaType, TooLarge, TooManyFields.
    """
    if request.method == "GET" and not request.body:
        return request.query
    check_size(request)
    media = media_type(request)
    if media == _FORM:
        return parse_fields(request.body.decode("utf-8", "replace"))
    if not is_json(media):
        raise UnsupportedMediaType(found=media[:100] or "(none)")
    return parse_json_object(request.body, reason="it is none", values_max=VALUES_MAX)


_NamesT = TypeVar("_NamesT", bound=Names)


def peek(request: Request, kind: type[_NamesT]) -> _NamesT:
    """Return the names in what `read_fields` reads, and nothing else of it. The names are None where it is malformed.

    msgspec skips the other values, a certificate for example, without making objects of them.
    """
    if request.method == "GET" and not request.body:
        return _names_in(request.query, kind)
    if media_type(request) == _FORM:
        fields = _FORM_NAMES.findall(request.body)
        return _names_in({name.decode(): unquote_plus(text.decode("latin-1")) for name, text in fields}, kind)
    try:
        return msgspec.json.decode(request.body, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return kind()


def _names_in(fields: Mapping[str, str], kind: type[_NamesT]) -> _NamesT:
    return kind(**{field.name: fields.get(field.encode_name) for field in msgspec.structs.fields(kind)})


def read_text(fields: Mapping[str, Any], name: str) -> str | None:
    """Return a field that is text; None if the broker does not know the value. Raises: WrongValue."""
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise WrongValue(field=name, found=f"{name} is no text")
    return None if value in _UNSET else value


def read_name(fields: Mapping[str, Any], name: str) -> str | None:
    """Return a client ID or user name as the client sent it; None if the broker sent none.

    The client chooses this text, so `undefined` is a name and not a value that the broker does not know.

    Raises: WrongValue."""
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise WrongValue(field=name, found=f"{name} is no text")
    return value or None


def read_listeners(request: Request, *own: object) -> frozenset[str]:
    """Return the names of the listener that a broker's question is about; no client can choose them.

    A broker names its listener in the header `X-Trust-Listener` or in the address (`?listener=`), whichever it can set
    for each listener.

    Args:
        own: names of the listener in the broker's own words.
    """
    names = (request.headers.get("x-trust-listener"), request.query.get("listener"), *own)
    return frozenset(name for name in names if isinstance(name, str) and name)


def require_text(fields: Mapping[str, Any], name: str) -> str:
    """Return a field that is text and must be there. Raises: MissingField, WrongValue."""
    value = read_text(fields, name)
    if value is None:
        raise MissingField(field=name, name=name)
    return value


def read_certificate(value: str | None, name: str) -> bytes | None:
    """Return the certificate in a field: PEM as text, or DER (or PEM) in base64.

    Anything else is passed on and refused as malformed.

    Raises: MalformedBase64.
    """
    return None if value is None else file_bytes(value, name)
