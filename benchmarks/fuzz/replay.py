"""Run inputs again without instrumentation, where the limits hold as promised."""

import functools
import traceback
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fuzz.refusals import Run
from benchmarks.fuzz.targets import FuzzTarget
from tests.support import bounds


@dataclass(frozen=True)
class ReplayResult:
    """The result of one input. *problem* is None if all properties held."""

    path: Path
    cost: bounds.Cost | None
    problem: str | None


def replay(target: FuzzTarget, paths: Iterable[Path]) -> list[ReplayResult]:
    """Run *target* on each of *paths*, in this process."""
    with warnings.catch_warnings(), target.ready() as run:
        warnings.simplefilter("ignore")  # warnings about odd serial numbers and lengths are expected
        run(b"")  # a first run, for what is created on first use
        return [_replay_file(target, run, path) for path in paths]


def _replay_file(target: FuzzTarget, run: Run, path: Path) -> ReplayResult:
    work = functools.partial(run, path.read_bytes())
    try:
        cost = bounds.measure_cost(work, seconds=target.seconds)
    except Exception:  # noqa: BLE001 - any exception is a finding
        return ReplayResult(path, None, traceback.format_exc(limit=-6))
    return ReplayResult(path, cost, f"costs {cost}" if cost.exceeds(target.seconds) else None)
