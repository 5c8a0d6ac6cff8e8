"""Server certificates over HTTP: upload, request, fulfillment, activation, renewal and deletion."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from shared.usecases.servers.documents import SERVERS_MAX
from shared.validation import csr
from tests.support import certs
from tests.support.certs import DAY, NOON, YEAR
from tests.support.harness import Answer, Client, Service, make_service
from tests.support.openssl import OpenSSL

SERVERS = "/authentication/servercertificates"
HOST = "mtxpd0.messaging.example.com"
ROOT = certs.ca("Server Root")
INTERMEDIATE = certs.ca("Server Intermediate", ROOT)
SERVER = certs.server(HOST, INTERMEDIATE)


def upload(operator: Client, issued: certs.Issued = SERVER, *chain: certs.Issued, **more: str) -> dict[str, Any]:
    uploaded: dict[str, Any] = operator.post(
        SERVERS, {"certificate": certs.bundle(issued, *chain), "privateKey": issued.key_pem, **more}
    ).ok(201)
    return uploaded


def numbered(number: int, host: str = HOST, signer: certs.Issued = ROOT) -> certs.Issued:
    return certs.server(host, signer, private=certs.key("P-256", 700 + number))


def issue(csr: str, signer: certs.Issued = ROOT, **more: Any) -> certs.Issued:
    """Return the certificate that a CA issues for a request."""
    request = x509.load_pem_x509_csr(csr.encode())
    [host] = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    )
    cert = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(signer.cert.subject)
        .public_key(request.public_key())
        .serial_number(more.get("serial", 4711))
        .not_valid_before(more.get("not_before", NOON - DAY))
        .not_valid_after(more.get("not_after", NOON + YEAR))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(signer.key, hashes.SHA256())
    )
    return certs.Issued(cert, signer.key)


def codes(answer: Mapping[str, Any]) -> list[str]:
    return [warning["code"] for warning in answer["warnings"]]


def active(client: Client) -> tuple[str, str | None]:
    activation = client.get(f"{SERVERS}/active").ok()
    return activation["active"], activation["previous"]


def activate(client: Client, certificate_id: str, **more: Any) -> Answer:
    return client.send("PUT", f"{SERVERS}/active", f'{{"id": "{certificate_id}"}}'.encode(), **more)


# ------------------------------------------------------------------------------------------------------- upload


def test_the_answer_to_an_upload(operator: Client) -> None:
    """The answer has every field of the API, with names, covered hosts and the sorted chain, and never a key."""
    answer = operator.post(
        SERVERS, {"certificate": certs.bundle(SERVER, INTERMEDIATE), "privateKey": SERVER.key_pem, "comments": "2026"}
    )
    uploaded = answer.ok(201)
    assert uploaded == {
        "id": uploaded["id"],
        "status": "certificate",
        "source": "upload",
        "active": False,
        "servedSince": None,
        "names": [HOST],
        "hosts": [HOST],
        "chain": uploaded["chain"],
        "subject": f"CN={HOST}",
        "issuer": "CN=Server Intermediate",
        "serialNumber": f"{SERVER.cert.serial_number:x}",
        "notBefore": "2026-05-31T12:00:00Z",
        "notAfter": "2027-06-01T12:00:00Z",
        "fingerprintSha256": SERVER.fingerprint,
        "keyAlgorithm": "P-256",
        "comments": "2026",
        "csr": None,
        "createdAt": "2026-06-01T12:00:00Z",
        "createdBy": operator.key,
        "updatedAt": "2026-06-01T12:00:00Z",
        "updatedBy": operator.key,
        "version": answer.etag.strip('"'),
        "warnings": uploaded["warnings"],
    }
    assert [issuer["fingerprintSha256"] for issuer in uploaded["chain"]] == [INTERMEDIATE.fingerprint]
    assert codes(uploaded) == ["sni_required"]
    assert SERVER.key_pem.splitlines()[1] not in answer.text


@pytest.mark.parametrize(
    ("sent", "chain"),
    [
        ((SERVER, INTERMEDIATE, ROOT), ()),
        ((ROOT, INTERMEDIATE, SERVER), ()),
        ((INTERMEDIATE, SERVER), (ROOT,)),
        ((SERVER,), (ROOT, INTERMEDIATE, SERVER)),
    ],
)
def test_a_chain_in_any_order_is_sorted(
    operator: Client, sent: Sequence[certs.Issued], chain: Sequence[certs.Issued]
) -> None:
    """The chain is in the file or in `chain`; a certificate that is sent twice counts once."""
    fields = {"certificate": certs.bundle(*sent), "privateKey": SERVER.key_pem}
    uploaded = operator.post(SERVERS, fields | ({"chain": certs.bundle(*chain)} if chain else {})).ok(201)
    assert uploaded["fingerprintSha256"] == SERVER.fingerprint
    assert [issuer["subject"] for issuer in uploaded["chain"]] == ["CN=Server Intermediate", "CN=Server Root"]


def p12(passphrase: str | None) -> bytes:
    how = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    return pkcs12.serialize_key_and_certificates(b"server", SERVER.key, SERVER.cert, [INTERMEDIATE.cert], how)


DER_KEY = SERVER.key.private_bytes(
    serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
SEC1_KEY = SERVER.key.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
)
PASSPHRASE = "correct horse"
FORMS: dict[str, dict[str, str | bytes]] = {
    "PKCS#12": {"certificate": p12(PASSPHRASE), "passphrase": PASSPHRASE},
    "PKCS#12 without passphrase": {"certificate": p12(None)},
    "DER and DER": {"certificate": SERVER.der, "privateKey": DER_KEY},
    "SEC1": {"certificate": SERVER.pem.encode(), "privateKey": SEC1_KEY},
    "encrypted": {
        "certificate": SERVER.pem.encode(),
        "privateKey": certs.key_pem(SERVER.key, PASSPHRASE).encode(),
        "passphrase": PASSPHRASE,
    },
    "one PEM bundle": {"certificate": (SERVER.key_pem + SERVER.pem).encode()},
    "empty passphrase field": {"certificate": SERVER.pem, "privateKey": SERVER.key_pem, "passphrase": ""},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_key_and_certificate(operator: Client, form: str) -> None:
    uploaded = operator.form(SERVERS, FORMS[form]).ok(201)
    assert uploaded["fingerprintSha256"] == SERVER.fingerprint


OTHER_KEY = certs.key_pem(certs.key("P-256", 97))
BAD_UPLOADS: dict[str, tuple[dict[str, str], str, str]] = {
    "no key": (
        {"certificate": SERVER.pem},
        "private_key_missing",
        "The certificate's private key is missing. Add the private key file.",
    ),
    "another key": (
        {"certificate": SERVER.pem, "privateKey": OTHER_KEY},
        "key_mismatch",
        "The key belongs to another certificate. Choose the key that was made for this certificate.",
    ),
    "no passphrase": (
        {"certificate": SERVER.pem, "privateKey": certs.key_pem(SERVER.key, PASSPHRASE)},
        "passphrase_required",
        "This private key is encrypted. Enter the passphrase of the key.",
    ),
    "wrong passphrase": (
        {"certificate": SERVER.pem, "privateKey": certs.key_pem(SERVER.key, PASSPHRASE), "passphrase": "battery"},
        "passphrase_wrong",
        "The passphrase does not open the key. Type the passphrase again; the files are fine as they are.",
    ),
    "a passphrase too many": (
        {"certificate": SERVER.pem, "privateKey": SERVER.key_pem, "passphrase": "battery staple"},
        "passphrase_unneeded",
        "This private key is not encrypted. Leave the passphrase empty.",
    ),
    "no key in the file": (
        {"certificate": SERVER.pem, "privateKey": SERVER.pem},
        "not_a_key",
        "No private key found in it. Choose the key in PEM or DER: PKCS#8, PKCS#1 or SEC1.",
    ),
    "a stranger in the chain": (
        {"certificate": SERVER.pem, "privateKey": SERVER.key_pem, "chain": certs.ca("Stranger").pem},
        "chain_broken",
        "CN=Stranger did not sign the certificate before it. "
        "Send the leaf with the certificates that lead from it to its root, and no others.",
    ),
    "another host": (
        {"certificate": (other := certs.server("mqtt.example.org", ROOT)).pem, "privateKey": other.key_pem},
        "host_mismatch",
        f"The certificate is for mqtt.example.org; "
        f"the host of this organization is {HOST}. "
        f"Have a certificate issued with {HOST} as DNS name or CN.",
    ),
    "another org's host": (
        {
            "certificate": (more := certs.server(HOST, ROOT, dns=[HOST, "other1.messaging.example.com"])).pem,
            "privateKey": more.key_pem,
        },
        "host_mismatch",
        f"The certificate is for other1.messaging.example.com; "
        f"the host of this organization is {HOST} (the certificate would be valid for other organizations). "
        f"Have a certificate issued with {HOST} as DNS name or CN.",
    ),
    "a wildcard of the platform": (
        {
            "certificate": (wild := certs.server(HOST, ROOT, dns=["*.messaging.example.com"])).pem,
            "privateKey": wild.key_pem,
        },
        "host_mismatch",
        f"The certificate is for *.messaging.example.com; "
        f"the host of this organization is {HOST} (a wildcard: "
        f"the certificate would be valid for other organizations). "
        f"Have a certificate issued with {HOST} as DNS name or CN.",
    ),
    "a client's": (
        {
            "certificate": (client := certs.server(HOST, ROOT, extended_key_usage=[certs.CLIENT_AUTH])).pem,
            "privateKey": client.key_pem,
        },
        "wrong_key_usage",
        "The certificate is for clientAuth only, and not for TLS servers. "
        "Issue the certificate again with extendedKeyUsage=serverAuth.",
    ),
    "expired": (
        {"certificate": (old := certs.server(HOST, ROOT, not_after=NOON - timedelta(seconds=1))).pem,
         "privateKey": old.key_pem},
        "certificate_expired",
        "The certificate expired less than a minute ago (1 Jun 2026, 11:59 UTC). Issue a new certificate.",
    ),
    "an unsupported curve": (
        {"certificate": (big := certs.server(HOST, ROOT, private=certs.key("P-521"))).pem, "privateKey": big.key_pem},
        "key_unsupported",
        "P-521 is not a key that MQTT servers can use. Use a key of RSA 2048 to 4096 bits, P-256 or P-384.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_UPLOADS)
def test_a_refusal_says_what_is_wrong_and_how_to_correct_it(operator: Client, case: str) -> None:
    """The answer is 422 with code and sentence; nothing is stored, and the answer has no secret."""
    fields, code, sentence = BAD_UPLOADS[case]
    refused = operator.post(SERVERS, fields)
    assert (refused.status, refused.code, refused.json["detail"]) == (422, code, sentence)
    assert len(operator.get(SERVERS).ok()["results"]) == 1  # the default
    for secret in ("battery", PASSPHRASE, SERVER.key_pem.splitlines()[1]):
        assert secret not in refused.text


@pytest.mark.slow
def test_a_key_file_that_costs_too_much_to_open(operator: Client, openssl: OpenSSL) -> None:
    """The number of KDF rounds is checked before the key is decrypted."""
    openssl.write("k.pem", SERVER.key_pem)
    openssl("pkcs8 -topk8 -in k.pem -v2 aes-256-cbc -iter 70000 -passout pass:x -outform DER -out k.der")
    rounds, many = bytes.fromhex("0203011170"), bytes.fromhex("02037fffff")  # INTEGER 70,000 and 8,388,607
    encrypted = openssl.bytes("k.der")
    assert rounds in encrypted
    fields: dict[str, str | bytes] = {"certificate": SERVER.pem, "passphrase": "x"}
    refused = operator.form(SERVERS, fields | {"privateKey": encrypted.replace(rounds, many)})
    assert (refused.status, refused.code) == (422, "kdf_too_costly")
    assert refused.json["detail"] == (
        "To open this key takes 8,388,607 rounds of key derivation; the limit is 3,000,000 rounds. "
        "Encrypt the key again: "
        "openssl pkcs8 -topk8 -v2 aes-256-cbc -iter 100000 -in key.pem -out new-key.pem"
    )
    # The advice, to the letter.
    openssl("pkcs8 -topk8 -v2 aes-256-cbc -iter 4000000 -in k.pem -out key.pem -passout pass:x")
    assert operator.form(SERVERS, fields | {"privateKey": openssl.bytes("key.pem")}).code == "kdf_too_costly"
    command = "pkcs8 -topk8 -v2 aes-256-cbc -iter 100000 -in key.pem -out new-key.pem -passin pass:x -passout pass:x"
    openssl(command)
    operator.form(SERVERS, fields | {"privateKey": openssl.bytes("new-key.pem")}).ok(201)
    operator.form(SERVERS, fields | {"privateKey": encrypted}).ok()


@pytest.mark.slow
def test_a_pkcs12_file_that_costs_too_much_to_open(operator: Client, openssl: OpenSSL) -> None:
    """The command of the advice makes a file that is accepted, and leaves no key that is not encrypted."""
    openssl.write("k.pem", SERVER.key_pem)
    openssl.write("c.pem", SERVER.pem)
    openssl("pkcs12 -export -inkey k.pem -in c.pem -out file.p12 -iter 2000000 -passout pass:secret")
    (openssl.folder / "k.pem").unlink()
    refused = operator.form(SERVERS, {"certificate": openssl.bytes("file.p12"), "passphrase": "secret"})
    assert (refused.status, refused.code) == (422, "kdf_too_costly")
    command = refused.json["detail"].partition("Encrypt the key again: openssl ")[2]
    openssl(f"{command} -passin pass:secret -passout pass:secret")
    for file in openssl.folder.iterdir():
        assert b"BEGIN PRIVATE KEY" not in file.read_bytes(), file.name
    assert "BEGIN ENCRYPTED PRIVATE KEY" in openssl.read("new-file.pem")
    operator.form(SERVERS, {"certificate": openssl.bytes("new-file.pem"), "passphrase": "secret"}).ok(201)


def test_a_self_signed_certificate_comes_with_a_warning(operator: Client) -> None:
    assert "self_signed" in codes(upload(operator, certs.server(HOST)))


def test_a_leaf_without_its_issuer_comes_with_a_warning(operator: Client) -> None:
    assert "chain_incomplete" in codes(upload(operator))


def test_names_outside_the_platform_are_allowed_and_listed(operator: Client) -> None:
    """DNS names compare without case."""
    issued = certs.server(HOST, ROOT, dns=[HOST.upper(), "broker.example.org"])
    uploaded = upload(operator, issued, ROOT)
    assert uploaded["names"] == [HOST, "broker.example.org"]
    assert uploaded["hosts"] == [HOST]


def test_an_upload_of_the_same_leaf_returns_the_same_record(operator: Client) -> None:
    first = upload(operator, comments="first")
    again = operator.post(SERVERS, {"certificate": SERVER.pem, "privateKey": SERVER.key_pem, "comments": "again"}).ok(
        200
    )
    assert (again["id"], again["comments"], again["version"]) == (first["id"], "first", first["version"])
    assert len(operator.get(SERVERS).ok()["results"]) == 2
    assert "sni_required" not in codes(again)


# ----------------------------------------------------------------------------------------------- activation


def test_every_org_starts_with_the_default(service: Service, operator: Client, viewer: Client) -> None:
    """The default certificate is listed first, is active, and covers the organization's host."""
    [default] = viewer.get(SERVERS).ok()["results"]
    assert (default["id"], default["source"], default["active"]) == ("default", "default", True)
    assert default["hosts"] == [service.host()]
    assert active(viewer) == ("default", None)
    assert viewer.get(f"{SERVERS}/default").ok()["names"] == ["*.messaging.example.com"]
    assert operator.get(f"{SERVERS}/default/pem").text.startswith("-----BEGIN CERTIFICATE-----")


