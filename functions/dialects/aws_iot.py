"""AWS IoT Core: the custom authorizer's Lambda event.

Source: AWS IoT developer guide, "Defining your Lambda function" and "Custom authentication with X.509 client
certificates".

`authorize` is for a Lambda that AWS IoT invokes itself. The permission to invoke it (`iot.amazonaws.com`, this account)
authenticates the caller, so no API key is asked for. Over HTTP the same event comes with a broker's key.
"""

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from functions.call import Call
from functions.dialects import dialect
from functions.dialects.dialect import EncodingDialect, Names, json_reply, question
from functions.web.deadline import NETWORK, Busy, Late, check_time
from functions.web.message import Reply, Request
from shared.composition import VERDICT_SECONDS, App
from shared.errors import WrongValue
from shared.records import Role
from shared.usecases.callers import Caller, Credentials
from shared.usecases.devices.verify import Verifier, verify_client
from shared.validation.names import DeviceName
from shared.validation.policy import Decision
from shared.validation.presented import ConnectingClient
from shared.validation.verdict import Verdict

_SECONDS: Final = range(300, 86_400 + 1)  # what AWS accepts, for both periods
_REFRESH: Final = 300  # seconds until AWS asks again; a withdrawn device may stay connected as long
_ANY_PLACE: Final = ("aws", "*", "*")  # partition, region and account, if the function's own are unknown
_INVOKER: Final = Caller("iot.amazonaws.com", Role.BROKER, None)


class _Statement(msgspec.Struct, rename="pascal"):
    """A statement of an IAM policy."""

    effect: str
    action: list[str]
    resource: list[str]


class _Policy(msgspec.Struct, rename="pascal"):
    version: str
    statement: list[_Statement]


class _Answer(msgspec.Struct, rename="camel"):
    """The authorizer's answer."""

    is_authenticated: bool = False
    principal_id: str = "refused"
    disconnect_after_in_seconds: int = _SECONDS[0]
    refresh_after_in_seconds: int = _REFRESH
    policy_documents: list[_Policy] = []


_REFUSED: Final = _Answer()


class _TLS(msgspec.Struct, frozen=True, rename="camel"):
    server_name: str | None = None


class _MQTT(msgspec.Struct, frozen=True, rename="camel"):
    client_id: str | None = None


class _ProtocolData(msgspec.Struct, frozen=True):
    tls: _TLS = _TLS()
    mqtt: _MQTT = _MQTT()


class _Event(msgspec.Struct, frozen=True, rename="camel"):
    """The part of an event that names an organization."""

    protocol_data: _ProtocolData = _ProtocolData()


class _AwsIot(EncodingDialect):
    def encode(self, verdict: Verdict) -> Reply:
        """Return a refusal. `_allow` builds the answer that allows, which needs more than the verdict."""
        return json_reply(_REFUSED)

    def names(self, request: Request) -> Names:
        try:
            data = msgspec.json.decode(request.body, type=_Event).protocol_data
        except (msgspec.DecodeError, ValueError, RecursionError):
            return Names()
        return Names(data.tls.server_name, data.mqtt.client_id)


DIALECT: Final = _AwsIot()


@question("POST", paths=["aws-iot"], summary="AWS IoT: a custom authorizer's event", statuses=[200])
def ask(call: Call) -> Reply:
    event = dialect.read_fields(call.request)
    return json_reply(_decide(call.verifier, call.credentials, event, _ANY_PLACE))


def authorize(get_app: Callable[[], App], event: Mapping[str, Any], function_arn: str) -> dict[str, Any]:
    """Return the answer to an event with which AWS IoT invoked this function, within the time limit. Never raises."""
    return dict(msgspec.to_builtins(_authorize(get_app, event, function_arn)))


def _authorize(get_app: Callable[[], App], event: Mapping[str, Any], function_arn: str) -> _Answer:
    started = time.monotonic()
    parts = function_arn.split(":")
    place = (parts[1], parts[3], parts[4]) if len(parts) > 5 else _ANY_PLACE
    try:
        app = NETWORK.submit(get_app).result(VERDICT_SECONDS)  # the first call of a process builds the App
        end = started + app.verdict_seconds
        verifier = replace(app.verifier, dialect="aws_iot", check_time=partial(check_time, end))
        future = NETWORK.submit(partial(_decide, verifier, _INVOKER, event, place))
        return future.result(end - time.monotonic())
    except (TimeoutError, Busy):
        dialect.deny(Late())
    except Exception as error:  # noqa: BLE001 - every error denies; `deny` logs it
        dialect.deny(error)
    return _REFUSED


def _decide(
    verifier: Verifier, caller: Credentials | Caller, event: Mapping[str, Any], place: tuple[str, str, str]
) -> _Answer:
    """Return the answer to an event.

    Raises: WrongValue, MalformedBase64, and what `verify_client` raises.
    """
    data = _part(event, "protocolData")
    tls, mqtt = _part(data, "tls"), _part(data, "mqtt")
    client = ConnectingClient(
        server_name=dialect.read_text(tls, "serverName"),
        client_id=dialect.read_text(mqtt, "clientId"),
        certificate=dialect.read_certificate(dialect.read_text(tls, "x509CertificatePem"), "x509CertificatePem"),
        leaf_only=True,
    )
    verdict = verify_client(verifier, caller, client)
    if verdict.decision is not Decision.ALLOW or verdict.identity is None or verdict.org_id is None:
        return _REFUSED
    return _allow(verifier, verdict.org_id, verdict.identity, verdict.expires_at, place)


def _part(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = fields.get(name, {})
    if not isinstance(part, dict):
        raise WrongValue(field=name, found=f"{name} is no object")
    return part


def _allow(
    verifier: Verifier, org_id: str, device: DeviceName, expires_at: datetime | None, place: tuple[str, str, str]
) -> _Answer:
    """Return the answer that allows the client to connect, and to use its own topics only."""
    partition, region, account = place
    arn = f"arn:{partition}:iot:{region}:{account}:"
    prefix = verifier.topic_prefix.of(org_id, device)
    client = f"client/{device.client_class}:{org_id}:{device.type_id}:{device.device_id}"
    statements = [
        _Statement("Allow", ["iot:Connect"], [arn + client]),
        _Statement("Allow", ["iot:Publish", "iot:Receive"], [f"{arn}topic/{prefix}*"]),
        _Statement("Allow", ["iot:Subscribe"], [f"{arn}topicfilter/{prefix}*"]),
    ]
    return _Answer(
        is_authenticated=True,
        principal_id=sha256(f"{org_id}:{device}".encode()).hexdigest(),
        disconnect_after_in_seconds=_seconds_until(expires_at, verifier.context.clock()),
        policy_documents=[_Policy("2012-10-17", statements)],
    )


def _seconds_until(end: datetime | None, now: datetime) -> int:
    seconds = _SECONDS[-1] if end is None else int((end - now).total_seconds())
    return min(max(seconds, _SECONDS[0]), _SECONDS[-1])
