"""What the port promises where the network loses answers and the store is busy, on both clouds' adapters."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from shared.adapters.dynamodb_store import DynamoDBStore
from shared.adapters.firestore_store import FirestoreStore
from shared.adapters.patience import RetryBudget
from shared.config import DynamoDB, Firestore
from shared.errors import StoreUnavailable
from shared.ports import DocumentStore, Key, WriteConflict
from tests.adapters.faults import Faults, disturbed
from tests.faults.wire import Wire
from tests.stores import Place, open_store

pytestmark = pytest.mark.stores("firestore", "dynamodb")

HERE = Key("org", "mtxpd0")


@pytest.fixture
def disturbance(place: Place) -> Iterator[tuple[DocumentStore, Faults]]:
    store, faults = disturbed(place)
    yield store, faults
    faults.always.clear()
    store.close()


@pytest.fixture
def store(disturbance: tuple[DocumentStore, Faults]) -> DocumentStore:
    """The adapter under test."""
    return disturbance[0]


@pytest.fixture
def faults(disturbance: tuple[DocumentStore, Faults]) -> Faults:
    return disturbance[1]


@pytest.fixture
def other(place: Place) -> Iterator[DocumentStore]:
    """Another process at the same place, undisturbed."""
    opened = open_store(place)
    yield opened
    opened.close()


# ------------------------------------------------------------------------------------------------ round trips


def test_a_decision_is_one_round_trip(store: DocumentStore, faults: Faults) -> None:
    """A hundred keys in one question."""
    store.get_many([Key("ca/mtxpd0", f"{n:03}") for n in range(100)])
    assert sum(faults.calls.values()) == 1


def test_a_write_is_one_round_trip(store: DocumentStore, faults: Faults) -> None:
    version = store.put(HERE, {"n": 1}, expected=None)
    version = store.put(HERE, {"n": 2}, expected=version)
    store.delete(HERE, expected=version)
    assert sum(faults.calls.values()) == 3


def test_what_no_key_can_name_is_not_asked_for(store: DocumentStore, faults: Faults) -> None:
    assert store.get_many([Key("org", "\x00"), Key("", "mtxpd0")]) == {}
    assert store.get_many([]) == {}
    assert sum(faults.calls.values()) == 0


def test_one_client_serves_all_threads_for_good(store: DocumentStore, faults: Faults) -> None:
    """Made at the first call: a cold start that asks nothing pays nothing."""
    assert faults.clients == 0
    threads = [threading.Thread(target=store.get_many, args=([HERE],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults.clients == 1


# ------------------------------------------------------------------------------------------------ lost answers


def test_a_creation_whose_answer_was_lost_is_a_creation(
    store: DocumentStore, faults: Faults, other: DocumentStore
) -> None:
    """The second try finds a document there: its own, so it is no conflict."""
    faults.next["write"].append(faults.answer_lost)
    version = store.put(HERE, {"n": 1}, expected=None)
    found = other.get_many([HERE])[HERE]
    assert (found.version, found.body) == (version, {"n": 1})


def test_a_change_whose_answer_was_lost_is_made_once(
    store: DocumentStore, faults: Faults, other: DocumentStore
) -> None:
    """And the version it gives is one that the next change can name."""
    version = store.put(HERE, {"n": 1}, expected=None)
    faults.next["write"].append(faults.answer_lost)
    version = store.put(HERE, {"n": 2}, expected=version)
    assert other.get_many([HERE])[HERE].version == version
    store.put(HERE, {"n": 3}, expected=version)
    assert other.get_many([HERE])[HERE].body == {"n": 3}


def test_a_change_that_never_arrived_is_made_by_the_next_try(
    store: DocumentStore, faults: Faults, other: DocumentStore
) -> None:
    version = store.put(HERE, {"n": 1}, expected=None)
    faults.next["write"].append(faults.silent)
    version = store.put(HERE, {"n": 2}, expected=version)
    found = other.get_many([HERE])[HERE]
    assert (found.version, found.body) == (version, {"n": 2})


def test_a_change_whose_answer_was_lost_and_that_another_has_overwritten_is_a_conflict(
    store: DocumentStore, faults: Faults, other: DocumentStore
) -> None:
    """The other's change stands."""
    version = store.put(HERE, {"n": 1}, expected=None)

    def overwrite() -> None:
        other.put(HERE, {"n": "other"}, expected=other.get_many([HERE])[HERE].version)

    faults.next["write"].append(faults.lost_then(overwrite))
    with pytest.raises(WriteConflict):
        store.put(HERE, {"n": 2}, expected=version)
    assert other.get_many([HERE])[HERE].body == {"n": "other"}


