"""The preview refuses what the upload refuses, also for the number of certificates and the size of the file.

The preview has the warnings of the upload."""

from typing import Any

import pytest

from shared.records import CAIndex
from shared.refs import ca_index_ref
from shared.usecases.cas.documents import CAS_MAX, CAS_OF_ONE_NAME_MAX
from shared.usecases.servers import documents
from tests.functions.test_server_certificates import issue
from tests.support import certs
from tests.support.harness import Answer, Client, Service

CAS = "/authentication/cacertificates"
SERVERS = "/authentication/servercertificates"
PREVIEW = "/authentication/preview"
HOST = "mtxpd0.messaging.example.com"
ROOT = certs.ca("Root")


def numbered(number: int) -> certs.Issued:
    """Return one of several CAs with one name."""
    return certs.ca("Root", private=certs.key("P-256", 300 + number))


def preview(client: Client, pem: str) -> dict[str, Any]:
    view: dict[str, Any] = client.post(f"{PREVIEW}?effect=true", {"certificate": pem}).ok()
    return view


def assert_same(promise: dict[str, Any], upload: Answer) -> None:
    """Compare the promise of the preview with the answer to the upload: acceptance, warnings, code and message."""
    if upload.status in (200, 201):
        assert (promise["accepted"], promise["warnings"]) == (True, upload.json["warnings"])
    else:
        assert (promise["accepted"], promise["code"], promise["message"]) == (False, upload.code, upload.json["detail"])


def test_the_eleventh_ca_of_one_name(operator: Client) -> None:
    for number in range(CAS_OF_ONE_NAME_MAX):
        operator.post(CAS, {"certificate": numbered(number).pem}).ok(201)
    for issued in (numbered(10), numbered(3), certs.ca("Other")):  # a registered CA may be uploaded again
        view = preview(operator, issued.pem)
        assert_same(view["ca"], operator.post(CAS, {"certificate": issued.pem}))
    view = preview(operator, numbered(10).pem)
    assert (view["ca"]["code"], "judged" in view) == ("too_many_cas_of_one_name", False)


def test_the_last_place_for_a_ca_of_an_organization(service: Service, operator: Client) -> None:
    registered = operator.post(CAS, {"certificate": ROOT.pem}).ok(201)["id"]
    for attempt in service.app.context.repository.changing(ca_index_ref(service.org_id)):
        with attempt:
            attempt.write(CAIndex({registered: True, **{f"{n:016x}-{n:032x}": True for n in range(CAS_MAX - 1)}}))
    assert preview(operator, certs.ca("One more").pem)["ca"]["code"] == "too_many_cas"
    for issued in (certs.ca("One more"), ROOT):
        view = preview(operator, issued.pem)
        assert_same(view["ca"], operator.post(CAS, {"certificate": issued.pem}))


def test_a_ca_with_its_private_key(operator: Client) -> None:
    file = ROOT.pem + ROOT.key_pem
    assert preview(operator, file)["ca"]["code"] == "private_key_given"
    assert_same(preview(operator, file)["ca"], operator.post(CAS, {"certificate": file}))


def test_a_file_that_is_too_large_for_a_ca_and_not_for_a_server_certificate(operator: Client) -> None:
    server = certs.server(HOST, ROOT)
    for issued in (ROOT, server):
        file = issued.pem + "a comment\n" * 7_000
        view = preview(operator, file)
        assert view["ca"]["code"] == "file_too_large"
        assert_same(view["ca"], operator.post(CAS, {"certificate": file}))
    assert_same(view["server"], operator.post(SERVERS, {"certificate": file, "privateKey": server.key_pem}))


def test_one_server_certificate_more_than_there_may_be(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stored certificate may be uploaded again, with its chain. A certificate for a request takes the place of the
    request."""
    monkeypatch.setattr(documents, "SERVERS_MAX", 2)
    stored, other = (certs.server(HOST, ROOT, private=certs.key("P-256", 800 + number)) for number in range(2))
    operator.post(SERVERS, {"certificate": stored.pem, "privateKey": stored.key_pem}).ok(201)
    request = operator.post(f"{SERVERS}/csr", {}).ok(201)
    assert preview(operator, other.pem)["server"]["code"] == "too_many_server_certificates"
    for issued in (other, stored):
        upload = operator.post(SERVERS, {"certificate": issued.pem, "privateKey": issued.key_pem})
        assert_same(preview(operator, issued.pem)["server"], upload)
    bundle = certs.bundle(stored, ROOT)
    assert preview(operator, bundle)["server"] == {"accepted": True, "code": None, "message": None, "warnings": []}
    completed = operator.post(SERVERS, {"certificate": bundle, "privateKey": stored.key_pem}).ok(200)
    assert codes(completed) == ["chain_completed"]
    signed = issue(request["csr"])
    for _ in range(2):  # for a waiting request, and for a fulfilled one
        assert preview(operator, signed.pem)["server"]["accepted"] is True
        operator.put(f"{SERVERS}/{request['id']}/certificate", {"certificate": signed.pem}).ok()


def codes(answer: dict[str, Any]) -> list[str]:
    return [warning["code"] for warning in answer["warnings"]]


@pytest.mark.parametrize("first", ["ca", "server"])
def test_only_the_first_certificate_of_an_organization_warns_of_sni(operator: Client, first: str) -> None:
    """Whether that is a CA or a server certificate. From then on devices must name their server."""
    server = certs.server(HOST, ROOT)
    uploads = {"ca": (CAS, {"certificate": ROOT.pem})}
    uploads["server"] = (SERVERS, {"certificate": server.pem, "privateKey": server.key_pem})
    order = sorted(uploads, key=lambda kind: kind != first)
    for kind, is_first in zip(order, (True, False), strict=True):
        path, body = uploads[kind]
        promise = preview(operator, body["certificate"])[kind]
        assert ("sni_required" in codes(promise)) is is_first
        assert_same(promise, operator.post(path, body))


def test_a_ca_with_the_name_and_key_of_an_inactive_ca(operator: Client) -> None:
    registered = operator.post(CAS, {"certificate": ROOT.pem}).ok(201)["id"]
    operator.put(f"{CAS}/{registered}", {"status": "inactive"}).ok()
    for issued, expected in ((certs.ca("Root", serial=7), ["reactivates"]), (ROOT, [])):
        promise = preview(operator, issued.pem)["ca"]
        assert codes(promise) == expected
        assert_same(promise, operator.post(CAS, {"certificate": issued.pem}))
