"""The end of sessions that depend on a withdrawal."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge.api import ApiClient, Unavailable
from edge.feed import FeedClient
from edge.runtime import HAProxyUnavailable, RuntimeApi
from edge.state import State
from edge.withdrawals import RECHECK_SECONDS, WithdrawalSync
from tests.edge.feed_stub import FeedStub, running
from tests.edge.test_sessions import CA, K1, RENEWED, S1

# ------------------------------------------------------------------------------------------------ following the feed


class SessionsStub(RuntimeApi):
    """HAProxy's live sessions: the key in the table by source. *beats*: the numbers in the table `heartbeat`."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.keys: dict[str, str] = {}
        self.is_down = False
        self.beats: list[int] = []

    def add(self, source: str, identity: str, ends: float = 0, *, by_older: bool = False) -> None:
        """Add a session of the callout, or of the callout of the version before."""
        older = f"{source}|mtxpd0|{identity}|{CA}|{'f' * 16}|01|{int(ends)}|"
        self.keys[source] = older if by_older else f"{older}|{K1},{'2' * 12}|{S1},|mtxpd0.messaging.example.com|allow"

    def set_number(self, table: str, key: str, number: int) -> bool:
        if self.is_down:
            raise HAProxyUnavailable("away")
        self.beats.append(number)
        return True

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
        feed = FeedClient(self.api)
        self.withdrawals = WithdrawalSync(feed, self.sessions, self.state, edge="edge-1", clock=lambda: self.now)

    def close(self) -> None:
        self.withdrawals.close()
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
    edge.now += 10  # without a cursor, the edge looks at every session for some seconds
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


@pytest.mark.parametrize("loss", ["deleted", "cursor", "history"])
def test_an_edge_that_missed_withdrawals_looks_at_every_session(edge: Edge, loss: str) -> None:
    """edgeFeed reports the loss, the edge has lost its cursor, or edgeFeed has another history (a restored backup)."""
    edge.sessions.add("10.0.0.1:1", "d:thermo:1")
    edge.sessions.add("10.0.0.2:1", "d:thermo:2")
    edge.feed.refused = {"10.0.0.1:1"}
    if loss == "deleted":
        edge.feed.missed = True
    elif loss == "cursor":
        (edge.folder / "withdrawals.json").unlink()
        edge.restart()
    else:
        edge.feed.history = "b2"
    assert edge.withdrawals.step() == 1
    assert set(edge.sessions.keys) == {"10.0.0.2:1"}
    assert edge.withdrawals.step() == 0


def test_without_the_question_an_edge_that_missed_withdrawals_ends_every_session(edge: Edge) -> None:
    """edgeFeed is of the version before."""
    edge.sessions.add("10.0.0.1:1", "d:thermo:1")
    edge.feed.missed = True
    assert edge.withdrawals.step() == 1


def test_a_session_ends_when_its_certificates_expire(edge: Edge) -> None:
    """The agent searches every 15 seconds."""
    edge.sessions.add("10.0.0.1:1", "d:thermo:1", time.time() - 1)
    edge.sessions.add("10.0.0.2:1", "d:thermo:2", time.time() + 3600)
    edge.now += 20
    assert edge.withdrawals.step() == 1
    assert set(edge.sessions.keys) == {"10.0.0.2:1"}


# ------------------------------------------------------------------------------------- asking the functions again


def test_only_sessions_that_would_be_refused_now_end(edge: Edge) -> None:
    """A device that connected after its CA was active again stays. The question has all that decisions compare."""
    edge.sessions.add("10.0.0.1:1", "d:thermo:1")
    edge.sessions.add("10.0.0.2:1", "d:thermo:2")
    edge.feed.refused = {"10.0.0.1:1"}
    edge.feed.withdrawals.append({"org": "mtxpd0", "kind": "ca", "value": "x-" + "0" * 32, "keyDigest": K1})
    assert edge.withdrawals.step() == 1
    assert set(edge.sessions.keys) == {"10.0.0.2:1"}
    asked = {session["session"]: session for session in edge.feed.rechecked[0]}
    assert asked["10.0.0.2:1"] == {
        "session": "10.0.0.2:1",
        "org": "mtxpd0",
        "serverName": "mtxpd0.messaging.example.com",
        "identity": "d:thermo:2",
        "ca": CA,
        "keyDigests": [K1, "2" * 12],
        "serialDigests": [S1, ""],
        "fingerprints": ["f" * 16],
        "basis": "allow",
        "complete": True,
    }


