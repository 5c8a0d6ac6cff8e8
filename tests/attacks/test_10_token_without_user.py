"""A token in a CONNECT without a user name, before a broker that takes the password alone (a JWT) as proof.

The broker cannot compare the token with the client ID. An edge that passes such a CONNECT lets any holder of a token be
any device that may use one.
"""

import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from demo.device import context
from demo.processes import Missing
from demo.stack import Stack
from tests.attacks.rig import attacked_stack
from tests.e2e.conftest import LEVELS, Tenant, make_tenant, user_of
from tests.support.missing import skip_or_fail

pytestmark = pytest.mark.timeout(120)

TOKEN = b"the JWT of d:token:own"
ACCEPTED = b"\x20\x03\x00\x00\x00"  # CONNACK of MQTT 5, success
VICTIM = "d:alpha1:token:victim"


def field(data: str | bytes) -> bytes:
    data = data.encode() if isinstance(data, str) else data
    return struct.pack(">H", len(data)) + data


def make_connect(client_id: str, user: str | None, password: bytes) -> bytes:
    """Return a CONNECT of MQTT 5, which permits a password without a user name (MQTT 5.0, section 3.1.2.9)."""
    flags = 0x42 | (0x80 if user is not None else 0)
    rest = b"\x00\x04MQTT\x05" + bytes([flags]) + b"\x00\x1e\x00" + field(client_id)
    rest += (field(user) if user is not None else b"") + field(password)
    return b"\x10" + bytes([len(rest)]) + rest


@contextmanager
def token_broker() -> Iterator[int]:
    """Run a broker that accepts every CONNECT with the token as its password, and yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        packet = connection.recv(4096)
                        connection.sendall(ACCEPTED if packet.endswith(field(TOKEN)) else b"\x20\x03\x00\x87\x00")

        threading.Thread(target=run, daemon=True).start()
        yield listener.getsockname()[1]


@contextmanager
def tenant_behind(folder: Path, **settings: str) -> Iterator[Tenant]:
    try:
        with (
            token_broker() as port,
            attacked_stack(folder, None, BROKER_ASKING=f"127.0.0.1:{port}", **settings) as stack,
        ):
            tenant = make_tenant(stack, folder, "alpha1")
            tenant.org.policy(LEVELS["token"])
            yield tenant
    except Missing as missing:
        skip_or_fail(str(missing))


def exchange(stack: Stack, host: str, packet: bytes) -> bytes:
    """Send a CONNECT. Return the answer of the broker, or of the edge if the edge refuses."""
    with (
        suppress(ConnectionResetError, ssl.SSLError),
        socket.create_connection(("127.0.0.1", stack.edge.port), 10) as plain,
        context(host).wrap_socket(plain) as secure,
    ):
        secure.sendall(packet)
        return secure.recv(64)
    return b""


def not_authorized(code: str) -> bytes:
    """Return the CONNACK of MQTT 5 with *code* as its Reason String."""
    return bytes([0x20, len(code) + 6, 0, 0x87, len(code) + 3, 0x1F, 0, len(code)]) + code.encode()


def test_a_token_without_a_user_name_is_refused(tmp_path: Path) -> None:
    """Nothing says whose token it is. With the client ID as its user name, a token passes."""
    with tenant_behind(tmp_path) as tenant:
        host, stack = tenant.org.host, tenant.stack
        assert exchange(stack, host, make_connect(VICTIM, user_of(VICTIM), TOKEN)) == ACCEPTED
        for number, user in enumerate((None, "", "d/alpha1/token/own")):
            victim = f"{VICTIM}{number}"
            code = "token_of_another" if user else "user_name_missing"
            answer = exchange(stack, host, make_connect(victim, user, TOKEN))
            assert answer == not_authorized(code), f"user name {user!r}"
            assert tenant.refusal(victim) == code


def test_a_broker_that_compares_token_and_client_id_gets_every_token(tmp_path: Path) -> None:
    """BROKER_BINDS_TOKENS=true says that it does."""
    with tenant_behind(tmp_path, BROKER_BINDS_TOKENS="true") as tenant:
        assert exchange(tenant.stack, tenant.org.host, make_connect(VICTIM, None, TOKEN)) == ACCEPTED
