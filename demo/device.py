"""A device: a real MQTT client with a real certificate. It sends the server's name (SNI) and connects to 127.0.0.1."""

import hashlib
import socket
import ssl
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion


class NamedContext(ssl.SSLContext):
    """A TLS context that sends *name* as SNI to any address; `name = None` sends no SNI."""

    name: str | None = None
    latest: ssl.SSLSocket | None = None

    def wrap_socket(self, *args: Any, **words: Any) -> ssl.SSLSocket:
        words["server_hostname"] = self.name
        self.latest = super().wrap_socket(*args, **words)
        return self.latest


def context(
    name: str | None,
    files: tuple[Path, Path] | None = None,
    *,
    trusted: Path | None = None,
    only: ssl.TLSVersion | None = None,
) -> NamedContext:
    """Return the TLS context of a device.

    Args:
        name: the server's name.
        files: the device's certificate (and chain) and its key.
        trusted: the server's CA; without a CA, the server's certificate is not verified.
        only: the only TLS version to offer.
    """
    tls = NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.name = name
    tls.check_hostname = trusted is not None
    tls.verify_mode = ssl.CERT_REQUIRED if trusted else ssl.CERT_NONE
    if trusted:
        tls.load_verify_locations(trusted)
    if only:
        tls.minimum_version = tls.maximum_version = only
    if files:
        tls.load_cert_chain(*files)
    return tls


def fetch_fingerprint(port: int, name: str | None, *, trusted: Path | None = None) -> str | None:
    """Return the SHA-256 fingerprint of the certificate that the edge serves for *name*.

    Return None if the handshake fails, or if *trusted* did not sign the certificate.
    """
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context(name, trusted=trusted).wrap_socket(plain) as secure,
    ):
        der = secure.getpeercert(binary_form=True)
        return hashlib.sha256(der).hexdigest() if der else None
    return None


@dataclass
class Device:
    """A paho-mqtt client in the background.

    *outcome* is "connected", or the reason for a failure in the client's own words.
    """

    port: int
    client_id: str
    tls: NamedContext
    token: tuple[str, str] | None = None  # user name and password
    version: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311
    websocket: bool = False
    received: list[tuple[str, bytes]] = field(default_factory=list)
    disconnected: threading.Event = field(default_factory=threading.Event)
    outcome: str = "no answer"

    def __post_init__(self) -> None:
        self._answered = threading.Event()
        self._lock = threading.Lock()
        self._acknowledged: set[int] = set()
        self.client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            protocol=self.version,
            transport="websockets" if self.websocket else "tcp",
        )
        self.client.tls_set_context(self.tls)
        if self.websocket and self.tls.name:
            # The device connects to an address; to a host name, paho itself would send that name.
            self.client.ws_set_options(headers={"Host": self.tls.name})
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self.client.on_message = lambda _, __, message: self.received.append((message.topic, bytes(message.payload)))
        self.client.on_publish = lambda _, __, mid, *___: self._acknowledged.add(mid)
        self.client.reconnect_delay_set(60, 120)  # effectively off: a test sees the first outcome, not a retry
        if self.token is not None:
            self.client.username_pw_set(*self.token)

    def connect(self, seconds: float = 8) -> bool:
        """Connect. Return whether the broker accepted the connection."""
        try:
            self.client.connect("127.0.0.1", self.port, keepalive=30)
        except OSError as error:
            self.outcome = f"{type(error).__name__}: {error}"
            if self.tls.latest:
                self.tls.latest.close()  # paho leaves the socket open if the handshake fails
            return False
        self.client.loop_start()
        self._answered.wait(seconds)
        if self.outcome != "connected":
            self.close()
            return False
        return True

    def _on_connect(self, _: Any, __: Any, ___: Any, reason: Any, *____: Any) -> None:
        self.outcome = f"refused by the broker: {reason}" if reason.is_failure else "connected"
        self._answered.set()

    def _on_disconnect(self, _: Any, __: Any, ___: Any, reason: Any, *____: Any) -> None:
        if self.outcome == "no answer":
            self.outcome = "refused"
        self._answered.set()
        self.disconnected.set()

    def publish(self, topic: str, payload: bytes = b"x", seconds: float = 10) -> None:
        """Publish at QoS 1 and wait for the acknowledgement. Raises: RuntimeError, if it does not arrive in time."""
        sent = self.client.publish(topic, payload, qos=1)
        sent.wait_for_publish(seconds)
        if not sent.is_published():
            raise RuntimeError(f"{topic} was not acknowledged")

    def subscribe(self, topic: str) -> None:
        """Subscribe at QoS 1. Return when the broker has answered. Raises: RuntimeError, if it does not answer."""
        done = threading.Event()
        self.client.on_subscribe = lambda *_: done.set()
        self.client.subscribe(topic, qos=1)
        if not done.wait(10):
            raise RuntimeError("no answer to the subscription")

    @property
    def connected(self) -> bool:
        return self.client.is_connected()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Publisher:
    """Publish from a connected device to itself, at QoS 1, every 20 ms, and count the messages."""

    def __init__(self, device: Device, topic: str) -> None:
        self.device, self.topic = device, topic
        self.sent = 0
        self.failed: str | None = None
        self._stopping = threading.Event()
        device.subscribe(topic)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(0.02):
            try:
                self.device.publish(self.topic, str(self.sent).encode())
            except (RuntimeError, ValueError, OSError) as error:
                self.failed = str(error)
                return
            self.sent += 1

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(15)

    def lost(self) -> list[str]:
        """Return the acknowledged messages that did not arrive, any failure, and any disconnection, as texts."""
        arrived = {payload for topic, payload in self.device.received if topic == self.topic}
        missing = [str(number) for number in range(self.sent) if str(number).encode() not in arrived]
        if self.failed:
            missing.append(self.failed)
        if self.device.disconnected.is_set():
            missing.append("the device was disconnected")
        return missing


def connect_packet(client_id: str) -> bytes:
    """Return an MQTT 3.1.1 CONNECT packet."""
    name = client_id.encode()
    rest = b"\x00\x04MQTT\x04\x02\x00\x1e" + struct.pack(">H", len(name)) + name
    return b"\x10" + bytes([len(rest)]) + rest