def test_activation_and_the_way_back(service: Service, operator: Client, viewer: Client) -> None:
    """`previous` is the certificate that was active before, so going back is one call."""
    certificate_id = upload(operator, SERVER, INTERMEDIATE)["id"]
    service.clock.now += timedelta(hours=1)
    activated = activate(operator, certificate_id).ok()
    assert activated == {
        "active": certificate_id,
        "previous": "default",
        "activatedAt": "2026-06-01T13:00:00Z",
        "version": activated["version"],
        "hosts": [HOST],
        "notAfter": "2027-06-01T12:00:00Z",
        "chainComplete": True,
        "warnings": activated["warnings"],
    }
    assert codes(activated) == ["new_root"]
    assert "CN=Server Root" in activated["warnings"][0]["message"]
    assert viewer.get(f"{SERVERS}/{certificate_id}").ok()["active"] is True
    assert viewer.get(f"{SERVERS}/default").ok()["active"] is False
    assert activate(operator, "default").ok()["previous"] == certificate_id
    assert active(viewer) == ("default", certificate_id)


def test_activating_the_active_certificate_changes_nothing(service: Service, operator: Client) -> None:
    certificate_id = upload(operator)["id"]
    first = activate(operator, certificate_id)
    service.clock.now += timedelta(hours=1)
    again = operator.post("/activateServerCert", {"id": certificate_id})
    assert again.ok()["activatedAt"] == first.ok()["activatedAt"]
    assert again.etag == first.etag
    assert active(operator) == (certificate_id, "default")


