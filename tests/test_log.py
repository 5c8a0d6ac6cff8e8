"""The log: one JSON object a line, with the request's id; decisions as lines that become metrics."""

import asyncio
import json
import logging
import subprocess
import sys
import threading
from collections import Counter
from datetime import datetime
from typing import Any

import pytest

from shared import log
from shared.config import Settings, WrongSetting
from shared.errors import StoreUnavailable
from shared.log import Decisions, JsonLines, LineWriter
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


def test_the_access_line_of_a_function_has_the_requests_id(
    service: Service, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """The id is the one that the client or the gateway sent."""
    with caplog.at_level(logging.INFO):
        service.anonymous.get("//healthz", headers={"x-request-id": "abc-123"}).ok()
    [line] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line.pop("ms") >= 0
    assert line == {
        "severity": "INFO",
        "logger": "trust.access",
        "message": "answered",
        "request_id": "abc-123",
        "function": "health",
        "method": "GET",
        "status": 200,
    }


def test_requests_make_no_lines_where_the_level_is_higher(
    service: Service, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.WARNING):
        service.anonymous.get("//healthz").ok()
    assert capsys.readouterr().err == ""


# ---------------------------------------------------------------------------------------------------------- writes


class Writes:
    """Standard error that keeps each write apart."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts: list[str] = []
        monkeypatch.setattr("sys.stderr", self)

    def write(self, text: str) -> int:
        self.texts.append(text)
        return len(text)

    def flush(self) -> None:
        pass


def test_the_lines_of_a_turn_are_written_together_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    writes, lines = Writes(monkeypatch), LineWriter()

    async def answer(number: int) -> None:
        lines.wait_for_turns_of(asyncio.get_running_loop())
        lines.write(f"{number} decided\n")
        lines.write(f"{number} answered\n")

    async def run() -> None:
        await asyncio.gather(answer(1), answer(2))
        await asyncio.sleep(0)
        await answer(3)

    asyncio.run(run())
    assert writes.texts == ["1 decided\n1 answered\n2 decided\n2 answered\n", "3 decided\n3 answered\n"]


def test_a_line_of_another_thread_is_written_at_once_after_those_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    writes, lines = Writes(monkeypatch), LineWriter()

    async def run() -> None:
        lines.wait_for_turns_of(asyncio.get_running_loop())
        lines.write("first\n")
        other = threading.Thread(target=lines.write, args=("second\n",))
        other.start()
        other.join()
        assert writes.texts == ["first\nsecond\n"]
        lines.write("third\n")

    asyncio.run(run())
    assert "".join(writes.texts) == "first\nsecond\nthird\n"


def test_a_line_that_is_written_within_a_write_waits_for_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector may run anywhere, and what it deletes may write a line in the same thread."""
    lines = LineWriter()

    class Nested(Writes):
        def write(self, text: str) -> int:
            if text == "outer\n":
                lines.write("inner\n")
            return super().write(text)

    writes = Nested(monkeypatch)
    lines.write("outer\n")
    assert sorted(writes.texts) == ["inner\n", "outer\n"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("I/O operation on closed file")])
def test_a_log_that_cannot_be_written_ends_no_request(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    class Full(Writes):
        def write(self, text: str) -> int:
            raise error

    Full(monkeypatch)
    with caplog.at_level(logging.INFO):
        assert service.anonymous.get("//healthz").status == 200


def test_lines_without_a_loop_are_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS Lambda has no loop. A loop that is closed is none any more."""
    writes, lines = Writes(monkeypatch), LineWriter()
    lines.write("before\n")
    assert writes.texts == ["before\n"]

    async def run() -> None:
        lines.wait_for_turns_of(asyncio.get_running_loop())

    asyncio.run(run())
    lines.write("after\n")
    assert writes.texts == ["before\n", "after\n"]


def test_lines_that_a_loop_left_come_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop may end in the turn in which it has written."""
    writes, lines = Writes(monkeypatch), LineWriter()

    async def run(text: str) -> None:
        lines.wait_for_turns_of(asyncio.get_running_loop())
        asyncio.get_running_loop().stop()
        lines.write(text)

    for text in ("first\n", "second\n"):
        loop = asyncio.new_event_loop()
        task = loop.create_task(run(text))
        loop.run_forever()
        assert task.done()
        loop.close()
    lines.write("third\n")
    assert "".join(writes.texts) == "first\nsecond\nthird\n"


def test_a_loop_that_does_not_end_its_turn_keeps_no_more_than_some_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    writes, lines = Writes(monkeypatch), LineWriter()

    async def run() -> None:
        lines.wait_for_turns_of(asyncio.get_running_loop())
        for number in range(1000):
            lines.write(f"{number}\n")
        assert len("".join(writes.texts).splitlines()) > 700

    asyncio.run(run())
    assert "".join(writes.texts).splitlines() == list(map(str, range(1000)))


def test_a_process_writes_what_waits_before_it_ends() -> None:
    """Also where the process ends within a turn."""
    code = (
        "import asyncio, sys\n"
        "from shared import log\n"
        "async def run():\n"
        "    log.LINES.wait_for_turns_of(asyncio.get_running_loop())\n"
        "    log.LINES.write('answered\\n')\n"
        "    sys.exit(3)\n"
        "asyncio.run(run())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (3, "answered\n")


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
