"""Requests and replies, independent of any platform."""

import base64
import binascii
import ipaddress
import re
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from functions.web.errors import TooManyFields
from shared.errors import TrustError, WrongValue

JSON: Final = "application/json"
PEM: Final = "application/x-pem-file"

ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]{0,199}")
"""The form of every id of this API. A value of another form is refused before the store is asked."""

_FORWARDING: Final = frozenset(
    ("forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "x-original-forwarded-for")
)
_SECURITY_HEADERS: Final = {"x-content-type-options": "nosniff"}


class Request(msgspec.Struct, frozen=True):
    """An HTTP request.

    Args:
        path: as the client sent it, still percent-encoded, without the query and without *prefix*.
        headers: names in lower case.
        params: the parameters in the path, decoded.
        scheme: "https" if the client's TLS ends at this process or at the platform in front of it. The host decides;
            no header of the client is read.
        peer: the address of the connection; "" if the platform hides it.
        prefix: what the client's path has before *path*, such as the stage of an API Gateway: "/prod".
        refusal: why a part of the request was not read: a body that is too large, for example.
        arrived: when the whole request was received (`time.monotonic`).
    """

    method: str
    path: str
    query: Mapping[str, str] = msgspec.field(default_factory=dict)
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""
    params: Mapping[str, str] = msgspec.field(default_factory=dict)
    scheme: str = "http"
    peer: str = ""
    prefix: str = ""
    refusal: TrustError | None = None
    arrived: float = msgspec.field(default_factory=time.monotonic)

    def __repr__(self) -> str:
        """Leave out headers and body, which hold tokens and keys."""
        return f"Request({self.method} {self.path})"

    @property
    def is_private(self) -> bool:
        """Whether the reply cannot be read on its way: over TLS, or to a client on this machine."""
        return self.scheme == "https" or _is_loopback(self.peer)

    @property
    def is_direct(self) -> bool:
        """Whether a program on this machine connected, and no header shows a proxy that forwarded the request.

        A proxy that adds no header looks like any other program on this machine.
        """
        return _is_loopback(self.peer) and not any(map(_shows_proxy, self.headers))

    @property
    def basic_credentials(self) -> tuple[str, str] | None:
        """User name and password of HTTP Basic (RFC 7617); None if the request has no such header."""
        scheme, _, encoded = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        return (user, password) if colon else None

    @property
    def bearer_token(self) -> str | None:
        """The token of the Bearer scheme (RFC 6750, 2.1); None if the request has no such header."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None

    @property
    def is_from_page(self) -> bool:
        """Whether a script of a page sent the request (Fetch Metadata).

        A challenge (WWW-Authenticate) would open the browser's own password prompt there.
        """
        return "sec-fetch-mode" in self.headers

    def flag(self, name: str) -> bool:
        """Return a query parameter that is `true` or `false`; False if absent.

        Raises: WrongValue.
        """
        value = self.query.get(name, "false").lower()
        if value not in ("true", "false"):
            raise WrongValue(field=name, found=f"{name} is true or false")
        return value == "true"


def build_request(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    body: bytes = b"",
    *,
    scheme: str = "http",
    peer: str = "",
    prefix: str = "",
) -> Request:
    """Build a request from the parts that a host receives.

    Args:
        path, query: percent-encoded.
        headers: names in any case.
    """
    fields: Mapping[str, str] = {}
    refusal: TrustError | None = None
    try:
        if query:
            fields = parse_fields(query)
    except TooManyFields as error:
        refusal = error
    lower = {name.lower(): value for name, value in headers.items()}
    return Request(method, path, fields, lower, body, scheme=scheme, peer=peer, prefix=prefix, refusal=refusal)


_FIELDS_MAX: Final = 100
_ESCAPES_MAX: Final = 8000  # decoding one takes about 0.7 µs


def parse_fields(text: str) -> dict[str, str]:
    """Return the fields of a query or a form (WHATWG URL, "application/x-www-form-urlencoded").

    Strangers send them too, so that the time to decode them is bounded.

    Raises: TooManyFields.
    """
    if text.count("&") >= _FIELDS_MAX or text.count("%") > _ESCAPES_MAX:
        raise TooManyFields(fields=_FIELDS_MAX, escapes=f"{_ESCAPES_MAX:,}")
    return dict(parse_qsl(text, keep_blank_values=True))


def _shows_proxy(name: str) -> bool:
    """Return whether proxies add a header of this *name* (RFC 7239; RFC 9110, 7.6.3; and what came before them)."""
    return name in _FORWARDING or name.startswith("x-forwarded")


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


class Reply(msgspec.Struct, frozen=True):
    """An HTTP reply."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        """Leave out the body, which holds private keys when a TLS edge asks."""
        return f"Reply({self.status}, {self.content_type})"


NO_STORE: Final = {"Cache-Control": "no-store"}
NO_CONTENT: Final = Reply(204)

_encoder: Final = msgspec.json.Encoder()


def json_reply(value: object, *, status: int = 200, version: str | None = None) -> Reply:
    """Return *value* (a msgspec Struct) as JSON, with *version* as its ETag (RFC 9110, 8.8.3)."""
    headers = NO_STORE if version is None else {"ETag": f'"{version}"', **NO_STORE}
    return Reply(status, _encoder.encode(value), JSON, headers)


def pem_reply(text: str, filename: str) -> Reply:
    """Return *text* as a PEM file to download."""
    return file_reply(text, PEM, filename)


def file_reply(text: str, content_type: str, filename: str) -> Reply:
    """Return *text* as a file to download."""
    headers = {"Content-Disposition": f'attachment; filename="{filename}"', **NO_STORE}
    return Reply(200, text.encode(), content_type, headers)


def reply_headers(reply: Reply) -> dict[str, str]:
    """Return all headers of *reply* except its length, names in lower case.

    A reply without content has no Content-Type (RFC 9110, 8.3).
    """
    content_type = {} if reply.status in (204, 304) else {"content-type": reply.content_type}
    return {**content_type, **_SECURITY_HEADERS, **{name.lower(): value for name, value in reply.headers.items()}}