def test_the_preflight_has_the_same_answer_and_changes_nothing(service: Service, operator: Client) -> None:
    """`?dryrun=true` warns of a new root, an incomplete chain, and an expiry within 30 days."""
    soon = certs.server(HOST, ROOT, not_after=NOON + 29 * DAY)
    certificate_id = upload(operator, soon)["id"]
    writes = service.store.calls["put"]
    preflight = activate(operator, certificate_id, query={"dryrun": "true"}).ok()
    assert (preflight["active"], preflight["previous"]) == (certificate_id, "default")
    assert preflight["chainComplete"] is False
    assert set(codes(preflight)) == {"new_root", "ends_soon", "chain_incomplete"}
    assert service.store.calls["put"] == writes
    assert active(operator) == ("default", None)


def test_the_same_root_is_no_warning(operator: Client) -> None:
    """`new_root` warns of devices that pin the root of the active certificate."""
    first, second = upload(operator, numbered(1)), upload(operator, numbered(2))
    activate(operator, first["id"]).ok()
    assert "new_root" not in codes(activate(operator, second["id"]).ok())


def test_activation_with_a_stale_version_is_refused(operator: Client) -> None:
    """If-Match is optional; a stale version is answered with 412 and changes nothing."""
    first, second = upload(operator, numbered(1))["id"], upload(operator, numbered(2))["id"]
    version = operator.get(f"{SERVERS}/active").etag
    activate(operator, first, headers={"if-match": version}).ok()
    stale = activate(operator, second, headers={"if-match": version})
    assert (stale.status, stale.code) == (412, "stale")
    assert active(operator) == (first, "default")


