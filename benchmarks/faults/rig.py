"""A store, the real server on it, and faults between the two.

with rig("dynamodb", emulators, folder) as running:
    row = running.suffer("reset", seconds=4)
"""

import resource
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from benchmarks.faults import calls, wire
from benchmarks.faults.calls import Calls, IllCalls
from benchmarks.faults.check import Findings, check
from benchmarks.faults.load import Access, Load, Verdicts
from benchmarks.faults.serve import Orders
from benchmarks.faults.wire import Ill, Wire
from shared.composition import App, build
from shared.config import DynamoDB, Firestore, Settings, SQLite
from shared.records import Role
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.jobs.maintenance import sweep_org
from shared.usecases.orgs.api_keys import create_key
from shared.usecases.orgs.default_certificate import ensure_default
from shared.usecases.orgs.organizations import create_org, get_org
from tests.support import server
from tests.support.emulators import Emulators
from tests.support.stores import Place, new_place

DOMAIN: Final = "example.com"
STORES: Final = ("sqlite", "dynamodb", "firestore")
EMULATORS: Final = {
    "dynamodb": "dynalite",
    "firestore": "firestore",
}  # not moto: it closes the connection after each answer
_BACK_SECONDS: Final = 20.0  # the service must recover in this time after a fault
_LOCKED: Final = 6.0  # seconds: longer than a writer waits for a lock
_FULL_AT: Final = 96 * 1024  # bytes per file

Fault = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class FaultRow:
    """The result of one fault on one store.

    Args:
        operations: answers to changers: "done", "refused" (final), "unavailable" (503, too busy), "dropped".
        verdicts: "allowed", "denied", "not known" (denied because the store did not answer).
        slowest: the slowest verdict, in seconds; *late*: number of verdicts later than promised.
        back: seconds from the fault's end to the first admitted device.
        leftovers: findings that a sweep should remove; *left*: those that are still there after the sweep.
        wrong: answers that must not occur.
    """

    store: str
    fault: str
    operations: Mapping[str, int]
    verdicts: Mapping[str, int]
    slowest: float
    late: int
    back: float | None
    lost: list[str]
    halves: list[str]
    leftovers: list[str]
    left: list[str]
    wrong: list[str]
    log: list[str] = field(default_factory=list)  # unexpected errors in the server's log

    @property
    def good(self) -> bool:
        ill = (self.lost, self.halves, self.left, self.wrong, self.log)
        return not any(ill) and not self.late and self.back is not None


@dataclass
class Rig:
    """A server on a store, and the faults that can be applied."""

    store: str
    app: App  # on a separate connection, without faults
    start: Callable[[], server.Server]
    running: server.Server
    log: Path
    faults: Mapping[str, Fault]
    _read: int = 0  # bytes of the log read so far

    def suffer(self, fault: str, *, seconds: float) -> FaultRow:
        """Load a new organization, under *fault* for *seconds*; then end the fault and check everything."""
        access = self._organization()
        address = f"127.0.0.1:{self.running.port}"
        load = Load.on(address, access)
        load.employ().begin()
        with self.faults[fault]():
            time.sleep(seconds)
        back = _measure_recovery(load)
        load.end()
        if back is None:  # restart, so that the next fault begins with a healthy server
            self.running.stop(signal.SIGKILL)
            self.running = self.start()
        repository, sealer, history = self.app.context.repository, self.app.sealer, load.history
        self.app.queue.flush()
        before = check(repository, sealer, access.org_id, history)
        self._sweep(access.org_id)
        after = check(repository, sealer, access.org_id, history)
        return FaultRow(
            store=self.store,
            fault=fault,
            operations=dict(history.operations),
            verdicts=dict(history.verdicts),
            slowest=history.slowest,
            late=history.late,
            back=back,
            lost=_merge(before, after, "lost"),
            halves=_merge(before, after, "halves"),
            leftovers=before.leftovers,
            left=after.leftovers,
            wrong=history.wrong,
            log=self._read_errors(),
        )

    def _organization(self) -> Access:
        context = self.app.context
        org_id = "f" + secrets.token_hex(3)[:5]
        create_org(context, org_id)
        keys = [create_key(context, org_id=org_id, role=role) for role in (Role.OPERATOR, Role.BROKER)]
        operator, broker = (f"{key.key}:{token}" for key, token in keys)
        return Access(org_id, operator, broker, f"{org_id}.messaging.{DOMAIN}")

    def _sweep(self, org_id: str) -> None:
        """Sweep as the daily report does, some hours later."""
        sweep_org(self.app.context, get_org(self.app.context, org_id), at=datetime.now(UTC) + timedelta(hours=3))
        HostFeed(self.app.context).sweep()

    def _read_errors(self) -> list[str]:
        """Return the unexpected errors in the server's log since the last call. Refusals are not errors."""
        text = self.log.read_bytes()[self._read :]
        self._read += len(text)
        lines = text.decode(errors="replace").splitlines()
        return [line[:400] for line in lines if "unforeseen" in line or "Traceback" in line]


def _merge(before: Findings, after: Findings, what: str) -> list[str]:
    return list(dict.fromkeys([*getattr(before, what), *getattr(after, what)]))


def _measure_recovery(load: Load) -> float | None:
    """Return the seconds until a device is admitted again; None if that takes too long."""
    ask, began = Verdicts(load), time.monotonic()
    with closing(ask):
        while time.monotonic() < began + _BACK_SECONDS:
            result = ask(load.device, "1", may_enter=True, must_enter=True, about="the device")
            if result.status == 200 and result.body["decision"] == "allow":
                return time.monotonic() - began
            time.sleep(0.02)
    return None


# -------------------------------------------------------------------------------------------------- the stores


