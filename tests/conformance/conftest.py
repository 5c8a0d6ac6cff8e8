from collections.abc import Iterator

import pytest

from shared.ports import DocumentStore
from tests.stores import Place, open_store


@pytest.fixture
def store(place: Place) -> Iterator[DocumentStore]:
    """An adapter on an empty place."""
    opened = open_store(place)
    yield opened
    opened.close()
