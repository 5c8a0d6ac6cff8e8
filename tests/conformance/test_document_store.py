"""Tests of shared.ports.DocumentStore, which every store passes."""

import multiprocessing
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.errors import DocumentTooLarge
from shared.ports import MAX_BODY_BYTES, MAX_KEY_BYTES, DocumentStore, Key, WriteConflict
from tests.support.stores import TWICE_DYNAMODB, Place, open_store

pytestmark = pytest.mark.stores(*TWICE_DYNAMODB)

HERE = Key("org", "mtxpd0")
LATER = datetime(2100, 1, 1, tzinfo=UTC)


def test_a_stored_document_has_the_version_that_put_returned(store: DocumentStore) -> None:
    """A writer can write again without reading."""
    version = store.put(HERE, {"n": 1}, expected=None)
    document = store.get_many([HERE])[HERE]
    assert (document.key, document.version, document.body) == (HERE, version, {"n": 1})


def test_a_read_returns_the_existing_documents_among_many_keys(store: DocumentStore) -> None:
    """A decision reads all documents that it may need. Missing documents are not in the result."""
    keys = [Key(f"ca/org{n}", f"d:thermo:{n}") for n in range(8)]
    for key in keys[::2]:
        store.put(key, {"at": key.id}, expected=None)
    documents = store.get_many(keys)
    assert {key: document.body for key, document in documents.items()} == {key: {"at": key.id} for key in keys[::2]}


def test_duplicate_keys_are_read_once(store: DocumentStore) -> None:
    """The result is a dictionary."""
    store.put(HERE, {}, expected=None)
    assert [*store.get_many([HERE, HERE, HERE])] == [HERE]


def test_a_read_without_keys_returns_nothing(store: DocumentStore) -> None:
    """An empty request is not an error."""
    assert store.get_many([]) == {}


def test_a_read_may_have_any_number_of_keys(store: DocumentStore) -> None:
    """BatchGetItem of DynamoDB accepts 100 keys."""
    keys = [Key("many", f"{n:03}") for n in range(230)]
    for key in (keys[0], keys[99], keys[100], keys[229]):
        store.put(key, {}, expected=None)
    assert {*store.get_many(keys)} == {keys[0], keys[99], keys[100], keys[229]}


# --------------------------------------------------------------------------------------------- compare and set


def test_a_document_is_created_once(store: DocumentStore) -> None:
    """A second creation is a conflict and overwrites nothing."""
    store.put(HERE, {"by": "first"}, expected=None)
    with pytest.raises(WriteConflict):
        store.put(HERE, {"by": "second"}, expected=None)
    assert store.get_many([HERE])[HERE].body == {"by": "first"}


def test_a_change_at_an_outdated_version_is_refused(store: DocumentStore) -> None:
    """No update is lost."""
    version = store.put(HERE, {"n": 1}, expected=None)
    store.put(HERE, {"n": 2}, expected=version)
    with pytest.raises(WriteConflict):
        store.put(HERE, {"n": 3}, expected=version)
    assert store.get_many([HERE])[HERE].body == {"n": 2}


def test_a_change_replaces_the_whole_body(store: DocumentStore) -> None:
    """Fields of the earlier body are removed."""
    version = store.put(HERE, {"a": 1, "b": 2}, expected=None)
    store.put(HERE, {"b": 3}, expected=version)
    assert store.get_many([HERE])[HERE].body == {"b": 3}


def test_a_change_of_a_deleted_document_is_refused(store: DocumentStore) -> None:
    """A writer cannot restore a document that another writer deleted."""
    version = store.put(HERE, {}, expected=None)
    store.delete(HERE, expected=version)
    with pytest.raises(WriteConflict):
        store.put(HERE, {}, expected=version)
    assert store.get_many([HERE]) == {}


def test_a_deleted_document_can_be_created_again(store: DocumentStore) -> None:
    """The new document has nothing of the deleted document."""
    version = store.put(HERE, {}, expected=None)
    store.delete(HERE, expected=version)
    assert store.get_many([HERE]) == {}
    store.put(HERE, {"again": True}, expected=None)
    assert store.get_many([HERE])[HERE].body == {"again": True}


