"""uploadCA over HTTP: the CAs whose devices are trusted."""

import base64
import json
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from msgspec import structs

from functions.registry import PREFIX
from shared.records import CAIndex
from shared.refs import ca_index_ref
from shared.usecases.cas.documents import CAS_MAX, CAS_OF_ONE_NAME_MAX
from tests.support import certs
from tests.support.certs import DAY, NOON, YEAR
from tests.support.harness import Client, Service, make_service
from tests.support.openssl import OpenSSL

CAS = "/authentication/cacertificates"
ROOT = certs.ca("Root")


@cache
def numbered(number: int, name: str = "Root") -> certs.Issued:
    """Return one of several CAs of the same name, each with its own key."""
    return certs.ca(name, private=certs.key("P-256", 500 + number))


def test_the_original_services_call_works_unchanged(operator: Client) -> None:
    """The only publicly documented call: POST with Basic authentication, `comments`, and `certificate` as PEM."""
    body = json.dumps({"comments": "our first CA", "certificate": ROOT.pem}).encode()
    answer = operator.send("POST", CAS, body)
    assert answer.ok(201)["comments"] == "our first CA"


def test_the_fields_of_the_answer(operator: Client) -> None:
    """Every field of contract.md, the version as ETag, and nothing else."""
    answer = operator.post(CAS, {"certificate": ROOT.pem, "comments": "Plant 1"})
    ca = answer.ok(201)
    assert ca == {
        "id": ca["id"],
        "status": "active",
        "subject": "CN=Root",
        "issuer": "CN=Root",
        "serialNumber": f"{ROOT.cert.serial_number:x}",
        "notBefore": "2016-06-03T12:00:00Z",
        "notAfter": "2036-05-29T12:00:00Z",
        "fingerprintSha256": ROOT.fingerprint,
        "keyAlgorithm": "P-256",
        "comments": "Plant 1",
        "deniedAt": None,
        "lastUsed": None,
        "connections30d": 0,
        "createdAt": "2026-06-01T12:00:00Z",
        "createdBy": operator.key,
        "updatedAt": "2026-06-01T12:00:00Z",
        "updatedBy": operator.key,
        "version": ca["version"],
        "warnings": ca["warnings"],
    }
    assert answer.etag == f'"{ca["version"]}"'
    name, _, digest = ca["id"].partition("-")
    assert (len(name), digest) == (16, ROOT.fingerprint[:32])
    assert answer.reply.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("how", ["PEM in JSON", "DER in JSON", "PEM file", "DER file", "PEM as form text", "with text"])
def test_every_format_registers_the_same_ca(operator: Client, how: str) -> None:
    """PEM or DER, JSON or multipart; text around the PEM block is ignored."""
    match how:
        case "PEM in JSON":
            answer = operator.post(CAS, {"certificate": ROOT.pem})
        case "DER in JSON":
            answer = operator.post(CAS, {"certificate": base64.b64encode(ROOT.der).decode()})
        case "PEM file":
            answer = operator.form(CAS, {"certificate": ROOT.pem.encode(), "comments": "curl -F"})
        case "DER file":
            answer = operator.form(CAS, {"certificate": ROOT.der})
        case "PEM as form text":
            answer = operator.form(CAS, {"certificate": ROOT.pem})
        case _:
            answer = operator.post("/uploadCA", {"certificate": f"Certificate:\n  Data: ...\n{ROOT.pem}\nbye\n"})
    assert answer.ok(201)["fingerprintSha256"] == ROOT.fingerprint


def test_a_second_upload_changes_nothing(service: Service, operator: Client) -> None:
    """200, with the comments, the times and the version of the first upload."""
    first = operator.post(CAS, {"certificate": ROOT.pem, "comments": "first"}).ok(201)
    writes = service.store.calls["put"]
    service.clock.now += timedelta(minutes=5)
    again = service.client("operator").post(CAS, {"certificate": ROOT.pem, "comments": "second"}).ok(200)
    first.pop("warnings")
    assert again.pop("warnings") == []
    assert again == first
    assert service.store.calls["put"] == writes + 1  # the second operator's key is the only difference
    assert [ca["id"] for ca in operator.get(CAS).ok()["results"]] == [first["id"]]


