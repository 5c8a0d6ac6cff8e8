"""What shared.ports.DocumentStore promises, on every store."""

import multiprocessing
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.errors import DocumentTooLarge
from shared.ports import MAX_BODY_BYTES, MAX_KEY_BYTES, DocumentStore, Key, WriteConflict
from tests.stores import TWICE_DYNAMODB, Place, open_store

pytestmark = pytest.mark.stores(*TWICE_DYNAMODB)

HERE = Key("org", "mtxpd0")
LATER = datetime(2100, 1, 1, tzinfo=UTC)


def test_what_was_put_is_found_at_the_version_that_put_gave(store: DocumentStore) -> None:
    """A writer can go on from its own write without reading again."""
    version = store.put(HERE, {"n": 1}, expected=None)
    found = store.get_many([HERE])[HERE]
    assert (found.key, found.version, found.body) == (HERE, version, {"n": 1})


def test_one_call_finds_what_is_there_among_many_keys(store: DocumentStore) -> None:
    """A decision asks for all it may need; what does not exist is simply not in the answer."""
    keys = [Key(f"ca/org{n}", f"d:thermo:{n}") for n in range(8)]
    for key in keys[::2]:
        store.put(key, {"at": key.id}, expected=None)
    found = store.get_many(keys)
    assert {key: found[key].body for key in found} == {key: {"at": key.id} for key in keys[::2]}


def test_a_key_asked_for_twice_is_found_once(store: DocumentStore) -> None:
    store.put(HERE, {}, expected=None)
    assert [*store.get_many([HERE, HERE, HERE])] == [HERE]


def test_nothing_asked_nothing_found(store: DocumentStore) -> None:
    assert store.get_many([]) == {}


def test_more_keys_than_the_store_takes_at_once_are_all_looked_up(store: DocumentStore) -> None:
    """DynamoDB takes 100 keys in a batch."""
    keys = [Key("many", f"{n:03}") for n in range(230)]
    for key in (keys[0], keys[99], keys[100], keys[229]):
        store.put(key, {}, expected=None)
    assert {*store.get_many(keys)} == {keys[0], keys[99], keys[100], keys[229]}


# --------------------------------------------------------------------------------------------- compare and set


def test_a_document_is_created_once(store: DocumentStore) -> None:
    """Two that create the same thing: the second is told, and overwrites nothing."""
    store.put(HERE, {"by": "first"}, expected=None)
    with pytest.raises(WriteConflict):
        store.put(HERE, {"by": "second"}, expected=None)
    assert store.get_many([HERE])[HERE].body == {"by": "first"}


def test_a_change_of_what_another_has_changed_is_refused(store: DocumentStore) -> None:
    """No lost update."""
    seen = store.put(HERE, {"n": 1}, expected=None)
    store.put(HERE, {"n": 2}, expected=seen)
    with pytest.raises(WriteConflict):
        store.put(HERE, {"n": 3}, expected=seen)
    assert store.get_many([HERE])[HERE].body == {"n": 2}


def test_a_change_replaces_the_whole_body(store: DocumentStore) -> None:
    version = store.put(HERE, {"a": 1, "b": 2}, expected=None)
    store.put(HERE, {"b": 3}, expected=version)
    assert store.get_many([HERE])[HERE].body == {"b": 3}


def test_a_change_of_what_is_not_there_is_refused(store: DocumentStore) -> None:
    """Nobody brings back what another has deleted."""
    seen = store.put(HERE, {}, expected=None)
    store.delete(HERE, expected=seen)
    with pytest.raises(WriteConflict):
        store.put(HERE, {}, expected=seen)
    assert store.get_many([HERE]) == {}


def test_what_was_deleted_is_gone_and_can_be_made_again(store: DocumentStore) -> None:
    seen = store.put(HERE, {}, expected=None)
    store.delete(HERE, expected=seen)
    assert store.get_many([HERE]) == {}
    store.put(HERE, {"again": True}, expected=None)
    assert store.get_many([HERE])[HERE].body == {"again": True}


def test_what_another_has_changed_is_not_deleted(store: DocumentStore) -> None:
    seen = store.put(HERE, {"n": 1}, expected=None)
    store.put(HERE, {"n": 2}, expected=seen)
    with pytest.raises(WriteConflict):
        store.delete(HERE, expected=seen)
    assert store.get_many([HERE])[HERE].body == {"n": 2}