def test_a_deletion_at_an_outdated_version_is_refused(store: DocumentStore) -> None:
    """The change of the other writer is kept."""
    version = store.put(HERE, {"n": 1}, expected=None)
    store.put(HERE, {"n": 2}, expected=version)
    with pytest.raises(WriteConflict):
        store.delete(HERE, expected=version)
    assert store.get_many([HERE])[HERE].body == {"n": 2}


def test_a_second_deletion_is_refused(store: DocumentStore) -> None:
    """Only one of two concurrent deletions succeeds."""
    version = store.put(HERE, {}, expected=None)
    store.delete(HERE, expected=version)
    with pytest.raises(WriteConflict):
        store.delete(HERE, expected=version)


@pytest.mark.parametrize("version", ["", "0", "no version of any store", "1795457013.699717000"])
def test_an_unknown_version_is_a_conflict(store: DocumentStore, version: str) -> None:
    """For example a version of another store, after a move to another cloud."""
    store.put(HERE, {"n": 1}, expected=None)
    with pytest.raises(WriteConflict):
        store.put(HERE, {"n": 2}, expected=version)
    with pytest.raises(WriteConflict):
        store.delete(HERE, expected=version)
    assert store.get_many([HERE])[HERE].body == {"n": 1}


def test_versions_are_never_used_again(store: DocumentStore) -> None:
    """Neither for the same body, nor after the document was deleted and created again."""
    versions = []
    for _ in range(10):
        versions.append(store.put(HERE, {"same": True}, expected=None))
        versions.append(store.put(HERE, {"same": True}, expected=versions[-1]))
        store.delete(HERE, expected=versions[-1])
    assert len({*versions}) == len(versions)


# -------------------------------------------------------------------------------------------------- JSON types

EVERY_TYPE: dict[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "zero": 0,
    "one": 1,
    "float of a whole number": 1.0,
    "negative zero": -0.0,
    "beyond a double's whole numbers": 2**53 + 1,
    "beyond 64 bits": 2**64 + 1,
    "40 digits": 10**39 + 7,
    "negative": -(2**70),
    "17 digits": 0.1 + 0.2,
    "largest": 1.7976931348623157e308,
    "smallest": 5e-324,
    "empty text": "",
    "text": "ü€😀 \u0000 \u001f \u2028 \\ \" ' /",
    "empty list": [],
    "lists in lists": [[1, [2, []]], [], [None, [""]]],
    "mixed": [1, "1", 1.5, None, True, {"a": [{"b": {}}]}],
    "empty object": {},
    "": "an empty name",
    "a.b/c`d`": {"__name__": {"..": 1}},
    "pk": "names the adapters use",
    "version": 1,
    "expires": None,
}


def test_every_json_value_is_kept_unchanged(store: DocumentStore) -> None:
    """The types of the store do not matter."""
    store.put(HERE, EVERY_TYPE, expected=None)
    body = store.get_many([HERE])[HERE].body
    assert repr(body) == repr(EVERY_TYPE)  # distinguishes 1, 1.0 and True, and also 0.0 and -0.0
    assert [document.body for document in store.list(HERE.partition)] == [body]


def test_a_body_may_be_empty(store: DocumentStore) -> None:
    """The document exists."""
    store.put(HERE, {}, expected=None)
    assert store.get_many([HERE])[HERE].body == {}


def test_the_largest_body_can_be_stored(store: DocumentStore) -> None:
    """A larger body is refused with the same error on every store."""
    body = {"text": "x" * (MAX_BODY_BYTES - len('{"text":""}'))}
    key = Key("p" * MAX_KEY_BYTES, "i" * MAX_KEY_BYTES)
    version = store.put(key, body, expected=None, expires=LATER)
    with pytest.raises(DocumentTooLarge) as error:
        store.put(key, {"text": body["text"] + "x"}, expected=version)
    assert error.value.facts == {"size": MAX_BODY_BYTES + 1, "limit": MAX_BODY_BYTES}
    assert store.get_many([key])[key].body == body


