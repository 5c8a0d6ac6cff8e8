"""What a hostile device or organization may try at the edge; docs/decisions/0085 explains each case."""

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
NOT_AUTHORIZED = b"\x20\x02\x00\x05"
IDENTIFIER_REJECTED = b"\x20\x02\x00\x02"
IDENTIFIER_NOT_VALID = b"\x20\x17\x00\x85\x14\x1f\x00\x11client_id_missing"  # of MQTT 5
REFUSALS = (b"", NOT_AUTHORIZED, IDENTIFIER_REJECTED, IDENTIFIER_NOT_VALID)


def field(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack(">H", len(data)) + data


def packet(client_id: str | bytes, *, start: bytes = b"\x00\x04MQTT\x04\x02", more: bytes = b"") -> bytes:
    """Return a CONNECT. *start*: protocol, level and flags; *more*: what follows the client ID."""
    rest = start + b"\x00\x1e" + (b"\x00" if start[-2] == 5 else b"") + field(client_id) + more
    length, left = b"", len(rest)
    while True:
        left, digit = left >> 7, left & 0x7F
        length += bytes([digit | (0x80 if left else 0)])
        if not left:
            return b"\x10" + length + rest


def exchange(tenant: Tenant, files: Files | None, sent: bytes, *, seconds: float = 13) -> bytes:
    """Send *sent* over TLS. Return the answer; empty if the connection is cut."""
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", tenant.stack.edge.port), seconds) as plain,
        context(tenant.org.host, files).wrap_socket(plain) as secure,
    ):
        secure.sendall(sent)
        return secure.recv(64)
    return b""


def list_accepted(stack: Stack) -> set[str]:
    """Return the client IDs that the broker has accepted."""
    return set(re.findall(r"as (\S+) \(p\d", (stack.folder / "mosquitto.log").read_text(errors="replace")))


MINE = "d:alpha1:thermo:hostile"
REFUSED = {
    "NUL at the end": packet(MINE + "\0"),
    "NUL within": packet(MINE + "\0x"),
    "not UTF-8": packet(MINE.encode() + b"\xff\xfe"),
    "other letters": packet(MINE + "ü"),
    "topic": packet(MINE + "/#"),
    "JSON": packet(MINE + '","serverName":"beta01.messaging.iot.example'),
    "newline": packet(MINE + "\n"),
    "60,000 characters": packet("d:alpha1:thermo:" + "a" * 60_000),
    "empty": packet(""),
    "empty, MQTT 5": packet("", start=b"\x00\x04MQTT\x05\x02"),
    "empty, MQTT 3.1": packet("", start=b"\x00\x06MQIsdp\x03\x02"),
    "bridge of level 5": packet(MINE, start=b"\x00\x04MQTT\x85\x02"),
    "level 6": packet(MINE, start=b"\x00\x04MQTT\x06\x02"),
    "reserved flag": packet(MINE, start=b"\x00\x04MQTT\x04\x03"),
    "packet's own flags": b"\x11" + packet(MINE)[1:],
    "more than the fields": packet(MINE, more=b"junk"),
    "five bytes of length": b"\x10\xff\xff\xff\xff\x7f" + packet(MINE)[2:],
    "256 MiB to come": b"\x10\xff\xff\xff\x7f" + packet(MINE)[2:] + b"x" * 300_000,
    "PROXY header within TLS": b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + packet(MINE),
    "another org's client ID": packet("d:beta01:thermo:hostile"),
}


# HAProxy waits for more of these packets, until the time for a CONNECT packet ends after 10 s.
LASTING = ("level 6", "bridge of level 5", "reserved flag", "more than the fields", "five bytes of length")


