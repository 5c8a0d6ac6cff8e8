"""Real MQTT clients, the real edge and a real broker: which devices are admitted, which are refused, and why."""

import socket
import ssl
import time
from contextlib import closing
from functools import partial

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from demo.device import connect_packet, context
from demo.processes import until
from tests.e2e.conftest import CERTIFICATE, LEVELS, PASSWORD, Tenant, user_of
from tests.e2e.pki import Files

pytestmark = pytest.mark.timeout(180)

BOTH = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])


@BOTH
def test_a_device_of_the_org_is_admitted(alpha: Tenant, version: ssl.TLSVersion) -> None:
    """A device with CN d:type:id, signed by a registered CA, is admitted with TLS 1.2 and 1.3."""
    _, files = alpha.pki.leaf("d:thermo:good")
    device = alpha.connect(alpha.client_id("good"), files, only=version)
    tls_socket = device.client.socket()
    assert isinstance(tls_socket, ssl.SSLSocket)
    assert tls_socket.version() == version.name.replace("TLSv1_", "TLSv1.")


def test_an_mqtt_5_client_is_admitted(alpha: Tenant) -> None:
    """The client ID is read from an MQTT 5 CONNECT as well."""
    _, files = alpha.pki.leaf("d:thermo:five")
    alpha.connect(alpha.client_id("five"), files, version=MQTTProtocolVersion.MQTTv5)


def test_a_gateway_is_admitted(alpha: Tenant) -> None:
    """A gateway has CN g:type:id and client ID g:org:type:id."""
    _, files = alpha.pki.leaf("g:gateway:gw1")
    alpha.connect(alpha.client_id("gw1", "gateway", "g"), files)


def test_an_identity_in_an_e_mail_name_is_admitted(alpha: Tenant) -> None:
    """The identity is in a SubjectAltName email:d:type:id; the CN does not matter."""
    _, files = alpha.pki.leaf("Thermometer 7", emails=("d:thermo:mail",))
    alpha.connect(alpha.client_id("mail"), files)


def test_an_intermediate_that_the_device_sends_is_used(alpha: Tenant) -> None:
    """Only the root is registered; certificates after the leaf reach the function."""
    intermediate = alpha.pki.ca("alpha intermediate", alpha.pki.root)
    _, with_it = alpha.pki.leaf("d:thermo:inter", intermediate, send=(intermediate,))
    _, without = alpha.pki.leaf("d:thermo:lone", intermediate)
    alpha.connect(alpha.client_id("inter"), with_it)
    assert not alpha.device(alpha.client_id("lone"), without).connect()
    assert alpha.refusal(alpha.client_id("lone")) == "untrusted_issuer"


def test_a_version_1_certificate_is_admitted(alpha: Tenant) -> None:
    """Fleets made such certificates with `openssl x509 -req`, without extensions."""
    alpha.connect(alpha.client_id("v1"), alpha.pki.v1_leaf("d:thermo:v1"))


@BOTH
def test_another_orgs_certificate_is_refused(alpha: Tenant, beta: Tenant, version: ssl.TLSVersion) -> None:
    """A device of beta with a valid certificate is refused under alpha's host name."""
    _, files = beta.pki.leaf(f"d:thermo:stranger{version.value}")
    client_id = alpha.client_id(f"stranger{version.value}")
    assert not alpha.device(client_id, files, only=version).connect()
    assert alpha.refusal(client_id) == "untrusted_issuer"


def test_an_expired_certificate_is_refused(alpha: Tenant) -> None:
    """The edge passes the certificate on; the function gives the reason."""
    _, files = alpha.pki.leaf("d:thermo:old", expired=True)
    assert not alpha.device(alpha.client_id("old"), files).connect()
    assert alpha.refusal(alpha.client_id("old")) == "certificate_expired"


def test_the_client_id_of_another_device_is_refused(alpha: Tenant) -> None:
    """A certificate is valid for its own device only."""
    _, files = alpha.pki.leaf("d:thermo:me")
    assert not alpha.device(alpha.client_id("somebody-else"), files).connect()
    assert alpha.refusal(alpha.client_id("somebody-else")) == "identity_mismatch"


def test_a_device_without_a_client_id_is_refused(alpha: Tenant) -> None:
    """The broker would assign a client ID that no certificate contains."""
    _, files = alpha.pki.leaf("d:thermo:nameless")
    assert not alpha.device("", files).connect()


def test_a_device_on_the_deny_list_is_refused_and_admitted_once_lifted(alpha: Tenant) -> None:
    """The entry names an identity; the change is in force at the next connection."""
    _, files = alpha.pki.leaf("d:thermo:denied")
    client_id = alpha.client_id("denied")
    entry = alpha.org.deny(kind="identity", value="d:thermo:denied", reason="stolen")
    assert not alpha.device(client_id, files).connect()
    assert alpha.refusal(client_id) == "certificate_revoked"
    alpha.org.lift(entry)
    alpha.connect(client_id, files)


