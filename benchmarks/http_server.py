"""Measure verifyClient over HTTP with keep-alive, against the capacity of the server.

    (a) an empty function on functions-framework's default server (gunicorn's threads, Flask)
    (b) an empty function on functions-framework's ASGI side
    (c) verifyClient on the container's server (functions/hosts/server.py), with the embedded store and default
        settings: every device was seen before
    (d) the same with TRUST_VERDICT_MEMORY=0: every device is there for the first time

Each server has two workers and starts once; wrk measures one server after the other, in rounds. wrk and the workers
share the processors of this machine, so a server that leaves wrk more of them looks faster than it would alone. This
holds for all of them.
"""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Final

from benchmarks.fleet import DOMAIN, KINDS, Deployment, Fleet, deployment, make_fleet
from benchmarks.table import Figure, Row, Spread, Target
from demo.processes import Missing
from shared.composition import build
from shared.config import Settings

ROOT: Final = Path(__file__).parent.parent
EMPTY: Final = Path(__file__).parent / "empty"
WORKERS: Final = 2
CONNECTIONS: Final = (8, 32)
_START_SECONDS: Final = 30.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")

THREADS, CHOSEN = "empty, default server", "empty, ASGI"
SEEN, NEVER = "seen", "never seen"
_RATE: Final = {SEEN: Target(at_least=1.2), NEVER: Target(at_least=0.8)}


# ------------------------------------------------------------------------------------------------------------ servers


@dataclass(frozen=True)
class WorkerServer:
    """The process that runs the workers."""

    pid: int
    url: str

    def cpu_seconds(self) -> float:
        """Return the CPU time of all workers so far, in user and in system mode."""
        return sum(map(_cpu_seconds, self.workers))

    @property
    def workers(self) -> list[int]:
        """The process ids of the workers, without Python's resource tracker."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def memory(self) -> list[int]:
        """Return the bytes of memory that each worker has now."""
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.workers]
        return [count * os.sysconf("SC_PAGE_SIZE") for count in pages]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS  # utime and stime (proc(5))


def empty(source: Path, target: str, log: Path) -> AbstractContextManager[WorkerServer]:
    """Run functions-framework with the function *target* of *source*, within the block."""
    command = ["functions_framework", f"--source={source}", f"--target={target}"]
    return serve(command, "/", log, {})


def verify_client(settings: Mapping[str, str], log: Path) -> AbstractContextManager[WorkerServer]:
    """Run verifyClient on the container's server, within the block."""
    return serve(["functions.hosts.server"], "/verifyClient", log, {"FUNCTION_TARGET": "verifyClient", **settings})


@contextmanager
def serve(module: Sequence[str], path: str, log: Path, env: Mapping[str, str]) -> Iterator[WorkerServer]:
    """Run a Python module that serves HTTP with WORKERS processes, within the block."""
    port = _free_port()
    command = [sys.executable, "-m", *module]
    own = {"PORT": str(port), "HOST": "127.0.0.1", "WORKERS": str(WORKERS), "PYTHONPATH": str(ROOT)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **own, **env})
    try:
        server = WorkerServer(process.pid, f"http://127.0.0.1:{port}{path}")
        _wait_until_it_answers(server.url, process, log)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_answers(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"a server did not start: {log.read_text(errors='replace')[-2000:]}")


# --------------------------------------------------------------------------------------------------------------- load


@dataclass(frozen=True)
class WrkResult:
    """One run of wrk. *p50*, *p99*: milliseconds; *cpu*: CPU seconds of the workers per request."""

    rate: float
    p50: float
    p99: float
    cpu: float


@dataclass(frozen=True)
class RequestSet:
    """The requests about a fleet, and the embedded store in *folder* that answers them."""

    folder: Path
    devices: Fleet
    deployed: Deployment

    @property
    def env(self) -> dict[str, str]:
        """Return the environment for wrk.lua."""
        bodies = self.folder / "bodies"
        if not bodies.exists():
            bodies.write_bytes(b"\n".join(self.deployed.encode_questions(self.devices)))
        return {"ASK_BODIES": str(bodies), "ASK_AUTHORIZATION": self.deployed.authorization}

    @property
    def settings(self) -> dict[str, str]:
        """Return the functions' settings: the store; every other setting has its default."""
        store = f"sqlite:///{self.folder}/trust.db"
        return {"TRUST_DATA": str(self.folder), "TRUST_STORE": store, "TRUST_DOMAIN": DOMAIN}


def run_load(
    server: WorkerServer, connections: int, seconds: float, questions: RequestSet, *, first: bool = False
) -> WrkResult:
    """Run wrk. Raises: RuntimeError, if an answer was not 200; *first* allows errors while the processes still load."""
    env = {**os.environ, **questions.env}
    script = Path(__file__).parent / "wrk.lua"
    command = [find_wrk(), "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", str(script), server.url]
    before = server.cpu_seconds()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    cpu = server.cpu_seconds() - before
    report = json.loads(done.stdout.splitlines()[-1])
    if report["errors"] and not first:
        raise RuntimeError(f"{report['errors']} of {report['requests']} requests went wrong at {server.url}")
    return WrkResult(report["requests"] / report["seconds"], report["p50"], report["p99"], cpu / report["requests"])


def find_wrk() -> str:
    path = shutil.which("wrk")
    if path is None:
        raise Missing("wrk", "wrk")
    return path


