"""What changed since (shared.feed), on every store: a reader never misses a change whose append was answered."""

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest

from shared.errors import StoreUnavailable
from shared.feed import CursorExpired, Feed
from shared.ports import Document, DocumentStore, Key, Version
from shared.records import Record
from shared.repository import Repository
from tests.conformance.test_document_store import at_once
from tests.stores import TWICE_DYNAMODB

pytestmark = pytest.mark.stores(*TWICE_DYNAMODB)


class Moved(Record, frozen=True):
    host: str


def feed_on(store: DocumentStore, name: str = "hosts") -> Feed[Moved]:
    """As a process of its own has it: it remembers nothing yet."""
    return Feed(Repository(store), name, Moved)


def hosts(feed: Feed[Moved], since: int = 0, **more: int) -> list[tuple[int, str]]:
    return [(change.number, change.what.host) for change in feed.since(since, **more)]


def test_changes_are_numbered_in_the_order_of_their_appends(store: DocumentStore) -> None:
    feed = feed_on(store)
    assert (feed.end(), hosts(feed)) == (0, [])
    assert [feed.append(Moved(host)) for host in "abc"] == [1, 2, 3]
    assert hosts(feed) == [(1, "a"), (2, "b"), (3, "c")]
    assert feed.end() == 3


def test_a_reader_hears_what_came_after_its_number(store: DocumentStore) -> None:
    """And nothing twice, page by page."""
    feed = feed_on(store)
    for host in "abcde":
        feed.append(Moved(host))
    assert hosts(feed, 3) == [(4, "d"), (5, "e")]
    assert hosts(feed, 1, limit=2) == [(2, "b"), (3, "c")]
    assert hosts(feed, 5) == []


def test_feeds_of_other_names_are_other_feeds(store: DocumentStore) -> None:
    feed_on(store).append(Moved("a"))
    assert feed_on(store, "withdrawals").append(Moved("x")) == 1
    assert hosts(feed_on(store, "withdrawals")) == [(1, "x")]


def test_a_new_process_goes_on_where_others_were(store: DocumentStore) -> None:
    """Also behind the last note of the end, which is taken every 16 changes."""
    for number in range(1, 20):
        assert feed_on(store).append(Moved(str(number))) == number
    assert hosts(feed_on(store), 15, limit=2) == [(16, "16"), (17, "17")]


