"""Run every fault on every store, kill -9 repeatedly, let one organization be busy and strangers come; print tables.

python -m benchmarks.faults [--stores sqlite,dynamodb] [--faults reset] [--seconds 4] [--kills 200] [--strangers 30]
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from benchmarks.faults.kills import Kills, kill_again_and_again
from benchmarks.faults.neighbours import HEADS, measure_each
from benchmarks.faults.rig import STORES, FaultRow, rig
from benchmarks.faults.strangers import Met, meet_every_kind
from benchmarks.faults.table import format_table
from tests.support.emulators import EmulatorMissing, Emulators

_HEADS = (
    "store", "fault", "operations", "acknowledged", "refused", "unavailable", "lost", "half", "swept",
    "allowed", "denied", "not known", "slowest s", "late", "back s", "wrong",
)  # fmt: skip
_KILL_HEADS = (
    "kill -9", "acknowledged", "cut off", "lost", "half", "to sweep", "verdicts", "wrong", "first starts s",
    "last starts s",
)  # fmt: skip
_STRANGER_HEADS = ("strangers", "requests", "p50 ms", "p99 ms", "slowest ms", "failed", "memory MiB")


def main() -> int:
    """Return the exit code: 1 if anything was lost, incomplete, late or wrong."""
    arguments = _parse_arguments()
    base = Path(tempfile.mkdtemp(prefix="faults-"))
    emulators = Emulators(base, run=os.getpid())
    rows: list[FaultRow] = []
    kills: Kills | None = None
    strangers: list[Met] = []
    began = time.monotonic()
    try:
        for store in arguments.stores:
            try:
                with rig(store, emulators, base / store) as running:
                    for fault in arguments.faults or running.faults:
                        if fault in running.faults:
                            rows.append(running.suffer(fault, seconds=arguments.seconds))
                            print(f"{store}, {fault}: {'good' if rows[-1].good else 'NOT GOOD'}", file=sys.stderr)
            except EmulatorMissing as missing:
                print(f"{store} is left out. {missing}")
        print(format_table(_HEADS, [_cells(row) for row in rows]), flush=True)
        for row in rows:
            for what in ("lost", "halves", "left", "wrong", "log"):
                for finding in getattr(row, what)[:5]:
                    print(f"{row.store}, {row.fault}: {what}: {finding}")
        if arguments.kills:
            kills = kill_again_and_again(base / "kills", arguments.kills)
            print(f"\n{format_table(_KILL_HEADS, [_kill_cells(kills)])}")
            for finding in [*kills.lost, *kills.halves, *kills.wrong][:15]:
                print(f"kill -9: {finding}")
        if arguments.strangers:
            strangers = meet_every_kind(base / "strangers", arguments.strangers)
            print(f"\n{format_table(_STRANGER_HEADS, [_stranger_cells(met) for met in strangers])}")
        busy = measure_each(base / "neighbours", seconds=arguments.neighbours) if arguments.neighbours else {}
        if busy:
            print(f"\n{format_table(HEADS, [costs.cells(name) for name, costs in busy.items()])}")
        print(f"\n{time.monotonic() - began:.0f} s")
        if arguments.json:
            results = {"faults": rows, "kills": kills, "neighbours": busy, "strangers": strangers}
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
        good = [*(row.good for row in rows), kills is None or kills.good, *(costs.good for costs in busy.values())]
        return 0 if all(good) and all(met.good for met in strangers) else 1
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _cells(row: FaultRow) -> list[str]:
    operations, verdicts = row.operations, row.verdicts
    return [
        row.store,
        row.fault,
        str(sum(operations.values())),
        str(operations.get("done", 0)),
        str(operations.get("refused", 0)),
        str(operations.get("unavailable", 0) + operations.get("dropped", 0)),
        str(len(row.lost)),
        str(len(row.halves)),
        f"{len(row.leftovers)}" + (f", {len(row.left)} LEFT" if row.left else ""),
        *(str(verdicts.get(decision, 0)) for decision in ("allowed", "denied", "not known")),
        f"{row.slowest:.2f}",
        str(row.late),
        "never" if row.back is None else f"{row.back:.1f}",
        str(len(row.wrong) + len(row.log)),
    ]


def _kill_cells(kills: Kills) -> list[str]:
    return [
        str(kills.count),
        str(kills.acknowledged),
        str(kills.dropped),
        *(str(len(texts)) for texts in (kills.lost, kills.halves, kills.leftovers)),
        str(kills.verdicts),
        str(len(kills.wrong)),
        f"{kills.first_starts:.2f}",
        f"{kills.last_starts:.2f}",
    ]


def _stranger_cells(met: Met) -> list[str]:
    times = (f"{seconds * 1000:.0f}" for seconds in (met.p50, met.p99, max(met.seconds)))
    return [met.kind, str(len(met.seconds)), *times, str(met.failed), f"{met.memory:.0f}"]


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults")
    parser.add_argument("--stores", type=lambda text: text.split(","), default=STORES)
    parser.add_argument("--faults", type=lambda text: text.split(","), default=())
    parser.add_argument("--seconds", type=float, default=2.5, help="seconds under each fault")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--strangers", type=float, default=30, help="seconds of each kind of strangers")
    parser.add_argument("--neighbours", type=float, default=8, help="seconds beside each kind of costly work")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
