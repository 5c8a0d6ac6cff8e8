"""Random operations on a store and on a dictionary, whose results must be equal."""

import secrets
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from shared.ports import DocumentStore, Key, WriteConflict
from tests.support.stores import TWICE_DYNAMODB

pytestmark = [pytest.mark.slow, pytest.mark.stores(*TWICE_DYNAMODB)]

names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6) | st.sampled_from(
    ["a", "a/b", "b", ".", "..", "/", "__x__", "d:t:1", "\U0001f600", "\ufb00"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)
bodies = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values, max_size=4)


class StoreBesideADictionary(RuleBasedStateMachine):
    """A state machine of a store and a dictionary. Each example has partitions of its own."""

    store: DocumentStore
    keys: Bundle[Key] = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        self.run = secrets.token_hex(6)
        self.bodies: dict[Key, dict[str, Any]] = {}
        self.versions: dict[Key, str] = {}
        self.old: list[tuple[Key, str]] = []  # earlier versions

    @rule(target=keys, partition=st.sampled_from(["p", "p/q", "q"]), name=names)
    def add_key(self, partition: str, name: str) -> Key:
        return Key(f"{self.run}/{partition}", name)

    @rule(key=keys, body=bodies)
    def create(self, key: Key, body: dict[str, Any]) -> None:
        self.write(key, body, None)

    @rule(key=keys, body=bodies)
    def change(self, key: Key, body: dict[str, Any]) -> None:
        self.write(key, body, self.versions.get(key, "0000000000000000"))

    @rule(key=keys)
    def delete(self, key: Key) -> None:
        self.remove(key, self.versions.get(key, "0000000000000000"))

    @rule(data=st.data(), body=bodies)
    def write_at_an_old_version(self, data: st.DataObject, body: dict[str, Any]) -> None:
        if self.old:
            key, version = data.draw(st.sampled_from(self.old))
            self.write(key, body, version)
            self.remove(key, version)

    @rule(requested=st.lists(keys, max_size=5))
    def look_up(self, requested: list[Key]) -> None:
        documents = self.store.get_many(requested)
        assert {key: repr(document.body) for key, document in documents.items()} == {
            key: repr(self.bodies[key]) for key in requested if key in self.bodies
        }
        assert {key: document.version for key, document in documents.items()} == {
            key: self.versions[key] for key in requested if key in self.versions
        }

    @rule(partition=st.sampled_from(["p", "p/q", "q"]), after=names | st.just(""), limit=st.integers(1, 4))
    def list_page(self, partition: str, after: str, limit: int) -> None:
        partition = f"{self.run}/{partition}"
        ids = sorted(key.id for key in self.bodies if key.partition == partition and key.id > after)[:limit]
        page = self.store.list(partition, after=after, limit=limit)
        assert [document.key for document in page] == [Key(partition, name) for name in ids]
        assert [repr(document.body) for document in page] == [repr(self.bodies[document.key]) for document in page]

    @invariant()
    def versions_are_never_used_twice(self) -> None:
        used = [*self.versions.items(), *self.old]
        assert len({*used}) == len(used)

    def write(self, key: Key, body: dict[str, Any], expected: str | None) -> None:
        if self.versions.get(key) == expected:
            version = self.store.put(key, body, expected=expected)
            if expected is not None:
                self.old.append((key, expected))
            self.bodies[key], self.versions[key] = body, version
        else:
            with pytest.raises(WriteConflict):
                self.store.put(key, body, expected=expected)

    def remove(self, key: Key, expected: str) -> None:
        if self.versions.get(key) == expected:
            self.store.delete(key, expected=expected)
            self.old.append((key, expected))
            del self.bodies[key], self.versions[key]
        else:
            with pytest.raises(WriteConflict):
                self.store.delete(key, expected=expected)


def test_a_store_behaves_like_a_dictionary_with_versions(store: DocumentStore) -> None:
    """Reads, lists and refusals are correct after any sequence of operations."""

    class Machine(StoreBesideADictionary):
        pass

    Machine.store = store
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
