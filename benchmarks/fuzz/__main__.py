"""The runner; see the package."""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.fuzz import seeds
from benchmarks.fuzz.replay import ReplayResult, replay
from benchmarks.fuzz.targets import BY_NAME, TARGETS, FuzzTarget

ROOT: Final = Path(__file__).resolve().parent.parent.parent
CORPUS: Final = Path(__file__).resolve().parent / "corpus"
GROWN: Final = ROOT / ".build" / "fuzz"  # the corpus of earlier runs on this machine, where later runs continue
_HANGS: Final = 60  # seconds after which an input counts as a hang
_STATISTICS: Final = re.compile(r"#\d+\s+(?:DONE|pulse|NEW|REDUCE|RELOAD|INITED)\s+cov: (\d+)")
_UNITS: Final = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


@dataclass(frozen=True)
class FuzzOutcome:
    """The result of fuzzing one target: number of inputs, coverage, and findings."""

    target: FuzzTarget
    inputs: int
    coverage: int
    findings: list[ReplayResult]
    failure: str | None  # the fuzzer failed, for a reason that a replay without it does not show


def list_corpus(target: FuzzTarget) -> list[Path]:
    """Return the files of the target's corpus."""
    return sorted(path for path in (CORPUS / target.name).glob("*") if path.is_file())


def fuzz(target: FuzzTarget, seconds: int, *, folder: Path = GROWN, seed: int = 0) -> FuzzOutcome:
    """Fuzz *target* for about *seconds* in a process of its own, then replay what the fuzzer kept.

    Args:
        folder: the folder of the growing corpus, the findings and the log.
        seed: the seed of libFuzzer's random numbers; 0: a new seed each time.
    """
    grown, artifacts = folder / target.name / "corpus", folder / target.name / "findings"
    for subfolder in (grown, artifacts):
        subfolder.mkdir(parents=True, exist_ok=True)
    for old in artifacts.glob("*"):
        old.unlink()
    log = folder / target.name / "log"
    command = [
        sys.executable, "-m", "benchmarks.fuzz.one", target.name, str(artifacts),
        f"-max_total_time={seconds}", f"-timeout={_HANGS}", "-rss_limit_mb=2048", "-print_final_stats=1",
        f"-seed={seed}", str(grown), str(CORPUS / target.name),
    ]  # fmt: skip
    with log.open("w") as output:
        ended = subprocess.run(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, timeout=seconds + 10 * _HANGS, check=False
        )
    output_text = log.read_text(errors="replace")
    inputs, coverage = _UNITS.findall(output_text), _STATISTICS.findall(output_text)
    findings = [result for result in _replay_apart(target, sorted(artifacts.glob("*"))) if result.problem]
    failure = output_text[-3000:] if not inputs or (ended.returncode and not findings) else None
    return FuzzOutcome(
        target, int(inputs[-1]) if inputs else 0, int(coverage[-1]) if coverage else 0, findings, failure
    )


def _replay_apart(target: FuzzTarget, paths: Sequence[Path]) -> list[ReplayResult]:
    """Replay *paths* without instrumentation, each in a process of its own, because an input may hang."""
    results = []
    for path in paths:
        command = [sys.executable, "-m", "benchmarks.fuzz", "--replay", str(path), target.name]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * _HANGS, check=False)
        except subprocess.TimeoutExpired:
            results.append(ReplayResult(path, None, "hangs"))
        else:
            results.append(ReplayResult(path, None, done.stdout + done.stderr if done.returncode else None))
    return results


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m benchmarks.fuzz")
    options.add_argument("targets", nargs="*", help=f"some of {', '.join(BY_NAME)}; all if none is named")
    options.add_argument("--seconds", type=int, default=int(os.environ.get("FUZZ_SECONDS", "120")), help="per target")
    options.add_argument("--replay", type=Path, help="run one file, without instrumentation")
    options.add_argument("--seeds", action="store_true", help="write the valid seeds of the corpus again")
    arguments = options.parse_args()
    if unknown := [name for name in arguments.targets if name not in BY_NAME]:
        options.error(f"there is no target {', '.join(unknown)}")
    chosen = [BY_NAME[name] for name in arguments.targets] or list(TARGETS)
    if arguments.seeds:
        seeds.write(CORPUS)
        return 0
    if arguments.replay:
        results = [result for target in chosen for result in replay(target, [arguments.replay])]
        for result in results:
            print(result.problem or f"fine: {result.cost}")
        return int(any(result.problem for result in results))
    return _run(chosen, arguments.seconds)


def _run(chosen: Sequence[FuzzTarget], seconds: int) -> int:
    print(f"{'target':<15} {'inputs':>10} {'per second':>10} {'coverage':>9}  findings", flush=True)
    bad = 0
    for target in chosen:
        outcome = fuzz(target, seconds)
        summary = "the fuzzer did not end well" if outcome.failure else str(len(outcome.findings))
        print(
            f"{target.name:<15} {outcome.inputs:>10,} {outcome.inputs // max(seconds, 1):>10,} "
            f"{outcome.coverage:>9,}  {summary}",
            flush=True,
        )
        for finding in outcome.findings:
            print(f"    {finding.path}\n{finding.problem}", flush=True)
        if outcome.failure:
            print(outcome.failure, flush=True)
        bad += len(outcome.findings) + bool(outcome.failure)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