def measure_decision_cpu(questions: RequestSet, seconds: float) -> float:
    """Return the CPU seconds of one decision in process, measured in as many processes at once as there are workers."""
    forks = multiprocessing.get_context("fork")
    results: SimpleQueue[float] = forks.SimpleQueue()
    running = [forks.Process(target=_decide, args=(questions, seconds, results.put)) for _ in range(WORKERS)]
    for process in running:
        process.start()
    costs = [results.get() for _ in running]
    for process in running:
        process.join()
    return sum(costs) / len(costs)


def _decide(questions: RequestSet, seconds: float, report: Callable[[float], None]) -> None:
    app = build(Settings.from_env({**questions.settings, "TRUST_METRICS": "off", "TRUST_VERDICT_MEMORY": "0"}))
    decide = Deployment(app, questions.deployed.broker).decisions(questions.devices)
    for _ in range(100):
        decide()
    calls, start, end = 0, time.process_time(), time.monotonic() + seconds
    while time.monotonic() < end:
        decide()
        calls += 1
    report((time.process_time() - start) / calls)
    app.close()


# --------------------------------------------------------------------------------------------------------------- rows


def measure(quick: bool) -> list[Row]:
    rounds, seconds = (1, 1.0) if quick else (4, 4.0)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-http-") as name, ExitStack() as stack:
        folder = Path(name)
        servers = {
            THREADS: stack.enter_context(empty(EMPTY / "threads.py", "empty", folder / "threads.log")),
            CHOSEN: stack.enter_context(empty(EMPTY / "loop.py", "empty", folder / "loop.log")),
        }
        asked: dict[str, RequestSet] = {}
        for kind in KINDS:
            devices = make_fleet(kind, 200)
            asked[kind] = RequestSet(
                folder / kind, devices, stack.enter_context(deployment(folder / kind, devices.root))
            )
            for way, size in ((SEEN, "64"), (NEVER, "0")):
                settings = {**asked[kind].settings, "TRUST_VERDICT_MEMORY": size}
                what = f"{kind}, {way}"
                servers[what] = stack.enter_context(verify_client(settings, folder / f"{what}.log"))
                asked[what] = asked[kind]
        for what, server in servers.items():  # the first calls load modules, fill caches and see every device
            run_load(server, WORKERS * 4, 2, asked.get(what, asked[KINDS[0]]), first=True)
        runs: dict[tuple[str, int], list[WrkResult]] = {}
        decisions: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(rounds):
            for connections in CONNECTIONS:
                for what, server in servers.items():
                    done = run_load(server, connections, seconds, asked.get(what, asked[KINDS[0]]))
                    runs.setdefault((what, connections), []).append(done)
            for kind in KINDS:
                decisions[kind].append(measure_decision_cpu(asked[kind], seconds / 2))
        for kind in KINDS:
            for way in (SEEN, NEVER):
                rows += _rows(kind, way, runs)
            rows.append(_compare_cpu(kind, runs, decisions[kind]))
    return rows


def _rows(kind: str, way: str, runs: Mapping[tuple[str, int], Sequence[WrkResult]]) -> list[Row]:
    rows = []
    name = f"verifyClient over HTTP ({kind}, {way}, {WORKERS} workers)"
    for connections in CONNECTIONS:
        ours, theirs, chosen = (runs[what, connections] for what in (f"{kind}, {way}", THREADS, CHOSEN))
        rows += [
            Row(
                f"{name}: requests/s, {connections} connections",
                THREADS,
                Spread.of([mine.rate / other.rate for mine, other in zip(ours, theirs, strict=True)]),
                _RATE[way],
                figures={
                    "verifyClient": Figure.of([load.rate for load in ours], "req/s"),
                    "CPU a request": Figure.of([load.cpu for load in ours], "µs", scale=1e6),
                    THREADS: Figure.of([load.rate for load in theirs], "req/s"),
                    CHOSEN: Figure.of([load.rate for load in chosen], "req/s"),
                },
            ),
            Row(
                f"{name}: p99, {connections} connections",
                THREADS,
                Spread.of([mine.p99 / other.p99 for mine, other in zip(ours, theirs, strict=True)]),
                Target(below=1),
                figures={
                    "verifyClient": Figure.of([load.p99 for load in ours], "ms"),
                    "its p50": Figure.of([load.p50 for load in ours], "ms"),
                    THREADS: Figure.of([load.p99 for load in theirs], "ms"),
                    "its p50 ": Figure.of([load.p50 for load in theirs], "ms"),
                    CHOSEN: Figure.of([load.p99 for load in chosen], "ms"),
                },
            ),
        ]
    return rows


def _compare_cpu(kind: str, runs: Mapping[tuple[str, int], Sequence[WrkResult]], decisions: Sequence[float]) -> Row:
    """Return the row that says what HTTP and the threads add to a decision that is computed."""
    ours, chosen = (runs[what, CONNECTIONS[0]] for what in (f"{kind}, {NEVER}", CHOSEN))
    limit = [load.cpu + decision for load, decision in zip(chosen, decisions, strict=True)]
    return Row(
        f"verifyClient over HTTP ({kind}, {NEVER}, {WORKERS} workers): CPU per request",
        f"decision in process + {CHOSEN}",
        Spread.of([load.cpu / lowest for load, lowest in zip(ours, limit, strict=True)]),
        Target(at_most=1.3),
        figures={
            "verifyClient": Figure.of([load.cpu for load in ours], "µs", scale=1e6),
            "decision": Figure.of(decisions, "µs", scale=1e6),
            CHOSEN: Figure.of([load.cpu for load in chosen], "µs", scale=1e6),
        },
    )
