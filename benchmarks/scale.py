"""Does a decision cost the same with one CA or a thousand in the org, one org or a hundred thousand in the store?

On SQLite by time, query plan and rows; on DynamoDB and Firestore (moto, Google's emulator) by round trips: an
emulator's times say nothing of the cloud's.
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

from benchmarks.fleet import ORG, Deployment, Fleet, deployed, deployment, fleet, settings
from benchmarks.table import Figure, Row, Subject, Target, interleaved, microseconds, ratio
from shared.adapters.sqlite_store import SQLiteStore
from shared.composition import build
from shared.ports import DocumentStore, Key
from shared.records import CA, CAIndex, CAsOfOneName, Record, stored
from shared.repository import api_key_ref, ca_index_ref, cas_ref, org_ref
from shared.usecases.context import made
from shared.validation.ca import ca_id
from tests import certs
from tests.adapters.faults import disturbed
from tests.emulators import Emulators, Missing
from tests.stores import new_place

_CAS: Final = (1, 100, 1_000)  # an org has 1,000 at most
_ORGS: Final = (1, 1_000, 100_000)
_FEW: Final = (1, 3, 10)  # of each, to try the way
_ASKED_MAX: Final = 20_000  # orgs that are asked about, of however many
_AT_ONCE: Final = 20_000  # documents in one transaction
_LIMIT: Final = Target(at_most=1.2)
_CLOUDS: Final = {"dynamodb": "DynamoDB", "firestore": "Firestore"}


def rows(quick: bool) -> list[Row]:
    devices = fleet("P-256", 20 if quick else 200)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        here = Path(folder)
        return [
            *_compared(here / "cas", _FEW if quick else _CAS, "CAs in the org", _with_cas, devices, quick),
            *_compared(here / "orgs", _FEW if quick else _ORGS, "orgs in the store", _with_orgs, devices, quick),
            *_round_trips(here, _FEW[:2] if quick else _CAS[:2], devices),
        ]


# ------------------------------------------------------------------------------------------------------- on SQLite

Make = Callable[[Deployment, int, Fleet], Subject]


def _compared(folder: Path, sizes: Sequence[int], of: str, make: Make, devices: Fleet, quick: bool) -> list[Row]:
    with ExitStack() as stack:
        stores: dict[str, SQLiteStore] = {}
        subjects: dict[str, Subject] = {}
        for size in sizes:
            one = stack.enter_context(deployment(folder / str(size), devices.root, platform=True))
            assert isinstance(one.app.store, SQLiteStore)
            stores[f"{size:,}"], subjects[f"{size:,}"] = one.app.store, make(one, size, devices)
        samples = interleaved(subjects, rounds=3 if quick else 300, clock=time.process_time)
        plans = {name: _plan(stores[name], decide) for name, decide in subjects.items()}
    figures = microseconds(samples)
    first, *more = subjects
    found = []
    for name in more:
        against = {f"with {one}": figures[one] for one in (name, first)}
        compared = ratio(samples, name, first)
        found.append(Row(f"one decision, {name} {of}", f"with {first}", compared, _LIMIT, figures=against))
    plan, documents = plans[first]
    same = len(set(plans.values())) == 1
    found.append(Row(f"its query, {' / '.join(plans)} {of}", held=same, note=f"{plan}: {documents} documents"))
    return found


def _plan(store: SQLiteStore, decide: Subject) -> tuple[str, int]:
    """How SQLite runs the one statement of a decision, and how many rows it gives. Raises: ValueError, for several."""
    statements: list[str] = []
    connection = _connection(store)
    connection.set_trace_callback(statements.append)
    decide()
    connection.set_trace_callback(None)
    [statement] = statements
    plan = [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
    return "; ".join(plan), len(connection.execute(statement).fetchall())


def _connection(store: SQLiteStore) -> sqlite3.Connection:
    """The one that *store* uses in this thread."""
    with store._connection() as connection:
        return connection


def _with_cas(one: Deployment, size: int, devices: Fleet) -> Subject:
    """The fleet's root among *size* CAs of the org."""
    with _filling(one.app.store) as put:
        _add_cas(one, size - 1, put)
    return one.decisions(devices)


