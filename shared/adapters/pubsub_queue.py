"""ConnectionEventQueue on Google Pub/Sub (TRUST_QUEUE=pubsub:projects/…/topics/…): one message for an org and a second.

recordSightings takes them from there. Pub/Sub may deliver a message twice; its batch's id tells.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from shared.adapters.held_queue import BufferedQueue
from shared.records import ConnectionEvent, ConnectionEventBatch

_SECONDS: Final = 10.0  # for what was handed over to be acknowledged


def _connect() -> Any:
    import google.cloud.pubsub_v1 as pubsub_v1

    # A second's worth is handed over at once, so there is nothing for the client to wait for.
    return pubsub_v1.PublisherClient(batch_settings=pubsub_v1.types.BatchSettings(max_latency=0.01))


class PubSubQueue(BufferedQueue):
    """The client is made at the first hand-over, in the queue's own thread."""

    def __init__(
        self,
        topic: str,
        pack: Callable[[str, Sequence[ConnectionEvent]], ConnectionEventBatch],
        *,
        connect: Callable[[], Any] = _connect,
        pause: float = 1.0,
    ) -> None:
        super().__init__(pause=pause)
        self._topic = topic
        self._pack = pack
        self._connect = connect
        self._client: Any = None

    def close(self) -> None:
        super().close()
        client, self._client = self._client, None
        if client is not None:
            client.stop()
            client.transport.close()

    def _hand_on(self, held: Mapping[str, Sequence[ConnectionEvent]]) -> None:
        if self._client is None:
            self._client = self._connect()
        sent = [
            (self._client.publish(self._topic, self._pack(org_id, sightings).encode()), len(sightings))
            for org_id, sightings in held.items()
        ]
        for acknowledged, count in sent:
            try:
                acknowledged.result(timeout=_SECONDS)
            except Exception:  # noqa: BLE001 - whatever it is, `lost` tells it, and the queue goes on
                self.lost(count)
