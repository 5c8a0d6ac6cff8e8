"""ConnectionEventQueue in this process (TRUST_QUEUE=local:): events are written to the store by this process."""

from collections.abc import Callable, Mapping, Sequence

from shared.adapters.buffered_queue import BufferedQueue
from shared.connection_records import QueuedEvent

Write = Callable[[str, Sequence[QueuedEvent]], None]


class LocalQueue(BufferedQueue):
    """A queue that writes to the store.

    Args:
        write: called in the queue's thread with an orgId and the events of the organization.
        interval: seconds between two deliveries.
        capacity: the largest number of events in the buffer.
    """

    def __init__(self, write: Write, *, interval: float = 1.0, capacity: int = 10_000) -> None:
        """Store the arguments. The thread starts with the first event."""
        super().__init__(interval=interval, capacity=capacity)
        self._write = write

    def _deliver(self, events_by_org: Mapping[str, Sequence[QueuedEvent]]) -> None:
        for org_id, events in events_by_org.items():
            try:
                self._write(org_id, events)
            except Exception:  # noqa: BLE001 - logged; events of other organizations are still written
                self._log_loss(len(events))
