"""The agent after failures, with a real HAProxy and a stub of edgeFeed."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from demo.device import context, fetch_fingerprint
from demo.processes import Missing, Process, free_port, program, socket_folder, until
from demo.stack import EDGE
from edge import state as state_module
from edge.api import ApiClient, Unavailable, WrongConfiguration, read_key
from edge.feed import FeedClient
from edge.haproxy_sync import HostSync, main
from edge.runtime import CommandRefused, RuntimeApi
from edge.state import State, check_pem
from tests.e2e.pki import NEXT_YEAR, YESTERDAY
from tests.edge.feed_stub import FeedStub, running
from tests.support import certs
from tests.support.certs import Issued
from tests.support.missing import skip_or_fail

pytestmark = pytest.mark.timeout(120)

ONE, TWO = "one001.messaging.example.com", "two002.messaging.example.com"


def issue_server(host: str, number: int = 98) -> Issued:
    return certs.server(
        host[:64], dns=(host,), private=certs.key("P-256", number), not_before=YESTERDAY, not_after=NEXT_YEAR
    )


@pytest.fixture
def feed() -> Iterator[FeedStub]:
    with running(FeedStub()) as stub:
        yield stub


class Edge:
    """HAProxy, and an agent that synchronizes only when a test calls `sync.step`."""

    def __init__(self, folder: Path, feed: FeedStub) -> None:
        self.folder, self.feed, self.port = folder, feed, free_port()
        self.socket = socket_folder() / "haproxy.sock"
        self.haproxy: Process | None = None
        self.open()

    def open(self) -> None:
        self.state = State(self.folder / "edge")
        self.api = ApiClient(self.feed.url, "p-edge:token")
        self.sync = HostSync(FeedClient(self.api), RuntimeApi(self.socket), self.state, edge="edge-1")

    def close(self) -> None:
        self.sync.close()
        self.state.close()
        self.api.close()

    def restart_agent(self) -> None:
        self.close()
        self.open()

    def start_haproxy(self) -> None:
        key = self.folder / "broker.key"
        key.write_text("p-broker:token\n")
        environment = {
            **os.environ,
            "TRUST_URL": self.feed.url,
            "TRUST_EDGE_CODE": str(EDGE / "haproxy"),
            "TRUST_EDGE_STATE": str(self.state.path),
            "TRUST_EDGE_SOCKET": str(self.socket),
            "TRUST_EDGE_BIND": f"127.0.0.1:{self.port}",
            "TRUST_BROKER_KEY_FILE": str(key),
        }
        command = [program("haproxy", "haproxy"), "-db", "-f", str(EDGE / "haproxy" / "haproxy.cfg")]
        self.haproxy = Process("haproxy", command, self.folder / "haproxy.log", env=environment)
        self.haproxy.wait_for_port(self.port)
        self.haproxy.wait_for_socket(self.socket)

    def start_haproxy_first(self) -> None:
        """Start HAProxy before the first synchronization."""
        self.state.save()
        self.start_haproxy()

    def stop_haproxy(self) -> None:
        if self.haproxy:
            self.haproxy.stop()

    def read_served(self, host: str) -> str | None:
        return fetch_fingerprint(self.port, host)


@pytest.fixture
def edge(tmp_path: Path, feed: FeedStub) -> Iterator[Edge]:
    try:
        program("haproxy", "haproxy")
    except Missing as missing:
        skip_or_fail(str(missing))
    edge = Edge(tmp_path, feed)
    yield edge
    edge.stop_haproxy()
    edge.close()


def publish(feed: FeedStub, host: str, version: str, number: int = 98) -> Issued:
    issued = issue_server(host, number)
    feed.put(host, version, issued.pem, issued.key_pem)
    return issued


def test_hosts_from_before_and_after_the_start_of_haproxy_are_served(edge: Edge, feed: FeedStub) -> None:
    """A new, a changed and a removed host take effect in the running HAProxy, and are reported to edgeFeed."""
    first = publish(feed, ONE, "v1")
    edge.sync.step()
    edge.start_haproxy()
    assert edge.read_served(ONE) == first.fingerprint
    added, changed = publish(feed, TWO, "v1"), publish(feed, ONE, "v2", 97)
    edge.sync.step()
    assert (edge.read_served(ONE), edge.read_served(TWO)) == (changed.fingerprint, added.fingerprint)
    assert feed.served == {ONE: "v2", TWO: "v1"}
    feed.remove(TWO)
    edge.sync.step()
    assert (edge.read_served(ONE), edge.read_served(TWO)) == (changed.fingerprint, None)
    assert [path.name for path in edge.state.certificates.iterdir()] == [f"{ONE}.pem"]
    assert edge.state.crt_list.read_text() == f"{edge.state.certificates}/{ONE}.pem {ONE}\n"


@pytest.mark.parametrize(
    ("level", "answer"),
    [
        (4, b"\x20\x02\x00\x03"),
        (5, b"\x20\x11\x00\x88\x0e\x1f\x00\x0bunavailable"),
    ],
)
def test_a_device_that_cannot_be_judged_may_try_again(edge: Edge, feed: FeedStub, level: int, answer: bytes) -> None:
    """The answer is "Server unavailable" (MQTT 3.1.1, 3.2.2.3; MQTT 5.0, 3.2.2.2), not that the device is refused."""
    publish(feed, ONE, "v1")
    edge.sync.step()
    edge.start_haproxy()
    feed.down = True
    with (
        socket.create_connection(("127.0.0.1", edge.port), timeout=5) as plain,
        context(ONE).wrap_socket(plain) as secure,
    ):
        properties = b"\x00" if level == 5 else b""
        rest = b"\x00\x04MQTT" + bytes([level]) + b"\x02\x00\x1e" + properties + b"\x00\x07d:a:b:c"
        secure.sendall(b"\x10" + bytes([len(rest)]) + rest)
        assert secure.recv(64) == answer


def test_after_a_restart_without_the_functions_the_same_certificates_are_served(edge: Edge, feed: FeedStub) -> None:
    """The agent and HAProxy restart from the disk."""
    issued = publish(feed, ONE, "v1")
    edge.sync.step()
    edge.start_haproxy()
    edge.sync.step()
    feed.down = True
    edge.stop_haproxy()
    edge.restart_agent()
    edge.start_haproxy()
    with pytest.raises(Unavailable):
        edge.sync.step()
    assert edge.read_served(ONE) == issued.fingerprint


def test_a_first_synchronization_may_have_several_pages(edge: Edge, feed: FeedStub) -> None:
    """HAProxy is running, and has no certificate yet."""
    feed.page = 3
    issued = {name: publish(feed, name, "v1", 60) for name in (f"h0000{n}.messaging.example.com" for n in range(8))}
    edge.state.save()
    edge.start_haproxy()
    edge.sync.step()
    assert {name: edge.read_served(name) for name in issued} == {
        name: certificate.fingerprint for name, certificate in issued.items()
    }
    assert len(feed.served) == 8


def test_a_host_that_fails_keeps_its_certificate_and_does_not_delay_others(edge: Edge, feed: FeedStub) -> None:
    """The key is unavailable, or does not belong to the certificate. The agent retries until it succeeds."""
    before, mismatched = publish(feed, ONE, "v1"), issue_server(ONE, 96)
    edge.sync.step()
    edge.start_haproxy()
    feed.failing.add(ONE)
    publish(feed, ONE, "v2", 97)
    second = publish(feed, TWO, "v1")
    edge.sync.step()
    assert (edge.read_served(ONE), edge.read_served(TWO)) == (before.fingerprint, second.fingerprint)
    feed.failing.clear()
    feed.put(ONE, "v3", mismatched.pem, certs.key_pem(certs.key("P-256", 95)))
    edge.sync.step()
    assert edge.read_served(ONE) == before.fingerprint
    assert feed.served[ONE] == "v1"
    corrected = publish(feed, ONE, "v4", 94)
    edge.sync.step()
    assert edge.read_served(ONE) == corrected.fingerprint


def test_a_failed_host_is_retried_also_after_a_restart(edge: Edge, feed: FeedStub) -> None:
    """edgeFeed does not list the host a second time."""
    feed.failing.add(ONE)
    issued = publish(feed, ONE, "v1")
    edge.sync.step()
    edge.start_haproxy()
    feed.failing.clear()
    edge.restart_agent()
    edge.sync.step()
    assert edge.read_served(ONE) == issued.fingerprint
    feed.failing.add(TWO)
    second = publish(feed, TWO, "v1")
    edge.sync.step()
    assert edge.read_served(TWO) is None
    feed.failing.clear()

    def is_served() -> bool:
        edge.sync.step()
        return edge.read_served(TWO) == second.fingerprint

    until("the second attempt", is_served)


def test_an_haproxy_that_started_with_older_files_is_updated(edge: Edge, feed: FeedStub) -> None:
    """The agent compares all certificates of HAProxy with the disk, and removes the others."""
    old = publish(feed, ONE, "v1")
    publish(feed, TWO, "v1")
    edge.sync.step()
    copy = {path: path.read_bytes() for path in edge.state.path.rglob("*") if path.is_file()}
    new = publish(feed, ONE, "v2", 97)
    feed.remove(TWO)
    third = publish(feed, "thr003.messaging.example.com", "v1")
    edge.sync.step()
    current = {path: path.read_bytes() for path in edge.state.path.rglob("*") if path.is_file()}
    for path, data in copy.items():
        path.write_bytes(data)
    edge.start_haproxy()
    assert edge.read_served(ONE) == old.fingerprint
    for path in copy.keys() - current.keys():
        path.unlink()
    for path, data in current.items():
        path.write_bytes(data)
    edge.sync.step()
    assert edge.read_served(ONE) == new.fingerprint
    assert edge.read_served(TWO) is None
    assert edge.read_served("thr003.messaging.example.com") == third.fingerprint


def test_an_haproxy_that_started_with_an_empty_list_is_updated(edge: Edge, feed: FeedStub) -> None:
    """HAProxy has none of the certificates that are on the disk."""
    issued = publish(feed, ONE, "v1")
    edge.sync.step()
    lines = edge.state.crt_list.read_text()
    edge.state.crt_list.write_text("")
    edge.start_haproxy()
    edge.state.crt_list.write_text(lines)
    edge.sync.step()
    assert edge.read_served(ONE) == issued.fingerprint


def test_a_damaged_file_is_not_served_and_is_requested_again(edge: Edge, feed: FeedStub) -> None:
    """HAProxy does not start if its list names a damaged file, so the agent removes the line."""
    issued = publish(feed, ONE, "v1")
    edge.sync.step()
    edge.state.pem_path(ONE).write_text("torn")
    edge.restart_agent()
    assert edge.state.crt_list.read_text() == ""
    edge.sync.step()
    edge.start_haproxy()
    assert edge.read_served(ONE) == issued.fingerprint


def test_hosts_that_a_full_list_does_not_contain_are_removed_unless_the_list_is_empty(
    edge: Edge, feed: FeedStub
) -> None:
    """edgeFeed may start again with a full list. An empty list is probably a configuration error."""
    issued = publish(feed, ONE, "v1")
    publish(feed, TWO, "v1")
    edge.sync.step()
    edge.start_haproxy()
    hosts, feed.hosts = feed.hosts, {}
    edge.restart_agent()
    edge.state.head = ""
    edge.sync.step()
    assert edge.read_served(ONE) == issued.fingerprint
    feed.hosts = {ONE: hosts[ONE]}
    edge.restart_agent()
    edge.state.head = ""
    edge.sync.step()
    assert (edge.read_served(ONE), edge.read_served(TWO)) == (issued.fingerprint, None)


def test_the_open_transaction_of_a_killed_agent_is_aborted(edge: Edge, feed: FeedStub) -> None:
    """HAProxy allows one transaction at a time."""
    publish(feed, ONE, "v1")
    publish(feed, TWO, "v1")
    edge.sync.step()
    edge.start_haproxy()
    runtime = RuntimeApi(edge.socket)
    pem = edge.state.read_pem(TWO)
    assert "Transaction created" in runtime.run(f"set ssl cert {edge.state.pem_path(TWO)}", pem)
    new = publish(feed, ONE, "v2", 97)
    edge.sync.step()
    assert edge.read_served(ONE) == new.fingerprint


def test_a_refused_certificate_is_an_error(edge: Edge, feed: FeedStub) -> None:
    """HAProxy accepts a wrong key at first ("Transaction created") and refuses it at the commit."""
    issued = publish(feed, ONE, "v1")
    edge.sync.step()
    edge.start_haproxy()
    wrong = issue_server(ONE, 97).pem + certs.key_pem(certs.key("P-256", 96))
    with pytest.raises(CommandRefused):
        RuntimeApi(edge.socket).put_certificate(str(edge.state.pem_path(ONE)), wrong)
    assert edge.read_served(ONE) == issued.fingerprint


class Killed(BaseException):
    """The end of the agent, as by SIGKILL."""


class Killer:
    """Kills the agent at step number *at*.

    Each command to HAProxy and each change of the disk has a step before and a step after it. Each write of a file also
    has a step in its middle.
    """

    def __init__(self, patch: pytest.MonkeyPatch, at: int) -> None:
        self._remaining = at
        self.has_struck = False
        for owner, name in ((RuntimeApi, "run"), (os, "replace"), (Path, "unlink")):
            patch.setattr(owner, name, self._wrap(getattr(owner, name)))
        write = state_module._write

        def write_in_two_steps(path: Path, text: str, **more: Any) -> None:
            self._step(lambda: write(path, text[: len(text) // 2], **more))
            write(path, text, **more)

        patch.setattr(state_module, "_write", write_in_two_steps)

    def _wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **more: Any) -> Any:
            self._step()
            result = function(*args, **more)
            self._step()
            return result

        return wrapper

    def _step(self, last: Callable[[], object] = lambda: None) -> None:
        self._remaining -= 1
        if self._remaining == 0:
            self.has_struck = True
            last()
            raise Killed


@pytest.mark.slow
def test_an_agent_that_is_killed_at_any_step_recovers(
    edge: Edge, feed: FeedStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent is killed while it applies a changed, a new and a removed host. While the functions are away, the
    changed host is still served, also after a start of HAProxy. Once they answer again, all hosts are correct."""
    current, removed = publish(feed, ONE, "v0"), TWO
    publish(feed, TWO, "v0")
    edge.sync.step()
    edge.start_haproxy()
    edge.sync.step()
    for step in range(1, 200):
        added = f"host{step:02}.messaging.example.com"
        before, current = current, publish(feed, ONE, f"v{step}", 60 + step % 30)
        new = publish(feed, added, f"v{step}", 60 + (step + 1) % 30)
        feed.remove(removed)
        with monkeypatch.context() as patch:
            killer = Killer(patch, step)
            with suppress(Killed):
                edge.sync.step()
        feed.down = True
        edge.restart_agent()
        with pytest.raises(Unavailable):
            edge.sync.step()
        assert edge.read_served(ONE) in (before.fingerprint, current.fingerprint), step
        listed = [line.split()[0] for line in edge.state.crt_list.read_text().splitlines()]
        assert str(edge.state.pem_path(ONE)) in listed, step
        assert all(check_pem(Path(path)) for path in listed), step
        feed.down = False
        edge.sync.step()
        served = [edge.read_served(name) for name in (ONE, added, removed)]
        assert served == [current.fingerprint, new.fingerprint, None], step
        assert sorted(edge.state.hosts) == sorted([ONE, added]), step
        assert feed.served[ONE] == f"v{step}", step
        removed = added
        if not killer.has_struck:
            break
    assert not killer.has_struck
    assert step > 20


