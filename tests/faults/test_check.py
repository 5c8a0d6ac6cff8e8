"""The checker finds every kind of defect that it is meant to find, so that its silence is reliable."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest

from benchmarks.faults.check import Findings, check
from benchmarks.faults.load import ABSENT, History, SharedChange, Thing
from benchmarks.faults.soak import Quarters, slope
from shared.records import CAIndex, CAsOfOneName, Org, ServerCertificate
from shared.refs import Ref, ca_index_ref, cas_ref, org_ref, server_ref
from tests.support import certs
from tests.support.harness import Client, Service

pytestmark = pytest.mark.stores("sqlite")

CAS = "/authentication/cacertificates"
SERVERS = "/authentication/servercertificates"


def check_now(service: Service, history: History | None = None) -> Findings:
    return check(service.app.context.repository, service.app.sealer, service.org_id, history or History())


def change_document(service: Service, place: Ref[Any], change: Callable[[Any], Any]) -> None:
    for attempt in service.app.context.repository.changing(place):
        with attempt as record:
            attempt.write(change(record))


@pytest.fixture
def ca(operator: Client) -> str:
    ca_id: str = operator.post(CAS, {"certificate": certs.ca().pem}).ok(201)["id"]
    return ca_id


@pytest.fixture
def server(service: Service, operator: Client) -> str:
    issued = certs.server(service.host())
    server_id: str = operator.post(SERVERS, {"certificate": issued.pem, "privateKey": issued.key_pem}).ok(201)["id"]
    operator.put(f"{SERVERS}/active", {"id": server_id}).ok()
    return server_id


def test_complete_entries_give_no_finding(service: Service, ca: str, server: str) -> None:
    history = History(
        things=[Thing("ca", ca, {"active"}), Thing("server", server, {"certificate"})],
        activations=[SharedChange(server, 1, 2, acknowledged=True)],
        entries=[("uploadCA", ca), ("uploadServerCert", server)],
    )
    assert check_now(service, history) == Findings()


def test_an_index_entry_without_a_body_is_a_half(service: Service, server: str) -> None:
    service.app.context.repository.delete(server_ref(service.org_id, server))
    assert len(check_now(service).halves) == 2, "the body, and what is active"


def test_the_key_of_another_certificate_is_a_half(service: Service, operator: Client, server: str) -> None:
    request = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)["id"]
    other = service.app.context.repository.get(server_ref(service.org_id, request))
    assert other is not None

    def swap(record: ServerCertificate) -> ServerCertificate:
        return msgspec.structs.replace(record, key=other.key)

    change_document(service, server_ref(service.org_id, server), swap)
    assert ["key" in finding for finding in check_now(service).halves] == [True]


def test_a_body_without_index_and_an_index_entry_without_ca_are_leftovers(
    service: Service, ca: str, server: str
) -> None:
    def forget(org: Org) -> Org:
        return msgspec.structs.replace(org, servers={}, activation=type(org.activation)())

    change_document(service, org_ref(service.org_id), forget)
    service.app.context.repository.delete(cas_ref(service.org_id, ca[:16]))
    findings = check_now(service)
    assert (len(findings.leftovers), findings.halves) == (4, []), "body, index entry, need for SNI, feed of hosts"


def test_a_ca_that_the_index_misses_is_half(service: Service, ca: str) -> None:
    change_document(service, ca_index_ref(service.org_id), lambda index: CAIndex())
    assert len(check_now(service).halves) == 1


def test_an_acknowledged_entry_that_is_missing_or_different_is_lost(service: Service, ca: str) -> None:
    assert check_now(service, History(things=[Thing("ca", ca, {ABSENT, "inactive"})])).lost != []
    change_document(service, cas_ref(service.org_id, ca[:16]), lambda named: CAsOfOneName())
    assert check_now(service, History(things=[Thing("ca", ca, {"active"})])).lost != []
    assert check_now(service, History(entries=[("deleteCA", ca)])).lost != []


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ([SharedChange("default", 0, 0, acknowledged=True)], False),
        ([SharedChange("NOW", 0, 1, acknowledged=True)], True),
        ([SharedChange("NOW", 0, 1, acknowledged=True), SharedChange("other", 2, 3, acknowledged=True)], False),
        ([SharedChange("NOW", 0, 3, acknowledged=True), SharedChange("other", 2, 4, acknowledged=True)], True),
        ([SharedChange("NOW", 0, 1, acknowledged=False), SharedChange("other", 2, 3, acknowledged=True)], True),
        ([SharedChange("NOW", 0, 1, acknowledged=False), SharedChange("other", 60, 61, acknowledged=True)], False),
    ],
    ids=[
        "never made",
        "the last",
        "another came after",
        "at the same time",
        "unanswered, a moment ago",
        "unanswered, long ago",
    ],
)
def test_the_active_certificate_must_be_the_last_acknowledged(
    service: Service, server: str, changes: list[SharedChange], fits: bool
) -> None:
    history = History(activations=[_put_id(change, server) for change in changes])
    assert (check_now(service, history).lost == []) == fits


def _put_id(change: SharedChange, server: str) -> SharedChange:
    return SharedChange(server, change.began, change.ended, change.acknowledged) if change.value == "NOW" else change


def test_growth_is_steady_growth_from_quarter_to_quarter() -> None:
    def grows(values: Iterable[float]) -> bool:
        return Quarters.of([(2.0 * number, value) for number, value in enumerate(values)]).grows

    assert grows(100 + minute for minute in range(100))
    assert grows(100 + minute / 50 for minute in range(600)), "12 % in 20 minutes"
    assert not grows([100] * 50 + [110] * 50), "a step is not steady"
    assert not grows(100 + minute % 7 for minute in range(100))
    assert not grows(110 - 10 * 0.99**minute for minute in range(600)), "what fills up stays"
    assert round(slope([(at, 3.0 * at) for at in range(10)]), 6) == 3
