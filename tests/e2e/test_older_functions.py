"""The callout with older functions, whose verdicts have no fingerprints: a denial could not end such a session."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from demo.device import Device, context
from demo.stack import HAProxyEdge, Stack
from tests.e2e.conftest import Tenant


@contextmanager
def serve_verdict(verdict: dict[str, Any], *, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve *verdict* as the answer to every request; yield the URL. This replaces older functions."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            body = json.dumps(verdict, separators=(",", ":")).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"{'https://localhost' if tls else 'http://127.0.0.1'}:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("has_fingerprints", [True, False])
def test_a_device_is_refused_if_it_cannot_be_registered_by_fingerprint(
    stack: Stack, alpha: Tenant, tmp_path: Path, has_fingerprints: bool
) -> None:
    """The same verdict with fingerprints admits the device."""
    verdict = {
        "decision": "allow",
        "code": "allowed",
        "orgId": alpha.org.id,
        "identity": {"class": "d", "typeId": "thermo", "deviceId": "1"},
        "bound": True,
        "ca": {"id": alpha.root_id},
        "expiresAt": "2030-01-01T00:00:00Z",
        **({"fingerprintsSha256": [["a" * 64, "b" * 64], ["c" * 64]]} if has_fingerprints else {}),
    }
    keys = stack.edge.edge_key, stack.edge.broker_key
    edge = HAProxyEdge(tmp_path, stack.functions.url, *keys, stack.broker.trusting, stack.broker.asking)
    edge.sync_once()
    with serve_verdict(verdict) as edge.url:
        edge.start_haproxy()
        try:
            client_id = alpha.client_id("1")
            device = Device(edge.port, client_id, context(alpha.org.host, alpha.pki.leaf("d:thermo:1")[1]))
            assert device.connect() is has_fingerprints
            register = edge.command("show table sessions")
            assert (f"|{'a' * 16},{'b' * 16}|" in register) is has_fingerprints
            assert (f"|{'c' * 16}" in register) is has_fingerprints
            device.close()
        finally:
            edge.stop()
