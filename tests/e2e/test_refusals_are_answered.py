"""The edge answers a refused device with a CONNACK packet, so that the device's log says why, and its client stops.

The packets are those of MQTT 3.1.1, 3.2, and MQTT 5.0, 3.2.
"""

import os
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from demo.__main__ import WRAPPER
from demo.device import context
from demo.processes import Process, free_port, program, until
from demo.stack import ROOT, Stack
from tests.e2e.conftest import Tenant
from tests.e2e.pki import Files
from tests.e2e.test_hostile import list_accepted, packet

pytestmark = pytest.mark.timeout(180)

LEVEL_4 = b"\x00\x04MQTT\x04\x02"
LEVEL_5 = b"\x00\x04MQTT\x05\x02"
LEVEL_3 = b"\x00\x06MQIsdp\x03\x02"


@pytest.fixture
def expired(alpha: Tenant) -> Files:
    _, files = alpha.pki.leaf("d:thermo:expired", expired=True)
    return files


@contextmanager
def connected(tenant: Tenant, files: Files | None) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", tenant.stack.edge.port), 13) as plain,
        context(tenant.org.host, files).wrap_socket(plain) as secure,
    ):
        yield secure


def read_to_end(secure: ssl.SSLSocket) -> bytes:
    received = b""
    while piece := secure.recv(4096):
        received += piece
    return received


def connack_5(code: int, reason: str) -> bytes:
    """Return a CONNACK packet of MQTT 5 with a Reason String."""
    properties = b"\x1f" + struct.pack(">H", len(reason)) + reason.encode() if reason else b""
    return bytes([0x20, len(properties) + 3, 0, code, len(properties)]) + properties


@pytest.mark.parametrize(
    ("start", "answer"),
    [
        (LEVEL_3, b"\x20\x02\x00\x05"),
        (LEVEL_4, b"\x20\x02\x00\x05"),
        (b"\x00\x04MQTT\x84\x02", b"\x20\x02\x00\x05"),
        (LEVEL_5, connack_5(0x87, "certificate_expired")),
    ],
    ids=["3.1", "3.1.1", "bridge", "5"],
)
def test_a_refused_device_gets_the_reason_and_the_connection_ends(
    alpha: Tenant, expired: Files, start: bytes, answer: bytes
) -> None:
    """Not authorized; in MQTT 5 with the code of the refusal."""
    with connected(alpha, expired) as secure:
        secure.sendall(packet(alpha.client_id("expired"), start=start))
        assert read_to_end(secure) == answer


def test_a_missing_client_id_is_named_so(alpha: Tenant) -> None:
    """Identifier rejected, Client Identifier not valid."""
    _, files = alpha.pki.leaf("d:thermo:nameless")
    for start, answer in ((LEVEL_4, b"\x20\x02\x00\x02"), (LEVEL_5, connack_5(0x85, "client_id_missing"))):
        with connected(alpha, files) as secure:
            secure.sendall(packet("", start=start))
            assert read_to_end(secure) == answer


@pytest.mark.parametrize(
    ("accepts", "answer"),
    [
        (27, connack_5(0x87, "certificate_expired")),
        (26, connack_5(0x87, "")),
        (5, connack_5(0x87, "")),
        (4, b""),
    ],
)
def test_the_answer_is_not_longer_than_the_device_accepts(
    alpha: Tenant, expired: Files, accepts: int, answer: bytes
) -> None:
    """A reason that does not fit into the Maximum Packet Size is left out (MQTT 5.0, 3.2.2.3.9)."""
    name = alpha.client_id("expired").encode()
    rest = LEVEL_5 + b"\x00\x1e\x05\x27" + struct.pack(">IH", accepts, len(name)) + name
    with connected(alpha, expired) as secure:
        secure.sendall(b"\x10" + bytes([len(rest)]) + rest)
        assert read_to_end(secure) == answer


def test_a_connect_packet_in_pieces_is_answered(alpha: Tenant, expired: Files) -> None:
    with connected(alpha, expired) as secure:
        for byte in packet(alpha.client_id("expired")):
            secure.send(bytes([byte]))
        assert read_to_end(secure) == b"\x20\x02\x00\x05"


def test_nothing_that_follows_the_connect_packet_reaches_the_broker(alpha: Tenant, stack: Stack) -> None:
    """A client may publish without waiting for the CONNACK (MQTT 3.1.1, 3.1.4)."""
    _, files = alpha.pki.leaf("d:thermo:impatient", expired=True)
    client_id = alpha.client_id("impatient")
    topic = f"clients/{client_id}/data".encode()
    publish = bytes([0x30, len(topic) + 3]) + struct.pack(">H", len(topic)) + topic + b"x"
    with connected(alpha, files) as secure:
        secure.sendall(packet(client_id) + publish)
        assert read_to_end(secure) == b"\x20\x02\x00\x05"
    assert client_id not in list_accepted(stack)


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x20\x02\x00\x00", b"\xc0\x00"])
def test_other_protocols_get_no_answer(alpha: Tenant, expired: Files, sent: bytes) -> None:
    with connected(alpha, expired) as secure:
        secure.sendall(sent)
        assert read_to_end(secure) == b""


