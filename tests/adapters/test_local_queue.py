"""The local queue: bounded, never waits, never raises."""

import threading
from collections.abc import Sequence

from shared.adapters.local_queue import LocalQueue
from shared.connection_records import ConnectionEvent, QueuedEvent
from shared.validation.policy import Presence
from tests.support.certs import NOON


def make_event(org_id: str = "orga01") -> ConnectionEvent:
    return ConnectionEvent(org_id=org_id, at=NOON, decision="allow", code="allowed", tls=True, presence=Presence.VALID)


def test_events_of_an_organization_are_written_together() -> None:
    """Between two deliveries, an organization is written once."""
    writes: list[tuple[str, int]] = []
    queue = LocalQueue(lambda org_id, events: writes.append((org_id, len(events))), interval=3600)
    for org_id in ("orga01", "orgb01", "orga01"):
        queue.offer(make_event(org_id))
    queue.flush()
    assert sorted(writes) == [("orga01", 2), ("orgb01", 1)]
    queue.close()


def test_a_full_queue_drops_events() -> None:
    """The caller never waits."""
    queue = LocalQueue(lambda *_: None, interval=3600, capacity=2)
    for _ in range(5):
        queue.offer(make_event())
    assert queue.dropped == 3
    queue.close()


def test_the_thread_writes_and_continues_after_an_error_of_the_store() -> None:
    """An unavailable store costs the events of one delivery."""
    arrived = threading.Event()
    attempts = []

    def write(org_id: str, events: Sequence[QueuedEvent]) -> None:
        attempts.append(len(events))
        if len(attempts) == 1:
            raise RuntimeError("the store is away")
        arrived.set()

    queue = LocalQueue(write, interval=0.01)
    queue.offer(make_event())
    while not attempts:
        threading.Event().wait(0.005)
    queue.offer(make_event())
    assert arrived.wait(10)
    queue.close()


def test_close_writes_the_rest_and_may_be_called_twice() -> None:
    """A regular stop loses no event."""
    sizes: list[int] = []
    queue = LocalQueue(lambda _, events: sizes.append(len(events)), interval=3600)
    queue.offer(make_event())
    queue.close()
    queue.close()
    assert sizes == [1]
