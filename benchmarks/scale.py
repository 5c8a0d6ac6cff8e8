"""Measure whether the cost of a decision depends on the number of CAs in the org or of organizations in the store.

On SQLite by time, query plan and rows; on DynamoDB and Firestore (moto, Google's emulator) by round trips, because an
emulator's times say nothing about the cloud's.
"""

import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import msgspec
import pytest

from benchmarks.fleet import ORG, Deployment, Fleet, deploy, deployment, make_fleet, settings
from benchmarks.table import Figure, Row, Subject, Target, measure_interleaved, microseconds, ratio
from shared.adapters.sqlite_store import SQLiteStore
from shared.composition import build
from shared.ports import DocumentStore, Key
from shared.records import CA, CAIndex, CAsOfOneName, Record, to_body
from shared.refs import api_key_ref, ca_index_ref, cas_ref, org_ref
from shared.usecases.context import make_revision
from shared.validation.ca import ca_id
from tests.adapters.faults import open_faulty
from tests.support import certs
from tests.support.emulators import EmulatorMissing, Emulators
from tests.support.stores import new_place

_CAS: Final = (1, 100, 1_000)  # an org has 1,000 at most
_ORGS: Final = (1, 1_000, 100_000)
_FEW: Final = (1, 3, 10)  # sizes of a quick run
_ASKED_MAX: Final = 20_000  # at most so many orgs are asked about
_AT_ONCE: Final = 20_000  # documents per transaction
_LIMIT: Final = Target(at_most=1.2)
_CLOUDS: Final = {"dynamodb": "DynamoDB", "firestore": "Firestore"}


def measure(quick: bool) -> list[Row]:
    devices = make_fleet("P-256", 20 if quick else 200)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        here = Path(folder)
        return [
            *_compare(here / "cas", _FEW if quick else _CAS, "CAs in the org", _with_cas, devices, quick),
            *_compare(here / "orgs", _FEW if quick else _ORGS, "orgs in the store", _with_orgs, devices, quick),
            *_measure_round_trips(here, _FEW[:2] if quick else _CAS[:2], devices),
        ]


# ------------------------------------------------------------------------------------------------------- on SQLite

Make = Callable[[Deployment, int, Fleet], Subject]


def _compare(folder: Path, sizes: Sequence[int], of: str, make: Make, devices: Fleet, quick: bool) -> list[Row]:
    with ExitStack() as stack:
        stores: dict[str, SQLiteStore] = {}
        subjects: dict[str, Subject] = {}
        for size in sizes:
            deployed = stack.enter_context(deployment(folder / str(size), devices.root, platform=True))
            assert isinstance(deployed.app.store, SQLiteStore)
            stores[f"{size:,}"], subjects[f"{size:,}"] = deployed.app.store, make(deployed, size, devices)
        samples = measure_interleaved(subjects, rounds=3 if quick else 300, clock=time.process_time)
        plans = {name: _explain(stores[name], decide) for name, decide in subjects.items()}
    figures = microseconds(samples)
    first, *more = subjects
    rows = []
    for name in more:
        against = {f"with {subject}": figures[subject] for subject in (name, first)}
        compared = ratio(samples, name, first)
        rows.append(Row(f"one decision, {name} {of}", f"with {first}", compared, _LIMIT, figures=against))
    plan, documents = plans[first]
    same = len(set(plans.values())) == 1
    rows.append(Row(f"its query, {' / '.join(plans)} {of}", held=same, note=f"{plan}: {documents} documents"))
    return rows