# ---------------------------------------------------------------------------------------------------------- clients


# Each prints how its client reports the refusal, and after how many seconds. The arguments are: host, port, client ID,
# certificate, key.
_TLS = """
import asyncio, ssl, sys, time
began = time.monotonic()
host, port, client_id, certificate, key = sys.argv[1:]
tls = ssl.create_default_context()
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
tls.load_cert_chain(certificate, key)
"""
_AIOMQTT = """
import aiomqtt
version = aiomqtt.ProtocolVersion.{version}
async def run():
    async with aiomqtt.Client(host, int(port), identifier=client_id, tls_context=tls, protocol=version, timeout=20):
        print("connected")
try:
    asyncio.run(run())
except aiomqtt.MqttError as error:
    print(error, time.monotonic() - began)
"""
_GMQTT = """
import gmqtt, gmqtt.mqtt.constants
async def run():
    client = gmqtt.Client(client_id)
    await client.connect(host, int(port), ssl=tls, version=gmqtt.mqtt.constants.{version})
    print("connected")
try:
    asyncio.run(run())
except gmqtt.mqtt.handler.MQTTConnectError as error:
    print(error, time.monotonic() - began)
"""
_NPM_MQTT = """
const mqtt = require('mqtt'), fs = require('fs'), began = performance.now();
const [host, port, clientId, certificate, key] = process.argv.slice(2);
const client = mqtt.connect({{ protocol: 'mqtts', host, port, clientId, cert: fs.readFileSync(certificate),
  key: fs.readFileSync(key), rejectUnauthorized: false, protocolVersion: {version}, reconnectPeriod: 0 }});
client.on('connect', () => console.log('connected'));
client.on('error', (error) => console.log(error.message, (performance.now() - began) / 1000));
client.on('close', () => client.end());
"""


@dataclass(frozen=True)
class Program:
    """An MQTT client's program, and the words with which the client reports the refusal."""

    kind: str
    version: str
    words: str

    def command(self, folder: Path) -> list[str]:
        """Write the program to *folder* and return the command that runs the program."""
        if self.kind == "npm mqtt":
            (folder / "client.cjs").write_text(_NPM_MQTT.format(version=self.version))
            return [program("node", "nodejs"), str(folder / "client.cjs")]
        body = _AIOMQTT if self.kind == "aiomqtt" else _GMQTT
        (folder / "client.py").write_text(_TLS + body.format(version=self.version))
        return [sys.executable, str(folder / "client.py")]


PROGRAMS = [
    Program("aiomqtt", "V311", "Not authorized"),
    Program("aiomqtt", "V5", "Not authorized"),
    Program("gmqtt", "MQTTv311", "not authorised"),
    Program("gmqtt", "MQTTv50", "Not authorized"),
    Program("npm mqtt", "4", "Not authorized"),
    Program("npm mqtt", "5", "Not authorized"),
]


def resolving(folder: Path, *hosts: str) -> dict[str, str]:
    """Return an environment in which *hosts* are at 127.0.0.1: a device connects to the edge by its name."""
    names = folder / "hosts"
    names.write_text("".join(f"127.0.0.1 {host}\n" for host in hosts))
    return {**os.environ, "LD_PRELOAD": WRAPPER, "NSS_WRAPPER_HOSTS": str(names)}


def write_server_certificate(tenant: Tenant, folder: Path) -> Path:
    """Write the self-signed certificate that the edge serves: mosquitto's programs connect only if it is trusted."""
    with connected(tenant, None) as secure:
        der = secure.getpeercert(binary_form=True)
    assert der
    path = folder / "server.pem"
    path.write_text(ssl.DER_cert_to_PEM_cert(der))
    return path


def fastest(measure: Callable[[], float]) -> float:
    """Return the fastest of at most three measurements, in seconds: other tests use the same processors."""
    seconds = measure()
    for _ in range(2):
        if seconds >= 1:
            seconds = min(seconds, measure())
    return seconds


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda each: f"{each.kind} {each.version}")
def test_a_client_reports_the_refusal_within_a_second(
    alpha: Tenant, expired: Files, program: Program, tmp_path: Path
) -> None:
    """Without an answer, these clients wait until their own time-out, or for ever."""
    host, port, client_id = alpha.org.host, str(alpha.stack.edge.port), alpha.client_id("expired")

    def connect() -> float:
        done = subprocess.run(
            [*program.command(tmp_path), host, port, client_id, *map(str, expired)],
            env={**resolving(tmp_path, host), "NODE_PATH": str(ROOT / "tests/node_modules")},
            capture_output=True,
            text=True,
            timeout=60,
        )
        words, _, seconds = done.stdout.strip().rpartition(" ")
        assert program.words in words, done.stdout + done.stderr
        return float(seconds)

    assert fastest(connect) < 1


