"""What the benchmarks have in common: rows, how two things are measured side by side, the table and its JSON.

A benchmark is a module of this package with `rows(quick) -> list[Row]`. Every figure that counts is a ratio of two
things measured in one run, one after the other, again and again: a machine that gets slower meanwhile slows both. The
median of the ratios of all rounds speaks, and the spread says how far to believe it.
"""

import datetime as dt
import gc
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

_SLICE_SECONDS: Final = 0.005  # of one subject in one round: well above the clock's grain, below a machine's moods


# ------------------------------------------------------------------------------------------------------------- rows


@dataclass(frozen=True)
class Spread:
    """What was measured over and over: the median, and where one in ten is below and above."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Spread":
        """Raises: ValueError, without samples."""
        if not samples:
            raise ValueError("nothing was measured")
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0])
        tenths = statistics.quantiles(samples, n=10, method="inclusive")
        return cls(statistics.median(samples), tenths[0], tenths[-1])


@dataclass(frozen=True)
class Figure:
    """A measured value with its unit ("µs", "req/s", "MiB"); *spread* where it was measured more than once."""

    value: float
    unit: str
    p10: float | None = None
    p90: float | None = None

    @classmethod
    def of(cls, samples: Sequence[float], unit: str, *, scale: float = 1.0) -> "Figure":
        """The median of *samples*, each times *scale*."""
        spread = Spread.of([one * scale for one in samples])
        return cls(spread.median, unit, spread.p10, spread.p90)

    def __str__(self) -> str:
        return f"{_short(self.value)} {self.unit}".rstrip()


@dataclass(frozen=True)
class Target:
    """What a ratio is to reach. Neither limit: it is only stated."""

    at_most: float | None = None
    at_least: float | None = None
    below: float | None = None

    def met(self, value: float) -> bool | None:
        if self.at_most is not None:
            return value <= self.at_most
        if self.at_least is not None:
            return value >= self.at_least
        return value < self.below if self.below is not None else None

    def __str__(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return f"< {self.below:g}" if self.below is not None else "stated"


STATED: Final = Target()


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: what was measured.
        against: what beside it.
        ratio: the first by the second; None where there is no second, or where it could not be measured here.
        target: what the ratio, or else *value*, is to reach.
        value: of a row without a ratio, where the target is an absolute one.
        figures: what was measured, by name.
        note: one sentence, where a reader would go wrong without it.
        held: of a row whose target is no number at all ("one round trip"): whether it holds.
    """

    name: str
    against: str = ""
    ratio: Spread | None = None
    target: Target = STATED
    value: Figure | None = None
    figures: Mapping[str, Figure] = field(default_factory=dict)
    note: str = ""
    held: bool | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None where there is none, or nothing was measured."""
        if self.held is not None:
            return self.held
        if self.ratio is not None:
            return self.target.met(self.ratio.median)
        return self.target.met(self.value.value) if self.value is not None else None

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "against": self.against,
            "ratio": msgspec.to_builtins(self.ratio),
            "target": str(self.target),
            "met": self.met,
            "value": msgspec.to_builtins(self.value),
            "figures": {name: msgspec.to_builtins(one) for name, one in self.figures.items()},
            "note": self.note,
        }


# ------------------------------------------------------------------------------------------------------- measuring

Subject = Callable[[], object]


def interleaved(
    subjects: Mapping[str, Subject],
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    slice_seconds: float = _SLICE_SECONDS,
) -> dict[str, list[float]]:
    """Seconds per call of each subject, one sample a round.

    In each round every subject runs for about *slice_seconds* (once at least), in an order drawn anew, so that none
    always comes after the same other one. Collection of garbage stays on: it is part of what calls cost.

    Args:
        clock: `time.process_time` where all of them only compute, in this process: it stands still while another
            process has the CPU."""
    calls = {name: _calls(subject, slice_seconds, clock) for name, subject in subjects.items()}
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    order = list(subjects)
    draw = random.Random(6)
    gc.collect()
    for _ in range(rounds):
        draw.shuffle(order)
        for name in order:
            samples[name].append(_timed(subjects[name], calls[name], clock))
    return samples


def ratio(samples: Mapping[str, Sequence[float]], subject: str, against: str) -> Spread:
    """How many times *against* the *subject* took, from the rounds of one `interleaved` run."""
    return Spread.of([mine / other for mine, other in zip(samples[subject], samples[against], strict=True)])


def microseconds(samples: Mapping[str, Sequence[float]]) -> dict[str, Figure]:
    return {name: Figure.of(taken, "µs", scale=1e6) for name, taken in samples.items()}


def _calls(subject: Subject, slice_seconds: float, clock: Callable[[], float]) -> int:
    """How many calls take *slice_seconds*; a few first, which fill what the subject keeps between calls."""
    subject()
    once = min(_timed(subject, 1, clock) for _ in range(3))
    return max(1, round(slice_seconds / once)) if once else 1


def _timed(subject: Subject, calls: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(calls):
        subject()
    return (clock() - start) / calls


# -------------------------------------------------------------------------------------------------- table and JSON

_HEADS: Final = ("what", "against", "ratio (p10-p90)", "target", "met", "figures")
_MET: Final = {True: "yes", False: "NO", None: ""}


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table that reads well as text."""
    lines = [_cells(row) for row in rows]
    widths = [max(len(line[column]) for line in [_HEADS, *lines]) for column in range(len(_HEADS))]
    widths[-1] = 3  # the last is long, and nothing stands behind it
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in [_HEADS, rule, *lines]
    )


def _cells(row: Row) -> tuple[str, ...]:
    if row.ratio is not None:
        measured = f"{_short(row.ratio.median)} ({_short(row.ratio.p10)}-{_short(row.ratio.p90)})"
    else:
        measured = str(row.value) if row.value is not None else ""
    figures = ", ".join(f"{name} {one}" for name, one in row.figures.items())
    target = "" if row.held is not None and row.target == STATED else str(row.target)
    return row.name, row.against, measured, target, _MET[row.met], ". ".join(filter(None, (figures, row.note)))


def machine() -> str:
    """What this ran on, in words, without its name."""
    return f"{os.cpu_count()} CPUs, {_processor()}, {platform.system()} {platform.release()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def write_json(path: Path, rows: Sequence[Row], *, quick: bool) -> None:
    """All that was measured, for programs."""
    whole = {
        "at": dt.datetime.now(dt.UTC),
        "machine": machine(),
        "python": platform.python_version(),
        "quick": quick,
        "rows": [row.as_json() for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(whole)) + b"\n")


def _short(value: float) -> str:
    """Three digits, more only before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
