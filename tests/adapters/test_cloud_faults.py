"""The document stores of both clouds with lost responses, timeouts and a busy store."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from benchmarks.faults.wire import Wire
from shared.adapters.dynamodb_store import DynamoDBStore
from shared.adapters.firestore_store import FirestoreStore
from shared.adapters.retry_budget import RetryBudget
from shared.config import DynamoDB, Firestore
from shared.errors import StoreUnavailable
from shared.ports import DocumentStore, Key, WriteConflict
from tests.adapters.faults import Faults, open_faulty
from tests.support.stores import Place, open_store

pytestmark = pytest.mark.stores("firestore", "dynamodb")

HERE = Key("org", "mtxpd0")


@pytest.fixture
def faulty_store(place: Place) -> Iterator[tuple[DocumentStore, Faults]]:
    store, faults = open_faulty(place)
    yield store, faults
    faults.always.clear()
    store.close()


@pytest.fixture
def store(faulty_store: tuple[DocumentStore, Faults]) -> DocumentStore:
    """The adapter under test, with faults."""
    return faulty_store[0]


@pytest.fixture
def faults(faulty_store: tuple[DocumentStore, Faults]) -> Faults:
    return faulty_store[1]


@pytest.fixture
def other(place: Place) -> Iterator[DocumentStore]:
    """Another process at the same place, without faults."""
    store = open_store(place)
    yield store
    store.close()


# ------------------------------------------------------------------------------------------------ round trips


def test_a_batched_read_is_one_round_trip(store: DocumentStore, faults: Faults) -> None:
    """A request reads up to a hundred keys."""
    store.get_many([Key("ca/mtxpd0", f"{n:03}") for n in range(100)])
    assert sum(faults.calls.values()) == 1


def test_a_write_is_one_round_trip(store: DocumentStore, faults: Faults) -> None:
    """So is a deletion."""
    version = store.put(HERE, {"n": 1}, expected=None)
    version = store.put(HERE, {"n": 2}, expected=version)
    store.delete(HERE, expected=version)
    assert sum(faults.calls.values()) == 3


def test_impossible_keys_are_not_requested(store: DocumentStore, faults: Faults) -> None:
    """A read of impossible keys only makes no request."""
    assert store.get_many([Key("org", "\x00"), Key("", "mtxpd0")]) == {}
    assert store.get_many([]) == {}
    assert sum(faults.calls.values()) == 0


def test_all_threads_use_the_same_client(store: DocumentStore, faults: Faults) -> None:
    """The client is created at the first request, so a cold start without a request is not slower."""
    assert faults.clients == 0
    threads = [threading.Thread(target=store.get_many, args=([HERE],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults.clients == 1


# ------------------------------------------------------------------------------------------------ lost responses


def test_a_creation_with_a_lost_response_succeeds(store: DocumentStore, faults: Faults, other: DocumentStore) -> None:
    """The second attempt recognizes the document as its own, so there is no conflict."""
    faults.next["write"].append(faults.lose_response)
    version = store.put(HERE, {"n": 1}, expected=None)
    document = other.get_many([HERE])[HERE]
    assert (document.version, document.body) == (version, {"n": 1})


def test_a_change_with_a_lost_response_happens_once(store: DocumentStore, faults: Faults, other: DocumentStore) -> None:
    """The returned version is valid for the next change."""
    version = store.put(HERE, {"n": 1}, expected=None)
    faults.next["write"].append(faults.lose_response)
    version = store.put(HERE, {"n": 2}, expected=version)
    assert other.get_many([HERE])[HERE].version == version
    store.put(HERE, {"n": 3}, expected=version)
    assert other.get_many([HERE])[HERE].body == {"n": 3}


def test_a_change_with_a_lost_request_is_repeated(store: DocumentStore, faults: Faults, other: DocumentStore) -> None:
    """The second attempt makes the change."""
    version = store.put(HERE, {"n": 1}, expected=None)
    faults.next["write"].append(faults.time_out)
    version = store.put(HERE, {"n": 2}, expected=version)
    document = other.get_many([HERE])[HERE]
    assert (document.version, document.body) == (version, {"n": 2})


def test_a_change_with_a_lost_response_that_another_writer_replaced_is_a_conflict(
    store: DocumentStore, faults: Faults, other: DocumentStore
) -> None:
    """The other writer's change is kept."""
    version = store.put(HERE, {"n": 1}, expected=None)

    def overwrite() -> None:
        other.put(HERE, {"n": "other"}, expected=other.get_many([HERE])[HERE].version)

    faults.next["write"].append(faults.lose_response_then(overwrite))
    with pytest.raises(WriteConflict):
        store.put(HERE, {"n": 2}, expected=version)
    assert other.get_many([HERE])[HERE].body == {"n": "other"}