@pytest.mark.parametrize(
    "damage",
    [b"", b'{"hosts": {"one001', b"[]", b'{"hosts": []}', b'{"hosts": {"x": {"colour": 1}}}', b"\xff\x00"],
    ids=["empty", "torn", "list", "shape", "version", "bytes"],
)
def test_a_damaged_index_removes_no_certificate(edge: Edge, feed: FeedStub, damage: bytes) -> None:
    """The certificates in HAProxy's list are served while the functions are away. Then edgeFeed corrects the index."""
    issued = publish(feed, ONE, "v1")
    publish(feed, TWO, "v1")
    edge.sync.step()
    edge.start_haproxy()
    edge.close()
    (edge.folder / "edge" / "hosts.json").write_bytes(damage)
    feed.remove(TWO)
    feed.down = True
    edge.open()
    with pytest.raises(Unavailable):
        edge.sync.step()
    assert edge.read_served(ONE) == issued.fingerprint
    edge.stop_haproxy()
    edge.start_haproxy()
    assert edge.read_served(ONE) == issued.fingerprint
    feed.down = False
    edge.sync.step()
    assert (edge.read_served(ONE), edge.read_served(TWO)) == (issued.fingerprint, None)
    assert feed.served[ONE] == "v1"


def test_a_host_may_have_the_longest_possible_name(edge: Edge, feed: FeedStub) -> None:
    """With 253 characters and an ending, the file name would be too long."""
    longest = ".".join(["one001", "messaging", "x" * 63, "y" * 63, "z" * 63, "w" * 36, "example"])
    assert len(longest) == 253
    first = publish(feed, longest, "v1")
    second = publish(feed, ONE, "v1", 97)
    edge.sync.step()
    edge.start_haproxy()
    edge.sync.step()
    assert (edge.read_served(longest), edge.read_served(ONE)) == (first.fingerprint, second.fingerprint)
    changed = publish(feed, longest, "v2", 96)
    edge.sync.step()
    assert edge.read_served(longest) == changed.fingerprint
    feed.remove(longest)
    edge.sync.step()
    assert edge.read_served(longest) is None
    assert [path.name for path in edge.state.certificates.iterdir()] == [f"{ONE}.pem"]


