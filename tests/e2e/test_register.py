"""What HAProxy registers of a session, and what the absence of the agent means, with one verdict for every device."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.device import Device, connect_packet, context
from demo.processes import until
from demo.stack import HAProxyEdge, Stack
from edge.runtime import RuntimeApi
from edge.sessions import RegisteredSession
from tests.e2e.conftest import Tenant
from tests.e2e.test_older_functions import serve_verdict

pytestmark = pytest.mark.timeout(120)


def make_verdict(tenant: Tenant, length: int = 3, **fields: Any) -> dict[str, Any]:
    """Make an allow of a path of *length* certificates."""
    return {
        "decision": "allow",
        "code": "allowed",
        "orgId": tenant.org.id,
        "identity": {"class": "d", "typeId": "thermo", "deviceId": "1"},
        "bound": True,
        "ca": {"id": tenant.root_id},
        "expiresAt": "2030-01-01T00:00:00Z",
        "fingerprintsSha256": [[f"{number:064x}"] for number in range(length)],
        "keyDigests": [f"{number:012x}" for number in range(length)],
        "serialDigests": [f"{number + 100:012x}" for number in range(length - 1)] + [""],
        "basis": "allow",
        **fields,
    }


@contextmanager
def edge_with(
    tenant: Tenant, folder: Path, verdict: dict[str, Any], *, tls: ssl.SSLContext | None = None, **settings: str
) -> Iterator[HAProxyEdge]:
    """Run an HAProxy without an agent, whose callout gets *verdict*."""
    stack = tenant.stack
    keys = stack.edge.edge_key, stack.edge.broker_key
    ports = stack.broker.trusting, stack.broker.asking
    edge = HAProxyEdge(folder, stack.functions.url, *keys, *ports, settings=settings)
    edge.sync_once()
    with serve_verdict(verdict, tls=tls) as edge.url:
        edge.start_haproxy()
        try:
            yield edge
        finally:
            edge.stop()


def connect(tenant: Tenant, edge: HAProxyEdge, name: str = "1") -> Device:
    return Device(edge.port, tenant.client_id(name), context(tenant.org.host, tenant.pki.leaf("d:thermo:1")[1]))


def read_session(edge: HAProxyEdge) -> RegisteredSession:
    keys = RuntimeApi(edge.socket).list_registered("sessions")
    session = RegisteredSession.parse(keys[0])
    assert len(keys) == 1
    assert session is not None
    return session


def test_a_session_is_registered_with_what_decisions_compare(alpha: Tenant, tmp_path: Path) -> None:
    """The digests of the path's certificates, the device's first, and the server name."""
    verdict = make_verdict(alpha)
    with edge_with(alpha, tmp_path, verdict) as edge:
        device = connect(alpha, edge)
        assert device.connect(), device.outcome
        session = read_session(edge)
        device.close()
    assert session.keys == tuple(verdict["keyDigests"])
    assert session.serials == tuple(verdict["serialDigests"])
    assert session.server_name == alpha.org.host
    assert session.basis == "allow"
    assert session.is_complete


def test_a_path_that_is_too_long_keeps_its_ends_and_is_asked_about(alpha: Tenant, tmp_path: Path) -> None:
    """A key of the table has at most 999 characters; HAProxy would cut a longer one."""
    verdict = make_verdict(alpha, 30)
    with edge_with(alpha, tmp_path, verdict) as edge:
        device = connect(alpha, edge)
        assert device.connect(), device.outcome
        session = read_session(edge)
        device.close()
    assert session.keys == (verdict["keyDigests"][0], verdict["keyDigests"][-1])
    assert session.serials == (verdict["serialDigests"][0], "")
    assert session.server_name == alpha.org.host
    assert not session.is_complete


def test_functions_of_the_version_before_register_no_digests(alpha: Tenant, tmp_path: Path) -> None:
    """The agent then asks about the session, or compares as its version before did."""
    verdict = make_verdict(alpha)
    del verdict["keyDigests"], verdict["serialDigests"], verdict["basis"]
    with edge_with(alpha, tmp_path, verdict) as edge:
        device = connect(alpha, edge)
        assert device.connect(), device.outcome
        session = read_session(edge)
        device.close()
    assert (session.keys, session.serials, session.is_complete) == ((), (), False)


@pytest.mark.slow
def test_without_an_agent_new_devices_are_refused_and_sessions_end_later(
    alpha: Tenant, stack: Stack, tmp_path: Path
) -> None:
    """Both times count from HAProxy's start, and from each number that the agent writes."""
    settings = {"TRUST_EDGE_STALE_AFTER": "2", "TRUST_EDGE_END_AFTER": "6"}
    with edge_with(alpha, tmp_path, make_verdict(alpha), tls=None, **settings) as edge:
        device = connect(alpha, edge)
        assert device.connect(), device.outcome
        until("new devices to be refused", lambda: not connect(alpha, edge, "new").connect())
        log = edge.folder / "haproxy.log"
        for words in ("error edge_stale", "the agent has not polled edgeFeed for", "new devices are refused"):
            until(f"{words} in the log", lambda words=words: words in log.read_text())  # type: ignore[misc]
        assert device.connected
        runtime = RuntimeApi(edge.socket)
        assert runtime.set_number("heartbeat", "agent", 1)
        until("devices to be admitted again", lambda: connect(alpha, edge, "new").connect())
        assert device.connected
        until("all sessions to end", device.disconnected.is_set, 20)
        device.close()
    assert not RuntimeApi(stack.edge.socket).set_number("no-such-table", "agent", 1)