def test_a_process_that_others_have_overtaken_goes_on_behind_them(store: DocumentStore) -> None:
    slow, fast = feed_on(store), feed_on(store)
    slow.append(Moved("a"))
    for host in "bcd":
        fast.append(Moved(host))
    assert slow.append(Moved("e")) == 5
    assert hosts(fast) == [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")]


def test_a_reader_beside_writers_misses_nothing(store: DocumentStore) -> None:
    """Several writers at once, and a reader that asks all the while and keeps only its number."""
    heard: list[tuple[int, str]] = []
    answered: list[tuple[int, str]] = []
    done = threading.Event()

    def write(writer: str) -> None:
        feed = feed_on(store)
        for n in range(8):
            answered.append((feed.append(Moved(f"{writer}{n}")), f"{writer}{n}"))

    def read() -> None:
        feed = feed_on(store)
        while True:
            last = done.is_set()
            heard.extend(hosts(feed, heard[-1][0] if heard else 0))
            if last:
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        at_once([lambda name=name: write(name) for name in "xyz"])  # type: ignore[misc]
    finally:
        done.set()
        reader.join()
    assert heard == sorted(answered)
    assert [number for number, _ in heard] == [*range(1, 25)]


def test_a_writer_that_dies_leaves_no_hole(store: DocumentStore) -> None:
    """The store goes away in the middle of an append, at each of its steps; the next writer and every reader go on."""
    feed_on(store).append(Moved("before"))
    for step in range(1, 5):
        feed = feed_on(Dying(store, after=step))
        with pytest.raises(StoreUnavailable):
            feed.append(Moved(f"step {step}"))
    feed_on(store).append(Moved("after"))
    heard = hosts(feed_on(store))
    assert [number for number, _ in heard] == [*range(1, len(heard) + 1)]
    assert (heard[0][1], heard[-1][1]) == ("before", "after")


def test_a_change_that_becomes_visible_while_a_page_is_read_is_not_skipped(store: DocumentStore) -> None:
    """A list is no snapshot: it can show 3 and not yet 2. The reader gets neither, and both at its next call."""
    feed = feed_on(store)
    for host in "abc":
        feed.append(Moved(host))
    assert hosts(feed_on(Blind(store, to="0000000000000002"))) == [(1, "a")]
    assert hosts(feed_on(store), 1) == [(2, "b"), (3, "c")]


def test_old_changes_can_be_cut_off(store: DocumentStore) -> None:
    """Who needs them still is told to begin anew; who is past them notices nothing; numbers go on."""
    feed = feed_on(store)
    for host in "abcdef":
        feed.append(Moved(host))
    assert feed.trim(4) == 3
    assert hosts(feed, 4) == [(5, "e"), (6, "f")]
    for gone in (0, 1, 3):
        with pytest.raises(CursorExpired):
            feed.since(gone)
    assert feed_on(store).append(Moved("g")) == 7


def test_the_latest_change_is_never_cut_off(store: DocumentStore) -> None:
    """It shows a reader that is up to date that it is."""
    feed = feed_on(store)
    for host in "ab":
        feed.append(Moved(host))
    assert feed.trim(1000) == 1
    assert hosts(feed, 2) == []
    assert feed_on(store).append(Moved("c")) == 3


def test_a_writer_that_slept_while_its_place_was_cut_off_goes_to_the_end(store: DocumentStore) -> None:
    """It remembers an old end, where nothing is any more: a change put there would never be read."""
    sleeper, other = feed_on(store), feed_on(store)
    sleeper.append(Moved("a"))
    for host in "bcdef":
        other.append(Moved(host))
    other.trim(6)
    assert sleeper.append(Moved("g")) == 7
    assert hosts(other, 6) == [(7, "g")]
    with pytest.raises(CursorExpired):
        other.since(2)


def test_a_number_that_never_was_is_not_taken_for_up_to_date(store: DocumentStore) -> None:
    """An edge that was told 9 by a store that has since been set back to a backup must begin anew."""
    feed = feed_on(store)
    feed.append(Moved("a"))
    with pytest.raises(CursorExpired):
        feed.since(9)


def test_a_writer_that_is_ahead_of_a_restored_store_goes_back_to_its_end(store: DocumentStore) -> None:
    """Else readers would wait at a hole for ever."""
    feed = feed_on(store)
    for host in "abcd":
        feed.append(Moved(host))
    for lost in (Key("feed/hosts", "0000000000000003"), Key("feed/hosts", "0000000000000004")):
        store.delete(lost, expected=store.get_many([lost])[lost].version)
    assert feed.append(Moved("e")) == 3
    assert hosts(feed_on(store), 2) == [(3, "e")]


def test_a_hole_that_stays_is_told_to_the_reader(store: DocumentStore) -> None:
    """Whatever made it: a reader never waits at it, nor steps over it."""
    feed = feed_on(store)
    for host in "abcd":
        feed.append(Moved(host))
    lost = Key("feed/hosts", "0000000000000003")
    store.delete(lost, expected=store.get_many([lost])[lost].version)
    with pytest.raises(CursorExpired):
        feed.since(1)


class Passing:
    """Passes everything on to a real store."""

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


class Dying(Passing):
    """Does what it is asked, but from the call numbered *after* on nobody hears the answer."""

    def __init__(self, store: DocumentStore, after: int) -> None:
        super().__init__(store)
        self._left = after

    def _live(self) -> None:
        self._left -= 1
        if self._left <= 0:
            raise StoreUnavailable

    def get_many(self, keys: Collection[Key]) -> dict[Key, Document]:
        found = super().get_many(keys)
        self._live()
        return found

    def put(self, key: Key, body: Mapping[str, Any], *, expected: Version | None, expires: Any = None) -> Version:
        version = super().put(key, body, expected=expected, expires=expires)
        self._live()
        return version

    def list(self, partition: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        found = super().list(partition, after=after, limit=limit)
        self._live()
        return found


class Blind(Passing):
    """A list that had passed the place *to* when the document there was written."""

    def __init__(self, store: DocumentStore, to: str) -> None:
        super().__init__(store)
        self._to = to

    def list(self, partition: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        return [one for one in super().list(partition, after=after, limit=limit) if one.key.id != self._to]
