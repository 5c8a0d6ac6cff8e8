"""mosquitto with mosquitto-go-auth: its HTTP back end (its README, "HTTP"), JSON or form.

On a listener with `use_identity_as_username` mosquitto takes the CN for the user name and asks no plugin whether the
client may connect (src/handle_connect.c, "Authentication assumed to be cleared"): only `aclcheck` is asked. `getuser`
is asked elsewhere, where the name was typed: it proves nothing here.
"""

from collections.abc import Mapping
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

_READ, _WRITE, _READWRITE, _SUBSCRIBE = "1", "2", "3", "4"  # MOSQ_ACL_* (mosquitto_broker.h)


class _Mosquitto(EncodingDialect):
    def tell(self, request: Request, verdict: Verdict) -> Reply:
        if verdict.decision is Decision.ALLOW:
            return json_reply({"ok": True, "error": ""})
        return json_reply({"ok": False, "error": verdict.reason}, 403)


MOSQUITTO: Final = _Mosquitto()


@endpoint("mosquitto-go-auth: may this user connect?", {200: None, 403: None}, dialect=True)
def getuser(call: Call) -> Reply:
    found = dialect.fields(call.request)
    named = Named(dialect.text(found, "username"), dialect.text(found, "clientid"), typed=True)
    return MOSQUITTO.tell(call.request, verify_names(call.app.verifier, call.request.credentials, named))


@endpoint("mosquitto-go-auth: is this user above all rules? Never", {403: None}, dialect=True)
def superuser(call: Call) -> Reply:
    call.request.credentials  # noqa: B018 - who sends none is refused all the same, and for that reason
    return json_reply({"ok": False, "error": "Nobody is."}, 403)


@endpoint("mosquitto-go-auth: may this user use the topic?", {200: None, 403: None}, dialect=True)
def aclcheck(call: Call) -> Reply:
    found = dialect.fields(call.request)
    topic, access = dialect.required(found, "topic"), _access(found)
    check = may_use_filter if access == _SUBSCRIBE else may_use_topic
    named = Named(dialect.text(found, "username"), dialect.text(found, "clientid"))
    verdict = verify_use(
        call.app.verifier, call.request.credentials, named, lambda org_id, device, prefix: check(prefix, topic)
    )
    return MOSQUITTO.tell(call.request, verdict)


def _access(found: Mapping[str, Any]) -> str:
    """`acc`: a number in JSON, text in a form. Raises: WrongValue."""
    access = str(found.get("acc"))
    if isinstance(found.get("acc"), bool) or access not in (_READ, _WRITE, _READWRITE, _SUBSCRIBE):
        raise errors.WrongValue(field="acc", found="acc is 1 (read), 2 (write), 3 (both) or 4 (subscribe)")
    return access