def test_a_second_upload_does_not_activate_a_ca(operator: Client) -> None:
    ca = operator.post(CAS, {"certificate": ROOT.pem}).ok(201)
    operator.put(f"{CAS}/{ca['id']}", {"status": "inactive"}).ok()
    assert operator.post(CAS, {"certificate": ROOT.pem}).ok(200)["status"] == "inactive"


def test_the_first_ca_warns_that_devices_must_send_sni(service: Service, operator: Client) -> None:
    """Only the first CA warns. After the last CA is deleted, the next CA is the first again."""
    first = operator.post(CAS, {"certificate": ROOT.pem}).ok(201)
    [warning] = first["warnings"]
    assert warning["code"] == "sni_required"
    assert service.host() in warning["message"]
    second = operator.post(CAS, {"certificate": certs.ca("Second").pem}).ok(201)
    assert second["warnings"] == []
    for ca in (first, second):
        operator.delete(f"{CAS}/{ca['id']}").ok(204)
    assert operator.post(CAS, {"certificate": ROOT.pem}).ok(201)["warnings"] == [warning]


def test_a_root_and_its_intermediate_are_both_anchors(operator: Client) -> None:
    """Each is a trust anchor. KeyUsage and a critical BasicConstraints are not required."""
    intermediate = certs.ca("Intermediate", ROOT, critical=False)
    operator.post(CAS, {"certificate": intermediate.pem}).ok(201)
    operator.post(CAS, {"certificate": ROOT.pem}).ok(201)
    assert len(operator.get(CAS).ok()["results"]) == 2


def test_ten_cas_of_one_name(operator: Client) -> None:
    """The eleventh CA of a subject is a conflict; a CA of another name, or after a deletion, is accepted."""
    made = [operator.post(CAS, {"certificate": numbered(n).pem}).ok(201)["id"] for n in range(CAS_OF_ONE_NAME_MAX)]
    refused = operator.post(CAS, {"certificate": numbered(10).pem})
    assert (refused.status, refused.code) == (409, "too_many_cas_of_one_name")
    assert refused.json["detail"] == (
        "The organization has 10 CA certificates with the subject CN=Root already; at most 10 CA certificates may have "
        "the same subject. Delete a CA certificate with this subject that no device needs any more, then add this CA "
        "certificate again."
    )
    operator.post(CAS, {"certificate": certs.ca("Other").pem}).ok(201)
    assert operator.post(CAS, {"certificate": numbered(3).pem}).status == 200
    operator.delete(f"{CAS}/{made[0]}").ok(204)
    operator.post(CAS, {"certificate": numbered(10).pem}).ok(201)
    assert operator.post(CAS, {"certificate": numbered(11).pem}).status == 409
    for ca in operator.get(CAS).ok()["results"]:
        operator.delete(f"{CAS}/{ca['id']}").ok(204)
    assert operator.post(CAS, {"certificate": ROOT.pem}).ok(201)["warnings"]  # the refused CAs left nothing behind


def test_names_are_compared_without_case_and_spacing(operator: Client) -> None:
    """Names that differ in case and spacing only are equal (RFC 5280, 7.1), so their ids begin with the same digits."""
    ids = [
        operator.post(CAS, {"certificate": numbered(n, name).pem}).ok(201)["id"].partition("-")[0]
        for n, name in enumerate(("Fleet Root", "fleet  ROOT"))
    ]
    assert ids[0] == ids[1]


def test_the_limit_of_cas_of_an_organization(service: Service, operator: Client) -> None:
    """The next CA is a conflict; a registered CA may be uploaded again."""
    there = operator.post(CAS, {"certificate": ROOT.pem}).ok(201)["id"]
    filled = CAIndex({there: True, **{f"{n:016x}-{n:032x}": True for n in range(CAS_MAX - 1)}})
    for attempt in service.app.context.repository.changing(ca_index_ref(service.org_id)):
        with attempt:
            attempt.write(filled)
    refused = operator.post(CAS, {"certificate": certs.ca("One more").pem})
    assert (refused.status, refused.code) == (409, "too_many_cas")
    assert refused.json["detail"].startswith(
        "The organization has 1000 CA certificates already; at most 1000 are allowed."
    )
    assert operator.post(CAS, {"certificate": ROOT.pem}).status == 200


