"""verifyClient: may this client connect? The native form; every broker's own form is a dialect."""

import logging

from functions import bodies
from functions.endpoint import Call, endpoint
from functions.http import Reply, file_bytes, reply, without_text
from functions.views import VerdictView, verdict_view
from shared import errors
from shared.usecases.callers import BearerToken, Credentials
from shared.usecases.verify_client import verify_client as usecase
from shared.validation.verdict import Presented, Verdict, unavailable

log = logging.getLogger(__name__)


@endpoint("May this client connect?", {200: VerdictView}, body=bodies.VerifyClient)
def verify_client(call: Call) -> Reply:
    """A caller's own mistakes are problem documents; all that a device controls is a verdict, and so is a failure."""
    sent = call.request.authorization  # who sends none is told so, whatever the body
    body = call.request.fields(bodies.VerifyClient)
    return reply(verdict_view(_verdict(call, sent, body), explain=body.explain))


def _verdict(call: Call, sent: Credentials | BearerToken, body: bodies.VerifyClient) -> Verdict:
    try:
        return usecase(call.tools, sent, _presented(body), explain=body.explain)
    except errors.StoreUnavailable:
        log.warning("a client was refused because the store does not answer", exc_info=True)
        return _unavailable(call, sent)
    except errors.TrustError:
        raise  # the caller's own: its key, its role
    except Exception as error:
        log.error("a client was refused because of %s", type(error).__name__, exc_info=without_text(error))
        return _unavailable(call, sent)


def _unavailable(call: Call, sent: Credentials | BearerToken) -> Verdict:
    verdict = unavailable(sent.org_id if isinstance(sent, Credentials) else None)
    call.tools.decided(None, verdict.code, verdict.decision.value)  # whether that org is here is not known
    return verdict


def _presented(body: bodies.VerifyClient) -> Presented:
    leaf = file_bytes(body.certificate_der, "certificateDer") if body.certificate_der else None
    if leaf is None and body.certificate:
        leaf = file_bytes(body.certificate, "certificate")
    chain = file_bytes(body.chain_der, "chainDer") if body.chain_der else b""
    return Presented.of(
        server_name=body.server_name, client_id=body.client_id, certificate=leaf, chain=chain, tls=body.tls
    )
