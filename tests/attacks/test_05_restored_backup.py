"""The store is restored from a backup while an edge is away, and the feeds' numbers repeat with other content."""

import shutil

import pytest

from demo.device import fetch_fingerprint
from demo.processes import until
from demo.stack import Org, Stack
from tests.e2e.conftest import Tenant

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]


def back_up(stack: Stack) -> None:
    stack.functions.stop()
    shutil.copytree(stack.folder / "data", stack.folder / "backup")
    stack.functions.start()


def restore(stack: Stack) -> None:
    """Restore the backup while the edge's agent is away."""
    assert stack.edge.agent is not None
    stack.edge.agent.stop()
    stack.functions.stop()
    shutil.rmtree(stack.folder / "data")
    shutil.move(stack.folder / "backup", stack.folder / "data")
    stack.functions.start()


def deny_others(tenant: Tenant, *names: str) -> None:
    for name in names:
        tenant.org.deny(kind="identity", value=f"d:thermo:{name}", reason="lost")


def test_a_device_that_is_denied_after_the_restore_does_not_stay(stack: Stack, tenant: Tenant) -> None:
    """The edge has read as many withdrawals of the old history as the new history has, and one of them is its own."""
    back_up(stack)
    deny_others(tenant, "a", "b", "c")
    probe = tenant.connect_device("probe")
    tenant.org.deny(kind="identity", value="d:thermo:probe", reason="the edge has read all lines")
    assert probe.disconnected.wait(5)
    victim, stays = tenant.connect_device("victim"), tenant.connect_device("stays")
    restore(stack)
    tenant.org.deny(kind="identity", value="d:thermo:victim", reason="stolen")
    deny_others(tenant, "d", "e", "f", "g", "h")
    stack.edge.start_agent()
    assert victim.disconnected.wait(10), "a denied device stays connected"
    assert stays.connected


def test_a_certificate_that_the_store_does_not_know_is_not_served(stack: Stack, tenant: Tenant) -> None:
    """The certificate was activated after the backup; the restored store has another history of hosts."""
    host = tenant.org.host
    before = fetch_fingerprint(stack.edge.port, host)
    back_up(stack)
    unknown = tenant.pki.server(host)
    tenant.org.activate(tenant.org.upload_server(unknown.pem, unknown.key_pem))
    until("the new certificate", lambda: fetch_fingerprint(stack.edge.port, host) == unknown.fingerprint)
    restore(stack)
    others = [Org.create(stack.functions, f"other{number}") for number in range(4)]
    stack.edge.start_agent()
    until("another organization's host", lambda: fetch_fingerprint(stack.edge.port, others[-1].host))
    until(
        "the certificate that the store knows", lambda: fetch_fingerprint(stack.edge.port, host) == before, seconds=10
    )
