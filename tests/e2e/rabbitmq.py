"""RabbitMQ as a process of the tests, with the files of a folder of edge/rabbitmq."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo.processes import Missing, Process, free_port, is_listening, program
from demo.stack import ROOT

# Debian's programs; those in /usr/sbin would change the user first.
PROGRAMS = Path("/usr/lib/rabbitmq/bin")
PAGE = (ROOT / "docs" / "brokers" / "rabbitmq.md").read_text(encoding="utf-8")
FILES = ("rabbitmq.conf", "advanced.config", "definitions.json", "enabled_plugins")


@dataclass
class RabbitMQ:
    """A running RabbitMQ. *environment* leads its command line tools to it."""

    environment: dict[str, str]
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "rabbitmq.log"

    def run(self, script: str) -> str:
        """Run lines of a shell in which `rabbitmqctl` is this RabbitMQ's, and return their output.

        Raises: AssertionError, if a line fails.
        """
        environment = {**self.environment, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-e", "-c", script], env=environment, cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextmanager
def run_rabbitmq(source: Path, folder: Path, port: int, change: Callable[[str], str]) -> Iterator[RabbitMQ]:
    """Run RabbitMQ in *folder* with the files of *source*, until the end of the block.

    *port*: of the MQTT listener. *change*: makes the changes that an operator makes in each file.
    Raises: Missing, Failed.
    """
    epmd_program = program("epmd", "erlang-base")
    if not (PROGRAMS / "rabbitmq-server").exists():
        raise Missing("rabbitmq-server", "rabbitmq-server")
    for name in FILES:
        text = (source / name).read_text().replace("/etc/rabbitmq/", f"{folder}/")
        (folder / name).write_text(change(text))
    epmd_port, dist_port = free_port(), free_port()
    environment = {
        **os.environ,
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"trust{port}@localhost",
        "RABBITMQ_DIST_PORT": str(dist_port),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "no-such-file"),
    }
    # Otherwise Erlang would start this daemon itself, and leave it running.
    epmd = Process("epmd", [epmd_program, "-port", str(epmd_port)], folder / "epmd.log", env=environment)
    try:
        epmd.wait_for_port(epmd_port)
        server = [str(PROGRAMS / "rabbitmq-server")]
        broker = Process("rabbitmq", server, folder / "rabbitmq.log", env=environment, cwd=folder)
        try:
            broker.wait_for("rabbitmq", lambda: is_listening(port) and "startup complete" in broker.tail(100_000), 150)
            yield RabbitMQ(environment, folder)
        finally:
            broker.stop(seconds=40)
    finally:
        epmd.stop()
        shutil.rmtree(folder / "mnesia", ignore_errors=True)
