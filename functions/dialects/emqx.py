"""EMQX 5 and 6: the HTTP authenticator (docs.emqx.com, Access Control, Authentication, "Use HTTP Service").

EMQX takes 4xx and 5xx for `ignore`, so that a later authenticator decides: every answer is 200.
"""

from typing import Any, Final

from functions.dialects import dialect
from functions.dialects.dialect import EncodingDialect, json_reply
from functions.web.contract import Call, endpoint
from functions.web.http import Reply, Request
from shared.usecases.devices.verify import verify_client, verify_names
from shared.validation.policy import Decision
from shared.validation.presented import Presented
from shared.validation.verdict import Verdict
from shared.validation.verdict_by_name import Named

_RESULT: Final = {Decision.ALLOW: "allow", Decision.DENY: "deny", Decision.CONTINUE: "ignore"}


class _EMQX(EncodingDialect):
    def tell(self, request: Request, verdict: Verdict) -> Reply:
        answer: dict[str, Any] = {"result": _RESULT[verdict.decision]}
        if verdict.decision is Decision.ALLOW:
            answer["is_superuser"] = False
            if verdict.expires_at is not None:
                answer["expire_at"] = int(verdict.expires_at.timestamp())  # since EMQX 5.8.0
        return json_reply(answer)


EMQX: Final = _EMQX()


@endpoint("EMQX: the HTTP authenticator's question", {200: None}, dialect=True)
def ask(call: Call) -> Reply:
    """The certificate where the template sends `${cert_pem}` (since EMQX 5.7.1), else names only."""
    found = dialect.fields(call.request)
    client_id = dialect.text(found, "clientid")
    shown = dialect.certificate(dialect.text(found, "cert_pem"), "cert_pem")
    common_name = dialect.text(found, "cert_common_name")
    credentials = call.request.credentials
    if shown is None and common_name is not None:
        named = Named(common_name, client_id)
        return _with_topics(call, verify_names(call.app.verifier, credentials, named))
    presented = Presented.of(
        server_name=dialect.text(found, "serverName"),
        client_id=client_id,
        certificate=shown,
        tls=found.get("tls") not in (False, "false"),
    )
    return _with_topics(call, verify_client(call.app.verifier, credentials, presented))


def _with_topics(call: Call, verdict: Verdict) -> Reply:
    """With the client's topics, and no others (`acl`, since EMQX 5.8.0)."""
    reply = EMQX.tell(call.request, verdict)
    if verdict.decision is not Decision.ALLOW or verdict.identity is None or verdict.org_id is None:
        return reply
    prefix = call.app.verifier.topic_prefix.of(verdict.org_id, verdict.identity)
    answer = dict(dialect.json_object(reply.body))
    answer["acl"] = [
        {"permission": "allow", "action": "all", "topic": f"{prefix}#"},
        {"permission": "deny", "action": "all", "topic": "#"},
    ]
    return json_reply(answer)
