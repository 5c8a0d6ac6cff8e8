"""The deployed entry points of recordSightings and expiryReport."""

import json
from typing import Any

import msgspec
import pytest

from functions.events import expiry
from functions.hosts import aws, gcp
from functions.registry import FUNCTIONS, Trigger
from shared.org_repository import OrgRepository
from shared.usecases.devices.usage import read_recent_usage, summarize
from shared.usecases.jobs.expiry_report import Unfinished
from tests.adapters.test_queues import make_event
from tests.functions.test_on_upload import MAIN, Deployed, binary, deployed  # noqa: F401 - a fixture
from tests.support import certs
from tests.support.events import load_event

EVENTS = [function for function in FUNCTIONS if function.trigger is not Trigger.HTTP]


@pytest.mark.parametrize("function", EVENTS, ids=lambda function: function.name)
def test_every_event_function_has_its_entry_points(function: Any) -> None:
    """Each function is a Lambda handler, and a functions-framework target of its own name."""
    assert callable(getattr(aws, function.handler))
    assert callable(gcp.target(function.name))


def framework(function: str) -> Any:
    """The real functions-framework, loading the function as its container does."""
    import functions_framework

    create_app: Any = functions_framework.create_app
    return create_app(function, str(MAIN), "cloudevent").test_client()


def published(data: bytes) -> dict[str, Any]:
    event: dict[str, Any] = load_event("pubsub_message")
    event["data"]["message"]["data"] = msgspec.to_builtins(data)
    return event


class Context:
    """Lambda's context, with the remaining time."""

    aws_request_id = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(self._seconds * 1000)


def test_gcp_sightings_are_recorded(deployed: Deployed) -> None:  # noqa: F811
    """A Pub/Sub message through the framework's own CloudEvent path."""
    event = published(summarize("mtxpd0", [make_event()]).encode())
    assert binary(framework("recordSightings"), event).status_code == 200
    use = read_recent_usage(OrgRepository(deployed.operator.app.context.repository, "mtxpd0", ""), certs.NOON).of_ca(
        "ca"
    )
    assert use is not None
    assert use.count == 1


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_the_schedule_reports_what_expires(cloud: str, deployed: Deployed) -> None:  # noqa: F811
    """The content of the schedule's message does not matter. A second call on the same day reports nothing."""
    ca = certs.ca("Root", not_after=certs.NOON + certs.DAY)
    deployed.operator.post("/authentication/cacertificates", {"certificate": ca.pem}).ok(201)
    for _ in range(2):
        if cloud == "aws":
            aws.expiry_report({"source": "aws.events", "detail-type": "Scheduled Event"}, Context(600))
        else:
            assert binary(framework("expiryReport"), published(b"")).status_code == 200
    changes = deployed.operator.get("/activity?kind=change").ok()["results"]
    assert [entry["result"] for entry in changes if entry["what"] == "expiryReport"] == ["within7"]


def test_a_lambda_without_time_raises_so_that_lambda_calls_again(deployed: Deployed) -> None:  # noqa: F811
    """The finished part of the report is kept."""
    with pytest.raises(Unfinished):
        aws.expiry_report({}, Context(10))


def test_the_report_can_be_run_by_hand(
    deployed: Deployed,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command python -m functions.events.expiry works on the configured store."""
    assert expiry.main() == 0
    assert json.loads(capsys.readouterr().out)["orgs"] == 1


def test_a_wrong_setting_is_reported_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 2, as with every command."""
    monkeypatch.setenv("TRUST_WEBHOOK", "http://example.com")
    assert expiry.main() == 2
    assert "TRUST_WEBHOOK takes" in capsys.readouterr().err
