"""nginx: auth_request (its documentation, ngx_http_auth_request_module), for MQTT over WebSocket.

nginx sends `X-SNI` ($ssl_server_name) and `X-Client-Cert` ($ssl_client_escaped_cert: the leaf alone), and `X-Client-Id`
if the configuration knows the client ID. `proxy_set_header` overwrites what the client sends under these names.
"""

from typing import Final
from urllib.parse import unquote

from functions.call import Call
from functions.dialects import dialect
from functions.dialects.dialect import EncodingDialect, Names, question
from functions.web.message import NO_STORE, Reply, Request
from shared.usecases.devices.verify import verify_client
from shared.validation.policy import Decision
from shared.validation.presented import ConnectingClient
from shared.validation.verdict import Verdict


class _Nginx(EncodingDialect):
    def encode(self, verdict: Verdict) -> Reply:
        if verdict.decision is not Decision.ALLOW:
            return Reply(403, headers={**NO_STORE, "X-Refusal": verdict.code})
        return Reply(204, headers={**NO_STORE, **dialect.identity_headers(verdict)})

    def names(self, request: Request) -> Names:
        return Names(request.headers.get("x-sni"), request.headers.get("x-client-id"))


DIALECT: Final = _Nginx()


@question("GET", "POST", paths=["nginx"], summary="nginx: auth_request", statuses=[204, 403])
def ask(call: Call) -> Reply:
    headers = call.request.headers
    escaped = headers.get("x-client-cert")
    client = ConnectingClient(
        server_name=headers.get("x-sni") or None,
        client_id=headers.get("x-client-id") or None,
        certificate=dialect.read_certificate(unquote(escaped) if escaped else None, "X-Client-Cert"),
        leaf_only=True,
    )
    return DIALECT.encode(verify_client(call.verifier, call.credentials, client))
