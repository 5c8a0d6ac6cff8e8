"""The service on every store, with the fixtures of all tests of functions."""

import pytest

from shared.adapters.dynamodb_store import DynamoDBStore
from shared.adapters.firestore_store import FirestoreStore
from shared.adapters.sqlite_store import SQLiteStore
from shared.composition import build
from shared.config import DynamoDB, Firestore, Settings
from tests.support import certs
from tests.support.harness import Client, Service
from tests.support.stores import Place

ADAPTERS = {"sqlite": SQLiteStore, "firestore": FirestoreStore, "dynamodb": DynamoDBStore}


def test_the_service_uses_the_store_of_the_test(
    service: Service, operator: Client, request: pytest.FixtureRequest
) -> None:
    """A viewer sees the upload of an operator."""
    kind = request.node.callspec.params["place"]
    assert isinstance(service.store._store, ADAPTERS[kind])
    root = certs.ca()
    uploaded = operator.post("/authentication/cacertificates", {"certificate": root.pem}).ok(201)
    response = service.client("viewer").get("/authentication/cacertificates").ok()
    assert [ca["id"] for ca in response["results"]] == [uploaded["id"]]


def test_a_decision_reads_the_store_once(service: Service, operator: Client, broker: Client) -> None:
    """An allow is one round trip on each store."""
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
def test_creating_the_service_makes_no_request_to_a_store_in_the_cloud(place: Place) -> None:
    """A cold start does not wait for a store. The store in this test does not exist."""
    assert isinstance(place, Firestore | DynamoDB)
    app = build(Settings(store=Firestore("nowhere") if isinstance(place, Firestore) else DynamoDB("nowhere")))
    app.close()
