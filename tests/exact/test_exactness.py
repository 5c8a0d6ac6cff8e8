"""A remembered verdict is the verdict that would be computed now: the replies are the same octets."""

import os
from pathlib import Path
from typing import Final

import pytest

from shared.usecases.orgs.organizations import set_suspended
from tests.exact.world import KINDS_OF_CHANGES, ORG, World, opened
from tests.support.stores import Place

# `make exact` sets both
_ANSWERS: Final = int(os.environ.get("EXACT_ANSWERS", "100000"))  # on SQLite; a twentieth on each store of a cloud
_SEED: Final = int(os.environ.get("EXACT_SEED", "1"))
_WALKS: Final = 8


def check_walk(world: World, answers: int) -> None:
    """Walk, and check that the walk says something: many answers came from the memory, for many reasons."""
    world.walk(answers)
    print(f"{world.answers} answers, {world.memory.answers} from the memory, codes {sorted(world.codes)}")  # noqa: T201 - make exact shows the line
    assert world.memory.answers > world.allowed * 0.4
    assert len(world.codes) >= 12, world.codes
    assert len(world.changed) >= (8 if answers >= 10_000 else 3), world.changed


@pytest.mark.stores("sqlite")
def test_each_kind_of_change_changes_something(tmp_path: Path, place: Place) -> None:
    """A walk whose changes are refused would say nothing."""
    with opened(tmp_path, place, seed=1) as world:
        for kind in KINDS_OF_CHANGES:
            for _ in range(20):
                if world.changed[kind]:
                    break
                set_suspended(world.changing.context, ORG, False)
                world.change(kind)
            assert world.changed[kind], kind


@pytest.mark.stores("sqlite")
def test_remembered_and_fresh_answers_are_equal(tmp_path: Path, place: Place) -> None:
    with opened(tmp_path, place, seed=1) as world:
        check_walk(world, 1_000)


@pytest.mark.slow
@pytest.mark.stores("sqlite")
@pytest.mark.parametrize("seed", range(_WALKS))
def test_a_hundred_thousand_answers_are_equal(tmp_path: Path, place: Place, seed: int) -> None:
    """100,000 in all walks, on SQLite."""
    with opened(tmp_path, place, seed=100 * _SEED + seed) as world:
        check_walk(world, _ANSWERS // _WALKS)


@pytest.mark.slow
@pytest.mark.stores("firestore", "dynamodb")
@pytest.mark.parametrize("seed", range(2))
def test_answers_are_equal_on_the_clouds_stores(tmp_path: Path, place: Place, seed: int) -> None:
    """5,000 in both walks, on each store."""
    with opened(tmp_path, place, seed=100 * _SEED + seed) as world:
        check_walk(world, _ANSWERS // 40)
