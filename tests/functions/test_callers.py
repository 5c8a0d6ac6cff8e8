"""Which brokers and edges call, and which of their calls are refused: shown to the organization."""

import json
import logging
import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import reduce
from itertools import permutations
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from functions.admin import main
from shared.composition import build
from shared.connection_records import (
    AnsweredCalls,
    CallFailure,
    CAUse,
    FailedCalls,
    FailedHour,
    Form,
    HourOfCalls,
    KeyCalls,
    LastConnection,
    LastFailure,
    Usage,
)
from shared.ports import MAX_BODY_BYTES, Key
from shared.records import Proof, Role
from shared.refs import api_key_ref
from shared.usecases.callers import label_key
from shared.usecases.devices.calls import KEYS_MAX, add_calls, count_calls, find_failing_since, merge
from shared.usecases.devices.usage import read_calls
from shared.usecases.organization import get_organization
from shared.usecases.orgs.api_keys import revoke_key
from shared.validation.policy import Presence
from tests.support import certs
from tests.support.harness import Client, Service, make_current_service

VERIFY = "/authorization/verifyclient"
WITHDRAWALS = "//edge/v1/withdrawals"
DIALECTS: dict[str, dict[str, Any]] = {
    "emqx": {"clientid": "d:mtxpd0:thermo:42"},
    "rabbitmq/user": {"username": "d:thermo:42"},
    "rabbitmq/topic": {"username": "d:thermo:42", "routing_key": "a", "name": "amq.topic", "permission": "read"},
    "vernemq": {"username": "d:thermo:42", "client_id": "d:mtxpd0:thermo:42"},
    "mosquitto/getuser": {"username": "d:thermo:42", "clientid": "d:mtxpd0:thermo:42"},
    "envoy": {},
    "nginx": {},
    "aws-iot": {"protocolData": {}},
}


def listed(service: Service) -> dict[str, Any]:
    service.flush()
    callers = service.client("viewer").get("/callers").ok()["results"]
    return {caller["key"]: {**caller, **first_failure(caller)} for caller in callers}


def first_failure(caller: dict[str, Any]) -> dict[str, Any]:
    failing = next(iter(caller["failures"]), {"failure": None, "since": None, "reason": "", "mend": ""})
    return {"failingSince": failing["since"], **failing}


def sums(caller: dict[str, Any]) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for hour in caller["hours"]:
        totals.update({name: hour[name] for name in ("answered", "denied", "continued")})
        totals.update(hour["failed"])
    return dict(+totals)


def ask(broker: Client, **fields: Any) -> None:
    broker.post(VERIFY, {"serverName": "mtxpd0.messaging.example.com", "clientId": "d:mtxpd0:thermo:42", **fields})


def warnings(caplog: pytest.LogCaptureFixture) -> list[Any]:
    logged = [vars(record)["keys"] for record in caplog.records if "known API key" in record.message]
    caplog.clear()
    return logged


def test_the_calls_of_a_broker_are_counted_by_hour(service: Service) -> None:
    """Verdicts, refusals among them, and what the broker passed; of the last 24 hours and the last 7 days."""
    broker = service.client("broker")
    root = certs.ca("Factory Root")
    service.client("operator").post("/authentication/cacertificates", {"certificate": root.pem}).ok(201)
    line = certs.ca("Line CA", root)
    device = certs.leaf("d:thermo:42", line)
    ask(broker, certificate=certs.bundle(device, line), serverName=service.host())
    ask(broker, certificate=device.pem, serverName=service.host())
    service.clock.now += timedelta(hours=1)
    ask(broker, serverName=service.host())
    caller = listed(service)[broker.key]
    assert [(hour["hour"], hour["answered"], hour["denied"]) for hour in caller["hours"]] == [
        ("2026-06-01T13:00:00Z", 1, 1),
        ("2026-06-01T12:00:00Z", 2, 1),
    ]
    assert caller["lastCallAt"] == "2026-06-01T13:00:00Z"
    assert caller["passed"] == {
        "chain": "2026-06-01T12:00:00Z",
        "certificate": "2026-06-01T12:00:00Z",
        "nothing": "2026-06-01T13:00:00Z",
    }
    assert (caller["role"], caller["platform"], caller["failure"]) == ("broker", False, None)
    assert list(caller["dialects"]) == ["native"]
    service.clock.now += timedelta(days=2)
    assert listed(service)[broker.key]["hours"] == []
    assert listed(service)[broker.key]["lastCallAt"] == "2026-06-01T13:00:00Z"


