"""Envoy: HTTP ext_authz (its documentation, HTTP filters, "External Authorization"), for MQTT over WebSocket.

The certificate comes in `x-forwarded-client-cert`, which Envoy must write itself (`SANITIZE_SET`) and never append to;
the server name in `x-sni`, which the filter chain sets, else in the authority.
"""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

from functions.dialects import dialect
from functions.dialects.dialect import EncodingDialect, json_reply
from functions.web.contract import Call, endpoint
from functions.web.http import Reply, Request
from shared.errors import WrongValue
from shared.usecases.devices.verify import verify_client
from shared.validation.policy import Decision
from shared.validation.presented import Presented
from shared.validation.verdict import Verdict

_PAIR: Final = re.compile(r'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^";,]*)(;|,|$)')


class _Envoy(EncodingDialect):
    def tell(self, request: Request, verdict: Verdict) -> Reply:
        if verdict.decision is not Decision.ALLOW:
            return json_reply({"code": verdict.code, "reason": verdict.reason}, 403)
        headers = {"Cache-Control": "no-store"}
        if verdict.identity is not None:
            headers["x-client-identity"] = str(verdict.identity)
        return Reply(200, headers=headers)


ENVOY: Final = _Envoy()


@endpoint("Envoy: HTTP ext_authz", {200: None, 403: None}, dialect=True)
def ask(call: Call) -> Reply:
    headers = call.request.headers
    parts = dict(_parts(headers.get("x-forwarded-client-cert", "")))
    leaf, chain = parts.get("cert"), parts.get("chain")
    shown, more = dialect.certificate(leaf, "Cert"), dialect.certificate(chain, "Chain")
    if shown is None:  # Chain has the leaf too, first
        shown, more = more, None
    elif more is not None:
        more = _without(more, shown)
    server_name = headers.get("x-sni") or headers.get("x-envoy-original-host") or _host(headers.get("host", ""))
    presented = Presented.of(server_name=server_name, certificate=shown, chain=more or b"")
    return ENVOY.tell(call.request, verify_client(call.app.verifier, call.request.credentials, presented))


def _parts(header: str) -> Iterator[tuple[str, str]]:
    """The pairs of the one element that Envoy writes. Raises: WrongValue, where there are several: somebody appends."""
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
    """What was sent after the leaf."""
    return chain.strip().removeprefix(leaf.strip()).lstrip()


def _host(authority: str) -> str | None:
    return authority.rpartition(":")[0] or authority or None if re.search(r":\d+$", authority) else authority or None
