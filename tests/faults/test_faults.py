"""The short form of `make faults`: a few faults on each store under load, and some kills.

Every acknowledged change is stored, no entry is incomplete, no refused device is admitted, no verdict is late.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.faults.kills import kill_again_and_again
from benchmarks.faults.load import VERDICT_SECONDS
from benchmarks.faults.rig import EMULATORS, Rig, rig
from tests.support.clouds import address
from tests.support.emulators import Emulators

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SECONDS = 1.5  # seconds under each fault
FAULTS = {
    "sqlite": ("refused calls", "lost answers", "stuck calls", "disk full"),
    "dynamodb": ("half answers", "throttling", "comes and goes"),
    "firestore": ("silence", "lost answers of calls", "comes and goes"),
}


@pytest.fixture(scope="module", params=FAULTS)
def running(
    request: pytest.FixtureRequest, emulators: Emulators, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """A running server on each store."""
    store: str = request.param
    if store in EMULATORS:
        address(emulators, EMULATORS[store])  # skips the test if the emulator is missing
    with rig(store, emulators, tmp_path_factory.mktemp(store)) as started:
        yield started


def test_acknowledged_changes_survive_faults_and_no_refused_device_is_admitted(running: Rig) -> None:
    for fault in FAULTS[running.store]:
        row = running.suffer(fault, seconds=SECONDS)
        at = f"{running.store}, {fault}"
        assert row.lost == [], at
        assert row.halves == [], at
        assert row.left == [], f"{at}: what a sweep must remove"
        assert row.wrong == [], at
        assert row.log == [], f"{at}: unexpected errors"
        assert row.late == 0, f"{at}: a verdict took {row.slowest:.1f} s; {VERDICT_SECONDS} are promised"
        assert row.back is not None, f"{at}: the service did not recover"
        assert row.operations.get("done", 0) > 0, f"{at}: nothing was acknowledged, so nothing was tested"


def test_kill_9_loses_no_acknowledged_change(tmp_path: Path) -> None:
    killed = kill_again_and_again(tmp_path, 10)
    assert (killed.lost, killed.halves, killed.wrong) == ([], [], [])
    assert killed.count == 10
    assert killed.acknowledged > 0
