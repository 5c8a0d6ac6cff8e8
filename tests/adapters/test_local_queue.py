"""What is told behind the answer: bounded, never waiting, never raising."""

import threading
from collections.abc import Sequence

from shared.adapters.local_queue import LocalQueue
from shared.records import ConnectionEvent
from shared.validation.policy import Presence
from tests.certs import NOON


def sighting(org_id: str = "orga01") -> ConnectionEvent:
    return ConnectionEvent(org_id=org_id, at=NOON, decision="allow", code="allowed", tls=True, presence=Presence.VALID)


def test_what_came_in_between_is_written_at_once_per_org() -> None:
    written: list[tuple[str, int]] = []
    queue = LocalQueue(lambda org, held: written.append((org, len(held))), pause=3600)
    for org_id in ("orga01", "orgb01", "orga01"):
        queue.offer(sighting(org_id))
    queue.flush()
    assert sorted(written) == [("orga01", 2), ("orgb01", 1)]
    queue.close()


def test_a_full_queue_drops_rather_than_waits() -> None:
    queue = LocalQueue(lambda *_: None, pause=3600, room=2)
    for _ in range(5):
        queue.offer(sighting())
    assert queue.dropped == 3
    queue.close()


def test_the_thread_writes_by_itself_and_survives_a_store_that_fails() -> None:
    arrived = threading.Event()
    attempts = []

    def write(org_id: str, held: Sequence[ConnectionEvent]) -> None:
        attempts.append(len(held))
        if len(attempts) == 1:
            raise RuntimeError("the store is away")
        arrived.set()

    queue = LocalQueue(write, pause=0.01)
    queue.offer(sighting())
    while not attempts:
        threading.Event().wait(0.005)
    queue.offer(sighting())
    assert arrived.wait(10)
    queue.close()


def test_closing_writes_what_is_held_and_can_be_done_twice() -> None:
    written: list[int] = []
    queue = LocalQueue(lambda _, held: written.append(len(held)), pause=3600)
    queue.offer(sighting())
    queue.close()
    queue.close()
    assert written == [1]
