"""A withdrawal that gets lost on its way, and an edge whose agent hears of none.

The functions are killed between a change and its line in the feed; the edge's key is revoked, or its agent is killed; a
CA is withdrawn only for a moment.
"""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from demo.processes import until
from demo.stack import ApiRefused, Stack
from shared.records import Role
from tests.attacks.rig import Attacked
from tests.e2e.conftest import Tenant

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

WATCHED = pytest.mark.parametrize("stack", [{"TRUST_EDGE_STALE_AFTER": "4"}], indirect=True, ids=["4s"])
ROUNDS, DEVICES = 4, 24  # kills, and devices that are denied at the same time in each


def is_admitted(tenant: Tenant, name: str) -> bool:
    return tenant.device(tenant.client_id(name), tenant.pki.leaf(f"d:thermo:{name}")[1]).connect()


def test_a_kill_between_a_change_and_its_line_loses_no_withdrawal(stack: Stack, tenant: Tenant) -> None:
    """Many devices are denied at once, and the functions are killed meanwhile. Every device whose denial is stored is
    cut off after the restart, whether or not the denial was answered."""
    functions = stack.functions
    stayed: list[str] = []
    for number in range(ROUNDS):
        names = [f"r{number}-{device}" for device in range(DEVICES)]
        devices = {name: tenant.connect_device(name) for name in names}
        answered = threading.Semaphore(0)

        def deny(name: str, answered: threading.Semaphore = answered) -> None:
            with suppress(OSError, ApiRefused, ValueError):
                tenant.org.deny(kind="identity", value=f"d:thermo:{name}", reason="stolen")
            answered.release()

        with ThreadPoolExecutor(DEVICES) as pool:
            for name in names:
                pool.submit(deny, name)
            for _ in range(3 + number):
                answered.acquire()
            assert functions.process is not None
            functions.process.stop(signal.SIGKILL)
        functions.start()
        stored = {entry["value"].rpartition(":")[2] for entry in list_denials(tenant)}
        probe = tenant.connect_device(f"probe{number}")
        tenant.org.deny(kind="identity", value=f"d:thermo:probe{number}", reason="a later line")
        assert probe.disconnected.wait(30)  # the agent follows the feed again
        stayed += [name for name in names if name in stored and not devices[name].disconnected.wait(5)]
        for device in devices.values():
            device.close()
    assert stayed == [], f"{len(stayed)} denied devices stay connected"


def list_denials(tenant: Tenant) -> list[dict[str, str]]:
    entries: list[dict[str, str]] = []
    bookmark = ""
    while True:
        page = tenant.org.call("GET", f"/authorization/denylist?limit=200{bookmark}")
        entries += page["results"]
        if not page.get("bookmark"):
            return entries
        bookmark = f"&bookmark={page['bookmark']}"


@WATCHED
@pytest.mark.parametrize("loss", ["key revoked", "agent killed"])
def test_an_edge_that_hears_of_no_withdrawal_admits_no_new_device(stack: Stack, tenant: Tenant, loss: str) -> None:
    """After a while without a successful poll, new devices are refused. A connected device stays. Once the agent polls
    again, devices are admitted again."""
    edge, functions = stack.edge, stack.functions
    assert isinstance(functions, Attacked)
    assert edge.agent is not None
    connected = tenant.connect_device("before")
    if loss == "agent killed":
        edge.agent.stop(signal.SIGKILL)
    else:
        name = edge.edge_key.read_text().partition(":")[0]
        functions.admin("key", "revoke", name)

    def is_stale() -> bool:
        return not is_admitted(tenant, "new") and " error edge_stale " in (edge.folder / "haproxy.log").read_text()

    until("new devices to be refused", is_stale, 30)
    assert connected.connected
    if loss == "key revoked":
        edge.agent.stop()
        edge.edge_key.write_text(functions.key(Role.EDGE) + "\n")
    edge.start_agent()
    until("devices to be admitted again", lambda: is_admitted(tenant, "new"), 30)


def test_a_device_that_connects_after_its_ca_is_active_again_stays(tenant: Tenant) -> None:
    """The session from before the withdrawal would be allowed again, too, when the edge looks."""
    tenant.org.change_ca(tenant.root_id, "inactive")
    tenant.org.change_ca(tenant.root_id, "active")
    device = tenant.connect_device("after")
    assert not device.disconnected.wait(7), "a device was cut off by a withdrawal from before it connected"
