"""Measure the storm after an outage: 100,000 devices connect once, through two processes of the container's server.

Each device asks once in each pass, over 64 connections. In the first pass every device is there for the first time.
Then all connect again: the process of a connection has seen a device before, or the other process has. The passes are
repeated with the default memory and with one that holds the whole fleet.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.fleet import deployment, make_fleet
from benchmarks.http_server import RequestSet, WorkerServer, find_wrk, verify_client
from benchmarks.table import Figure, Row

DEVICES: Final = 100_000
_FEW: Final = 300
_CONNECTIONS: Final = 64
_SECONDS_MAX: Final = 600  # of one pass
_PASSES: Final = 4
_MEMORIES: Final = ("64", "256")  # MiB in each process
_KIND: Final = "P-256"


@dataclass(frozen=True)
class Pass:
    """All devices connected once. *p50*, *p99*: milliseconds."""

    rate: float
    p50: float
    p99: float


def measure(quick: bool) -> list[Row]:
    devices = make_fleet(_KIND, _FEW if quick else DEVICES)
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-storm-") as name, ExitStack() as stack:
        folder = Path(name)
        asked = RequestSet(folder, devices, stack.enter_context(deployment(folder, devices.root)))
        for memory in _MEMORIES:
            settings = {**asked.settings, "TRUST_VERDICT_MEMORY": memory}
            with verify_client(settings, folder / f"{memory}.log") as server:
                before = server.memory()
                passes = [_connect_all(server, asked, len(devices.devices)) for _ in range(_PASSES)]
                rows.append(_row(len(devices.devices), memory, passes, before, server.memory()))
    return rows


def _connect_all(server: WorkerServer, asked: RequestSet, count: int) -> Pass:
    """Ask about each device once. Raises: RuntimeError, if a device is refused."""
    command = [find_wrk(), "-t1", f"-c{_CONNECTIONS}", f"-d{_SECONDS_MAX}s", "--timeout", "30s"]
    script = Path(__file__).parent / "storm.lua"
    env = {**os.environ, **asked.env}
    done = subprocess.run(
        [*command, "-s", str(script), server.url], env=env, capture_output=True, text=True, check=True
    )
    report = json.loads(done.stdout.splitlines()[-1])
    if report["allowed"] != count:
        raise RuntimeError(f"{count - report['allowed']} of {count} devices were not allowed")
    return Pass(count / report["seconds"], report["p50"], report["p99"])


def _row(count: int, memory: str, passes: Sequence[Pass], before: Sequence[int], after: Sequence[int]) -> Row:
    first, *again = passes
    last = again[-1]
    grown = max(now - then for then, now in zip(sorted(before), sorted(after), strict=True))
    return Row(
        f"{count:,} devices connect once through 2 processes ({_KIND}, a memory of {memory} MiB each)",
        value=Figure(last.rate, "verdicts/s"),
        figures={
            "for the first time": Figure(first.rate, "verdicts/s"),
            "p99 then": Figure(first.p99, "ms"),
            "again": Figure(again[0].rate, "verdicts/s"),
            f"at pass {len(passes)}": Figure(last.rate, "verdicts/s"),
            "p50": Figure(last.p50, "ms"),
            "p99": Figure(last.p99, "ms"),
            "memory of a process": Figure(max(after) / 2**20, "MiB"),
            "grown by": Figure(grown / 2**20, "MiB"),
        },
    )