def test_the_size_of_a_body_is_counted_in_bytes_of_utf8(store: DocumentStore) -> None:
    """The limit does not depend on the characters."""
    with pytest.raises(DocumentTooLarge):
        store.put(HERE, {"text": "€" * (MAX_BODY_BYTES // 3)}, expected=None)


def test_large_documents_can_be_read_and_listed_together(store: DocumentStore) -> None:
    """A response of DynamoDB has at most 1 MB of a list and 16 MB of a batch."""
    text = "x" * (MAX_BODY_BYTES - 1000)
    keys = [Key("large", f"{n:02}") for n in range(45)]
    for key in keys:
        store.put(key, {"id": key.id, "text": text}, expected=None)
    assert {key: document.body["id"] for key, document in store.get_many(keys).items()} == {key: key.id for key in keys}
    assert [document.key for document in store.list("large", limit=7)] == keys[:7]


# -------------------------------------------------------------------------------------------------------- keys

AWKWARD = (
    " ",
    "!",
    '"%_\\*?[]{}',
    "-",
    ".",
    "..",
    "...",
    ".0",
    ".1",
    "/",
    "//",
    "/0",
    "0",
    "0/",
    "1",
    ":",
    "=",
    "A",
    "__id7__",
    "__name__",
    "a",
    "a ",
    "a.",
    "a./",
    "a/",
    "a/.",
    "a/..",
    "a0",
    "d:thermo:42",
    "e\u0301",
    "~",
    "\u00e9",
    "\u2028",
    "\ufb00",
    "\ufeff",
    "\U0001f600",
    "\U0010ffff",
)


def test_any_text_is_an_id_and_ids_are_ordered_by_code_point(store: DocumentStore) -> None:
    """No id is equal to another, or leaves its partition. The order of UTF-16 would put U+1F600 before U+FB00."""
    for name in reversed(AWKWARD):
        store.put(Key("ids", name), {"id": name}, expected=None)
    assert [document.body["id"] for document in store.list("ids")] == sorted(AWKWARD)
    assert [document.key for document in store.list("ids")] == [Key("ids", name) for name in sorted(AWKWARD)]
    documents = store.get_many([Key("ids", name) for name in AWKWARD])
    assert {document.body["id"] for document in documents.values()} == {*AWKWARD}


def test_any_text_is_a_partition(store: DocumentStore) -> None:
    """Partitions do not overlap: `a/b` is not `b` in `a`, and `org` contains nothing of `org1`."""
    for name in AWKWARD:
        store.put(Key(name, "x/y"), {"in": name}, expected=None)
        store.put(Key(f"{name}/x", "y"), {"in": f"{name}/x"}, expected=None)
    for name in AWKWARD:
        assert [(document.key, document.body["in"]) for document in store.list(name)] == [(Key(name, "x/y"), name)]


@pytest.mark.parametrize(
    "name",
    ["", "a\x00b", "a\x1fb", "\n", "\x7f", "x" * (MAX_KEY_BYTES + 1), "é" * (MAX_KEY_BYTES // 2 + 1), "\ud800"],
    ids=ascii,
)
def test_an_impossible_key_has_no_document(store: DocumentStore, name: str) -> None:
    """Keys may come from requests. A read ignores the impossible key, and a write raises ValueError."""
    store.put(HERE, {}, expected=None)
    for key in (Key("org", name), Key(name, "mtxpd0")):
        assert [*store.get_many([HERE, key])] == [HERE]
        assert store.get_many([key]) == {}
        with pytest.raises(ValueError):
            store.put(key, {}, expected=None)
        with pytest.raises(ValueError):
            store.delete(key, expected="any")
    assert store.list(name) == []
    assert [document.key for document in store.list("org", after="")] == [HERE]


# ------------------------------------------------------------------------------------------------------ expiry


def test_a_document_exists_before_its_expiry(store: DocumentStore) -> None:
    """Reads and lists contain the document."""
    version = store.put(HERE, {"n": 1}, expected=None, expires=LATER)
    store.put(HERE, {"n": 2}, expected=version, expires=LATER)
    assert store.get_many([HERE])[HERE].body == {"n": 2}
    assert [document.body for document in store.list("org")] == [{"n": 2}]


def test_an_expired_document_exists_until_the_store_deletes_it(store: DocumentStore) -> None:
    """The clouds need a day or two. No caller may rely on the time, so no store hides the document."""
    version = store.put(HERE, {"n": 1}, expected=None, expires=datetime(2020, 1, 1, tzinfo=UTC))
    assert store.get_many([HERE])[HERE].body == {"n": 1}
    assert [document.key for document in store.list("org")] == [HERE]
    with pytest.raises(WriteConflict):
        store.put(HERE, {}, expected=None)
    store.put(HERE, {"n": 2}, expected=version)
    assert store.get_many([HERE])[HERE].body == {"n": 2}


# ------------------------------------------------------------------------------------------------------ paging


def test_a_partition_can_be_listed_in_pages(store: DocumentStore) -> None:
    """Each document appears once and in order, with any size of the pages."""
    ids = [f"{n:02}" for n in range(23)]
    for name in reversed(ids):
        store.put(Key("paged", name), {}, expected=None)
    for limit in (1, 7, 22, 23, 24):
        assert list_in_pages(store, "paged", limit) == ids
    assert len(store.list("paged", limit=7)) == 7
    assert len(store.list("paged", after="22")) == 0


def test_a_page_may_begin_after_a_missing_document(store: DocumentStore) -> None:
    """The last document of a page may be deleted before the next page is read."""
    for name in ("a", "c", "e"):
        store.put(Key("paged", name), {}, expected=None)
    assert list_ids(store, after="b") == ["c", "e"]
    assert list_ids(store, after="c") == ["e"]
    assert list_ids(store, after="c\x00") == ["e"]
    assert list_ids(store, after="e") == []


@pytest.mark.parametrize("character", ["b", "\x00", "€", "\U0010ffff", "\ud800"], ids=ascii)
def test_any_text_is_a_bookmark(store: DocumentStore, character: str) -> None:
    """A bookmark may come from a request. It is a position in the order of ids. A lone surrogate, which has no UTF-8
    encoding, counts as a question mark."""
    names = ["b", "b" * MAX_KEY_BYTES, "c", "\ud7ff"]
    for name in names:
        store.put(Key("paged", name), {}, expected=None)
    after = "b" + character * 300
    assert list_ids(store, after=after) == [name for name in names if name > after.replace("\ud800", "?")]


def test_a_list_with_limit_zero_is_empty(store: DocumentStore) -> None:
    """The limit is respected exactly."""
    store.put(HERE, {}, expected=None)
    assert store.list("org", limit=0) == []


def test_pages_contain_every_document_that_exists_all_the_time(store: DocumentStore) -> None:
    """Other writers write and delete before, at and after the reader's position."""
    permanent = [f"{n:02}-stay" for n in range(0, 40, 2)]
    for name in permanent:
        store.put(Key("paged", name), {}, expected=None)
    ids: list[str] = []
    temporary: dict[str, str] = {}
    after = ""
    for turn in range(100):
        page = store.list("paged", after=after, limit=3)
        if not page:
            break
        ids += [document.key.id for document in page]
        after = page[-1].key.id
        for name in (f"{turn:02}", f"{(turn * 7) % 40:02}-then", f"{(turn * 13) % 40:02}-again"):
            if name in temporary:
                store.delete(Key("paged", name), expected=temporary.pop(name))
            else:
                temporary[name] = store.put(Key("paged", name), {}, expected=None)
    assert [name for name in ids if name in permanent] == permanent
    assert ids == sorted({*ids})


def list_ids(store: DocumentStore, after: str) -> list[str]:
    return [document.key.id for document in store.list("paged", after=after)]


def list_in_pages(store: DocumentStore, partition: str, limit: int) -> list[str]:
    ids: list[str] = []
    while page := store.list(partition, after=ids[-1] if ids else "", limit=limit):
        ids += [document.key.id for document in page]
    return ids


# --------------------------------------------------------------------------------------------- several writers


def test_only_one_of_several_concurrent_creations_succeeds(store: DocumentStore) -> None:
    """The document has the version of the successful creation."""
    outcomes: list[str | None] = []

    def create() -> None:
        try:
            outcomes.append(store.put(HERE, {"by": threading.get_ident()}, expected=None))
        except WriteConflict:
            outcomes.append(None)

    run_concurrently([create] * 8)
    [version] = [outcome for outcome in outcomes if outcome is not None]
    assert len(outcomes) == 8
    assert store.get_many([HERE])[HERE].version == version


def test_concurrent_threads_lose_no_change(store: DocumentStore) -> None:
    """Each thread repeats its addition after a conflict."""
    store.put(HERE, {"n": 0}, expected=None)
    run_concurrently([lambda: add(store, 6)] * 4)
    assert store.get_many([HERE])[HERE].body == {"n": 24}


def test_concurrent_processes_lose_no_change(place: Place, store: DocumentStore) -> None:
    """Functions run in processes on many machines."""
    store.put(HERE, {"n": 0}, expected=None)
    spawn = multiprocessing.get_context("spawn")
    other = spawn.Process(target=add_in_a_process, args=(place, 20))
    other.start()
    while store.get_many([HERE])[HERE].body == {"n": 0} and other.is_alive():
        pass  # wait for the other process, so that both write concurrently
    add(store, 20)
    other.join()
    assert other.exitcode == 0
    other.close()
    assert store.get_many([HERE])[HERE].body == {"n": 40}


def test_a_reader_never_sees_a_partial_change(store: DocumentStore) -> None:
    """A reader sees the old or the new body, also of a large document."""
    version = store.put(HERE, {"a": 0, "text": "x" * 100_000, "b": 0}, expected=None)
    is_done = threading.Event()
    halves: set[bool] = set()

    def read() -> None:
        while not is_done.is_set():
            body = store.get_many([HERE])[HERE].body
            halves.add(body["a"] == body["b"])

    def write() -> None:
        try:
            current = version
            for n in range(1, 20):
                current = store.put(HERE, {"a": n, "text": f"{n % 10}" * 100_000, "b": n}, expected=current)
        finally:
            is_done.set()

    run_concurrently([read, write])
    assert halves == {True}


def run_concurrently(tasks: list[Callable[[], None]]) -> None:
    """Run each task in a thread of its own, and raise the first error."""
    gate = threading.Barrier(len(tasks))
    failures: list[Exception] = []

    def run(task: Callable[[], None]) -> None:
        gate.wait()
        try:
            task()
        except Exception as error:  # noqa: BLE001 - raised in the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def add(store: DocumentStore, times: int) -> None:
    for _ in range(times):
        while True:
            document = store.get_many([HERE])[HERE]
            try:
                store.put(HERE, {"n": document.body["n"] + 1}, expected=document.version)
                break
            except WriteConflict:
                continue


def add_in_a_process(place: Place, times: int) -> None:
    store = open_store(place)
    add(store, times)
    store.close()


# ----------------------------------------------------------------------------------------------- opening, closing


def test_a_completed_write_is_visible_after_a_restart(place: Place, store: DocumentStore) -> None:
    """Also in another process."""
    store.put(HERE, {"n": 1}, expected=None, expires=LATER + timedelta(days=1))
    store.close()
    another = open_store(place)
    assert another.get_many([HERE])[HERE].body == {"n": 1}
    another.close()


def test_a_store_may_be_closed_twice(store: DocumentStore) -> None:
    """The second call does nothing."""
    store.get_many([HERE])
    store.close()
    store.close()
