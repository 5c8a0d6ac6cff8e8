"""Changes by compare-and-set, and activity entries that survive a crash between a change and its copy."""

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.adapters.sqlite_store import SQLiteStore
from shared.errors import NotFound, StoreUnavailable, TooBusy
from shared.ports import Document, Key, Version, WriteConflict
from shared.records import Activity, ActivityKind, ActivityPage, CAIndex, Org
from shared.refs import Ref, activity_partition, ca_index_ref, org_ref
from shared.repository import Repository
from shared.usecases.context import make_entry, make_revision
from tests.support.certs import NOON

ORG = org_ref("mtxpd0")


class FailingStore(SQLiteStore):
    """A real store whose writes of activity fail while *is_failing*."""

    is_failing = False

    def put(
        self, key: Key, body: Mapping[str, Any], *, expected: Version | None, expires: datetime | None = None
    ) -> Version:
        if self.is_failing and key.partition.startswith("activity/"):
            raise StoreUnavailable
        return super().put(key, body, expected=expected, expires=expires)


class ContendedStore(SQLiteStore):
    """A real store in which another writer is always first."""

    def put(self, key: Key, body: Mapping[str, Any], **_: Any) -> Version:
        raise WriteConflict(key)


class ForgetfulStore(SQLiteStore):
    """A real store that makes the first write of an organization, and reports a conflict: its answer was lost, and
    another writer has written since."""

    writes = 0

    def put(
        self, key: Key, body: Mapping[str, Any], *, expected: Version | None, expires: datetime | None = None
    ) -> Version:
        version = super().put(key, body, expected=expected, expires=expires)
        if key == ORG.key:
            self.writes += 1
            if self.writes == 1:
                super().put(key, body, expected=version)
                raise WriteConflict(key)
        return version


class CountedStore(SQLiteStore):
    """A real store that counts its reads."""

    reads = 0

    def get_many(self, keys: Collection[Key]) -> dict[Key, Document]:
        self.reads += 1
        return super().get_many(keys)


def org(*outbox: Activity) -> Org:
    stamp = make_revision(NOON, "test")
    return Org(
        org_id="mtxpd0",
        created_at=NOON,
        settings_changed=stamp,
        policy_changed=stamp,
        activation_changed=stamp,
        outbox=outbox,
    )


def list_activity(repository: Repository) -> list[str]:
    pages = repository.iterate(activity_partition("mtxpd0", ActivityKind.CHANGE), ActivityPage)
    return sorted(entry.what for _, page in pages for entry in page.entries)


def change(repository: Repository, what: str) -> None:
    for attempt in repository.changing(ORG, activity_of="mtxpd0"):
        with attempt as stored:
            attempt.write(stored or org(), activity=make_entry(NOON, "test", what))


def test_a_change_and_its_activity_entry_arrive_together(tmp_path: Path) -> None:
    repository = Repository(SQLiteStore(tmp_path / "db"))
    change(repository, "first")
    change(repository, "second")
    assert list_activity(repository) == ["first", "second"]


def test_an_entry_that_could_not_be_copied_is_copied_at_the_next_change(tmp_path: Path) -> None:
    """Also by another process: the entry travels in the changed document."""
    store = FailingStore(tmp_path / "db")
    store.is_failing = True
    change(Repository(store), "first")
    change(Repository(store), "second")
    assert list_activity(Repository(store)) == []
    store.is_failing = False
    change(Repository(store), "third")
    assert list_activity(Repository(store)) == ["first", "second", "third"]


def test_a_document_is_not_deleted_before_its_entries_are_copied(tmp_path: Path) -> None:
    """The document is the only place that has these entries."""
    store = FailingStore(tmp_path / "db")
    store.is_failing = True
    change(Repository(store), "first")
    with pytest.raises(StoreUnavailable):
        Repository(store).delete(ORG, activity_of="mtxpd0")
    assert Repository(store).get(ORG) is not None
    store.is_failing = False
    Repository(store).delete(ORG, activity_of="mtxpd0")
    assert Repository(store).get(ORG) is None
    assert list_activity(Repository(store)) == ["first"]


def test_an_outbox_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    """The activity list may be unavailable for long; the document of the organization must not grow without limit."""
    store = FailingStore(tmp_path / "db")
    store.is_failing = True
    repository = Repository(store)
    for number in range(130):
        change(repository, f"{number:03}")
    stored = repository.get(ORG)
    assert stored is not None
    assert [entry.what for entry in stored.outbox] == [f"{number:03}" for number in range(30, 130)]
    assert len(msgspec.json.encode(stored.outbox)) <= 32 * 1024


def test_a_change_that_always_loses_is_refused_and_did_not_happen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.repository._CHANGE_SECONDS", 0.0)
    with pytest.raises(TooBusy):
        change(Repository(ContendedStore(tmp_path / "db")), "never")


