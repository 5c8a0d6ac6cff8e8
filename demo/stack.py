"""Functions, edge and broker as an operator starts them: the same files, on free ports of 127.0.0.1."""

import base64
import getpass
import http.client
import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.device import fetch_fingerprint
from demo.processes import Failed, Process, free_port, program, socket_folder, until
from shared.composition import build
from shared.config import Settings
from shared.records import Role
from shared.usecases.context import Context
from shared.usecases.orgs import api_keys, deletion
from shared.usecases.orgs import organizations as orgs

ROOT = Path(__file__).parent.parent
EDGE = ROOT / "edge"
DOMAIN = "iot.example"


class ApiRefused(Exception):
    """The API refused a call. *status* and *problem* are its answer."""

    def __init__(self, status: int, problem: Any) -> None:
        super().__init__(f"{status}: {problem}")
        self.status, self.problem = status, problem


@dataclass
class Functions:
    """Every function in one process, as `make run` starts it.

    *tree*: the checkout whose code runs.
    """

    folder: Path
    port: int = field(default_factory=free_port)
    process: Process | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    tree: Path = ROOT

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        own = {"TRUST_DATA": str(self.folder / "data"), "PORT": str(self.port), "TRUST_DOMAIN": DOMAIN}
        edge = {"TRUST_EDGE_PLAIN": "loopback"}  # the edge is on this machine, and no proxy is between them
        return {**os.environ, **own, **edge, "TRUST_RATE_PER_MINUTE": "100000", **self.settings}

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "functions.local"]

    def start(self) -> "Functions":
        log = self.folder / "functions.log"
        self.process = Process("the functions", self.command, log, env=self.env, cwd=self.tree)
        self.process.wait_for_port(self.port)
        return self

    def stop(self) -> None:
        if self.process:
            self.process.stop()

    @contextmanager
    def _context(self) -> Iterator[Context]:
        """Open the store in this process, as `functions.admin` does; a process for each command would take seconds."""
        app = build(Settings.from_env(self.env))
        try:
            yield app.context
        finally:
            app.close()

    def create_org(self, org_id: str) -> str:
        """Create an organization. Return the key:token of its operator."""
        with self._context() as context:
            orgs.create_org(context, org_id)
            key, token = api_keys.create_key(context, org_id=org_id, role=Role.OPERATOR)
            return f"{key.key}:{token}"

    def delete_org(self, org_id: str) -> None:
        with self._context() as context:
            deletion.delete_org(context, org_id)

    def suspend_org(self, org_id: str, suspended: bool = True) -> None:
        with self._context() as context:
            orgs.set_suspended(context, org_id, suspended)

    def key(self, role: Role, org_id: str | None = None, **more: Any) -> str:
        """Create an API key. Return its key:token. Without *org_id* the key belongs to the platform."""
        with self._context() as context:
            key, token = api_keys.create_key(context, org_id=org_id, role=role, **more)
            return f"{key.key}:{token}"

    def key_file(self, role: Role) -> Path:
        """Create a platform key. Return its file, as edges read it."""
        path = self.folder / f"{role.value}.key"
        path.write_text(self.key(role) + "\n")
        path.chmod(0o600)
        return path

    @contextmanager
    def store_broken(self) -> Iterator[None]:
        """Make the store answer every request with an error, within the block."""
        with closing(sqlite3.connect(self.folder / "data" / "trust.db", timeout=10)) as store:
            store.execute("ALTER TABLE documents RENAME TO away")
            try:
                yield
            finally:
                store.execute("ALTER TABLE away RENAME TO documents")

    def call(self, key: str, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Call the API and return the JSON of the answer.

        *path* is relative to /api/v0002; a path that begins with `//` is relative to the root. Raises: ApiRefused.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = {
            "Authorization": "Basic " + base64.b64encode(key.encode()).decode(),
            "Content-Type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        try:
            where = path[1:] if path.startswith("//") else f"/api/v0002{path}"
            connection.request(method, where, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        content = json.loads(data) if data else None
        if answer.status >= 400:
            raise ApiRefused(answer.status, content)
        return content


@dataclass
class Org:
    """An organization with an operator's key, and its API calls as methods."""

    functions: Functions
    id: str
    key: str

    @classmethod
    def create(cls, functions: Functions, org_id: str) -> "Org":
        return cls(functions, org_id, functions.create_org(org_id))

    @property
    def host(self) -> str:
        return f"{self.id}.messaging.{DOMAIN}"

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        return self.functions.call(self.key, method, path, body, **headers)

    def upload_ca(self, pem: str) -> str:
        """Upload a CA certificate. Return its id."""
        ca_id: str = self.call("POST", "/authentication/cacertificates", {"certificate": pem})["id"]
        return ca_id

    def change_ca(self, ca_id: str, status: str) -> None:
        self.call("PUT", f"/authentication/cacertificates/{ca_id}", {"status": status}, If_Match="*")

    def upload_server(self, pem: str, key_pem: str) -> str:
        """Upload a server certificate with its key. Return its id."""
        body = {"certificate": pem, "privateKey": key_pem}
        server_id: str = self.call("POST", "/authentication/servercertificates", body)["id"]
        return server_id

    def activate(self, server_id: str) -> None:
        self.call("PUT", "/authentication/servercertificates/active", {"id": server_id})

    def policy(self, default: str, **types: str) -> None:
        """Set the level of all devices, and the levels of the device types in *types*."""
        rules = [{"deviceType": name, "level": level} for name, level in types.items()]
        self.call("PUT", "/authorization/connectionpolicy", {"default": default, "rules": rules}, If_Match="*")

    def custom_domains(self, *domains: str) -> None:
        body = {"customDomains": {"enabled": bool(domains), "domains": list(domains)}, "typeCertificates": False}
        self.call("PUT", "/authorization/settings", body, If_Match="*")

    def deny(self, **entry: str) -> str:
        entry_id: str = self.call("POST", "/authorization/denylist", entry)["id"]
        return entry_id

    def lift(self, entry_id: str) -> None:
        self.call("DELETE", f"/authorization/denylist/{entry_id}")

    def count_refused_at_edge(self, code: str) -> int:
        """Return how many clients of this organization a TLS edge refused by itself for *code*, as the API shows."""
        callers = self.call("GET", "/callers")["results"]
        return sum(hour["refused"].get(code, 0) for caller in callers for hour in caller["hours"])

    def last_refusal(self, client_id: str, seconds: float = 10) -> Any:
        """Return the newest refusal of a client from the activity list. Raises: Failed.

        Activity is recorded asynchronously, so the entry may appear after the refusal.
        """

        def find_refusal() -> Any:
            page = self.call("GET", "/activity?kind=refusal&limit=200")
            return next((entry for entry in page["results"] if entry.get("clientId") == client_id), None)

        return until(f"a refusal of {client_id} in the activity list", find_refusal, seconds)


@dataclass
class Broker:
    """mosquitto with the two listeners of edge/mosquitto/mosquitto.conf, on free ports."""

    folder: Path
    trusting: int = field(default_factory=free_port)
    asking: int = field(default_factory=free_port)
    websockets: int = field(default_factory=free_port)
    process: Process | None = None

    def start(self, passwords: Mapping[str, str]) -> "Broker":
        """Start the broker. *passwords* maps users to passwords, for the listener that asks for them."""
        command = program("mosquitto", "mosquitto")
        words = self.folder / "edge.passwords"
        words.write_text("".join(f"{user}:{word}\n" for user, word in passwords.items()))
        words.chmod(0o600)
        if passwords:
            hasher = program("mosquitto_passwd", "mosquitto")
            subprocess.run([hasher, "-U", str(words)], check=True, capture_output=True)  # noqa: S603
        acl = self.folder / "edge.acl"
        acl.write_text((EDGE / "mosquitto" / "edge.acl").read_text())
        acl.chmod(0o600)
        text = (EDGE / "mosquitto" / "mosquitto.conf").read_text()
        text = text.replace("listener 1884", f"listener {self.trusting}").replace(
            "listener 1885", f"listener {self.asking}"
        )
        text = text.replace("/etc/mosquitto/", f"{self.folder}/")
        config = self.folder / "mosquitto.conf"
        text += f"\nlistener {self.websockets} 127.0.0.1\nprotocol websockets\nallow_anonymous true\nacl_file {acl}\n"
        config.write_text(f"{text}\nuser {getpass.getuser()}\n")  # as root, mosquitto would switch to another user
        self.process = Process("mosquitto", [command, "-v", "-c", str(config)], self.folder / "mosquitto.log")
        self.process.wait_for_port(self.trusting)
        self.process.wait_for_port(self.asking)
        return self

    def stop(self) -> None:
        if self.process:
            self.process.stop()


@dataclass
class HAProxyEdge:
    """HAProxy with edge/haproxy/haproxy.cfg, and the agent that keeps its certificates current.

    *tree*: the checkout whose callout, configuration and agent run.
    """

    folder: Path
    url: str
    edge_key: Path
    broker_key: Path
    trusting: int
    asking: int
    port: int = field(default_factory=free_port)
    sockets: Path = field(default_factory=socket_folder)
    haproxy: Process | None = None
    agent: Process | None = None
    tree: Path = ROOT
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def code(self) -> Path:
        return self.tree / "edge" / "haproxy"

    @property
    def state(self) -> Path:
        return self.folder / "edge"

    @property
    def socket(self) -> Path:
        return self.sockets / "haproxy.sock"

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "TRUST_URL": self.url,
            "TRUST_EDGE_CODE": str(self.code),
            "TRUST_EDGE_STATE": str(self.state),
            "TRUST_EDGE_SOCKET": str(self.socket),
            "TRUST_EDGE_BIND": f"127.0.0.1:{self.port}",
            "TRUST_EDGE_NAME": "edge-1",
            "TRUST_EDGE_KEY_FILE": str(self.edge_key),
            "TRUST_BROKER_KEY_FILE": str(self.broker_key),
            "BROKER_TRUSTING": f"127.0.0.1:{self.trusting}",
            "BROKER_ASKING": f"127.0.0.1:{self.asking}",
            **self.settings,
        }

    def start(self) -> "HAProxyEdge":
        """Synchronize once, so that HAProxy has certificates to serve; then start HAProxy and the agent."""
        self.sync_once()
        self.start_haproxy()
        self.start_agent()
        return self

    def sync_once(self) -> None:
        command = [sys.executable, "-m", "edge.haproxy_sync", "--once"]
        done = subprocess.run(command, cwd=self.tree, env=self.env, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise Failed(f"edge.haproxy_sync --once: {done.stderr}")

    def start_haproxy(self, seconds: float = 60) -> None:
        command = [program("haproxy", "haproxy"), "-db", "-f", str(self.code / "haproxy.cfg")]
        self.haproxy = Process("haproxy", command, self.folder / "haproxy.log", env=self.env)
        self.haproxy.wait_for_port(self.port, seconds)
        self.haproxy.wait_for_socket(self.socket, seconds)

    def start_agent(self) -> None:
        command = [sys.executable, "-m", "edge.haproxy_sync"]
        self.agent = Process("the edge's agent", command, self.folder / "agent.log", env=self.env, cwd=self.tree)

    def stop(self) -> None:
        for process in (self.agent, self.haproxy):
            if process:
                process.stop()

    def command(self, words: str) -> str:
        """Send a command to HAProxy's runtime socket. Return the answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(self.socket))
            connection.sendall(words.encode() + b"\n")
            answer = bytearray()
            while part := connection.recv(1 << 16):
                answer += part
        return answer.decode()


@dataclass
class Stack:
    """Functions, broker and edge, with their files in *folder*."""

    folder: Path
    functions: Functions
    broker: Broker
    edge: HAProxyEdge

    @classmethod
    def start(cls, folder: Path, passwords: Mapping[str, str] | None = None) -> "Stack":
        """Start the stack. Raises: Missing, Failed; then no process is left running."""
        program("haproxy", "haproxy")
        program("mosquitto", "mosquitto")
        functions = Functions(folder)
        broker = Broker(folder)
        try:
            functions.start()
            broker.start(passwords or {})
            keys = functions.key_file(Role.EDGE), functions.key_file(Role.BROKER)
            edge = HAProxyEdge(folder, functions.url, *keys, broker.trusting, broker.asking)
            stack = cls(folder, functions, broker, edge)
        except BaseException:
            broker.stop()
            functions.stop()
            raise
        try:
            edge.start()
        except BaseException:
            stack.stop()
            raise
        return stack

    def stop(self) -> None:
        self.edge.stop()
        self.broker.stop()
        self.functions.stop()

    def wait_until_served(self, host: str, seconds: float = 10) -> None:
        """Wait until the edge serves a certificate for *host*. Raises: Failed."""
        until(f"the edge to show a certificate for {host}", lambda: fetch_fingerprint(self.edge.port, host), seconds)