def test_what_is_left_to_the_token_is_counted(service: Service) -> None:
    level = "TLS with Token Authentication"
    service.client("operator").put("/authorization/connectionpolicy", {"default": level}).ok()
    broker = service.client("broker")
    ask(broker, serverName=service.host())
    assert sums(listed(service)[broker.key]) == {"answered": 1, "continued": 1}


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("failure", ["wrong_token", "key_revoked", "wrong_role"])
def test_a_refused_caller_is_seen_in_every_dialect(service: Service, dialect: str, failure: str) -> None:
    """Also where the dialect answers 200 to everything."""
    caller = service.client("operator" if failure == "wrong_role" else "broker")
    if failure == "key_revoked":
        revoke_key(service.app.context, caller.key)
    if failure == "wrong_token":
        caller = Client(service.app, caller.key, "not-the-token")
    for _ in range(3):
        service.clock.now += timedelta(seconds=1)
        caller.post(f"/verifyClient/{dialect}", DIALECTS[dialect], headers={"vernemq-hook": "auth_on_register"})
    record = listed(service)[caller.key]
    assert (record["failure"], record["failingSince"]) == (failure, "2026-06-01T12:00:01Z")
    assert sum(sums(record).values()) == 3
    assert caller.key in record["reason"]
    assert record["mend"]


def test_an_edge_is_seen_that_is_refused(service: Service) -> None:
    """At the feed as well; and a good call ends the failure."""
    edge = service.client("edge")
    Client(service.app, edge.key, "not-the-token").get(WITHDRAWALS)
    assert listed(service)[edge.key]["failure"] == "wrong_token"
    service.clock.now += timedelta(seconds=1)
    edge.get(WITHDRAWALS).ok()
    caller = listed(service)[edge.key]
    assert (caller["failure"], caller["lastCallAt"]) == (None, "2026-06-01T12:00:01Z")


def test_following_the_advice_ends_the_failure(service: Service) -> None:
    """The token that was shown when the key was created."""
    right = service.client("broker")
    ask(Client(service.app, right.key, "not-the-token"), serverName=service.host())
    assert "functions.admin key create --org mtxpd0 --role broker" in listed(service)[right.key]["mend"]
    service.clock.now += timedelta(seconds=1)
    ask(right, serverName=service.host())
    assert listed(service)[right.key]["failure"] is None


@pytest.mark.stores("sqlite")
def test_a_failure_that_returns_is_shown_again(service: Service) -> None:
    """Also where the answers are in another document than the failures, as with an edge."""
    for role, url in (("broker", None), ("edge", WITHDRAWALS)):
        right = service.client(role)
        wrong = Client(service.app, right.key, "not-the-token")
        call: Callable[[Client], Any] = ask if url is None else lambda client: client.get(WITHDRAWALS)
        for _ in range(3):
            service.clock.now += timedelta(minutes=5)
            failed_at = service.clock.now
            call(wrong)
            caller = listed(service)[right.key]
            assert (caller["failure"], caller["failingSince"]) == ("wrong_token", f"{failed_at:%FT%TZ}")
            service.clock.now += timedelta(minutes=5)
            call(right)
            assert listed(service)[right.key]["failure"] is None


def test_a_topic_check_that_is_answered_ends_the_failure(service: Service) -> None:
    """With long sessions, a broker may ask about nothing but topics for hours."""
    broker = service.client("broker", proof=Proof.BROKER)
    fields = DIALECTS["rabbitmq/topic"]
    Client(service.app, broker.key, "not-the-token").post("/verifyClient/rabbitmq/topic", fields)
    assert listed(service)[broker.key]["failure"] == "wrong_token"
    service.clock.now += timedelta(seconds=1)
    assert broker.post("/verifyClient/rabbitmq/topic", fields).status == 200
    caller = listed(service)[broker.key]
    assert (caller["failure"], caller["lastCallAt"], sums(caller)) == (None, "2026-06-01T12:00:01Z", {"wrong_token": 1})