@pytest.mark.parametrize("version", [MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5])
def test_paho_gets_its_answer_within_a_second(alpha: Tenant, expired: Files, version: MQTTProtocolVersion) -> None:
    def connect() -> float:
        device = alpha.device(alpha.client_id("expired"), expired, version=version)
        report, answered = device.client.on_connect, []

        def note(*words: Any) -> None:
            answered.append(time.monotonic())
            assert report
            report(*words)

        device.client.on_connect = note
        began = time.monotonic()
        assert not device.connect()
        assert device.outcome == "refused by the broker: Not authorized"
        return float(answered[0] - began)

    assert fastest(connect) < 1


@pytest.mark.parametrize(("version", "words"), [("mqttv311", "not authorised"), ("mqttv5", "Not authorized")])
def test_mosquitto_pub_ends_within_a_second(
    alpha: Tenant, expired: Files, version: str, words: str, tmp_path: Path
) -> None:
    host, (certificate, key) = alpha.org.host, expired
    command = [program("mosquitto_pub", "mosquitto-clients"), "-h", host, "-p", str(alpha.stack.edge.port)]
    command += ["-V", version, "-i", alpha.client_id("expired"), "-t", "x", "-m", "x", "--insecure"]
    command += [
        "--cafile",
        str(write_server_certificate(alpha, tmp_path)),
        "--cert",
        str(certificate),
        "--key",
        str(key),
    ]

    def publish() -> float:
        began = time.monotonic()
        done = subprocess.run(
            command, env=resolving(tmp_path, host), capture_output=True, text=True, timeout=30, check=False
        )
        assert words in done.stderr, done.stderr
        return time.monotonic() - began

    assert fastest(publish) < 1


# ----------------------------------------------------------------------------------------------------------- bridges


@pytest.mark.parametrize("level", [b"\x00\x04MQTT\x84\x02", b"\x00\x06MQIsdp\x83\x02"], ids=["0x84", "0x83"])
def test_a_bridge_is_judged_by_its_own_client_id(alpha: Tenant, level: bytes) -> None:
    _, files = alpha.pki.leaf("d:thermo:bridge")
    with connected(alpha, files) as secure:
        secure.sendall(packet(alpha.client_id("bridge"), start=level))
        assert secure.recv(4) == b"\x20\x02\x00\x00"
    with connected(alpha, files) as secure:
        secure.sendall(packet(alpha.client_id("other"), start=level))
        assert read_to_end(secure) == b"\x20\x02\x00\x05"


def test_a_mosquitto_bridge_with_its_default_settings_gets_in(alpha: Tenant, tmp_path: Path) -> None:
    """`try_private` is true by default: the bridge sets the highest bit of the protocol level."""
    client_id, (certificate, key) = alpha.client_id("site"), alpha.pki.leaf("d:thermo:site")[1]
    listener, folder = free_port(), tmp_path
    (folder / "bridge.conf").write_text(
        f"listener {listener} 127.0.0.1\nallow_anonymous true\nlog_dest stderr\nuser root\n"
        f"connection cloud\naddress {alpha.org.host}:{alpha.stack.edge.port}\nremote_clientid {client_id}\n"
        f"bridge_certfile {certificate}\nbridge_keyfile {key}\n"
        f"bridge_cafile {write_server_certificate(alpha, folder)}\n"
        f"bridge_insecure true\ncleansession true\nnotifications false\n"
        f'topic # out 1 "" clients/{client_id}/\n'
    )
    # mosquitto's bridge resolves names with getaddrinfo_a, which libnss-wrapper does not replace.
    (folder / "hosts").write_text(f"127.0.0.1 {alpha.org.host}\n")
    own_hosts = ["unshare", "-rm", "sh", "-c", 'mount --bind hosts /etc/hosts && exec "$@"', "sh"]
    command = [*own_hosts, program("mosquitto", "mosquitto"), "-v", "-c", "bridge.conf"]
    broker = Process("bridge", command, folder / "bridge.log", env=dict(os.environ), cwd=folder)
    try:
        broker.wait_for_port(listener)
        until("the bridge at the broker", lambda: client_id in list_accepted(alpha.stack), 20)
        assert "Connection Refused" not in broker.tail()
    finally:
        broker.stop()
