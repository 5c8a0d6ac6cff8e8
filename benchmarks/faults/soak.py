"""Run mixed load at the highest rate on the local server, and check that its memory is steady.

SOAK_MINUTES=20 python -m benchmarks.faults.soak [--json FILE]
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.faults.check import check
from benchmarks.faults.load import Access, Load
from benchmarks.faults.table import format_table
from shared.adapters.local_sealer import LocalSealer
from shared.adapters.sqlite_store import SQLiteStore
from shared.repository import Repository
from tests.support import server

_PAUSE: Final = 2.0  # seconds between two samples
_WARM: Final = 0.1  # share of the time to leave out: imports, caches and connections fill
_STEP: Final = 1.01  # a quarter is higher than the previous if by this factor
_GROWN: Final = 1.05  # memory has grown if the last is above the first by this factor
_HOURLY: Final = 0.1  # growth goes on if the last quarter's slope adds this share per hour
_HOST: Final = "demo01.messaging.internetofthings.ibmcloud.com"


@dataclass(frozen=True)
class MemorySample:
    """The server at one moment.

    Args:
        at: seconds since the load began.
        rss: resident memory in bytes.
        database: size of the database's files in bytes.
        answers: number of answers so far.
    """

    at: float
    rss: int
    descriptors: int
    threads: int
    database: int
    answers: int


@dataclass(frozen=True)
class Quarters:
    """The medians of the four quarters of a measurement after the warm-up, and the trend of the last quarter.

    Args:
        hourly: growth per hour at the slope of the last quarter, as a share of its median.
    """

    medians: tuple[float, float, float, float]
    hourly: float

    @classmethod
    def of(cls, samples: Sequence[tuple[float, float]]) -> "Quarters":
        """Return the quarters of *samples*: pairs (seconds, value), at least eight."""
        values = [value for _, value in samples]
        cuts = [round(len(values) * quarter / 4) for quarter in range(5)]
        first, second, third, fourth = (statistics.median(values[a:b]) for a, b in pairwise(cuts))
        return cls((first, second, third, fourth), slope(samples[cuts[3] :]) * 3600 / fourth)

    @property
    def grows(self) -> bool:
        """Whether each quarter is higher than the previous one, the last clearly above the first, without an end.

        Memory that fills up (pages, arenas of many threads) grows ever more slowly and then stays.
        """
        first, second, third, fourth = self.medians
        is_rising = second > first * _STEP and third > second * _STEP and fourth > third * _STEP
        steps = is_rising and fourth > first * _GROWN
        return steps and self.hourly > _HOURLY


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the least-squares line through *samples* (time, value), per unit of time."""
    return statistics.linear_regression([at for at, _ in samples], [value for _, value in samples]).slope


def main() -> int:
    """Return the exit code: 1 if memory, descriptors or threads grow, or if anything was lost or wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults.soak")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    minutes = float(os.environ.get("SOAK_MINUTES", "20"))
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        return _soak(folder, minutes * 60, arguments.json)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _soak(folder: Path, seconds: float, json: Path | None) -> int:
    running = server.start(
        folder,
        log=folder / "log",
        module=["benchmarks.faults.small_caches"],
        TRUST_RATE_PER_MINUTE="1000000",
        TRUST_METRICS="second",
        TRUST_LOG="ERROR",
        TRUST_VERDICT_MEMORY="1",  # MiB: full after a minute, so that entries are dropped for the rest of the time
    )
    try:
        access = Access("demo01", running.keys["operator"], running.keys["broker"], _HOST)
        load = Load.on(f"127.0.0.1:{running.port}", access).employ(changers=3, askers=6, readers=1)
        load.begin()
        began = time.monotonic()
        samples = []
        while (at := time.monotonic() - began) < seconds:
            samples.append(_take_sample(running.process.pid, folder, at, load))
            time.sleep(_PAUSE)
        load.end()
        history = load.history
        store = SQLiteStore(folder / "trust.db")
        findings = check(Repository(store), LocalSealer(folder / "keys"), "demo01", history)
        store.close()
    finally:
        code = running.stop()
    warm = [sample for sample in samples if sample.at > seconds * _WARM]
    measured = {
        name: Quarters.of([(sample.at, getattr(sample, name)) for sample in warm])
        for name in ("rss", "descriptors", "threads")
    }
    hourly = measured["rss"].hourly * measured["rss"].medians[3]
    last = samples[-1]
    operations = history.operations
    lines = [
        ("time", f"{seconds / 60:g} min", ""),
        ("answers", f"{last.answers:,}", f"{last.answers / last.at:,.0f}/s"),
        ("changes acknowledged", f"{operations['done']:,}", f"refused {operations['refused']:,}"),
        ("changes not made (503)", f"{operations['unavailable']:,}", f"dropped {operations['dropped']:,}"),
        ("verdicts", f"{history.verdicts.total():,}", f"slowest {history.slowest:.2f} s, late {history.late}"),
        ("wrong answers", str(len(history.wrong)), "; ".join(history.wrong[:3])),
        (
            "lost, half there",
            f"{len(findings.lost)}, {len(findings.halves)}",
            "; ".join([*findings.lost, *findings.halves][:3]),
        ),
        ("memory (MiB), by quarters", *_format(measured["rss"], 1 << 20)),
        (
            "  slope of the last quarter",
            f"{hourly / (1 << 20):+.1f} MiB/h",
            f"at first {samples[0].rss / (1 << 20):.0f} MiB",
        ),
        ("file descriptors", *_format(measured["descriptors"], 1)),
        ("threads", *_format(measured["threads"], 1)),
        (
            "database",
            f"{last.database / (1 << 20):.0f} MiB",
            f"{last.database / max(operations['done'], 1):,.0f} B a change",
        ),
    ]
    print(format_table(("what", "how much", ""), lines))
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_bytes(msgspec.json.format(msgspec.json.encode({"samples": samples, "lines": lines})))
    ill = (
        any(quarters.grows for quarters in measured.values())
        or history.wrong
        or history.late
        or findings.lost
        or findings.halves
    )
    return 1 if ill or code != 0 else 0


def _format(quarters: Quarters, unit: int) -> tuple[str, str]:
    text = " ".join(f"{median / unit:.0f}" for median in quarters.medians)
    return text, "GROWS" if quarters.grows else "steady"


def _take_sample(process: int, folder: Path, at: float, load: Load) -> MemorySample:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    history = load.history
    with history.lock:
        answers = history.operations.total() + history.verdicts.total() + history.reads
    return MemorySample(
        at=at,
        rss=int(status["VmRSS"].split()[0]) * 1024,
        descriptors=len(os.listdir(f"/proc/{process}/fd")),
        threads=int(status["Threads"]),
        database=sum(file.stat().st_size for file in folder.glob("trust.db*")),
        answers=answers,
    )


if __name__ == "__main__":
    sys.exit(main())
