"""ConnectionEventQueue on Amazon SQS (TRUST_QUEUE=sqs:<queue URL>).

Each message is the batch of one organization and one second. recordSightings consumes the messages. A standard queue
may deliver a message twice; the consumer recognizes the duplicate by the id of the batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from shared.adapters.buffered_queue import BufferedQueue
from shared.connection_records import ConnectionEventBatch, QueuedEvent

# Limits of one SendMessageBatch (Amazon SQS API Reference). The size is the limit that all regions and all older queues
# accept.
_MESSAGES_MAX: Final = 10
_BYTES_MAX: Final = 256 * 1024


def _connect() -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "sqs", config=Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 3, "mode": "standard"})
    )


class Message(msgspec.Struct, frozen=True):
    """A message's body, which is ASCII (JSON of ids, error codes and base64), and the number of its events."""

    body: str
    count: int


class SqsQueue(BufferedQueue):
    """A queue that sends to an SQS queue.

    Args:
        url: the queue's URL.
        pack: makes a batch of an orgId and its events.
        connect: creates the client; called once, in the queue's thread, before the first delivery.
        interval: seconds between two deliveries.
    """

    def __init__(
        self,
        url: str,
        pack: Callable[[str, Sequence[QueuedEvent]], ConnectionEventBatch],
        *,
        connect: Callable[[], Any] = _connect,
        interval: float = 1.0,
    ) -> None:
        """Store the arguments. No request is made."""
        super().__init__(interval=interval)
        self._url = url
        self._pack = pack
        self._connect = connect
        self._client: Any = None

    def _deliver(self, events_by_org: Mapping[str, Sequence[QueuedEvent]]) -> None:
        if self._client is None:
            self._client = self._connect()
        messages = [
            Message(self._pack(org_id, events).encode().decode(), len(events))
            for org_id, events in events_by_org.items()
        ]
        for request in split_requests(messages):
            entries = [{"Id": str(index), "MessageBody": message.body} for index, message in enumerate(request)]
            try:
                failures = self._client.send_message_batch(QueueUrl=self._url, Entries=entries).get("Failed", ())
            except Exception:  # noqa: BLE001 - logged; the other requests are still sent
                self._log_loss(sum(message.count for message in request))
                continue
            if failures:
                self._log_loss(sum(request[int(failure["Id"])].count for failure in failures))


def split_requests(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Split *messages* into requests that SQS accepts."""
    request: list[Message] = []
    size = 0
    for message in messages:
        if request and (len(request) == _MESSAGES_MAX or size + len(message.body) > _BYTES_MAX):
            yield request
            request, size = [], 0
        request.append(message)
        size += len(message.body)
    if request:
        yield request
