"""Kept inputs once more, without instrumentation: this is where the limits hold as they are promised."""

import functools
import traceback
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests import bounds
from tests.fuzz.targets import Run, Target


@dataclass(frozen=True)
class Batch:
    """What one input did. *problem* is None where all held."""

    path: Path
    cost: bounds.Cost | None
    problem: str | None


def replayed(target: Target, paths: Iterable[Path]) -> list[Batch]:
    """What each of *paths* does to *target*, in this process."""
    with warnings.catch_warnings(), target.ready() as run:
        warnings.simplefilter("ignore")  # of odd serial numbers and lengths, which is the point here
        run(b"")  # whatever is made at the first use
        return [_one(target, run, path) for path in paths]


def _one(target: Target, run: Run, path: Path) -> Batch:
    work = functools.partial(run, path.read_bytes())
    try:
        cost = bounds.cost_of(work, seconds=target.seconds)
    except Exception:  # noqa: BLE001 - whatever it is, it is what was looked for
        return Batch(path, None, traceback.format_exc(limit=-6))
    return Batch(path, cost, f"costs {cost}" if cost.exceeds(target.seconds) else None)
