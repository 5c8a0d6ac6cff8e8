"""A device behind Envoy or nginx (MQTT over WebSocket) says in its own headers that it is a device of another tenant.

The broker is a server that records what reaches it: that is all that a broker knows of the client.
"""

import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from demo.device import context
from demo.envoy import EnvoyEdge
from demo.nginx import NginxEdge
from demo.processes import free_port, until
from demo.stack import Org
from tests.attacks.rig import TREE, Attacked, attacked
from tests.e2e.pki import Files, Pki

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

Headers = list[tuple[str, str]]
WEBSOCKET = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "mqtt",
}
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


@dataclass
class Recorder:
    """A server that accepts each upgrade and keeps the headers that arrived."""

    port: int = field(default_factory=free_port)
    seen: list[Headers] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):  # the end of the test closes the listener
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._record, args=[connection], daemon=True).start()

    def _record(self, connection: socket.socket) -> None:
        head = b""
        with closing(connection), suppress(OSError):
            while b"\r\n\r\n" not in head:
                part = connection.recv(1 << 16)
                if not part:
                    return
                head += part
            lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
            pairs = (line.partition(":") for line in lines)
            self.seen.append([(name.strip().lower(), value.strip()) for name, _, value in pairs])
            connection.sendall(SWITCH)
            connection.recv(1)

    def close(self) -> None:
        self._listener.close()


@dataclass
class Scene:
    """Two tenants, a proxy of each kind, and the server behind both."""

    alpha: Org
    beta: Org
    files: Files
    ports: Mapping[str, int]
    recorder: Recorder

    def upgrade(self, proxy: str, **headers: str) -> tuple[int, Headers]:
        """Connect as device d:thermo:1 of alpha1 with more *headers*. Return the status and what the broker saw."""
        self.recorder.seen.clear()
        sent = {"Host": self.alpha.host, **WEBSOCKET, **headers}
        lines = "".join(f"{name}: {text}\r\n" for name, text in sent.items())
        plain = socket.create_connection(("127.0.0.1", self.ports[proxy]), timeout=20)
        tls = context(self.alpha.host, self.files)
        with closing(ssl.SSLContext.wrap_socket(tls, plain, server_hostname=self.alpha.host)) as secure:
            secure.sendall(f"GET /mqtt HTTP/1.1\r\n{lines}\r\n".encode())
            status = int(secure.recv(1 << 16).split()[1])
        return status, self.recorder.seen[0] if self.recorder.seen else []


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder, recorder = tmp_path_factory.mktemp("identity"), Recorder()
    proxies: list[Any] = []
    with attacked(folder) as functions:
        try:
            yield start(functions, recorder, proxies, tmp_path_factory)
        finally:
            for proxy in proxies:
                proxy.stop()
            recorder.close()


def start(functions: Attacked, recorder: Recorder, proxies: list[Any], folders: pytest.TempPathFactory) -> Scene:
    alpha, beta = Org.create(functions, "alpha1"), Org.create(functions, "beta01")
    pki = Pki(folders.mktemp("pki"), "alpha1")
    alpha.upload_ca(pki.root.pem)
    _, files = pki.leaf("d:thermo:1")
    envoy = EnvoyEdge(folders.mktemp("envoy"), functions, recorder.port, recorder.port, tree=TREE)
    nginx = NginxEdge(folders.mktemp("nginx"), functions, recorder.port, tree=TREE)
    proxies += [envoy, nginx]
    envoy.start()
    nginx.start()
    nginx.wait_until_served(alpha.host)
    envoy.wait_until_served(alpha.host)
    scene = Scene(alpha, beta, files, {"envoy": envoy.websocket_port, "nginx": nginx.port}, recorder)
    for proxy in scene.ports:
        until(f"a first connection through {proxy}", lambda: scene.upgrade(proxy)[0] == 101)  # noqa: B023
    return scene


BOTH = pytest.mark.parametrize("proxy", ["envoy", "nginx"])


def values(seen: Headers, name: str) -> list[str]:
    return [text for header, text in seen if header.replace("_", "-") == name]


@BOTH
def test_the_broker_is_given_the_whole_identity(scene: Scene, proxy: str) -> None:
    """An identity is one device in each organization, so the organization must be named with it."""
    status, seen = scene.upgrade(proxy)
    assert status == 101
    assert values(seen, "x-client-id") == ["d:alpha1:thermo:1"], seen
    assert values(seen, "x-client-org") == ["alpha1"], seen
    assert values(seen, "host") == [scene.alpha.host], seen


@BOTH
@pytest.mark.parametrize("separator", ["-", "_"])
def test_the_clients_own_headers_do_not_reach_the_broker(scene: Scene, proxy: str, separator: str) -> None:
    """Also not in the form that many servers read for the same name."""
    forged = {
        "x-client-id": "d:beta01:thermo:1",
        "x-client-org": "beta01",
        "x-client-identity": "d:thermo:2",
        "x-forwarded-host": "beta01.messaging.iot.example",
        "x-forwarded-for": "10.0.0.1",
        "x-forwarded-proto": "h2",
        "x-user": "admin",
    }
    status, seen = scene.upgrade(proxy, **{name.replace("-", separator): text for name, text in forged.items()})
    if status == 101:
        assert values(seen, "x-client-id") == ["d:alpha1:thermo:1"], seen
        assert values(seen, "x-client-org") == ["alpha1"], seen
        assert values(seen, "x-client-identity") == ["d:thermo:1"], seen
        assert [(name, text) for name, text in seen if text in forged.values()] == []
    else:
        assert (status, seen) == (400, []), "a header with underscores may be refused as well"


@BOTH
def test_the_host_of_another_tenant_does_not_reach_the_broker(scene: Scene, proxy: str) -> None:
    """A broker that serves several organizations may choose by the Host header."""
    status, seen = scene.upgrade(proxy, Host=scene.beta.host)
    assert status in (101, 404)
    assert values(seen, "host") in ([], [scene.alpha.host]), seen
