"""Tests of the Firestore store alone: paths, time to live, errors."""

import re
from datetime import UTC, datetime

import pytest
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import firestore
from hypothesis import given
from hypothesis import strategies as st

from shared.adapters.firestore_store import FirestoreStore, _decode_segment, _encode_segment
from shared.adapters.retry_budget import RetryBudget
from shared.config import Firestore
from shared.errors import StoreUnavailable
from shared.ports import MAX_KEY_BYTES, Key
from tests.adapters.faults import Time, open_faulty
from tests.support.stores import Place, open_store

names = st.text(st.sampled_from("./0_=a-:") | st.characters(exclude_categories=["Cs"]), min_size=1)
similar = st.text(st.sampled_from("-./01~"), min_size=1, max_size=3)  # characters near the replaced characters


@given(names)
def test_every_name_has_a_valid_segment(name: str) -> None:
    """A segment has no slash, is not `.`, `..` or `__…__`, and has at most 1,500 bytes (for 255 bytes of a name)."""
    segment = _encode_segment(name)
    assert "/" not in segment
    assert segment not in (".", "..")
    assert not re.fullmatch("__.*__", segment)
    assert len(segment.encode()) <= 1 + 2 * len(name.encode())
    assert 1 + 2 * MAX_KEY_BYTES <= 1500


@given(names)
def test_a_segment_can_be_decoded(name: str) -> None:
    """So two names never have the same document."""
    assert _decode_segment(_encode_segment(name)) == name


@given(names | similar, names | similar)
def test_segments_have_the_order_of_their_names(first: str, second: str) -> None:
    """Firestore orders by UTF-8 bytes, which is the order of code points."""
    assert (_encode_segment(first).encode() < _encode_segment(second).encode()) == (first < second)


@pytest.mark.stores("firestore")
def test_the_expiry_is_a_timestamp_in_the_time_to_live_field(place: Place) -> None:
    """The field is in the collection group `documents`. A document without an expiry does not have the field."""
    assert isinstance(place, Firestore)
    store = open_store(place)
    key = Key("org", "mtxpd0")
    at = datetime(2026, 6, 1, 12, tzinfo=UTC)
    version = store.put(key, {}, expected=None, expires=at)
    client = firestore.Client(project=place.project)
    [snapshot] = client.collection_group("documents").stream()
    assert snapshot.get("expires") == at
    store.put(key, {}, expected=version)
    [snapshot] = client.collection_group("documents").stream()
    assert "expires" not in (snapshot.to_dict() or {})
    client._firestore_api.transport.close()
    store.close()


@pytest.mark.stores("firestore")
def test_an_invalid_request_is_not_an_outage(place: Place) -> None:
    """A defect of the adapter must not look like a temporary failure."""
    store, faults = open_faulty(place)
    faults.refused = exceptions.InvalidArgument("what?")  # type: ignore[no-untyped-call]
    faults.next["read"].append(faults.refuse)
    with pytest.raises(exceptions.InvalidArgument):
        store.get_many([Key("org", "mtxpd0")])
    store.close()


def test_without_credentials_the_store_is_unavailable() -> None:
    """The error is the same as for an outage."""

    def connect(project: str, database: str) -> firestore.Client:
        raise DefaultCredentialsError

    time = Time()
    store = FirestoreStore("project", retry_budget=RetryBudget(clock=time, sleep=time.sleep), connect=connect)
    with pytest.raises(StoreUnavailable):
        store.get_many([Key("org", "mtxpd0")])
    store.close()
