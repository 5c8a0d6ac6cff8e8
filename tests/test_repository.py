"""Changes by compare-and-set, and activity entries that survive a crash between a change and its copy."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.adapters.sqlite_store import SQLiteStore
from shared.errors import StoreUnavailable, TooBusy
from shared.ports import Key, Version, WriteConflict
from shared.records import Activity, ActivityKind, ActivityPage, Org
from shared.repository import Repository, activity_partition, org_ref
from shared.usecases.context import entry, made
from tests.certs import NOON


class Failing(SQLiteStore):
    """A real store whose writes of activity fail while *away*."""

    away = False

    def put(
        self, key: Key, body: Mapping[str, Any], *, expected: Version | None, expires: datetime | None = None
    ) -> Version:
        if self.away and key.partition.startswith("activity/"):
            raise StoreUnavailable
        return super().put(key, body, expected=expected, expires=expires)


class Contended(SQLiteStore):
    """A real store in which somebody else always writes first."""

    def put(self, key: Key, body: Mapping[str, Any], **_: Any) -> Version:
        raise WriteConflict(key)


def org(*outbox: Activity) -> Org:
    stamp = made(NOON, "test")
    return Org(
        org_id="mtxpd0",
        created_at=NOON,
        settings_changed=stamp,
        policy_changed=stamp,
        activation_changed=stamp,
        outbox=outbox,
    )


def noted(repository: Repository) -> list[str]:
    pages = repository.iterate(activity_partition("mtxpd0", ActivityKind.CHANGE), ActivityPage)
    return sorted(one.what for _, page in pages for one in page.entries)


def change(repository: Repository, what: str) -> None:
    def alter(before: Org | None) -> Org:
        return msgspec.structs.replace(before or org(), outbox=(entry(NOON, "test", what),))

    repository.change(org_ref("mtxpd0"), alter, org_id="mtxpd0")


def test_a_change_and_its_activity_entry_arrive_together(tmp_path: Path) -> None:
    repository = Repository(SQLiteStore(tmp_path / "db"))
    change(repository, "first")
    change(repository, "second")
    assert noted(repository) == ["first", "second"]


def test_an_entry_that_could_not_be_copied_is_copied_at_the_next_change(tmp_path: Path) -> None:
    """Also by another process: it travels in the changed document."""
    store = Failing(tmp_path / "db")
    store.away = True
    change(Repository(store), "first")
    change(Repository(store), "second")
    assert noted(Repository(store)) == []
    store.away = False
    change(Repository(store), "third")
    assert noted(Repository(store)) == ["first", "second", "third"]


def test_an_outbox_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    """The store of activity may be away for long; the org's document must not grow without end."""
    store = Failing(tmp_path / "db")
    store.away = True
    repository = Repository(store)
    for number in range(130):
        change(repository, f"{number:03}")
    kept = repository.get(org_ref("mtxpd0"))
    assert kept is not None
    assert [one.what for one in kept.outbox] == [f"{number:03}" for number in range(30, 130)]
    assert len(msgspec.json.encode(kept.outbox)) <= 32 * 1024


def test_a_change_that_always_loses_is_refused_and_did_not_happen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.repository._CHANGE_SECONDS", 0.0)
    with pytest.raises(TooBusy):
        change(Repository(Contended(tmp_path / "db")), "never")


def test_an_alteration_that_raises_changes_nothing(tmp_path: Path) -> None:
    repository = Repository(SQLiteStore(tmp_path / "db"))
    change(repository, "first")

    def alter(_: Org | None) -> Org:
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        repository.change(org_ref("mtxpd0"), alter)
    assert noted(repository) == ["first"]