def test_what_cannot_be_activated(service: Service, operator: Client) -> None:
    """An unknown id, a request, an expired certificate and a certificate that is not valid yet are refused."""
    missing = activate(operator, "0" * 32)
    assert (missing.status, missing.code) == (404, "not_found")
    request = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)["id"]
    refused = activate(operator, request)
    assert (refused.status, refused.code) == (409, "csr_not_fulfilled")
    certificate_id = upload(operator)["id"]
    service.clock.now += 2 * YEAR
    ended = activate(operator, certificate_id)
    assert (ended.status, ended.code) == (422, "certificate_expired")
    service.clock.now = NOON - 2 * DAY
    early = activate(operator, certificate_id)
    assert (early.status, early.code) == (422, "certificate_not_yet_valid")
    assert active(operator) == ("default", None)


def test_an_active_certificate_that_expires_stays_active(service: Service, operator: Client) -> None:
    """The service never replaces the active certificate by itself."""
    certificate_id = upload(operator)["id"]
    activate(operator, certificate_id).ok()
    service.clock.now += 2 * YEAR
    assert active(operator) == (certificate_id, "default")


# ------------------------------------------------------------------------------------------------- deletion


def test_deletion(operator: Client) -> None:
    """The active certificate cannot be deleted; a deleted certificate is not `previous` any more."""
    certificate_id = upload(operator)["id"]
    activate(operator, certificate_id).ok()
    refused = operator.delete(f"{SERVERS}/{certificate_id}")
    assert (refused.status, refused.code) == (409, "active_certificate")
    assert (
        refused.json["detail"]
        == "This certificate is active: devices see it when they connect. Activate another certificate first."
    )
    activate(operator, "default").ok()
    operator.delete(f"{SERVERS}/{certificate_id}").ok(204)
    assert active(operator) == ("default", None)
    assert operator.get(f"{SERVERS}/{certificate_id}").status == 404
    assert operator.delete(f"{SERVERS}/{certificate_id}").status == 404
    assert activate(operator, certificate_id).status == 404


