"""onUpload: an object store tells of a new object; what was uploaded is imported.

    Amazon S3      its notification, as it is, or carried by SQS, SNS or EventBridge
    Google         google.cloud.storage.object.v1.finalized, a CloudEvent
    this machine   files below TRUST_DATA/uploads (functions/events/folder.py)

Refusals are receipts, so the platform has nothing to repeat. What raises is meant to be delivered again, all
of it: what had been taken has its receipt, and is left alone.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote_plus

from shared.composition import App
from shared.ports import ObjectReader, UploadedObject
from shared.usecases.jobs.uploads import ForeignBucket
from shared.usecases.jobs.uploads import on_upload as usecase

log = logging.getLogger(__name__)

GCS_FINALIZED: Final = "google.cloud.storage.object.v1.finalized"
_GCS_SOURCE: Final = "//storage.googleapis.com/projects/_/buckets/"
_DEPTH: Final = 4  # S3 in SNS in SQS, and one to spare


def take(app: App, objects: ObjectReader, uploads: Iterable[UploadedObject], *, bucket: str) -> None:
    """Import each; one that fails does not hold up the others.

    Raises: the first failure, after all were tried, so that the platform delivers the event again."""
    failure: Exception | None = None
    for one in uploads:
        try:
            outcome = usecase(app.context, app.sealer, objects, one, bucket=bucket)
        except ForeignBucket:
            log.error("an event of another bucket was refused: TRUST_UPLOAD_BUCKET names the only one")
        except Exception as error:  # noqa: BLE001 - raised below
            log.warning("an upload will be tried again: %s", type(error).__name__)
            failure = failure or error
        else:
            log.info("an upload ended", extra={"end": str(outcome.end), "code": outcome.code})
    if failure is not None:
        raise failure


# ---------------------------------------------------------------------------------------------------- Amazon S3


def s3_uploads(event: object, *, depth: int = 0) -> Iterator[UploadedObject]:
    """The objects an event tells of (Amazon S3 User Guide, "Event message structure", "EventBridge event message
    structure"); none for s3:TestEvent, removals, and what is no event of S3's."""
    if not isinstance(event, Mapping) or depth >= _DEPTH:
        _not_understood()
    elif event.get("source") == "aws.s3":
        yield from _from_event_bridge(event)
    elif event.get("Event") == "s3:TestEvent":
        log.info("the bucket's notifications are wired: its test event arrived")
    elif event.get("Type") == "Notification":
        yield from _inside(event.get("Message"), depth)
    elif isinstance(event.get("Records"), list):
        for record in event["Records"]:
            yield from _from_record(record, depth)
    else:
        _not_understood()


def _from_record(record: object, depth: int) -> Iterator[UploadedObject]:
    if not isinstance(record, Mapping):
        return _not_understood()
    match record.get("eventSource") or record.get("EventSource"):
        case "aws:sqs":
            yield from _inside(record.get("body"), depth)
        case "aws:sns":
            yield from _inside(_at(record, "Sns", "Message"), depth)
        case "aws:s3":
            if str(record.get("eventName")).removeprefix("s3:").startswith("ObjectCreated:"):
                found = _at(record, "s3", "object")
                # Names are form-encoded here ("red+flower.jpg" is "red flower.jpg"): once, however they then look.
                key = unquote_plus(str(_at(found, "key") or ""))
                yield from _object(
                    _at(record, "s3", "bucket", "name"), key, _at(found, "versionId"), _at(found, "eTag")
                )
        case _:
            _not_understood()


def _from_event_bridge(event: Mapping[str, Any]) -> Iterator[UploadedObject]:
    if event.get("detail-type") == "Object Created":
        found = _at(event, "detail", "object")  # names stand here as they are
        yield from _object(
            _at(event, "detail", "bucket", "name"), _at(found, "key"), _at(found, "version-id"), _at(found, "etag")
        )


def _inside(text: object, depth: int) -> Iterator[UploadedObject]:
    try:
        event = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        event = None
    yield from s3_uploads(event, depth=depth + 1)


# ------------------------------------------------------------------------------------------------------- Google


def gcs_uploads(kind: object, source: object, data: object) -> Iterator[UploadedObject]:
    """The object a CloudEvent tells of (Eventarc, "CloudEvents format for Cloud Storage"; StorageObjectData). Its
    bucket stands in the source and in the data: where they differ, neither is believed."""
    if kind != GCS_FINALIZED:
        return _not_understood()
    bucket = _at(data, "bucket")
    if source != f"{_GCS_SOURCE}{bucket}":
        return _not_understood()
    generation = _at(data, "generation")
    yield from _object(bucket, _at(data, "name"), str(generation) if generation else None, None)


# ------------------------------------------------------------------------------------------------------- of both


def _object(bucket: object, key: object, version: object, etag: object) -> Iterator[UploadedObject]:
    if not (isinstance(bucket, str) and isinstance(key, str) and bucket and key):
        return _not_understood()
    yield UploadedObject(
        bucket,
        key,
        version if isinstance(version, str) and version else None,
        etag if isinstance(etag, str) and etag else None,
    )


def _at(value: object, *names: str) -> Any:
    """What stands at a path of names; None where nothing does."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _not_understood() -> None:
    """A retry would bring the same again, so this is no failure."""
    log.error("an event was left alone: it does not tell of an object")