def test_a_deletion_with_a_lost_response_succeeds(store: DocumentStore, faults: Faults, other: DocumentStore) -> None:
    """The second attempt finds no document, so there is no conflict."""
    version = store.put(HERE, {}, expected=None)
    faults.next["write"].append(faults.lose_response)
    store.delete(HERE, expected=version)
    assert other.get_many([HERE]) == {}


def test_a_deletion_with_a_lost_response_keeps_a_later_document(
    store: DocumentStore, faults: Faults, other: DocumentStore
) -> None:
    """Another writer has created the document again: a conflict."""
    version = store.put(HERE, {}, expected=None)
    faults.next["write"].append(faults.lose_response_then(lambda: other.put(HERE, {"n": "other"}, expected=None)))
    with pytest.raises(WriteConflict):
        store.delete(HERE, expected=version)
    assert other.get_many([HERE])[HERE].body == {"n": "other"}


def test_two_faults_in_a_row_do_not_reach_the_caller(
    store: DocumentStore, faults: Faults, other: DocumentStore
) -> None:
    """The response of the write is lost, and the read that follows fails."""
    faults.next["write"].append(faults.lose_response)
    faults.next["read"].append(faults.fail_transiently)
    version = store.put(HERE, {"n": 1}, expected=None)
    assert other.get_many([HERE])[HERE].version == version


# ------------------------------------------------------------------------------------------------------- busy stores


def test_a_request_to_a_busy_store_is_repeated(store: DocumentStore, faults: Faults) -> None:
    """Throttling and short outages do not reach the caller."""
    faults.next["write"].extend([faults.fail_transiently] * 3)
    version = store.put(HERE, {"n": 1}, expected=None)
    faults.next["read"].extend([faults.fail_transiently] * 3)
    assert store.get_many([HERE])[HERE].version == version
    faults.next["read"].extend([faults.fail_transiently] * 3)
    assert [document.version for document in store.list("org")] == [version]
    faults.next["write"].extend([faults.fail_transiently] * 3)
    store.delete(HERE, expected=version)


@pytest.mark.parametrize("fault", ["fail_transiently", "time_out"])
def test_a_request_to_an_unavailable_store_ends_before_the_deadline_of_a_verdict(
    store: DocumentStore, faults: Faults, fault: str
) -> None:
    """Every call raises StoreUnavailable within the time limit; the vendor's error is the cause, for the log."""
    step = getattr(faults, fault)
    faults.always.update(read=step, write=step)
    for call in (
        lambda: store.get_many([HERE]),
        lambda: store.list("org"),
        lambda: store.put(HERE, {}, expected=None),
        lambda: store.delete(HERE, expected="1795457013.699717000"),
    ):
        begin = faults.time.now
        with pytest.raises(StoreUnavailable) as caught:
            call()
        assert caught.value.__cause__ in (faults.transient, faults.timeout)
        assert faults.time.now - begin <= faults.retry_budget.seconds
    assert sum(faults.calls.values()) >= 8  # each has several attempts


def test_a_failed_write_can_be_repeated(store: DocumentStore, faults: Faults) -> None:
    """The write may have happened. The caller reads the document, and no change is lost."""
    version = store.put(HERE, {"n": 1}, expected=None)
    faults.always["write"] = faults.lose_response
    faults.always["read"] = faults.fail_transiently
    with pytest.raises(StoreUnavailable):
        store.put(HERE, {"n": 2}, expected=version)
    faults.always.clear()
    document = store.get_many([HERE])[HERE]
    assert document.body == {"n": 2}
    store.put(HERE, {"n": 3}, expected=document.version)


def test_a_refused_request_is_not_repeated(store: DocumentStore, faults: Faults) -> None:
    """For example without permission or table: a retry cannot succeed. The vendor's error is the cause, for the log."""
    faults.always["read"] = faults.refuse
    with pytest.raises(StoreUnavailable) as caught:
        store.get_many([HERE])
    assert caught.value.__cause__ is faults.refused
    assert sum(faults.calls.values()) == 1