def test_deletion_with_a_stale_version_is_refused(operator: Client) -> None:
    uploaded = upload(operator)
    operator.put(f"{SERVERS}/{uploaded['id']}", {"comments": "changed"}).ok()
    assert operator.delete(f"{SERVERS}/{uploaded['id']}", version=uploaded["version"]).status == 412
    operator.delete(f"{SERVERS}/{uploaded['id']}", version="*").ok(204)


def test_an_org_cannot_change_the_default_certificate(operator: Client) -> None:
    """An organization can neither delete, describe, renew nor fulfil the platform's certificate."""
    activate(operator, upload(operator)["id"]).ok()
    for refused in (
        operator.delete(f"{SERVERS}/default"),
        operator.put(f"{SERVERS}/default", {"comments": "mine"}),
        operator.post(f"{SERVERS}/default/renewal", {}),
        operator.put(f"{SERVERS}/default/certificate", {"certificate": SERVER.pem}),
    ):
        assert (refused.status, refused.code) == (404, "not_found")
    assert operator.get(f"{SERVERS}/default").ok()["comments"] == ""


# ------------------------------------------------------------------------------------------------- requests


def test_a_request_from_generation_to_activation(operator: Client, viewer: Client) -> None:
    """A request can be downloaded more than once, is fulfilled under its own id, and can be activated then."""
    fields = {
        "organization": "Fleet & Söhne",
        "organizationalUnit": "IoT",
        "locality": "Pune",
        "state": "Maharashtra",
        "country": "in",
        "emailAddress": "ops@example.org",
        "keyAlgorithm": "P-256",
        "comments": "spring",
    }
    answer = operator.post(f"{SERVERS}/csr", fields)
    made = answer.ok(201)
    assert (made["status"], made["source"], made["names"], made["comments"]) == ("csr", "csr", [HOST], "spring")
    assert (made["issuer"], made["notAfter"], made["fingerprintSha256"], made["hosts"]) == (None, None, None, [])
    assert "PRIVATE KEY" not in answer.text
    for _ in range(2):
        downloaded = viewer.get(f"{SERVERS}/{made['id']}/csr")
        assert downloaded.text == made["csr"]
        assert downloaded.reply.headers["Content-Disposition"] == f'attachment; filename="{made["id"]}.csr.pem"'
    request = x509.load_pem_x509_csr(made["csr"].encode())
    assert request.is_signature_valid
    subject = {attribute.oid: attribute.value for attribute in request.subject}
    assert subject == {
        NameOID.COUNTRY_NAME: "IN",
        NameOID.STATE_OR_PROVINCE_NAME: "Maharashtra",
        NameOID.LOCALITY_NAME: "Pune",
        NameOID.ORGANIZATION_NAME: "Fleet & Söhne",
        NameOID.ORGANIZATIONAL_UNIT_NAME: "IoT",
        NameOID.COMMON_NAME: HOST,
        NameOID.EMAIL_ADDRESS: "ops@example.org",
    }
    assert viewer.get(f"{SERVERS}/{made['id']}/pem").status == 404  # nothing signed yet
    cert = issue(made["csr"])
    done = operator.put(
        f"{SERVERS}/{made['id']}/certificate", {"certificate": certs.bundle(ROOT, cert)}, version=None
    ).ok()
    assert (done["id"], done["status"], done["source"]) == (made["id"], "certificate", "csr")
    assert done["fingerprintSha256"] == cert.fingerprint
    assert viewer.get(f"{SERVERS}/{made['id']}/pem").text == certs.bundle(cert, ROOT)
    assert activate(operator, made["id"]).ok()["hosts"] == [HOST]


@pytest.mark.parametrize("algorithm", ["RSA-2048", "P-384"])
def test_the_key_algorithm_of_a_request(operator: Client, algorithm: str) -> None:
    """The default is RSA-2048."""
    fields = {} if algorithm == "RSA-2048" else {"keyAlgorithm": algorithm}
    key_algorithm = operator.post("/generateCSR", fields).ok(201)["keyAlgorithm"]
    assert key_algorithm == algorithm.replace("RSA-", "RSA ")


def test_the_first_request_of_an_organization_says_that_devices_must_send_sni(operator: Client) -> None:
    """From the first request on, as from the first certificate."""
    made = [operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201) for _ in range(2)]
    assert [codes(request) for request in made] == [["sni_required"], []]


def test_wrong_fields_of_a_request_are_refused(operator: Client) -> None:
    """The refusal names the field; no request is stored."""
    for field, value, code, status in (
        ("country", "Germany", "subject_invalid", 422),
        ("organization", "x" * 65, "subject_invalid", 422),
        ("locality", "a\nb", "subject_invalid", 422),
        ("emailAddress", "not an address", "subject_invalid", 422),
        ("commonName", "evil.example.org", "host_not_allowed", 422),
        ("commonName", "other1.messaging.example.com", "host_not_allowed", 422),
        ("keyAlgorithm", "RSA-1024", "wrong_value", 400),
    ):
        refused = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256", field: value})
        assert (refused.status, refused.code) == (status, code)
        assert refused.json["violations"][0]["field"] == field
    assert len(operator.get(SERVERS).ok()["results"]) == 1


def test_a_wrong_country_is_refused_before_a_key_is_made(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """An RSA key of 4096 bits takes seconds to make."""

    def make(algorithm: str) -> NoReturn:
        raise AssertionError("a key was made")

    monkeypatch.setattr(csr, "make_key", make)
    refused = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "RSA-4096", "country": "Germany"})
    assert (refused.status, refused.code) == (422, "subject_invalid")


