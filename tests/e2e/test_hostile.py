"""What a hostile device, or a hostile organization, may try at the edge: docs/decisions/0085 tells of each."""

import re
import signal
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from demo.device import connect_packet, context
from demo.processes import until
from demo.stack import Stack
from tests.e2e.conftest import Tenant, s_client
from tests.e2e.pki import Files

pytestmark = pytest.mark.timeout(180)

WELCOME = b"\x20\x02\x00\x00"


def field(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack(">H", len(data)) + data


def packet(client_id: str | bytes, *, start: bytes = b"\x00\x04MQTT\x04\x02", more: bytes = b"") -> bytes:
    """A CONNECT. *start*: protocol, level and flags; *more*: what follows the client ID."""
    rest = start + b"\x00\x1e" + (b"\x00" if start[-2] == 5 else b"") + field(client_id) + more
    length, left = b"", len(rest)
    while True:
        left, digit = left >> 7, left & 0x7F
        length += bytes([digit | (0x80 if left else 0)])
        if not left:
            return b"\x10" + length + rest


def answer(tenant: Tenant, files: Files | None, sent: bytes, *, seconds: float = 13) -> bytes:
    """What comes back for *sent*; nothing where the connection is cut."""
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", tenant.stack.edge.port), seconds) as plain,
        context(tenant.org.host, files).wrap_socket(plain) as secure,
    ):
        secure.sendall(sent)
        return secure.recv(64)
    return b""


def named_at_the_broker(stack: Stack) -> set[str]:
    """The client IDs that the broker has welcomed."""
    return set(re.findall(r"as (\S+) \(p\d", (stack.folder / "mosquitto.log").read_text(errors="replace")))


MINE = "d:alpha1:thermo:hostile"
REFUSED = {
    "NUL at the end": packet(MINE + "\0"),
    "NUL within": packet(MINE + "\0x"),
    "no UTF-8": packet(MINE.encode() + b"\xff\xfe"),
    "other letters": packet(MINE + "ü"),
    "topic": packet(MINE + "/#"),
    "JSON": packet(MINE + '","serverName":"beta01.messaging.iot.example'),
    "newline": packet(MINE + "\n"),
    "60,000 characters": packet("d:alpha1:thermo:" + "a" * 60_000),
    "empty": packet(""),
    "empty, MQTT 5": packet("", start=b"\x00\x04MQTT\x05\x02"),
    "empty, MQTT 3.1": packet("", start=b"\x00\x06MQIsdp\x03\x02"),
    "bridge": packet(MINE, start=b"\x00\x04MQTT\x84\x02"),
    "level 6": packet(MINE, start=b"\x00\x04MQTT\x06\x02"),
    "reserved flag": packet(MINE, start=b"\x00\x04MQTT\x04\x03"),
    "packet's own flags": b"\x11" + packet(MINE)[1:],
    "more than the fields": packet(MINE, more=b"junk"),
    "five bytes of length": b"\x10\xff\xff\xff\xff\x7f" + packet(MINE)[2:],
    "256 MiB to come": b"\x10\xff\xff\xff\x7f" + packet(MINE)[2:] + b"x" * 300_000,
    "PROXY header within TLS": b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + packet(MINE),
    "another org's client ID": packet("d:beta01:thermo:hostile"),
}


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED.keys())
def test_a_connect_that_could_be_read_in_two_ways_is_refused(alpha: Tenant, sent: bytes) -> None:
    """With a certificate that is good for MINE."""
    _, files = alpha.pki.leaf("d:thermo:hostile")
    assert answer(alpha, files, packet(MINE)) == WELCOME
    assert answer(alpha, files, sent) == b""


def test_a_second_connect_names_nobody_else(alpha: Tenant, stack: Stack) -> None:
    """The verdict was about the first; the broker cuts off who sends another."""
    _, files = alpha.pki.leaf("d:thermo:hostile")
    assert answer(alpha, files, packet(MINE) + packet("d:alpha1:thermo:smuggled")) == WELCOME
    with socket.create_connection(("127.0.0.1", stack.edge.port), 10) as plain:
        secure = context(alpha.org.host, files).wrap_socket(plain)
        secure.sendall(packet(MINE))
        assert secure.recv(4) == WELCOME
        with suppress(OSError):
            secure.sendall(packet("d:alpha1:thermo:smuggled"))
            assert secure.recv(4) == b""
        secure.close()
    assert "d:alpha1:thermo:smuggled" not in named_at_the_broker(stack)


def test_a_client_id_writes_no_line_of_the_log(alpha: Tenant, stack: Stack) -> None:
    """Nobody without a certificate may tell an operator that somebody was let in."""
    forged = '203.0.113.7:1 alpha1.messaging.iot.example allow allowed -- "d:alpha1:thermo:forged"'
    assert answer(alpha, None, packet(f'x"\n{forged}\nx')) == b""
    text = until("a line about it", lambda: next((x for x in log(stack) if "forged" in x), None))
    assert forged not in log(stack)
    assert "\\n203.0.113.7" in text
    assert answer(alpha, None, packet(b"d:alpha1:thermo:\xffinnocent")) == b""
    assert "innocent" not in "".join(log(stack))  # what is no UTF-8 is not made into somebody else's name


def log(stack: Stack) -> list[str]:
    return (stack.edge.folder / "haproxy.log").read_text(errors="replace").splitlines()


