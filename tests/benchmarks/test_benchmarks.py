"""The benchmarks run and return rows. No test judges the figures."""

import json
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import decision, scale, store
from benchmarks.table import (
    STATED,
    Figure,
    Row,
    Spread,
    Target,
    format_table,
    format_targets,
    measure_interleaved,
    ratio,
    write_json,
)
from tests.support.emulators import Emulators


@pytest.mark.parametrize("module", [decision, scale, store], ids=lambda module: module.__name__)
def test_each_benchmark_returns_rows_in_a_quick_run(
    module: object, emulators: Emulators, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "Emulators", lambda folder, run: emulators)  # the emulators of the test run
    rows: list[Row] = module.measure(True)  # type: ignore[attr-defined]
    assert rows
    assert all(count == 1 for count in Counter((row.name, row.against) for row in rows).values())
    for row in rows:
        assert row.ratio is None or 0 < row.ratio.p10 <= row.ratio.median <= row.ratio.p90
        assert row.ratio or row.value or row.held is not None or row.note
        assert row.against or row.ratio is None
        assert all(figure.value > 0 and figure.unit for figure in row.figures.values())
    assert len(format_table(rows).splitlines()) == 2 + len(rows)


def test_a_row_says_whether_its_target_is_reached() -> None:
    measured = Spread.of([2.0, 3.0, 4.0])
    assert measured.median == 3.0
    for target, met in (
        (Target(at_most=3), True),
        (Target(at_most=2.9), False),
        (Target(at_least=3), True),
        (Target(below=3), False),
        (STATED, None),
    ):
        assert Row("this", "that", measured, target).met is met
    assert Row("this", held=False).met is False
    assert Row("this", value=Figure(0.5, "s"), target=Target(below=1)).met is True


def test_the_table_of_targets_begins_with_those_that_are_missed() -> None:
    """Rows without a target, or without a measurement, have no place in this table."""
    rows = [
        Row("met", "that", Spread(1.0, 1.0, 1.0), Target(at_most=2)),
        Row("stated", "that", Spread(1.0, 1.0, 1.0)),
        Row("missed", "that", Spread(3.0, 3.0, 3.0), Target(at_most=2)),
        Row("not measured", note="a program is missing"),
    ]
    _, _, first, second = format_targets(rows).splitlines()
    assert "missed" in first
    assert "NO" in first
    assert "met" in second
    assert "yes" in second


def test_ratios_are_computed_within_a_round() -> None:
    """A machine that is slower in one round changes no ratio."""
    samples = {"mine": [2.0, 20.0, 4.0], "theirs": [1.0, 10.0, 2.0]}
    assert ratio(samples, "mine", "theirs") == Spread(2.0, 2.0, 2.0)


def test_each_subject_runs_in_each_round() -> None:
    now = 0.0
    runs: Counter[str] = Counter()

    def work(name: str, seconds: float) -> None:
        nonlocal now
        now += seconds
        runs[name] += 1

    samples = measure_interleaved(
        {"slow": lambda: work("slow", 2.0), "fast": lambda: work("fast", 0.5)},
        rounds=3,
        clock=lambda: now,
        slice_seconds=1.0,
    )
    assert samples == {"slow": [2.0] * 3, "fast": [0.5] * 3}
    assert runs["slow"] - 4 == 3  # 4 calls to warm up and to find how many calls fill a slice
    assert runs["fast"] - 4 == 3 * 2


def test_the_json_describes_the_machine_and_the_run(tmp_path: Path) -> None:
    file = tmp_path / "new" / "out.json"
    write_json(file, [Row("this", "that", Spread(1.0, 0.9, 1.1), Target(at_most=2))], quick=True)
    report = json.loads(file.read_text())
    assert report["machine"]
    assert report["quick"] is True
    assert report["rows"][0]["met"] is True
    assert report["rows"][0]["ratio"] == {"median": 1.0, "p10": 0.9, "p90": 1.1}
