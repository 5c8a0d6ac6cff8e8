"""One target under libFuzzer, in a process of its own (libFuzzer ends its process): python -m tests.fuzz.one TARGET …

What breaks a property ends the run, with the input in a file. What is only slow or large here is kept in a file
`costly-…` and the run goes on: instrumented code is slower, so the runner measures it again without.
"""

import hashlib
import sys
import time
import warnings
from pathlib import Path
from typing import Final

import atheris

from tests import bounds
from tests.fuzz.mutation import mutated

_COSTLY_MAX: Final = 30  # kept in one run; a further one has to be costlier than all of them
_WARM: Final = 200  # inputs after which a higher peak is the input's


def main() -> None:
    name, artifacts, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["functions", "shared", "python_multipart"]):
        from tests.fuzz.targets import BY_NAME
    target = BY_NAME[name]
    warnings.simplefilter("ignore")  # of odd serial numbers and lengths, which is the point here
    ready = target.ready()
    run = ready.__enter__()  # libFuzzer ends the process: there is no way out
    watch = _Watch(Path(artifacts), target.seconds)

    def one(data: bytes) -> None:
        peak, began = bounds.peak(), time.process_time()
        run(data)
        watch.saw(data, time.process_time() - began, bounds.peak() - peak)

    def mutator(data: bytes, most: int, seed: int) -> bytes:
        return mutated(data, most, seed, lambda part, size: atheris.Mutate(part, max(size, 1)))

    atheris.Setup(
        ["fuzz", f"-artifact_prefix={artifacts}/", f"-max_len={target.most}", *options], one, custom_mutator=mutator
    )
    atheris.Fuzz()


class _Watch:
    """Keeps the inputs that cost much."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder = folder
        self._seconds = seconds
        self._kept = 0
        self._highest = 0.0
        self._seen = 0

    def saw(self, data: bytes, seconds: float, memory: int) -> None:
        self._seen += 1
        large = memory > bounds.MEMORY and self._seen > _WARM
        if not large and (seconds <= self._seconds or (self._kept >= _COSTLY_MAX and seconds <= self._highest)):
            return
        self._kept += 1
        self._highest = max(self._highest, seconds)
        (self._folder / f"costly-{hashlib.sha1(data).hexdigest()}").write_bytes(data)


if __name__ == "__main__":
    main()