@contextmanager
def rig(store: str, emulators: Emulators, folder: Path) -> Iterator[Rig]:
    """Run a server on an empty *store*, with its faults. Raises: EmulatorMissing, if the emulator is not installed."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        place = new_place(EMULATORS.get(store, store), folder, emulators, patch)
        app = build(Settings(data=folder, domain=DOMAIN, store=place, metrics="off"))
        stack.callback(app.close)
        ensure_default(app.context, app.sealer)
        orders = folder / "orders"
        Orders().write(orders)
        environment = {
            "TRUST_STORE": _url(place),
            "TRUST_KEYS": f"local:{folder.resolve() / 'keys'}",
            "TRUST_DOMAIN": DOMAIN,
            "TRUST_RATE_PER_MINUTE": "1000000",
            "TRUST_METRICS": "off",
            "TRUST_LOG": "ERROR",
        }
        way: Mapping[str, Fault] = {}
        if isinstance(place, DynamoDB):
            between = stack.enter_context(closing(Wire(emulators.address(EMULATORS[store]))))
            environment["AWS_ENDPOINT_URL_DYNAMODB"] = f"http://{between.address}"
            way = _dynamodb_faults(between)
        elif isinstance(place, Firestore):
            grpc_between = stack.enter_context(closing(Calls(emulators.address(EMULATORS[store]))))
            between = stack.enter_context(closing(Wire(grpc_between.address)))
            environment["FIRESTORE_EMULATOR_HOST"] = between.address
            way = _firestore_faults(between, grpc_between)
        module = ["benchmarks.faults.serve", str(orders)] if isinstance(place, SQLite) else ["functions.local"]
        log = folder / "log"
        start = partial(server.start, folder, log=log, module=module, **environment)
        running = Rig(store, app, start, start(), log, {})
        stack.callback(lambda: running.running.stop())
        if isinstance(place, SQLite):
            running.faults = _sqlite_faults(place.path, orders, lambda: running.running.process.pid)
        else:
            running.faults = way
        yield running


def _url(place: Place) -> str:
    match place:
        case SQLite(path):
            return f"sqlite:///{path}"
        case DynamoDB(table, region):
            return f"dynamodb://{table}?region={region}"
        case Firestore(project, database):
            return f"firestore://{project}/{database}"


def _dynamodb_faults(between: Wire) -> Mapping[str, Fault]:
    ills = {
        "slow": Ill(late=(0.6, 0.4)),
        "reset": Ill(reset=0.2),
        "half answers": Ill(half=0.2),
        "lost answers": Ill(lost=0.2),
        "silence": Ill(silent=0.1),
        "throttling": Ill(throttled=0.5),
        "comes and goes": Ill(comes_and_goes=True),
    }
    return {"none": nullcontext, **{name: partial(_ill, between, ill) for name, ill in ills.items()}}


def _firestore_faults(between: Wire, grpc_between: Calls) -> Mapping[str, Fault]:
    ills = {  # one connection carries all calls, so each fault hits many calls
        "slow": Ill(late=(0.6, 0.2)),
        "reset": Ill(reset=0.02),
        "half answers": Ill(half=0.02),
        "lost answers": Ill(lost=0.02),
        "silence": Ill(silent=0.01),
        "comes and goes": Ill(comes_and_goes=True),
    }
    ill_calls = {
        "throttling": IllCalls(throttled=0.5),
        "lost answers of calls": IllCalls(lost=0.2),
        "half answers of calls": IllCalls(half=0.2),
    }
    return {
        "none": nullcontext,
        **{name: partial(_ill, between, ill) for name, ill in ills.items()},
        **{name: partial(_ill_calls, grpc_between, ill) for name, ill in ill_calls.items()},
    }


def _sqlite_faults(path: Path, orders: Path, process: Callable[[], int]) -> Mapping[str, Fault]:
    ordered = {
        "slow": Orders(late=(0.5, 0.3)),
        "refused calls": Orders(away=0.2),
        "lost answers": Orders(lost=0.3),
        "stuck calls": Orders(stuck=(0.05, 4.0)),
    }
    return {
        "none": nullcontext,
        **{name: partial(_obey, orders, what) for name, what in ordered.items()},
        "locked by another": partial(_lock_file, path),
        "disk full": partial(_fill_disk, process),
    }


@contextmanager
def _ill(between: Wire, ill: Ill) -> Iterator[None]:
    between.treat(ill)
    yield
    between.treat(wire.FINE)


@contextmanager
def _ill_calls(between: Calls, ill: IllCalls) -> Iterator[None]:
    between.ill = ill
    yield
    between.ill = calls.FINE


@contextmanager
def _obey(file: Path, orders: Orders) -> Iterator[None]:
    orders.write(file)
    yield
    Orders().write(file)


@contextmanager
def _lock_file(path: Path) -> Iterator[None]:
    """Hold the write lock of the file in another process for some seconds."""
    hold = (
        "import sqlite3,sys,time; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); print(flush=True); "
    )
    command = [sys.executable, "-c", f"{hold} time.sleep(60)", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        time.sleep(_LOCKED)
        holder.kill()
    yield


@contextmanager
def _fill_disk(the_process: Callable[[], int]) -> Iterator[None]:
    """Stop the server's files from growing, repeatedly (EFBIG; SQLite sees a failed write as with ENOSPC)."""
    stop, process = threading.Event(), the_process()
    _, hard = resource.prlimit(process, resource.RLIMIT_FSIZE)

    def alternate_limits() -> None:
        while not stop.wait(0.5):
            resource.prlimit(process, resource.RLIMIT_FSIZE, (_FULL_AT, hard))
            stop.wait(0.7)
            resource.prlimit(process, resource.RLIMIT_FSIZE, (hard, hard))

    thread = threading.Thread(target=alternate_limits)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
