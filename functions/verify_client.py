"""verifyClient: may this client connect? The native form; every broker's own form is a dialect."""

from typing import Final

from msgspec.structs import replace

from functions.dialects.dialect import EncodingDialect, denied
from functions.verdict_wire import VerdictView, VerifyClient, verdict_view
from functions.web import http
from functions.web.contract import Call, endpoint
from functions.web.http import Reply, Request, file_bytes, reply
from shared import errors
from shared.usecases.devices.verify import verify_client as usecase
from shared.validation.presented import Presented
from shared.validation.verdict import Verdict


class _Native(EncodingDialect):
    """A caller's own mistakes are problem documents; all that a device controls is a verdict, and so is a failure."""

    def tell(self, request: Request, verdict: Verdict) -> Reply:
        return reply(verdict_view(verdict))

    def refuse(self, request: Request, error: Exception) -> Reply:
        callers_own = isinstance(error, errors.TrustError) and not isinstance(error, errors.StoreUnavailable)
        if callers_own:
            return http.problem(request, error)
        try:
            org_id = request.credentials.org_id
        except errors.NotAuthenticated:
            org_id = None
        return self.tell(request, replace(denied(error), org_id=org_id))


NATIVE: Final = _Native()


@endpoint("May this client connect?", {200: VerdictView}, body=VerifyClient)
def verify_client(call: Call) -> Reply:
    sent = call.request.authorization  # who sends none is told so, whatever the body
    body = call.request.fields(VerifyClient)
    verdict = usecase(call.app.verifier, sent, _presented(body), explain=body.explain)
    return reply(verdict_view(verdict, explain=body.explain))


def _presented(body: VerifyClient) -> Presented:
    leaf = file_bytes(body.certificate_der, "certificateDer") if body.certificate_der else None
    if leaf is None and body.certificate:
        leaf = file_bytes(body.certificate, "certificate")
    chain = file_bytes(body.chain_der, "chainDer") if body.chain_der else b""
    return Presented.of(
        server_name=body.server_name, client_id=body.client_id, certificate=leaf, chain=chain, tls=body.tls
    )