def _with_orgs(one: Deployment, size: int, devices: Fleet) -> Subject:
    """*size* orgs with a key and a CA each; asked about are any of them in turn."""
    context, root = one.app.context, devices.root
    org = context.repository.get(org_ref(ORG))
    cas_of_org = cas_ref(ORG, ca_id(root.certificate)[:16])
    cas = context.repository.get(cas_of_org)
    key = context.repository.get(api_key_ref(None, one.broker.key))
    assert org is not None
    assert cas is not None
    assert key is not None
    names = [f"o{number:05}" for number in range(size - 1)]
    with _filling(one.app.store) as put:
        for name in names:
            put(org_ref(name).key, msgspec.structs.replace(org, org_id=name))
            put(cas_ref(name, cas_of_org.key.id).key, cas)
            put(api_key_ref(name, f"a-{name}-0000000000").key, key)
    asked = random.Random(6).sample([ORG, *names], min(size, _ASKED_MAX))
    return one.decisions(devices, asked)


def _add_cas(one: Deployment, number: int, put: Callable[[Key, Record], None]) -> None:
    """*number* CAs more, each of a name of its own, active."""
    context = one.app.context
    stamp = made(context.clock(), "benchmark")
    others = [certs.ca(f"Other {index}", private=certs.key("P-256", 1)) for index in range(number)]
    for other in others:
        own = ca_id(other.certificate)
        put(cas_ref(ORG, own[:16]).key, CAsOfOneName(cas={own: CA(der=other.der, changed=stamp)}))
    ids = {ca_id(other.certificate): True for other in others}
    context.repository.change(
        ca_index_ref(ORG), lambda index: CAIndex({**(index.cas if index else {}), **ids}) if ids else index
    )


@contextmanager
def _filling(store: DocumentStore) -> Iterator[Callable[[Key, Record], None]]:
    """Writes new documents through the store's own port; on SQLite many in one transaction, which is not its habit."""
    if not isinstance(store, SQLiteStore):
        yield lambda key, record: _written(store, key, record)
        return
    connection = _connection(store)
    count = 0

    def put(key: Key, record: Record) -> None:
        nonlocal count
        _written(store, key, record)
        count += 1
        if count % _AT_ONCE == 0:
            connection.execute("COMMIT")
            connection.execute("BEGIN")

    connection.execute("BEGIN")
    yield put
    connection.execute("COMMIT")


def _written(store: DocumentStore, key: Key, record: Record) -> None:
    store.put(key, stored(record), expected=None)


# ---------------------------------------------------------------------------------------------------- in the clouds


def _round_trips(folder: Path, sizes: Sequence[int], devices: Fleet) -> list[Row]:
    folder.mkdir(exist_ok=True)
    emulators = Emulators(folder, run=os.getpid())
    found = []
    for kind, name in _CLOUDS.items():
        title = f"questions to {name} of one decision, {' / '.join(f'{size:,}' for size in sizes)} CAs in the org"
        try:
            counts = [_questions(kind, folder, emulators, size, devices) for size in sizes]
        except Missing as missing:
            found.append(Row(title, note=str(missing)))
            continue
        figure = Figure(max(counts), "round trips" if max(counts) > 1 else "round trip")
        found.append(Row(title, value=figure, held=counts == [1] * len(counts)))
    return found


def _questions(kind: str, folder: Path, emulators: Emulators, size: int, devices: Fleet) -> int:
    """How often the vendor's client asks its store for one decision."""
    with pytest.MonkeyPatch.context() as patch:
        store, calls = disturbed(new_place(kind, folder, emulators, patch))
        app = build(settings(folder / kind), wrap=lambda _: store, queue_pause=3600)
        try:
            one = deployed(app, devices.root)
            with _filling(store) as put:
                _add_cas(one, size - 1, put)
            decide = one.decisions(devices)
            calls.calls.clear()
            decide()
            return sum(calls.calls.values())
        finally:
            store.close()
