"""Row 14: a plain HTTP proxy on the machine of the functions. For the functions, every client is then on this machine.

The attacker reads the network in front of the proxy. So a private key must not pass the proxy.
"""

import http.client
import os
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.processes import Process, free_port, program
from shared.records import Role
from tests.attacks.rig import Attacked, attacked

HOST = "//edge/v1/hosts/alpha1.messaging.iot.example"

HEADERS = (
    "X-Forwarded-For $proxy_add_x_forwarded_for",
    "X-Forwarded-Proto $scheme",
    'Forwarded "for=192.0.2.7;proto=http"',
    "X-Real-IP $remote_addr",
    'Via "1.1 edge"',
)

_NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{behind};
            {header}
        }}
    }}
}}
"""


@contextmanager
def plain_proxy(folder: Path, functions: Attacked, header: str = "") -> Iterator[int]:
    """Run nginx before the functions; *header* is a directive that adds a header. Yield the port."""
    folder.mkdir()
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port, behind=functions.port, header=header))
    binary = program("nginx", "nginx")
    command = [binary, "-p", str(folder), "-c", str(config), *(["-g", "user root;"] if os.geteuid() == 0 else [])]
    nginx = Process("nginx", command, folder / "nginx.log")
    try:
        nginx.wait_for_port(port)
        yield port
    finally:
        nginx.stop()


def fetch(port: int, key: str, path: str = HOST, **headers: str) -> tuple[int, bytes]:
    """Return status and body of a request over plain HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        sent = {"Authorization": "Basic " + b64encode(key.encode()).decode(), **headers}
        connection.request("GET", path[1:], headers=sent)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_no_private_key_passes_a_plain_proxy_that_adds_no_header(tmp_path: Path) -> None:
    """As nginx forwards by default. The functions cannot see such a proxy, so the operator decides."""
    with attacked(tmp_path, TRUST_EDGE_PLAIN="") as functions:
        functions.create_org("alpha1")
        key = functions.key(Role.EDGE)
        with plain_proxy(tmp_path / "proxy", functions) as port:
            status, body = fetch(port, key)
            assert b"PRIVATE KEY" not in body, "a private key came over plain HTTP, through a proxy"
            assert status == 403
            assert b"TRUST_EDGE_PLAIN" in body, "the answer says what to do"


def test_no_private_key_passes_a_proxy_that_shows_itself(tmp_path: Path) -> None:
    """Also where the operator has allowed plain HTTP for an edge on this machine."""
    with attacked(tmp_path, TRUST_EDGE_PLAIN="loopback") as functions:
        functions.create_org("alpha1")
        key = functions.key(Role.EDGE)
        for number, header in enumerate(HEADERS):
            with plain_proxy(tmp_path / f"proxy{number}", functions, f"proxy_set_header {header};") as port:
                status, body = fetch(port, key)
                assert b"PRIVATE KEY" not in body, f"a private key came over plain HTTP, through a proxy with {header}"
                assert status == 403, header
        status, body = fetch(functions.port, key)
        assert (status, b"PRIVATE KEY" in body) == (200, True), "an edge on this machine goes on"
