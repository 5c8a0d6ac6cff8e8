"""RabbitMQ with its own MQTT listener, configured from edge/rabbitmq, and verifyClient's rabbitmq dialect."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from demo.device import Device, context
from demo.processes import Missing, free_port, until
from demo.stack import EDGE, Stack
from shared.records import Proof, Role
from tests.e2e.conftest import Tenant
from tests.e2e.pki import Files
from tests.e2e.rabbitmq import PAGE, RabbitMQ, run_rabbitmq
from tests.support.missing import skip_or_fail

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@dataclass
class Rabbit:
    port: int
    tenant: Tenant
    broker: RabbitMQ

    def device(self, name: str, files: Files | None) -> Device:
        device = Device(self.port, self.tenant.client_id(name), context(self.tenant.org.host, files))
        self.tenant.devices.append(device)
        return device


@pytest.fixture(scope="module")
def rabbit(stack: Stack, tenants: tuple[Tenant, Tenant], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    tenant, folder = tenants[0], tmp_path_factory.mktemp("rabbit")
    port = free_port()
    key = stack.functions.key(Role.BROKER, tenant.org.id, proof=Proof.BROKER, listener="certificates")
    server = tenant.pki.server(tenant.org.host)
    (folder / "server.pem").write_text(server.pem)
    (folder / "server.key").write_text(server.key_pem)
    (folder / "cas.pem").write_text(tenant.pki.root.pem)

    def change(text: str) -> str:
        text = text.replace("127.0.0.1:8883", f"127.0.0.1:{port}").replace("ORGID", tenant.org.id)
        text = text.replace("KEY:TOKEN@127.0.0.1:8080", f"{key}@127.0.0.1:{stack.functions.port}")
        for question in ("user", "vhost", "resource", "topic"):
            text = text.replace(f"rabbitmq/{question}\n", f"rabbitmq/{question}?listener=certificates\n")
        return text

    try:
        with run_rabbitmq(EDGE / "rabbitmq", folder, port, change) as broker:
            yield Rabbit(port, tenant, broker)
    except Missing as missing:
        skip_or_fail(str(missing))


def test_a_device_is_admitted_and_has_its_own_topics(rabbit: Rabbit, alpha: Tenant) -> None:
    """The CN is the user name; what the device publishes under its own prefix comes back to it."""
    _, files = alpha.pki.leaf("d:thermo:rabbit")
    device = rabbit.device("rabbit", files)
    assert device.connect(), device.outcome
    device.subscribe("alpha1/thermo/rabbit/#")
    device.publish("alpha1/thermo/rabbit/data", b"21.5")
    until("the device's own message", lambda: device.received)


def test_another_devices_topics_are_refused(rabbit: Rabbit, alpha: Tenant) -> None:
    """RabbitMQ cuts off a device that publishes to another device's topic."""
    _, files = alpha.pki.leaf("d:thermo:rabbit")
    device = rabbit.device("rabbit", files)
    assert device.connect(), device.outcome
    device.client.publish("alpha1/thermo/other/data", b"x", qos=1)
    until("the device to be cut off", device.disconnected.is_set)


@pytest.mark.parametrize(
    "topic_filter",
    ["#", "+/#", "alpha1/#", "alpha1/+/rabbit/#", "alpha1/thermo/+/data", "*/#", "$share/group/alpha1/thermo/rabbit/#"],
)
def test_a_filter_beyond_the_own_topics_is_refused(rabbit: Rabbit, alpha: Tenant, topic_filter: str) -> None:
    """RabbitMQ cuts off a device that subscribes to more than its own prefix."""
    _, files = alpha.pki.leaf("d:thermo:rabbit")
    device = rabbit.device("rabbit", files)
    assert device.connect(), device.outcome
    device.client.subscribe(topic_filter, qos=1)
    until("the device to be cut off", device.disconnected.is_set)


def test_a_strangers_certificate_is_refused(rabbit: Rabbit, alpha: Tenant, beta: Tenant) -> None:
    """RabbitMQ itself refuses it: its list of CAs contains the org's CAs only."""
    _, files = beta.pki.leaf("d:thermo:rabbit")
    assert not rabbit.device("rabbit", files).connect()
    assert not rabbit.device("rabbit", None).connect()


def test_the_client_id_of_another_device_is_refused(rabbit: Rabbit, alpha: Tenant) -> None:
    """The verdict is about the user name and the client ID."""
    _, files = alpha.pki.leaf("d:thermo:rabbit")
    assert not rabbit.device("somebody", files).connect()


def test_a_device_on_the_deny_list_is_refused(rabbit: Rabbit, alpha: Tenant) -> None:
    """The entry names an identity, because RabbitMQ passes on nothing more."""
    _, files = alpha.pki.leaf("d:thermo:rabbitdeny")
    entry = alpha.org.deny(kind="identity", value="d:thermo:rabbitdeny", reason="stolen")
    assert not rabbit.device("rabbitdeny", files).connect()
    alpha.org.lift(entry)
    device = rabbit.device("rabbitdeny", files)
    assert device.connect(), device.outcome


def test_a_ca_that_is_no_longer_in_the_file_is_refused(rabbit: Rabbit, alpha: Tenant, beta: Tenant) -> None:
    """With the command of the page RabbitMQ reads `cas.pem` again, also while a device is connected."""
    command = re.search(r"`(rabbitmqctl eval [^`]+)`", PAGE)
    assert command is not None
    _, files = alpha.pki.leaf("d:thermo:rabbitca")
    device = rabbit.device("rabbitca", files)
    assert device.connect(), device.outcome
    cas = rabbit.broker.folder / "cas.pem"
    before = cas.read_text()
    try:
        cas.write_text(beta.pki.root.pem)
        rabbit.broker.run(command[1])
        assert not rabbit.device("rabbitca", files).connect()
    finally:
        cas.write_text(before)
        rabbit.broker.run(command[1])
    again = rabbit.device("rabbitca", files)
    assert again.connect(), again.outcome
