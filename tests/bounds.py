"""What one input may cost, and what it did cost.

CPU time, because a busy machine makes nothing but the wall clock slow; memory as the peak of the process's resident
set, because OpenSSL and Rust allocate where tracemalloc does not look.
"""

import gc
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MEMORY: Final = 64 * 1024 * 1024  # bytes above what the process had
CERTIFICATE: Final = 0.1  # seconds, for a certificate or a callout
KEY_FILE: Final = 2.0  # seconds, for a key file, whose passphrase costs time on purpose

_CLEAR: Final = Path("/proc/self/clear_refs")
_STATUS: Final = Path("/proc/self/status")


@dataclass(frozen=True)
class Cost:
    """Seconds of CPU time, of all threads; bytes at the peak. *memory* is 0 where it cannot be told (not Linux)."""

    seconds: float
    memory: int

    def __str__(self) -> str:
        return f"{self.seconds * 1000:.1f} ms, {self.memory / 2**20:.1f} MiB"

    def exceeds(self, seconds: float) -> bool:
        return self.seconds > seconds or self.memory > MEMORY


def cost_of(work: Callable[[], object], *, seconds: float, tries: int = 3) -> Cost:
    """The least that *work* costs in up to *tries* runs: the first within *seconds* and MEMORY is enough.

    Whatever disturbs a measurement makes it larger."""
    best = Cost(float("inf"), 0)
    for _ in range(tries):
        found = _measured(work)
        best = min(best, found, key=lambda one: (one.memory > MEMORY, one.seconds))
        if not best.exceeds(seconds):
            break
    return best


def _measured(work: Callable[[], object]) -> Cost:
    gc.collect()
    resident = _reset_peak()
    tracing = sys.gettrace()
    sys.settrace(None)  # a test's coverage costs more than what it looks at
    try:
        began = time.process_time()
        work()
        took = time.process_time() - began
    finally:
        sys.settrace(tracing)
    return Cost(took, max(_kibibytes("VmHWM") - resident, 0) * 1024 if resident else 0)


def _reset_peak() -> int:
    """Forget the peak so far (proc(5), clear_refs): what is resident now, in KiB, or 0 where there is no such file."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return 0
    return _kibibytes("VmRSS")


def _kibibytes(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def peak() -> int:
    """Bytes at this process's highest, cheap enough to be asked around every input."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
