"""The edge works with any MQTT broker; here with a broker in pure Python."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.device import Device, context
from demo.processes import Process, free_port, program, until
from demo.stack import ROOT, HAProxyEdge, Stack
from tests.e2e.conftest import Tenant

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def second_edge(stack: Stack, tmp_path: Path) -> Iterator[HAProxyEdge]:
    """A second HAProxy with an agent of its own, for the same organizations."""
    program("haproxy", "haproxy")
    port = free_port()
    command = [sys.executable, "-m", "tests.e2e.amqtt_broker", str(port)]
    broker = Process("amqtt", command, tmp_path / "amqtt.log", cwd=ROOT, env=dict(os.environ))
    edge = HAProxyEdge(tmp_path, stack.functions.url, stack.edge.edge_key, stack.edge.broker_key, port, free_port())
    try:
        broker.wait_for_port(port)
        yield edge.start()
    finally:
        edge.stop()
        broker.stop()


def test_a_device_is_admitted_and_a_stranger_is_refused(alpha: Tenant, beta: Tenant, second_edge: HAProxyEdge) -> None:
    """A device's message at QoS 1 arrives; a device of another org is refused."""
    _, files = alpha.pki.leaf("d:thermo:amqtt")
    _, strange = beta.pki.leaf("d:thermo:amqtt")
    client_id = alpha.client_id("amqtt")
    device = Device(second_edge.port, client_id, context(alpha.org.host, files))
    alpha.devices.append(device)
    assert device.connect(), device.outcome
    device.subscribe(f"clients/{client_id}/#")
    device.publish(f"clients/{client_id}/data", b"1")
    until("the device's own message", lambda: device.received)
    assert not Device(second_edge.port, client_id, context(alpha.org.host, strange)).connect()
