"""RabbitMQ behind the HAProxy edge, for several organizations: edge/rabbitmq/behind_haproxy and the page's steps."""

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from demo.device import Device, context
from demo.processes import Missing, free_port, until
from demo.stack import EDGE, HAProxyEdge, Stack
from tests.e2e.conftest import PASSWORD, Tenant, user_of
from tests.e2e.rabbitmq import PAGE, RabbitMQ, run_rabbitmq
from tests.support.missing import skip_or_fail

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

EDGE_PASSWORD = "chosen-by-the-operator"
STEPS = re.search(r"<!-- tested: users -->\n```sh\n(.*?)```", PAGE, re.DOTALL)
# What a Debian package leaves behind: RabbitMQ was started before it got its configuration.
FIRST_START = """
rabbitmqctl add_vhost /
rabbitmqctl add_user guest guest
rabbitmqctl set_user_tags guest administrator
rabbitmqctl set_permissions -p / guest '.*' '.*' '.*'
"""


@dataclass
class Rabbit:
    """RabbitMQ behind an edge. *output*: of the page's steps."""

    edge: HAProxyEdge
    broker: RabbitMQ
    output: str

    def device(self, tenant: Tenant, name: str, *, kind: str = "thermo", **more: Any) -> Device:
        """Make a device of an organization with a certificate of its own. *more*: client_id, files, token."""
        files = more.pop("files", None) or tenant.pki.leaf(f"d:{kind}:{name}")[1]
        client_id = more.pop("client_id", None) or tenant.client_id(name, kind)
        device = Device(self.edge.port, client_id, context(tenant.org.host, files), **more)
        tenant.devices.append(device)
        return device

    def connect(self, tenant: Tenant, name: str, **more: Any) -> Device:
        device = self.device(tenant, name, **more)
        assert device.connect(), f"{device.outcome}; {self.edge.haproxy.tail(800)}"  # type: ignore[union-attr]
        return device


