"""`make demo`: two organizations with their devices, a real edge and a real broker on this machine, in a minute.

`make demo KEEP=1` leaves them running, with the console and three broken devices.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from ctypes.util import find_library
from pathlib import Path

from demo.device import Device, Publisher, context, fetch_fingerprint
from demo.keep import break_devices, keep_running
from demo.pki import OpensslPki
from demo.processes import Failed, Missing, program, until
from demo.stack import Org, Stack

PROGRAMS = {
    "haproxy": "haproxy",
    "mosquitto": "mosquitto",
    "mosquitto_pub": "mosquitto-clients",
    "mosquitto_sub": "mosquitto-clients",
    "openssl": "openssl",
}
WRAPPER = "libnss_wrapper.so"  # lets mosquitto_pub connect to 127.0.0.1 and still send the host's name (SNI)


def main() -> int:
    """Run the demo. Return the exit code: 1 if a program is missing or a step fails."""
    packages = find_missing_packages()
    if packages:
        print("The demo needs programs that are not on this machine. On Debian or Ubuntu:")
        print(f"\n    sudo apt-get install {' '.join(sorted(packages))}\n")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the `finally` below stops and removes everything
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mqtt-trust-demo-") as folder:
        try:
            stack = Stack.start(Path(folder))
        except (Failed, Missing) as error:
            print(error, file=sys.stderr)
            return 1
        try:
            Story(Path(folder), stack, started, is_kept=os.environ.get("KEEP", "") not in ("", "0")).run()
        except (Failed, AssertionError) as error:
            print(f"\nThe demo stopped: {error}", file=sys.stderr)
            return 1
        finally:
            stack.stop()
    print(f"\nThat was the demo, in {time.monotonic() - started:.0f} seconds. Everything is stopped and removed again.")
    return 0


def find_missing_packages() -> set[str]:
    """Return the Debian packages of the programs that are not installed."""
    packages = set()
    for name, package in PROGRAMS.items():
        try:
            program(name, package)
        except Missing:
            packages.add(package)
    if not find_library("nss_wrapper") and not list(Path("/usr/lib").glob(f"*/{WRAPPER}")):
        packages.add("libnss-wrapper")
    return packages


class Story:
    """The steps of the demo. Each prints what happened."""

    def __init__(self, folder: Path, stack: Stack, started: float, *, is_kept: bool = False) -> None:
        self.folder, self.stack, self._started, self._is_kept = folder, stack, started, is_kept
        self.devices: list[Device] = []
        self.cas: dict[str, str] = {}  # org -> id of its CA
        self.files: dict[str, tuple[Path, Path]] = {}  # client ID -> certificate and key

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._started:5.1f} s  {text}", flush=True)

    def chapter(self, title: str) -> None:
        print(f"\n{title}", flush=True)

    def run(self) -> None:
        """Run all steps. Raises: Failed, AssertionError."""
        try:
            self._run()
        finally:
            for device in self.devices:
                device.close()

    def _run(self) -> None:
        port = self.stack.edge.port
        self.chapter("The stack")
        self.say(f"functions on {self.stack.functions.url}; edge (HAProxy) on 127.0.0.1:{port}; mosquitto behind it")

        self.chapter("Two organizations, each with its own CA and its own server certificate")
        acme, zeta = self._org("acme01", "Acme Factory CA"), self._org("zeta01", "Zeta Labs CA")

        self.chapter("Who gets in")
        thermo = self._device(acme, "d:thermo:1")
        self._expect_entry(thermo, "paho-mqtt, which checks the server's certificate against Acme's CA")
        publisher = Publisher(thermo, f"clients/{thermo.client_id}/data")
        self._mosquitto_pub(zeta, "d:meter:7")
        stranger = zeta[1].device("d:thermo:2")
        self._expect_refusal(acme, f"d:{acme[0].id}:thermo:2", stranger, "with a certificate that Zeta's CA signed")
        own = acme[1].device("d:thermo:3")
        self._expect_refusal(acme, f"d:{acme[0].id}:thermo:4", own, "with the certificate of device 3")
        self._expect_refusal(acme, f"d:{acme[0].id}:thermo:5", None, "without a certificate")
        host = f"unknown.{acme[0].host.partition('.')[2]}"
        assert fetch_fingerprint(port, host) is None
        self.say(f"refused  a handshake for {host}: the edge serves no such name")

        self.chapter("A device's own topics, and no others")
        neighbour = self._device(acme, "d:thermo:6")
        self._expect_entry(neighbour, "a neighbour")
        neighbour.subscribe(f"clients/{neighbour.client_id}/#")
        before = len(thermo.received)
        until("the device's own messages", lambda: len(thermo.received) > before)
        thermo.publish(f"clients/{neighbour.client_id}/data", b"from next door")
        neighbour.publish(f"clients/{neighbour.client_id}/data", b"my own")
        until("the neighbour's message", lambda: neighbour.received)
        assert [body for _, body in neighbour.received] == [b"my own"], neighbour.received
        self.say(f"seen     {neighbour.client_id} receives what it publishes, and not what thermo:1 sent to its topic")

        self.chapter("A new server certificate, while every device stays connected")
        old = fetch_fingerprint(port, acme[0].host)
        self._new_server_certificate(*acme)
        activated = time.monotonic()
        until("the edge to show the new certificate", lambda: fetch_fingerprint(port, acme[0].host) != old, every=0.01)
        self.say(f"seen     the edge shows it {time.monotonic() - activated:.2f} s after the API's answer")
        sent = publisher.sent
        until("more messages of the first device", lambda: publisher.sent > sent + 5 or publisher.failed)
        assert not publisher.lost() or publisher.device.connected, publisher.lost()
        self.say(
            f"seen     {thermo.client_id} is still publishing: {publisher.sent} messages at QoS 1, each acknowledged"
        )

        self.chapter("A CA withdrawn")
        acme[0].change_ca(self.cas[acme[0].id], "inactive")
        withdrawn = time.monotonic()
        self.say("Acme's CA is set inactive")
        until("the live session to end", thermo.disconnected.is_set, 10)
        self.say(
            f"seen     the live session of {thermo.client_id} was ended {time.monotonic() - withdrawn:.2f} s later"
        )
        publisher.stop()
        self._expect_refusal(acme, thermo.client_id, self.files[thermo.client_id], "at its next connection")
        if self._is_kept:
            self._keep(acme, zeta)

    def _keep(self, acme: tuple[Org, OpensslPki], zeta: tuple[Org, OpensslPki]) -> None:
        """Activate Acme's CA again, connect its devices, and go on until the demo is stopped."""
        self.chapter("Everything stays: three broken devices to explain")
        acme[0].change_ca(self.cas[acme[0].id], "active")
        for name in ("d:thermo:7", "d:thermo:8"):
            self._expect_entry(self._device(acme, name), "another device")
        broken = break_devices(*acme, self.folder)
        keep_running([acme, zeta], broken, self.stack.edge.port, self.say)

    def _org(self, org_id: str, ca_name: str) -> tuple[Org, OpensslPki]:
        org, pki = Org.create(self.stack.functions, org_id), OpensslPki(self.folder / org_id, ca_name)
        self.cas[org_id] = org.upload_ca(pki.ca.read_text())
        self._new_server_certificate(org, pki)
        port = self.stack.edge.port
        until(f"{org.host} to be served", lambda: self._is_verified(port, org.host, pki.ca))
        self.say(f"made     {org_id}: CA “{ca_name}”; {org.host} shows a certificate that this CA signed")
        return org, pki

    @staticmethod
    def _is_verified(port: int, host: str, ca: Path) -> bool:
        return fetch_fingerprint(port, host, trusted=ca) is not None

    def _new_server_certificate(self, org: Org, pki: OpensslPki) -> None:
        """Activate a new certificate. The service makes and stores the key; the organization signs the request."""
        servers = "/authentication/servercertificates"
        request = org.call("POST", f"{servers}/csr", {"organization": pki.name})
        signed = pki.sign_server(request["csr"], org.host)
        org.call("PUT", f"{servers}/{request['id']}/certificate", {"certificate": signed})
        org.activate(request["id"])

    def _device(self, whose: tuple[Org, OpensslPki], identity: str) -> Device:
        org, pki = whose
        kind, type_id, device_id = identity.split(":")
        client_id = f"{kind}:{org.id}:{type_id}:{device_id}"
        self.files[client_id] = pki.device(identity)
        device = Device(self.stack.edge.port, client_id, context(org.host, self.files[client_id], trusted=pki.ca))
        self.devices.append(device)
        return device

    def _expect_entry(self, device: Device, how: str) -> None:
        assert device.connect(), f"{device.client_id} was not allowed: {device.outcome}"
        self.say(f"allowed  {device.client_id}: {how}")

    def _expect_refusal(
        self, whose: tuple[Org, OpensslPki], client_id: str, files: tuple[Path, Path] | None, how: str
    ) -> None:
        org, pki = whose
        device = Device(self.stack.edge.port, client_id, context(org.host, files, trusted=pki.ca))
        assert not device.connect(), f"{client_id} was allowed {how}"
        refusal = org.last_refusal(client_id)
        self.say(f"refused  {client_id} {how}")
        question: dict[str, object] = {"serverName": org.host, "clientId": client_id, "explain": True}
        if files:
            question["certificate"] = files[0].read_text()
        explanation = org.call("POST", "/verifyClient", question)
        assert explanation["code"] == refusal["code"], (
            f"refused for {refusal['code']}, explained as {explanation['code']}"
        )
        self.say(f"         {explanation['code']}: {explanation['reason']}")

    def _mosquitto_pub(self, whose: tuple[Org, OpensslPki], identity: str) -> None:
        """Publish with mosquitto_pub, an independent client that sends the host's name (SNI)."""
        org, pki = whose
        kind, type_id, device_id = identity.split(":")
        client_id = f"{kind}:{org.id}:{type_id}:{device_id}"
        certificate, key = pki.device(identity)
        hosts = self.folder / "hosts"
        hosts.write_text(f"127.0.0.1 {org.host}\n")
        command = [program("mosquitto_pub", "mosquitto-clients"), "-h", org.host, "-p", str(self.stack.edge.port)]
        command += ["--cafile", str(pki.ca), "--cert", str(certificate), "--key", str(key)]
        command += ["-i", client_id, "-t", f"clients/{client_id}/data", "-m", "21.5", "-q", "1"]
        env = {**os.environ, "LD_PRELOAD": WRAPPER, "NSS_WRAPPER_HOSTS": str(hosts)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
        assert done.returncode == 0, f"mosquitto_pub: {done.stderr}"
        self.say(f"allowed  {client_id}: mosquitto_pub published at QoS 1 by the name {org.host}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nStopped. Everything is stopped and removed again.")
        sys.exit(130)
