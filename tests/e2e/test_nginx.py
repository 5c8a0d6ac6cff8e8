"""nginx as an edge for MQTT over WebSocket, with edge/nginx/nginx.conf and verifyClient's nginx dialect."""

import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from demo.device import Device, context, fetch_fingerprint
from demo.nginx import NginxEdge
from demo.processes import Missing, free_port, until
from demo.stack import Functions, Stack
from tests.e2e.conftest import Tenant, s_client
from tests.e2e.pki import Files
from tests.support.missing import skip_or_fail

pytestmark = pytest.mark.timeout(180)

BOTH_VERSIONS = pytest.mark.parametrize("only", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])


@pytest.fixture(scope="module")
def nginx(
    stack: Stack, tenants: tuple[Tenant, Tenant], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NginxEdge]:
    made = NginxEdge(tmp_path_factory.mktemp("nginx"), stack.functions, stack.broker.websockets)
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
    tenant: Tenant, nginx: NginxEdge, name: str, files: Files | None, *, only: ssl.TLSVersion | None = None
) -> Device:
    made = Device(nginx.port, tenant.client_id(name), context(tenant.org.host, files, only=only), websocket=True)
    tenant.devices.append(made)
    return made


def upgrade(
    nginx: NginxEdge,
    host: str,
    files: Files | None,
    *,
    path: str = "/mqtt",
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    session: ssl.SSLSession | None = None,
) -> tuple[int, ssl.SSLSession | None, bool]:
    """Ask to become a WebSocket. Return (HTTP status, TLS session, whether the session was resumed).

    *tls*: the context that made *session*.
    """
    sent = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": "mqtt",
        **(headers or {}),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    tls = tls or context(host, files)
    plain = socket.create_connection(("127.0.0.1", nginx.port), timeout=15)
    with closing(ssl.SSLContext.wrap_socket(tls, plain, server_hostname=host, session=session)) as secure:
        secure.sendall(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
        answer = secure.recv(4096)
        return int(answer.split()[1]), secure.session, bool(secure.session_reused)


@BOTH_VERSIONS
def test_a_device_of_the_org_is_admitted(alpha: Tenant, nginx: NginxEdge, only: ssl.TLSVersion) -> None:
    """A device's message at QoS 1 arrives."""
    _, files = alpha.pki.leaf("d:thermo:nginx")
    client = device(alpha, nginx, "nginx", files, only=only)
    assert client.connect(), client.outcome
    client.subscribe(f"clients/{client.client_id}/#")
    client.publish(f"clients/{client.client_id}/data", b"21.5")
    until("the device's own message", lambda: client.received)


@BOTH_VERSIONS
@pytest.mark.parametrize("which", ["strange", "expired", "none"])
def test_others_are_refused(alpha: Tenant, beta: Tenant, nginx: NginxEdge, only: ssl.TLSVersion, which: str) -> None:
    """Another org's certificate, an expired one and none at all: the handshake succeeds, the upgrade is refused."""
    files = None
    if which == "strange":
        _, files = beta.pki.leaf("d:thermo:nginx")
    elif which == "expired":
        _, files = alpha.pki.leaf("d:thermo:nginx", expired=True)
    by_nginx_itself = which == "expired"  # optional_no_ca ignores an unknown issuer, and nothing else
    assert upgrade(nginx, alpha.org.host, files, tls=context(None, files, only=only))[0] == (
        400 if by_nginx_itself else 403
    )
    assert not device(alpha, nginx, "nginx", files, only=only).connect()


def test_a_device_on_the_deny_list_is_refused(alpha: Tenant, nginx: NginxEdge) -> None:
    """The refusal is in force at the next connection."""
    _, files = alpha.pki.leaf("d:thermo:nginxdeny")
    entry = alpha.org.deny(kind="identity", value="d:thermo:nginxdeny", reason="stolen")
    assert not device(alpha, nginx, "nginxdeny", files).connect()
    alpha.org.lift(entry)
    assert device(alpha, nginx, "nginxdeny", files).connect()


def test_the_clients_own_headers_are_ignored(alpha: Tenant, beta: Tenant, nginx: NginxEdge) -> None:
    """A certificate is public, so a certificate in a header proves nothing; nor does a server name, nor a key."""
    issued, files = alpha.pki.leaf("d:thermo:nginxhead")
    _, strange = beta.pki.leaf("d:thermo:nginxhead")
    forged = {"X-Client-Cert": quote(issued.pem), "X-SNI": alpha.org.host, "Authorization": "Basic eDp5"}
    assert upgrade(nginx, alpha.org.host, None, headers=forged)[0] == 403
    assert upgrade(nginx, alpha.org.host, strange, headers=forged)[0] == 403
    assert upgrade(nginx, beta.org.host, files, headers=forged)[0] == 403
    named = {"X-SNI": beta.org.host, "Host": beta.org.host}
    assert upgrade(nginx, alpha.org.host, strange, headers=named)[0] == 403
    # Nor do such headers harm a client that has proven its identity.
    others = {
        **named,
        "X-Client-Cert": quote(strange[0].read_text()),
        "X-Client-Id": "x",
        "Authorization": "Basic eDp5",
    }
    assert upgrade(nginx, alpha.org.host, files, headers=others)[0] == 101


def test_only_a_websocket_on_its_path_reaches_the_broker(alpha: Tenant, nginx: NginxEdge) -> None:
    """The callout cannot be called from outside, and other requests are refused."""
    _, files = alpha.pki.leaf("d:thermo:nginxway")
    for path in ("/verify_client", "/mqtt/", "/", "/../mqtt/x", "/mqtt%00"):
        assert upgrade(nginx, alpha.org.host, files, path=path)[0] in (400, 404)
    assert upgrade(nginx, alpha.org.host, files, headers={"Upgrade": "h2c"})[0] == 400


@pytest.mark.parametrize("host", ["unknown.messaging.iot.example", "example.com", None], ids=str)
@BOTH_VERSIONS
def test_an_unknown_server_name_gets_no_handshake(
    alpha: Tenant, nginx: NginxEdge, host: str | None, only: ssl.TLSVersion
) -> None:
    """The same holds for a connection without a server name."""
    _, files = alpha.pki.leaf("d:thermo:nginxlost")
    lost = Device(nginx.port, alpha.client_id("nginxlost"), context(host, files, only=only), websocket=True)
    assert not lost.connect()
    assert "SSL" in lost.outcome or "reset" in lost.outcome.lower(), lost.outcome


@pytest.mark.parametrize("before", ["../certs/", "x/../", "/"])
def test_a_server_name_that_is_a_path_gets_no_handshake(alpha: Tenant, nginx: NginxEdge, before: str) -> None:
    """This holds even if the path leads to a certificate."""
    assert "BEGIN CERTIFICATE" in s_client(nginx.port, "-servername", alpha.org.host)
    assert "BEGIN CERTIFICATE" not in s_client(nginx.port, "-servername", before + alpha.org.host)


@BOTH_VERSIONS
def test_no_session_is_resumed_not_even_for_the_same_org(
    alpha: Tenant, beta: Tenant, nginx: NginxEdge, only: ssl.TLSVersion
) -> None:
    """Each connection proves possession of the key again."""
    _, files = alpha.pki.leaf("d:thermo:nginxagain")
    tls = context(None, files, only=only)
    status, session, _ = upgrade(nginx, alpha.org.host, files, tls=tls)
    assert status == 101
    assert upgrade(nginx, alpha.org.host, files, tls=tls, session=session)[::2] == (101, False)
    assert upgrade(nginx, beta.org.host, files, tls=tls, session=session)[::2] == (403, False)


def test_a_new_server_certificate_is_shown_without_a_reload(alpha: Tenant, nginx: NginxEdge) -> None:
    """nginx serves the certificate as soon as its file is written; connected devices stay."""
    _, files = alpha.pki.leaf("d:thermo:nginxkeeps")
    keeps = device(alpha, nginx, "nginxkeeps", files)
    assert keeps.connect(), keeps.outcome
    issued = alpha.pki.server(alpha.org.host)
    alpha.org.activate(alpha.org.upload_server(issued.pem, issued.key_pem))
    nginx.take_certificates()
    assert fetch_fingerprint(nginx.port, alpha.org.host) == issued.fingerprint
    assert keeps.connected
    alpha.org.activate("default")
    nginx.take_certificates()


def test_while_the_functions_are_away_every_device_is_refused(
    alpha: Tenant, nginx: NginxEdge, stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Without an answer nginx refuses."""
    _, files = alpha.pki.leaf("d:thermo:nginxaway")
    away = NginxEdge(tmp_path_factory.mktemp("nginx-away"), stack.functions, stack.broker.websockets)
    try:
        away.start()
        away.wait_until_served(alpha.org.host)
        assert upgrade(away, alpha.org.host, files)[0] == 101
        away.stop()
        away.functions = Functions(stack.functions.folder, free_port())  # no process listens there
        away.start_nginx()
        assert upgrade(away, alpha.org.host, files)[0] == 500
    finally:
        away.stop()


class BalancedNginx(NginxEdge):
    """nginx with the lines that its file describes for a load balancer."""

    def _config(self) -> str:
        lines = "ssl proxy_protocol;\n    set_real_ip_from 127.0.0.0/8;\n    real_ip_header proxy_protocol;"
        return super()._config().replace(f"listen 127.0.0.1:{self.port} ssl;", f"listen 127.0.0.1:{self.port} {lines}")


def test_behind_a_load_balancer_the_log_has_the_address_of_the_device(
    stack: Stack, alpha: Tenant, tmp_path: Path
) -> None:
    """The load balancer sends a PROXY protocol header."""
    made = BalancedNginx(tmp_path, stack.functions, stack.broker.websockets)
    try:
        made.start()
        with socket.create_connection(("127.0.0.1", made.port), 10) as plain:
            plain.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 8443\r\n")
            with context(alpha.org.host).wrap_socket(plain) as secure:
                secure.sendall(f"GET / HTTP/1.1\r\nHost: {alpha.org.host}\r\n\r\n".encode())
                assert b" 404 " in secure.recv(4096)
        until("the line in the log", lambda: "192.0.2.7:4711 " in (tmp_path / "access.log").read_text())
    finally:
        made.stop()
