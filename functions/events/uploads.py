"""onUpload: imports the new objects that an object store reports.

    Amazon S3      its notification, direct or carried by SQS, SNS or EventBridge
    Google         google.cloud.storage.object.v1.finalized, a CloudEvent
    this machine   files below TRUST_DATA/uploads (functions/events/folder.py)

A refused upload has a receipt and needs no second delivery. An error makes the platform deliver the whole event again;
objects that were imported already have their receipt and are skipped.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote_plus

from shared.composition import App
from shared.config import Settings, WrongSetting
from shared.ports import ObjectReader, UploadedObject
from shared.usecases.jobs.uploads import ForeignBucket
from shared.usecases.jobs.uploads import on_upload as import_object

log = logging.getLogger(__name__)

GCS_FINALIZED: Final = "google.cloud.storage.object.v1.finalized"
_GCS_SOURCE: Final = "//storage.googleapis.com/projects/_/buckets/"
_DEPTH: Final = 4  # S3 in SNS in SQS, and one more


def upload_bucket(settings: Settings) -> str:
    """Return the only bucket whose events are accepted. Raises: WrongSetting, if none is configured."""
    if settings.upload_bucket is None:
        raise WrongSetting("onUpload needs TRUST_UPLOAD_BUCKET, the name of the only bucket whose events it believes.")
    return settings.upload_bucket


def import_all(app: App, objects: ObjectReader, uploads: Iterable[UploadedObject], *, bucket: str) -> None:
    """Import each object of *bucket*; a failure does not keep the others from being imported.

    Raises: the first failure, after all objects were tried, so that the platform delivers the event again.
    """
    failure: Exception | None = None
    for upload in uploads:
        try:
            outcome = import_object(app.context, app.sealer, objects, upload, bucket=bucket)
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


def parse_s3(event: object, *, depth: int = 0) -> Iterator[UploadedObject]:
    """Return the new objects in an event; none for s3:TestEvent, removals, and events of other sources.

    Source: Amazon S3 User Guide, "Event message structure", "EventBridge event message structure".
    """
    if not isinstance(event, Mapping) or depth >= _DEPTH:
        _log_unknown_event()
    elif event.get("source") == "aws.s3":
        yield from _parse_event_bridge(event)
    elif event.get("Event") == "s3:TestEvent":
        log.info("the test event of the bucket's notifications arrived")
    elif event.get("Type") == "Notification":
        yield from _parse_nested(event.get("Message"), depth)
    elif isinstance(event.get("Records"), list):
        for record in event["Records"]:
            yield from _parse_record(record, depth)
    else:
        _log_unknown_event()


def _parse_record(record: object, depth: int) -> Iterator[UploadedObject]:
    if not isinstance(record, Mapping):
        return _log_unknown_event()
    match record.get("eventSource") or record.get("EventSource"):
        case "aws:sqs":
            yield from _parse_nested(record.get("body"), depth)
        case "aws:sns":
            yield from _parse_nested(_at(record, "Sns", "Message"), depth)
        case "aws:s3":
            if str(record.get("eventName")).removeprefix("s3:").startswith("ObjectCreated:"):
                s3_object = _at(record, "s3", "object")
                # Keys are form-encoded here ("red+flower.jpg" is "red flower.jpg") and must be decoded exactly once.
                key = unquote_plus(str(_at(s3_object, "key") or ""))
                yield from _object(
                    _at(record, "s3", "bucket", "name"), key, _at(s3_object, "versionId"), _at(s3_object, "eTag")
                )
        case _:
            _log_unknown_event()


def _parse_event_bridge(event: Mapping[str, Any]) -> Iterator[UploadedObject]:
    if event.get("detail-type") == "Object Created":
        s3_object = _at(event, "detail", "object")  # keys are not encoded here
        yield from _object(
            _at(event, "detail", "bucket", "name"),
            _at(s3_object, "key"),
            _at(s3_object, "version-id"),
            _at(s3_object, "etag"),
        )


def _parse_nested(text: object, depth: int) -> Iterator[UploadedObject]:
    try:
        event = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        event = None
    yield from parse_s3(event, depth=depth + 1)


# ------------------------------------------------------------------------------------------------------- Google


def parse_gcs(kind: object, source: object, data: object) -> Iterator[UploadedObject]:
    """Return the object in a CloudEvent (Eventarc, "CloudEvents format for Cloud Storage"; StorageObjectData).

    Source and data both name the bucket; an event in which they differ is skipped.
    """
    if kind != GCS_FINALIZED:
        return _log_unknown_event()
    bucket = _at(data, "bucket")
    if source != f"{_GCS_SOURCE}{bucket}":
        return _log_unknown_event()
    generation = _at(data, "generation")
    yield from _object(bucket, _at(data, "name"), str(generation) if generation else None, None)


# ------------------------------------------------------------------------------------------------------- both


def _object(bucket: object, key: object, version: object, etag: object) -> Iterator[UploadedObject]:
    if not (isinstance(bucket, str) and isinstance(key, str) and bucket and key):
        return _log_unknown_event()
    yield UploadedObject(
        bucket,
        key,
        version if isinstance(version, str) and version else None,
        etag if isinstance(etag, str) and etag else None,
    )


def _at(value: object, *names: str) -> Any:
    """Return the value at a path of names; None if there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _log_unknown_event() -> None:
    """Log an event without an object. This is no failure: a second delivery would bring the same event."""
    log.error("an event was skipped: it names no object")
