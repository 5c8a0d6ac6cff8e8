"""Start the service that is attacked, as an operator starts it.

An attack talks HTTP and MQTT only, so it runs against any version of the service:

    ATTACKED_TREE=/path/of/another/checkout python -m pytest tests/attacks --no-cov

The functions, the agent, the callout and the operator's commands then are those of that checkout.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from demo.processes import Failed
from demo.stack import ROOT, Broker, Functions, HAProxyEdge, Stack
from shared.records import Role

_FEW_FILES: Final = ("sh", "-c", 'ulimit -Sn 1024; exec "$@"', "sh")
F = TypeVar("F", bound="Attacked")
TREE: Final = Path(os.environ.get("ATTACKED_TREE", ROOT))


class Attacked(Functions):
    """The functions of the attacked version, and the commands of its operator.

    The process may open 1,024 files, as a shell and systemd allow by default.
    """

    @property
    def command(self) -> list[str]:
        return [*_FEW_FILES, *super().command]

    def admin(self, *words: str, **environment: str) -> Any:
        """Run `functions.admin` with *words*. Return its JSON.

        Raises: Failed, with what the command printed.
        """
        command = [sys.executable, "-m", "functions.admin", *words, "--json"]
        env = {**self.env, **environment}
        done = subprocess.run(command, cwd=self.tree, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"functions.admin {' '.join(words)}: {done.stderr or done.stdout}")
        return json.loads(done.stdout)

    def create_org(self, org_id: str) -> str:
        """Create an organization. Return the key:token of its operator."""
        self.admin("org", "create", org_id)
        return self.key(Role.OPERATOR, org_id)

    def delete_org(self, org_id: str) -> None:
        command = [sys.executable, "-m", "functions.admin", "org", "delete", org_id, "--yes"]
        done = subprocess.run(command, cwd=self.tree, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"functions.admin org delete {org_id}: {done.stderr or done.stdout}")

    def suspend_org(self, org_id: str, suspended: bool = True) -> None:
        self.admin("org", "suspend" if suspended else "resume", org_id)

    def key(self, role: Role, org_id: str | None = None, **more: Any) -> str:
        """Create an API key. Return its key:token. Without *org_id* the key belongs to the platform.

        *more*: options of `key create`, for example `orgs="alpha1,beta01"`, `proof="broker"`.
        """
        owner = ["--org", org_id] if org_id else ["--platform"]
        options = [word for name, value in more.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        made = self.admin("key", "create", *owner, "--role", role.value, *options)
        return f"{made['key']}:{made['token']}"


@contextmanager
def _running(functions: F) -> Iterator[F]:
    try:
        functions.start()
        yield functions
    finally:
        functions.stop()


@contextmanager
def attacked(folder: Path, **settings: str) -> Iterator[Attacked]:
    """Run the functions of the attacked version within the block, with an empty store in *folder*.

    *settings*: more environment variables.
    """
    with _running(Attacked(folder, settings=settings, tree=TREE)) as functions:
        yield functions


@contextmanager
def attacked_stack(folder: Path, passwords: dict[str, str] | None = None, **edge_settings: str) -> Iterator[Stack]:
    """Run functions, HAProxy with its agent, and mosquitto within the block, all of the attacked version.

    *edge_settings*: more environment variables of HAProxy and its agent.
    """
    functions, broker = Attacked(folder, tree=TREE), Broker(folder)
    edge: HAProxyEdge | None = None
    try:
        functions.start()
        broker.start(passwords or {})
        keys = functions.key_file(Role.EDGE), functions.key_file(Role.BROKER)
        edge = HAProxyEdge(
            folder, functions.url, *keys, broker.trusting, broker.asking, tree=TREE, settings=edge_settings
        )
        edge.start()
        yield Stack(folder, functions, broker, edge)
    finally:
        if edge is not None:
            edge.stop()
        broker.stop()
        functions.stop()


class AttackedContainer(Attacked):
    """The functions of the attacked version, as its container's command starts them (FUNCTION_TARGET=service)."""

    @property
    def env(self) -> dict[str, str]:
        own = {"FUNCTION_TARGET": "service", "HOST": "127.0.0.1", "WORKERS": "1"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**super().env, **own, "PATH": path}

    @property
    def command(self) -> list[str]:
        files = (self.tree / "infra" / "container" / "Dockerfile", self.tree / "Dockerfile")  # the later: up to 0.1.0
        file = next(path for path in files if path.exists())
        words: list[str] = json.loads(re.findall(r"^CMD (\[.*\])$", file.read_text(), re.M)[-1])
        return [*_FEW_FILES, *words]


@contextmanager
def attacked_container(folder: Path, **settings: str) -> Iterator[AttackedContainer]:
    """Run the functions of the attacked version within the block by the container's command; see `attacked`."""
    with _running(AttackedContainer(folder, settings=settings, tree=TREE)) as functions:
        yield functions
