"""nginx: auth_request (its documentation, ngx_http_auth_request_module), for MQTT over WebSocket.

nginx sends `X-SNI` ($ssl_server_name) and `X-Client-Cert` ($ssl_client_escaped_cert: the leaf alone), both written by
`proxy_set_header`, which overwrites. `X-Client-Id` where the configuration knows one.
"""

from typing import Final
from urllib.parse import unquote

from functions.dialects import dialect
from functions.dialects.dialect import NO_STORE, EncodingDialect
from functions.web.contract import Call, endpoint
from functions.web.http import Reply, Request
from shared.usecases.devices.verify import verify_client
from shared.validation.policy import Decision
from shared.validation.presented import Presented
from shared.validation.verdict import Verdict


class _Nginx(EncodingDialect):
    def tell(self, request: Request, verdict: Verdict) -> Reply:
        if verdict.decision is not Decision.ALLOW:
            return Reply(403, headers={**NO_STORE, "X-Refusal": verdict.code})
        headers = {} if verdict.identity is None else {"X-Client-Identity": str(verdict.identity)}
        return Reply(204, headers={**NO_STORE, **headers})


NGINX: Final = _Nginx()


@endpoint("nginx: auth_request", {204: None, 403: None}, dialect=True)
def ask(call: Call) -> Reply:
    headers = call.request.headers
    shown = headers.get("x-client-cert") or None
    presented = Presented.of(
        server_name=headers.get("x-sni") or None,
        client_id=headers.get("x-client-id") or None,
        certificate=dialect.certificate(unquote(shown) if shown else None, "X-Client-Cert"),
    )
    return NGINX.tell(call.request, verify_client(call.app.verifier, call.request.credentials, presented))