def test_what_is_gone_is_not_deleted_twice(store: DocumentStore) -> None:
    """Of two that delete one thing, one is told that it did not."""
    seen = store.put(HERE, {}, expected=None)
    store.delete(HERE, expected=seen)
    with pytest.raises(WriteConflict):
        store.delete(HERE, expected=seen)


@pytest.mark.parametrize("version", ["", "0", "no version of any store", "1795457013.699717000"])
def test_a_version_that_never_was_is_a_conflict(store: DocumentStore, version: str) -> None:
    """A version from another store (an import, a move to another cloud) does no harm."""
    store.put(HERE, {"n": 1}, expected=None)
    with pytest.raises(WriteConflict):
        store.put(HERE, {"n": 2}, expected=version)
    with pytest.raises(WriteConflict):
        store.delete(HERE, expected=version)
    assert store.get_many([HERE])[HERE].body == {"n": 1}


def test_no_version_comes_back(store: DocumentStore) -> None:
    """Not with the same body, and not when a thing is deleted and made again: who saw the old one must notice."""
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


def test_every_json_type_comes_back_as_it_went_in(store: DocumentStore) -> None:
    """Whatever the store's own types are: a record is the same on each."""
    store.put(HERE, EVERY_TYPE, expected=None)
    found = store.get_many([HERE])[HERE].body
    assert repr(found) == repr(EVERY_TYPE)  # tells 1 from 1.0 and True, and 0.0 from -0.0
    assert [one.body for one in store.list(HERE.partition)] == [found]


def test_an_empty_body_is_a_document(store: DocumentStore) -> None:
    store.put(HERE, {}, expected=None)
    assert store.get_many([HERE])[HERE].body == {}


def test_a_body_of_the_greatest_size_is_kept(store: DocumentStore) -> None:
    """And one byte more is refused by name, before the store would: the same on every store."""
    fits = {"text": "x" * (MAX_BODY_BYTES - len('{"text":""}'))}
    key = Key("p" * MAX_KEY_BYTES, "i" * MAX_KEY_BYTES)
    version = store.put(key, fits, expected=None, expires=LATER)
    with pytest.raises(DocumentTooLarge) as refused:
        store.put(key, {"text": fits["text"] + "x"}, expected=version)
    assert refused.value.facts == {"size": MAX_BODY_BYTES + 1, "limit": MAX_BODY_BYTES}
    assert store.get_many([key])[key].body == fits