def test_an_error_of_the_adapter_is_not_an_outage(store: DocumentStore, faults: Faults) -> None:
    """A defect must not look like a temporary failure."""
    faults.always.update(read=faults.crash, write=faults.crash)
    with pytest.raises(ZeroDivisionError):
        store.get_many([HERE])
    with pytest.raises(ZeroDivisionError):
        store.put(HERE, {}, expected=None)


def test_an_incomplete_list_is_requested_again(store: DocumentStore, faults: Faults) -> None:
    """A part of a list is never returned as the list."""
    for number in range(3):
        store.put(Key("org", f"{number}"), {}, expected=None)
    faults.next["read"].append(faults.break_off)
    assert [document.key.id for document in store.list("org")] == ["0", "1", "2"]
    faults.next["read"].append(faults.break_off)
    assert len(store.get_many([Key("org", f"{number}") for number in range(3)])) == 3


@pytest.mark.stores("dynamodb")
def test_a_response_that_ends_within_its_headers_is_not_used(
    store: DocumentStore, faults: Faults, other: DocumentStore
) -> None:
    """HTTP treats it as an empty response. It must not mean that a document does not exist."""
    version = store.put(HERE, {}, expected=None)
    faults.next["read"].append(faults.cut_short)
    assert store.get_many([HERE])[HERE].version == version
    faults.next["read"].append(faults.cut_short)
    assert [document.version for document in store.list("org")] == [version]
    other.put(HERE, {"n": "other"}, expected=version)
    faults.next["write"].append(faults.time_out)
    faults.next["read"].append(faults.cut_short)
    with pytest.raises(WriteConflict):
        store.delete(HERE, expected=version)
    assert other.get_many([HERE])[HERE].body == {"n": "other"}


# --------------------------------------------------------------------------------- real clients without a store


def open_at(place: Place, address: str, patch: pytest.MonkeyPatch, *, seconds: float = 0.5) -> DocumentStore:
    """Open an adapter with the vendor's client at *address*, with a time limit of *seconds*."""
    if isinstance(place, DynamoDB):
        patch.setenv("AWS_ENDPOINT_URL_DYNAMODB", f"http://{address}")
        return DynamoDBStore(place.table, "eu-central-1", retry_budget=RetryBudget(seconds))
    assert isinstance(place, Firestore)
    patch.setenv("FIRESTORE_EMULATOR_HOST", address)
    return FirestoreStore(place.project, retry_budget=RetryBudget(seconds))


def test_a_closed_port_is_an_unavailable_store(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is refused."""
    with socket.socket() as closed:  # bound, not listening
        closed.bind(("127.0.0.1", 0))
        store = open_at(place, f"127.0.0.1:{closed.getsockname()[1]}", monkeypatch)
        with pytest.raises(StoreUnavailable):
            store.get_many([HERE])
        with pytest.raises(StoreUnavailable):
            store.put(HERE, {}, expected=None)
        store.close()


@pytest.mark.timeout(40)  # the vendors' default timeouts are a minute for each of the two calls
def test_a_server_that_never_answers_is_an_unavailable_store(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a firewall that drops packets. The adapter's time limits apply."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        store = open_at(place, f"127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        with pytest.raises(StoreUnavailable):
            store.get_many([HERE])
        with pytest.raises(StoreUnavailable):
            store.delete(HERE, expected="1795457013.699717000")
        store.close()


@pytest.mark.stores("firestore", "dynalite")  # moto closes each connection after its response
def test_a_dead_connection_is_replaced(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a firewall that forgets a connection. The first attempt times out, and the second uses a new one."""
    real = os.environ["FIRESTORE_EMULATOR_HOST" if isinstance(place, Firestore) else "AWS_ENDPOINT_URL_DYNAMODB"]
    with closing(Wire(real.removeprefix("http://"))) as wire:
        store = open_at(place, wire.address, monkeypatch, seconds=6)
        store.put(HERE, {"n": 1}, expected=None)
        wire.silence()
        assert store.get_many([HERE])[HERE].body == {"n": 1}
        wire.silence()
        store.put(Key("org", "other1"), {}, expected=None)
        store.close()
