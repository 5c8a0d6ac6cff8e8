"""The runner: see the package's own words."""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fuzz import seeds
from tests.fuzz.replay import Batch, replayed
from tests.fuzz.targets import BY_NAME, TARGETS, Target

ROOT: Final = Path(__file__).resolve().parent.parent.parent
CORPUS: Final = Path(__file__).resolve().parent / "corpus"
GROWN: Final = ROOT / ".build" / "fuzz"  # what runs on this machine found of interest; the next ones go on from there
_HANGS: Final = 60  # seconds for one input: a hang
_STATISTICS: Final = re.compile(r"#\d+\s+(?:DONE|pulse|NEW|REDUCE|RELOAD|INITED)\s+cov: (\d+)")
_UNITS: Final = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


@dataclass(frozen=True)
class Outcome:
    """One target's run: how many inputs, how much code, and what broke."""

    target: Target
    inputs: int
    coverage: int
    found: list[Batch]
    failure: str | None  # the fuzzer did not run to its end, for a reason that is not seen again without it


def kept(target: Target) -> list[Path]:
    """The target's corpus."""
    return sorted(path for path in (CORPUS / target.name).glob("*") if path.is_file())


def fuzz(target: Target, seconds: int, *, folder: Path = GROWN, seed: int = 0) -> Outcome:
    """Fuzz *target* for about *seconds*, in a process of its own, and look again at what it kept.

    Args:
        folder: where the growing corpus, the findings and the log are kept.
        seed: of libFuzzer's random numbers; 0: another one each time."""
    grown, artifacts = folder / target.name / "corpus", folder / target.name / "findings"
    for one in (grown, artifacts):
        one.mkdir(parents=True, exist_ok=True)
    for old in artifacts.glob("*"):
        old.unlink()
    log = folder / target.name / "log"
    command = [
        sys.executable, "-m", "tests.fuzz.one", target.name, str(artifacts),
        f"-max_total_time={seconds}", f"-timeout={_HANGS}", "-rss_limit_mb=2048", "-print_final_stats=1",
        f"-seed={seed}", str(grown), str(CORPUS / target.name),
    ]  # fmt: skip
    with log.open("w") as output:
        ended = subprocess.run(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, timeout=seconds + 10 * _HANGS, check=False
        )
    said = log.read_text(errors="replace")
    inputs, coverage = _UNITS.findall(said), _STATISTICS.findall(said)
    found = [one for one in _again(target, sorted(artifacts.glob("*"))) if one.problem]
    failure = said[-3000:] if not inputs or (ended.returncode and not found) else None
    return Outcome(target, int(inputs[-1]) if inputs else 0, int(coverage[-1]) if coverage else 0, found, failure)


def _again(target: Target, paths: Sequence[Path]) -> list[Batch]:
    """What *paths* do without instrumentation, each in a process of its own, because one may hang."""
    found = []
    for path in paths:
        command = [sys.executable, "-m", "tests.fuzz", "--replay", str(path), target.name]
        try:
            said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * _HANGS, check=False)
        except subprocess.TimeoutExpired:
            found.append(Batch(path, None, "hangs"))
        else:
            found.append(Batch(path, None, said.stdout + said.stderr if said.returncode else None))
    return found


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.fuzz")
    options.add_argument("targets", nargs="*", help=f"some of {', '.join(BY_NAME)}; all where none is named")
    options.add_argument("--seconds", type=int, default=int(os.environ.get("FUZZ_SECONDS", "120")), help="per target")
    options.add_argument("--replay", type=Path, help="look at one file, without instrumentation")
    options.add_argument("--seeds", action="store_true", help="make the valid seeds of the corpus anew")
    asked = options.parse_args()
    if unknown := [name for name in asked.targets if name not in BY_NAME]:
        options.error(f"there is no target {', '.join(unknown)}")
    chosen = [BY_NAME[name] for name in asked.targets] or list(TARGETS)
    if asked.seeds:
        seeds.write(CORPUS)
        return 0
    if asked.replay:
        found = [one for target in chosen for one in replayed(target, [asked.replay])]
        for one in found:
            print(one.problem or f"fine: {one.cost}")
        return int(any(one.problem for one in found))
    return _run(chosen, asked.seconds)


def _run(chosen: Sequence[Target], seconds: int) -> int:
    print(f"{'target':<15} {'inputs':>10} {'per second':>10} {'coverage':>9}  findings", flush=True)
    bad = 0
    for target in chosen:
        outcome = fuzz(target, seconds)
        shown = "the fuzzer did not end well" if outcome.failure else str(len(outcome.found))
        print(
            f"{target.name:<15} {outcome.inputs:>10,} {outcome.inputs // max(seconds, 1):>10,} "
            f"{outcome.coverage:>9,}  {shown}",
            flush=True,
        )
        for one in outcome.found:
            print(f"    {one.path}\n{one.problem}", flush=True)
        if outcome.failure:
            print(outcome.failure, flush=True)
        bad += len(outcome.found) + bool(outcome.failure)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