def test_many_topic_checks_make_one_event_in_ten_seconds(service: Service) -> None:
    offered: list[Any] = []
    counter = service.app.context.call_counter
    counter._offer = offered.append
    for _ in range(100):
        service.clock.now += timedelta(milliseconds=200)
        counter.note_answered("mtxpd0", "a-mtxpd0-AAAAAAAAAA")
    assert len(offered) == 2


def test_a_failure_is_over_an_hour_after_the_last_call(service: Service) -> None:
    """The broker may have a new key since. The next failure begins anew."""
    wrong = Client(service.app, service.client("broker").key, "not-the-token")
    ask(wrong)
    assert listed(service)[wrong.key]["failure"] == "wrong_token"
    service.clock.now += timedelta(hours=1)
    assert listed(service)[wrong.key]["failure"] is None
    service.clock.now += timedelta(hours=3)
    ask(wrong)
    assert listed(service)[wrong.key]["failingSince"] == "2026-06-01T16:00:00Z"


def test_a_failure_that_lasts_has_its_first_call_as_its_start(service: Service) -> None:
    """Over the border of hours and of days."""
    wrong = Client(service.app, service.client("broker").key, "not-the-token")
    for _ in range(20):
        service.clock.now += timedelta(minutes=59)
        ask(wrong)
        caller = listed(service)[wrong.key]
        assert caller["failingSince"] == "2026-06-01T12:59:00Z"


@pytest.mark.parametrize("role", ["viewer", "operator", "broker"])
def test_a_person_who_mistypes_a_token_is_no_broker_that_is_refused(service: Service, role: str) -> None:
    """Nor is a script that calls with a role too low: only calls for brokers and edges count."""
    caller = service.client(role)
    Client(service.app, caller.key, "not-the-token").get("/authentication/cacertificates")
    Client(service.app, caller.key, "not-the-token").post(VERIFY, {"explain": True, "clientId": "a"})
    caller.put("/authorization/connectionpolicy", {"default": "TLS Optional"})
    assert not [caller for caller in listed(service).values() if caller["failure"]]


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize(
    ("role", "options", "called", "expected"),
    [
        ("operator", {}, VERIFY, "--role broker"),
        ("viewer", {}, WITHDRAWALS, "--role edge"),
        ("broker", {}, WITHDRAWALS, "--role edge"),
        ("edge", {}, VERIFY, "--role broker"),
        ("broker", {"no_sni": True}, WITHDRAWALS, "--role edge"),
    ],
)
def test_the_advice_for_a_wrong_role_has_the_right_role(
    service: Service, role: str, options: dict[str, Any], called: str, expected: str
) -> None:
    """Broker and edge have two keys. An answer of another function does not end this failure."""
    caller = service.client(role, **options)
    for client in (Client(service.app, caller.key, "not-the-token"), caller):
        ask(client) if called == VERIFY else client.get(called)
        record = listed(service)[caller.key]
        assert f"(python -m functions.admin key create --org mtxpd0 {expected})" in record["mend"]
        assert f"the key has the role {role}" in record["reason"]
        service.clock.now += timedelta(seconds=1)
    caller.get(WITHDRAWALS) if called == VERIFY else ask(caller, serverName=service.host())
    assert "wrong_role" in [failing["failure"] for failing in listed(service)[caller.key]["failures"]]


