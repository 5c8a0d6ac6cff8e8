"""AWS IoT Core: the custom authorizer's Lambda event (AWS IoT developer guide, "Defining your Lambda function" and
"Custom authentication with X.509 client certificates").

`authorize` is for a Lambda that AWS IoT invokes itself: the permission to invoke it (`iot.amazonaws.com`, this account)
is the caller's proof, and no API key is asked. Over HTTP the same event comes with a broker's key.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from functions.dialects import dialect
from functions.dialects.dialect import EncodingDialect, Late, json_reply
from functions.web import deadline
from functions.web.contract import Call, endpoint
from functions.web.http import Reply, Request
from shared import errors
from shared.records import Role
from shared.usecases.callers import Caller, Credentials
from shared.usecases.devices.verify import Verifier, verify_client
from shared.validation.policy import Decision
from shared.validation.presented import Presented
from shared.validation.verdict import Verdict

_SECONDS: Final = range(300, 86_400 + 1)  # what AWS takes, for both of the two periods
_REFRESH: Final = 300  # seconds until AWS asks again: so long a withdrawn device may stay
_ANYWHERE: Final = ("aws", "*", "*")  # partition, region, account, where the function's own are not known
_BY_INVOCATION: Final = Caller("iot.amazonaws.com", Role.BROKER, None)

Answer = dict[str, Any]
_REFUSED: Final[Answer] = {
    "isAuthenticated": False,
    "principalId": "refused",
    "disconnectAfterInSeconds": _SECONDS[0],
    "refreshAfterInSeconds": _REFRESH,
    "policyDocuments": [],
}


class _AwsIot(EncodingDialect):
    def tell(self, request: Request, verdict: Verdict) -> Reply:
        """A refusal; an allow has more to it (`_allowed`)."""
        return json_reply(_REFUSED)


AWS_IOT: Final = _AwsIot()


@endpoint("AWS IoT: a custom authorizer's event", {200: None}, dialect=True)
def ask(call: Call) -> Reply:
    event = dialect.fields(call.request)
    return json_reply(_answer(call.app.verifier, call.request.credentials, event, _ANYWHERE))


def authorize(verifier: Callable[[], Verifier], event: Mapping[str, Any], function_arn: str) -> Answer:
    """The answer to an event that AWS IoT invoked this function with. Never raises, and comes in time.

    Args:
        verifier: makes the verifier, where this is the first call."""
    parts = function_arn.split(":")
    place = (parts[1], parts[3], parts[4]) if len(parts) > 5 else _ANYWHERE
    try:
        future = deadline.WORKERS.submit(lambda: _answer(verifier(), _BY_INVOCATION, event, place))
        return future.result(deadline.SECONDS)
    except TimeoutError:
        dialect.denied(Late())
    except Exception as error:  # noqa: BLE001 - whatever it is, nobody is let in; `denied` logs it
        dialect.denied(error)
    return _REFUSED


def _answer(
    verifier: Verifier, who: Credentials | Caller, event: Mapping[str, Any], place: tuple[str, str, str]
) -> Answer:
    """Raises: BadRequest's, and what `verify_client` raises."""
    data = _part(event, "protocolData")
    tls, mqtt = _part(data, "tls"), _part(data, "mqtt")
    presented = Presented.of(
        server_name=dialect.text(tls, "serverName"),
        client_id=dialect.text(mqtt, "clientId"),
        certificate=dialect.certificate(dialect.text(tls, "x509CertificatePem"), "x509CertificatePem"),
    )
    verdict = verify_client(verifier, who, presented)
    if verdict.decision is not Decision.ALLOW or verdict.identity is None or verdict.org_id is None:
        return _REFUSED
    return _allowed(verifier, verdict, place)


def _part(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = found.get(name, {})
    if not isinstance(part, dict):
        raise errors.WrongValue(field=name, found=f"{name} is no object")
    return part


def _allowed(verifier: Verifier, verdict: Verdict, place: tuple[str, str, str]) -> Answer:
    device, org_id = verdict.identity, verdict.org_id
    assert device is not None and org_id is not None  # noqa: S101, PT018 - asked before
    partition, region, account = place
    arn = f"arn:{partition}:iot:{region}:{account}:"
    prefix = verifier.topic_prefix.of(org_id, device)
    statements = [
        (["iot:Connect"], f"client/{device.client_class}:{org_id}:{device.type_id}:{device.device_id}"),
        (["iot:Publish", "iot:Receive"], f"topic/{prefix}*"),
        (["iot:Subscribe"], f"topicfilter/{prefix}*"),
    ]
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": what, "Resource": [arn + on]} for what, on in statements],
    }
    return {
        "isAuthenticated": True,
        "principalId": sha256(f"{org_id}:{device}".encode()).hexdigest(),
        "disconnectAfterInSeconds": _seconds_until(verdict.expires_at, verifier.context.clock()),
        "refreshAfterInSeconds": _REFRESH,
        "policyDocuments": [policy],
    }


def _seconds_until(end: datetime | None, now: datetime) -> int:
    left = _SECONDS[-1] if end is None else int((end - now).total_seconds())
    return min(max(left, _SECONDS[0]), _SECONDS[-1])