def test_text_beside_a_certificate_is_not_a_command(edge: Edge, feed: FeedStub) -> None:
    """edgeFeed's text is sent to HAProxy's runtime socket, where an empty line ends the payload of a command."""
    issued = issue_server(ONE)
    commands = "\n\nshutdown frontend mqtts\n\r\n\r\ndisable frontend mqtts;shutdown frontend mqtts\n"
    feed.put(ONE, "v1", commands + issued.pem + commands, commands + issued.key_pem + commands)
    second = publish(feed, TWO, "v1", 97)
    edge.start_haproxy_first()
    edge.sync.step()
    assert (edge.read_served(ONE), edge.read_served(TWO)) == (issued.fingerprint, second.fingerprint)


def test_a_folder_is_private_and_has_one_agent(edge: Edge, feed: FeedStub) -> None:
    """Files have mode 0600 in folders of mode 0700. A second agent does not start."""
    publish(feed, ONE, "v1")
    edge.sync.step()
    assert edge.state.pem_path(ONE).stat().st_mode & 0o777 == 0o600
    assert edge.state.certificates.stat().st_mode & 0o777 == 0o700
    with pytest.raises(WrongConfiguration, match="Another agent"):
        State(edge.state.path)


@pytest.mark.parametrize("url", ["http://trust.example.com", "ftp://127.0.0.1", "trust.example.com"])
def test_plain_http_to_another_machine_is_refused(url: str) -> None:
    """Requests contain an API key, and responses contain private keys."""
    with pytest.raises(WrongConfiguration):
        ApiClient(url, "key:token")