def test_a_certificate_of_another_key_is_refused_and_the_request_stays(operator: Client) -> None:
    made = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)
    refused = operator.put(f"{SERVERS}/{made['id']}/certificate", {"certificate": SERVER.pem})
    assert (refused.status, refused.code) == (422, "key_mismatch")
    assert refused.json["detail"] == (
        "This certificate was not made from this request: its public key is another. "
        f"Upload the certificate that your CA returned for the request for {HOST}."
    )
    older = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)
    for name, wrong in {
        "the CA's certificate alone": certs.ca("Root").pem,
        "the certificate of an older request": issue(older["csr"]).pem,
        "the CA's chain": certs.bundle(certs.ca("Root"), certs.ca("Lower", certs.ca("Root"))),
        "a server certificate with its chain": certs.bundle(SERVER, certs.ca("Root")),
        "a device's certificate": certs.leaf("d:thermo:1", certs.ca("Root")).pem,
    }.items():
        answer = operator.put(f"{SERVERS}/{made['id']}/certificate", {"certificate": wrong})
        assert (answer.code, answer.json["violations"][0]["field"]) == ("key_mismatch", "certificate"), name
        assert "was not made from this request" in answer.json["detail"], name
    assert operator.get(f"{SERVERS}/{made['id']}").ok()["status"] == "csr"
    operator.post("/fulfillCSR", {"id": made["id"], "certificate": issue(made["csr"]).pem}).ok()


def test_a_second_fulfilment(operator: Client) -> None:
    """The same certificate again changes nothing; another certificate is a conflict."""
    made = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)
    first = operator.post("/fulfillCSR", {"id": made["id"], "certificate": issue(made["csr"]).pem})
    cert = operator.get(f"{SERVERS}/{made['id']}/pem").text
    again = operator.post("/fulfillCSR", {"id": made["id"], "certificate": cert})
    assert again.ok()["version"] == first.ok()["version"]
    other = operator.post("/fulfillCSR", {"id": made["id"], "certificate": issue(made["csr"], serial=4712).pem})
    assert (other.status, other.code) == (409, "already_fulfilled")
    assert operator.get(f"{SERVERS}/{made['id']}/pem").text == cert


def test_what_cannot_be_fulfilled(operator: Client) -> None:
    """An unknown id, an uploaded certificate, two different ids, and a missing id are refused."""
    uploaded = upload(operator)["id"]
    for certificate_id in ("0" * 32, uploaded):
        refused = operator.post("/fulfillCSR", {"id": certificate_id, "certificate": SERVER.pem})
        assert (refused.status, refused.code) == (404, "not_found")
    differs = operator.put(f"{SERVERS}/{uploaded}/certificate", {"id": "0" * 32, "certificate": SERVER.pem})
    assert (differs.status, differs.code) == (400, "wrong_value")
    assert operator.post("/fulfillCSR", {"certificate": SERVER.pem}).code == "missing_field"


def test_an_issued_certificate_for_another_host_is_refused(operator: Client) -> None:
    """A CA may issue another name than requested: the rules of an upload apply to the issued certificate."""
    made = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)
    request = x509.load_pem_x509_csr(made["csr"].encode())
    cert = certs.certificate(certs.name("elsewhere.example.org"), signer=ROOT, private=certs.key("P-256", 3)).cert
    swapped = (
        x509.CertificateBuilder()
        .subject_name(cert.subject)
        .issuer_name(cert.issuer)
        .public_key(request.public_key())
        .serial_number(5)
        .not_valid_before(NOON - DAY)
        .not_valid_after(NOON + DAY)
        .sign(ROOT.key, hashes.SHA256())
    )
    refused = operator.post("/fulfillCSR", {"id": made["id"], "certificate": certs.Issued(swapped, ROOT.key).pem})
    assert (refused.status, refused.code) == (422, "host_mismatch")
    assert operator.get(f"{SERVERS}/{made['id']}").ok()["status"] == "csr"


def test_a_request_can_be_deleted(operator: Client) -> None:
    made = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)
    operator.delete(f"{SERVERS}/{made['id']}").ok(204)
    refused = operator.post("/fulfillCSR", {"id": made["id"], "certificate": issue(made["csr"]).pem})
    assert (refused.status, refused.code) == (404, "not_found")


def test_renewal_keeps_the_key_and_the_old_certificate(operator: Client) -> None:
    """Renewal stores a new request on the same key; the old certificate stays, and may stay active."""
    made = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256", "organization": "Fleet"}).ok(201)
    unsigned = operator.post(f"{SERVERS}/{made['id']}/renewal", {})
    assert (unsigned.status, unsigned.code) == (409, "csr_not_fulfilled")
    operator.post("/fulfillCSR", {"id": made["id"], "certificate": issue(made["csr"]).pem}).ok()
    activate(operator, made["id"]).ok()
    renewed = operator.post(f"{SERVERS}/{made['id']}/renewal", {}).ok(201)
    assert (renewed["status"], renewed["names"]) == ("csr", [HOST])
    assert renewed["id"] != made["id"]
    old, new = (x509.load_pem_x509_csr(record["csr"].encode()) for record in (made, renewed))
    assert (old.public_key(), old.subject) == (new.public_key(), new.subject)
    cert = issue(renewed["csr"], serial=99)
    operator.post("/fulfillCSR", {"id": renewed["id"], "certificate": cert.pem}).ok()
    assert active(operator)[0] == made["id"]
    activate(operator, renewed["id"]).ok()
    operator.delete(f"{SERVERS}/{made['id']}").ok(204)  # the new record has a sealed key of its own
    operator.post(f"{SERVERS}/{renewed['id']}/renewal", {}).ok(201)


