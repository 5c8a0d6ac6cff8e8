import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.harness import Service


@pytest.fixture
def hanging(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A store whose reads do not return until the event is set."""
    go, reads = threading.Event(), service.store.get_many

    def get_many(keys: Any) -> Any:
        go.wait(60)
        return reads(keys)

    monkeypatch.setattr(service.store, "get_many", get_many)
    yield go
    go.set()
