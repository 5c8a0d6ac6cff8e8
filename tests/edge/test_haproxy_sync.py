"""The agent: what it does when things go wrong. A real HAProxy, and an edgeFeed that says what the test wants."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from demo.device import shown_certificate
from demo.processes import Missing, Process, free_port, program, socket_folder, until
from demo.stack import EDGE
from edge import state as state_module
from edge.api import Api, Unavailable, WrongConfiguration, read_key
from edge.feed import Feed
from edge.haproxy_sync import HostSync, main
from edge.runtime import Refused, Runtime
from edge.state import State, checked
from tests import certs
from tests.certs import Issued
from tests.e2e.conftest import skip_unless_ci
from tests.e2e.pki import NEXT_YEAR, YESTERDAY
from tests.edge.feed_stub import FeedStub, running

pytestmark = pytest.mark.timeout(120)

ONE, TWO = "one001.messaging.example.com", "two002.messaging.example.com"


def server(host: str, number: int = 98) -> Issued:
    return certs.server(
        host[:64], dns=(host,), private=certs.key("P-256", number), not_before=YESTERDAY, not_after=NEXT_YEAR
    )


@pytest.fixture
def feed() -> Iterator[FeedStub]:
    with running(FeedStub()) as stub:
        yield stub


class Edge:
    """HAProxy and an agent that looks only when it is told to."""

    def __init__(self, folder: Path, feed: FeedStub) -> None:
        self.folder, self.feed, self.port = folder, feed, free_port()
        self.socket = socket_folder() / "haproxy.sock"
        self.haproxy: Process | None = None
        self.open()

    def open(self) -> None:
        self.state = State(self.folder / "edge")
        self.api = Api(self.feed.url, "p-edge:token")
        self.sync = HostSync(Feed(self.api), Runtime(self.socket), self.state, edge="edge-1")

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
        """Before anything was fetched."""
        self.state.save()
        self.start_haproxy()

    def stop_haproxy(self) -> None:
        if self.haproxy:
            self.haproxy.stop()

    def shows(self, host: str) -> str | None:
        return shown_certificate(self.port, host)


@pytest.fixture
def edge(tmp_path: Path, feed: FeedStub) -> Iterator[Edge]:
    try:
        program("haproxy", "haproxy")
    except Missing as missing:
        skip_unless_ci(missing)
    made = Edge(tmp_path, feed)
    yield made
    made.stop_haproxy()
    made.close()


def put(feed: FeedStub, host: str, version: str, number: int = 98) -> Issued:
    issued = server(host, number)
    feed.put(host, version, issued.pem, issued.key_pem)
    return issued


def test_what_was_there_before_haproxy_and_what_comes_later_is_shown(edge: Edge, feed: FeedStub) -> None:
    """First start, then a new host, a changed one and a removed one in the running HAProxy; each is reported."""
    first = put(feed, ONE, "v1")
    edge.sync.step()
    edge.start_haproxy()
    assert edge.shows(ONE) == first.fingerprint
    added, changed = put(feed, TWO, "v1"), put(feed, ONE, "v2", 97)
    edge.sync.step()
    assert (edge.shows(ONE), edge.shows(TWO)) == (changed.fingerprint, added.fingerprint)
    assert feed.served == {ONE: "v2", TWO: "v1"}
    feed.remove(TWO)
    edge.sync.step()
    assert (edge.shows(ONE), edge.shows(TWO)) == (changed.fingerprint, None)
    assert [one.name for one in edge.state.certificates.iterdir()] == [f"{ONE}.pem"]
    assert edge.state.crt_list.read_text() == f"{edge.state.certificates}/{ONE}.pem {ONE}\n"


def test_a_restart_of_both_serves_the_same_while_the_functions_are_away(edge: Edge, feed: FeedStub) -> None:
    """From the disk, without one question answered."""
    issued = put(feed, ONE, "v1")
    edge.sync.step()
    edge.start_haproxy()
    edge.sync.step()
    feed.down = True
    edge.stop_haproxy()
    edge.restart_agent()
    edge.start_haproxy()
    with pytest.raises(Unavailable):
        edge.sync.step()
    assert edge.shows(ONE) == issued.fingerprint


def test_a_first_synchronization_into_a_running_haproxy_comes_in_pages(edge: Edge, feed: FeedStub) -> None:
    """Several pages, and HAProxy empty to begin with."""
    feed.page = 3
    issued = {name: put(feed, name, "v1", 60) for name in (f"h0000{n}.messaging.example.com" for n in range(8))}
    edge.state.save()
    edge.start_haproxy()
    edge.sync.step()
    assert {name: edge.shows(name) for name in issued} == {name: one.fingerprint for name, one in issued.items()}
    assert len(feed.served) == 8


def test_a_host_that_fails_keeps_what_it_shows_and_holds_up_nobody(edge: Edge, feed: FeedStub) -> None:
    """A key that cannot be had, or does not belong to the certificate; it is tried again until it works."""
    before, other = put(feed, ONE, "v1"), server(ONE, 96)
    edge.sync.step()
    edge.start_haproxy()
    feed.failing.add(ONE)
    put(feed, ONE, "v2", 97)
    second = put(feed, TWO, "v1")
    edge.sync.step()
    assert (edge.shows(ONE), edge.shows(TWO)) == (before.fingerprint, second.fingerprint)
    feed.failing.clear()
    feed.put(ONE, "v3", other.pem, certs.key_pem(certs.key("P-256", 95)))
    edge.sync.step()
    assert edge.shows(ONE) == before.fingerprint
    assert feed.served[ONE] == "v1"
    mended = put(feed, ONE, "v4", 94)
    edge.sync.step()
    assert edge.shows(ONE) == mended.fingerprint


def test_a_failed_host_is_tried_again_by_itself_also_after_a_restart(edge: Edge, feed: FeedStub) -> None:
    """Though edgeFeed does not name it a second time."""
    feed.failing.add(ONE)
    issued = put(feed, ONE, "v1")
    edge.sync.step()
    edge.start_haproxy()
    feed.failing.clear()
    edge.restart_agent()
    edge.sync.step()
    assert edge.shows(ONE) == issued.fingerprint
    feed.failing.add(TWO)
    second = put(feed, TWO, "v1")
    edge.sync.step()
    assert edge.shows(TWO) is None
    feed.failing.clear()

    def shown() -> bool:
        edge.sync.step()
        return edge.shows(TWO) == second.fingerprint

    until("the second try", shown)


def test_an_haproxy_that_was_started_from_older_files_is_brought_up_to_date(edge: Edge, feed: FeedStub) -> None:
    """All that it holds is compared with what should be there; what is too much is taken away."""
    old = put(feed, ONE, "v1")
    put(feed, TWO, "v1")
    edge.sync.step()
    copy = {one: one.read_bytes() for one in edge.state.path.rglob("*") if one.is_file()}
    new = put(feed, ONE, "v2", 97)
    feed.remove(TWO)
    third = put(feed, "thr003.messaging.example.com", "v1")
    edge.sync.step()
    current = {one: one.read_bytes() for one in edge.state.path.rglob("*") if one.is_file()}
    for path, data in copy.items():
        path.write_bytes(data)
    edge.start_haproxy()
    assert edge.shows(ONE) == old.fingerprint
    for path in copy.keys() - current.keys():
        path.unlink()
    for path, data in current.items():
        path.write_bytes(data)
    edge.sync.step()
    assert edge.shows(ONE) == new.fingerprint
    assert edge.shows(TWO) is None
    assert edge.shows("thr003.messaging.example.com") == third.fingerprint


def test_an_haproxy_that_was_started_with_an_empty_list_is_filled(edge: Edge, feed: FeedStub) -> None:
    """It has none of what the disk holds."""
    issued = put(feed, ONE, "v1")
    edge.sync.step()
    lines = edge.state.crt_list.read_text()
    edge.state.crt_list.write_text("")
    edge.start_haproxy()
    edge.state.crt_list.write_text(lines)
    edge.sync.step()
    assert edge.shows(ONE) == issued.fingerprint


def test_a_damaged_file_is_not_served_and_fetched_again(edge: Edge, feed: FeedStub) -> None:
    """HAProxy does not start from a list with a broken file in it, so the agent takes it out before."""
    issued = put(feed, ONE, "v1")
    edge.sync.step()
    edge.state.pem_path(ONE).write_text("torn")
    edge.restart_agent()
    assert edge.state.crt_list.read_text() == ""
    edge.sync.step()
    edge.start_haproxy()
    assert edge.shows(ONE) == issued.fingerprint


def test_hosts_that_a_new_list_does_not_name_are_gone_but_an_empty_list_takes_nothing(
    edge: Edge, feed: FeedStub
) -> None:
    """edgeFeed may begin anew; one that knows no host at all is more likely a mistake than the truth."""
    issued = put(feed, ONE, "v1")
    put(feed, TWO, "v1")
    edge.sync.step()
    edge.start_haproxy()
    hosts, feed.hosts = feed.hosts, {}
    edge.restart_agent()
    edge.state.head = ""
    edge.sync.step()
    assert edge.shows(ONE) == issued.fingerprint
    feed.hosts = {ONE: hosts[ONE]}
    edge.restart_agent()
    edge.state.head = ""
    edge.sync.step()
    assert (edge.shows(ONE), edge.shows(TWO)) == (issued.fingerprint, None)


def test_a_transaction_that_a_killed_agent_left_open_is_no_obstacle(edge: Edge, feed: FeedStub) -> None:
    """HAProxy knows one transaction at a time."""
    put(feed, ONE, "v1")
    put(feed, TWO, "v1")
    edge.sync.step()
    edge.start_haproxy()
    runtime = Runtime(edge.socket)
    pem = edge.state.pem(TWO)
    assert "Transaction created" in runtime.command(f"set ssl cert {edge.state.pem_path(TWO)}", pem)
    new = put(feed, ONE, "v2", 97)
    edge.sync.step()
    assert edge.shows(ONE) == new.fingerprint


def test_what_haproxy_refuses_is_not_believed(edge: Edge, feed: FeedStub) -> None:
    """A key of another certificate says "Transaction created"; only "Success!" at the end counts."""
    issued = put(feed, ONE, "v1")
    edge.sync.step()
    edge.start_haproxy()
    wrong = server(ONE, 97).pem + certs.key_pem(certs.key("P-256", 96))
    with pytest.raises(Refused):
        Runtime(edge.socket).put_certificate(str(edge.state.pem_path(ONE)), wrong)
    assert edge.shows(ONE) == issued.fingerprint


class Killed(BaseException):
    """As kill -9 would."""


class Killer:
    """Ends the agent at one of its steps: before a command to HAProxy or a change of the disk, after it, or half way
    through a file."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int) -> None:
        self._left = at
        self.struck = False
        for owner, name in ((Runtime, "command"), (os, "replace"), (Path, "unlink")):
            patch.setattr(owner, name, self._around(getattr(owner, name)))
        write = state_module._write

        def torn(path: Path, text: str, **more: Any) -> None:
            self._step(lambda: write(path, text[: len(text) // 2], **more))
            write(path, text, **more)

        patch.setattr(state_module, "_write", torn)

    def _around(self, done: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*words: Any, **more: Any) -> Any:
            self._step()
            found = done(*words, **more)
            self._step()
            return found

        return inner

    def _step(self, last: Callable[[], object] = lambda: None) -> None:
        self._left -= 1
        if self._left == 0:
            self.struck = True
            last()
            raise Killed


def test_an_agent_that_is_killed_at_any_step_goes_on_where_it_was(
    edge: Edge, feed: FeedStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed, a new and a removed host at once. After each kill, with the functions away, the changed host is still
    shown, and a start of HAProxy would show it; with them back, everything is as it should be."""
    stays, goes = put(feed, ONE, "v0"), TWO
    put(feed, TWO, "v0")
    edge.sync.step()
    edge.start_haproxy()
    edge.sync.step()
    for step in range(1, 200):
        comes = f"host{step:02}.messaging.example.com"
        before, stays = stays, put(feed, ONE, f"v{step}", 60 + step % 30)
        new = put(feed, comes, f"v{step}", 60 + (step + 1) % 30)
        feed.remove(goes)
        with monkeypatch.context() as patch:
            killer = Killer(patch, step)
            with suppress(Killed):
                edge.sync.step()
        feed.down = True
        edge.restart_agent()
        with pytest.raises(Unavailable):
            edge.sync.step()
        assert edge.shows(ONE) in (before.fingerprint, stays.fingerprint), step
        listed = [line.split()[0] for line in edge.state.crt_list.read_text().splitlines()]
        assert str(edge.state.pem_path(ONE)) in listed, step
        assert all(checked(Path(one)) for one in listed), step
        feed.down = False
        edge.sync.step()
        shown = [edge.shows(one) for one in (ONE, comes, goes)]
        assert shown == [stays.fingerprint, new.fingerprint, None], step
        assert sorted(edge.state.hosts) == sorted([ONE, comes]), step
        assert feed.served[ONE] == f"v{step}", step
        goes = comes
        if not killer.struck:
            break
    assert not killer.struck
    assert step > 20


@pytest.mark.parametrize(
    "damage",
    [b"", b'{"hosts": {"one001', b"[]", b'{"hosts": []}', b'{"hosts": {"x": {"colour": 1}}}', b"\xff\x00"],
    ids=["empty", "torn", "list", "shape", "version", "bytes"],
)
def test_a_damaged_index_takes_no_certificate_away(edge: Edge, feed: FeedStub, damage: bytes) -> None:
    """While the functions are away, what HAProxy's list names is served on; then edgeFeed corrects it."""
    issued = put(feed, ONE, "v1")
    put(feed, TWO, "v1")
    edge.sync.step()
    edge.start_haproxy()
    edge.close()
    (edge.folder / "edge" / "hosts.json").write_bytes(damage)
    feed.remove(TWO)
    feed.down = True
    edge.open()
    with pytest.raises(Unavailable):
        edge.sync.step()
    assert edge.shows(ONE) == issued.fingerprint
    edge.stop_haproxy()
    edge.start_haproxy()
    assert edge.shows(ONE) == issued.fingerprint
    feed.down = False
    edge.sync.step()
    assert (edge.shows(ONE), edge.shows(TWO)) == (issued.fingerprint, None)
    assert feed.served[ONE] == "v1"


def test_a_host_with_the_longest_name_there_is_holds_up_nobody(edge: Edge, feed: FeedStub) -> None:
    """253 characters, which with an ending are too many for a file's name."""
    longest = ".".join(["one001", "messaging", "x" * 63, "y" * 63, "z" * 63, "w" * 36, "example"])
    assert len(longest) == 253
    first = put(feed, longest, "v1")
    second = put(feed, ONE, "v1", 97)
    edge.sync.step()
    edge.start_haproxy()
    edge.sync.step()
    assert (edge.shows(longest), edge.shows(ONE)) == (first.fingerprint, second.fingerprint)
    changed = put(feed, longest, "v2", 96)
    edge.sync.step()
    assert edge.shows(longest) == changed.fingerprint
    feed.remove(longest)
    edge.sync.step()
    assert edge.shows(longest) is None
    assert [one.name for one in edge.state.certificates.iterdir()] == [f"{ONE}.pem"]


def test_what_stands_beside_a_certificate_is_no_command(edge: Edge, feed: FeedStub) -> None:
    """edgeFeed's text goes over a socket on which HAProxy takes orders; an empty line would end it."""
    issued = server(ONE)
    order = "\n\nshutdown frontend mqtts\n\r\n\r\ndisable frontend mqtts;shutdown frontend mqtts\n"
    feed.put(ONE, "v1", order + issued.pem + order, order + issued.key_pem + order)
    second = put(feed, TWO, "v1", 97)
    edge.start_haproxy_first()
    edge.sync.step()
    assert (edge.shows(ONE), edge.shows(TWO)) == (issued.fingerprint, second.fingerprint)


def test_keys_are_their_owners_alone_and_one_agent_keeps_a_folder(edge: Edge, feed: FeedStub) -> None:
    """Mode 0600 in 0700; a second agent is told so."""
    put(feed, ONE, "v1")
    edge.sync.step()
    assert edge.state.pem_path(ONE).stat().st_mode & 0o777 == 0o600
    assert edge.state.certificates.stat().st_mode & 0o777 == 0o700
    with pytest.raises(WrongConfiguration, match="Another agent"):
        State(edge.state.path)


@pytest.mark.parametrize("url", ["http://trust.example.com", "ftp://127.0.0.1", "trust.example.com"])
def test_keys_do_not_travel_in_the_clear(url: str) -> None:
    """Plain HTTP is for this machine only."""
    with pytest.raises(WrongConfiguration):
        Api(url, "key:token")


def test_a_server_name_that_could_leave_the_folder_is_not_believed(edge: Edge, feed: FeedStub) -> None:
    """It becomes a file's name and a word of a command."""
    issued = server(ONE)
    feed.put("../../etc/passwd", "v1", issued.pem, issued.key_pem)
    with pytest.raises(Unavailable, match="not of the expected form"):
        edge.sync.step()


def test_a_wrong_key_file_stops_the_start_with_a_sentence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Which names the file."""
    path = tmp_path / "key"
    path.write_text("no colon")
    with pytest.raises(WrongConfiguration, match="one line, key:token"):
        read_key(path)
    words = ["--url", "http://127.0.0.1:1", "--key-file", str(path), "--state", str(tmp_path / "s"), "--socket", "x"]
    assert main(words) == 2


def test_one_look_ends_well_where_something_is_there_to_serve(feed: FeedStub, tmp_path: Path) -> None:
    """Before HAProxy's start: with the functions away, 1 where there is nothing to serve and 0 where there is."""
    key = tmp_path / "key"
    key.write_text("p-edge:token\n")
    words = ["--url", feed.url, "--key-file", str(key), "--state", str(tmp_path / "s"), "--socket", str(tmp_path / "x")]
    feed.down = True
    assert main([*words, "--once"]) == 1
    feed.down = False
    put(feed, ONE, "v1")
    assert main([*words, "--once"]) == 0
    feed.down = True
    assert main([*words, "--once"]) == 0
    assert ONE in (tmp_path / "s" / "crt-list.txt").read_text()
