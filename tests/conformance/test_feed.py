"""Feeds (shared.feed) on every store: a reader never misses a change whose append succeeded."""

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest

from shared.errors import StoreUnavailable
from shared.feed import CursorExpired, Feed
from shared.ports import Document, DocumentStore, Key, Version
from shared.records import FeedLine
from shared.repository import Repository
from tests.conformance.test_document_store import run_concurrently
from tests.support.stores import TWICE_DYNAMODB

pytestmark = pytest.mark.stores(*TWICE_DYNAMODB)


class Moved(FeedLine, frozen=True):
    host: str


def open_feed(store: DocumentStore, name: str = "hosts") -> Feed[Moved]:
    """Create a feed object as a new process would."""
    return Feed(Repository(store), name, Moved)


def read_hosts(feed: Feed[Moved], since: int = 0, **more: Any) -> list[tuple[int, str]]:
    return [(change.number, change.what.host) for change in feed.since(since, **more)]


def test_changes_are_numbered_in_the_order_of_their_appends(store: DocumentStore) -> None:
    """Numbers begin with 1."""
    feed = open_feed(store)
    assert (feed.end(), read_hosts(feed)) == (0, [])
    assert [feed.append(Moved(host)) for host in "abc"] == [1, 2, 3]
    assert read_hosts(feed) == [(1, "a"), (2, "b"), (3, "c")]
    assert feed.end() == 3


def test_a_reader_receives_the_changes_after_its_number(store: DocumentStore) -> None:
    """Page by page, without duplicates."""
    feed = open_feed(store)
    for host in "abcde":
        feed.append(Moved(host))
    assert read_hosts(feed, 3) == [(4, "d"), (5, "e")]
    assert read_hosts(feed, 1, limit=2) == [(2, "b"), (3, "c")]
    assert read_hosts(feed, 5) == []


def test_feeds_with_different_names_are_independent(store: DocumentStore) -> None:
    """Each has numbers of its own."""
    open_feed(store).append(Moved("a"))
    assert open_feed(store, "withdrawals").append(Moved("x")) == 1
    assert read_hosts(open_feed(store, "withdrawals")) == [(1, "x")]


def test_a_new_process_continues_after_the_changes_of_others(store: DocumentStore) -> None:
    """The hint about the end is updated every 16 changes, and may be outdated."""
    for number in range(1, 20):
        assert open_feed(store).append(Moved(str(number))) == number
    assert read_hosts(open_feed(store), 15, limit=2) == [(16, "16"), (17, "17")]


