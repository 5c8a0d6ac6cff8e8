"""Entry points on AWS Lambda of what the platform calls (functions/routes.py, EVENTS)."""

from functools import cache
from typing import Any

from functions.events.expiry import expiry_report as report
from functions.events.sightings import sqs_bodies
from functions.events.uploads import s3_uploads, take
from functions.hosts.event_app import app, record, upload_bucket
from shared import log
from shared.composition import s3_objects
from shared.ports import ObjectReader


@cache
def _objects() -> ObjectReader:
    return s3_objects()


def on_upload(event: Any, context: Any) -> None:
    """A notification of S3, as it is or carried by SQS, SNS or EventBridge."""
    with log.request(_id(context)):
        take(app(), _objects(), s3_uploads(event), bucket=upload_bucket())


def record_sightings(event: Any, context: Any) -> None:
    """Messages of the queue behind the answer."""
    with log.request(_id(context)):
        record(app().context, sqs_bodies(event))


def expiry_report(event: Any, context: Any) -> None:
    """The daily schedule. What raises is called again (Lambda's own retries), and goes on where this ended."""
    with log.request(_id(context)):
        report(app(), seconds_left=lambda: context.get_remaining_time_in_millis() / 1000)


def _id(context: Any) -> str | None:
    return getattr(context, "aws_request_id", None)