@pytest.fixture(scope="module")
def rabbit(stack: Stack, tenants: tuple[Tenant, Tenant], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    folder, port = tmp_path_factory.mktemp("rabbit"), free_port()
    asking = free_port()  # nothing listens there, as the page says
    edge = HAProxyEdge(folder, stack.functions.url, stack.edge.edge_key, stack.edge.broker_key, port, asking)

    def change(text: str) -> str:
        return text.replace("127.0.0.1:1884", f"127.0.0.1:{port}").replace("PASSWORD", EDGE_PASSWORD)

    try:
        with run_rabbitmq(EDGE / "rabbitmq" / "behind_haproxy", folder, port, change) as broker:
            broker.run(FIRST_START)
            assert STEPS is not None
            output = broker.run(STEPS[1])
            try:
                yield Rabbit(edge.start(), broker, output)
            finally:
                edge.stop()
    except Missing as missing:
        skip_or_fail(str(missing))


def own(client_id: str, topic: str) -> str:
    return f"clients/{client_id}/{topic}"


def subscribe(device: Device, topic_filter: str) -> None:
    """Send a subscription, and return when the broker has answered or has ended the connection."""
    answers: list[object] = []
    device.client.on_subscribe = lambda *_: answers.append(True)
    device.client.subscribe(topic_filter, qos=1)
    until("an answer to the subscription", lambda: answers or device.disconnected.is_set())


def test_the_steps_of_the_page_leave_one_user_with_topic_permissions(rabbit: Rabbit) -> None:
    """The user `guest` of RabbitMQ's first start would be allowed everything."""
    assert "edge" in rabbit.output
    assert "guest" not in rabbit.broker.run("rabbitmqctl list_users")
    assert "amq.topic" in rabbit.output


def test_a_device_publishes_and_reads_under_its_own_client_id(rabbit: Rabbit, alpha: Tenant, beta: Tenant) -> None:
    """Devices of two organizations use one RabbitMQ at the same time."""
    for tenant in (alpha, beta):
        device = rabbit.connect(tenant, "own")
        device.subscribe(own(device.client_id, "#"))
        device.publish(own(device.client_id, "data"), b"21.5")
        message = (own(device.client_id, "data"), b"21.5")
        until("the device's own message", partial(device.received.__contains__, message))
        assert device.received == [message]


FILTERS = [
    "#",
    "+/#",
    "clients/#",
    "clients/+/#",
    "clients/+/data",
    "clients/*/#",
    "*.*.*",
    "+/d:alpha1:thermo:victim/#",
    "clients/d:alpha1:thermo:victim/#",
    "clients/d:alpha1:thermo:victim/data",
    "clients/d:beta01:thermo:spy/../#",
    "$share/group/#",
    "$share/group/clients/d:alpha1:thermo:victim/#",
    "$queue/clients/d:alpha1:thermo:victim/#",
    "$SYS/#",
]


@pytest.mark.parametrize("topic_filter", FILTERS)
def test_no_filter_reads_the_topics_of_another_organization(
    rabbit: Rabbit, alpha: Tenant, beta: Tenant, topic_filter: str
) -> None:
    """Neither messages nor retained messages of alpha's device reach beta's device."""
    victim = rabbit.connect(alpha, "victim")
    data = own(victim.client_id, "data")
    victim.client.publish(data, b"retained", qos=1, retain=True).wait_for_publish(10)
    spy = rabbit.connect(beta, "spy")
    subscribe(spy, topic_filter)
    victim.subscribe(own(victim.client_id, "#"))
    victim.publish(data, b"secret")
    until("the device's own message", lambda: (data, b"secret") in victim.received)
    if spy.connected:  # then a message of its own would be delivered after what was published before
        spy.publish(own(spy.client_id, "data"))
    assert spy.received == []


@pytest.mark.parametrize("retain", [False, True], ids=["live", "retained"])
@pytest.mark.parametrize("topic", ["data", "commands/on"])
def test_no_device_writes_the_topics_of_another_organization(
    rabbit: Rabbit, alpha: Tenant, beta: Tenant, topic: str, retain: bool
) -> None:
    """RabbitMQ ends the connection of the device that publishes there; nothing arrives, now or later."""
    victim = rabbit.connect(alpha, "target")
    victim.subscribe(own(victim.client_id, "#"))
    writer = rabbit.connect(beta, "writer")
    writer.client.publish(own(victim.client_id, topic), b"forged", qos=1, retain=retain)
    until("the device to be cut off", writer.disconnected.is_set)
    victim.publish(own(victim.client_id, "last"), b"last")
    until("the device's own message", lambda: victim.received)
    assert victim.received == [(own(victim.client_id, "last"), b"last")]
    victim.received.clear()
    victim.subscribe(own(victim.client_id, topic))
    assert (own(victim.client_id, topic), b"forged") not in victim.received


def test_a_will_does_not_write_the_topics_of_another_organization(rabbit: Rabbit, alpha: Tenant, beta: Tenant) -> None:
    """RabbitMQ refuses the will of a device whose connection breaks, and says so in its log."""
    victim = rabbit.connect(alpha, "heir")
    victim.subscribe(own(victim.client_id, "#"))
    dying = rabbit.device(beta, "broken")
    dying.client.will_set(own(victim.client_id, "will"), b"forged", qos=1)
    assert dying.connect(), dying.outcome
    connection = dying.client.socket()
    assert isinstance(connection, socket.socket)
    connection.shutdown(socket.SHUT_RDWR)
    until("RabbitMQ to refuse the will", lambda: "Could not send last will" in rabbit.broker.log.read_text())
    victim.publish(own(victim.client_id, "last"), b"last")
    until("the device's own message", lambda: victim.received)
    assert victim.received == [(own(victim.client_id, "last"), b"last")]


def test_devices_of_one_organization_are_kept_apart(rabbit: Rabbit, alpha: Tenant) -> None:
    """A dot in a device's name is a slash in RabbitMQ, so such a device has no topics, and no other device has them."""
    for name, topic_filter in (
        ("a", "clients/d:alpha1:thermo:b/#"),
        ("a.b", "clients/d:alpha1:thermo:a.b/#"),
        ("a.b", "clients/d:alpha1:thermo:a/b/#"),
        ("a.b", "clients/d:alpha1:thermo:aXb/#"),
    ):
        device = rabbit.connect(alpha, name)
        subscribe(device, topic_filter)
        until(f"{name} to be cut off by {topic_filter}", device.disconnected.is_set)
        writer = rabbit.connect(alpha, name)
        writer.client.publish(topic_filter.replace("#", "data"), b"x", qos=1)
        until(f"{name} to be cut off by publishing", writer.disconnected.is_set)


def test_the_user_of_the_edge_has_no_other_rights(rabbit: Rabbit, alpha: Tenant) -> None:
    """A device that knows the password of `edge` has its own topics, as a device without user name."""
    device = rabbit.connect(alpha, "named", token=("edge", EDGE_PASSWORD))
    device.subscribe(own(device.client_id, "#"))
    device.publish(own(device.client_id, "data"))
    until("the device's own message", lambda: device.received)
    device.client.subscribe("#", qos=1)
    until("the device to be cut off", device.disconnected.is_set)


def test_a_client_without_rights_is_refused(rabbit: Rabbit, alpha: Tenant, beta: Tenant) -> None:
    """Without a certificate, with another organization's, with another device's client ID, and with a token only."""
    _, strange = beta.pki.leaf("d:thermo:stranger")
    assert not rabbit.device(alpha, "stranger", files=strange).connect()
    assert not rabbit.device(alpha, "stranger", client_id=alpha.client_id("another")).connect()
    assert not rabbit.device(alpha, "stranger", client_id=beta.client_id("stranger")).connect()
    nothing = Device(rabbit.edge.port, alpha.client_id("stranger"), context(alpha.org.host))
    assert not nothing.connect()
    for kind in ("token", "both"):  # `continue` goes to a port where nothing listens
        client_id = alpha.client_id("dev1", kind)
        token = user_of(client_id), PASSWORD
        assert not rabbit.device(alpha, "dev1", kind=kind, token=token).connect()


@pytest.mark.parametrize(
    "token", [("guest", "guest"), ("/:guest", "guest"), ("edge", "guessed"), ("edge", ""), ("d:thermo:user", "x")]
)
def test_a_user_name_gives_no_other_rights(rabbit: Rabbit, alpha: Tenant, token: tuple[str, str]) -> None:
    """A device with a certificate that also sends user name and password needs those of a user of RabbitMQ."""
    assert not rabbit.device(alpha, "user", token=token).connect()