@pytest.mark.parametrize("host", ["unknown.messaging.iot.example", "example.com", None], ids=["org", "foreign", "none"])
@BOTH
def test_an_unknown_server_name_gets_no_handshake(alpha: Tenant, host: str | None, version: ssl.TLSVersion) -> None:
    """An unknown org, a foreign domain and a missing SNI are all refused in the handshake."""
    _, files = alpha.pki.leaf("d:thermo:lost")
    device = alpha.device(alpha.client_id("lost"), files, sni=host, only=version)
    assert not device.connect()
    assert "SSL" in device.outcome or "reset" in device.outcome.lower(), device.outcome


# ------------------------------------------------------------------------------------- the connection policy


@pytest.mark.parametrize("kind", ["thermo", *LEVELS])
def test_without_a_certificate_the_policy_decides(alpha: Tenant, kind: str) -> None:
    """The device is refused if the level requires a certificate.

    Otherwise the broker asks for the token, and admits only the device that has it.
    """
    client_id = alpha.client_id("dev1", kind)
    token = user_of(client_id), PASSWORD
    if kind in ("thermo", "both"):
        assert not alpha.device(client_id, None, token=token).connect()
        assert alpha.refusal(client_id) == "certificate_missing"
        return
    wrong = alpha.device(client_id, None, token=(token[0], "guessed"))
    assert not wrong.connect()
    assert "refused by the broker" in wrong.outcome
    assert not alpha.device(client_id, None).connect()
    assert alpha.refusal(client_id) == "user_name_missing"
    alpha.connect(client_id, None, token=token)


@pytest.mark.parametrize("kind", ["thermo", *LEVELS])
def test_with_a_certificate_the_policy_decides_whether_a_token_is_needed_too(alpha: Tenant, kind: str) -> None:
    """`allow` goes to the listener that trusts the edge, `continue` to the listener that asks for a password."""
    client_id = alpha.client_id("dev1", kind)
    token = user_of(client_id), PASSWORD
    _, files = alpha.pki.leaf(f"d:{kind}:dev1")
    without_token = alpha.device(client_id, files)
    if kind in ("token", "both"):
        assert not without_token.connect()
        assert alpha.refusal(client_id) == "user_name_missing"
        alpha.connect(client_id, files, token=token)
    else:
        assert without_token.connect(), without_token.outcome


@pytest.mark.parametrize("kind", ["thermo", *LEVELS])
def test_a_bad_certificate_is_refused_under_every_level(alpha: Tenant, beta: Tenant, kind: str) -> None:
    """This holds even if no certificate is required, and with the right token."""
    _, files = beta.pki.leaf(f"d:{kind}:dev1")
    client_id = alpha.client_id("dev1", kind)
    token = user_of(client_id), PASSWORD
    assert not alpha.device(client_id, files, token=token).connect()
    assert alpha.refusal(client_id) == "untrusted_issuer"


def test_a_token_is_valid_for_its_own_client_id_only(alpha: Tenant, beta: Tenant) -> None:
    """A stolen token of a device that needs a certificate too is useless.

    It admits no client under the name of a device that needs no certificate, nor under another org's name and policy.
    Each organization sees how many clients the edge refused for that.
    """
    stolen = user_of(alpha.client_id("dev1", "both")), PASSWORD
    beta.org.policy(CERTIFICATE, lax=LEVELS["either"])
    for tenant, client_id in ((alpha, alpha.client_id("dev1", "either")), (beta, beta.client_id("dev1", "lax"))):
        assert not tenant.device(client_id, None, token=stolen).connect()
        assert tenant.refusal(client_id) == "token_of_another"
        until("the report of the edge", partial(tenant.org.count_refused_at_edge, "token_of_another"), 30)


def test_a_device_has_its_own_topics_and_no_others(alpha: Tenant) -> None:
    """No message reaches a device over another device's topic."""
    first, second = (
        alpha.connect(alpha.client_id(name), alpha.pki.leaf(f"d:thermo:{name}")[1]) for name in ("mine", "thine")
    )
    second.subscribe(f"clients/{second.client_id}/#")
    first.subscribe("#")
    first.publish(f"clients/{second.client_id}/data", b"not for you")
    second.publish(f"clients/{second.client_id}/data", b"own")
    until("the device's own message", lambda: second.received)
    assert [payload for _, payload in second.received] == [b"own"]
    assert first.received == []