def test_the_rate_limit_of_cas(tmp_path: Path) -> None:
    """429 with Retry-After. A registered CA is not counted, and the next minute starts a new count."""
    service = make_service(tmp_path / "count_in_window")
    context = structs.replace(service.app.context, ca_rate_per_minute=2)
    service.app = structs.replace(service.app, context=context)
    service.clock.now = NOON + timedelta(seconds=15)
    operator = service.client("operator")
    for number in range(2):
        operator.post(CAS, {"certificate": numbered(number).pem}).ok(201)
    operator.post(CAS, {"certificate": numbered(0).pem}).ok(200)
    refused = operator.post(CAS, {"certificate": numbered(2).pem})
    assert (refused.status, refused.code) == (429, "rate_limited")
    assert refused.reply.headers["Retry-After"] == "45"
    assert refused.json["detail"] == "More than 2 new CA certificates in a minute. Try again in 45 seconds."
    service.clock.now += timedelta(seconds=45)
    operator.post(CAS, {"certificate": numbered(2).pem}).ok(201)
    service.app.close()


def csr_pem(openssl: OpenSSL) -> str:
    openssl("req -new -newkey rsa:2048 -nodes -keyout k.pem -out r.pem -subj", "/CN=Request")
    return openssl.read("r.pem")


EXPIRED = certs.ca("Old", not_after=NOON - DAY)
FUTURE = certs.ca("Future", not_before=NOON + DAY, not_after=NOON + YEAR)
WEAK = certs.ca("Weak", private=certs.key("RSA-1024"))
CANNOT_SIGN = certs.ca("Cannot", key_usage=certs.usage(digital_signature=True))
FORGED = certs.certificate(
    certs.name("Forged"),
    signer=None,
    private=certs.key("P-256", 7),
    signing_key=certs.key("P-256", 8),
    extensions=((x509.BasicConstraints(True, None), True),),
)

