"""Entry points on Google Cloud, or Knative, of what the platform calls (functions/routes.py, EVENTS).

CloudEvents, by functions-framework: FUNCTION_TARGET names one, FUNCTION_SIGNATURE_TYPE is `cloudevent`. Who may invoke
them is the platform's to check (IAM: only the trigger's own identity); what an event says is not believed all the same.
"""

from functools import cache
from typing import Any, Final

import functions_framework

from functions.events.expiry import expiry_report as report
from functions.events.expiry import until
from functions.events.sightings import pubsub_body
from functions.events.uploads import gcs_uploads, take
from functions.hosts.event_app import app, record, upload_bucket
from shared import log
from shared.composition import gcs_objects
from shared.ports import ObjectReader

_SECONDS: Final = 540.0  # the longest an event-driven function of Google's runs (Cloud Run functions, "Quotas")


@cache
def _objects() -> ObjectReader:
    return gcs_objects()


@functions_framework.cloud_event
def on_upload(event: Any) -> None:
    """google.cloud.storage.object.v1.finalized of the upload bucket."""
    with log.request(event["id"]):
        uploads = gcs_uploads(event["type"], event["source"], event.data)
        take(app(), _objects(), uploads, bucket=upload_bucket())


@functions_framework.cloud_event
def record_sightings(event: Any) -> None:
    """A message of the queue behind the answer."""
    with log.request(event["id"]):
        record(app().context, pubsub_body(event["type"], event.data))


@functions_framework.cloud_event
def expiry_report(event: Any) -> None:
    """The daily schedule (Cloud Scheduler publishes to a topic). What raises is delivered again."""
    with log.request(event["id"]):
        report(app(), seconds_left=until(_SECONDS))