def test_each_failure_of_a_key_has_its_own_times(service: Service) -> None:
    """A broker and an edge may share a key, and one may hide the trouble of the other."""
    right = service.client("broker")
    wrong = Client(service.app, right.key, "not-the-token")
    ask(wrong)
    service.clock.now += timedelta(minutes=1)
    ask(right, serverName=service.host())
    service.clock.now += timedelta(minutes=29)
    right.get(WITHDRAWALS)
    failures = listed(service)[right.key]["failures"]
    assert [(failing["failure"], failing["since"]) for failing in failures] == [("wrong_role", "2026-06-01T12:30:00Z")]
    service.clock.now += timedelta(minutes=1)
    ask(wrong)
    failures = listed(service)[right.key]["failures"]
    assert [(failing["failure"], failing["since"]) for failing in failures] == [
        ("wrong_token", "2026-06-01T12:31:00Z"),
        ("wrong_role", "2026-06-01T12:30:00Z"),
    ]


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize("role", ["broker", "operator"])
@pytest.mark.parametrize("dialect", ["rabbitmq/user", "vernemq", "mosquitto/aclcheck"])
def test_the_key_of_the_advice_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str, dialect: str
) -> None:
    """The command is run as it is written, with the name of the listener. The same question is then allowed."""
    service = make_current_service(tmp_path)
    restrictions = {"proof": Proof.BROKER} if role == "broker" else {}
    caller = service.client(role, **restrictions)
    if role == "broker":
        record = api_key_ref("mtxpd0", caller.key)
        for attempt in service.app.context.of(get_organization(service.app.context.repository, "mtxpd0")).changing(
            record
        ):
            with attempt as key:
                assert key is not None
                attempt.write(msgspec.structs.replace(key, listener=None))  # a key of version 0.1.0
        revoke_key(service.app.context, caller.key)
    known = DIALECTS.get(dialect, {})
    fields = {**known, "username": "d:thermo:42", "clientid": "d:mtxpd0:thermo:42", "acc": "2",
              "topic": "mtxpd0/thermo/42/a"}  # fmt: skip
    url, headers = f"/verifyClient/{dialect}?listener=NAME", {"vernemq-hook": "auth_on_register"}
    refused = caller.post(url, fields, headers=headers)
    command = re.search(r"python -m functions\.admin (key create [^),]*)", listed(service)[caller.key]["mend"])
    assert command is not None
    monkeypatch.setenv("TRUST_DATA", str(tmp_path))
    made = json.loads(CliRunner().invoke(main, [*command[1].split(), "--json"]).stdout)
    allowed = Client(service.app, made["key"], made["token"]).post(url, fields, headers=headers)
    assert (refused.status, refused.text) != (allowed.status, allowed.text)
    assert (allowed.status, is_allow(allowed.text)) == (200, True), allowed.text


def is_allow(text: str) -> bool:
    return text == "allow" or json.loads(text) in ({"result": "ok"}, {"ok": True, "error": ""}, {"ok": True})


@pytest.mark.parametrize("failure", ["wrong_token", "key_revoked"])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"no_sni": True}, "--role broker --no-sni)"),
        ({"proof": Proof.BROKER}, "--role broker --proof broker)"),
        ({"proof": Proof.BROKER, "listener": "mqtts:8883"}, "--role broker --proof broker --listener mqtts:8883)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_advice_makes_a_key_with_the_same_restrictions(
    service: Service, failure: str, options: dict[str, Any], expected: str
) -> None:
    """A key without them would refuse each device."""
    broker = service.client("broker", **options)
    if failure == "key_revoked":
        revoke_key(service.app.context, broker.key)
    ask(Client(service.app, broker.key, "not-the-token"))
    caller = listed(service)[broker.key]
    assert (caller["failure"], expected in caller["mend"]) == (failure, True)


def test_the_refused_key_of_the_platform_is_seen_by_the_organizations_it_serves(service: Service) -> None:
    """By a label: its name is not for other organizations."""
    service.other_org("other1")
    broker, elsewhere = service.platform("broker"), service.platform("broker", orgs=["other1"])
    ask(broker, serverName=service.host())
    for client in (broker, elsewhere):
        service.clock.now += timedelta(seconds=1)
        revoke_key(service.app.context, client.key)
        ask(client, serverName=service.host())
    callers = {key: caller for key, caller in listed(service).items() if caller["platform"]}
    assert list(callers) == [label_key(broker.key)]
    caller = callers[label_key(broker.key)]
    assert caller["failure"] == "key_revoked"
    assert sums(caller) == {"answered": 1, "denied": 1, "key_revoked": 1}
    assert label_key(broker.key) in caller["mend"]


