"""RabbitMQ: rabbitmq_auth_backend_http (its README, "What Must My Web Server Do?").

Four questions, by GET or as a form; each is answered 200 `allow` or `deny`. With certificate login (the CN as user
name) only names arrive: they are believed for a key made with `--proof broker`. A password in the question, an empty
one too, means that the name was typed by the client and not read from its certificate.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from functions.dialects import dialect
from functions.dialects.dialect import NO_STORE, TEXT, EncodingDialect
from functions.web.contract import Call, endpoint
from functions.web.http import Reply, Request
from shared import errors
from shared.usecases.devices.verify import Use, verify_names, verify_use
from shared.validation.names import DeviceName
from shared.validation.policy import Decision
from shared.validation.topics import may_use_filter, may_use_topic
from shared.validation.verdict import Verdict
from shared.validation.verdict_by_name import Named

_EXCHANGE: Final = "amq.topic"  # of the MQTT plugin (mqtt.exchange)
_QUEUE: Final = re.compile(r"mqtt-subscription-(?P<client>.+)qos[01]|mqtt-will-(?P<will>.+)")


class _RabbitMQ(EncodingDialect):
    def tell(self, request: Request, verdict: Verdict) -> Reply:
        allowed = verdict.decision is Decision.ALLOW  # `continue` has no word here: another back end must come before
        return Reply(200, b"allow" if allowed else b"deny", TEXT, NO_STORE)


RABBITMQ: Final = _RabbitMQ()


@endpoint("RabbitMQ: may this user connect?", {200: None}, dialect=True)
def user(call: Call) -> Reply:
    found = dialect.fields(call.request)
    named = Named(dialect.text(found, "username"), dialect.text(found, "client_id"), typed="password" in found)
    return RABBITMQ.tell(call.request, verify_names(call.app.verifier, call.request.credentials, named))


@endpoint("RabbitMQ: may this user use the virtual host?", {200: None}, dialect=True)
def vhost(call: Call) -> Reply:
    """The org's only: a virtual host of the org's name."""
    found = dialect.fields(call.request)
    wanted = dialect.required(found, "vhost")
    return _use(call, found, lambda org_id, device, prefix: wanted == org_id)


@endpoint("RabbitMQ: may this user use the exchange or queue?", {200: None}, dialect=True)
def resource(call: Call) -> Reply:
    """The MQTT plugin's exchange, to write and to read; and the queues of the client's own subscriptions and will."""
    found = dialect.fields(call.request)
    kind, name = dialect.required(found, "resource"), dialect.required(found, "name")
    permission = _permission(found)

    def may(org_id: str, device: DeviceName, prefix: str) -> bool:
        if found.get("vhost") != org_id:
            return False
        if kind == "exchange":
            return name == _EXCHANGE and permission in ("write", "read")
        queue = _QUEUE.fullmatch(name) if kind == "queue" else None
        own = f"{device.client_class}:{org_id}:{device.type_id}:{device.device_id}"
        return queue is not None and own in (queue["client"], queue["will"])

    return _use(call, found, may)


@endpoint("RabbitMQ: may this user use the topic?", {200: None}, dialect=True)
def topic(call: Call) -> Reply:
    """A routing key has dots where MQTT has slashes, and `*` where MQTT has `+`. A dot of a name looks like a slash
    then, so a device with one in its type or id has no topics in RabbitMQ."""
    found = dialect.fields(call.request)
    key = dialect.required(found, "routing_key")
    name, permission = dialect.required(found, "name"), _permission(found)

    def may(org_id: str, device: DeviceName, prefix: str) -> bool:
        if found.get("vhost") != org_id or name != _EXCHANGE or "." in prefix or "/" in key or "+" in key:
            return False
        as_mqtt = key.replace(".", "/").replace("*", "+")
        return may_use_topic(prefix, as_mqtt) if permission == "write" else may_use_filter(prefix, as_mqtt)

    return _use(call, found, may)


def _permission(found: Mapping[str, Any]) -> str:
    permission = dialect.required(found, "permission")
    if permission not in ("configure", "write", "read"):
        raise errors.WrongValue(field="permission", found="permission is configure, write or read")
    return permission


def _use(call: Call, found: Mapping[str, Any], may: Use) -> Reply:
    client_id = dialect.text(found, "variable_map.client_id") or dialect.text(found, "client_id")
    named = Named(dialect.text(found, "username"), client_id)
    return RABBITMQ.tell(call.request, verify_use(call.app.verifier, call.request.credentials, named, may))
