"""Answers to the callout that are endless or cut off, and an address of the functions that only looks local."""

import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from demo.device import Device, context
from demo.processes import program
from demo.stack import HAProxyEdge, Stack
from tests.attacks.rig import TREE
from tests.e2e.conftest import Tenant, make_tenant

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

VERDICT = {
    "decision": "allow",
    "code": "allowed",
    "orgId": "alpha1",
    "identity": {"class": "d", "typeId": "thermo", "deviceId": "1"},
    "bound": True,
    "ca": {"id": "0123456789abcdef-" + "c" * 32, "subject": 'CN=a "quoted" {name'},
    "expiresAt": "2030-01-01T00:00:00Z",
    "fingerprintsSha256": [["a" * 64]],
    "keyDigests": ["1" * 12, "2" * 12],
    "serialDigests": ["3" * 12, ""],
    "watsonReason": None,
}
BODY = json.dumps(VERDICT, separators=(",", ":")).encode()
CUT = BODY[:-20]
SHORT = json.dumps({name: VERDICT[name] for name in VERDICT if name != "expiresAt"}, separators=(",", ":")).encode()
FLOOD = 400 * 1024 * 1024  # bytes after which the endless answer ends, so that this machine is spared
MEMORY = 150 * 1024  # KiB that HAProxy may have used at most

Send = Callable[[socket.socket], None]


def answer(body: bytes, length: int | None, *, chunked: bool = False) -> Send:
    """Return a sender of *body*. *length*: the announced Content-Length; None for none."""
    headers = b"" if length is None else f"Content-Length: {length}\r\n".encode()
    if chunked:
        headers, body = b"Transfer-Encoding: chunked\r\n", b"%x\r\n%s\r\n" % (len(body), body)
    return lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n" + body)


def flood(headers: bytes, part: bytes) -> Send:
    """Return a sender of a valid verdict with endless spaces after it."""

    def send(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n")
        for _ in range(FLOOD // len(part)):
            connection.sendall(part)

    return send


@contextmanager
def serve(send: Send) -> Iterator[str]:
    """Answer every request with *send*, then close the connection. Yield the URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:

        def handle(connection: socket.socket) -> None:
            with connection, suppress(OSError, ValueError):
                request = b""
                while b"\r\n\r\n" not in request:
                    request += connection.recv(65536)
                head, _, body = request.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                while length and len(body) < int(length[1]):
                    body += connection.recv(65536)
                send(connection)

        def run() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=handle, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=run, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(scope="module")
def tenant(shared_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Tenant:
    return make_tenant(shared_stack, tmp_path_factory.mktemp("pki"), "alpha1")


@contextmanager
def edge_asking(tenant: Tenant, folder: Path, send: Send) -> Iterator[tuple[HAProxyEdge, Device]]:
    """Run an HAProxy whose callout is answered by *send*, and make a device in front of it."""
    stack = tenant.stack
    keys = stack.edge.edge_key, stack.edge.broker_key
    edge = HAProxyEdge(folder, stack.functions.url, *keys, stack.broker.trusting, stack.broker.asking, tree=TREE)
    edge.sync_once()
    with serve(send) as edge.url:
        edge.start_haproxy()
        try:
            device = Device(
                edge.port, tenant.client_id("1"), context(tenant.org.host, tenant.pki.leaf("d:thermo:1")[1])
            )
            yield edge, device
            device.close()
        finally:
            edge.stop()


@pytest.mark.parametrize(
    ("send", "is_allowed"),
    [
        (answer(BODY, len(BODY)), True),
        (answer(BODY, None), True),
        (answer(BODY, None, chunked=True), True),
        (answer(CUT, None, chunked=True), False),
        (answer(CUT, len(BODY)), False),
        (answer(CUT, None), False),
        (answer(CUT, len(CUT)), False),
        (answer(SHORT, len(BODY)), False),
    ],
    ids=[
        "whole",
        "no length",
        "chunks",
        "chunks cut off",
        "cut off",
        "cut off, no length",
        "wrong length",
        "too short",
    ],
)
def test_only_a_whole_answer_counts(tenant: Tenant, tmp_path: Path, send: Send, is_allowed: bool) -> None:
    """An `allow` that was cut off could lack what limits it."""
    with edge_asking(tenant, tmp_path, send) as (_, device):
        assert device.connect(15) is is_allowed


@pytest.mark.parametrize(
    "send",
    [
        flood(b"", b" " * 65536),
        flood(b"Transfer-Encoding: chunked\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"),
        flood(b"Content-Length: 999999999\r\n", b" " * 65536),
    ],
    ids=["no length", "chunks", "length"],
)
def test_an_endless_answer_costs_haproxy_no_memory(tenant: Tenant, tmp_path: Path, send: Send) -> None:
    """The device is refused, and at most 64 KiB of an answer are read."""
    with edge_asking(tenant, tmp_path, send) as (edge, device):
        assert not device.connect(20)
        assert edge.haproxy is not None
        status = Path(f"/proc/{edge.haproxy._popen.pid}/status").read_text()
        used = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])
        assert used < MEMORY, f"HAProxy used {used // 1024} MiB"


@pytest.mark.parametrize(
    ("url", "is_accepted"),
    [
        ("http://127.evil.example", False),
        ("http://127.0.0.1.evil.example:8080", False),
        ("http://127.0.0.1@evil.example", False),
        ("http://[::1].evil.example", False),
        ("http://evil.example/127.0.0.1", False),
        ("http://127.0.0.1:8080", True),
        ("http://[::1]:8080", True),
        ("https://trust.example.com", True),
        ("https://trust.example.com:8443/prefix/", True),
    ],
)
def test_keys_go_in_plain_to_this_machine_only(shared_stack: Stack, url: str, is_accepted: bool) -> None:
    """An address whose host only looks local is refused at HAProxy's start."""
    edge = shared_stack.edge
    command = [program("haproxy", "haproxy"), "-c", "-f", str(edge.code / "haproxy.cfg")]
    environment = {**os.environ, **edge.env, "TRUST_URL": url}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is is_accepted, done.stderr
