"""Which sessions fall under a withdrawal, from their line in the register."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.api import Api
from edge.feed import Feed, Withdrawal
from edge.runtime import HAProxyAway, Runtime
from edge.state import State
from edge.withdrawals import Session, Withdrawer
from tests.edge.feed_stub import FeedStub, running

CA = "0123456789abcdef-" + "c" * 32
KEY = f"10.0.0.1:4711|mtxpd0|d:thermo:1|{CA}|{'f' * 16},{'9' * 16}|0a1b|1821378114|{'a' * 16},{'b' * 16}"


def falls(kind: str, value: str, org: str = "mtxpd0", key: str = KEY) -> bool:
    session = Session.of(key)
    assert session is not None
    return session.falls_under(Withdrawal(org, kind, value))


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
def test_a_session_ends_with_what_it_rests_on(kind: str, value: str) -> None:
    """Its org, device, certificate and CA, and the certificates it sent; in doubt it ends, and is judged anew."""
    assert falls(kind, value)
    assert not falls(kind, value, org="other1")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("identity", "d:thermo:11"),
        ("ca", "0123456789abcdef-" + "d" * 32),
        ("fingerprint", "e" * 64),
        ("serial", "0123456789abcdef-" + "d" * 32 + ":a1b"),
    ],
)
def test_other_sessions_stay(kind: str, value: str) -> None:
    """Withdrawing one thing is no reason to disturb another's devices."""
    assert not falls(kind, value)


def test_a_line_of_an_earlier_callout_is_understood() -> None:
    """It wrote a whole fingerprint of the leaf, and half of each certificate's that was sent after it."""
    key = KEY.replace(f"{'f' * 16},{'9' * 16}", "f" * 64).replace("a" * 16, "a" * 32).replace("b" * 16, "b" * 32)
    assert all(falls("fingerprint", one * 64, key=key) for one in "fab")
    assert falls("ca", "fedcba9876543210-" + "b" * 32, key=key)
    assert not falls("fingerprint", "e" * 64, key=key)


def test_another_serial_number_of_the_same_ca_stays() -> None:
    """Where no intermediate was sent, whose number could be meant."""
    key = KEY.rpartition("|")[0] + "|"
    assert falls("serial", f"{CA}:a1b", key=key)
    assert not falls("serial", f"{CA}:a1c", key=key)


@pytest.mark.parametrize("key", ["", "a|b", KEY + "|more", KEY.replace("1821378114", "soon")])
def test_a_line_that_is_none_of_ours_is_left_alone(key: str) -> None:
    """Somebody may use a table of that name."""
    assert Session.of(key) is None


# ------------------------------------------------------------------------------------------------ following the feed


class Register(Runtime):
    """HAProxy's sessions: source -> line of the register."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.living: dict[str, str] = {}
        self.away = False

    def enter(self, source: str, identity: str, ends: float = 0) -> None:
        self.living[source] = f"{source}|mtxpd0|{identity}|{CA}|{'f' * 64}|01|{int(ends)}|"

    def registered(self, table: str) -> list[str]:
        if self.away:
            raise HAProxyAway("away")
        return list(self.living.values())

    def sessions(self, frontend: str) -> Iterator[tuple[str, str]]:
        yield from [(source, f"0x{source}") for source in self.living]

    def end_session(self, name: str) -> None:
        del self.living[name.removeprefix("0x")]


@pytest.fixture
def feed() -> Iterator[FeedStub]:
    with running(FeedStub()) as stub:
        yield stub


class Scene:
    """A withdrawer on a clock that the test moves."""

    def __init__(self, folder: Path, feed: FeedStub) -> None:
        self.now = 1000.0
        self.folder, self.feed, self.register = folder, feed, Register()
        self.open()

    def open(self) -> None:
        self.api, self.state = Api(self.feed.url, "p-edge:token"), State(self.folder)
        self.withdrawer = Withdrawer(Feed(self.api), self.register, self.state, clock=lambda: self.now)

    def close(self) -> None:
        self.api.close()
        self.state.close()

    def restart(self) -> None:
        self.close()
        self.open()

    def withdraw(self, identity: str) -> None:
        self.feed.withdrawn.append({"org": "mtxpd0", "kind": "identity", "value": identity})


@pytest.fixture
def scene(tmp_path: Path, feed: FeedStub) -> Iterator[Scene]:
    made = Scene(tmp_path / "state", feed)
    made.withdrawer.step()
    yield made
    made.close()


def test_what_is_withdrawn_is_ended_and_nothing_else(scene: Scene) -> None:
    """Also over several pages."""
    scene.feed.page = 1
    for number in range(4):
        scene.register.enter(f"10.0.0.{number}:1", f"d:thermo:{number}")
    scene.withdraw("d:thermo:0")
    scene.withdraw("d:thermo:2")
    assert scene.withdrawer.step() == 2
    assert set(scene.register.living) == {"10.0.0.1:1", "10.0.0.3:1"}


def test_a_verdict_that_was_on_its_way_is_caught_too(scene: Scene) -> None:
    """A session that appears within five seconds of the withdrawal was judged before it; a later one was judged
    anew."""
    scene.withdraw("d:thermo:1")
    assert scene.withdrawer.step() == 0
    scene.now += 2.4
    scene.register.enter("10.0.0.1:1", "d:thermo:1")
    assert scene.withdrawer.step() == 1
    scene.now += 5
    scene.register.enter("10.0.0.1:2", "d:thermo:1")
    assert scene.withdrawer.step() == 0


def test_while_haproxy_does_not_answer_nothing_is_forgotten(scene: Scene) -> None:
    """Not by a restart of the agent either: it moves on only when a withdrawal was carried out."""
    scene.register.enter("10.0.0.1:1", "d:thermo:1")
    scene.withdraw("d:thermo:1")
    scene.register.away = True
    with pytest.raises(HAProxyAway):
        scene.withdrawer.step()
    scene.restart()
    scene.register.away = False
    assert scene.withdrawer.step() == 1


def test_an_edge_that_missed_something_ends_every_session(scene: Scene, tmp_path: Path) -> None:
    """Reported so by edgeFeed, or because nobody knows what it heard last."""
    scene.register.enter("10.0.0.1:1", "d:thermo:1")
    scene.feed.missed = True
    assert scene.withdrawer.step() == 1
    scene.register.enter("10.0.0.2:1", "d:thermo:2")
    (scene.folder / "withdrawals.json").unlink()
    scene.restart()
    assert scene.withdrawer.step() == 1


def test_a_session_ends_with_its_certificates(scene: Scene) -> None:
    """Looked for every 15 seconds."""
    scene.register.enter("10.0.0.1:1", "d:thermo:1", time.time() - 1)
    scene.register.enter("10.0.0.2:1", "d:thermo:2", time.time() + 3600)
    scene.now += 20
    assert scene.withdrawer.step() == 1
    assert set(scene.register.living) == {"10.0.0.2:1"}
