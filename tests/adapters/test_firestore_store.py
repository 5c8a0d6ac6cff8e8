"""What is Firestore's alone: its paths, its time to live, its errors."""

import re
from datetime import UTC, datetime

import pytest
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import firestore
from hypothesis import given
from hypothesis import strategies as st

from shared.adapters.firestore_store import FirestoreStore, _segment, _text
from shared.adapters.patience import RetryBudget
from shared.config import Firestore
from shared.errors import StoreUnavailable
from shared.ports import MAX_KEY_BYTES, Key
from tests.adapters.faults import Time, disturbed
from tests.stores import Place, open_store

names = st.text(st.sampled_from("./0_=a-:") | st.characters(exclude_categories=["Cs"]), min_size=1)
alike = st.text(st.sampled_from("-./01~"), min_size=1, max_size=3)  # the signs that stand near the replaced ones


@given(names)
def test_every_name_is_a_segment_that_firestore_takes(name: str) -> None:
    """No slash, not `.` or `..`, not `__…__`, at most 1,500 bytes (of an id of at most 255)."""
    segment = _segment(name)
    assert "/" not in segment
    assert segment not in (".", "..")
    assert not re.fullmatch("__.*__", segment)
    assert len(segment.encode()) <= 1 + 2 * len(name.encode())
    assert 1 + 2 * MAX_KEY_BYTES <= 1500


@given(names)
def test_a_segment_tells_its_name(name: str) -> None:
    """Two names never share a document."""
    assert _text(_segment(name)) == name


@given(names | alike, names | alike)
def test_segments_are_ordered_as_their_names(one: str, other: str) -> None:
    """Firestore orders by UTF-8 bytes, which is by code points."""
    assert (_segment(one).encode() < _segment(other).encode()) == (one < other)


@pytest.mark.stores("firestore")
def test_expiry_is_a_time_in_the_field_that_time_to_live_reads(place: Place) -> None:
    """In the collection group `documents`; what has no expiry has no such field."""
    assert isinstance(place, Firestore)
    store = open_store(place)
    key = Key("org", "mtxpd0")
    at = datetime(2026, 6, 1, 12, tzinfo=UTC)
    version = store.put(key, {}, expected=None, expires=at)
    client = firestore.Client(project=place.project)
    [found] = client.collection_group("documents").stream()
    assert found.get("expires") == at
    store.put(key, {}, expected=version)
    [found] = client.collection_group("documents").stream()
    assert "expires" not in (found.to_dict() or {})
    client._firestore_api.transport.close()
    store.close()


@pytest.mark.stores("firestore")
def test_a_question_that_firestore_does_not_understand_is_a_mistake_of_ours(place: Place) -> None:
    """It must not look like an outage that passes."""
    store, faults = disturbed(place)
    faults.refused = exceptions.InvalidArgument("what?")  # type: ignore[no-untyped-call]
    faults.next["read"].append(faults.forbidden)
    with pytest.raises(exceptions.InvalidArgument):
        store.get_many([Key("org", "mtxpd0")])
    store.close()


def test_without_credentials_the_store_is_unavailable() -> None:
    def connect(project: str, database: str) -> firestore.Client:
        raise DefaultCredentialsError

    time = Time()
    store = FirestoreStore("project", patience=RetryBudget(clock=time, sleep=time.sleep), connect=connect)
    with pytest.raises(StoreUnavailable):
        store.get_many([Key("org", "mtxpd0")])
    store.close()