def test_a_deletion_whose_answer_was_lost_is_a_deletion(
    store: DocumentStore, faults: Faults, other: DocumentStore
) -> None:
    version = store.put(HERE, {}, expected=None)
    faults.next["write"].append(faults.answer_lost)
    store.delete(HERE, expected=version)
    assert other.get_many([HERE]) == {}


def test_a_deletion_whose_answer_was_lost_leaves_what_another_has_made_since(
    store: DocumentStore, faults: Faults, other: DocumentStore
) -> None:
    version = store.put(HERE, {}, expected=None)
    faults.next["write"].append(faults.lost_then(lambda: other.put(HERE, {"n": "other"}, expected=None)))
    with pytest.raises(WriteConflict):
        store.delete(HERE, expected=version)
    assert other.get_many([HERE])[HERE].body == {"n": "other"}


def test_a_lost_answer_and_a_lost_look_whose_it_was_are_asked_for_again(
    store: DocumentStore, faults: Faults, other: DocumentStore
) -> None:
    """Two faults in a row: the write's answer, then that of the question whose document is there."""
    faults.next["write"].append(faults.answer_lost)
    faults.next["read"].append(faults.busy)
    version = store.put(HERE, {"n": 1}, expected=None)
    assert other.get_many([HERE])[HERE].version == version


# ------------------------------------------------------------------------------------------------------- busy


def test_a_busy_store_is_asked_again(store: DocumentStore, faults: Faults) -> None:
    """Throttling and short outages do not reach the caller."""
    faults.next["write"].extend([faults.busy] * 3)
    version = store.put(HERE, {"n": 1}, expected=None)
    faults.next["read"].extend([faults.busy] * 3)
    assert store.get_many([HERE])[HERE].version == version
    faults.next["read"].extend([faults.busy] * 3)
    assert [one.version for one in store.list("org")] == [version]
    faults.next["write"].extend([faults.busy] * 3)
    store.delete(HERE, expected=version)


@pytest.mark.parametrize("fault", ["busy", "silent"])
def test_a_store_that_stays_away_is_given_up_before_a_verdict_is_due(
    store: DocumentStore, faults: Faults, fault: str
) -> None:
    """Every call, as StoreUnavailable, with the vendor's own error behind it for the log; within two seconds in all."""
    step = getattr(faults, fault)
    faults.always.update(read=step, write=step)
    for call in (
        lambda: store.get_many([HERE]),
        lambda: store.list("org"),
        lambda: store.put(HERE, {}, expected=None),
        lambda: store.delete(HERE, expected="1795457013.699717000"),
    ):
        begun = faults.time.now
        with pytest.raises(StoreUnavailable) as caught:
            call()
        assert caught.value.__cause__ in (faults.passing, faults.timeout)
        assert faults.time.now - begun <= faults.patience.seconds
    assert sum(faults.calls.values()) >= 8  # each was tried more than once


def test_a_write_that_was_given_up_can_be_repeated(store: DocumentStore, faults: Faults) -> None:
    """It may have happened: the caller reads, sees which, and loses nothing."""
    version = store.put(HERE, {"n": 1}, expected=None)
    faults.always["write"] = faults.answer_lost
    faults.always["read"] = faults.busy
    with pytest.raises(StoreUnavailable):
        store.put(HERE, {"n": 2}, expected=version)
    faults.always.clear()
    now = store.get_many([HERE])[HERE]
    assert now.body == {"n": 2}
    store.put(HERE, {"n": 3}, expected=now.version)


def test_a_store_that_refuses_is_not_asked_again(store: DocumentStore, faults: Faults) -> None:
    """No permission, no such table: trying again does not mend it, and the log has what it said."""
    faults.always["read"] = faults.forbidden
    with pytest.raises(StoreUnavailable) as caught:
        store.get_many([HERE])
    assert caught.value.__cause__ is faults.refused
    assert sum(faults.calls.values()) == 1


