"""How many clients connected and were refused, by the hour, shown to the organization."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.connection_records import ConnectionEvent, ConnectionEventBatch, HourOfTraffic, Traffic
from shared.ports import MAX_BODY_BYTES
from shared.usecases.devices.usage import add_batches, summarize
from shared.usecases.orgs.deletion import delete_org
from shared.usecases.orgs.organizations import create_org
from shared.validation.policy import Presence
from tests.support import certs
from tests.support.harness import Client, Service

VERIFY = "/authorization/verifyclient"
ORG = "mtxpd0"


def ask(broker: Client, service: Service, device: certs.Issued | None, **fields: Any) -> str:
    named = {"serverName": service.host(), "clientId": "d:mtxpd0:thermo:42"}
    if device is not None:
        named["certificate"] = device.pem
    code: str = broker.post(VERIFY, named | fields).ok()["code"]
    return code


def shown(service: Service, days: int = 2) -> dict[str, Any]:
    service.flush()
    page: dict[str, Any] = service.client("viewer").get(f"/traffic?days={days}").ok()
    return page


def event(at: datetime, decision: str = "allow", code: str = "allowed") -> ConnectionEvent:
    return ConnectionEvent(org_id=ORG, at=at, decision=decision, code=code, tls=True, presence=Presence.VALID)


def test_verdicts_are_counted_by_hour_and_code(service: Service) -> None:
    broker, root = service.client("broker"), certs.ca("Root")
    service.client("operator").post("/authentication/cacertificates", {"certificate": root.pem}).ok(201)
    device, stranger = certs.leaf("d:thermo:42", root), certs.leaf("d:thermo:42", certs.ca("Stranger"))
    for _ in range(3):
        assert ask(broker, service, device) == "allowed"
    assert ask(broker, service, stranger) == "untrusted_issuer"
    service.clock.now += timedelta(hours=2)
    assert ask(broker, service, stranger) == "untrusted_issuer"
    assert ask(broker, service, device, clientId="d:mtxpd0:thermo:43") == "identity_mismatch"

    traffic = shown(service)

    assert (traffic["start"], traffic["at"]) == ("2026-05-31T00:00:00Z", "2026-06-01T14:00:00Z")
    assert len(traffic["allowed"]) == 24 + 15, "the hour of the request is the last"
    assert traffic["allowed"][-3:] == [3, 0, 0]
    assert sum(traffic["continued"]) == 0
    last = {code: numbers[-3:] for code, numbers in traffic["denied"].items()}
    assert last == {"untrusted_issuer": [1, 0, 1], "identity_mismatch": [0, 0, 1]}


def test_clients_whose_token_decides_are_counted_apart(service: Service) -> None:
    policy = {"default": "TLS with Token Authentication"}
    service.client("operator").put("/authorization/connectionpolicy", policy).ok()
    ask(service.client("broker"), service, None)
    traffic = shown(service, days=1)
    assert (traffic["continued"][-1], traffic["allowed"][-1], traffic["denied"]) == (1, 0, {})


def test_verdicts_of_two_days_are_in_two_documents(service: Service) -> None:
    midnight = datetime(2026, 6, 1, tzinfo=UTC)
    events = [event(midnight + timedelta(seconds=seconds)) for seconds in (-1, 0, 1)]
    repository = service.app.context.repository
    add_batches(repository, ORG, [summarize(ORG, events)])
    traffic = shown(service)
    assert traffic["allowed"][23:25] == [1, 2]
    assert [shown(service, days)["allowed"][0] for days in (1, 2)] == [2, 0]


def test_a_batch_that_is_delivered_twice_counts_once(service: Service) -> None:
    batch = ConnectionEventBatch.decode(summarize(ORG, [event(certs.NOON)] * 5).encode())
    for _ in range(2):
        add_batches(service.app.context.repository, ORG, [batch])
    assert shown(service)["allowed"][-1] == 5


def test_a_batch_of_an_earlier_version_has_no_numbers(service: Service) -> None:
    body = msgspec.json.decode(summarize(ORG, [event(certs.NOON)]).encode())
    del body["traffic"]
    add_batches(service.app.context.repository, ORG, [ConnectionEventBatch.decode(msgspec.json.encode(body))])
    assert shown(service)["allowed"][-1] == 0


def test_clients_that_an_edge_refused_are_counted_with_its_code(service: Service) -> None:
    report = {"edge": "hall-1", "refused": [{"org": ORG, "code": "token_of_another", "count": 7}]}
    service.client("edge").post("//edge/v1/refused", report).ok()
    assert shown(service)["denied"]["token_of_another"][-1] == 7


def test_a_deleted_organization_leaves_no_numbers_to_the_next(service: Service) -> None:
    add_batches(service.app.context.repository, ORG, [summarize(ORG, [event(certs.NOON)])])
    delete_org(service.app.context, ORG)
    create_org(service.app.context, ORG, now=True)
    assert sum(shown(service)["allowed"]) == 0


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize("days", ["0", "31", "-1", "x", "1.5", "٣"])
def test_a_wrong_number_of_days_is_refused(service: Service, days: str) -> None:
    reply = service.client("viewer").get(f"/traffic?days={days}")
    assert (reply.status, reply.json["code"]) == (400, "wrong_value")
    assert reply.json["detail"] == "days is a number from 1 to 30."


@pytest.mark.stores("sqlite")
def test_thirty_days_are_shown_unless_the_query_names_a_number(service: Service) -> None:
    repository = service.app.context.repository
    days = [certs.NOON - timedelta(days=back) for back in (0, 29, 30)]
    for day in days:
        add_batches(repository, ORG, [summarize(ORG, [event(day)])])
    traffic = service.client("viewer").get("/traffic").ok()
    assert (len(traffic["allowed"]), sum(traffic["allowed"])) == (29 * 24 + 13, 2)


def test_the_numbers_of_the_busiest_day_fit_into_a_document() -> None:
    """With every code of the product in every hour."""
    many = 1_000_000_000
    denied = {page.stem: many for page in Path("console/errors").glob("*.html")}
    hours = {f"2026-06-01T{number:02}": HourOfTraffic(many, many, denied) for number in range(24)}
    assert len(denied) > 50
    assert len(msgspec.json.encode(Traffic(hours))) < MAX_BODY_BYTES / 4
