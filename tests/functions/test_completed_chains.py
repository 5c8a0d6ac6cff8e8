"""A repeated upload or fulfillment completes the stored chain, and never takes from devices what they need (0134)."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.ports import Key
from shared.refs import org_ref
from shared.usecases.edges.hosts import HostFeed
from tests.functions.test_server_certificates import (
    INTERMEDIATE,
    ROOT,
    SERVER,
    SERVERS,
    activate,
    active,
    codes,
    issue,
    upload,
)
from tests.support import certs
from tests.support.harness import Client, Service

OTHER_ROOT = certs.ca("Other Root")
CROSS = certs.ca("Server Intermediate", OTHER_ROOT, private=INTERMEDIATE.key)


def test_an_upload_of_the_same_leaf_with_its_chain_completes_the_chain(operator: Client) -> None:
    """The warning of an upload without chain asks for this. An upload with less of the chain takes nothing away."""
    first = upload(operator, comments="first")
    assert "chain_incomplete" in codes(first)
    for number, sent in enumerate([(INTERMEDIATE, ROOT), (INTERMEDIATE,), ()]):
        fields = {"certificate": certs.bundle(SERVER, *sent), "privateKey": SERVER.key_pem}
        again = operator.post(SERVERS, fields).ok(200)
        assert (again["id"], again["comments"]) == (first["id"], "first")
        assert [issuer["subject"] for issuer in again["chain"]] == ["CN=Server Intermediate", "CN=Server Root"]
        assert codes(again) == (["chain_completed"] if number == 0 else [])
    pem = operator.get(f"{SERVERS}/{first['id']}/pem").text
    assert pem == certs.bundle(SERVER, INTERMEDIATE, ROOT)
    entries = operator.get("/activity").ok()["results"]
    assert [entry["what"] for entry in entries].count("completeChain") == 1


def test_a_chain_to_another_root_replaces_nothing_and_the_warning_says_how_to_serve_that_chain(
    operator: Client,
) -> None:
    """The certificate is active all the time."""
    first = upload(operator, SERVER, INTERMEDIATE, ROOT)
    activate(operator, first["id"]).ok()
    for sent in [(CROSS,), (CROSS, OTHER_ROOT)]:
        new = certs.bundle(SERVER, *sent)
        kept = operator.post(SERVERS, {"certificate": new, "privateKey": SERVER.key_pem}).ok(200)
        assert (kept["id"], kept["version"], kept["chain"]) == (first["id"], first["version"], first["chain"])
        assert codes(kept) == ["chain_kept"]
    assert kept["warnings"][0]["message"] == (
        "The certificate keeps its stored chain. The new chain, made from the sent certificates, would not have the "
        "certificate of CN=Server Intermediate, issued by CN=Server Root, which devices may need (SHA-256 fingerprint "
        f"{INTERMEDIATE.fingerprint}). To serve the new chain instead, renew the certificate, upload the same "
        "certificate with the sent chain for the new request, activate the result, and delete the old certificate."
    )
    assert operator.get(f"{SERVERS}/{first['id']}/pem").text == certs.bundle(SERVER, INTERMEDIATE, ROOT)

    request = operator.post(f"{SERVERS}/{first['id']}/renewal", {}).ok(201)
    result = operator.put(f"{SERVERS}/{request['id']}/certificate", {"certificate": new}).ok()
    assert codes(result) == []
    assert codes(activate(operator, request["id"]).ok()) == ["new_root"]
    operator.delete(f"{SERVERS}/{first['id']}").ok(204)
    assert active(operator) == (request["id"], None)
    assert operator.get(f"{SERVERS}/{request['id']}/pem").text == new
    again = operator.post(SERVERS, {"certificate": new, "privateKey": SERVER.key_pem}).ok(200)
    assert (again["id"], codes(again)) == (request["id"], [])


def test_a_file_with_the_stored_chain_and_a_form_that_is_preferred(operator: Client) -> None:
    """The warning does not say that the file lacks the stored form. The way that the warning names serves the file."""
    cross = certs.ca("Server Root", OTHER_ROOT, private=ROOT.key)
    first = upload(operator, SERVER, INTERMEDIATE, ROOT)
    new = certs.bundle(SERVER, INTERMEDIATE, ROOT, cross, OTHER_ROOT)
    [kept] = operator.post(SERVERS, {"certificate": new, "privateKey": SERVER.key_pem}).ok(200)["warnings"]
    assert kept["code"] == "chain_kept"
    assert (
        "The new chain, made from the sent certificates, would not have the certificate of CN=Server Root, issued by "
        f"CN=Server Root, which devices may need (SHA-256 fingerprint {ROOT.fingerprint})."
    ) in kept["message"]
    request = operator.post(f"{SERVERS}/{first['id']}/renewal", {}).ok(201)
    operator.put(f"{SERVERS}/{request['id']}/certificate", {"certificate": new}).ok()
    served = certs.bundle(SERVER, INTERMEDIATE, cross, OTHER_ROOT)
    assert operator.get(f"{SERVERS}/{request['id']}/pem").text == served


@pytest.mark.parametrize("activated", [0, 1])
def test_of_two_records_with_one_certificate_an_upload_completes_the_active_record(
    operator: Client, activated: int
) -> None:
    """The renewal was fulfilled with the same certificate, to serve another chain. The old record is not deleted."""
    ids = [upload(operator, SERVER, INTERMEDIATE)["id"]]
    ids.append(operator.post(f"{SERVERS}/{ids[0]}/renewal", {}).ok(201)["id"])
    path = f"{SERVERS}/{ids[1]}/certificate"
    operator.put(path, {"certificate": certs.bundle(SERVER, CROSS)}).ok()
    activate(operator, ids[activated]).ok()
    sent = [(INTERMEDIATE, ROOT), (CROSS, OTHER_ROOT)][activated]
    fields = {"certificate": certs.bundle(SERVER, *sent), "privateKey": SERVER.key_pem}
    again = operator.post(SERVERS, fields).ok(200)
    assert (again["id"], codes(again)) == (ids[activated], ["chain_completed"])


@pytest.mark.parametrize("is_completed_later", [False, True])
def test_an_upload_that_changes_nothing_writes_nothing(
    service: Service, operator: Client, is_completed_later: bool
) -> None:
    """No line of the index, no activity, and no line of the feed of hosts. The upload is only counted."""
    complete = {"certificate": certs.bundle(SERVER, INTERMEDIATE, ROOT), "privateKey": SERVER.key_pem}
    if is_completed_later:
        upload(operator)
    activate(operator, operator.post(SERVERS, complete).json["id"]).ok()
    context, written = service.app.context, list[Key | None]()

    def look() -> tuple[Any, ...]:
        org = context.repository.get(org_ref(service.org_id))
        assert org is not None
        return org.servers, HostFeed(context).head(), operator.get("/activity").ok()["results"]

    def note(name: str, key: Key | None, call: Callable[[], Any]) -> Any:
        if name in ("put", "delete"):
            written.append(key)
        return call()

    before, service.store.between = look(), note
    for sent in [(INTERMEDIATE, ROOT), (INTERMEDIATE,), ()]:
        written.clear()
        operator.post(SERVERS, complete | {"certificate": certs.bundle(SERVER, *sent)}).ok(200)
        assert written == [org_ref(service.org_id).key], "the upload is counted"
        assert look() == before


def test_a_second_fulfilment_with_the_chain_completes_the_chain(operator: Client) -> None:
    """The answer warns of the stored chain, as the answer to a repeated upload does."""
    made = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)
    issued = issue(made["csr"], INTERMEDIATE)
    first = operator.post("/fulfillCSR", {"id": made["id"], "certificate": issued.pem}).ok()
    assert codes(first) == ["chain_incomplete"]
    bundle = certs.bundle(issued, INTERMEDIATE)
    for sent, warnings in [(issued.pem, ["chain_incomplete"]), (bundle, ["chain_completed"]), (issued.pem, [])]:
        again = operator.post("/fulfillCSR", {"id": made["id"], "certificate": sent}).ok()
        assert codes(again) == warnings
    assert [issuer["subject"] for issuer in again["chain"]] == ["CN=Server Intermediate"]
    assert operator.get(f"{SERVERS}/{made['id']}/pem").text == bundle


def test_a_second_fulfilment_with_a_chain_to_another_root_keeps_the_chain(operator: Client) -> None:
    """The private key was made here. The cure in the warning needs no copy of the key."""
    made = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)
    issued = issue(made["csr"], INTERMEDIATE)
    stored, new = certs.bundle(issued, INTERMEDIATE), certs.bundle(issued, CROSS, OTHER_ROOT)
    operator.post("/fulfillCSR", {"id": made["id"], "certificate": stored}).ok()
    kept = operator.post("/fulfillCSR", {"id": made["id"], "certificate": new}).ok()
    assert codes(kept) == ["chain_kept"]
    assert operator.get(f"{SERVERS}/{made['id']}/pem").text == stored

    request = operator.post(f"{SERVERS}/{made['id']}/renewal", {}).ok(201)
    operator.put(f"{SERVERS}/{request['id']}/certificate", {"certificate": new}).ok()
    activate(operator, request["id"]).ok()
    operator.delete(f"{SERVERS}/{made['id']}").ok(204)
    assert operator.get(f"{SERVERS}/{request['id']}/pem").text == new