def test_an_error_that_is_not_the_stores_passes(store: DocumentStore, faults: Faults) -> None:
    """A mistake of ours must not look like an outage."""
    faults.always.update(read=faults.broken, write=faults.broken)
    with pytest.raises(ZeroDivisionError):
        store.get_many([HERE])
    with pytest.raises(ZeroDivisionError):
        store.put(HERE, {}, expected=None)


def test_a_list_that_breaks_off_is_asked_for_again(store: DocumentStore, faults: Faults) -> None:
    """The beginning of a list is not the list."""
    for number in range(3):
        store.put(Key("org", f"{number}"), {}, expected=None)
    faults.next["read"].append(faults.breaks_off)
    assert [one.key.id for one in store.list("org")] == ["0", "1", "2"]
    faults.next["read"].append(faults.breaks_off)
    assert len(store.get_many([Key("org", f"{number}") for number in range(3)])) == 3


@pytest.mark.stores("dynamodb")
def test_an_answer_that_was_cut_short_in_its_headers_is_no_answer(
    store: DocumentStore, faults: Faults, other: DocumentStore
) -> None:
    """HTTP takes it for an empty one. Above all, it does not say that a document is gone."""
    version = store.put(HERE, {}, expected=None)
    faults.next["read"].append(faults.cut_short)
    assert store.get_many([HERE])[HERE].version == version
    faults.next["read"].append(faults.cut_short)
    assert [one.version for one in store.list("org")] == [version]
    other.put(HERE, {"n": "other"}, expected=version)
    faults.next["write"].append(faults.silent)
    faults.next["read"].append(faults.cut_short)
    with pytest.raises(WriteConflict):
        store.delete(HERE, expected=version)
    assert other.get_many([HERE])[HERE].body == {"n": "other"}


# --------------------------------------------------------------------------------- the real clients, no store


def open_at(place: Place, address: str, patch: pytest.MonkeyPatch, *, seconds: float = 0.5) -> DocumentStore:
    """An adapter with the vendor's own client, pointed at *address*, that gives up after so many seconds."""
    if isinstance(place, DynamoDB):
        patch.setenv("AWS_ENDPOINT_URL_DYNAMODB", f"http://{address}")
        return DynamoDBStore(place.table, "eu-central-1", patience=RetryBudget(seconds))
    assert isinstance(place, Firestore)
    patch.setenv("FIRESTORE_EMULATOR_HOST", address)
    return FirestoreStore(place.project, patience=RetryBudget(seconds))


def test_where_nobody_listens_the_store_is_unavailable(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:  # bound, not listening
        nobody.bind(("127.0.0.1", 0))
        store = open_at(place, f"127.0.0.1:{nobody.getsockname()[1]}", monkeypatch)
        with pytest.raises(StoreUnavailable):
            store.get_many([HERE])
        with pytest.raises(StoreUnavailable):
            store.put(HERE, {}, expected=None)
        store.close()


@pytest.mark.timeout(40)  # the vendors' own clients would wait for a minute, for each of the two
def test_where_somebody_listens_and_never_answers_the_store_is_unavailable(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a firewall that drops: the time limits are ours."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        store = open_at(place, f"127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        with pytest.raises(StoreUnavailable):
            store.get_many([HERE])
        with pytest.raises(StoreUnavailable):
            store.delete(HERE, expected="1795457013.699717000")
        store.close()


@pytest.mark.stores("firestore", "dynalite")  # moto ends each connection after its answer
def test_a_connection_that_has_gone_silent_is_not_asked_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a firewall forgets a connection: nothing says so, and only a new one is answered. The first try finds
    out, and the second has a second left."""
    real = os.environ["FIRESTORE_EMULATOR_HOST" if isinstance(place, Firestore) else "AWS_ENDPOINT_URL_DYNAMODB"]
    with closing(Wire(real.removeprefix("http://"))) as wire:
        store = open_at(place, wire.address, monkeypatch, seconds=6)
        store.put(HERE, {"n": 1}, expected=None)
        wire.silence()
        assert store.get_many([HERE])[HERE].body == {"n": 1}
        wire.silence()
        store.put(Key("org", "other1"), {}, expected=None)
        store.close()
