"""VerneMQ: webhooks (its documentation, Plugin Development, "Webhooks").

The hook is named in the header `vernemq-hook`; every answer is 200. Only names arrive: they are believed for a key made
with `--proof broker`, where no password was typed. `next` lets VerneMQ ask its next plugin.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from functions.dialects import dialect
from functions.dialects.dialect import EncodingDialect, json_reply
from functions.web.contract import Call, endpoint
from functions.web.http import Reply, Request
from shared import errors
from shared.usecases.devices.verify import verify_names, verify_use
from shared.validation.policy import Decision
from shared.validation.topics import may_use_filter, may_use_topic
from shared.validation.verdict import Verdict
from shared.validation.verdict_by_name import Named

_RESULT: Final[Mapping[Decision, object]] = {
    Decision.ALLOW: "ok",
    Decision.CONTINUE: "next",
    Decision.DENY: {"error": "not_allowed"},
}
_TOPICS_MAX: Final = 1000


class _VerneMQ(EncodingDialect):
    def tell(self, request: Request, verdict: Verdict) -> Reply:
        return json_reply({"result": _RESULT[verdict.decision]})


VERNEMQ: Final = _VerneMQ()


@endpoint(
    "VerneMQ: webhooks auth_on_register, auth_on_publish, auth_on_subscribe, and their _m5", {200: None}, dialect=True
)
def ask(call: Call) -> Reply:
    found = dialect.fields(call.request)
    username, client_id = dialect.text(found, "username"), dialect.text(found, "client_id")
    credentials = call.request.credentials
    hook = call.request.headers.get("vernemq-hook", "")
    match hook.removesuffix("_m5"):
        case "auth_on_register":
            named = Named(username, client_id, typed=found.get("password") is not None)
            verdict = verify_names(call.app.verifier, credentials, named)
        case "auth_on_publish":
            topic = dialect.required(found, "topic")
            verdict = verify_use(
                call.app.verifier,
                credentials,
                Named(username, client_id),
                lambda org, device, prefix: may_use_topic(prefix, topic),
            )
        case "auth_on_subscribe":
            filters = _filters(found.get("topics"))
            verdict = verify_use(
                call.app.verifier,
                credentials,
                Named(username, client_id),
                lambda org, device, prefix: all(may_use_filter(prefix, one) for one in filters),
            )
        case _:
            raise errors.WrongValue(field="vernemq-hook", found=f"The hook {hook[:64]!r} is not answered here")
    return VERNEMQ.tell(call.request, verdict)


def _filters(topics: Any) -> Sequence[str]:
    """Raises: WrongValue."""
    if not isinstance(topics, list) or not 0 < len(topics) <= _TOPICS_MAX:
        raise errors.WrongValue(field="topics", found="topics is a list of topics")
    return [dialect.required(one if isinstance(one, dict) else {}, "topic") for one in topics]
