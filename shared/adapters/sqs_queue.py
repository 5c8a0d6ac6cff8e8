"""ConnectionEventQueue on Amazon SQS (TRUST_QUEUE=sqs:<queue URL>): one message for an org and a second, added up.

recordSightings takes them from there. A standard queue may deliver a message twice; its batch's id tells.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from shared.adapters.held_queue import BufferedQueue
from shared.records import ConnectionEvent, ConnectionEventBatch

_MESSAGES_MAX: Final = 10  # in one request (SendMessageBatch)
_BYTES_MAX: Final = 256 * 1024  # of all of them together: what every region and every older queue takes


def _connect() -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "sqs", config=Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 3, "mode": "standard"})
    )


class SqsQueue(BufferedQueue):
    """The client is made at the first hand-over, in the queue's own thread."""

    def __init__(
        self,
        url: str,
        pack: Callable[[str, Sequence[ConnectionEvent]], ConnectionEventBatch],
        *,
        connect: Callable[[], Any] = _connect,
        pause: float = 1.0,
    ) -> None:
        super().__init__(pause=pause)
        self._url = url
        self._pack = pack
        self._connect = connect
        self._client: Any = None

    def _hand_on(self, held: Mapping[str, Sequence[ConnectionEvent]]) -> None:
        if self._client is None:
            self._client = self._connect()
        packed = [
            (self._pack(org_id, sightings).encode().decode(), len(sightings)) for org_id, sightings in held.items()
        ]
        for request in _requests(packed):
            entries = [{"Id": str(number), "MessageBody": body} for number, (body, _) in enumerate(request)]
            try:
                failed = self._client.send_message_batch(QueueUrl=self._url, Entries=entries).get("Failed", ())
            except Exception:  # noqa: BLE001 - whatever it is, `lost` tells it, and the queue goes on
                self.lost(sum(count for _, count in request))  # of this request; the others are still sent
                continue
            if failed:
                self.lost(sum(request[int(one["Id"])][1] for one in failed))


def _requests(packed: Sequence[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    """*packed* in portions that one request may carry."""
    request: list[tuple[str, int]] = []
    size = 0
    for one in packed:
        if request and (len(request) == _MESSAGES_MAX or size + len(one[0]) > _BYTES_MAX):
            yield request
            request, size = [], 0
        request.append(one)
        size += len(one[0])  # the messages are ASCII: msgspec's JSON of ids, names of the rules, base64
    if request:
        yield request
