"""The devices that were seen lately, as their connections show them."""

from datetime import timedelta
from typing import Any

import pytest

from tests.support import certs
from tests.support.certs import NOON
from tests.support.harness import Client, Service

CAS = "/authentication/cacertificates"
ROOT = certs.ca("Root", not_after=NOON + 900 * certs.DAY)


@pytest.fixture
def broker(service: Service) -> Client:
    service.client("operator").post(CAS, {"certificate": ROOT.pem}).ok(201)
    return service.client("broker")


def connect(service: Service, broker: Client, name: str, *, signer: certs.Issued = ROOT, **more: Any) -> str:
    """Ask about the device `d:thermo:<name>` one second later than before. Return the code."""
    service.clock.now += timedelta(seconds=1)
    device = more.pop("device", None) or certs.leaf(f"d:thermo:{name}", signer, not_after=NOON + 300 * certs.DAY)
    fields = {"serverName": service.host(), "clientId": f"d:mtxpd0:thermo:{name}", "certificate": device.pem, **more}
    code: str = broker.post("/authorization/verifyclient", fields).ok()["code"]
    return code


def listed(service: Service, **query: str) -> dict[str, Any]:
    service.flush()
    page: dict[str, Any] = service.client("viewer").get("/devices", query=query).ok()
    return page


def ids(page: dict[str, Any]) -> list[str]:
    return [device["id"] for device in page["results"]]


def test_a_device_is_shown_with_its_certificate_and_ca(service: Service, broker: Client) -> None:
    device = certs.leaf("d:thermo:42", ROOT, not_after=NOON + 300 * certs.DAY)
    connect(service, broker, "42", device=device)
    [ca] = service.client("viewer").get(CAS).ok()["results"]
    page = listed(service)
    [shown] = page["results"]
    assert (shown["id"], shown["status"], shown["lastRefusal"]) == ("d:thermo:42", "accepted", None)
    assert shown["lastSeen"] == "2026-06-01T12:00:01Z"
    assert shown["caId"] == ca["id"]
    assert shown["certificate"]["fingerprintSha256"] == device.fingerprint
    assert shown["certificate"]["notAfter"].startswith("2027-03-28")
    assert (page["total"], page["statuses"], page["bookmark"]) == (1, {"accepted": 1, "refused": 0}, None)


def test_the_latest_refusal_of_a_device_is_shown(service: Service, broker: Client) -> None:
    connect(service, broker, "42")
    denial = {"kind": "identity", "value": "d:thermo:42"}
    denied = service.client("operator").post("/authorization/denylist", denial).ok(201)
    assert connect(service, broker, "42") == "certificate_revoked"
    [shown] = listed(service)["results"]
    assert (shown["status"], shown["lastRefusal"]["code"]) == ("refused", "certificate_revoked")
    assert shown["lastRefusal"]["at"] == shown["lastSeen"] == "2026-06-01T12:00:02Z"
    entries = service.client("viewer").get("/activity?kind=refusal").ok()["results"]
    assert shown["lastRefusal"]["id"] in [entry["id"] for entry in entries]
    service.client("operator").delete(f"/authorization/denylist/{denied['id']}").ok(204)
    connect(service, broker, "42")
    [shown] = listed(service)["results"]
    assert (shown["status"], shown["lastRefusal"]["code"]) == ("accepted", "certificate_revoked")


def test_a_device_whose_certificate_expired_is_shown(service: Service, broker: Client) -> None:
    device = certs.leaf("d:thermo:42", ROOT, not_after=NOON)
    assert connect(service, broker, "42", device=device) == "certificate_expired"
    [shown] = listed(service)["results"]
    assert (shown["id"], shown["status"], shown["caId"]) == ("d:thermo:42", "refused", None)
    assert shown["certificate"]["fingerprintSha256"] == device.fingerprint


def test_a_stranger_is_no_device(service: Service, broker: Client) -> None:
    """Anyone may present a certificate that names a device. The refusal is shown; the device's status stays."""
    stranger = certs.ca("Stranger")
    assert connect(service, broker, "43", signer=stranger) == "untrusted_issuer"
    assert ids(listed(service)) == []
    own = certs.leaf("d:thermo:42", ROOT)
    connect(service, broker, "42", device=own)
    assert connect(service, broker, "42", signer=stranger) == "untrusted_issuer"
    [shown] = listed(service)["results"]
    assert shown["certificate"]["fingerprintSha256"] == own.fingerprint
    assert (shown["id"], shown["status"]) == ("d:thermo:42", "accepted")
    assert (shown["lastSeen"], shown["lastRefusal"]["code"]) == ("2026-06-01T12:00:02Z", "untrusted_issuer")


def test_a_client_without_a_client_id_is_named_by_its_certificate(service: Service, broker: Client) -> None:
    connect(service, broker, "42", clientId=None)
    assert ids(listed(service)) == ["d:thermo:42"]


def test_devices_with_a_type_certificate_are_shown_apart(service: Service, broker: Client) -> None:
    """They share one certificate. Each is known by its identity."""
    service.client("operator").put("/authorization/settings", {"typeCertificates": True}).ok()
    shared = certs.leaf("d:thermo:", ROOT)
    for name in ("1", "2", "3"):
        assert connect(service, broker, name, device=shared) == "allowed"
    assert sorted(ids(listed(service))) == ["d:thermo:1", "d:thermo:2", "d:thermo:3"]


def test_devices_are_searched_for_sorted_and_paged(service: Service, broker: Client) -> None:
    for number in (3, 1, 2):
        device = certs.leaf(f"d:thermo:{number}", ROOT, not_after=NOON + (10 - number) * certs.DAY)
        connect(service, broker, str(number), device=device)
    assert ids(listed(service)) == ["d:thermo:2", "d:thermo:1", "d:thermo:3"], "the last that was seen comes first"
    assert ids(listed(service, sort="id")) == ["d:thermo:1", "d:thermo:2", "d:thermo:3"]
    assert ids(listed(service, sort="notAfter")) == ["d:thermo:3", "d:thermo:2", "d:thermo:1"]
    assert ids(listed(service, q="THERMO:2")) == ["d:thermo:2"]
    assert ids(listed(service, q="nothing")) == []
    first = listed(service, sort="id", limit="2")
    assert ids(first) == ["d:thermo:1", "d:thermo:2"]
    assert first["total"] == 3
    rest = listed(service, sort="id", limit="2", bookmark=first["bookmark"])
    assert (ids(rest), rest["bookmark"]) == (["d:thermo:3"], None)
    [ca] = service.client("viewer").get(CAS).ok()["results"]
    assert len(ids(listed(service, ca=ca["id"]))) == 3
    assert ids(listed(service, ca="absent")) == []
    assert ids(listed(service, status="refused")) == []


@pytest.mark.parametrize(
    ("query", "field"),
    [("status=good", "status"), ("sort=size", "sort"), ("bookmark=d:thermo:9", "bookmark"), ("limit=0", "limit")],
)
@pytest.mark.stores("sqlite")
def test_a_search_that_is_not_understood_is_refused(viewer: Client, query: str, field: str) -> None:
    reply = viewer.get(f"/devices?{query}")
    assert (reply.status, reply.json["violations"][0]["field"]) == (400, field)