def test_a_block_that_raises_changes_nothing(tmp_path: Path) -> None:
    repository = Repository(SQLiteStore(tmp_path / "db"))
    change(repository, "first")
    before = repository.get(ORG)

    def refuse() -> None:
        for attempt in repository.changing(ORG):
            with attempt as stored:
                attempt.write(msgspec.structs.replace(stored or org(), suspended=True))
                raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        refuse()
    assert repository.get(ORG) == before
    assert list_activity(repository) == ["first"]


def test_a_block_that_does_not_write_changes_nothing(tmp_path: Path) -> None:
    repository = Repository(SQLiteStore(tmp_path / "db"))
    change(repository, "first")
    version = repository.read_batch([ORG]).document(ORG)
    for attempt in repository.changing(ORG):
        with attempt as stored:
            assert stored is not None
    assert repository.read_batch([ORG]).document(ORG) == version


def test_a_change_of_a_missing_record_is_refused_where_the_record_must_exist(tmp_path: Path) -> None:
    repository = Repository(SQLiteStore(tmp_path / "db"))

    def suspend() -> None:
        for attempt in repository.changing_existing(ORG, "such organization"):
            with attempt as stored:
                attempt.write(msgspec.structs.replace(stored, suspended=True))

    with pytest.raises(NotFound, match="There is no such organization here"):
        suspend()
    assert repository.get(ORG) is None


def test_a_change_whose_answer_was_lost_is_not_made_twice(tmp_path: Path) -> None:
    """The second attempt sees what the first wrote."""
    repository = Repository(ForgetfulStore(tmp_path / "db"))
    Repository(SQLiteStore(tmp_path / "db")).create(ORG, org())
    for attempt in repository.changing(ORG, activity_of="mtxpd0"):
        with attempt as stored:
            assert stored is not None
            if not stored.suspended:
                attempt.write(
                    msgspec.structs.replace(stored, suspended=True), activity=make_entry(NOON, "test", "suspend")
                )
    after = repository.get(ORG)
    assert after is not None
    assert after.suspended
    assert [entry.what for entry in after.outbox] == ["suspend"], "the entry of the first attempt waits to be copied"


def test_changes_of_several_threads_are_all_made(tmp_path: Path) -> None:
    """No update is lost: 4 threads make 50 changes each, each with a connection of its own."""
    ref: Ref[CAIndex] = ca_index_ref("mtxpd0")

    def add(thread: int) -> None:
        repository = Repository(SQLiteStore(tmp_path / "db"))
        for number in range(50):
            for attempt in repository.changing(ref):
                with attempt as stored:
                    index = stored or CAIndex()
                    attempt.write(CAIndex({**index.cas, f"{thread}-{number}": True}))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    index = Repository(SQLiteStore(tmp_path / "db")).get(ref)
    assert index is not None
    assert len(index.cas) == 200


def test_a_change_reads_what_it_decides_by_in_the_same_round_trip(tmp_path: Path) -> None:
    store = CountedStore(tmp_path / "db")
    repository, ref = Repository(store), ca_index_ref("mtxpd0")
    repository.create(ORG, org())
    for attempt in repository.changing(ref, also=[ORG]):
        with attempt as index:
            assert index is None
            assert attempt.batch.get(ORG) is not None
    assert store.reads == 1


def test_a_change_may_begin_with_documents_that_were_read_or_written_before(tmp_path: Path) -> None:
    """An outdated document is no danger: the write is refused, and the next attempt reads."""
    store = CountedStore(tmp_path / "db")
    repository = Repository(store)
    repository.create(ORG, org())
    batch = repository.read_batch([ORG])
    for attempt in repository.changing(ORG, first=batch):
        with attempt as stored:
            assert stored is not None
            attempt.write(msgspec.structs.replace(stored, suspended=True))
    assert store.reads == 1
    for second in repository.changing(ORG, first=attempt.batch):
        with second as stored:
            assert stored is not None
            assert stored.suspended
            second.write(msgspec.structs.replace(stored, has_ca=True))
    assert store.reads == 1
    for third in repository.changing(ORG, first=batch):
        with third as stored:
            assert stored is not None
            third.write(msgspec.structs.replace(stored, created_at=NOON))
    assert store.reads == 2
    after = repository.get(ORG)
    assert after is not None
    assert (after.suspended, after.has_ca) == (True, True)


def test_a_batch_answers_only_for_what_it_asked_for(tmp_path: Path) -> None:
    """A document that was not asked for is not taken for one that does not exist."""
    batch = Repository(SQLiteStore(tmp_path / "db")).read_batch([ORG])
    assert batch.get(ORG) is None
    with pytest.raises(KeyError):
        batch.get(ca_index_ref("mtxpd0"))
