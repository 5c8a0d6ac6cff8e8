"""VerneMQ: webhooks (its documentation, Plugin Development, "Webhooks").

The header `vernemq-hook` names the hook; every reply is 200. VerneMQ passes names only, which are accepted for a key
made with `--proof broker` if the client typed no password. A client of another listener may type a name without
password, so names are accepted from the listener alone whose mountpoint is the listener that the key names. `next`
makes VerneMQ ask its next plugin.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from functions.call import Call
from functions.dialects import dialect
from functions.dialects.dialect import EncodingDialect, json_reply, question
from functions.web.message import Reply
from shared.errors import WrongValue
from shared.usecases.devices.verify import verify_names, verify_use
from shared.validation.policy import Decision
from shared.validation.topics import may_use_filter, may_use_topic
from shared.validation.verdict import Verdict
from shared.validation.verdict_by_name import NamedClient

_TOPICS_MAX: Final = 1000


class _Error(msgspec.Struct):
    error: str


class _Answer(msgspec.Struct):
    result: str | _Error


_ANSWERS: Final[Mapping[Decision, _Answer]] = {
    Decision.ALLOW: _Answer("ok"),
    Decision.CONTINUE: _Answer("next"),
    Decision.DENY: _Answer(_Error("not_allowed")),
}


class _VerneMQ(EncodingDialect):
    def encode(self, verdict: Verdict) -> Reply:
        return json_reply(_ANSWERS[verdict.decision])


DIALECT: Final = _VerneMQ()


@question(
    "POST",
    paths=["vernemq"],
    summary="VerneMQ: webhooks auth_on_register, auth_on_publish, auth_on_subscribe, and their _m5",
    statuses=[200],
)
def ask(call: Call) -> Reply:
    fields = dialect.read_fields(call.request)
    named = NamedClient(
        dialect.read_name(fields, "username"),
        dialect.read_name(fields, "client_id"),
        listeners=dialect.read_listeners(call.request, fields.get("mountpoint")),
        may_be_typed=True,
    )
    verifier, credentials = call.verifier, call.credentials
    hook = call.request.headers.get("vernemq-hook", "")
    match hook.removesuffix("_m5"):
        case "auth_on_register":
            verdict = verify_names(verifier, credentials, replace(named, typed=fields.get("password") is not None))
        case "auth_on_publish":
            topic = dialect.require_text(fields, "topic")
            verdict = verify_use(
                verifier, credentials, named, lambda org_id, device, prefix: may_use_topic(prefix, topic)
            )
        case "auth_on_subscribe":
            filters = _filters(fields.get("topics"))
            verdict = verify_use(
                verifier,
                credentials,
                named,
                lambda org_id, device, prefix: all(may_use_filter(prefix, topic_filter) for topic_filter in filters),
            )
        case _:
            raise WrongValue(field="vernemq-hook", found=f"The hook {hook[:64]!r} is not answered here")
    return DIALECT.encode(verdict)


def _filters(topics: Any) -> Sequence[str]:
    """Return the topic filters of a subscription. Raises: WrongValue, MissingField."""
    if not isinstance(topics, list) or not 0 < len(topics) <= _TOPICS_MAX:
        raise WrongValue(field="topics", found="topics is a list of topics")
    return [dialect.require_text(topic if isinstance(topic, dict) else {}, "topic") for topic in topics]
