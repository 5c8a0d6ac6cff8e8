"""The log: one JSON object a line, with the request's id; decisions as lines that become metrics."""

import json
import logging
from collections import Counter
from typing import Any

import pytest

from shared import log
from shared.config import Settings, WrongSetting
from shared.errors import StoreUnavailable
from shared.log import Decisions, JsonLines
from tests.support import certs
from tests.support.harness import Service


def format_line(**extra: Any) -> dict[str, Any]:
    record = logging.makeLogRecord({"name": "x", "levelname": "INFO", "levelno": 20, "msg": "hello", **extra})
    line: dict[str, Any] = json.loads(JsonLines().format(record))
    return line


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
def test_a_request_keeps_its_id(headers: dict[str, str], expected: str) -> None:
    """An operator finds the lines of a request and those of the gateway under the same id."""
    assert log.get_request_id(headers) == expected


@pytest.mark.parametrize("value", ["", "a\nb", 'a"b', "x" * 129, "ü", "a b", "{}", "\x00", "-a", "a\n"])
def test_an_invalid_id_is_replaced(value: str) -> None:
    """No client can forge lines of the log, or flood the log."""
    request_id = log.get_request_id({"x-request-id": value})
    assert len(request_id) == 16
    assert int(request_id, 16) >= 0
    with log.request(value):
        assert format_line()["request_id"] != value


def test_every_line_of_a_request_has_its_id() -> None:
    """Lines outside a request have no id, also in a thread that handles several requests."""
    assert "request_id" not in format_line()
    with log.request("one"):
        assert format_line()["request_id"] == "one"
        with log.request("two"):
            assert format_line()["request_id"] == "two"
        assert format_line()["request_id"] == "one"
    assert "request_id" not in format_line()


def test_the_access_line_of_a_function_has_the_requests_id(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """The id is the one that the client or the gateway sent."""
    caplog.handler.setFormatter(JsonLines())
    with caplog.at_level(logging.INFO):
        service.anonymous.get("//healthz", headers={"x-request-id": "abc-123"}).ok()
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    assert [line["request_id"] for line in lines] == ["abc-123"]


# ------------------------------------------------------------------------------------------------------- decisions


class Lines:
    def __init__(self) -> None:
        self.text = ""

    def __call__(self, line: str) -> None:
        self.text += line

    @property
    def parsed(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


def test_a_decision_is_a_line_that_becomes_a_metric_in_both_clouds() -> None:
    """CloudWatch reads the embedded metric format. Cloud Logging reads the labels of a log-based metric."""
    lines = Lines()
    with log.request("abc-123"):
        Decisions("each", emit=lines, now=lambda: 1_780_315_200.5)("mtxpd0", "ca_expired", "deny")
    [line] = lines.parsed
    metrics = line["_aws"]["CloudWatchMetrics"][0]
    assert line["_aws"]["Timestamp"] == 1_780_315_200_500
    assert metrics["Namespace"] == "MQTTTrust"
    assert metrics["Metrics"] == [{"Name": "decisions", "Unit": "Count"}]
    assert metrics["Dimensions"] == [["code"], ["org", "code"]]
    members = {name for dimensions in metrics["Dimensions"] for name in dimensions}
    assert all(isinstance(line[name], str) for name in members), "a dimension's target is a string"
    assert line["decisions"] == 1, "a metric's target is a number"
    assert (line["logger"], line["org"], line["code"]) == ("trust.decisions", "mtxpd0", "ca_expired")
    assert (line["severity"], line["request_id"]) == ("INFO", "abc-123")
    assert line["time"] == "2026-06-01T12:00:00.500000+00:00"


def test_equal_decisions_of_a_second_can_share_a_line() -> None:
    """A busy broker causes one line for each combination of organization, code and decision."""
    lines = Lines()
    decisions = Decisions("second", emit=lines, interval=3600)
    for number in range(1000):
        decisions("mtxpd0" if number % 4 else "other1", "allowed", "allow")
    assert lines.text == ""
    decisions.flush()
    decisions.flush()
    assert Counter({line["org"]: line["decisions"] for line in lines.parsed}) == {"mtxpd0": 750, "other1": 250}


def test_the_number_of_combinations_in_memory_is_bounded() -> None:
    """Even if thousands of organizations decide in a second."""
    lines = Lines()
    decisions = Decisions("second", emit=lines, interval=3600)
    for number in range(2500):
        decisions(f"{number:06}", "allowed", "allow")
    assert len(lines.parsed) == 2000
    decisions.flush()
    assert len(lines.parsed) == 2500


def test_counting_decisions_can_be_switched_off() -> None:
    """TRUST_METRICS=off writes no lines."""
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
    """An allow, a refusal and an unavailable store count. An explanation for a person does not."""
    root = certs.ca("Root")
    service.client("operator").post("/authentication/cacertificates", {"certificate": root.pem}).ok(201)
    broker = service.client("broker")
    leaf = certs.leaf("d:thermo:42", root)
    fields = {"serverName": service.host(), "clientId": "d:mtxpd0:thermo:42", "certificate": leaf.pem}
    capsys.readouterr()
    broker.post("/authorization/verifyclient", fields).ok()
    broker.post("/authorization/verifyclient", {**fields, "clientId": "d:mtxpd0:thermo:43"}).ok()
    broker.post("/authorization/verifyclient", {**fields, "explain": True}).ok()
    service.platform().post(
        "/authorization/verifyclient", {**fields, "serverName": "nobody.messaging.example.com"}
    ).ok()

    def fail(*_: Any, **__: Any) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(service.store, "get_many", fail)
    broker.post("/authorization/verifyclient", fields).ok()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if "trust.decisions" in line]
    assert [(line["org"], line["decision"]) for line in lines] == [
        ("mtxpd0", "allow"),
        ("mtxpd0", "deny"),
        ("-", "deny"),
        ("-", "deny"),
    ]
    assert [line["code"] for line in lines][:2] == ["allowed", "identity_mismatch"]
    assert lines[3]["code"] == "unavailable"
