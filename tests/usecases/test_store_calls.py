"""How many calls to the store one HTTP call takes, on a service that has answered calls of its kind before."""

from collections.abc import Callable

import pytest

from tests.support import certs
from tests.support.harness import Service

pytestmark = pytest.mark.stores("sqlite")

CAS = "/authentication/cacertificates"
SERVERS = "/authentication/servercertificates"


@pytest.fixture
def warm(service: Service) -> Service:
    """A service whose feeds know their end: an organization came and went, and a CA was registered and deleted."""
    org_id = service.other_org("warm01")
    operator = service.client("operator", org_id)
    ca = operator.post(CAS, {"certificate": certs.ca("Warm").pem}).ok(201)["id"]
    operator.delete(f"{CAS}/{ca}").ok(204)
    return service


def count(service: Service, call: Callable[[], object]) -> int:
    before = service.store.calls.total()
    call()
    return service.store.calls.total() - before


def test_registering_the_first_ca_of_an_organization_takes_at_most_ten_calls(warm: Service) -> None:
    """The read that admits the caller and the read of the usage for the answer are among them. So is a read of the deny
    list after the reservation in the index: a denial that this read misses finds the reservation, so that no crash of
    the upload leaves a denied CA without its mark."""
    operator = warm.client("operator")
    pem = certs.ca("First").pem
    assert count(warm, lambda: operator.post(CAS, {"certificate": pem}).ok(201)) <= 10


def test_deleting_the_last_ca_of_an_organization_takes_at_most_fourteen_calls(warm: Service) -> None:
    operator = warm.client("operator")
    ca = operator.post(CAS, {"certificate": certs.ca("Last").pem}).ok(201)["id"]
    assert count(warm, lambda: operator.delete(f"{CAS}/{ca}").ok(204)) <= 14


def test_activating_a_server_certificate_takes_at_most_ten_calls(warm: Service) -> None:
    operator = warm.client("operator")
    issued = certs.server(warm.host())
    uploaded = operator.post(SERVERS, {"certificate": issued.pem, "privateKey": issued.key_pem}).ok(201)["id"]
    assert count(warm, lambda: operator.put(f"{SERVERS}/active", {"id": uploaded}).ok()) <= 10


def test_uploading_a_server_certificate_takes_at_most_eight_calls(warm: Service) -> None:
    """Two of them, a read and a write, count the attempt before the key is opened, so that failed ones count too."""
    operator = warm.client("operator")
    issued = certs.server(warm.host())
    fields = {"certificate": issued.pem, "privateKey": issued.key_pem}
    assert count(warm, lambda: operator.post(SERVERS, fields).ok(201)) <= 8


def test_an_allow_takes_one_call(warm: Service) -> None:
    """One batched read, with the caller's key, the organization, its CAs and its deny list."""
    root = certs.ca("Root")
    warm.client("operator").post(CAS, {"certificate": root.pem}).ok(201)
    broker = warm.client("broker")
    question = {
        "serverName": warm.host(),
        "clientId": f"d:{warm.org_id}:thermo:42",
        "certificate": certs.leaf("d:thermo:42", root).pem,
    }

    def ask() -> None:
        assert broker.post("/verifyClient", question).ok()["decision"] == "allow"

    assert count(warm, ask) == 1
