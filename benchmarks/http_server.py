"""verifyClient over HTTP, with keep-alive: how much of what a server can do it does.

    (a) an empty function on functions-framework's default server (gunicorn's threads, Flask)
    (b) an empty function on the server chosen (docs/decisions/0093-the-server.md)
    (c) verifyClient on it, with the embedded store, everything set as it comes

Two workers each, started once; wrk asks one after the other, again and again. wrk and the workers share this machine's
processors, so a server that leaves wrk more of them looks better than it would alone: that is so for all three.
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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Final

from benchmarks.fleet import DOMAIN, KINDS, Deployment, Fleet, deployment, fleet
from benchmarks.table import Figure, Row, Spread, Target
from shared.composition import build
from shared.config import Settings

ROOT: Final = Path(__file__).parent.parent
EMPTY: Final = Path(__file__).parent / "empty"
WORKERS: Final = 2
CONNECTIONS: Final = (8, 32)
_START_SECONDS: Final = 30.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")

THREADS, CHOSEN = "empty, default server", "empty, chosen server"


class Missing(Exception):
    """A program that is not on this machine. The text says how to get it."""


# ------------------------------------------------------------------------------------------------------------ servers


@dataclass(frozen=True)
class Server:
    """functions-framework's process, and the two that answer."""

    pid: int
    url: str

    def cpu_seconds(self) -> float:
        """What all its workers have taken so far, in user and in system mode."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return sum(_cpu_seconds(int(one)) for one in children)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS  # utime and stime (proc(5))


@contextmanager
def served(source: Path, target: str, path: str, log: Path, env: Mapping[str, str]) -> Iterator[Server]:
    """functions-framework with the function *target* of *source*, while this lasts."""
    port = _free_port()
    command = [sys.executable, "-m", "functions_framework", f"--source={source}", f"--target={target}"]
    own = {"PORT": str(port), "HOST": "127.0.0.1", "WORKERS": str(WORKERS), "PYTHONPATH": str(ROOT)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **own, **env})
    try:
        server = Server(process.pid, f"http://127.0.0.1:{port}{path}")
        _until_it_answers(server.url, process, log)
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


def _until_it_answers(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
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
class Load:
    """One run of wrk. *p50*, *p99*: milliseconds; *cpu*: seconds of the workers for a request."""

    rate: float
    p50: float
    p99: float
    cpu: float


@dataclass(frozen=True)
class Questions:
    """What is asked about a fleet, and where the answers are: the embedded store in *folder*."""

    folder: Path
    devices: Fleet
    deployed: Deployment

    @property
    def env(self) -> dict[str, str]:
        """For wrk.lua."""
        bodies = self.folder / "bodies"
        if not bodies.exists():
            bodies.write_bytes(b"\n".join(self.deployed.asked(self.devices)))
        return {"ASK_BODIES": str(bodies), "ASK_AUTHORIZATION": self.deployed.authorization}

    @property
    def settings(self) -> dict[str, str]:
        """For the functions: the store, and all else as it comes."""
        store = f"sqlite:///{self.folder}/trust.db"
        return {"TRUST_DATA": str(self.folder), "TRUST_STORE": store, "TRUST_DOMAIN": DOMAIN}


def load(server: Server, connections: int, seconds: float, questions: Questions, *, first: bool = False) -> Load:
    """Raises: RuntimeError, where any answer was not 200; *first* ones may be late, while the processes still load."""
    env = {**os.environ, **questions.env}
    script = Path(__file__).parent / "wrk.lua"
    command = [_wrk(), "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", str(script), server.url]
    before = server.cpu_seconds()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    cpu = server.cpu_seconds() - before
    told = json.loads(done.stdout.splitlines()[-1])
    if told["errors"] and not first:
        raise RuntimeError(f"{told['errors']} of {told['requests']} requests went wrong at {server.url}")
    return Load(told["requests"] / told["seconds"], told["p50"], told["p99"], cpu / told["requests"])


def _wrk() -> str:
    found = shutil.which("wrk")
    if found is None:
        raise Missing("wrk is missing. On Debian: apt-get install wrk")
    return found


def decision_cpu(questions: Questions, seconds: float) -> float:
    """CPU seconds of one decision in process, measured in as many processes at once as there are workers."""
    forks = multiprocessing.get_context("fork")
    told: SimpleQueue[float] = forks.SimpleQueue()
    running = [forks.Process(target=_decide, args=(questions, seconds, told.put)) for _ in range(WORKERS)]
    for one in running:
        one.start()
    found = [told.get() for _ in running]
    for one in running:
        one.join()
    return sum(found) / len(found)


def _decide(questions: Questions, seconds: float, tell: Callable[[float], None]) -> None:
    app = build(Settings.from_env({**questions.settings, "TRUST_METRICS": "off"}))
    decide = Deployment(app, questions.deployed.broker).decisions(questions.devices)
    for _ in range(100):
        decide()
    calls, start, end = 0, time.process_time(), time.monotonic() + seconds
    while time.monotonic() < end:
        decide()
        calls += 1
    tell((time.process_time() - start) / calls)
    app.close()


# --------------------------------------------------------------------------------------------------------------- rows


def rows(quick: bool) -> list[Row]:
    rounds, seconds = (1, 1.0) if quick else (4, 4.0)
    found: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-http-") as name, ExitStack() as stack:
        folder = Path(name)
        servers = {
            THREADS: stack.enter_context(served(EMPTY / "threads.py", "empty", "/", folder / "threads.log", {})),
            CHOSEN: stack.enter_context(served(EMPTY / "loop.py", "empty", "/", folder / "loop.log", {})),
        }
        asked: dict[str, Questions] = {}
        for kind in KINDS:
            devices = fleet(kind, 200)
            asked[kind] = Questions(
                folder / kind, devices, stack.enter_context(deployment(folder / kind, devices.root))
            )
            log = folder / f"{kind}.log"
            main = served(ROOT / "main.py", "verifyClient", "/verifyClient", log, asked[kind].settings)
            servers[kind] = stack.enter_context(main)
        for what, server in servers.items():  # what is loaded and kept at first calls
            load(server, WORKERS * 4, 1, asked.get(what, asked[KINDS[0]]), first=True)
        runs: dict[tuple[str, int], list[Load]] = {}
        decisions: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(rounds):
            for connections in CONNECTIONS:
                for what, server in servers.items():
                    done = load(server, connections, seconds, asked.get(what, asked[KINDS[0]]))
                    runs.setdefault((what, connections), []).append(done)
            for kind in KINDS:
                decisions[kind].append(decision_cpu(asked[kind], seconds / 2))
        for kind in KINDS:
            found += _rows(kind, runs, decisions[kind])
    return found


def _rows(kind: str, runs: Mapping[tuple[str, int], Sequence[Load]], decisions: Sequence[float]) -> list[Row]:
    found = []
    name = f"verifyClient over HTTP ({kind}, {WORKERS} workers)"
    for connections in CONNECTIONS:
        ours, theirs = runs[kind, connections], runs[THREADS, connections]
        chosen = runs[CHOSEN, connections]
        found += [
            Row(
                f"{name}: requests/s, {connections} connections",
                THREADS,
                Spread.of([one.rate / other.rate for one, other in zip(ours, theirs, strict=True)]),
                Target(at_least=1),
                figures={
                    "verifyClient": Figure.of([one.rate for one in ours], "req/s"),
                    THREADS: Figure.of([one.rate for one in theirs], "req/s"),
                    CHOSEN: Figure.of([one.rate for one in chosen], "req/s"),
                },
            ),
            Row(
                f"{name}: p99, {connections} connections",
                THREADS,
                Spread.of([one.p99 / other.p99 for one, other in zip(ours, theirs, strict=True)]),
                Target(below=1),
                figures={
                    "verifyClient": Figure.of([one.p99 for one in ours], "ms"),
                    "its p50": Figure.of([one.p50 for one in ours], "ms"),
                    THREADS: Figure.of([one.p99 for one in theirs], "ms"),
                    "its p50 ": Figure.of([one.p50 for one in theirs], "ms"),
                    CHOSEN: Figure.of([one.p99 for one in chosen], "ms"),
                },
            ),
        ]
    connections = CONNECTIONS[0]
    ours, chosen = runs[kind, connections], runs[CHOSEN, connections]
    limit = [one.cpu + decision for one, decision in zip(chosen, decisions, strict=True)]
    found.append(
        Row(
            f"{name}: CPU per request",
            "decision in process + empty function on the chosen server",
            Spread.of([one.cpu / other for one, other in zip(ours, limit, strict=True)]),
            Target(at_most=1.3),
            figures={
                "verifyClient": Figure.of([one.cpu for one in ours], "µs", scale=1e6),
                "decision": Figure.of(decisions, "µs", scale=1e6),
                CHOSEN: Figure.of([one.cpu for one in chosen], "µs", scale=1e6),
            },
        )
    )
    return found