@pytest.mark.parametrize(
    "sent",
    [pytest.param(sent, id=what, marks=pytest.mark.slow if what in LASTING else ()) for what, sent in REFUSED.items()],
)
def test_an_ambiguous_connect_is_refused(alpha: Tenant, sent: bytes) -> None:
    """The certificate is valid for MINE; a CONNECT that edge and broker might read differently is refused.

    The edge answers a packet that is a CONNECT with a refusal, and closes the connection for all others.
    """
    _, files = alpha.pki.leaf("d:thermo:hostile")
    assert exchange(alpha, files, packet(MINE)) == WELCOME
    assert exchange(alpha, files, sent) in REFUSALS


def test_a_second_connect_cannot_name_another_device(alpha: Tenant, stack: Stack) -> None:
    """The verdict is about the first CONNECT; the broker cuts off a client that sends another."""
    _, files = alpha.pki.leaf("d:thermo:hostile")
    assert exchange(alpha, files, packet(MINE) + packet("d:alpha1:thermo:smuggled")) == WELCOME
    with socket.create_connection(("127.0.0.1", stack.edge.port), 10) as plain:
        secure = context(alpha.org.host, files).wrap_socket(plain)
        secure.sendall(packet(MINE))
        assert secure.recv(4) == WELCOME
        with suppress(OSError):
            secure.sendall(packet("d:alpha1:thermo:smuggled"))
            assert secure.recv(4) == b""
        secure.close()
    assert "d:alpha1:thermo:smuggled" not in list_accepted(stack)


def test_a_client_id_cannot_forge_a_line_of_the_log(alpha: Tenant, stack: Stack) -> None:
    """A client without a certificate cannot make an operator read that a device was admitted."""
    forged = '203.0.113.7:1 alpha1.messaging.iot.example allow allowed -- "d:alpha1:thermo:forged"'
    assert exchange(alpha, None, packet(f'x"\n{forged}\nx')) == IDENTIFIER_REJECTED
    text = until("a line about the client", lambda: next((x for x in log(stack) if "forged" in x), None))
    assert forged not in log(stack)
    assert "\\n203.0.113.7" in text
    assert exchange(alpha, None, packet(b"d:alpha1:thermo:\xffinnocent")) == IDENTIFIER_REJECTED
    assert "innocent" not in "".join(log(stack))  # invalid UTF-8 is not turned into another device's name


def log(stack: Stack) -> list[str]:
    return (stack.edge.folder / "haproxy.log").read_text(errors="replace").splitlines()