def test_an_unsafe_server_name_is_refused(edge: Edge, feed: FeedStub) -> None:
    """A server name becomes a file name and a word of a command."""
    issued = issue_server(ONE)
    feed.put("../../etc/passwd", "v1", issued.pem, issued.key_pem)
    with pytest.raises(Unavailable, match="not of the expected form"):
        edge.sync.step()


def test_an_invalid_key_file_stops_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The message names the file."""
    path = tmp_path / "key"
    path.write_text("no colon")
    with pytest.raises(WrongConfiguration, match="one line, key:token"):
        read_key(path)
    arguments = [
        "--url",
        "http://127.0.0.1:1",
        "--key-file",
        str(path),
        "--state",
        str(tmp_path / "s"),
        "--socket",
        "x",
    ]
    assert main(arguments) == 2


def test_once_succeeds_if_there_is_a_certificate_to_serve(feed: FeedStub, tmp_path: Path) -> None:
    """While the functions are away, the exit status is 1 without a certificate on the disk, and 0 with one."""
    key = tmp_path / "key"
    key.write_text("p-edge:token\n")
    arguments = [
        "--url",
        feed.url,
        "--key-file",
        str(key),
        "--state",
        str(tmp_path / "s"),
        "--socket",
        str(tmp_path / "x"),
    ]
    feed.down = True
    assert main([*arguments, "--once"]) == 1
    feed.down = False
    publish(feed, ONE, "v1")
    assert main([*arguments, "--once"]) == 0
    feed.down = True
    assert main([*arguments, "--once"]) == 0
    assert ONE in (tmp_path / "s" / "crt-list.txt").read_text()


def test_once_fails_if_no_certificate_can_be_fetched(feed: FeedStub, tmp_path: Path) -> None:
    """edgeFeed lists hosts and exports no key, so that HAProxy would start without a certificate."""
    key = tmp_path / "key"
    key.write_text("p-edge:token\n")
    options = {"--url": feed.url, "--key-file": key, "--state": tmp_path / "s", "--socket": tmp_path / "x"}
    arguments = [*(str(word) for option in options.items() for word in option), "--once"]
    assert main(arguments) == 0, "without any host there is nothing to fetch"
    publish(feed, ONE, "v1")
    feed.failing.add(ONE)
    assert main(arguments) == 1
    feed.failing.clear()
    assert main(arguments) == 0
