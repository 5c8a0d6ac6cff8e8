"""The log: one JSON object a line, with the request's id; and decisions in a form that becomes metrics by itself."""

import json
import logging
from collections import Counter
from typing import Any

import pytest

from shared import log
from shared.config import Settings, WrongSetting
from shared.errors import StoreUnavailable
from shared.log import Decisions, JsonLines
from tests import certs
from tests.harness import Service


def line(**extra: Any) -> dict[str, Any]:
    record = logging.makeLogRecord({"name": "x", "levelname": "INFO", "levelno": 20, "msg": "hello", **extra})
    found: dict[str, Any] = json.loads(JsonLines().format(record))
    return found


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-request-id": "abc-123"}, "abc-123"),
        ({"x-cloud-trace-context": "105445aa7843bc8bf206b12000100000/1;o=1"}, "105445aa7843bc8bf206b12000100000"),
        ({"x-amzn-trace-id": "Root=1-67891233-abcdef012345678912345678"}, "Root=1-67891233-abcdef012345678912345678"),
        ({"x-request-id": "abc", "x-cloud-trace-context": "def/1"}, "abc"),
        ({"x-request-id": "two words", "x-cloud-trace-context": "def/1"}, "def"),
    ],
)
def test_a_request_keeps_the_id_it_came_with(headers: dict[str, str], expected: str) -> None:
    """So that its lines are found together with the gateway's."""
    assert log.request_id_of(headers) == expected


@pytest.mark.parametrize("value", ["", "a\nb", 'a"b', "x" * 129, "ü", "a b", "{}", "\x00", "-a", "a\n"])
def test_what_does_not_look_like_an_id_is_replaced(value: str) -> None:
    """Whoever calls cannot write lines of the log, nor flood them."""
    found = log.request_id_of({"x-request-id": value})
    assert len(found) == 16
    assert int(found, 16) >= 0
    with log.request(value):
        assert log.current_request_id() != value


def test_every_line_of_a_request_has_its_id_and_others_do_not() -> None:
    """Also when requests follow each other in one thread."""
    assert "request_id" not in line()
    with log.request("one"):
        assert line()["request_id"] == "one"
        with log.request("two"):
            assert line()["request_id"] == "two"
        assert line()["request_id"] == "one"
    assert "request_id" not in line()


def test_the_functions_answer_under_the_requests_id(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """The access line and an error's line have the same one."""
    caplog.handler.setFormatter(JsonLines())
    with caplog.at_level(logging.INFO):
        service.anybody.get("//healthz", headers={"x-request-id": "abc-123"}).ok()
    found = [json.loads(one) for one in caplog.text.splitlines()]
    assert [one["request_id"] for one in found] == ["abc-123"]


# ------------------------------------------------------------------------------------------------------- decisions


class Lines:
    def __init__(self) -> None:
        self.text = ""

    def __call__(self, line: str) -> None:
        self.text += line

    @property
    def found(self) -> list[dict[str, Any]]:
        return [json.loads(one) for one in self.text.splitlines()]


def test_a_decision_is_a_line_that_becomes_a_metric_in_both_clouds() -> None:
    """CloudWatch: a valid Embedded Metric Format document. Cloud Logging: fields that a log-based metric labels by."""
    lines = Lines()
    with log.request("abc-123"):
        Decisions("each", emit=lines, now=lambda: 1_780_315_200.5)("mtxpd0", "ca_expired", "deny")
    [found] = lines.found
    metrics = found["_aws"]["CloudWatchMetrics"][0]
    assert found["_aws"]["Timestamp"] == 1_780_315_200_500
    assert metrics["Namespace"] == "MQTTTrust"
    assert metrics["Metrics"] == [{"Name": "decisions", "Unit": "Count"}]
    assert metrics["Dimensions"] == [["code"], ["org", "code"]]
    members = {name for dimensions in metrics["Dimensions"] for name in dimensions}
    assert all(isinstance(found[name], str) for name in members), "a dimension's target is a string"
    assert found["decisions"] == 1, "a metric's target is a number"
    assert (found["logger"], found["org"], found["code"]) == ("trust.decisions", "mtxpd0", "ca_expired")
    assert (found["severity"], found["request_id"]) == ("INFO", "abc-123")
    assert found["time"] == "2026-06-01T12:00:00.500000+00:00"


def test_decisions_of_a_second_can_be_put_together() -> None:
    """For a busy broker: as many lines as there are different ones."""
    lines = Lines()
    count = Decisions("second", emit=lines, pause=3600)
    for number in range(1000):
        count("mtxpd0" if number % 4 else "other1", "allowed", "allow")
    assert lines.text == ""
    count.flush()
    count.flush()
    assert Counter({one["org"]: one["decisions"] for one in lines.found}) == {"mtxpd0": 750, "other1": 250}


def test_what_is_put_together_is_bounded() -> None:
    """However many orgs decide in a second."""
    lines = Lines()
    count = Decisions("second", emit=lines, pause=3600)
    for number in range(2500):
        count(f"{number:06}", "allowed", "allow")
    assert len(lines.found) == 2000
    count.flush()
    assert len(lines.found) == 2500


def test_decisions_can_be_left_uncounted() -> None:
    """TRUST_METRICS=off."""
    lines = Lines()
    Decisions("off", emit=lines)("mtxpd0", "allowed", "allow")
    assert lines.text == ""
    assert Settings.from_env({"TRUST_METRICS": "OFF"}).metrics == "off"
    assert Settings.from_env({}).metrics == "each"
    with pytest.raises(WrongSetting, match="TRUST_METRICS"):
        Settings.from_env({"TRUST_METRICS": "some"})


def test_every_decision_is_counted_once(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Allowed, refused, unavailable; an explanation that a person asks for is no connection."""
    root = certs.ca("Root")
    service.client("operator").post("/authentication/cacertificates", {"certificate": root.pem}).ok(201)
    broker = service.client("broker")
    leaf = certs.leaf("d:thermo:42", root)
    asked = {"serverName": service.host(), "clientId": "d:mtxpd0:thermo:42", "certificate": leaf.pem}
    capsys.readouterr()
    broker.post("/authorization/verifyclient", asked).ok()
    broker.post("/authorization/verifyclient", {**asked, "clientId": "d:mtxpd0:thermo:43"}).ok()
    broker.post("/authorization/verifyclient", {**asked, "explain": True}).ok()
    service.platform().post("/authorization/verifyclient", {**asked, "serverName": "nobody.messaging.example.com"}).ok()

    def fails(*_: Any, **__: Any) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(service.store, "get_many", fails)
    broker.post("/authorization/verifyclient", asked).ok()
    lines = [json.loads(one) for one in capsys.readouterr().err.splitlines() if "trust.decisions" in one]
    assert [(one["org"], one["decision"]) for one in lines] == [
        ("mtxpd0", "allow"),
        ("mtxpd0", "deny"),
        ("-", "deny"),
        ("-", "deny"),
    ]
    assert [one["code"] for one in lines][:2] == ["allowed", "identity_mismatch"]
    assert lines[3]["code"] == "unavailable"