def test_an_edge_that_has_no_agent_says_so(alpha: Tenant, tmp_path: Path) -> None:
    """With TRUST_EDGE_STALE_AFTER=0 nothing is watched. A wrong value stops the start."""
    with edge_with(alpha, tmp_path, make_verdict(alpha), TRUST_EDGE_STALE_AFTER="0") as edge:
        assert connect(alpha, edge).connect()
    with (
        pytest.raises(Exception, match="whole number of seconds"),
        edge_with(alpha, tmp_path, make_verdict(alpha), TRUST_EDGE_STALE_AFTER="soon"),
    ):
        pass


@pytest.mark.parametrize("trusted", ["10.9.9.9 127.0.0.0/8", "10.9.9.9"])
def test_a_load_balancer_passes_on_the_address_of_the_device(alpha: Tenant, tmp_path: Path, trusted: str) -> None:
    """TRUST_EDGE_PROXY_FROM names the load balancers. A PROXY header of any other address ends the connection. The log
    has the device's address; the session is found and ended by its connection's."""
    settings = {"TRUST_EDGE_PROXY_FROM": trusted}
    with (
        edge_with(alpha, tmp_path, make_verdict(alpha), tls=None, **settings) as edge,
        socket.create_connection(("127.0.0.1", edge.port), 10) as plain,
    ):
        plain.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 8883\r\n")
        tls = context(alpha.org.host, alpha.pki.leaf("d:thermo:1")[1])
        if "127." not in trusted:
            with pytest.raises(OSError):
                tls.wrap_socket(plain)
            return
        with tls.wrap_socket(plain) as secure:
            secure.sendall(connect_packet(alpha.client_id("1")))
            assert secure.recv(4) == b"\x20\x02\x00\x00"
            runtime, source = RuntimeApi(edge.socket), read_session(edge).source
            for address, name in runtime.list_sessions("mqtts"):
                if address == source:
                    runtime.end_session(name)
            assert secure.recv(4) == b""
        until("the line in the log", lambda: "192.0.2.7:4711 " in (edge.folder / "haproxy.log").read_text())


@pytest.mark.parametrize("is_known", [True, False])
def test_functions_on_another_machine_are_verified_by_their_certificate(
    alpha: Tenant, tmp_path: Path, is_known: bool
) -> None:
    """TRUST_CA_FILE has the CA certificates that may have signed it. The name is verified, too."""
    issued = alpha.pki.server("localhost")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*alpha.pki.files(issued))
    known = tmp_path / "ca.pem"
    known.write_text((alpha.pki.root if is_known else alpha.pki.ca("another")).pem)
    with edge_with(alpha, tmp_path, make_verdict(alpha), tls=tls, TRUST_CA_FILE=str(known)) as edge:
        assert connect(alpha, edge).connect() is is_known