@pytest.mark.parametrize(
    "first",
    [b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\1\x7f\0\0\1\0\1\0\2", b""],
    ids=["v1", "v2", "none"],
)
def test_before_tls_nothing_is_believed(alpha: Tenant, stack: Stack, first: bytes) -> None:
    """No PROXY header, and no MQTT in the clear."""
    with suppress(ConnectionResetError), socket.create_connection(("127.0.0.1", stack.edge.port), 10) as plain:
        plain.sendall(first + packet(MINE))
        assert plain.recv(64)[:1] in (b"", b"\x15")  # closed, or a TLS alert


@pytest.mark.parametrize("name", ["{}.", "*.{}", "x.{}", "{}.x.example", "127.0.0.1", "x" * 250])
def test_only_a_hosts_own_name_gets_a_certificate(alpha: Tenant, stack: Stack, name: str) -> None:
    """Not one that looks like it."""
    assert "BEGIN CERTIFICATE" in s_client(stack.edge.port, "-servername", alpha.org.host.upper())
    assert "BEGIN CERTIFICATE" not in s_client(stack.edge.port, "-servername", name.format(alpha.org.host))


def test_tls_is_not_negotiated_again_and_nothing_comes_early(alpha: Tenant, stack: Stack) -> None:
    """A renegotiation could bring another certificate after the verdict; early data could be sent again."""
    asked = ("-servername", alpha.org.host)
    assert "no renegotiation" in s_client(stack.edge.port, *asked, "-tls1_2", typed="R\n")
    session, early = alpha.pki.folder / "session.pem", alpha.pki.folder / "early"
    early.write_bytes(connect_packet(MINE))
    s_client(stack.edge.port, *asked, "-tls1_3", "-sess_out", str(session))
    more = ("-sess_in", str(session), "-early_data", str(early)) if session.exists() else ()
    assert "Early data was accepted" not in s_client(stack.edge.port, *asked, "-tls1_3", *more)


def test_a_hundred_certificates_are_refused_and_nine_registered_in_full(alpha: Tenant, stack: Stack) -> None:
    """What is sent after the leaf is in the register too, or its withdrawal would not end the session."""
    path = [alpha.pki.ca("hostile 0", alpha.pki.root)]
    for number in range(1, 100):
        path.append(alpha.pki.ca(f"hostile {number}", path[-1]))
    _, many = alpha.pki.leaf("d:thermo:hundred", send=tuple(path))
    assert answer(alpha, many, packet(alpha.client_id("hundred"))) == b""
    assert alpha.refusal(alpha.client_id("hundred")) == "certificate_malformed"
    _, nine = alpha.pki.leaf("d:thermo:nine", path[8], send=tuple(reversed(path[:9])))
    device = alpha.connected(alpha.client_id("nine"), nine)
    entry = alpha.org.deny(kind="fingerprint", value=path[0].fingerprint, reason="stolen")  # the last one sent
    until("its session to end", device.disconnected.is_set)
    alpha.org.lift(entry)


def test_another_orgs_device_reaches_no_topic(alpha: Tenant, beta: Tenant) -> None:
    """Not by publishing, not by a will, not by a wildcard, not by $SYS, not by a shared subscription."""
    victim = alpha.connected(alpha.client_id("victim"), alpha.pki.leaf("d:thermo:victim")[1])
    own = f"clients/{victim.client_id}"
    victim.subscribe(f"{own}/#")
    _, files = beta.pki.leaf("d:thermo:evil")
    will = packet("d:beta01:thermo:evil", start=b"\x00\x04MQTT\x04\x06", more=field(f"{own}/will") + field("x"))
    assert answer(beta, files, will) == WELCOME  # and is gone at once, without a DISCONNECT
    evil = beta.connected(beta.client_id("evil"), files)
    for topic in ("#", "+/+/#", f"{own}/#", f"$share/g/{own}/#", "$SYS/#"):
        evil.subscribe(topic)
    evil.publish(f"{own}/data", b"not for you")
    victim.publish(f"{own}/data", b"own")
    until("the victim's own message", lambda: victim.received)
    assert [body for _, body in victim.received] == [b"own"]
    assert evil.received == []


@pytest.mark.slow
def test_a_crowd_while_the_functions_hang_is_refused_and_disturbs_nobody(alpha: Tenant, stack: Stack) -> None:
    """200 at once. Who is connected goes on; once the functions answer, who knocks is let in."""
    keeps = alpha.publisher(alpha.client_id("keeps"))
    _, files = alpha.pki.leaf("d:thermo:hostile")
    assert stack.functions.process is not None
    stack.functions.process.send(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(200) as crowd:
            answers = set(crowd.map(lambda _: answer(alpha, files, packet(MINE), seconds=30), range(200)))
    finally:
        stack.functions.process.send(signal.SIGCONT)
    assert answers == {b""}
    until("a device to be let in", lambda: answer(alpha, files, packet(MINE)) == WELCOME)
    keeps.stop()
    assert keeps.lost() == []


def test_the_runtime_socket_is_its_owners_alone(stack: Stack) -> None:
    """Whoever reaches it reads keys' names and ends sessions."""
    assert stack.edge.socket.stat().st_mode & 0o777 == 0o600


def test_old_tls_is_not_spoken(alpha: Tenant, stack: Stack) -> None:
    """1.2 is the oldest, whatever the client's own settings."""
    words = ("-servername", alpha.org.host, "-cipher", "ALL:@SECLEVEL=0", "-tls1_1")
    assert "BEGIN CERTIFICATE" not in s_client(stack.edge.port, *words)