def test_a_session_is_asked_about_once_for_each_withdrawal(edge: Edge) -> None:
    """The search is repeated for five seconds, for sessions that begin with a verdict from before."""
    edge.feed.refused = {"10.0.0.2:1"}
    edge.sessions.add("10.0.0.1:1", "d:thermo:1")
    edge.withdraw("d:thermo:1")
    assert edge.withdrawals.step() == 0
    edge.sessions.add("10.0.0.2:1", "d:thermo:1")
    assert edge.withdrawals.step() == 1
    assert edge.withdrawals.step() == 0
    edge.withdraw("d:thermo:1")
    edge.withdrawals.step()
    assert [[session["session"] for session in asked] for asked in edge.feed.rechecked] == [
        ["10.0.0.1:1"],
        ["10.0.0.2:1"],
        ["10.0.0.1:1"],
    ]


def test_sessions_end_if_no_answer_comes(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """After two seconds without an answer, the remaining sessions end without further questions."""
    assert RECHECK_SECONDS == 2
    monkeypatch.setattr("edge.withdrawals.RECHECK_SECONDS", 0.2)
    monkeypatch.setattr("edge.withdrawals.RECHECK_MAX", 1)
    edge.sessions.add("10.0.0.1:1", "d:thermo:1")
    edge.sessions.add("10.0.0.2:1", "d:thermo:1")
    edge.feed.refused = set()
    edge.withdraw("d:thermo:1")
    edge.feed.recheck_answers.clear()
    assert edge.withdrawals.step() == 2
    assert len(edge.feed.rechecked) == 1
    edge.feed.recheck_answers.set()


def test_many_sessions_are_asked_about_in_several_questions(edge: Edge) -> None:
    """A question has at most 500 sessions."""
    for number in range(501):
        edge.sessions.add(f"10.0.0.1:{number}", "d:thermo:1")
    edge.feed.refused = {"10.0.0.1:500"}
    edge.withdraw("d:thermo:1")
    assert edge.withdrawals.step() == 1
    assert [len(asked) for asked in edge.feed.rechecked] == [500, 1]


def test_an_organization_of_many_sessions_delays_no_withdrawal_of_another(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where questions take long, a step asks for 2 s. Between two steps withdrawals are read and the agent is alive.
    No session is forgotten, also where the agent is started again in between."""
    ask = FeedClient.recheck

    def ask_slowly(client: FeedClient, sessions: Sequence[Mapping[str, Any]]) -> frozenset[str] | None:
        edge.now += 1.2
        return ask(client, sessions)

    monkeypatch.setattr(FeedClient, "recheck", ask_slowly)
    for number in range(3000):
        edge.sessions.add(f"10.0.0.1:{number}", "d:thermo:1")
    edge.sessions.add("10.0.0.2:1", "d:thermo:2")
    edge.sessions.keys["10.0.0.2:1"] = edge.sessions.keys["10.0.0.2:1"].replace("mtxpd0", "zother")
    edge.feed.refused = {*edge.sessions.keys}
    edge.withdraw("d:thermo:1")
    beats = len(edge.sessions.beats)
    assert edge.withdrawals.step() == 1000
    edge.feed.withdrawals.append({"org": "zother", "kind": "identity", "value": "d:thermo:2"})
    assert edge.withdrawals.step() == 1000
    assert "10.0.0.2:1" not in edge.sessions.keys
    assert len(edge.sessions.beats) == beats + 2
    edge.restart()
    for _ in range(3):
        edge.withdrawals.step()
    assert edge.sessions.keys == {}
    edge.restart()
    edge.sessions.add("10.0.0.1:1", "d:thermo:1")
    edge.withdrawals.step()
    assert set(edge.sessions.keys) == {"10.0.0.1:1"}, "the cursor is behind what was applied"


def test_a_question_has_a_size_that_the_functions_accept(edge: Edge) -> None:
    """A body has at most 256 KiB, and sessions with long paths need more for 500."""
    for number in range(400):
        edge.sessions.add(f"10.0.0.1:{number}", "d:thermo:1")
        edge.sessions.keys[f"10.0.0.1:{number}"] = edge.sessions.keys[f"10.0.0.1:{number}"].replace(
            f"{K1},", f"{K1}," * 30
        )
    edge.feed.refused = set()
    edge.withdraw("d:thermo:1")
    assert edge.withdrawals.step() == 0
    assert sum(map(len, edge.feed.rechecked)) == 400
    assert all(len(json.dumps({"sessions": asked})) < 256 * 1024 for asked in edge.feed.rechecked)


def test_a_kind_that_the_agent_does_not_know_makes_it_ask(edge: Edge) -> None:
    """A later version of edgeFeed may withdraw something else. Sessions of other organizations are not concerned."""
    edge.sessions.add("10.0.0.1:1", "d:thermo:1")
    edge.sessions.keys["10.0.0.2:1"] = "10.0.0.2:1|other1|d:thermo:1|-||-|0|"
    edge.feed.refused = set()
    edge.feed.withdrawals.append({"org": "mtxpd0", "kind": "settings", "value": ""})
    assert edge.withdrawals.step() == 0
    assert [[session["session"] for session in asked] for asked in edge.feed.rechecked] == [["10.0.0.1:1"]]


# ---------------------------------------------------------------------------------------------- versions together

OLDER_PAGE = {
    "head": "17",
    "withdrawals": [
        {"org": "mtxpd0", "kind": "identity", "value": "d:thermo:9", "at": "2026-11-25T10:00:00Z"},
        {"org": "mtxpd0", "kind": "ca", "value": "0" * 16 + "-" + "d" * 32, "at": "2026-11-25T10:00:01Z"},
        {"org": "mtxpd0", "kind": "serial", "value": CA + ":a1c", "at": "2026-11-25T10:00:02Z"},
    ],
    "more": False,
    "missed": False,
}


@pytest.mark.parametrize("by_older", [True, False])
def test_beside_functions_of_the_version_before_no_other_session_ends(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, by_older: bool
) -> None:
    """The answer was recorded from version 0.1.0: a head without an id, no digests. There is no question, so the agent
    compares as its version before did, sessions of both callouts."""
    edge.sessions.add("10.0.0.1:1", "d:thermo:1", by_older=by_older)
    edge.sessions.add("10.0.0.2:1", "d:thermo:9", by_older=by_older)
    monkeypatch.setattr(edge.feed, "_list_withdrawals", lambda since: OLDER_PAGE)
    assert edge.withdrawals.step() == 1
    assert set(edge.sessions.keys) == {"10.0.0.1:1"}


def test_the_cursor_of_the_version_before_is_sent_as_it_is(edge: Edge) -> None:
    """The agent never reads a cursor: functions that know the line continue there, and no session ends."""
    (edge.folder / "withdrawals.json").write_text('{"head": "17"}')
    edge.restart()
    asked: list[str] = []

    def answer(since: str) -> object:
        asked.append(since)
        return {"head": "17.c3", "withdrawals": [], "more": False, "missed": False}

    edge.feed._list_withdrawals = answer  # type: ignore[method-assign]
    edge.sessions.add("10.0.0.1:1", "d:thermo:1", by_older=True)
    assert edge.withdrawals.step() == 0
    assert edge.withdrawals.step() == 0
    assert asked == ["17", "17.c3"]
    assert edge.feed.rechecked == []


def test_a_session_without_digests_is_asked_about(edge: Edge) -> None:
    """The callout of the version before registered it. The functions decide by the other fields."""
    edge.sessions.add("10.0.0.1:1", "d:thermo:1", by_older=True)
    edge.feed.refused = set()
    edge.feed.withdrawals.append({"org": "mtxpd0", "kind": "ca", "value": RENEWED, "keyDigest": K1})
    assert edge.withdrawals.step() == 0
    assert [(s["keyDigests"], s["complete"]) for s in edge.feed.rechecked[0]] == [([], False)]


# ------------------------------------------------------------------------------------------------------ heartbeat


def test_each_successful_poll_writes_a_new_number_into_haproxy(edge: Edge) -> None:
    """A failed poll writes none, and an HAProxy that is away delays no withdrawal."""
    edge.withdrawals.step()
    edge.feed.down = True
    with pytest.raises(Unavailable):
        edge.withdrawals.step()
    edge.feed.down = False
    edge.sessions.is_down = True
    edge.withdrawals.step()
    edge.sessions.is_down = False
    edge.withdrawals.step()
    assert len(edge.sessions.beats) == len(set(edge.sessions.beats)) == 3
