"""A withdrawal ends sessions within two seconds, not only at the next connection."""

from collections.abc import Callable

import pytest

from demo.device import Device
from demo.processes import until
from demo.stack import Stack
from tests.e2e.conftest import Stopwatch, Tenant, make_tenant
from tests.support.malleable import twin

pytestmark = pytest.mark.timeout(180)

Measured = Callable[[str, float], None]


def measure_until_ended(device: Device) -> float:
    """Return the seconds until the edge cuts a device off; at most two are promised."""
    watch = Stopwatch()
    until(f"the session of {device.client_id} to end", device.disconnected.is_set, 10, every=0.01)
    assert watch.seconds < 2
    return watch.seconds


def test_a_device_on_the_deny_list_is_cut_off(alpha: Tenant, measured: Measured) -> None:
    """The entry names an identity; another device stays."""
    out, stays = (alpha.publisher(alpha.client_id(name)) for name in ("out1", "stays1"))
    entry = alpha.org.deny(kind="identity", value="d:thermo:out1", reason="stolen")
    measured("identity denied -> its session ended", measure_until_ended(out.device))
    out.stop()
    assert not alpha.device(out.device.client_id, alpha.pki.leaf("d:thermo:out1")[1]).connect()
    stays.stop()
    assert stays.lost() == []
    alpha.org.lift(entry)


def test_a_denied_certificate_in_its_other_form_is_cut_off(alpha: Tenant) -> None:
    """The entries name fingerprints, of a device's and of a CA's certificate, from before a thief rewrote them."""
    issued, _ = alpha.pki.leaf("d:thermo:rewritten")
    intermediate = alpha.pki.ca("alpha intermediate, rewritten", alpha.pki.root)
    through, _ = alpha.pki.leaf("d:thermo:behind", intermediate)
    device = alpha.connect(alpha.client_id("rewritten"), alpha.pki.files(twin(issued)))
    behind = alpha.connect(alpha.client_id("behind"), alpha.pki.files(through, twin(intermediate)))
    for certificate in (issued, intermediate):
        alpha.org.deny(kind="fingerprint", value=certificate.fingerprint, reason="stolen")
    measure_until_ended(device)
    measure_until_ended(behind)


@pytest.mark.parametrize("kind", ["fingerprint", "serial"])
def test_a_certificate_on_the_deny_list_is_cut_off(alpha: Tenant, measured: Measured, kind: str) -> None:
    """The entry names a SHA-256 fingerprint, or a serial number and the issuing CA."""
    issued, files = alpha.pki.leaf(f"d:thermo:{kind}")
    _, neighbours = alpha.pki.leaf("d:thermo:neighbour")
    device = alpha.connect(alpha.client_id(kind), files)
    stays = alpha.connect(alpha.client_id("neighbour"), neighbours)
    value = issued.fingerprint if kind == "fingerprint" else f"{alpha.root_id}:{issued.cert.serial_number:x}"
    alpha.org.deny(kind=kind, value=value, reason="lost")
    measured(f"{kind} denied -> its session ended", measure_until_ended(device))
    assert stays.connected


def test_devices_of_a_withdrawn_ca_are_cut_off(alpha: Tenant, measured: Measured) -> None:
    """Devices that the CA vouched for and devices whose path leads through it; devices of another CA stay."""
    second = alpha.pki.ca("alpha CA to be withdrawn")
    below = alpha.pki.ca("alpha intermediate below it", second)
    ca_id = alpha.org.upload_ca(second.pem)
    _, direct = alpha.pki.leaf("d:thermo:direct", second)
    _, through = alpha.pki.leaf("d:thermo:through", below, send=(below,))
    out = [
        alpha.connect(alpha.client_id("direct"), direct),
        alpha.connect(alpha.client_id("through"), through),
    ]
    stays = alpha.publisher(alpha.client_id("stays2"))
    alpha.org.change_ca(ca_id, "inactive")
    measured("CA withdrawn -> sessions ended", max(measure_until_ended(device) for device in out))
    stays.stop()
    assert stays.lost() == []


def test_a_suspended_orgs_devices_are_cut_off_and_it_is_served_no_more(
    alpha: Tenant, stack: Stack, measured: Measured, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Another org's devices stay."""
    tenant = make_tenant(stack, tmp_path_factory.mktemp("delta"), "delta1")
    _, files = tenant.pki.leaf("d:thermo:1")
    device = tenant.connect(tenant.client_id("1"), files)
    stays = alpha.publisher(alpha.client_id("stays3"))
    stack.functions.suspend_org("delta1")
    measured("org suspended -> sessions ended", measure_until_ended(device))
    assert not tenant.device(tenant.client_id("1"), files).connect()
    stays.stop()
    assert stays.lost() == []
    stack.functions.suspend_org("delta1", False)
    until("the resumed org's device to be admitted", lambda: tenant.device(tenant.client_id("1"), files).connect())
    for device in tenant.devices:
        device.close()


def test_what_is_withdrawn_while_the_agent_is_away_is_cut_off_when_it_is_back(alpha: Tenant, stack: Stack) -> None:
    """The agent continues where it stopped."""
    _, files = alpha.pki.leaf("d:thermo:late")
    device = alpha.connect(alpha.client_id("late"), files)
    assert stack.edge.agent is not None
    stack.edge.agent.stop()
    entry = alpha.org.deny(kind="identity", value="d:thermo:late", reason="stolen")
    assert device.connected
    stack.edge.start_agent()
    until("the session to end", device.disconnected.is_set)
    alpha.org.lift(entry)
