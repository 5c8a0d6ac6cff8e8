"""Run one target under libFuzzer, in a process of its own, because libFuzzer ends its process.

    python -m benchmarks.fuzz.one TARGET …

An input that breaks a property ends the run; libFuzzer writes the input to a file. An input that is only slow or large
is written to a file `costly-…` and the run goes on. Instrumented code is slower, so the runner measures such an input
again without instrumentation.
"""

import hashlib
import sys
import time
import warnings
from pathlib import Path
from typing import Final

import atheris

from benchmarks.fuzz.mutation import mutate
from tests.support import bounds

_COSTLY_MAX: Final = 30  # files per run; after that, an input must be costlier than all before
_WARM: Final = 200  # inputs before a higher peak of memory counts as caused by the input


def main() -> None:
    name, artifacts, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["functions", "shared", "python_multipart"]):
        from benchmarks.fuzz.targets import BY_NAME
    target = BY_NAME[name]
    warnings.simplefilter("ignore")  # warnings about odd serial numbers and lengths are expected
    ready = target.ready()
    run = ready.__enter__()  # never exited: libFuzzer ends the process
    watch = _Watch(Path(artifacts), target.seconds)

    def test_one_input(data: bytes) -> None:
        peak, began = bounds.measure_peak(), time.process_time()
        run(data)
        watch.record(data, time.process_time() - began, bounds.measure_peak() - peak)

    def mutate_der(data: bytes, most: int, seed: int) -> bytes:
        return mutate(data, most, seed, lambda part, size: atheris.Mutate(part, max(size, 1)))

    atheris.Setup(
        ["fuzz", f"-artifact_prefix={artifacts}/", f"-max_len={target.most}", *options],
        test_one_input,
        custom_mutator=mutate_der,
    )
    atheris.Fuzz()


class _Watch:
    """Write the inputs that cost much to files."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder = folder
        self._seconds = seconds
        self._kept = 0
        self._highest = 0.0
        self._count = 0

    def record(self, data: bytes, seconds: float, memory: int) -> None:
        self._count += 1
        large = memory > bounds.MEMORY and self._count > _WARM
        if not large and (seconds <= self._seconds or (self._kept >= _COSTLY_MAX and seconds <= self._highest)):
            return
        self._kept += 1
        self._highest = max(self._highest, seconds)
        (self._folder / f"costly-{hashlib.sha1(data).hexdigest()}").write_bytes(data)


if __name__ == "__main__":
    main()
