"""ConnectionEventQueue on Google Pub/Sub (TRUST_QUEUE=pubsub:projects/…/topics/…).

Each message is the batch of one organization and one second. recordSightings consumes the messages. Pub/Sub may deliver
a message twice; the consumer recognizes the duplicate by the id of the batch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from shared.adapters.buffered_queue import BufferedQueue
from shared.connection_records import ConnectionEventBatch, QueuedEvent

_SECONDS: Final = 10.0  # timeout of one acknowledgement


def _connect() -> Any:
    import google.cloud.pubsub_v1 as pubsub_v1

    # The queue batches already, so the client need not wait for more messages.
    return pubsub_v1.PublisherClient(batch_settings=pubsub_v1.types.BatchSettings(max_latency=0.01))


class PubSubQueue(BufferedQueue):
    """A queue that publishes to a Pub/Sub topic.

    Args:
        topic: the topic's resource name.
        pack: makes a batch of an orgId and its events.
        connect: creates the client; called once, in the queue's thread, before the first delivery.
        interval: seconds between two deliveries.
    """

    def __init__(
        self,
        topic: str,
        pack: Callable[[str, Sequence[QueuedEvent]], ConnectionEventBatch],
        *,
        connect: Callable[[], Any] = _connect,
        interval: float = 1.0,
    ) -> None:
        """Store the arguments. No request is made."""
        super().__init__(interval=interval)
        self._topic = topic
        self._pack = pack
        self._connect = connect
        self._client: Any = None

    def close(self) -> None:
        """Deliver the content of the buffer, and close the client. May be called twice."""
        super().close()
        client, self._client = self._client, None
        if client is not None:
            client.stop()
            client.transport.close()

    def _deliver(self, events_by_org: Mapping[str, Sequence[QueuedEvent]]) -> None:
        if self._client is None:
            self._client = self._connect()
        published = [
            (self._client.publish(self._topic, self._pack(org_id, events).encode()), len(events))
            for org_id, events in events_by_org.items()
        ]
        for acknowledgement, count in published:
            try:
                acknowledgement.result(timeout=_SECONDS)
            except Exception:  # noqa: BLE001 - logged; the other messages are still acknowledged
                self._log_loss(count)