@pytest.mark.stores("sqlite")
def test_no_organization_sees_the_name_of_a_key_of_the_platform(service: Service) -> None:
    """Neither among the callers, nor among the edges, nor in the activity list."""
    broker, edge = service.platform("broker"), service.platform("edge")
    ask(broker, serverName=service.host())
    edge.get(WITHDRAWALS).ok()
    server = certs.server(service.host())
    body = {"certificate": server.pem, "privateKey": server.key_pem}
    uploaded = service.client("operator").post("/authentication/servercertificates", body).ok(201)
    service.client("operator").put("/authentication/servercertificates/active", {"id": uploaded["id"]}).ok()
    edge.get(f"//edge/v1/hosts/{service.host()}").ok()
    revoke_key(service.app.context, broker.key)
    ask(broker, serverName=service.host())
    service.flush()
    viewer = service.client("viewer")
    for path in ("/callers", "/edges", "/activity?kind=refusal", "/activity?kind=edge", "/activity"):
        answer = viewer.get(path)
        assert answer.ok()["results"], path
        assert "platform:" in answer.text, path
        assert broker.key not in answer.text, path
        assert edge.key not in answer.text, path


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize("is_revoked", [False, True])
def test_a_wrong_token_of_a_platform_key_alarms_no_organization(
    service: Service, is_revoked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Any stranger could cause the alarm at all of them. The log of the platform has the warning."""
    broker = service.platform("broker")
    if is_revoked:
        revoke_key(service.app.context, broker.key)
    ask(Client(service.app, broker.key, "not-the-token"), serverName=service.host())
    assert not [caller for caller in listed(service).values() if caller["failure"]]
    assert warnings(caplog) == [{broker.key: 1}]


def test_a_key_that_does_not_exist_leaves_nothing(service: Service) -> None:
    """A stranger could make up any number of keys."""
    ask(Client(service.app, "a-mtxpd0-AAAAAAAAAA", "token"))
    ask(Client(service.app, "a-absent-AAAAAAAAAA", "token"))
    ask(Client(service.app, "anything", "token"))
    assert "a-mtxpd0-AAAAAAAAAA" not in listed(service)


def test_one_warning_a_minute_names_the_refused_keys(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    first, other = service.client("broker").key, service.client("edge").key
    for key in (first, other, other):
        ask(Client(service.app, key, "not-the-token"))
    assert warnings(caplog) == [{first: 1}]
    service.clock.now += timedelta(seconds=60)
    ask(Client(service.app, first, "not-the-token"))
    assert warnings(caplog) == [{other: 2, first: 1}]


def test_a_flood_of_refused_calls_makes_one_event_a_second(service: Service) -> None:
    """All calls are counted. Events of connections keep their place in the queue."""
    offered: list[Any] = []
    counter = service.app.context.call_counter
    counter._offer = offered.append
    for _ in range(500):
        counter.note_refused("mtxpd0", "a-mtxpd0-AAAAAAAAAA", CallFailure.TOKEN, needed=Role.BROKER)
    service.clock.now += timedelta(seconds=1)
    counter.note_refused("mtxpd0", "a-mtxpd0-AAAAAAAAAA", CallFailure.TOKEN, needed=Role.BROKER)
    assert [event.count for event in offered] == [1, 500]


@pytest.mark.stores("sqlite")
def test_the_end_of_a_burst_does_not_hide_the_next_burst(service: Service) -> None:
    """The last calls of a burst are held; an answer, and later calls, must not be taken for one failure with them."""
    right = service.client("broker")
    wrong = Client(service.app, right.key, "not-the-token")
    for _ in range(2):
        ask(wrong)
        ask(wrong)
        service.clock.now += timedelta(minutes=5)
        ask(right, serverName=service.host())
        service.clock.now += timedelta(minutes=5)
    ask(wrong)
    caller = listed(service)[right.key]
    assert (caller["failure"], caller["failingSince"]) == ("wrong_token", "2026-06-01T12:20:00Z")
    assert sums(caller)["wrong_token"] == 5


def test_calls_that_were_held_count_in_their_own_hour(service: Service) -> None:
    """Not in the hour of the next burst, nor as one failure with it."""
    wrong = Client(service.app, service.client("broker").key, "not-the-token")
    ask(wrong)
    ask(wrong)
    service.clock.now += timedelta(hours=3)
    ask(wrong)
    caller = listed(service)[wrong.key]
    assert {hour["hour"][11:13]: hour["failed"]["wrong_token"] for hour in caller["hours"]} == {"12": 2, "15": 1}


def test_what_is_held_is_offered_when_a_process_knows_too_many_keys(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.call_counter._KEYS_MAX", 1)
    for key in (service.client("broker").key, service.client("broker").key):
        ask(Client(service.app, key, "not-the-token"))
        ask(Client(service.app, key, "not-the-token"))
    service.app.context.call_counter.flush()
    assert sum(sums(caller).get("wrong_token", 0) for caller in listed(service).values()) == 4


def test_what_a_process_holds_is_stored_at_its_end(tmp_path: Path) -> None:
    service = make_current_service(tmp_path)  # a store removes what has expired when it is opened
    broker = service.client("broker")
    for _ in range(3):
        ask(Client(service.app, broker.key, "not-the-token"))
    service.app.close()
    again = build(service.app.settings, clock=service.clock)
    calls = read_calls(again.context.repository, "mtxpd0", service.clock.now, 1).by_key[broker.key]
    again.close()
    assert [hour.failed["wrong_token"].count for hour in calls.hours.values()] == [3]


def test_no_document_that_a_verdict_reads_is_written(service: Service) -> None:
    """Each refused call changes the day's usage and nothing else."""
    wrong = Client(service.app, service.client("broker").key, "not-the-token")
    written: set[str] = set()

    def watch(name: str, key: Key | None, call: Callable[[], Any]) -> Any:
        if key is not None:
            written.add(key.partition)
        return call()

    service.store.between = watch
    ask(wrong, serverName=service.host())
    service.flush()
    assert written == {"usage/mtxpd0"}


def test_counts_of_several_processes_are_added_in_any_order() -> None:
    """Each order of the messages of a queue gives the same record."""

    def at(minute: int) -> datetime:
        return certs.NOON + timedelta(minutes=minute)

    def failed(minute: int) -> KeyCalls:
        time = at(minute)
        event = FailedCalls(org_id="mtxpd0", key="k", failure=CallFailure.TOKEN, count=2, since=time, at=time)
        return count_calls([event])[0]["k"]

    def failing_since(minute: int, *parts: KeyCalls) -> datetime | None:
        return find_failing_since(reduce(merge, parts), CallFailure.TOKEN, at(minute))

    answered = count_calls([AnsweredCalls(org_id="mtxpd0", key="k", at=at(5))])[0]["k"]
    parts = [failed(0), answered, failed(10), failed(65)]
    merged = {msgspec.json.encode(reduce(merge, order), order="deterministic") for order in permutations(parts)}
    assert len(merged) == 1
    assert reduce(merge, parts).hours["2026-06-01T12"].failed == {"wrong_token": FailedHour(4, 0, 600)}
    assert failing_since(66, *parts) == at(10)
    assert failing_since(11, failed(0), answered, failed(10)) == at(10)
    assert failing_since(11, failed(0), answered) is None
    assert failing_since(130, failed(0), failed(59), failed(120)) == at(120), "an hour without a call ends a failure"
    assert failing_since(130, failed(1), failed(59), failed(118)) == at(1)


def test_the_number_of_keys_in_a_day_is_bounded() -> None:
    callers: dict[str, KeyCalls] = {}
    add_calls(callers, {str(number): KeyCalls() for number in range(KEYS_MAX + 5)})
    assert len(callers) == KEYS_MAX


@pytest.mark.stores("sqlite")
def test_all_keys_of_several_days_are_listed(service: Service) -> None:
    """The limit is of a day. Where a day had more keys than it counts, the answer says so."""
    keys = [service.client("broker") for _ in range(KEYS_MAX + 1)]
    for broker in keys[: KEYS_MAX - 1]:
        ask(broker, serverName=service.host())
    service.flush()
    service.clock.now += timedelta(days=1)
    for broker in keys[KEYS_MAX - 1 :]:
        ask(broker, serverName=service.host())
    assert all(listed(service)[broker.key]["lastCallAt"] for broker in keys)
    assert service.client("viewer").get("/callers").ok()["complete"] is True
    for broker in keys:
        ask(broker, serverName=service.host())
    service.flush()
    assert service.client("viewer").get("/callers").ok()["complete"] is False


@pytest.mark.stores("sqlite")
def test_the_last_day_has_24_hours(service: Service) -> None:
    broker = service.client("broker")
    for _ in range(30):
        service.clock.now += timedelta(hours=1)
        ask(broker, serverName=service.host())
    hours = [hour["hour"] for hour in listed(service)[broker.key]["hours"]]
    assert (len(hours), hours[0], hours[-1]) == (24, "2026-06-02T18:00:00Z", "2026-06-01T19:00:00Z")


def test_the_usage_of_the_busiest_day_fits_into_a_document() -> None:
    """With as many CAs, clients and keys as are kept, and every reason for which a call can be refused."""
    at, many = certs.NOON, 123_456_789
    hour = HourOfCalls(
        answered=many,
        denied=many,
        continued=many,
        failed={failure.value: FailedHour(many, 3_599, 3_599) for failure in CallFailure},
        refused={"token_of_another": many, "user_name_missing": many},
    )
    calls = KeyCalls(
        answered_at=at,
        failures={failure.value: LastFailure(at, "broker") for failure in CallFailure},
        forms={form.value: at for form in Form},
        dialects={str(number) * 10: at for number in range(8)},
        hours={f"2026-06-01T{number:02}": hour for number in range(24)},
    )
    usage = Usage(
        cas={f"{number:016x}-{number:032x}": CAUse(many, at) for number in range(1_000)},
        clients={f"d:{'t' * 32}:{number:032}": LastConnection(True, Presence.VALID, at) for number in range(500)},
        batches=tuple(f"{number:012x}" for number in range(128)),
        callers={f"a-mtxpd0-{number:010}": calls for number in range(KEYS_MAX)},
    )
    assert len(msgspec.json.encode(usage)) < MAX_BODY_BYTES


@pytest.mark.parametrize("dialect", ["emqx", "rabbitmq/user", "vernemq", "mosquitto/getuser"])
def test_the_format_of_a_broker_that_passes_names_is_shown(service: Service, dialect: str) -> None:
    broker = service.client("broker", proof=Proof.BROKER)
    broker.post(f"/verifyClient/{dialect}", DIALECTS[dialect], headers={"vernemq-hook": "auth_on_register"})
    caller = listed(service)[broker.key]
    assert list(caller["dialects"]) == [dialect.partition("/")[0]]
    assert list(caller["passed"]) == (["nothing"] if dialect == "emqx" else ["names"])


def test_a_refusal_says_who_asked(service: Service) -> None:
    """The list of refusals has the broker's key, its format, and what it passed."""
    broker = service.client("broker")
    device = certs.leaf("d:thermo:42", certs.ca("Unknown CA"))
    fields = {"clientid": "d:mtxpd0:thermo:42", "cert_pem": device.pem, "tls": True, "serverName": service.host()}
    broker.post("/verifyClient/emqx", fields)
    service.flush()
    (refusal,) = service.client("viewer").get("/activity?kind=refusal").ok()["results"]
    assert (refusal["askedBy"], refusal["dialect"], refusal["passed"]) == (broker.key, "emqx", "certificate")


def test_clients_that_an_edge_refused_by_itself_are_counted(service: Service) -> None:
    """With a token of another client, for example. Of other organizations than the edge's nothing is counted."""
    service.other_org("other1")
    own, platform = service.client("edge"), service.platform("edge")
    refused = [
        {"org": org, "code": "token_of_another", "count": count} for org, count in (("mtxpd0", 3), ("other1", 5))
    ]
    assert own.post("//edge/v1/refused", {"edge": "hall-1", "refused": refused}).ok() == {"counted": 3}
    unknown = [{"org": "absent", "code": "user_name_missing", "count": 1}]
    assert platform.post("//edge/v1/refused", {"edge": "hall-2", "refused": [*refused, *unknown]}).ok()["counted"] == 8
    callers = listed(service)
    for key in (own.key, label_key(platform.key)):
        assert callers[key]["hours"][0]["refused"] == {"token_of_another": 3}
        assert callers[key]["failure"] is None
    newer = {"edge": "hall-1", "refused": [{"org": "mtxpd0", "code": "of_a_later_version", "count": 1}]}
    assert own.post("//edge/v1/refused", newer).ok() == {"counted": 0}, "the edge would repeat the report for ever"
    wrong = {"edge": "hall-1", "refused": [{"org": "mtxpd0", "code": "No code", "count": 1}]}
    assert own.post("//edge/v1/refused", wrong).status == 400
    assert service.client("broker").post("//edge/v1/refused", newer).status == 403


@pytest.mark.stores("sqlite")
def test_a_report_of_an_edge_is_one_event_of_each_organization_and_code(service: Service) -> None:
    """An edge must not fill the queue of connection events with repetitions."""
    offered: list[Any] = []
    service.app.queue.offer = offered.append  # type: ignore[method-assign, assignment]
    refused = [{"org": "mtxpd0", "code": "token_of_another", "count": 2}] * 500
    assert service.client("edge").post("//edge/v1/refused", {"edge": "e", "refused": refused}).ok() == {"counted": 1000}
    assert [event.count for event in offered] == [1000]
