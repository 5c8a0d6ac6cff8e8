"""The comparison of remembered and fresh answers notices each fault that a memory for verdicts may have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.usecases.devices import verify
from shared.usecases.devices.memory import Remembered
from shared.validation.policy import Decision
from shared.validation.verdict import Verdict
from tests.exact.test_dates import BELOW, compare_in_order
from tests.exact.world import OFFSETS, Broker, Difference, World, native, opened
from tests.support.stores import Place

pytestmark = pytest.mark.stores("sqlite")

Versions = tuple[str | None, ...]
_holds = Remembered.holds
_remember = Remembered.of


def without_versions(self: Remembered, token_hash: str, versions: Versions, second: int) -> bool:
    return _holds(self, token_hash, self.common.versions, second)


def without_absent_documents(self: Remembered, token_hash: str, versions: Versions, second: int) -> bool:
    return _holds(
        self,
        token_hash,
        tuple(None if before is None else now for before, now in zip(self.common.versions, versions, strict=True)),
        second,
    )


def without_deleted_documents(self: Remembered, token_hash: str, versions: Versions, second: int) -> bool:
    return _holds(
        self,
        token_hash,
        tuple(before if now is None else now for before, now in zip(self.common.versions, versions, strict=True)),
        second,
    )


def without_window(self: Remembered, token_hash: str, versions: Versions, second: int) -> bool:
    return _holds(self, token_hash, versions, self.own.begin)


def without_token(self: Remembered, token_hash: str, versions: Versions, second: int) -> bool:
    return _holds(self, self.common.token_hash, versions, second)


@pytest.mark.parametrize(
    "mutant",
    [
        without_versions,
        without_window,
        pytest.param(without_absent_documents, marks=pytest.mark.slow),
        pytest.param(without_deleted_documents, marks=pytest.mark.slow),
    ],
)
def test_the_walk_notices_what_is_not_compared(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch, mutant: Callable[..., bool]
) -> None:
    monkeypatch.setattr(Remembered, "holds", mutant)
    with opened(tmp_path, place, seed=2) as world, pytest.raises(Difference):
        world.walk(20_000)


def test_a_token_that_is_not_compared_is_noticed(tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(world: World) -> None:
        device, broker = world.fleet.devices[BELOW], world.brokers[0]
        world.compare(native(device, broker))
        world.compare(native(device, Broker(broker.key, world.brokers[1].token)))

    with opened(tmp_path, place) as world:
        ask(world)
        monkeypatch.setattr(Remembered, "holds", without_token)
        with pytest.raises(Difference):
            ask(world)


@pytest.mark.parametrize(("begin", "end"), [(-1, 0), (0, 1)], ids=["begins a second early", "ends a second late"])
def test_a_window_that_is_wrong_by_a_second_is_noticed(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch, begin: int, end: int
) -> None:
    def remember(verdict: Verdict, *, window: range, **more: Any) -> Remembered:
        return _remember(verdict, window=range(window.start + begin, window.stop + end), **more)

    monkeypatch.setattr(Remembered, "of", remember)
    with opened(tmp_path, place) as world:
        device = world.fleet.devices[BELOW]
        assert device.leaf is not None
        first, last = device.leaf.certificate.not_before, device.leaf.certificate.not_after
        moments = [date + offset for date in (first, last) for offset in OFFSETS]
        with pytest.raises(Difference):
            compare_in_order(world, device, moments)


def test_remembered_refusals_are_noticed(tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "is_worth_remembering", lambda presented, verdict: verdict.decision is Decision.DENY)
    with opened(tmp_path, place, seed=2) as world, pytest.raises(Difference):
        world.walk(20_000)
