"""One stack per worker, started once: real functions, HAProxy with its agent, mosquitto."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from demo.device import Device, Publisher, context
from demo.processes import Missing, program, until
from demo.stack import Org, Stack
from tests.e2e.pki import Files, Pki
from tests.support.certs import Issued
from tests.support.missing import skip_or_fail

CERTIFICATE = "TLS with Client Certificate Authentication"
LEVELS = {
    "optional": "TLS Optional",
    "token": "TLS with Token Authentication",
    "both": "TLS with Token and Client Certificate Authentication",
    "either": "TLS with Client Certificate or Token",
}
PASSWORD = "a-token-of-the-broker"


def user_of(client_id: str) -> str:
    """Return the client ID as a user name of the broker's password file, which allows no colon."""
    return client_id.replace(":", "/")


def s_client(port: int, *words: str, typed: str = "") -> str:
    """Return all output of `openssl s_client`, which sends what Python's ssl would not. *typed*: commands and data."""
    command = [program("openssl", "openssl"), "s_client", "-connect", f"127.0.0.1:{port}", *words]
    done = subprocess.run(
        command, input=typed, capture_output=True, text=True, errors="replace", timeout=30, check=False
    )
    return done.stdout + done.stderr


@dataclass
class Tenant:
    """An organization with its CAs, as devices and tests use it."""

    org: Org
    pki: Pki
    stack: Stack
    root_id: str = ""
    devices: list[Device] = field(default_factory=list)
    refusals_seen: dict[str, int] = field(default_factory=dict)

    def client_id(self, device: str, device_type: str = "thermo", kind: str = "d") -> str:
        return f"{kind}:{self.org.id}:{device_type}:{device}"

    def device(self, client_id: str, files: Files | None, *, sni: str | None = "", **more: Any) -> Device:
        """Make a device. *sni*: empty for the org's own host, None for no SNI. *more*: only, token, version."""
        name = self.org.host if sni == "" else sni
        device = Device(
            self.stack.edge.port,
            client_id,
            context(name, files, only=more.pop("only", None)),
            **more,
        )
        self.devices.append(device)
        return device

    def connect(self, client_id: str, files: Files | None, **more: Any) -> Device:
        """Make a device and connect it. Raises: AssertionError, if the device is refused."""
        device = self.device(client_id, files, **more)
        assert device.connect(), f"{client_id}: {device.outcome}; {self.stack.edge.haproxy.tail(800)}"  # type: ignore[union-attr]
        return device

    def connect_device(self, name: str) -> Device:
        """Connect the device *name* with a certificate of its own."""
        return self.connect(self.client_id(name), self.pki.leaf(f"d:thermo:{name}")[1])

    def publisher(self, client_id: str, signer: Issued | None = None) -> Publisher:
        """Connect a device that keeps publishing."""
        _, kind, type_id, device = ("", *client_id.split(":")[0:1], *client_id.split(":")[2:])
        _, files = self.pki.leaf(f"{kind}:{type_id}:{device}", signer)
        return Publisher(self.connect(client_id, files), f"clients/{client_id}/data")

    def refusal(self, client_id: str) -> str:
        """Return the code with which the edge refused a client since the last call, from HAProxy's log.

        HAProxy writes the line after the device has its answer."""
        log = self.stack.edge.folder / "haproxy.log"
        line = re.compile(rf'^\S+ \S+ (?:deny|error) (\S+) \S+ "{re.escape(client_id)}"$', re.MULTILINE)
        seen = self.refusals_seen

        def find_code() -> str | None:
            codes: list[str] = line.findall(log.read_text(errors="replace"))
            return codes[-1] if len(codes) > seen.get(client_id, 0) else None

        code = until(f"a line about {client_id} in HAProxy's log", find_code, 10)
        seen[client_id] = len(line.findall(log.read_text(errors="replace")))
        return code


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    users = {user_of(f"d:alpha1:{kind}:dev1"): PASSWORD for kind in LEVELS}
    try:
        made = Stack.start(folder, users)
    except Missing as missing:
        skip_or_fail(str(missing))
    yield made
    made.stop()


def make_tenant(stack: Stack, folder: Path, org_id: str) -> Tenant:
    tenant = Tenant(Org.create(stack.functions, org_id), Pki(folder / org_id, org_id), stack)
    tenant.root_id = tenant.org.upload_ca(tenant.pki.root.pem)
    stack.wait_until_served(tenant.org.host)
    return tenant


@pytest.fixture(scope="session")
def tenants(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tenant, Tenant]:
    folder = tmp_path_factory.mktemp("pki")
    first, second = (make_tenant(stack, folder, org_id) for org_id in ("alpha1", "beta01"))
    first.org.policy(CERTIFICATE, **LEVELS)
    return first, second


@pytest.fixture
def alpha(tenants: tuple[Tenant, Tenant]) -> Iterator[Tenant]:
    yield tenants[0]
    for device in tenants[0].devices:
        device.close()
    tenants[0].devices.clear()


@pytest.fixture
def beta(tenants: tuple[Tenant, Tenant]) -> Iterator[Tenant]:
    yield tenants[1]
    for device in tenants[1].devices:
        device.close()
    tenants[1].devices.clear()


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Callable[[str, float], None]:
    """A function that records a time; all times are printed at the end of the run."""
    return lambda what, seconds: record_property(f"measured: {what}", seconds)


class Stopwatch:
    """Seconds since its creation."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start
