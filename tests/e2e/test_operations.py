"""The commands of docs/operations.md and of the pages of mosquitto and nginx, from empty folders to a device."""

import base64
import getpass
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from demo.device import Device, context, fetch_fingerprint
from demo.processes import Missing, Process, free_port, program, socket_folder, until
from demo.stack import ROOT, Functions, Org
from tests.e2e.pki import NEXT_YEAR, YESTERDAY, Pki
from tests.support import certs
from tests.support.missing import skip_or_fail

pytestmark = pytest.mark.timeout(120)

PAGES = ("docs/operations.md", "docs/brokers/mosquitto.md", "docs/brokers/nginx.md")
HOST = "mtxpd0.messaging.example.com"
_BLOCK = re.compile(r"^ *<!-- tested: (\w+) -->\n *```sh\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


@dataclass
class Machine:
    """One machine with the functions, the edge and the broker. *folder* is the checkout that the pages begin in."""

    folder: Path
    functions: Functions
    port: int = field(default_factory=free_port)
    trusting: int = field(default_factory=free_port)
    asking: int = field(default_factory=free_port)
    run_folder: Path = field(default_factory=socket_folder)

    def __post_init__(self) -> None:
        (self.folder / ".venv").symlink_to(sys.prefix)
        (self.folder / "edge").symlink_to(ROOT / "edge")
        (self.folder / "mosquitto").mkdir()  # the package's folder
        self.blocks = dict(block for page in PAGES for block in _BLOCK.findall((ROOT / page).read_text("utf-8")))

    def here(self, text: str) -> str:
        """Return *text* with the folders, addresses and user of this run."""
        changes = {
            "/etc/mqtt-trust": f"{self.folder}/keys",
            "/var/lib/mqtt-trust": f"{self.folder}/state",
            "/run/mqtt-trust": f"{self.run_folder}/run",
            "/etc/mosquitto": f"{self.folder}/mosquitto",
            "https://trust.example.com": self.functions.url,
            "127.0.0.1:1884": f"127.0.0.1:{self.trusting}",
            "127.0.0.1:1885": f"127.0.0.1:{self.asking}",
            "127.0.0.1:8883": f"127.0.0.1:{self.port}",
            "-o mosquitto": f"-o {getpass.getuser()}",
        }
        for old, new in changes.items():
            text = text.replace(old, new)
        return text

    def script(self, *names: str) -> str:
        return self.here("\n".join(self.blocks[name] for name in names))

    @property
    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
        bind = {"TRUST_EDGE_BIND": f"127.0.0.1:{self.port}"}
        return {**self.functions.env, "PATH": path, "PYTHONPATH": str(ROOT), **bind}

    def run(self, *names: str) -> str:
        """Run blocks of the pages in one shell, and return what they print."""
        done = subprocess.run(
            ["bash", "-e", "-u", "-o", "pipefail", "-c", self.script(*names)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, name: str) -> Process:
        """Start the program of a block, with the variables of the page."""
        script = f"{self.script('settings')}\nexec {self.script(name).strip()}"
        log = self.folder / f"{name}.log"
        return Process(name, ["bash", "-e", "-u", "-c", script], log, env=self.environment, cwd=self.folder)

    def start_broker(self) -> Process:
        """Start mosquitto with the files that the page installs; the ports are those of this run."""
        config = self.folder / "mosquitto" / "mosquitto.conf"
        text = config.read_text().replace("listener 1884", f"listener {self.trusting}")
        text = self.here(text.replace("listener 1885", f"listener {self.asking}"))
        config.write_text(f"{text}\nuser {getpass.getuser()}\n")  # as root, mosquitto would switch to another user
        command = [program("mosquitto", "mosquitto"), "-c", str(config)]
        return Process("mosquitto", command, self.folder / "mosquitto.log")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    try:
        program("haproxy", "haproxy")
        program("mosquitto", "mosquitto")
    except Missing as missing:
        skip_or_fail(str(missing))
    (tmp_path / "functions").mkdir()
    (tmp_path / "checkout").mkdir()
    functions = Functions(tmp_path / "functions", settings={"TRUST_DOMAIN": "example.com"})
    try:
        yield Machine(tmp_path / "checkout", functions.start())
    finally:
        functions.stop()


@pytest.mark.slow
def test_the_pages_lead_from_empty_folders_to_a_connected_device(machine: Machine, tmp_path: Path) -> None:
    """Keys, folders, first synchronization, HAProxy, agent and broker; then the platform's own certificate."""
    org = Org.create(machine.functions, "mtxpd0")
    pki = Pki(tmp_path / "pki", "mtxpd0")
    org.upload_ca(pki.root.pem)
    machine.run("keys")
    assert re.fullmatch(r"p-\w+:\S+\n", (machine.folder / "edge.key").read_text())
    machine.run("folders")
    assert {path.name: path.stat().st_mode & 0o777 for path in (machine.folder / "keys").iterdir()} == {
        "edge.key": 0o600,
        "broker.key": 0o600,
    }
    machine.run("settings", "once")
    machine.run("mosquitto")
    with ExitStack() as processes:
        for start in (machine.start_broker, lambda: machine.start("haproxy"), lambda: machine.start("agent")):
            processes.callback(start().stop)
        until("the edge to serve the host", lambda: fetch_fingerprint(machine.port, HOST))
        until("the broker to listen", lambda: "running" in (machine.folder / "mosquitto.log").read_text())
        assert machine.run("settings", "look") == "subject=CN = *.messaging.example.com\n"
        _, files = pki.leaf("d:thermo:42")
        device = Device(machine.port, "d:mtxpd0:thermo:42", context(HOST, files))
        processes.callback(device.close)
        assert device.connect(), f"{device.outcome}; {(machine.folder / 'haproxy.log').read_text()[-800:]}"
        device.subscribe("clients/d:mtxpd0:thermo:42/#")
        device.publish("clients/d:mtxpd0:thermo:42/data", b"21.5")
        until("the device's own message", lambda: device.received)

        ca = pki.ca("server CA", pki.root)
        server = certs.server("*.messaging.example.com", ca, not_before=YESTERDAY, not_after=NEXT_YEAR)
        for name, text in (("server.pem", server.pem), ("server.key", server.key_pem), ("chain.pem", ca.pem)):
            (machine.folder / name).write_text(text)
        machine.run("default")
        until("the new certificate", lambda: fetch_fingerprint(machine.port, HOST) == server.fingerprint)


def test_envoy_and_nginx_get_their_files(machine: Machine) -> None:
    """The keys in the form that each reads, for the user alone; nginx has the certificates without an agent."""
    machine.functions.create_org("mtxpd0")
    machine.run("keys", "folders", "envoy", "nginx_key", "nginx_once")
    keys = machine.folder / "keys"
    sent = {
        name: "Basic " + base64.b64encode((keys / f"{name}.key").read_bytes().strip()).decode()
        for name in ("edge", "broker")
    }
    expected = {f"{name}.authorization": text for name, text in sent.items()}
    expected["broker.key.conf"] = f'proxy_set_header Authorization "{sent["broker"]}";\n'
    for name, text in expected.items():
        assert (keys / name).read_text() == text
        assert (keys / name).stat().st_mode & 0o777 == 0o600
    assert "PRIVATE KEY" in (keys / "edge" / "certs" / f"{HOST}.pem").read_text()


def test_every_command_of_the_pages_is_run(machine: Machine) -> None:
    """A block that is marked as tested and that no test knows would only seem to be tested."""
    known = {"keys", "folders", "settings", "once", "haproxy", "agent", "look", "default", "mosquitto"}
    known |= {"envoy", "nginx_key", "nginx_once"}
    assert set(machine.blocks) == known
