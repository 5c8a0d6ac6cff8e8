"""recordSightings: writes the connection events of the queue to the store.

An invocation brings many messages (SQS) or a single message (Pub/Sub). Messages of one organization are added up, and a
process writes an organization at most once a second. A message that cannot be read is dropped: a second delivery would
fail too.
"""

import base64
import binascii
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from shared.connection_records import ConnectionEventBatch
from shared.records import PLATFORM
from shared.usecases.context import Context
from shared.usecases.devices import usage
from shared.validation.names import is_org_id

log = logging.getLogger(__name__)

_PAUSE: Final = 1.0  # seconds between two writes of an organization
_ORGS_MAX: Final = 4096  # organizations whose last write is remembered

PUBSUB: Final = "google.cloud.pubsub.topic.v1.messagePublished"


class Recorder:
    """Writes batches of connection events, and limits how often an organization is written."""

    def __init__(
        self, *, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._now = now
        self._sleep = sleep
        self._due: dict[str, float] = {}  # organization -> when it may be written again

    def record(self, context: Context, bodies: Iterable[bytes | str]) -> int:
        """Write the batches in *bodies*. Return how many batches were read.

        Raises: StoreUnavailable, after every organization was tried. A batch that is delivered again is not counted
            again.
        """
        by_org: dict[str, list[ConnectionEventBatch]] = {}
        for batch in _batches(bodies):
            by_org.setdefault(batch.org_id, []).append(batch)
        failure: Exception | None = None
        for org_id, batches in by_org.items():
            self._wait(org_id)
            try:
                usage.add_batches(context.repository, org_id, batches)
            except Exception as error:  # noqa: BLE001 - raised below, after the other organizations
                failure = failure or error
        if failure is not None:
            raise failure
        return sum(map(len, by_org.values()))

    def _wait(self, org_id: str) -> None:
        now = self._now()
        due = self._due.pop(org_id, now)
        if due > now:  # no client waits for this function
            self._sleep(due - now)
        while len(self._due) >= _ORGS_MAX:
            self._due.pop(next(iter(self._due)))
        self._due[org_id] = self._now() + _PAUSE


RECORDER: Final = Recorder()
"""The recorder of this process."""


def _batches(bodies: Iterable[bytes | str]) -> Iterator[ConnectionEventBatch]:
    for body in bodies:
        try:
            batch = ConnectionEventBatch.decode(body)
        except ValueError:
            log.error("a message was dropped: it holds no connection events")
            continue
        has_owner = is_org_id(batch.org_id) or batch.org_id == PLATFORM
        if has_owner and all(refusal.org_id == batch.org_id for refusal in batch.refusals):
            yield batch
        else:
            log.error("a message was dropped: its connection events do not belong to one organization")


def parse_sqs(event: object) -> Iterator[str]:
    """Return the bodies of an SQS event's messages (Lambda Developer Guide, "Using Lambda with Amazon SQS")."""
    records = event.get("Records") if isinstance(event, Mapping) else None
    for record in records if isinstance(records, list) else ():
        if (
            isinstance(record, Mapping)
            and record.get("eventSource") == "aws:sqs"
            and isinstance(record.get("body"), str)
        ):
            yield record["body"]


def parse_pubsub(kind: object, data: Any) -> Iterator[bytes]:
    """Return the message of a CloudEvent (Eventarc, MessagePublishedData); empty if it cannot be decoded."""
    message = data.get("message") if kind == PUBSUB and isinstance(data, Mapping) else None
    encoded = message.get("data") if isinstance(message, Mapping) else None
    try:
        yield base64.b64decode(encoded, validate=True) if isinstance(encoded, str) else b""
    except (binascii.Error, ValueError):
        yield b""
