"""A cure is proven before it is offered, and comes true when it is applied."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.functions.test_verify_client import DEVICE, ROOT, add, ask
from tests.support import certs
from tests.support.harness import Client

pytestmark = pytest.mark.stores("sqlite")  # the judge asks no store

CAS = "/authentication/cacertificates"
POLICY = "/authorization/connectionpolicy"
SETTINGS = "/authorization/settings"
Fields = dict[str, Any]


def cures(broker: Client, device: certs.Issued | None = DEVICE, **fields: Any) -> dict[str, Fields]:
    """Return the cures of a refusal, by what is to be done."""
    verdict = ask(broker, device, explain=True, **fields)
    assert verdict["decision"] == "deny"
    return {cure["action"]: cure for cure in verdict.get("cures", [])}


def deactivate(operator: Client, ca: str) -> None:
    operator.put(f"{CAS}/{ca}", {"status": "inactive"}).ok()


def lift_all(operator: Client) -> Fields:
    for entry in operator.get("/authorization/denylist").ok()["results"]:
        operator.delete(f"/authorization/denylist/{entry['id']}").ok(204)
    return {}


Apply = Callable[[Client, str], Fields]
CASES: dict[str, tuple[Callable[[Client], object], certs.Issued | None, Fields, str, Apply]] = {
    "a deactivated CA": (
        lambda operator: deactivate(operator, operator.get(CAS).ok()["results"][0]["id"]),
        DEVICE,
        {},
        "activate_ca",
        lambda operator, value: operator.put(f"{CAS}/{value}", {"status": "active"}).ok() and {},
    ),
    "another device's client ID": (
        lambda _: None,
        DEVICE,
        {"clientId": "d:mtxpd0:thermo:43"},
        "client_id",
        lambda _, value: {"clientId": value},
    ),
    "no server name": (
        lambda _: None,
        DEVICE,
        {"serverName": None},
        "server_name",
        lambda _, value: {"serverName": value},
    ),
    "a type certificate": (
        lambda _: None,
        certs.leaf("d:thermo:", ROOT),
        {},
        "type_certificates",
        lambda operator, _: operator.put(SETTINGS, {"typeCertificates": True}).ok() and {},
    ),
    "no certificate": (
        lambda _: None,
        None,
        {},
        "security_level",
        lambda operator, value: operator.put(POLICY, {"default": value}).ok() and {},
    ),
    "denied": (
        lambda operator: operator.post("/authorization/denylist", {"certificate": DEVICE.pem}).ok(201),
        DEVICE,
        {},
        "lift_denial",
        lambda operator, _: lift_all(operator),
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_a_cure_that_is_offered_comes_true(operator: Client, broker: Client, what: str) -> None:
    prepare, device, fields, action, apply = CASES[what]
    add(operator, ROOT)
    prepare(operator)
    found = cures(broker, device, **fields)
    assert action in found
    changed = apply(operator, found[action]["value"])
    assert ask(broker, device, **{**fields, **changed})["decision"] == found[action]["decision"]


def test_a_ca_of_the_name_with_another_key_is_no_cure(operator: Client, broker: Client) -> None:
    """Its activation would let no device in."""
    other = certs.ca("Root", private=certs.key("P-256", 61))
    deactivate(operator, add(operator, other))
    add(operator, certs.ca("Another"))
    assert cures(broker) == {}


def test_two_faults_have_no_single_cure(operator: Client, broker: Client) -> None:
    deactivate(operator, add(operator, ROOT))
    assert cures(broker, clientId="d:mtxpd0:thermo:43") == {}


def test_a_verdict_for_a_broker_has_no_cures(operator: Client, broker: Client) -> None:
    deactivate(operator, add(operator, ROOT))
    assert "cures" not in ask(broker)


def test_what_a_stranger_sent_is_never_a_cure(operator: Client, broker: Client) -> None:
    """Also where the device sends the certificate of its CA."""
    add(operator, ROOT)
    stranger = certs.ca("Stranger")
    verdict = ask(broker, certs.leaf("d:thermo:42", stranger), stranger, explain=True)
    assert (verdict["code"], verdict.get("cures", [])) == ("untrusted_issuer", [])
