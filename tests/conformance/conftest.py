"""Fixtures of the tests that all document stores pass."""

from collections.abc import Iterator

import pytest

from shared.ports import DocumentStore
from tests.support.stores import Place, open_store


@pytest.fixture
def store(place: Place) -> Iterator[DocumentStore]:
    """An adapter on an empty place."""
    store = open_store(place)
    yield store
    store.close()
