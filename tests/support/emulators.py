"""Start the servers that tests use: the emulators of Firestore and Pub/Sub, moto (AWS) and dynalite (DynamoDB).

A server starts when a test first needs it, once for a whole run with all its workers, on a free port. The server stops
when the first process of the run has ended, for whatever reason. `EmulatorMissing` says what to install.
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
_STARTED: Final[list[subprocess.Popen[bytes]]] = []  # never waited for: the servers outlive this worker
_JAR: Final = "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar"


class EmulatorMissing(Exception):
    """An emulator is not installed on this machine. The text says how to install the emulator."""


@dataclass(frozen=True)
class Emulators:
    """The emulators of one run of the tests.

    Args:
        folder: shared by all workers of the run, and by no other run.
        run: the process id of the run; the emulators stop when that process ends.
    """

    folder: Path
    run: int

    def address(self, name: str) -> str:
        """Return host:port of the emulator *name*, ready for requests. Raises: EmulatorMissing."""
        address_file = self.folder / f"{name}.address"
        with _locked(self.folder / f"{name}.lock"):
            if not address_file.exists():
                address_file.write_text(self._start(name))
            return address_file.read_text()

    def _start(self, name: str) -> str:
        port = free_port()
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            supervisor = subprocess.Popen(
                [sys.executable, __file__, str(self.run), *_command(name, port)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C goes to the tests only; the server stops after them
            )
        _STARTED.append(supervisor)
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(port):
            if supervisor.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not answer; it said:\n{log.read_text(errors='replace')}")
            time.sleep(0.05)
        return f"127.0.0.1:{port}"


def _command(name: str, port: int) -> list[str]:
    """Return the command that starts the emulator. Raises: EmulatorMissing."""
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
                raise EmulatorMissing("The Pub/Sub emulator is not here: `gcloud components install pubsub-emulator`.")
            _java()
            start = [gcloud, "beta", "emulators", "pubsub", "start", "--project=trust"]
            return [*start, f"--host-port=127.0.0.1:{port}", f"--data-dir={tempfile.mkdtemp(prefix='pubsub-')}"]
    raise ValueError(name)


def _java() -> str:
    java = shutil.which("java")
    if not java:
        raise EmulatorMissing("The Firestore emulator needs Java 11 or newer on the PATH.")
    return java


def _jar() -> Path:
    gcloud = shutil.which("gcloud")
    jar = Path(gcloud).resolve().parents[1] / _JAR if gcloud else None
    if jar is None or not jar.exists():
        raise EmulatorMissing(
            "The Firestore emulator is not here: `gcloud components install cloud-firestore-emulator`."
        )
    return jar


def _node() -> str:
    node = shutil.which("node")
    if not node:
        raise EmulatorMissing("dynalite needs Node.js 20 or newer on the PATH.")
    return node


def _dynalite() -> Path:
    script = _HERE.parent / "node_modules" / "dynalite" / "cli.js"
    if not script.exists():
        raise EmulatorMissing("dynalite is not here: `npm ci --prefix tests`, which `make test` does where npm is.")
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
    except urllib.error.HTTPError:  # any HTTP answer shows that the server is ready
        return True
    except OSError:
        return False


def _serve(run: int, command: list[str]) -> None:
    """Run *command* until the process *run* ends."""
    server = subprocess.Popen(command, start_new_session=True)  # own group: some commands are scripts with children
    try:
        while server.poll() is None and _is_alive(run):
            time.sleep(0.5)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    _serve(int(sys.argv[1]), sys.argv[2:])