def test_size_is_counted_in_bytes_of_utf8(store: DocumentStore) -> None:
    with pytest.raises(DocumentTooLarge):
        store.put(HERE, {"text": "€" * (MAX_BODY_BYTES // 3)}, expected=None)


def test_large_documents_come_in_one_batch_and_one_list(store: DocumentStore) -> None:
    """More than one answer of DynamoDB holds: 1 MB of a list, 16 MB of a batch."""
    text = "x" * (MAX_BODY_BYTES - 1000)
    keys = [Key("large", f"{n:02}") for n in range(45)]
    for key in keys:
        store.put(key, {"id": key.id, "text": text}, expected=None)
    assert {key: one.body["id"] for key, one in store.get_many(keys).items()} == {key: key.id for key in keys}
    assert [one.key for one in store.list("large", limit=7)] == keys[:7]


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


def test_any_text_is_an_id_of_its_own_and_ids_are_ordered_by_code_point(store: DocumentStore) -> None:
    """No id stands for another, or for a place outside its partition. UTF-16 would put U+1F600 before U+FB00."""
    for name in reversed(AWKWARD):
        store.put(Key("ids", name), {"id": name}, expected=None)
    assert [one.body["id"] for one in store.list("ids")] == sorted(AWKWARD)
    assert [one.key for one in store.list("ids")] == [Key("ids", name) for name in sorted(AWKWARD)]
    assert {one.body["id"] for one in store.get_many([Key("ids", name) for name in AWKWARD]).values()} == {*AWKWARD}


def test_any_text_is_a_partition_of_its_own(store: DocumentStore) -> None:
    """What one org is called gives it nothing of another's: `a/b` is not `b` in `a`; `org` has nothing of `org1`."""
    for name in AWKWARD:
        store.put(Key(name, "x/y"), {"in": name}, expected=None)
        store.put(Key(f"{name}/x", "y"), {"in": f"{name}/x"}, expected=None)
    for name in AWKWARD:
        assert [(one.key, one.body["in"]) for one in store.list(name)] == [(Key(name, "x/y"), name)]


@pytest.mark.parametrize(
    "name",
    ["", "a\x00b", "a\x1fb", "\n", "\x7f", "x" * (MAX_KEY_BYTES + 1), "é" * (MAX_KEY_BYTES // 2 + 1), "\ud800"],
    ids=ascii,
)
def test_at_an_impossible_key_nothing_is_found_and_nothing_written(store: DocumentStore, name: str) -> None:
    """A key can come from a request: asked for, it finds nothing and does not spoil the rest of the batch."""
    store.put(HERE, {}, expected=None)
    for key in (Key("org", name), Key(name, "mtxpd0")):
        assert [*store.get_many([HERE, key])] == [HERE]
        assert store.get_many([key]) == {}
        with pytest.raises(ValueError):
            store.put(key, {}, expected=None)
        with pytest.raises(ValueError):
            store.delete(key, expected="any")
    assert store.list(name) == []
    assert [one.key for one in store.list("org", after="")] == [HERE]


# ------------------------------------------------------------------------------------------------------ expiry


def test_what_expires_later_is_there_until_then(store: DocumentStore) -> None:
    version = store.put(HERE, {"n": 1}, expected=None, expires=LATER)
    store.put(HERE, {"n": 2}, expected=version, expires=LATER)
    assert store.get_many([HERE])[HERE].body == {"n": 2}
    assert [one.body for one in store.list("org")] == [{"n": 2}]


def test_what_has_expired_is_like_any_other_until_the_store_removes_it(store: DocumentStore) -> None:
    """The clouds take a day or two; nobody may rely on the moment, so no store hides it."""
    version = store.put(HERE, {"n": 1}, expected=None, expires=datetime(2020, 1, 1, tzinfo=UTC))
    assert store.get_many([HERE])[HERE].body == {"n": 1}
    assert [one.key for one in store.list("org")] == [HERE]
    with pytest.raises(WriteConflict):
        store.put(HERE, {}, expected=None)
    store.put(HERE, {"n": 2}, expected=version)
    assert store.get_many([HERE])[HERE].body == {"n": 2}


# ------------------------------------------------------------------------------------------------------ paging


def test_a_list_is_paged_to_its_end(store: DocumentStore) -> None:
    """Every document once, in order, whatever the size of a page."""
    ids = [f"{n:02}" for n in range(23)]
    for name in reversed(ids):
        store.put(Key("paged", name), {}, expected=None)
    for limit in (1, 7, 22, 23, 24):
        assert paged(store, "paged", limit) == ids
    assert len(store.list("paged", limit=7)) == 7
    assert len(store.list("paged", after="22")) == 0


def test_a_page_begins_behind_a_place_where_nothing_is(store: DocumentStore) -> None:
    """The last one seen may be deleted before the next page is asked for."""
    for name in ("a", "c", "e"):
        store.put(Key("paged", name), {}, expected=None)
    assert ids_of(store, after="b") == ["c", "e"]
    assert ids_of(store, after="c") == ["e"]
    assert ids_of(store, after="c\x00") == ["e"]
    assert ids_of(store, after="e") == []


@pytest.mark.parametrize("character", ["b", "\x00", "€", "\U0010ffff", "\ud800"], ids=ascii)
def test_any_text_is_a_bookmark(store: DocumentStore, character: str) -> None:
    """A bookmark comes from a caller and may be anything: it is a place in the order of ids, no more. What UTF-8 has no
    bytes for counts as a question mark."""
    names = ["b", "b" * MAX_KEY_BYTES, "c", "\ud7ff"]
    for name in names:
        store.put(Key("paged", name), {}, expected=None)
    after = "b" + character * 300
    assert ids_of(store, after=after) == [one for one in names if one > after.replace("\ud800", "?")]


def test_no_room_no_documents(store: DocumentStore) -> None:
    store.put(HERE, {}, expected=None)
    assert store.list("org", limit=0) == []


def test_paging_misses_nothing_that_was_there_all_the_while(store: DocumentStore) -> None:
    """While others write and delete before, at and behind the reader's place."""
    stay = [f"{n:02}-stay" for n in range(0, 40, 2)]
    for name in stay:
        store.put(Key("paged", name), {}, expected=None)
    seen: list[str] = []
    comes_and_goes: dict[str, str] = {}
    after = ""
    for turn in range(100):
        page = store.list("paged", after=after, limit=3)
        if not page:
            break
        seen += [one.key.id for one in page]
        after = page[-1].key.id
        for name in (f"{turn:02}", f"{(turn * 7) % 40:02}-then", f"{(turn * 13) % 40:02}-again"):
            if name in comes_and_goes:
                store.delete(Key("paged", name), expected=comes_and_goes.pop(name))
            else:
                comes_and_goes[name] = store.put(Key("paged", name), {}, expected=None)
    assert [one for one in seen if one in stay] == stay
    assert seen == sorted({*seen})


def ids_of(store: DocumentStore, after: str) -> list[str]:
    return [one.key.id for one in store.list("paged", after=after)]


def paged(store: DocumentStore, partition: str, limit: int) -> list[str]:
    seen: list[str] = []
    while page := store.list(partition, after=seen[-1] if seen else "", limit=limit):
        seen += [one.key.id for one in page]
    return seen


# --------------------------------------------------------------------------------------------- several writers


def test_of_many_that_create_one_thing_at_once_one_does(store: DocumentStore) -> None:
    outcomes: list[str | None] = []

    def create() -> None:
        try:
            outcomes.append(store.put(HERE, {"by": threading.get_ident()}, expected=None))
        except WriteConflict:
            outcomes.append(None)

    at_once([create] * 8)
    [version] = [one for one in outcomes if one is not None]
    assert len(outcomes) == 8
    assert store.get_many([HERE])[HERE].version == version


def test_threads_that_add_to_one_document_lose_nothing(store: DocumentStore) -> None:
    """Compare-and-set: as many additions as were answered."""
    store.put(HERE, {"n": 0}, expected=None)
    at_once([lambda: add(store, 6)] * 4)
    assert store.get_many([HERE])[HERE].body == {"n": 24}


def test_processes_that_add_to_one_document_lose_nothing(place: Place, store: DocumentStore) -> None:
    """Functions are processes, on many machines."""
    store.put(HERE, {"n": 0}, expected=None)
    spawn = multiprocessing.get_context("spawn")
    other = spawn.Process(target=add_in_a_process, args=(place, 20))
    other.start()
    while store.get_many([HERE])[HERE].body == {"n": 0} and other.is_alive():
        pass  # until the other has begun, so that both write at the same time
    add(store, 20)
    other.join()
    assert other.exitcode == 0
    other.close()
    assert store.get_many([HERE])[HERE].body == {"n": 40}


def test_a_reader_sees_each_document_whole(store: DocumentStore) -> None:
    """The old or the new one, never a mixture, however large it is."""
    version = store.put(HERE, {"a": 0, "text": "x" * 100_000, "b": 0}, expected=None)
    done = threading.Event()
    halves: set[bool] = set()

    def read() -> None:
        while not done.is_set():
            body = store.get_many([HERE])[HERE].body
            halves.add(body["a"] == body["b"])

    def write() -> None:
        try:
            seen = version
            for n in range(1, 20):
                seen = store.put(HERE, {"a": n, "text": f"{n % 10}" * 100_000, "b": n}, expected=seen)
        finally:
            done.set()

    at_once([read, write])
    assert halves == {True}


def at_once(tasks: list[Callable[[], None]]) -> None:
    """Run *tasks*, each in a thread, from one moment on. Raises what one of them raised."""
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
            found = store.get_many([HERE])[HERE]
            try:
                store.put(HERE, {"n": found.body["n"] + 1}, expected=found.version)
                break
            except WriteConflict:
                continue


def add_in_a_process(place: Place, times: int) -> None:
    store = open_store(place)
    add(store, times)
    store.close()


# ----------------------------------------------------------------------------------------------- opening, closing


def test_what_was_answered_is_there_for_whoever_comes_next(place: Place, store: DocumentStore) -> None:
    """Another process, or the same one after a restart."""
    store.put(HERE, {"n": 1}, expected=None, expires=LATER + timedelta(days=1))
    store.close()
    another = open_store(place)
    assert another.get_many([HERE])[HERE].body == {"n": 1}
    another.close()


def test_closing_twice_does_no_harm(store: DocumentStore) -> None:
    store.get_many([HERE])
    store.close()
    store.close()
