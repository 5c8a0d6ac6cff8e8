"""Which topics a device or gateway may use: those under its prefix, and nothing else.

No device's prefix begins with another device's (docs/decisions/0122). The prefix is a literal text once the device is
known. A topic or topic filter is compared with it character by character, so no wildcard can take the place of a name:
`mtxpd0/thermo/+/x` begins with no device's prefix.
"""

import re
from typing import Final

import msgspec

from shared.validation.names import ClientClass, DeviceName

TOPIC_MAX: Final = 65_535  # bytes of UTF-8 (MQTT 5.0, 1.5.4)
DEVICE_PREFIX: Final = "{orgId}/{typeId}/{deviceId}/"
GATEWAY_PREFIX: Final = "{orgId}/gateway/{typeId}/{deviceId}/"
# Of devices whose type has the name of the gateways' level. A typeId has no colon, so no other device has this level.
_NAMESAKE_PREFIX: Final = "{orgId}/d:{typeId}/{deviceId}/"
_NAMESAKE: Final = "gateway"
_LEVEL: Final = re.compile(r"\{(orgId|class|typeId|deviceId)\}|[A-Za-z0-9_-][A-Za-z0-9_.-]*")


def is_prefix(template: str) -> bool:
    """Whether *template* keeps the devices of one organization and class apart.

    It has whole levels, `{typeId}` and `{deviceId}` once each, `{orgId}` and `{class}` at most once, and a slash at the
    end."""
    *levels, end = template.split("/")
    names = [level for level in levels if level.startswith("{")]
    return (
        end == ""
        and len(template) <= 256
        and all(_LEVEL.fullmatch(level) for level in levels)
        and len(names) == len(set(names))
        and {"{typeId}", "{deviceId}"} <= set(names)
    )


def names_org(template: str) -> bool:
    """Whether *template* keeps organizations apart."""
    return "{orgId}" in template


def names_class(template: str) -> bool:
    """Whether *template* keeps a device and a gateway of the same type and id apart."""
    return "{class}" in template


class TopicPrefix(msgspec.Struct, frozen=True):
    """The prefix of the topics of each device and gateway.

    Args:
        template: the setting TRUST_TOPIC_PREFIX, for every class; None for the default of each class.
    """

    template: str | None = None

    def of(self, org_id: str, device: DeviceName) -> str:
        """Return the text that each topic of *device* begins with."""
        template = self.template or _default(device)
        return template.replace("{class}", device.client_class.value).format(
            orgId=org_id, typeId=device.type_id, deviceId=device.device_id
        )


def _default(device: DeviceName) -> str:
    if device.client_class is ClientClass.GATEWAY:
        return GATEWAY_PREFIX
    return _NAMESAKE_PREFIX if device.type_id == _NAMESAKE else DEVICE_PREFIX


def may_use_topic(prefix: str, topic: str) -> bool:
    """Whether *topic*, a topic name, is under *prefix* (publishing, delivery). A name has no wildcards."""
    return _is_under(prefix, topic) and "+" not in topic and "#" not in topic


def may_use_filter(prefix: str, topic_filter: str) -> bool:
    """Whether everything that *topic_filter* matches is under *prefix* (subscribing).

    Wildcards are whole levels behind the prefix (MQTT 5.0, 4.7.1); `$share/…` and `$SYS` begin with no prefix."""
    if not _is_under(prefix, topic_filter):
        return False
    *levels, last = topic_filter[len(prefix) :].split("/")
    has_whole_levels = all(level == "+" or ("+" not in level and "#" not in level) for level in levels)
    return has_whole_levels and (last in ("+", "#") or ("+" not in last and "#" not in last))


def _is_under(prefix: str, topic: str) -> bool:
    rest = topic[len(prefix) :]
    return (
        topic.startswith(prefix)
        and rest != ""
        and len(topic.encode("utf-8", "surrogatepass")) <= TOPIC_MAX
        and not any(_is_control(char) for char in topic)
        and ".." not in rest.split("/")  # has no meaning in MQTT, but has one in a bridge to files or HTTP
    )


def _is_control(char: str) -> bool:
    """Whether *char* is NUL, another control character, or a lone surrogate.

    A broker may refuse them (MQTT 5.0, 1.5.4), so they are refused here."""
    code = ord(char)
    return code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code <= 0xDFFF