REFUSALS = {
    "expired": (
        EXPIRED.pem,
        "certificate_expired",
        "The certificate expired 1 day ago (31 May 2026, 12:00 UTC). Issue a new certificate.",
    ),
    "not yet valid": (
        FUTURE.pem,
        "certificate_not_yet_valid",
        "The certificate is valid only from 2 Jun 2026, 12:00 UTC (in 1 day). "
        "Wait, or correct the clock of the machine that issues certificates and issue the certificate again.",
    ),
    "a device's": (
        certs.leaf("d:thermo:42", ROOT).pem,
        "not_a_ca",
        "This is not a CA certificate: it does not say CA:TRUE. "
        "Add the CA certificate that signed it, CN=Root (usually ca.pem or root.pem).",
    ),
    "cannot sign": (
        CANNOT_SIGN.pem,
        "not_a_ca",
        "This is not a CA certificate: its key usage does not include keyCertSign. "
        "Issue the certificate again with keyUsage=keyCertSign.",
    ),
    "weak key": (
        WEAK.pem,
        "weak_key",
        "The key RSA 1024 bits is weak, or of a kind that is not supported. "
        "Issue the certificate again with a new key of RSA 2048 bits or P-256.",
    ),
    "curve": (
        certs.ca("K", private=certs.key("K-256")).pem,
        "weak_key",
        "The key secp256k1 is weak, or of a kind that is not supported. "
        "Issue the certificate again with a new key of RSA 2048 bits or P-256.",
    ),
    "forged": (
        FORGED.pem,
        "self_signature_invalid",
        "The certificate's own signature is not valid. Copy the certificate again from where it was made.",
    ),
    "several": (
        ROOT.pem + certs.ca("Second").pem,
        "several_certificates",
        "2 certificates are in the file. Save the CA certificate alone in a file.",
    ),
    "a key": (
        ROOT.key_pem,
        "private_key_given",
        "A private key is in this file; it was not kept. Choose the certificate alone. "
        "If others may have seen this file, make a new key.",
    ),
    "certificate and key": (
        ROOT.pem + ROOT.key_pem,
        "private_key_given",
        "A private key is in this file; it was not kept. Choose the certificate alone. "
        "If others may have seen this file, make a new key.",
    ),
    "text": ("hello, world", "not_a_certificate", "No certificate found in the file. Choose PEM or DER."),
    "empty": ("", "not_a_certificate", None),
    "cut off": (ROOT.pem[:200], "not_a_certificate", None),
    "noise": (base64.b64encode(bytes(range(256))).decode(), "not_a_certificate", None),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_has_a_code_a_reason_and_a_remedy(operator: Client, case: str) -> None:
    """422 with a stable code, the console's sentence and the field; nothing is stored."""
    sent, code, sentence = REFUSALS[case]
    refused = operator.post(CAS, {"certificate": sent})
    assert (refused.status, refused.code) == (422, code)
    assert refused.reply.content_type == "application/problem+json"
    if sentence is not None:
        assert refused.json["detail"] == sentence
    assert len(refused.json["detail"]) > 20
    assert "PRIVATE KEY" not in refused.text
    assert ROOT.key_pem.splitlines()[1] not in refused.text
    assert operator.get(CAS).ok()["results"] == []


def test_a_certificate_request_is_refused(operator: Client, openssl: OpenSSL) -> None:
    refused = operator.post(CAS, {"certificate": csr_pem(openssl)})
    assert (refused.status, refused.code) == (422, "csr_given")
    assert (
        refused.json["detail"] == "This is a certificate request, not a certificate. "
        "Have the request signed by your CA, and upload the certificate."
    )


def test_an_intermediate_signed_with_sha1_is_refused_and_a_sha1_root_is_not(openssl: OpenSSL, tmp_path: Path) -> None:
    """A root's own signature proves nothing; a SHA-1 signature of an issuer is weak."""
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout r.key -out r.pem -days 30 -sha1 -subj", "/CN=Old Root")
    openssl("req -new -newkey rsa:2048 -nodes -keyout i.key -out i.csr -subj", "/CN=Intermediate")
    openssl.write("ca.ext", "basicConstraints=CA:true\n")
    openssl("x509 -req -in i.csr -CA r.pem -CAkey r.key -CAcreateserial -days 30 -sha1 -extfile ca.ext -out i.pem")
    root = x509.load_pem_x509_certificate(openssl.bytes("r.pem"))
    service = make_service(tmp_path / "sha1", at=root.not_valid_before_utc + timedelta(hours=1))
    operator = service.client("operator")
    operator.post(CAS, {"certificate": openssl.read("r.pem")}).ok(201)
    refused = operator.post(CAS, {"certificate": openssl.read("i.pem")})
    assert (refused.status, refused.code) == (422, "weak_signature")
    assert (
        refused.json["detail"] == "The certificate is signed with SHA-1, which is not secure. "
        "Issue the certificate again, signed with SHA-256."
    )
    service.app.close()


def test_a_large_file_is_refused(operator: Client) -> None:
    """More than 64 KiB as a file, 16 KiB as DER or 256 KiB as a request: 413 with the size and the limit."""
    text = ROOT.pem + "x" * 65 * 1024
    refused = operator.post(CAS, {"certificate": text})
    assert (refused.status, refused.code) == (413, "file_too_large")
    assert refused.json["detail"].startswith(f"{len(text):,} bytes were sent; at most 65,536 bytes (64 KiB) are taken.")
    assert operator.post(CAS, {"certificate": "x" * 300 * 1024}).status == 413


def test_a_missing_certificate_is_refused_with_the_field(operator: Client) -> None:
    refused = operator.post(CAS, {"comments": "no file chosen"})
    assert (refused.status, refused.code) == (400, "missing_field")
    assert refused.json["violations"][0]["field"] == "certificate"


def test_comments_have_a_limit(operator: Client) -> None:
    operator.post(CAS, {"certificate": ROOT.pem, "comments": "x" * 1000}).ok(201)
    refused = operator.post(CAS, {"certificate": ROOT.pem, "comments": "x" * 1001})
    assert (refused.status, refused.code) == (400, "wrong_value")
    assert refused.json["violations"][0]["field"] == "comments"


def test_two_orgs_may_register_the_same_ca(service: Service, operator: Client) -> None:
    """Trust belongs to an organization: each has its own record of the CA."""
    other = service.client("operator", service.other_org())
    mine = operator.post(CAS, {"certificate": ROOT.pem, "comments": "mine"}).ok(201)
    theirs = other.post(CAS, {"certificate": ROOT.pem, "comments": "theirs"}).ok(201)
    assert mine["id"] == theirs["id"]
    operator.delete(f"{CAS}/{mine['id']}").ok(204)
    assert other.get(f"{CAS}/{theirs['id']}").ok()["comments"] == "theirs"


def test_the_functions_own_name_is_an_address(operator: Client) -> None:
    """With and without the prefix."""
    assert PREFIX == "/api/v0002"
    operator.post("//uploadCA", {"certificate": ROOT.pem}).ok(201)
    operator.post("/uploadCA", {"certificate": ROOT.pem}).ok(200)
