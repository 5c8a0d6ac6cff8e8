"""Which topics a device may use: those under its prefix, and nothing else."""

import itertools

import pytest

from shared.validation.names import ClientClass, DeviceName
from shared.validation.topics import TopicPrefix, is_prefix, may_use_filter, may_use_topic

PREFIX = "mtxpd0/thermo/42/"


@pytest.mark.parametrize(
    "template",
    ["{orgId}/{typeId}/{deviceId}/", "{typeId}/{deviceId}/", "iot-2/{orgId}/{class}/{typeId}/id.x/{deviceId}/"],
)
def test_a_prefix_keeps_devices_apart(template: str) -> None:
    assert is_prefix(template)


@pytest.mark.parametrize(
    "template",
    [
        "",
        "/",
        "{orgId}/{typeId}/{deviceId}",  # dev1 would have dev10's
        "{orgId}/",
        "{typeId}{deviceId}/",  # a:bc and ab:c would share
        "{orgId}/{typeId}/",
        "/{typeId}/{deviceId}/",
        "{typeId}//{deviceId}/",
        "+/{typeId}/{deviceId}/",
        "#/{typeId}/{deviceId}/",
        "$SYS/{typeId}/{deviceId}/",
        "{typeId}/{deviceId}/../",
        "{typeId}/{deviceId}/{typeId}/",
        "{typeId}/{deviceId}/{secret}/",
        "{typeId}/{deviceId}/{0}/",
        "{typeId}/{deviceId}/{typeId.__class__}/",
        "x" * 250 + "/{typeId}/{deviceId}/",
    ],
)
def test_a_prefix_that_devices_could_share_is_refused(template: str) -> None:
    assert not is_prefix(template)


DEVICE, GATEWAY = ClientClass.DEVICE, ClientClass.GATEWAY


def test_devices_and_gateways_have_prefixes_of_their_own() -> None:
    assert TopicPrefix().of("mtxpd0", DeviceName(DEVICE, "thermo", "42")) == PREFIX
    assert TopicPrefix().of("mtxpd0", DeviceName(GATEWAY, "thermo", "42")) == "mtxpd0/gateway/thermo/42/"


@pytest.mark.parametrize("template", [None, "{orgId}/{class}/{typeId}/{deviceId}/"])
def test_no_client_has_topics_under_the_prefix_of_another(template: str | None) -> None:
    """The names that could be confused: a device type `gateway`, and ids with the names of levels and types."""
    names = ("gateway", "d", "g", "device", "thermo", "d-gateway")
    prefix = TopicPrefix(template)
    all_ = [
        prefix.of(org, DeviceName(kind, type_id, device_id))
        for org in ("mtxpd0", "gateway"[:6])
        for kind in (DEVICE, GATEWAY)
        for type_id in names
        for device_id in names
    ]
    assert len(set(all_)) == len(all_)
    assert not [(one, other) for one, other in itertools.permutations(all_, 2) if one.startswith(other)]


def test_a_prefix_that_the_operator_sets_is_that_of_every_class() -> None:
    """Installations that set the old default keep the topics of their gateways."""
    for kind in (DEVICE, GATEWAY):
        for type_id in ("thermo", "gateway"):
            device = DeviceName(kind, type_id, "42")
            assert TopicPrefix("{orgId}/{typeId}/{deviceId}/").of("mtxpd0", device) == f"mtxpd0/{type_id}/42/"
            assert TopicPrefix("{class}/{typeId}/{deviceId}/").of("mtxpd0", device) == f"{kind}/{type_id}/42/"


@pytest.mark.parametrize("topic", [PREFIX + "evt", PREFIX + "a/b/c", PREFIX + "/", PREFIX + "é", PREFIX + "a..b"])
def test_topics_under_the_prefix_are_allowed(topic: str) -> None:
    assert may_use_topic(PREFIX, topic)
    assert may_use_filter(PREFIX, topic)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        PREFIX,
        "mtxpd0/thermo/42",
        "mtxpd0/thermo/421/evt",
        "mtxpd0/thermo/4/2/evt",
        "mtxpd0/Thermo/42/evt",
        "other1/thermo/42/evt",
        f"/{PREFIX}evt",
        f" {PREFIX}evt",
        f"{PREFIX}../43/evt",
        f"{PREFIX}a/..",
        f"{PREFIX}evt\x00",
        f"{PREFIX}evt\n",
        f"{PREFIX}\ud800",
        f"$share/g/{PREFIX}evt",
        "$SYS/broker/clients",
        f"$queue/{PREFIX}evt",
        PREFIX + "x" * 65_536,
    ],
)
def test_every_other_topic_is_refused(topic: str) -> None:
    assert not may_use_topic(PREFIX, topic)
    assert not may_use_filter(PREFIX, topic)


@pytest.mark.parametrize("name", ["#", "+", "+/x", "x/#", "+/+/#"])
def test_wildcards_after_the_prefix_are_for_subscriptions_only(name: str) -> None:
    assert may_use_filter(PREFIX, PREFIX + name)
    assert not may_use_topic(PREFIX, PREFIX + name)


@pytest.mark.parametrize(
    "topic_filter",
    [
        "#",
        "+/thermo/42/evt",
        "mtxpd0/+/42/evt",
        "mtxpd0/thermo/+/evt",
        "mtxpd0/thermo/#",
        "mtxpd0/thermo/42#",
        "mtxpd0/thermo/42+/x",
        f"{PREFIX}#/x",
        f"{PREFIX}x#",
        f"{PREFIX}x+/y",
        f"{PREFIX}+x",
    ],
)
def test_a_wildcard_cannot_take_the_place_of_a_name(topic_filter: str) -> None:
    """A wildcard within a level is refused as well (MQTT 5.0, 4.7.1)."""
    assert not may_use_filter(PREFIX, topic_filter)
