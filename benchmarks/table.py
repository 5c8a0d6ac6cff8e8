"""What all benchmarks share: rows, measuring two things side by side, the table and its JSON.

A benchmark is a module of this package with `measure(quick) -> list[Row]`. Every figure that counts is a ratio of two
things, measured alternately in one run: a machine that becomes slower slows both. The result is the median of the
ratios of all rounds; the spread shows how reliable it is.
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

_SLICE_SECONDS: Final = 0.005  # per subject and round: far above the clock's resolution, short against disturbances


# ------------------------------------------------------------------------------------------------------------- rows


@dataclass(frozen=True)
class Spread:
    """The median of repeated measurements, with the 10th and the 90th percentile."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Spread":
        """Return the spread of *samples*. Raises: ValueError, without samples."""
        if not samples:
            raise ValueError("nothing was measured")
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0])
        tenths = statistics.quantiles(samples, n=10, method="inclusive")
        return cls(statistics.median(samples), tenths[0], tenths[-1])


@dataclass(frozen=True)
class Figure:
    """A measured value with its unit ("µs", "req/s", "MiB"), and percentiles if it was measured more than once."""

    value: float
    unit: str
    p10: float | None = None
    p90: float | None = None

    @classmethod
    def of(cls, samples: Sequence[float], unit: str, *, scale: float = 1.0) -> "Figure":
        """Return the median of *samples*, each multiplied by *scale*."""
        spread = Spread.of([sample * scale for sample in samples])
        return cls(spread.median, unit, spread.p10, spread.p90)

    def __str__(self) -> str:
        return f"{_short(self.value)} {self.unit}".rstrip()


@dataclass(frozen=True)
class Target:
    """The limit for a ratio. Without a limit, the ratio is only stated."""

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
        against: what it was compared with.
        ratio: the first divided by the second; None without a second, or if it could not be measured here.
        target: the limit for the ratio, or else for *value*.
        value: the absolute value, in a row without a ratio.
        figures: the measured values, by name.
        note: one sentence against a likely misreading.
        held: whether the target holds, if the target is not a number ("one round trip").
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
        """Whether the target is reached; None without a target or a measurement."""
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
            "figures": {name: msgspec.to_builtins(figure) for name, figure in self.figures.items()},
            "note": self.note,
        }


# ------------------------------------------------------------------------------------------------------- measuring

Subject = Callable[[], object]


def measure_interleaved(
    subjects: Mapping[str, Subject],
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    slice_seconds: float = _SLICE_SECONDS,
) -> dict[str, list[float]]:
    """Return the seconds per call of each subject, one sample per round.

    In each round every subject runs for about *slice_seconds* (at least once), in a new random order, so that no
    subject always follows the same other. Garbage collection stays on: it is part of the cost of a call.

    Args:
        clock: `time.process_time` if all subjects only compute, in this process: that clock does not advance while
            another process has the CPU.
    """
    calls = {name: _count_calls(subject, slice_seconds, clock) for name, subject in subjects.items()}
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    order = list(subjects)
    draw = random.Random(6)
    gc.collect()
    for _ in range(rounds):
        draw.shuffle(order)
        for name in order:
            samples[name].append(_time(subjects[name], calls[name], clock))
    return samples


def ratio(samples: Mapping[str, Sequence[float]], subject: str, against: str) -> Spread:
    """Return the time of *subject* as a multiple of *against*, from the rounds of one `measure_interleaved` run."""
    return Spread.of([mine / other for mine, other in zip(samples[subject], samples[against], strict=True)])


def microseconds(samples: Mapping[str, Sequence[float]]) -> dict[str, Figure]:
    return {name: Figure.of(taken, "µs", scale=1e6) for name, taken in samples.items()}


def _count_calls(subject: Subject, slice_seconds: float, clock: Callable[[], float]) -> int:
    """Return the number of calls that take *slice_seconds*. The first calls warm up the subject's caches."""
    subject()
    once = min(_time(subject, 1, clock) for _ in range(3))
    return max(1, round(slice_seconds / once)) if once else 1


def _time(subject: Subject, calls: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(calls):
        subject()
    return (clock() - start) / calls


# -------------------------------------------------------------------------------------------------- table and JSON

_HEADS: Final = ("what", "against", "ratio (p10-p90)", "target", "met", "figures")
_MET: Final = {True: "yes", False: "NO", None: ""}


def format_table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table that is also readable as text."""
    return _format(_HEADS, [_cells(row) for row in rows])


def format_targets(rows: Sequence[Row]) -> str:
    """Return the rows that have a target as a table, without figures; those that miss it come first."""
    with_target = [row for row in rows if row.met is not None]
    return _format(_HEADS[:-1], [_cells(row)[:-1] for row in sorted(with_target, key=lambda row: row.met is True)])


def _format(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in [heads, *lines]) for column in range(len(heads))]
    widths[-1] = 3  # the last column is long, and needs no padding
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in [heads, rule, *lines]
    )


def _cells(row: Row) -> tuple[str, ...]:
    if row.ratio is not None:
        measured = f"{_short(row.ratio.median)} ({_short(row.ratio.p10)}-{_short(row.ratio.p90)})"
    else:
        measured = str(row.value) if row.value is not None else ""
    figures = ", ".join(f"{name} {figure}" for name, figure in row.figures.items())
    target = "" if row.held is not None and row.target == STATED else str(row.target)
    return row.name, row.against, measured, target, _MET[row.met], ". ".join(filter(None, (figures, row.note)))


def describe_machine() -> str:
    """Return a description of this machine, without its name."""
    return f"{os.cpu_count()} CPUs, {_processor()}, {platform.system()} {platform.release()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def write_json(path: Path, rows: Sequence[Row], *, quick: bool) -> None:
    """Write everything that was measured, for programs."""
    whole = {
        "at": dt.datetime.now(dt.UTC),
        "machine": describe_machine(),
        "python": platform.python_version(),
        "quick": quick,
        "rows": [row.as_json() for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(whole)) + b"\n")


def _short(value: float) -> str:
    """Format a number with three digits, or more if they come before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
