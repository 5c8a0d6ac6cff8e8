"""Measure what one input costs, and the limits on that cost.

Time is CPU time, because a busy machine stretches only the wall clock. Memory is the peak of the process's resident
set, because tracemalloc does not see what OpenSSL and Rust allocate.
"""

import gc
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MEMORY: Final = 64 * 1024 * 1024  # bytes above what the process held before
CERTIFICATE: Final = 0.1  # seconds of CPU time, for a certificate or a callout
KEY_FILE: Final = 2.0  # seconds of CPU time, for a key file; key derivation from a passphrase is slow by design

_CLEAR: Final = Path("/proc/self/clear_refs")
_STATUS: Final = Path("/proc/self/status")


@dataclass(frozen=True)
class Cost:
    """CPU time of all threads in seconds, and peak memory in bytes (0 on systems other than Linux)."""

    seconds: float
    memory: int

    def __str__(self) -> str:
        return f"{self.seconds * 1000:.1f} ms, {self.memory / 2**20:.1f} MiB"

    def exceeds(self, seconds: float) -> bool:
        return self.seconds > seconds or self.memory > MEMORY


def measure_cost(work: Callable[[], object], *, seconds: float, tries: int = 6) -> Cost:
    """Return the lowest cost of *work* in up to *tries* runs.

    Stop at the first run within *seconds* and MEMORY. A disturbance can only make a measurement larger, so the
    minimum is the best estimate.
    """
    best = Cost(float("inf"), 0)
    for _ in range(tries):
        cost = _measure(work)
        best = min(best, cost, key=lambda candidate: (candidate.memory > MEMORY, candidate.seconds))
        if not best.exceeds(seconds):
            break
    return best


def _measure(work: Callable[[], object]) -> Cost:
    gc.collect()
    resident = _reset_peak()
    tracing = sys.gettrace()
    sys.settrace(None)  # tracing for coverage would cost more than the work itself
    try:
        began = time.process_time()
        work()
        took = time.process_time() - began
    finally:
        sys.settrace(tracing)
    return Cost(took, max(_kibibytes("VmHWM") - resident, 0) * 1024 if resident else 0)


def _reset_peak() -> int:
    """Reset the peak (proc(5), clear_refs) and return the resident memory in KiB, or 0 where the file is missing."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return 0
    return _kibibytes("VmRSS")


def _kibibytes(name: str) -> int:
    """Return the value of a field of /proc/self/status, in KiB; 0 if the field is missing."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def measure_peak() -> int:
    """Return this process's peak resident memory, in bytes. The call is cheap enough to surround every input."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
