"""What every way in has in common: the parts of an HTTP request to a Request, a Reply to its headers."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from functions.web.http import Reply, Request

_SECURITY: Final = {"x-content-type-options": "nosniff"}


def request(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    body: bytes | None = b"",
    *,
    scheme: str = "http",
    peer: str = "",
) -> Request:
    """*path* and *query* as they were sent, still percent-encoded; *headers* with names in any case; *body* None where
    it was longer than any call may be."""
    return Request(
        method,
        path,
        dict(parse_qsl(query, keep_blank_values=True)) if query else {},
        {name.lower(): value for name, value in headers.items()},
        body or b"",
        scheme=scheme,
        peer=peer,
        too_large=body is None,
    )


def headers(reply: Reply) -> dict[str, str]:
    """All headers of *reply* but its length, names in lower case. An answer without content has no type (RFC 9110)."""
    kind = {} if reply.status in (204, 304) else {"content-type": reply.content_type}
    return {**kind, **_SECURITY, **{name.lower(): value for name, value in reply.headers.items()}}
