"""The end of sessions that depend on a withdrawal."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.api import ApiClient
from edge.feed import FeedClient, WithdrawalEntry
from edge.runtime import HAProxyUnavailable, RuntimeApi
from edge.state import State
from edge.withdrawals import Session, WithdrawalSync
from tests.edge.feed_stub import FeedStub, running

CA = "0123456789abcdef-" + "c" * 32
KEY = f"10.0.0.1:4711|mtxpd0|d:thermo:1|{CA}|{'f' * 16},{'9' * 16}|0a1b|1821378114|{'a' * 16},{'b' * 16}"


def must_end(kind: str, value: str, org: str = "mtxpd0", key: str = KEY) -> bool:
    session = Session.parse(key)
    assert session is not None
    return session.depends_on(WithdrawalEntry(org, kind, value))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("org", "mtxpd0"),
        ("identity", "d:thermo:1"),
        ("ca", CA),
        ("ca", "fedcba9876543210-" + "b" * 32),
        ("fingerprint", "f" * 64),
        ("fingerprint", "9" * 64),
        ("fingerprint", "a" * 64),
        ("fingerprint", "c" * 64),
        ("serial", f"{CA}:a1b"),
        ("something new", "?"),
    ],
)
def test_a_session_ends_with_each_object_that_it_depends_on(kind: str, value: str) -> None:
    """The organization, device, certificate, CA and the certificates that it sent. In doubt the session ends."""
    assert must_end(kind, value)
    assert not must_end(kind, value, org="other1")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("identity", "d:thermo:11"),
        ("ca", "0123456789abcdef-" + "d" * 32),
        ("fingerprint", "e" * 64),
        ("serial", "0123456789abcdef-" + "d" * 32 + ":a1b"),
    ],
)
def test_other_sessions_continue(kind: str, value: str) -> None:
    """A withdrawal does not affect other devices."""
    assert not must_end(kind, value)


def test_the_key_of_an_earlier_callout_is_valid() -> None:
    """An earlier version wrote 64 digits for the device's certificate, and 32 for each further certificate."""
    key = KEY.replace(f"{'f' * 16},{'9' * 16}", "f" * 64).replace("a" * 16, "a" * 32).replace("b" * 16, "b" * 32)
    assert all(must_end("fingerprint", digit * 64, key=key) for digit in "fab")
    assert must_end("ca", "fedcba9876543210-" + "b" * 32, key=key)
    assert not must_end("fingerprint", "e" * 64, key=key)


def test_a_session_with_another_serial_number_continues() -> None:
    """If the device sent no intermediate, the serial number can only be that of the device's certificate."""
    key = KEY.rpartition("|")[0] + "|"
    assert must_end("serial", f"{CA}:a1b", key=key)
    assert not must_end("serial", f"{CA}:a1c", key=key)


@pytest.mark.parametrize("key", ["", "a|b", KEY + "|more", KEY.replace("1821378114", "soon")])
def test_a_key_of_another_form_is_ignored(key: str) -> None:
    """Another program may use a table of the same name."""
    assert Session.parse(key) is None


# ------------------------------------------------------------------------------------------------ following the feed


class SessionsStub(RuntimeApi):
    """HAProxy's live sessions: the key in the table by source."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.keys: dict[str, str] = {}
        self.is_down = False

    def add(self, source: str, identity: str, ends: float = 0) -> None:
        self.keys[source] = f"{source}|mtxpd0|{identity}|{CA}|{'f' * 64}|01|{int(ends)}|"

    def list_registered(self, table: str) -> list[str]:
        if self.is_down:
            raise HAProxyUnavailable("away")
        return list(self.keys.values())

    def list_sessions(self, frontend: str) -> Iterator[tuple[str, str]]:
        yield from [(source, f"0x{source}") for source in self.keys]

    def end_session(self, name: str) -> None:
        del self.keys[name.removeprefix("0x")]


@pytest.fixture
def feed() -> Iterator[FeedStub]:
    with running(FeedStub()) as stub:
        yield stub


class Edge:
    """An agent with a simulated clock."""

    def __init__(self, folder: Path, feed: FeedStub) -> None:
        self.now = 1000.0
        self.folder, self.feed, self.sessions = folder, feed, SessionsStub()
        self.open()

    def open(self) -> None:
        self.api, self.state = ApiClient(self.feed.url, "p-edge:token"), State(self.folder)
        self.withdrawals = WithdrawalSync(FeedClient(self.api), self.sessions, self.state, clock=lambda: self.now)

    def close(self) -> None:
        self.api.close()
        self.state.close()

    def restart(self) -> None:
        self.close()
        self.open()

    def withdraw(self, identity: str) -> None:
        self.feed.withdrawals.append({"org": "mtxpd0", "kind": "identity", "value": identity})


@pytest.fixture
def edge(tmp_path: Path, feed: FeedStub) -> Iterator[Edge]:
    edge = Edge(tmp_path / "state", feed)
    edge.withdrawals.step()
    yield edge
    edge.close()


def test_only_sessions_of_withdrawn_devices_end(edge: Edge) -> None:
    """The withdrawals may have several pages."""
    edge.feed.page = 1
    for number in range(4):
        edge.sessions.add(f"10.0.0.{number}:1", f"d:thermo:{number}")
    edge.withdraw("d:thermo:0")
    edge.withdraw("d:thermo:2")
    assert edge.withdrawals.step() == 2
    assert set(edge.sessions.keys) == {"10.0.0.1:1", "10.0.0.3:1"}


def test_a_session_of_an_earlier_verdict_ends_too(edge: Edge) -> None:
    """A session that begins within five seconds may have a verdict from before the withdrawal. A later session has a
    new verdict."""
    edge.withdraw("d:thermo:1")
    assert edge.withdrawals.step() == 0
    edge.now += 2.4
    edge.sessions.add("10.0.0.1:1", "d:thermo:1")
    assert edge.withdrawals.step() == 1
    edge.now += 5
    edge.sessions.add("10.0.0.1:2", "d:thermo:1")
    assert edge.withdrawals.step() == 0


def test_withdrawals_are_kept_while_haproxy_is_unavailable(edge: Edge) -> None:
    """A restart of the agent loses none: the cursor is saved only after the sessions have ended."""
    edge.sessions.add("10.0.0.1:1", "d:thermo:1")
    edge.withdraw("d:thermo:1")
    edge.sessions.is_down = True
    with pytest.raises(HAProxyUnavailable):
        edge.withdrawals.step()
    edge.restart()
    edge.sessions.is_down = False
    assert edge.withdrawals.step() == 1


def test_an_edge_that_missed_withdrawals_ends_every_session(edge: Edge, tmp_path: Path) -> None:
    """edgeFeed reports the loss, or the edge has lost its cursor."""
    edge.sessions.add("10.0.0.1:1", "d:thermo:1")
    edge.feed.missed = True
    assert edge.withdrawals.step() == 1
    edge.sessions.add("10.0.0.2:1", "d:thermo:2")
    (edge.folder / "withdrawals.json").unlink()
    edge.restart()
    assert edge.withdrawals.step() == 1


def test_a_session_ends_when_its_certificates_expire(edge: Edge) -> None:
    """The agent searches every 15 seconds."""
    edge.sessions.add("10.0.0.1:1", "d:thermo:1", time.time() - 1)
    edge.sessions.add("10.0.0.2:1", "d:thermo:2", time.time() + 3600)
    edge.now += 20
    assert edge.withdrawals.step() == 1
    assert set(edge.sessions.keys) == {"10.0.0.2:1"}
