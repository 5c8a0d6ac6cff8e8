"""Several processes of the container's server share one address: the kernel spreads the connections."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROCESSES = 2
CONNECTIONS = 40  # all at one of two processes: once in 5 * 10^11 runs
SECONDS = 60

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux spreads connections")


class Server:
    """`python -m functions.hosts.server` with the function health, which needs no store."""

    def __init__(self, port: int, log: Path) -> None:
        environment = {"FUNCTION_TARGET": "health", "HOST": "127.0.0.1", "PORT": str(port), "WORKERS": str(PROCESSES)}
        self.port = port
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "functions.hosts.server"],
                cwd=ROOT,
                env={**os.environ, **environment, "TRUST_DATA": str(log.parent)},
                stdout=output,
                stderr=output,
            )

    @property
    def workers(self) -> set[int]:
        """The processes that listen."""
        return {pid for pid in self._children() if self._inodes(pid) & self.listeners}

    @property
    def listeners(self) -> set[str]:
        """The sockets that listen, by inode."""
        return self._sockets(state="0A")

    def listener_of(self, pid: int) -> set[str]:
        return self._inodes(pid) & self.listeners

    def connections_of(self, pid: int) -> int:
        return len(self._inodes(pid) & self._sockets(state="01"))

    def _children(self) -> list[int]:
        pid = self.process.pid
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    @staticmethod
    def _inodes(pid: int) -> set[str]:
        inodes = set()
        try:
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):  # closed meanwhile
                    inodes.add(os.readlink(entry).removeprefix("socket:[").rstrip("]"))
        except OSError:  # the process has ended
            return set()
        return inodes

    def _sockets(self, *, state: str) -> set[str]:
        """Return the inodes of the sockets in a *state* of /proc/net/tcp whose local port is the server's."""
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return {line[9] for line in lines if line[1].endswith(f":{self.port:04X}") and line[3] == state}

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection on which a request was answered, and which is kept."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        ask(connection)
        return connection

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(SECONDS)


def ask(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/healthz")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b'{"status":"ok"}')
    assert answer.headers.get("connection") != "close"


def wait_until(is_done: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not is_done():
        assert time.monotonic() < end, "nothing changed for a minute"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(free_port(), tmp_path / "log")
    try:
        wait_until(lambda: len(server.workers) == PROCESSES)
        yield server
    finally:
        server.stop()


def test_each_process_gets_connections_and_keeps_them(server: Server) -> None:
    """A broker keeps its connections. None of them ends, however many requests it carries."""
    connections = [server.connect() for _ in range(CONNECTIONS)]
    counts = [server.connections_of(pid) for pid in server.workers]
    assert sum(counts) == CONNECTIONS
    assert min(counts) > 0
    for _ in range(250):
        ask(connections[0])
    for connection in connections:
        connection.close()


def test_the_other_process_answers_while_one_is_started_again(server: Server) -> None:
    """No client waits in the line of a process that was killed."""
    killed = min(server.workers)
    listener = server.listener_of(killed)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not listener & server.listeners)  # the kernel has closed it, and what waited in its line
    for connection in [server.connect() for _ in range(CONNECTIONS)]:
        connection.close()
    wait_until(lambda: len(server.workers) == PROCESSES)
    for connection in [server.connect() for _ in range(CONNECTIONS)]:
        connection.close()


def test_a_port_is_one_servers_until_its_end(server: Server, tmp_path: Path) -> None:
    """The processes of a second server would otherwise take a part of the first server's connections."""
    second = Server(server.port, tmp_path / "second")
    assert second.process.wait(SECONDS) == 1
    assert f"Cannot listen on 127.0.0.1:{server.port}" in (tmp_path / "second").read_text()
    for connection in [server.connect() for _ in range(CONNECTIONS)]:
        connection.close()
    server.stop()
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", server.port))
