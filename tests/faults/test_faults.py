"""The short form of `make faults`: a few faults on each store under load, and some kills; all that was acknowledged is
there, nothing is half there, no device that must not enter is let in, and every verdict comes in time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clouds import address
from tests.emulators import Emulators
from tests.faults.kills import kill_again_and_again
from tests.faults.load import VERDICT_SECONDS
from tests.faults.rig import EMULATORS, Rig, rig

pytestmark = [pytest.mark.slow, pytest.mark.in_time, pytest.mark.timeout(240)]

SECONDS = 1.5  # under each fault
FAULTS = {
    "sqlite": ("refused calls", "lost answers", "stuck calls", "disk full"),
    "dynamodb": ("half answers", "throttling", "comes and goes"),
    "firestore": ("silence", "lost answers of calls", "comes and goes"),
}


@pytest.fixture(scope="module", params=FAULTS)
def running(
    request: pytest.FixtureRequest, emulators: Emulators, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """A server on a store."""
    store: str = request.param
    if store in EMULATORS:
        address(emulators, EMULATORS[store])  # skips where it is not here
    with rig(store, emulators, tmp_path_factory.mktemp(store)) as one:
        yield one


def test_what_was_acknowledged_stands_and_no_device_enters_that_must_not(running: Rig) -> None:
    for fault in FAULTS[running.store]:
        row = running.suffer(fault, seconds=SECONDS)
        at = f"{running.store}, {fault}"
        assert row.lost == [], at
        assert row.halves == [], at
        assert row.left == [], f"{at}: what a sweep must mend"
        assert row.wrong == [], at
        assert row.log == [], f"{at}: errors that were not foreseen"
        assert row.late == 0, f"{at}: a verdict took {row.slowest:.1f} s, and {VERDICT_SECONDS} are promised"
        assert row.back is not None, f"{at}: all was not well again"
        assert row.operations.get("done", 0) > 0, f"{at}: nothing was acknowledged, so nothing was tested"


def test_nothing_that_was_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    killed = kill_again_and_again(tmp_path, 10)
    assert (killed.lost, killed.halves, killed.wrong) == ([], [], [])
    assert killed.count == 10
    assert killed.acknowledged > 0
