"""The servers that tests talk to: the emulators of Firestore and Pub/Sub, moto (AWS) and dynalite (DynamoDB again).

Each is started at the first need, once for a whole run with all its workers, on a free port; it ends by itself when the
run's first process is gone, however that came. What cannot be started says what is missing (`Missing`).
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent
_START_SECONDS: Final = 90.0
_STARTED: Final[list[subprocess.Popen[bytes]]] = []  # not waited for: they outlive this worker
_JAR: Final = "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar"


class Missing(Exception):
    """An emulator is not on this machine. Its text says what brings it."""


@dataclass(frozen=True)
class Emulators:
    """Of one run of the tests.

    Args:
        folder: shared by all workers of the run, and by no other run.
        run: the process that the emulators end with.
    """

    folder: Path
    run: int

    def address(self, name: str) -> str:
        """host:port of the emulator called *name*, which answers there. Raises: Missing."""
        noted = self.folder / f"{name}.address"
        with _locked(self.folder / f"{name}.lock"):
            if not noted.exists():
                noted.write_text(self._start(name))
            return noted.read_text()

    def _start(self, name: str) -> str:
        port = free_port()
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            supervisor = subprocess.Popen(
                [sys.executable, __file__, str(self.run), *_command(name, port)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the tests; the server ends with them
            )
        _STARTED.append(supervisor)
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(port):
            if supervisor.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not answer; it said:\n{log.read_text(errors='replace')}")
            time.sleep(0.05)
        return f"127.0.0.1:{port}"


def _command(name: str, port: int) -> list[str]:
    """Raises: Missing."""
    match name:
        case "firestore":
            small = ["-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]  # starts in half the time
            main = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"
            return [_java(), *small, "-cp", str(_jar()), main, "start", "--host=127.0.0.1", f"--port={port}"]
        case "moto":
            return [sys.executable, str(_HERE / "moto_dynamodb.py"), str(port)]
        case "dynalite":
            instant = ["--createTableMs", "0", "--deleteTableMs", "0", "--updateTableMs", "0"]
            return [_node(), str(_dynalite()), "--host", "127.0.0.1", "--port", str(port), *instant]
        case "pubsub":
            gcloud = shutil.which("gcloud")
            if gcloud is None:
                raise Missing("The Pub/Sub emulator is not here: `gcloud components install pubsub-emulator`.")
            _java()
            start = [gcloud, "beta", "emulators", "pubsub", "start", "--project=trust"]
            return [*start, f"--host-port=127.0.0.1:{port}", f"--data-dir={tempfile.mkdtemp(prefix='pubsub-')}"]
    raise ValueError(name)


def _java() -> str:
    found = shutil.which("java")
    if not found:
        raise Missing("The Firestore emulator needs Java 11 or newer on the PATH.")
    return found


def _jar() -> Path:
    gcloud = shutil.which("gcloud")
    jar = Path(gcloud).resolve().parents[1] / _JAR if gcloud else None
    if jar is None or not jar.exists():
        raise Missing("The Firestore emulator is not here: `gcloud components install cloud-firestore-emulator`.")
    return jar


def _node() -> str:
    found = shutil.which("node")
    if not found:
        raise Missing("dynalite needs Node.js 20 or newer on the PATH.")
    return found


def _dynalite() -> Path:
    script = _HERE / "node_modules" / "dynalite" / "cli.js"
    if not script.exists():
        raise Missing("dynalite is not here: `npm ci --prefix tests`, which `make test` does where npm is.")
    return script


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
            return True
    except urllib.error.HTTPError:  # any answer will do
        return True
    except OSError:
        return False


def _serve(run: int, command: list[str]) -> None:
    """Run *command* for as long as the process *run* lives."""
    server = subprocess.Popen(command, start_new_session=True)  # a group of its own: some are scripts with children
    try:
        while server.poll() is None and _lives(run):
            time.sleep(0.5)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    _serve(int(sys.argv[1]), sys.argv[2:])
