"""Start programs, wait until they are ready, and stop exactly the programs that were started."""

import atexit
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class Failed(Exception):
    """Something did not start, or did not happen in time. The text says what, and quotes the program's output."""


class Missing(Exception):
    """A program is not installed on this machine. The text says how to install it."""

    def __init__(self, program: str, package: str) -> None:
        super().__init__(f"{program} is missing. On Debian: apt-get install {package}")


def program(name: str, package: str) -> str:
    """Return the path of a program. Raises: Missing."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if not path:
        raise Missing(name, package)
    return path


_given_ports: set[int] = set()


def free_port() -> int:
    """Return a free port of 127.0.0.1; never the same port twice."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _given_ports:
            _given_ports.add(port)
            return port


def until(what: str, probe: Callable[[], T | None], seconds: float = 20, *, every: float = 0.02) -> T:
    """Return the first true value of *probe*. Raises: Failed after *seconds*; the text names *what* was awaited."""
    end = time.monotonic() + seconds
    while True:
        if value := probe():
            return value
        if time.monotonic() > end:
            raise Failed(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(every)


def is_listening(port: int) -> bool:
    """Return whether a process listens on a port of 127.0.0.1."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def is_socket_open(path: Path) -> bool:
    """Return whether a process listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


class Process:
    """A program that runs in the background; its output goes to the file *log*."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name, self.log = name, log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(  # noqa: S603 - no shell, our own words
                list(command), stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env, cwd=cwd
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def wait_for(self, what: str, probe: Callable[[], T | None], seconds: float = 20) -> T:
        """Wait as `until` does, but fail as soon as the program ends. Raises: Failed with the end of its output."""

        def check_alive_and_probe() -> T | None:
            if not self.running:
                raise Failed(f"{self.name} ended with {self._popen.returncode}: {self.tail()}")
            return probe()

        try:
            return until(what, check_alive_and_probe, seconds)
        except Failed as error:
            raise Failed(f"{error}; {self.name} said: {self.tail()}") from None

    def wait_for_port(self, port: int, seconds: float = 20) -> None:
        self.wait_for(f"{self.name} to listen on port {port}", lambda: is_listening(port), seconds)

    def wait_for_socket(self, path: Path, seconds: float = 20) -> None:
        """Wait for a Unix socket at *path*. HAProxy renames its socket into place after it listens on its ports."""
        self.wait_for(f"{self.name} to listen at {path}", lambda: is_socket_open(path), seconds)

    def tail(self, characters: int = 3000) -> str:
        return self.log.read_text(errors="replace")[-characters:]

    def send(self, what: signal.Signals) -> None:
        self._popen.send_signal(what)

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = 10) -> int:
        """Send the signal *how*, then SIGKILL if the program does not end in time. Return the exit code."""
        if self.running:
            self._popen.send_signal(how)
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait(seconds)


def socket_folder() -> Path:
    """Create a private folder for a Unix socket; the folder is removed when this process ends.

    The path of a socket has room for about a hundred bytes, and a test's own folder may be deeper.
    """
    folder = Path(tempfile.mkdtemp(prefix="trust-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
