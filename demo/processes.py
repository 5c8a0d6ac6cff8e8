"""Starting programs, waiting until they are ready, and stopping just what was started."""

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
    """Something did not start, or did not happen in time. The text says what, with what the program said."""


class Missing(Exception):
    """A program that is not on this machine. The text says how to get it."""

    def __init__(self, program: str, package: str) -> None:
        super().__init__(f"{program} is missing. On Debian: apt-get install {package}")


def program(name: str, package: str) -> str:
    """The path of a program. Raises: Missing."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if not found:
        raise Missing(name, package)
    return found


_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on; never the same twice."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


def until(what: str, probe: Callable[[], T | None], seconds: float = 20, *, every: float = 0.02) -> T:
    """What *probe* gives as soon as it is true. Raises: Failed after *seconds*, naming *what* was waited for."""
    end = time.monotonic() + seconds
    while True:
        if found := probe():
            return found
        if time.monotonic() > end:
            raise Failed(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(every)


def listens(port: int) -> bool:
    """Whether somebody listens on a port of 127.0.0.1."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def answers(path: Path) -> bool:
    """Whether somebody listens at a Unix socket."""
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
        """As `until`, but ends at once where the program does. Raises: Failed with the end of its output."""

        def living() -> T | None:
            if not self.running:
                raise Failed(f"{self.name} ended with {self._popen.returncode}: {self.tail()}")
            return probe()

        try:
            return until(what, living, seconds)
        except Failed as error:
            raise Failed(f"{error}; {self.name} said: {self.tail()}") from None

    def wait_for_port(self, port: int, seconds: float = 20) -> None:
        self.wait_for(f"{self.name} to listen on port {port}", lambda: listens(port), seconds)

    def wait_for_socket(self, path: Path, seconds: float = 20) -> None:
        """A Unix socket at *path*: HAProxy gives its own its name after it listens on its ports."""
        self.wait_for(f"{self.name} to listen at {path}", lambda: answers(path), seconds)

    def tail(self, characters: int = 3000) -> str:
        return self.log.read_text(errors="replace")[-characters:]

    def send(self, what: signal.Signals) -> None:
        self._popen.send_signal(what)

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = 10) -> int:
        """Send *how*, and SIGKILL where that does not end it. Returns the exit code."""
        if self.running:
            self._popen.send_signal(how)
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait(seconds)


def socket_folder() -> Path:
    """A private folder for a Unix socket, removed when this process ends. A socket's path has room for about a hundred
    bytes, and a test's own folder may be deeper than that."""
    made = Path(tempfile.mkdtemp(prefix="trust-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made
