"""RabbitMQ: rabbitmq_auth_backend_http (its README, "What Must My Web Server Do?").

Four questions, by GET or as a form; each is answered 200 `allow` or `deny`. With certificate login (the CN as user
name) RabbitMQ passes names only, which are accepted for a key made with `--proof broker`. A password in the question,
even an empty one, means that the client typed the name and RabbitMQ did not read it from a certificate.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from functions.call import Call
from functions.dialects import dialect
from functions.dialects.dialect import TEXT, EncodingDialect, question
from functions.web.message import NO_STORE, Reply
from shared.errors import WrongValue
from shared.usecases.devices.verify import Use, verify_names, verify_use
from shared.validation.names import DeviceName
from shared.validation.policy import Decision
from shared.validation.topics import may_use_filter, may_use_topic
from shared.validation.verdict import Verdict
from shared.validation.verdict_by_name import NamedClient

_EXCHANGE: Final = "amq.topic"  # of the MQTT plugin (mqtt.exchange)
_QUEUE: Final = re.compile(r"mqtt-subscription-(?P<client>.+)qos[01]|mqtt-will-(?P<will>.+)")


class _RabbitMQ(EncodingDialect):
    def encode(self, verdict: Verdict) -> Reply:
        # RabbitMQ has no answer for `continue`: a back end that asks for the token must come before this one.
        is_allowed = verdict.decision is Decision.ALLOW
        return Reply(200, b"allow" if is_allowed else b"deny", TEXT, NO_STORE)


DIALECT: Final = _RabbitMQ()


@question("GET", "POST", paths=["rabbitmq/user"], summary="RabbitMQ: may this user connect?", statuses=[200])
def user(call: Call) -> Reply:
    fields = dialect.read_fields(call.request)
    username, client_id = dialect.read_name(fields, "username"), dialect.read_name(fields, "client_id")
    listeners = dialect.read_listeners(call.request, fields.get("vhost"))
    named = NamedClient(username, client_id, typed="password" in fields, listeners=listeners)
    return DIALECT.encode(verify_names(call.verifier, call.credentials, named))


@question(
    "GET",
    "POST",
    paths=["rabbitmq/vhost"],
    summary="RabbitMQ: may this user use the virtual host?",
    statuses=[200],
)
def vhost(call: Call) -> Reply:
    """Allow the virtual host that has the organization's id as its name."""
    fields = dialect.read_fields(call.request)
    requested = dialect.require_text(fields, "vhost")
    return _decide_use(call, fields, lambda org_id, device, prefix: requested == org_id)


@question(
    "GET",
    "POST",
    paths=["rabbitmq/resource"],
    summary="RabbitMQ: may this user use the exchange or queue?",
    statuses=[200],
)
def resource(call: Call) -> Reply:
    """Allow writing and reading the MQTT plugin's exchange, and the queues of the client's subscriptions and will."""
    fields = dialect.read_fields(call.request)
    kind, name = dialect.require_text(fields, "resource"), dialect.require_text(fields, "name")
    permission = _permission(fields)

    def may_use(org_id: str, device: DeviceName, prefix: str) -> bool:
        if fields.get("vhost") != org_id:
            return False
        if kind == "exchange":
            return name == _EXCHANGE and permission in ("write", "read")
        queue = _QUEUE.fullmatch(name) if kind == "queue" else None
        own = f"{device.client_class}:{org_id}:{device.type_id}:{device.device_id}"
        return queue is not None and own in (queue["client"], queue["will"])

    return _decide_use(call, fields, may_use)


@question("GET", "POST", paths=["rabbitmq/topic"], summary="RabbitMQ: may this user use the topic?", statuses=[200])
def topic(call: Call) -> Reply:
    """Allow the client's own topics.

    A routing key has dots where MQTT has slashes, and `*` where MQTT has `+`. A dot in a name would read as a slash, so
    a device with a dot in its type or id has no topics in RabbitMQ.
    """
    fields = dialect.read_fields(call.request)
    key = dialect.require_text(fields, "routing_key")
    name, permission = dialect.require_text(fields, "name"), _permission(fields)

    def may_use(org_id: str, device: DeviceName, prefix: str) -> bool:
        if fields.get("vhost") != org_id or name != _EXCHANGE or "." in prefix or "/" in key or "+" in key:
            return False
        as_mqtt = key.replace(".", "/").replace("*", "+")
        return may_use_topic(prefix, as_mqtt) if permission == "write" else may_use_filter(prefix, as_mqtt)

    return _decide_use(call, fields, may_use)


def _permission(fields: Mapping[str, Any]) -> str:
    """Return the requested permission. Raises: MissingField, WrongValue."""
    permission = dialect.require_text(fields, "permission")
    if permission not in ("configure", "write", "read"):
        raise WrongValue(field="permission", found="permission is configure, write or read")
    return permission


def _decide_use(call: Call, fields: Mapping[str, Any], may_use: Use) -> Reply:
    client_id = dialect.read_name(fields, "variable_map.client_id") or dialect.read_name(fields, "client_id")
    listeners = dialect.read_listeners(call.request, fields.get("vhost"))
    named = NamedClient(dialect.read_name(fields, "username"), client_id, listeners=listeners)
    return DIALECT.encode(verify_use(call.verifier, call.credentials, named, may_use))
