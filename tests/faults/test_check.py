"""The checker finds what it looks for; else its silence would mean nothing."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest

from shared.records import CAIndex, CAsOfOneName, Org, ServerCertificate
from shared.repository import Ref, ca_index_ref, cas_ref, org_ref, server_ref
from tests import certs
from tests.faults.check import Findings, check
from tests.faults.load import ABSENT, Change, History, Thing
from tests.faults.soak import Quarters, slope
from tests.harness import Client, Service

pytestmark = pytest.mark.stores("sqlite")

CAS = "/authentication/cacertificates"
SERVERS = "/authentication/servercertificates"


def look(service: Service, history: History | None = None) -> Findings:
    return check(service.app.context.repository, service.app.sealer, service.org_id, history or History())


def alter(service: Service, place: Ref[Any], change: Callable[[Any], Any]) -> None:
    for attempt in service.app.context.repository.changing(place):
        with attempt as record:
            attempt.write(change(record))


@pytest.fixture
def ca(operator: Client) -> str:
    found: str = operator.post(CAS, {"certificate": certs.ca().pem}).ok(201)["id"]
    return found


@pytest.fixture
def server(service: Service, operator: Client) -> str:
    issued = certs.server(service.host())
    found: str = operator.post(SERVERS, {"certificate": issued.pem, "privateKey": issued.key_pem}).ok(201)["id"]
    operator.put(f"{SERVERS}/active", {"id": found}).ok()
    return found


def test_what_is_whole_is_found_whole(service: Service, ca: str, server: str) -> None:
    history = History(
        things=[Thing("ca", ca, {"active"}), Thing("server", server, {"certificate"})],
        activations=[Change(server, 1, 2, acknowledged=True)],
        entries=[("uploadCA", ca), ("uploadServerCert", server)],
    )
    assert look(service, history) == Findings()


def test_an_index_without_body_is_half(service: Service, server: str) -> None:
    service.app.context.repository.delete(server_ref(service.org_id, server))
    assert len(look(service).halves) == 2, "the body, and what is active"


def test_a_key_of_another_certificate_is_half(service: Service, operator: Client, server: str) -> None:
    request = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)["id"]
    other = service.app.context.repository.get(server_ref(service.org_id, request))
    assert other is not None

    def swap(record: ServerCertificate) -> ServerCertificate:
        return msgspec.structs.replace(record, key=other.key)

    alter(service, server_ref(service.org_id, server), swap)
    assert ["key" in one for one in look(service).halves] == [True]


def test_a_body_without_index_and_a_place_without_ca_are_leftovers(service: Service, ca: str, server: str) -> None:
    def forget(org: Org) -> Org:
        return msgspec.structs.replace(org, servers={}, activation=type(org.activation)())

    alter(service, org_ref(service.org_id), forget)
    service.app.context.repository.delete(cas_ref(service.org_id, ca[:16]))
    found = look(service)
    assert (len(found.leftovers), found.halves) == (4, []), "body, place, the need for SNI, and what the edges know"


def test_a_ca_that_the_index_misses_is_half(service: Service, ca: str) -> None:
    alter(service, ca_index_ref(service.org_id), lambda index: CAIndex())
    assert len(look(service).halves) == 1


def test_an_acknowledged_thing_that_is_not_there_or_another_is_lost(service: Service, ca: str) -> None:
    assert look(service, History(things=[Thing("ca", ca, {ABSENT, "inactive"})])).lost != []
    alter(service, cas_ref(service.org_id, ca[:16]), lambda named: CAsOfOneName())
    assert look(service, History(things=[Thing("ca", ca, {"active"})])).lost != []
    assert look(service, History(entries=[("deleteCA", ca)])).lost != []


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ([Change("default", 0, 0, acknowledged=True)], False),
        ([Change("NOW", 0, 1, acknowledged=True)], True),
        ([Change("NOW", 0, 1, acknowledged=True), Change("other", 2, 3, acknowledged=True)], False),
        ([Change("NOW", 0, 3, acknowledged=True), Change("other", 2, 4, acknowledged=True)], True),
        ([Change("NOW", 0, 1, acknowledged=False), Change("other", 2, 3, acknowledged=True)], True),
        ([Change("NOW", 0, 1, acknowledged=False), Change("other", 60, 61, acknowledged=True)], False),
    ],
    ids=[
        "never made",
        "the last",
        "one came after",
        "at the same time",
        "unanswered, a moment ago",
        "unanswered, long ago",
    ],
)
def test_what_is_active_is_the_last_that_was_acknowledged(
    service: Service, server: str, changes: list[Change], fits: bool
) -> None:
    history = History(activations=[_named(one, server) for one in changes])
    assert (look(service, history).lost == []) == fits


def _named(one: Change, server: str) -> Change:
    return Change(server, one.began, one.ended, one.acknowledged) if one.value == "NOW" else one


def test_memory_that_grows_from_quarter_to_quarter_grows() -> None:
    def grows(values: Iterable[float]) -> bool:
        return Quarters.of([(2.0 * number, value) for number, value in enumerate(values)]).grows

    assert grows(100 + one for one in range(100))
    assert grows(100 + one / 50 for one in range(600)), "12 % in 20 minutes"
    assert not grows([100] * 50 + [110] * 50), "a step is not steady"
    assert not grows(100 + one % 7 for one in range(100))
    assert not grows(110 - 10 * 0.99**one for one in range(600)), "what fills up stays"
    assert round(slope([(at, 3.0 * at) for at in range(10)]), 6) == 3