def test_a_process_continues_after_concurrent_changes_of_others(store: DocumentStore) -> None:
    """A process that appends after others uses the next free number."""
    slow, fast = open_feed(store), open_feed(store)
    slow.append(Moved("a"))
    for host in "bcd":
        fast.append(Moved(host))
    assert slow.append(Moved("e")) == 5
    assert read_hosts(fast) == [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")]


def test_a_reader_beside_writers_misses_no_change(store: DocumentStore) -> None:
    """Several writers append concurrently, while a reader polls and keeps only its number."""
    received: list[tuple[int, str]] = []
    appended: list[tuple[int, str]] = []
    is_done = threading.Event()

    def write(writer: str) -> None:
        feed = open_feed(store)
        for n in range(8):
            appended.append((feed.append(Moved(f"{writer}{n}")), f"{writer}{n}"))

    def read() -> None:
        feed = open_feed(store)
        while True:
            is_last = is_done.is_set()
            received.extend(read_hosts(feed, received[-1][0] if received else 0))
            if is_last:
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        run_concurrently([lambda name=name: write(name) for name in "xyz"])  # type: ignore[misc]
    finally:
        is_done.set()
        reader.join()
    assert received == sorted(appended)
    assert [number for number, _ in received] == [*range(1, 25)]


def test_a_writer_that_crashes_leaves_no_gap(store: DocumentStore) -> None:
    """The store fails at each step of an append. The next writer and every reader continue."""
    open_feed(store).append(Moved("before"))
    for step in range(1, 5):
        feed = open_feed(FailingStore(store, after=step))
        with pytest.raises(StoreUnavailable):
            feed.append(Moved(f"step {step}"))
    open_feed(store).append(Moved("after"))
    received = read_hosts(open_feed(store))
    assert [number for number, _ in received] == [*range(1, len(received) + 1)]
    assert (received[0][1], received[-1][1]) == ("before", "after")


def test_a_change_that_appears_while_a_page_is_read_is_not_skipped(store: DocumentStore) -> None:
    """A list is not a snapshot: it may contain 3 and not yet 2. The reader receives both at its next call."""
    feed = open_feed(store)
    for host in "abc":
        feed.append(Moved(host))
    assert read_hosts(open_feed(LaggingStore(store, hidden="0000000000000002"))) == [(1, "a")]
    assert read_hosts(open_feed(store), 1) == [(2, "b"), (3, "c")]


def test_each_change_has_an_id_and_the_head_names_it(store: DocumentStore) -> None:
    """A change keeps the id that it has; another gets a new one."""
    feed = open_feed(store)
    assert str(feed.head()) == "0"
    feed.append(Moved("a"))
    feed.append(Moved("b", id="0123456789ab"))
    first, second = feed.since(0)
    assert len(first.what.id) == 12
    assert (str(second.position), feed.head()) == ("2.0123456789ab", second.position)
    assert open_feed(store).head() == second.position, "of a new process"


def test_a_reader_notices_another_history(store: DocumentStore) -> None:
    """A backup was restored, and other changes were appended at the numbers that the reader knows."""
    feed = open_feed(store)
    for host in "abc":
        feed.append(Moved(host))
    known = feed.head()
    for number in (2, 3):
        key = Key("feed/hosts", f"{number:016}")
        store.delete(key, expected=store.get_many([key])[key].version)
    restored = open_feed(store)
    with pytest.raises(CursorExpired):
        restored.since(known.number, line_id=known.id)
    for host in "xyz":
        restored.append(Moved(host))
    with pytest.raises(CursorExpired):
        restored.since(known.number, line_id=known.id)
    assert read_hosts(restored, known.number) == [(4, "z")], "a reader that knows no id cannot notice"
    first = restored.since(0)[0].what
    assert read_hosts(restored, 1, line_id=first.id) == [(2, "x"), (3, "y"), (4, "z")], "of the common beginning"


def test_changes_of_the_version_before_have_no_id(store: DocumentStore) -> None:
    """Their numbers alone are heads, until a change with an id follows."""
    key = Key("feed/hosts", "0000000000000001")
    store.put(key, {"host": "a"}, expected=None)
    feed = open_feed(store)
    assert str(feed.head()) == "1"
    assert feed.append(Moved("b")) == 2
    assert read_hosts(feed, 1) == [(2, "b")]
    with pytest.raises(CursorExpired):
        feed.since(1, line_id="0123456789ab")


def test_old_changes_can_be_trimmed(store: DocumentStore) -> None:
    """A reader before the trimmed part must start again. Other readers are not affected, and numbers continue."""
    feed = open_feed(store)
    for host in "abcdef":
        feed.append(Moved(host))
    assert feed.trim(4) == 3
    assert read_hosts(feed, 4) == [(5, "e"), (6, "f")]
    for number in (0, 1, 3):
        with pytest.raises(CursorExpired):
            feed.since(number)
    assert open_feed(store).append(Moved("g")) == 7


def test_the_latest_change_is_never_trimmed(store: DocumentStore) -> None:
    """A reader that is up to date needs it to know so."""
    feed = open_feed(store)
    for host in "ab":
        feed.append(Moved(host))
    assert feed.trim(1000) == 1
    assert read_hosts(feed, 2) == []
    assert open_feed(store).append(Moved("c")) == 3


def test_a_writer_with_a_trimmed_end_appends_at_the_current_end(store: DocumentStore) -> None:
    """The writer remembers an outdated end. No reader would receive a change at that number."""
    slow, other = open_feed(store), open_feed(store)
    slow.append(Moved("a"))
    for host in "bcdef":
        other.append(Moved(host))
    other.trim(6)
    assert slow.append(Moved("g")) == 7
    assert read_hosts(other, 6) == [(7, "g")]
    with pytest.raises(CursorExpired):
        other.since(2)


def test_a_number_that_never_existed_is_expired(store: DocumentStore) -> None:
    """After the restore of a backup, an edge with a later number must start again."""
    feed = open_feed(store)
    feed.append(Moved("a"))
    with pytest.raises(CursorExpired):
        feed.since(9)


def test_a_writer_after_a_restore_appends_at_the_restored_end(store: DocumentStore) -> None:
    """Otherwise readers would wait at a gap for ever."""
    feed = open_feed(store)
    for host in "abcd":
        feed.append(Moved(host))
    for key in (Key("feed/hosts", "0000000000000003"), Key("feed/hosts", "0000000000000004")):
        store.delete(key, expected=store.get_many([key])[key].version)
    assert feed.append(Moved("e")) == 3
    assert read_hosts(open_feed(store), 2) == [(3, "e")]


def test_a_permanent_gap_is_an_error_for_the_reader(store: DocumentStore) -> None:
    """A reader never waits at a gap, and never skips it."""
    feed = open_feed(store)
    for host in "abcd":
        feed.append(Moved(host))
    key = Key("feed/hosts", "0000000000000003")
    store.delete(key, expected=store.get_many([key])[key].version)
    with pytest.raises(CursorExpired):
        feed.since(1)


class ForwardingStore:
    """A store that forwards all calls to another store."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store

    def get_many(self, keys: Collection[Key]) -> dict[Key, Document]:
        return self._store.get_many(keys)

    def put(self, key: Key, body: Mapping[str, Any], *, expected: Version | None, expires: Any = None) -> Version:
        return self._store.put(key, body, expected=expected, expires=expires)

    def delete(self, key: Key, *, expected: Version) -> None:
        self._store.delete(key, expected=expected)

    def list(self, partition: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        return self._store.list(partition, after=after, limit=limit)

    def close(self) -> None:
        self._store.close()


class FailingStore(ForwardingStore):
    """A store that makes all calls, and loses the responses from call number *after* on."""

    def __init__(self, store: DocumentStore, after: int) -> None:
        super().__init__(store)
        self._remaining = after

    def _count(self) -> None:
        self._remaining -= 1
        if self._remaining <= 0:
            raise StoreUnavailable

    def get_many(self, keys: Collection[Key]) -> dict[Key, Document]:
        documents = super().get_many(keys)
        self._count()
        return documents

    def put(self, key: Key, body: Mapping[str, Any], *, expected: Version | None, expires: Any = None) -> Version:
        version = super().put(key, body, expected=expected, expires=expires)
        self._count()
        return version

    def list(self, partition: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        documents = super().list(partition, after=after, limit=limit)
        self._count()
        return documents


class LaggingStore(ForwardingStore):
    """A store whose lists do not contain the document *hidden* yet."""

    def __init__(self, store: DocumentStore, hidden: str) -> None:
        super().__init__(store)
        self._hidden = hidden

    def list(self, partition: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        documents = super().list(partition, after=after, limit=limit)
        return [document for document in documents if document.key.id != self._hidden]
