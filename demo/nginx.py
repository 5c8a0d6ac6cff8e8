"""nginx with edge/nginx/nginx.conf on free ports; its certificates are the files that the edge's agent writes."""

import base64
import getpass
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from demo.device import fetch_fingerprint
from demo.processes import Failed, Process, free_port, program
from demo.stack import ROOT, Functions
from shared.records import Role


@dataclass
class NginxEdge:
    """nginx, with its files in *folder*; *websocket* is a port of the broker.

    *tree*: the checkout whose agent and configuration run.
    """

    folder: Path
    functions: Functions
    websocket: int
    port: int = field(default_factory=free_port)
    process: Process | None = None
    tree: Path = ROOT

    def start(self) -> "NginxEdge":
        program("nginx", "nginx-light")
        key = base64.b64encode(self.functions.key(Role.BROKER).encode()).decode()
        line = self.folder / "broker.key.conf"
        line.write_text(f'proxy_set_header Authorization "Basic {key}";\n')
        line.chmod(0o600)
        (self.folder / "edge.key").write_text(self.functions.key(Role.EDGE) + "\n")
        self.take_certificates()
        self.start_nginx()
        return self

    def start_nginx(self) -> None:
        config = self.folder / "nginx.conf"
        config.write_text(self._config())
        command = [program("nginx", "nginx-light"), "-c", str(config), "-e", "stderr"]
        self.process = Process("nginx", command, self.folder / "nginx.log")
        self.process.wait_for_port(self.port)

    def take_certificates(self) -> None:
        """Write the current certificates of edgeFeed as files. nginx reads the files at each handshake."""
        env = {
            **os.environ,
            "TRUST_URL": self.functions.url,
            "TRUST_EDGE_KEY_FILE": str(self.folder / "edge.key"),
            "TRUST_EDGE_STATE": str(self.folder / "edge"),
            "TRUST_EDGE_SOCKET": str(self.folder / "no-haproxy.sock"),
        }
        command = [sys.executable, "-m", "edge.haproxy_sync", "--once"]
        done = subprocess.run(command, cwd=self.tree, env=env, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise Failed(f"edge.haproxy_sync --once: {done.stderr}")

    def wait_until_served(self, host: str) -> None:
        assert self.process is not None
        self.process.wait_for(f"{host} on nginx", lambda: fetch_fingerprint(self.port, host))

    def stop(self) -> None:
        if self.process:
            self.process.stop()

    def _config(self) -> str:
        """Return the configuration file with the ports and paths of this run."""
        text = (self.tree / "edge" / "nginx" / "nginx.conf").read_text()
        changes = {
            "/etc/mqtt-trust/": f"{self.folder}/",
            "/run/mqtt-trust/": f"{self.folder}/",
            "/dev/stdout": f"{self.folder}/access.log",
            "127.0.0.1:8443": f"127.0.0.1:{self.port}",
            "127.0.0.1:8080": f"127.0.0.1:{self.functions.port}",
            "127.0.0.1:9001": f"127.0.0.1:{self.websocket}",
            "user mqtt-trust": f"user {getpass.getuser()}",
        }
        for old, new in changes.items():
            text = text.replace(old, new)
        return text