def test_an_uploaded_certificate_can_be_renewed(operator: Client) -> None:
    uploaded = upload(operator)
    renewed = operator.post(f"{SERVERS}/{uploaded['id']}/renewal", {}).ok(201)
    request = x509.load_pem_x509_csr(renewed["csr"].encode())
    assert request.public_key() == SERVER.cert.public_key()
    assert (operator.get(f"{SERVERS}/{uploaded['id']}/csr").status, renewed["names"]) == (404, [HOST])


def test_a_certificate_without_key_is_refused_with_the_id_of_its_request(operator: Client) -> None:
    """The client should fulfil the request that has the certificate's key."""
    made = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)
    refused = operator.post(SERVERS, {"certificate": issue(made["csr"]).pem})
    assert (refused.status, refused.code) == (422, "use_fulfil")
    assert refused.json["detail"] == (
        f"This certificate belongs to the request {made['id']}, which has no certificate yet. "
        f"Upload the certificate to that request; the request has the private key."
    )
    assert refused.json["violations"][0]["id"] == made["id"]


# -------------------------------------------------------------------------------------------- custom domains


def with_domain(operator: Client, *domains: str, enabled: bool = True) -> Answer:
    return operator.put("/authorization/settings", {"customDomains": {"enabled": enabled, "domains": list(domains)}})


@pytest.mark.parametrize("name", ["mtxpd0.messaging.iot.example.org", "*.messaging.iot.example.org"])
def test_a_certificate_for_a_custom_domain(operator: Client, name: str) -> None:
    """A certificate for the custom host, or for a wildcard of its parent, is accepted once the domain is listed."""
    issued = certs.server(name, ROOT)
    fields = {"certificate": issued.pem, "privateKey": issued.key_pem}
    assert operator.post(SERVERS, fields).code == "host_mismatch"
    with_domain(operator, "iot.example.org").ok()
    uploaded = operator.post(SERVERS, fields).ok(201)
    assert uploaded["hosts"] == ["mtxpd0.messaging.iot.example.org"]
    assert activate(operator, uploaded["id"]).ok()["hosts"] == ["mtxpd0.messaging.iot.example.org"]


def test_a_request_for_a_custom_host(operator: Client) -> None:
    host = "mtxpd0.messaging.iot.example.org"
    assert operator.post(f"{SERVERS}/csr", {"commonName": host}).code == "host_not_allowed"
    with_domain(operator, "iot.example.org").ok()
    made = operator.post(f"{SERVERS}/csr", {"commonName": host, "keyAlgorithm": "P-256"}).ok(201)
    assert made["names"] == [host]


def test_a_long_host_is_in_the_san_alone(operator: Client) -> None:
    """A common name has at most 64 characters (RFC 5280, appendix A.1)."""
    domain = f"{'long' * 13}.example.org"
    with_domain(operator, domain).ok()
    host = f"mtxpd0.messaging.{domain}"
    made = operator.post(f"{SERVERS}/csr", {"commonName": host, "keyAlgorithm": "P-256"}).ok(201)
    assert made["names"] == [host]
    assert "CN=" not in made["subject"]


def test_a_domain_that_the_active_certificate_needs_stays(operator: Client) -> None:
    """The domain can be removed or disabled once another certificate is active."""
    with_domain(operator, "iot.example.org", "b.example.org").ok()
    certificate_id = upload(operator, certs.server("mtxpd0.messaging.iot.example.org", ROOT))["id"]
    activate(operator, certificate_id).ok()
    for refused in (with_domain(operator, "b.example.org"), with_domain(operator, "iot.example.org", enabled=False)):
        assert (refused.status, refused.code) == (409, "domain_in_use")
        assert refused.json["detail"] == (
            "The active server certificate is for mtxpd0.messaging.iot.example.org. "
            "Activate another certificate first, then remove iot.example.org."
        )
    with_domain(operator, "iot.example.org").ok()  # the other domain may go
    activate(operator, "default").ok()
    with_domain(operator).ok()
    refused = activate(operator, certificate_id)  # the certificate covers no host of the organization any more
    assert refused.code == "host_mismatch"


# ----------------------------------------------------------------------------- forms of one intermediate certificate


@pytest.mark.parametrize("way", ["upload", "fulfil"])
def test_an_intermediate_that_expired_since_the_start_of_the_leaf_is_not_served(operator: Client, way: str) -> None:
    """The file has a valid form as well. The expired form is the better one otherwise: another CA signed it."""
    root, old = certs.ca("New root"), certs.ca("Old root")
    expired = certs.ca("New root", old, private=root.key, not_after=NOON - 6 * DAY)
    if way == "upload":
        leaf = certs.server(HOST, root, not_before=NOON - 30 * DAY)
        stored = upload(operator, leaf, expired, old, root)
    else:
        request = operator.post(f"{SERVERS}/csr", {}).ok(201)
        leaf = issue(request["csr"], root, not_before=NOON - 30 * DAY)
        body = {"certificate": certs.bundle(leaf, expired, old, root)}
        stored = operator.put(f"{SERVERS}/{request['id']}/certificate", body).ok()
    assert operator.get(f"{SERVERS}/{stored['id']}/pem").text == certs.bundle(leaf, root)


