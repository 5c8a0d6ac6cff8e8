"""Envoy as the edge: it pulls from edgeFeed, and asks verifyClient over gRPC (MQTT) or HTTP (WebSocket)."""

import socket
import ssl
import statistics
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from demo.device import Device, Publisher, context, fetch_fingerprint
from demo.envoy import EnvoyEdge
from demo.processes import Missing, until
from demo.stack import Stack
from tests.e2e.conftest import Stopwatch, Tenant
from tests.e2e.pki import Files
from tests.support.missing import skip_or_fail

pytestmark = pytest.mark.timeout(180)

Measured = Callable[[str, float], None]


@pytest.fixture(scope="session")
def envoy(
    stack: Stack, tenants: tuple[Tenant, Tenant], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EnvoyEdge]:
    made = EnvoyEdge(tmp_path_factory.mktemp("envoy"), stack.functions, stack.broker.trusting, stack.broker.websockets)
    try:
        made.start()
        for tenant in tenants:
            made.wait_until_served(tenant.org.host)
        yield made
    except Missing as missing:
        skip_or_fail(str(missing))
    finally:
        made.stop()


def device(
    tenant: Tenant,
    envoy: EnvoyEdge,
    name: str,
    files: Files | None,
    *,
    websocket: bool = False,
    only: ssl.TLSVersion | None = None,
) -> Device:
    port = envoy.websocket_port if websocket else envoy.port
    made = Device(port, tenant.client_id(name), context(tenant.org.host, files, only=only), websocket=websocket)
    tenant.devices.append(made)
    return made


BOTH_WAYS = pytest.mark.parametrize("websocket", [False, True], ids=["mqtt", "websocket"])
BOTH_VERSIONS = pytest.mark.parametrize("only", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])


@BOTH_WAYS
@BOTH_VERSIONS
def test_a_device_of_the_org_is_admitted(
    alpha: Tenant, envoy: EnvoyEdge, websocket: bool, only: ssl.TLSVersion
) -> None:
    """A certificate that a registered CA signed admits its device, over MQTT and WebSocket."""
    _, files = alpha.pki.leaf("d:thermo:envoy")
    client = device(alpha, envoy, "envoy", files, websocket=websocket, only=only)
    assert client.connect(), client.outcome


@BOTH_WAYS
@pytest.mark.parametrize("which", ["strange", "expired", "none"])
def test_others_are_refused(alpha: Tenant, beta: Tenant, envoy: EnvoyEdge, websocket: bool, which: str) -> None:
    """Another org's certificate, an expired one and none at all: the handshake succeeds, the connection is refused."""
    files = None
    if which == "strange":
        _, files = beta.pki.leaf("d:thermo:envoy")
    elif which == "expired":
        _, files = alpha.pki.leaf("d:thermo:envoy", expired=True)
    assert not device(alpha, envoy, "envoy", files, websocket=websocket).connect()


@BOTH_WAYS
def test_a_device_on_the_deny_list_is_refused(alpha: Tenant, envoy: EnvoyEdge, websocket: bool) -> None:
    """The refusal is in force at the next connection."""
    _, files = alpha.pki.leaf("d:thermo:envoydeny")
    entry = alpha.org.deny(kind="identity", value="d:thermo:envoydeny", reason="stolen")
    assert not device(alpha, envoy, "envoydeny", files, websocket=websocket).connect()
    alpha.org.lift(entry)
    assert device(alpha, envoy, "envoydeny", files, websocket=websocket).connect()


def test_a_sent_intermediate_works_over_websocket_but_not_over_mqtt(alpha: Tenant, envoy: EnvoyEdge) -> None:
    """Envoy's gRPC callout carries the leaf only, so the org has to register the intermediate. Envoy's page says so."""
    intermediate = alpha.pki.ca("alpha intermediate before envoy", alpha.pki.root)
    _, files = alpha.pki.leaf("d:thermo:envoyinter", intermediate, send=(intermediate,))
    assert device(alpha, envoy, "envoyinter", files, websocket=True).connect()
    assert not device(alpha, envoy, "envoyinter", files).connect()
    alpha.org.upload_ca(intermediate.pem)
    assert device(alpha, envoy, "envoyinter", files).connect()


def test_an_unknown_server_name_gets_no_handshake(alpha: Tenant, envoy: EnvoyEdge) -> None:
    """The same holds for a connection without a server name."""
    assert fetch_fingerprint(envoy.port, "unknown.messaging.iot.example") is None
    assert fetch_fingerprint(envoy.port, None) is None


def test_a_server_certificate_is_replaced_while_a_device_keeps_publishing(
    alpha: Tenant, envoy: EnvoyEdge, measured: Measured
) -> None:
    """No device is disconnected, and no message is lost."""
    _, files = alpha.pki.leaf("d:thermo:envoykeeps")
    keeps = device(alpha, envoy, "envoykeeps", files)
    assert keeps.connect(), keeps.outcome
    publisher = Publisher(keeps, f"clients/{keeps.client_id}/data")
    times = []
    for _ in range(3):
        issued = alpha.pki.server(alpha.org.host)
        alpha.org.activate(alpha.org.upload_server(issued.pem, issued.key_pem))
        watch = Stopwatch()
        until("Envoy to show it", lambda: fetch_fingerprint(envoy.port, alpha.org.host) == issued.fingerprint)  # noqa: B023
        times.append(watch.seconds)
    measured("Envoy: server certificate activated -> shown (median of 3)", statistics.median(times))
    publisher.stop()
    assert publisher.lost() == []
    alpha.org.activate("default")


def test_while_the_shim_is_away_every_device_is_refused(alpha: Tenant, envoy: EnvoyEdge) -> None:
    """Without an answer Envoy refuses."""
    _, files = alpha.pki.leaf("d:thermo:envoyaway")
    assert envoy.shim is not None
    envoy.shim.stop()
    try:
        assert not device(alpha, envoy, "envoyaway", files).connect()
    finally:
        envoy.start_shim()
    until("the device to be admitted again", lambda: device(alpha, envoy, "envoyaway", files).connect())


class BalancedEnvoy(EnvoyEdge):
    """Envoy whose listeners are behind a load balancer."""

    def _bootstrap(self) -> Any:
        bootstrap: Any = super()._bootstrap()
        for listener in bootstrap["node"]["metadata"]["listeners"]:
            listener["proxy_protocol"] = True
        return bootstrap


def test_a_listener_takes_the_header_of_a_load_balancer(stack: Stack, alpha: Tenant, tmp_path: Path) -> None:
    """With `proxy_protocol` a handshake follows the header; without the header there is none."""
    made = BalancedEnvoy(tmp_path, stack.functions, stack.broker.trusting, stack.broker.websockets)

    def has_handshake() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", made.port), 5) as plain:
            plain.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 8883\r\n")
            with context(alpha.org.host).wrap_socket(plain):
                return True
        return False

    try:
        made.start()
        until("a handshake behind the header", has_handshake)
        assert fetch_fingerprint(made.port, alpha.org.host) is None
    finally:
        made.stop()