def _explain(store: SQLiteStore, decide: Subject) -> tuple[str, int]:
    """Return SQLite's plan for the only statement of a decision, and its number of rows. Raises: ValueError."""
    statements: list[str] = []
    connection = _connection(store)
    connection.set_trace_callback(statements.append)
    decide()
    connection.set_trace_callback(None)
    [statement] = statements
    plan = [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
    return "; ".join(plan), len(connection.execute(statement).fetchall())


def _connection(store: SQLiteStore) -> sqlite3.Connection:
    """Return the connection that *store* uses in this thread."""
    with store._connection() as connection:
        return connection


def _with_cas(deployed: Deployment, size: int, devices: Fleet) -> Subject:
    """Add CAs to the org until it has *size*, the fleet's root among them."""
    with _open_writer(deployed.app.store) as put:
        _add_cas(deployed, size - 1, put)
    return deployed.forgetful.decisions(devices)


def _with_orgs(deployed: Deployment, size: int, devices: Fleet) -> Subject:
    """Add orgs, with a key and a CA each, until there are *size*; decisions ask about all of them in turn."""
    context, root = deployed.app.context, devices.root
    org = context.repository.get(org_ref(ORG))
    cas_of_org = cas_ref(ORG, ca_id(root.certificate)[:16])
    cas = context.repository.get(cas_of_org)
    key = context.repository.get(api_key_ref(None, deployed.broker.key))
    assert org is not None
    assert cas is not None
    assert key is not None
    names = [f"o{number:05}" for number in range(size - 1)]
    with _open_writer(deployed.app.store) as put:
        for name in names:
            put(org_ref(name).key, msgspec.structs.replace(org, org_id=name))
            put(cas_ref(name, cas_of_org.key.id).key, cas)
            put(api_key_ref(name, f"a-{name}-0000000000").key, key)
    asked = random.Random(6).sample([ORG, *names], min(size, _ASKED_MAX))
    return deployed.forgetful.decisions(devices, asked)


def _add_cas(deployed: Deployment, number: int, put: Callable[[Key, Record], None]) -> None:
    """Add *number* active CAs, each with a name of its own."""
    context = deployed.app.context
    stamp = make_revision(context.clock(), "benchmark")
    others = [certs.ca(f"Other {index}", private=certs.key("P-256", 1)) for index in range(number)]
    for other in others:
        own = ca_id(other.certificate)
        put(cas_ref(ORG, own[:16]).key, CAsOfOneName(cas={own: CA(der=other.der, changed=stamp)}))
    ids = {ca_id(other.certificate): True for other in others}
    for attempt in context.repository.changing(ca_index_ref(ORG)):
        with attempt as index:
            if ids:
                attempt.write(CAIndex({**(index.cas if index else {}), **ids}))


@contextmanager
def _open_writer(store: DocumentStore) -> Iterator[Callable[[Key, Record], None]]:
    """Write new documents through the store's port; on SQLite many in one transaction, unlike the service."""
    if not isinstance(store, SQLiteStore):
        yield lambda key, record: _write(store, key, record)
        return
    connection = _connection(store)
    count = 0

    def put(key: Key, record: Record) -> None:
        nonlocal count
        _write(store, key, record)
        count += 1
        if count % _AT_ONCE == 0:
            connection.execute("COMMIT")
            connection.execute("BEGIN")

    connection.execute("BEGIN")
    yield put
    connection.execute("COMMIT")


def _write(store: DocumentStore, key: Key, record: Record) -> None:
    store.put(key, to_body(record), expected=None)


# ---------------------------------------------------------------------------------------------------- in the clouds


def _measure_round_trips(folder: Path, sizes: Sequence[int], devices: Fleet) -> list[Row]:
    folder.mkdir(exist_ok=True)
    emulators = Emulators(folder, run=os.getpid())
    rows = []
    for kind, name in _CLOUDS.items():
        title = f"questions to {name} of one decision, {' / '.join(f'{size:,}' for size in sizes)} CAs in the org"
        try:
            counts = [_count_requests(kind, folder, emulators, size, devices) for size in sizes]
        except EmulatorMissing as missing:
            rows.append(Row(title, note=str(missing)))
            continue
        figure = Figure(max(counts), "round trips" if max(counts) > 1 else "round trip")
        rows.append(Row(title, value=figure, held=counts == [1] * len(counts)))
    return rows


def _count_requests(kind: str, folder: Path, emulators: Emulators, size: int, devices: Fleet) -> int:
    """Return the number of requests of the vendor's client for one decision."""
    with pytest.MonkeyPatch.context() as patch:
        store, calls = open_faulty(new_place(kind, folder, emulators, patch))
        app = build(settings(folder / kind), wrap=lambda _: store, queue_pause=3600)
        try:
            deployed = deploy(app, devices.root)
            with _open_writer(store) as put:
                _add_cas(deployed, size - 1, put)
            decide = deployed.decisions(devices)
            calls.calls.clear()
            decide()
            return sum(calls.calls.values())
        finally:
            store.close()