def test_an_intermediate_that_is_not_valid_yet_is_served_from_its_first_day_on(
    service: Service, operator: Client
) -> None:
    """The file has both forms. The later form would be preferred today, because its end is later."""
    now = service.clock.now
    today = certs.ca("Server Intermediate", ROOT, private=INTERMEDIATE.key, not_after=now + YEAR)
    tomorrow = certs.ca(
        "Server Intermediate", ROOT, private=INTERMEDIATE.key, not_before=now + DAY, not_after=now + 2 * YEAR
    )
    first = upload(operator, SERVER, today, tomorrow, ROOT)
    assert operator.get(f"{SERVERS}/{first['id']}/pem").text == certs.bundle(SERVER, today, ROOT)
    service.clock.now += 2 * DAY
    fields = {"certificate": certs.bundle(SERVER, today, tomorrow, ROOT), "privateKey": SERVER.key_pem}
    assert codes(operator.post(SERVERS, fields).ok(200)) == ["chain_completed"]
    assert operator.get(f"{SERVERS}/{first['id']}/pem").text == certs.bundle(SERVER, tomorrow, ROOT)


# ----------------------------------------------------------------------------------------------------- limits


def test_an_org_has_at_most_fifty_certificates_and_requests(operator: Client) -> None:
    """A further upload, request or renewal is a conflict; a deletion makes room. A stored certificate may be uploaded
    again with its chain, as the warning about its chain says."""
    stored = numbered(0)
    first = upload(operator, stored)["id"]
    for number in range(1, SERVERS_MAX):
        last = upload(operator, numbered(number))["id"]
    issued = numbered(SERVERS_MAX)
    fields = {"certificate": issued.pem, "privateKey": issued.key_pem}
    for refused in (
        operator.post(SERVERS, fields),
        operator.post(f"{SERVERS}/csr", {}),
        operator.post(f"{SERVERS}/{first}/renewal", {}),
    ):
        assert (refused.status, refused.code) == (409, "too_many_server_certificates")
    complete = {"certificate": certs.bundle(stored, ROOT), "privateKey": stored.key_pem}
    assert codes(operator.post(SERVERS, complete).ok(200)) == ["chain_completed"]
    operator.delete(f"{SERVERS}/{last}").ok(204)
    operator.post(SERVERS, fields).ok(201)


def test_the_rate_limit(tmp_path: Path) -> None:
    """Uploads and requests count together; beyond the limit the answer is 429 with Retry-After. An attempt counts
    before its key is opened or made: a repeated upload too, and one that fails."""
    service = make_service(tmp_path / "count_in_window", rate_per_minute=5)
    operator = service.client("operator")
    issued = numbered(1)
    fields = {"certificate": issued.pem, "privateKey": issued.key_pem}
    first = operator.post(SERVERS, fields).ok(201)["id"]
    operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)
    operator.post(SERVERS, fields).ok(200)
    wrong = {**fields, "privateKey": certs.key_pem(issued.key, "right"), "passphrase": "wrong"}
    assert operator.post(SERVERS, wrong).code == "passphrase_wrong"
    operator.post(f"{SERVERS}/{first}/renewal", {}).ok(201)
    for refused in (
        operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}),
        operator.post(SERVERS, wrong),
        operator.post(SERVERS, fields),
        operator.post(f"{SERVERS}/{first}/renewal", {}),
    ):
        assert (refused.status, refused.code, refused.reply.headers["Retry-After"]) == (429, "rate_limited", "60")
        assert "server certificates and requests, failed attempts included, in a minute" in refused.json["detail"]
    service.clock.now += timedelta(minutes=1)
    operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)
    service.app.close()


def test_what_needs_no_key_does_not_count(tmp_path: Path) -> None:
    """A wrong field, a host of another organization and a certificate without key are refused before the attempt."""
    service = make_service(tmp_path / "count_in_window", rate_per_minute=1)
    operator = service.client("operator")
    issued = numbered(1)
    assert operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "RSA-512"}).code == "wrong_value"
    assert operator.post(f"{SERVERS}/csr", {"country": "Nowhere"}).code == "subject_invalid"
    assert operator.post(f"{SERVERS}/csr", {"commonName": "other.example.org"}).code == "host_not_allowed"
    assert operator.post(SERVERS, {"certificate": issued.pem}).code == "private_key_missing"
    operator.post(SERVERS, {"certificate": issued.pem, "privateKey": issued.key_pem}).ok(201)
    service.app.close()


def test_as_many_attempts_at_the_same_moment_as_the_limit_allows(tmp_path: Path) -> None:
    """Attempts are counted by compare-and-set, before the work: no number of callers gets more."""
    service = make_service(tmp_path / "count_in_window", rate_per_minute=3)
    operator = service.client("operator")
    issued = numbered(1)
    wrong = {
        "certificate": issued.pem,
        "privateKey": certs.key_pem(issued.key, "right"),
        "passphrase": "wrong",
    }
    with ThreadPoolExecutor(12) as callers:
        codes = [answer.code for answer in callers.map(lambda _: operator.post(SERVERS, wrong), range(12))]
    assert Counter(codes) == {"passphrase_wrong": 3, "rate_limited": 9}
    service.app.close()
