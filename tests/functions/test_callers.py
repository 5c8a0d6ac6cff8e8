"""Which brokers and edges call, and what became of their calls: shown to the organization, also if all are refused."""

import logging
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from shared.connection_records import (
    CallFailure,
    CAUse,
    FailedCalls,
    Form,
    HourOfCalls,
    KeyCalls,
    LastConnection,
    Usage,
)
from shared.ports import MAX_BODY_BYTES, Key
from shared.records import Proof
from shared.usecases.devices.calls import KEYS_MAX, add_calls, count_calls, merge
from shared.usecases.orgs.api_keys import revoke_key
from shared.validation.policy import Presence
from tests.support import certs
from tests.support.harness import Client, Service

VERIFY = "/authorization/verifyclient"
WITHDRAWALS = "//edge/v1/withdrawals"
DIALECTS = {
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
    return {caller["key"]: caller for caller in callers}


def sums(caller: dict[str, Any]) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for hour in caller["hours"]:
        totals.update({name: hour[name] for name in ("answered", "denied", "continued")})
        totals.update(hour["failed"])
    return dict(+totals)


def ask(broker: Client, **fields: Any) -> None:
    broker.post(VERIFY, {"serverName": "mtxpd0.messaging.example.com", "clientId": "d:mtxpd0:thermo:42", **fields})


def warnings(caplog: pytest.LogCaptureFixture) -> list[Any]:
    found = [vars(record)["keys"] for record in caplog.records if "known API key" in record.message]
    caplog.clear()
    return found


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


def test_a_failure_is_over_an_hour_after_the_last_call(service: Service) -> None:
    """A person who typed a token wrongly once must not be shown as a broker that is refused."""
    ask(Client(service.app, service.client("operator").key, "not-the-token"))
    assert len([caller for caller in listed(service).values() if caller["failure"]]) == 1
    service.clock.now += timedelta(hours=1)
    assert not [caller for caller in listed(service).values() if caller["failure"]]


def test_the_key_of_the_platform_is_seen_by_the_organizations_it_serves(service: Service) -> None:
    service.other_org("other1")
    broker, elsewhere = service.platform("broker"), service.platform("broker", orgs=["other1"])
    ask(broker, serverName=service.host())
    for client in (broker, elsewhere):
        service.clock.now += timedelta(seconds=1)
        ask(Client(service.app, client.key, "not-the-token"), serverName=service.host())
    callers = listed(service)
    assert (callers[broker.key]["platform"], callers[broker.key]["failure"]) == (True, "wrong_token")
    assert sums(callers[broker.key]) == {"answered": 1, "denied": 1, "wrong_token": 1}
    assert elsewhere.key not in callers


def test_a_key_that_does_not_exist_leaves_nothing(service: Service) -> None:
    """A stranger could make up any number of keys."""
    ask(Client(service.app, "a-mtxpd0-AAAAAAAAAA", "token"))
    ask(Client(service.app, "a-nobody-AAAAAAAAAA", "token"))
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
    counter = service.app.context.refused_callers
    counter._offer = offered.append
    for _ in range(500):
        counter.note("mtxpd0", "a-mtxpd0-AAAAAAAAAA", CallFailure.TOKEN)
    service.clock.now += timedelta(seconds=1)
    counter.note("mtxpd0", "a-mtxpd0-AAAAAAAAAA", CallFailure.TOKEN)
    assert [event.count for event in offered] == [1, 500]


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
    failed = FailedCalls(
        org_id="mtxpd0",
        key="k",
        failure=CallFailure.TOKEN,
        count=2,
        since=certs.NOON,
        at=certs.NOON + timedelta(seconds=5),
    )
    later = KeyCalls(answered_at=certs.NOON + timedelta(seconds=9), hours={"2026-06-01T12": HourOfCalls(answered=4)})
    first = count_calls([failed])["k"]
    assert merge(first, later) == merge(later, first)
    assert merge(first, later).failing_since is None
    assert merge(first, first).hours["2026-06-01T12"].failed == {"wrong_token": 4}


def test_the_number_of_keys_in_a_day_is_bounded() -> None:
    callers: dict[str, KeyCalls] = {}
    add_calls(callers, {str(number): KeyCalls() for number in range(KEYS_MAX + 5)})
    assert len(callers) == KEYS_MAX


def test_the_usage_of_the_busiest_day_fits_into_a_document() -> None:
    """With as many CAs, clients and keys as are kept, and every reason for which a call can be refused."""
    at, many = certs.NOON, 123_456_789
    hour = HourOfCalls(
        answered=many,
        denied=many,
        continued=many,
        failed={failure.value: many for failure in CallFailure},
        refused={"token_of_another": many, "user_name_missing": many},
    )
    calls = KeyCalls(
        answered_at=at,
        failed_at=at,
        failing_since=at,
        failure="wrong_token",
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
    unknown = [{"org": "nobody", "code": "user_name_missing", "count": 1}]
    assert platform.post("//edge/v1/refused", {"edge": "hall-2", "refused": [*refused, *unknown]}).ok()["counted"] == 8
    callers = listed(service)
    for key in (own.key, platform.key):
        assert callers[key]["hours"][0]["refused"] == {"token_of_another": 3}
        assert callers[key]["failure"] is None
    wrong = {"edge": "hall-1", "refused": [{"org": "mtxpd0", "code": "anything", "count": 1}]}
    assert own.post("//edge/v1/refused", wrong).status == 400
    assert service.client("broker").post("//edge/v1/refused", wrong).status == 403