@pytest.mark.parametrize(
    "first",
    [b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\1\x7f\0\0\1\0\1\0\2", b""],
    ids=["v1", "v2", "none"],
)
def test_nothing_is_accepted_before_tls(alpha: Tenant, stack: Stack, first: bytes) -> None:
    """Neither a PROXY header nor MQTT in the clear."""
    with suppress(ConnectionResetError), socket.create_connection(("127.0.0.1", stack.edge.port), 10) as plain:
        plain.sendall(first + packet(MINE))
        assert plain.recv(64)[:1] in (b"", b"\x15")  # closed, or a TLS alert


@pytest.mark.parametrize("name", ["{}.", "*.{}", "x.{}", "{}.x.example", "127.0.0.1", "x" * 250])
def test_only_the_exact_host_name_gets_a_certificate(alpha: Tenant, stack: Stack, name: str) -> None:
    """A similar name gets no handshake; case does not matter (RFC 6066, section 3)."""
    assert "BEGIN CERTIFICATE" in s_client(stack.edge.port, "-servername", alpha.org.host.upper())
    assert "BEGIN CERTIFICATE" not in s_client(stack.edge.port, "-servername", name.format(alpha.org.host))


def test_tls_is_not_renegotiated_and_early_data_is_not_accepted(alpha: Tenant, stack: Stack) -> None:
    """A renegotiation could bring another certificate after the verdict; early data could be replayed."""
    asked = ("-servername", alpha.org.host)
    assert "no renegotiation" in s_client(stack.edge.port, *asked, "-tls1_2", typed="R\n")
    session, early = alpha.pki.folder / "session.pem", alpha.pki.folder / "early"
    early.write_bytes(connect_packet(MINE))
    s_client(stack.edge.port, *asked, "-tls1_3", "-sess_out", str(session))
    more = ("-sess_in", str(session), "-early_data", str(early)) if session.exists() else ()
    assert "Early data was accepted" not in s_client(stack.edge.port, *asked, "-tls1_3", *more)


def test_a_hundred_sent_certificates_are_refused_and_nine_are_all_registered(alpha: Tenant, stack: Stack) -> None:
    """Certificates after the leaf are in the register too, so that their withdrawal ends the session."""
    path = [alpha.pki.ca("hostile 0", alpha.pki.root)]
    for number in range(1, 100):
        path.append(alpha.pki.ca(f"hostile {number}", path[-1]))
    _, many = alpha.pki.leaf("d:thermo:hundred", send=tuple(path))
    assert exchange(alpha, many, packet(alpha.client_id("hundred"))) == NOT_AUTHORIZED
    assert alpha.refusal(alpha.client_id("hundred")) == "certificate_malformed"
    _, nine = alpha.pki.leaf("d:thermo:nine", path[8], send=tuple(reversed(path[:9])))
    device = alpha.connect(alpha.client_id("nine"), nine)
    entry = alpha.org.deny(kind="fingerprint", value=path[0].fingerprint, reason="stolen")  # the last certificate sent
    until("its session to end", device.disconnected.is_set)
    alpha.org.lift(entry)


def test_another_orgs_device_reaches_no_topic(alpha: Tenant, beta: Tenant) -> None:
    """Neither by publishing, nor by a will, a wildcard, $SYS or a shared subscription."""
    victim = alpha.connect(alpha.client_id("victim"), alpha.pki.leaf("d:thermo:victim")[1])
    own = f"clients/{victim.client_id}"
    victim.subscribe(f"{own}/#")
    _, files = beta.pki.leaf("d:thermo:evil")
    will = packet("d:beta01:thermo:evil", start=b"\x00\x04MQTT\x04\x06", more=field(f"{own}/will") + field("x"))
    assert exchange(beta, files, will) == WELCOME  # and is gone at once, without a DISCONNECT
    evil = beta.connect(beta.client_id("evil"), files)
    for topic in ("#", "+/+/#", f"{own}/#", f"$share/g/{own}/#", "$SYS/#"):
        evil.subscribe(topic)
    evil.publish(f"{own}/data", b"not for you")
    victim.publish(f"{own}/data", b"own")
    until("the victim's own message", lambda: victim.received)
    assert [body for _, body in victim.received] == [b"own"]
    assert evil.received == []


@pytest.mark.slow
def test_a_crowd_is_refused_while_the_functions_hang_and_sessions_stay(alpha: Tenant, stack: Stack) -> None:
    """200 clients at once are refused, and connected devices stay; afterwards devices are admitted again."""
    keeps = alpha.publisher(alpha.client_id("keeps"))
    _, files = alpha.pki.leaf("d:thermo:hostile")
    assert stack.functions.process is not None
    stack.functions.process.send(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(200) as crowd:
            answers = set(crowd.map(lambda _: exchange(alpha, files, packet(MINE), seconds=30), range(200)))
    finally:
        stack.functions.process.send(signal.SIGCONT)
    assert answers <= {b"", b"\x20\x02\x00\x03"}  # server unavailable
    until("a device to be admitted", lambda: exchange(alpha, files, packet(MINE)) == WELCOME)
    keeps.stop()
    assert keeps.lost() == []


def test_the_runtime_socket_belongs_to_its_owner_only(stack: Stack) -> None:
    """A process with access to the socket could read the names of keys and end sessions."""
    assert stack.edge.socket.stat().st_mode & 0o777 == 0o600


def test_old_tls_is_refused(alpha: Tenant, stack: Stack) -> None:
    """TLS 1.2 is the oldest accepted version, whatever the client's settings."""
    words = ("-servername", alpha.org.host, "-cipher", "ALL:@SECLEVEL=0", "-tls1_1")
    assert "BEGIN CERTIFICATE" not in s_client(stack.edge.port, *words)