@pytest.mark.parametrize(
    "topic_filter",
    [
        "#",
        "+/#",
        "clients/+/#",
        "+/d:alpha1:thermo:victim/#",
        "clients/d:alpha1:thermo:victim/#",
        "$share/group/#",
        "$share/group/clients/d:alpha1:thermo:victim/#",
        "$SYS/#",
    ],
)
def test_no_filter_reads_the_topics_of_another_organization(alpha: Tenant, beta: Tenant, topic_filter: str) -> None:
    """mosquitto with edge/mosquitto delivers nothing of alpha to beta's device, and nothing of beta's to alpha."""
    victim, spy = alpha.connect_device("victim"), beta.connect_device("spy")
    data, own = (f"clients/{device.client_id}/data" for device in (victim, spy))
    victim.client.publish(data, b"retained", qos=1, retain=True).wait_for_publish(10)
    victim.subscribe(f"clients/{victim.client_id}/#")
    for name in (topic_filter, own):
        spy.subscribe(name)
    victim.publish(data, b"secret")
    spy.publish(data, b"forged")
    spy.publish(own, b"own")
    until("the device's own message", lambda: (own, b"own") in spy.received)
    victim.publish(data, b"last")
    until("the device's own message", lambda: (data, b"last") in victim.received)
    assert set(spy.received) == {(own, b"own")}
    assert (data, b"forged") not in victim.received


# --------------------------------------------------------------------------------------------- odd behaviour


def _secure(tenant: Tenant, files: Files) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", tenant.stack.edge.port), timeout=20)
    return context(tenant.org.host, files).wrap_socket(plain)


def _session(
    tenant: Tenant, tls: ssl.SSLContext, session: ssl.SSLSession | None, client_id: str
) -> tuple[bytes, ssl.SSLSession | None, bool]:
    """Send a CONNECT. Return (first bytes of the answer, session, whether the session was resumed)."""
    plain = socket.create_connection(("127.0.0.1", tenant.stack.edge.port), timeout=15)
    name = tls.name  # type: ignore[attr-defined]
    with closing(ssl.SSLContext.wrap_socket(tls, plain, server_hostname=name, session=session)) as secure:
        try:
            secure.sendall(connect_packet(client_id))
            answer = secure.recv(4)
        except OSError:
            answer = b""
        return answer, secure.session, bool(secure.session_reused)


@BOTH
def test_no_session_is_resumed_not_even_for_the_same_org(alpha: Tenant, beta: Tenant, version: ssl.TLSVersion) -> None:
    """A session made under alpha's name is not resumed under alpha's, and is refused under beta's."""
    _, files = alpha.pki.leaf("d:thermo:again")
    tls = context(alpha.org.host, files, only=version)
    answer, session, _ = _session(alpha, tls, None, alpha.client_id("again"))
    assert answer == b"\x20\x02\x00\x00"
    answer, _, resumed = _session(alpha, tls, session, alpha.client_id("again"))
    assert (answer, resumed) == (b"\x20\x02\x00\x00", False)
    tls.name = beta.org.host
    answer, _, resumed = _session(alpha, tls, session, beta.client_id("again"))
    assert (answer, resumed) == (b"\x20\x02\x00\x05", False)
    assert beta.refusal(beta.client_id("again")) == "untrusted_issuer"


def test_a_connect_in_small_pieces_is_accepted(alpha: Tenant) -> None:
    """Slow links split packets anywhere."""
    _, files = alpha.pki.leaf("d:thermo:slow")
    with _secure(alpha, files) as secure:
        packet = connect_packet(alpha.client_id("slow"))
        for piece in (packet[:1], packet[1:5], packet[5:]):
            secure.sendall(piece)
            time.sleep(0.1)
        assert secure.recv(4) == b"\x20\x02\x00\x00"


@pytest.mark.parametrize("first", [b"\xc0\x00", b"GET / HTTP/1.1\r\n\r\n"], ids=["ping", "http"])
def test_a_connection_that_does_not_begin_with_a_connect_is_closed(alpha: Tenant, first: bytes) -> None:
    """The verdict is about the client ID of the CONNECT, so nothing may come before it."""
    _, files = alpha.pki.leaf("d:thermo:first")
    with _secure(alpha, files) as secure:
        secure.sendall(first + connect_packet(alpha.client_id("first")))
        try:
            answer = secure.recv(4)
        except OSError:
            answer = b""
        assert answer == b""


@pytest.mark.slow
def test_a_client_that_stays_silent_past_the_inspect_delay_is_closed(alpha: Tenant) -> None:
    """It is neither admitted without a verdict nor kept for ever: the delay is ten seconds."""
    _, files = alpha.pki.leaf("d:thermo:silent")
    with _secure(alpha, files) as secure:
        started = time.monotonic()
        try:
            answer = secure.recv(4)
        except OSError:
            answer = b""
        assert answer == b""
        assert 9 < time.monotonic() - started < 15
        with pytest.raises(OSError):  # noqa: PT012
            for _ in range(5):
                secure.sendall(connect_packet(alpha.client_id("silent")))
                time.sleep(0.05)
