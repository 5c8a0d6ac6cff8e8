"""python -m tests.faults.soak: mixed load at the highest rate on the local server, and whether its memory is steady.

SOAK_MINUTES=20 python -m tests.faults.soak [--json FILE]
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

from shared.adapters.local_sealer import LocalSealer
from shared.adapters.sqlite_store import SQLiteStore
from shared.repository import Repository
from tests import server
from tests.faults.check import check
from tests.faults.load import Access, Load
from tests.faults.table import table

_PAUSE: Final = 2.0  # seconds between two looks
_WARM: Final = 0.1  # of the time: imports, caches and connections fill
_STEP: Final = 1.01  # a quarter is higher than the one before where it is by so much
_GROWN: Final = 1.05  # and memory has grown where the last is above the first by so much
_HOST: Final = "demo01.messaging.internetofthings.ibmcloud.com"


@dataclass(frozen=True)
class Sample:
    """The server at one moment.

    Args:
        at: seconds since the load began.
        rss: bytes in memory.
        database: bytes of the database's files.
        answers: given so far.
    """

    at: float
    rss: int
    descriptors: int
    threads: int
    database: int
    answers: int


@dataclass(frozen=True)
class Quarters:
    """Medians of the four quarters of what was measured after warming up."""

    medians: tuple[float, float, float, float]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Quarters":
        """*values*: at least four."""
        cuts = [round(len(values) * one / 4) for one in range(5)]
        first, second, third, fourth = (statistics.median(values[a:b]) for a, b in pairwise(cuts))
        return cls((first, second, third, fourth))

    @property
    def grows(self) -> bool:
        """Whether each is higher than the one before, and the last clearly above the first."""
        one, two, three, four = self.medians
        return two > one * _STEP and three > two * _STEP and four > three * _STEP and four > one * _GROWN


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """Of the line through *samples* (time, value), by least squares: per unit of time."""
    return statistics.linear_regression([at for at, _ in samples], [value for _, value in samples]).slope


def main() -> int:
    """Returns 1 where memory, descriptors or threads grow steadily, or anything was lost or wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    minutes = float(os.environ.get("SOAK_MINUTES", "20"))
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        return _soak(folder, minutes * 60, asked.json)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _soak(folder: Path, seconds: float, json: Path | None) -> int:
    running = server.start(
        folder,
        log=folder / "log",
        module=["tests.faults.small_caches"],
        TRUST_RATE_PER_MINUTE="1000000",
        TRUST_METRICS="second",
        TRUST_LOG="ERROR",
    )
    try:
        access = Access("demo01", running.keys["operator"], running.keys["broker"], _HOST)
        load = Load.on(f"127.0.0.1:{running.port}", access).employ(changers=3, askers=6, readers=1)
        load.begin()
        began = time.monotonic()
        samples = []
        while (at := time.monotonic() - began) < seconds:
            samples.append(_sample(running.process.pid, folder, at, load))
            time.sleep(_PAUSE)
        load.end()
        history = load.history
        store = SQLiteStore(folder / "trust.db")
        found = check(Repository(store), LocalSealer(folder / "keys"), "demo01", history)
        store.close()
    finally:
        code = running.stop()
    warm = [one for one in samples if one.at > seconds * _WARM]
    measured = {name: Quarters.of([getattr(one, name) for one in warm]) for name in ("rss", "descriptors", "threads")}
    hourly = slope([(one.at, one.rss) for one in warm]) * 3600
    last = samples[-1]
    operations = history.operations
    lines = [
        ("time", f"{seconds / 60:g} min", ""),
        ("answers", f"{last.answers:,}", f"{last.answers / last.at:,.0f}/s"),
        ("changes acknowledged", f"{operations['done']:,}", f"refused {operations['refused']:,}"),
        ("changes not made (503)", f"{operations['unavailable']:,}", f"dropped {operations['dropped']:,}"),
        ("verdicts", f"{history.verdicts.total():,}", f"slowest {history.slowest:.2f} s, late {history.late}"),
        ("wrong answers", str(len(history.wrong)), "; ".join(history.wrong[:3])),
        ("lost, half there", f"{len(found.lost)}, {len(found.halves)}", "; ".join([*found.lost, *found.halves][:3])),
        ("memory (MiB), by quarters", *_shown(measured["rss"], 1 << 20)),
        ("  slope", f"{hourly / (1 << 20):+.1f} MiB/h", f"at first {samples[0].rss / (1 << 20):.0f} MiB"),
        ("file descriptors", *_shown(measured["descriptors"], 1)),
        ("threads", *_shown(measured["threads"], 1)),
        (
            "database",
            f"{last.database / (1 << 20):.0f} MiB",
            f"{last.database / max(operations['done'], 1):,.0f} B a change",
        ),
    ]
    print(table(("what", "how much", ""), lines))
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_bytes(msgspec.json.format(msgspec.json.encode({"samples": samples, "lines": lines})))
    ill = any(one.grows for one in measured.values()) or history.wrong or history.late or found.lost or found.halves
    return 1 if ill or code != 0 else 0


def _shown(quarters: Quarters, unit: int) -> tuple[str, str]:
    text = " ".join(f"{one / unit:.0f}" for one in quarters.medians)
    return text, "GROWS" if quarters.grows else "steady"


def _sample(process: int, folder: Path, at: float, load: Load) -> Sample:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    history = load.history
    with history.lock:
        answers = history.operations.total() + history.verdicts.total() + history.reads
    return Sample(
        at=at,
        rss=int(status["VmRSS"].split()[0]) * 1024,
        descriptors=len(os.listdir(f"/proc/{process}/fd")),
        threads=int(status["Threads"]),
        database=sum(file.stat().st_size for file in folder.glob("trust.db*")),
        answers=answers,
    )


if __name__ == "__main__":
    sys.exit(main())
