"""mosquitto with mosquitto-go-auth: its HTTP back end (its README, "HTTP"), JSON or form.

On a listener with `use_identity_as_username` mosquitto takes the CN for the user name and asks no plugin whether the
client may connect (src/handle_connect.c, "Authentication assumed to be cleared"): only `aclcheck` is asked there.
`getuser` is asked on other listeners, where the client typed the name, which proves nothing. `aclcheck` is asked on
those, too, so its names are accepted from the listener that the key names.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

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

_READ, _WRITE, _READWRITE, _SUBSCRIBE = "1", "2", "3", "4"  # MOSQ_ACL_* (mosquitto_broker.h)


class _Answer(msgspec.Struct):
    ok: bool
    error: str


class _Mosquitto(EncodingDialect):
    def encode(self, verdict: Verdict) -> Reply:
        if verdict.decision is Decision.ALLOW:
            return json_reply(_Answer(True, ""))
        return json_reply(_Answer(False, verdict.reason), 403)


DIALECT: Final = _Mosquitto()


@question(
    "GET",
    "POST",
    "PUT",
    paths=["mosquitto/getuser"],
    summary="mosquitto-go-auth: may this user connect?",
    statuses=[200, 403],
)
def getuser(call: Call) -> Reply:
    fields = dialect.read_fields(call.request)
    named = NamedClient(dialect.read_name(fields, "username"), dialect.read_name(fields, "clientid"), typed=True)
    return DIALECT.encode(verify_names(call.verifier, call.credentials, named))


@question(
    "GET",
    "POST",
    "PUT",
    paths=["mosquitto/superuser"],
    summary="mosquitto-go-auth: is this user above all rules? Never",
    statuses=[403],
)
def superuser(call: Call) -> Reply:
    call.credentials  # noqa: B018 - raises NotAuthenticated, so that the reason of that refusal is right
    return json_reply(_Answer(False, "Nobody is."), 403)


@question(
    "GET",
    "POST",
    "PUT",
    paths=["mosquitto/aclcheck"],
    summary="mosquitto-go-auth: may this user use the topic?",
    statuses=[200, 403],
)
def aclcheck(call: Call) -> Reply:
    fields = dialect.read_fields(call.request)
    topic, access = dialect.require_text(fields, "topic"), _access(fields)
    may_use = may_use_filter if access == _SUBSCRIBE else may_use_topic
    named = NamedClient(
        dialect.read_name(fields, "username"),
        dialect.read_name(fields, "clientid"),
        listeners=dialect.read_listeners(call.request),
        may_be_typed=True,
    )
    verdict = verify_use(call.verifier, call.credentials, named, lambda org_id, device, prefix: may_use(prefix, topic))
    return DIALECT.encode(verdict)


def _access(fields: Mapping[str, Any]) -> str:
    """Return `acc`: a number in JSON, text in a form. Raises: WrongValue."""
    value = fields.get("acc")
    if isinstance(value, bool) or str(value) not in (_READ, _WRITE, _READWRITE, _SUBSCRIBE):
        raise WrongValue(field="acc", found="acc is 1 (read), 2 (write), 3 (both) or 4 (subscribe)")
    return str(value)
