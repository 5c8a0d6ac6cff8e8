"""The service on every store, by the fixtures that all tests of functions use."""

import pytest

from shared.adapters.dynamodb_store import DynamoDBStore
from shared.adapters.firestore_store import FirestoreStore
from shared.adapters.sqlite_store import SQLiteStore
from shared.composition import build
from shared.config import DynamoDB, Firestore, Settings
from tests import certs
from tests.harness import Client, Service
from tests.stores import Place

ADAPTERS = {"sqlite": SQLiteStore, "firestore": FirestoreStore, "dynamodb": DynamoDBStore}


def test_the_service_keeps_its_documents_where_the_test_runs(
    service: Service, operator: Client, request: pytest.FixtureRequest
) -> None:
    """And what an operator uploads there, a viewer finds there."""
    kind = request.node.callspec.params["place"]
    assert isinstance(service.store._store, ADAPTERS[kind])
    root = certs.ca()
    added = operator.post("/authentication/cacertificates", {"certificate": root.pem}).ok(201)
    listed = service.client("viewer").get("/authentication/cacertificates").ok()
    assert [one["id"] for one in listed["results"]] == [added["id"]]


def test_a_decision_reads_the_store_once(service: Service, operator: Client, broker: Client) -> None:
    """An allow is one round trip, on each store."""
    root = certs.ca()
    operator.post("/authentication/cacertificates", {"certificate": root.pem}).ok(201)
    leaf = certs.leaf("d:thermo:42", root)
    service.store.calls.clear()
    verdict = broker.post(
        "/authorization/verifyclient",
        {"serverName": service.host(), "clientId": "d:mtxpd0:thermo:42", "certificate": leaf.pem},
    ).ok()
    assert verdict["decision"] == "allow", verdict
    assert dict(service.store.calls) == {"get_many": 1}


@pytest.mark.stores("firestore", "dynamodb")
def test_building_the_service_asks_a_store_in_the_cloud_nothing(place: Place) -> None:
    """A cold start waits for no store that its call may not need; this place does not even exist."""
    assert isinstance(place, Firestore | DynamoDB)
    app = build(Settings(store=Firestore("nowhere") if isinstance(place, Firestore) else DynamoDB("nowhere")))
    app.close()
