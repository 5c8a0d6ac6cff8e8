"""The deployed entry points of recordSightings and expiryReport, and the table that deployments are checked against."""

import importlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from functions.events import expiry as expiry_report
from functions.hosts import aws_events
from functions.routes import EVENTS
from shared.usecases.devices.usage import read_recent_usage, summarize
from shared.usecases.jobs.expiry_report import Unfinished
from tests import certs
from tests.adapters.test_queues import make_event
from tests.events import recorded
from tests.functions.test_on_upload import Deployed, binary, deployed  # noqa: F401 - a fixture


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.function)
def test_every_event_function_has_its_entry_points(event: Any) -> None:
    """What the table names is there, in both clouds."""
    for name in (event.aws, event.gcp):
        module, _, function = name.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def framework(function: str) -> Any:
    """The real functions-framework, loading the function as its container does."""
    import functions_framework

    create_app: Any = functions_framework.create_app
    source = Path(aws_events.__file__).with_name("gcp_events.py")
    return create_app(function, str(source), "cloudevent").test_client()


def published(data: bytes) -> dict[str, Any]:
    event: dict[str, Any] = recorded("pubsub_message")
    event["data"]["message"]["data"] = msgspec.to_builtins(data)
    return event


class Context:
    """Lambda's, with so much time left."""

    aws_request_id = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(self._seconds * 1000)


def test_gcp_sightings_are_recorded(deployed: Deployed) -> None:  # noqa: F811
    """A Pub/Sub message through the framework's own CloudEvent path."""
    event = published(summarize("mtxpd0", [make_event()]).encode())
    assert binary(framework("record_sightings"), event).status_code == 200
    use = read_recent_usage(deployed.operator.app.context.repository, "mtxpd0", certs.NOON).of_ca("ca")
    assert use is not None
    assert use.count == 1


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_the_schedule_reports_what_ends(cloud: str, deployed: Deployed) -> None:  # noqa: F811
    """Whatever the schedule's own message says; once a day."""
    ca = certs.ca("Root", not_after=certs.NOON + certs.DAY)
    deployed.operator.post("/authentication/cacertificates", {"certificate": ca.pem}).ok(201)
    for _ in range(2):
        if cloud == "aws":
            aws_events.expiry_report({"source": "aws.events", "detail-type": "Scheduled Event"}, Context(600))
        else:
            assert binary(framework("expiry_report"), published(b"")).status_code == 200
    changes = deployed.operator.get("/activity?kind=change").ok()["results"]
    assert [one["result"] for one in changes if one["what"] == "expiryReport"] == ["within7"]


def test_a_lambda_whose_time_is_nearly_up_raises_so_that_it_is_called_again(deployed: Deployed) -> None:  # noqa: F811
    """What is done stays done."""
    with pytest.raises(Unfinished):
        aws_events.expiry_report({}, Context(10))


def test_the_report_can_be_asked_for_by_hand(
    deployed: Deployed,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    """python -m functions.events.expiry, on the configured store."""
    assert expiry_report.main() == 0
    assert json.loads(capsys.readouterr().out)["orgs"] == 1


def test_a_wrong_setting_is_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """And exit code 2, as with every command."""
    monkeypatch.setenv("TRUST_WEBHOOK", "http://example.com")
    assert expiry_report.main() == 2
    assert "TRUST_WEBHOOK takes" in capsys.readouterr().err
