"""Envoy: HTTP ext_authz (its documentation, HTTP filters, "External Authorization"), for MQTT over WebSocket.

The certificate is in `x-forwarded-client-cert`, which Envoy must write itself (`SANITIZE_SET`) and never append to. The
server name is in `x-sni`, which the filter chain sets, else in the authority.
"""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

import msgspec

from functions.call import Call
from functions.dialects import dialect
from functions.dialects.dialect import EncodingDialect, Names, json_reply, question
from functions.web.message import NO_STORE, Reply, Request
from shared.errors import WrongValue
from shared.usecases.devices.verify import verify_client
from shared.validation.policy import Decision
from shared.validation.presented import ConnectingClient
from shared.validation.verdict import Verdict

_PAIR: Final = re.compile(r'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^";,]*)(;|,|$)')


class _Refusal(msgspec.Struct):
    code: str
    reason: str


class _Envoy(EncodingDialect):
    def encode(self, verdict: Verdict) -> Reply:
        if verdict.decision is not Decision.ALLOW:
            return json_reply(_Refusal(verdict.code, verdict.reason), 403)
        return Reply(200, headers={**NO_STORE, **dialect.identity_headers(verdict)})

    def names(self, request: Request) -> Names:
        return Names(_server_name(request))


DIALECT: Final = _Envoy()


@question("GET", "POST", paths=["envoy", "envoy/{*rest}"], summary="Envoy: HTTP ext_authz", statuses=[200, 403])
def ask(call: Call) -> Reply:
    headers = call.request.headers
    pairs = dict(_pairs(headers.get("x-forwarded-client-cert", "")))
    leaf, chain = (
        dialect.read_certificate(pairs.get("cert"), "Cert"),
        dialect.read_certificate(pairs.get("chain"), "Chain"),
    )
    if leaf is None:  # Chain begins with the leaf
        leaf, chain = chain, None
    elif chain is not None:
        chain = _without(chain, leaf)
    client = ConnectingClient(server_name=_server_name(call.request), certificate=leaf, chain=chain or b"")
    return DIALECT.encode(verify_client(call.verifier, call.credentials, client))


def _server_name(request: Request) -> str | None:
    headers = request.headers
    return headers.get("x-sni") or headers.get("x-envoy-original-host") or _host(headers.get("host", ""))


def _pairs(header: str) -> Iterator[tuple[str, str]]:
    """Parse the pairs of the single element that Envoy writes.

    Raises: WrongValue, if the header has several elements: then another proxy appends to it.
    """
    at = 0
    while at < len(header):
        pair = _PAIR.match(header, at)
        if pair is None or pair[3] == ",":
            raise WrongValue(
                field="x-forwarded-client-cert", found="x-forwarded-client-cert is not one element of Key=value pairs"
            )
        value = pair[2]
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        yield pair[1].lower(), unquote(value)
        at = pair.end()


def _without(chain: bytes, leaf: bytes) -> bytes:
    """Return what was sent after the leaf."""
    return chain.strip().removeprefix(leaf.strip()).lstrip()


def _host(authority: str) -> str | None:
    """Return the host of an authority, without its port."""
    return authority.rpartition(":")[0] or authority or None if re.search(r":\d+$", authority) else authority or None
