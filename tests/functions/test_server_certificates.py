"""Server certificates over HTTP: what is uploaded, requested, signed, activated and deleted."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from shared.usecases.servers import requests as usecase
from shared.usecases.servers.documents import SERVERS_MAX
from tests import certs
from tests.certs import DAY, NOON, YEAR
from tests.harness import Answer, Client, Service, make_service
from tests.openssl import OpenSSL

SERVERS = "/authentication/servercertificates"
HOST = "mtxpd0.messaging.example.com"
ROOT = certs.ca("Server Root")
INTERMEDIATE = certs.ca("Server Intermediate", ROOT)
SERVER = certs.server(HOST, INTERMEDIATE)


def upload(operator: Client, one: certs.Issued = SERVER, *chain: certs.Issued, **more: str) -> dict[str, Any]:
    found: dict[str, Any] = operator.post(
        SERVERS, {"certificate": certs.bundle(one, *chain), "privateKey": one.key_pem, **more}
    ).ok(201)
    return found


def numbered(number: int, host: str = HOST, signer: certs.Issued = ROOT) -> certs.Issued:
    return certs.server(host, signer, private=certs.key("P-256", 700 + number))


def signed(csr: str, signer: certs.Issued = ROOT, **more: Any) -> certs.Issued:
    """What a CA makes of a request."""
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
        .not_valid_before(NOON - DAY)
        .not_valid_after(more.get("not_after", NOON + YEAR))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(signer.key, hashes.SHA256())
    )
    return certs.Issued(cert, signer.key)


def codes(answer: Mapping[str, Any]) -> list[str]:
    return [one["code"] for one in answer["warnings"]]


def active(client: Client) -> tuple[str, str | None]:
    found = client.get(f"{SERVERS}/active").ok()
    return found["active"], found["previous"]


def activate(client: Client, certificate_id: str, **more: Any) -> Answer:
    return client.send("PUT", f"{SERVERS}/active", f'{{"id": "{certificate_id}"}}'.encode(), **more)


# ------------------------------------------------------------------------------------------------------- upload


def test_what_is_answered(operator: Client) -> None:
    """Every field of contract.md; the names, the hosts it covers, its chain sorted; never a key."""
    answer = operator.post(
        SERVERS, {"certificate": certs.bundle(SERVER, INTERMEDIATE), "privateKey": SERVER.key_pem, "comments": "2026"}
    )
    found = answer.ok(201)
    assert found == {
        "id": found["id"],
        "status": "certificate",
        "source": "upload",
        "active": False,
        "servedSince": None,
        "names": [HOST],
        "hosts": [HOST],
        "chain": found["chain"],
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
        "warnings": found["warnings"],
    }
    assert [one["fingerprintSha256"] for one in found["chain"]] == [INTERMEDIATE.fingerprint]
    assert codes(found) == ["sni_required"]
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
    """In the file or as `chain`; a certificate sent twice counts once."""
    fields = {"certificate": certs.bundle(*sent), "privateKey": SERVER.key_pem}
    found = operator.post(SERVERS, fields | ({"chain": certs.bundle(*chain)} if chain else {})).ok(201)
    assert found["fingerprintSha256"] == SERVER.fingerprint
    assert [one["subject"] for one in found["chain"]] == ["CN=Server Intermediate", "CN=Server Root"]


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
    found = operator.form(SERVERS, FORMS[form]).ok(201)
    assert found["fingerprintSha256"] == SERVER.fingerprint


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
        "This key is encrypted. Give its passphrase.",
    ),
    "wrong passphrase": (
        {"certificate": SERVER.pem, "privateKey": certs.key_pem(SERVER.key, PASSPHRASE), "passphrase": "battery"},
        "passphrase_wrong",
        "Wrong passphrase. Type it again; the files are fine as they are.",
    ),
    "a passphrase too many": (
        {"certificate": SERVER.pem, "privateKey": SERVER.key_pem, "passphrase": "battery staple"},
        "passphrase_unneeded",
        "This key has no passphrase. Leave the passphrase empty.",
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
        f"For mqtt.example.org; yours is {HOST}. Have it issued for {HOST} in CN or as DNS name.",
    ),
    "another org's host": (
        {
            "certificate": (more := certs.server(HOST, ROOT, dns=[HOST, "other1.messaging.example.com"])).pem,
            "privateKey": more.key_pem,
        },
        "host_mismatch",
        f"For other1.messaging.example.com; yours is {HOST} (would speak for other orgs). "
        f"Have it issued for {HOST} in CN or as DNS name.",
    ),
    "a wildcard of the platform": (
        {
            "certificate": (wild := certs.server(HOST, ROOT, dns=["*.messaging.example.com"])).pem,
            "privateKey": wild.key_pem,
        },
        "host_mismatch",
        f"For *.messaging.example.com; yours is {HOST} (a wildcard: would speak for other orgs). "
        f"Have it issued for {HOST} in CN or as DNS name.",
    ),
    "a client's": (
        {
            "certificate": (client := certs.server(HOST, ROOT, extended_key_usage=[certs.CLIENT_AUTH])).pem,
            "privateKey": client.key_pem,
        },
        "wrong_key_usage",
        "Made for clientAuth. Reissue as a server certificate (serverAuth).",
    ),
    "expired": (
        {"certificate": (old := certs.server(HOST, ROOT, not_after=NOON - timedelta(seconds=1))).pem,
         "privateKey": old.key_pem},
        "certificate_expired",
        "Ended 1 Jun 2026, 11:59 UTC. Issue a new one.",
    ),
    "a curve nobody takes": (
        {"certificate": (big := certs.server(HOST, ROOT, private=certs.key("P-521"))).pem, "privateKey": big.key_pem},
        "key_unsupported",
        "P-521 is not a key MQTT servers take. Use RSA 2048-4096, P-256 or P-384.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_UPLOADS)
def test_refusals_say_what_is_wrong_and_how_to_mend_it(operator: Client, case: str) -> None:
    """422 with its code and sentence; nothing is kept, and nothing secret is said."""
    fields, code, sentence = BAD_UPLOADS[case]
    refused = operator.post(SERVERS, fields)
    assert (refused.status, refused.code, refused.json["detail"]) == (422, code, sentence)
    assert len(operator.get(SERVERS).ok()["results"]) == 1  # the default
    for secret in ("battery", PASSPHRASE, SERVER.key_pem.splitlines()[1]):
        assert secret not in refused.text


def test_a_key_file_that_costs_too_much_to_open(operator: Client, openssl: OpenSSL) -> None:
    """Its rounds are read before it is decrypted: nobody waits for millions of them."""
    openssl.write("k.pem", SERVER.key_pem)
    openssl("pkcs8 -topk8 -in k.pem -v2 aes-256-cbc -iter 70000 -passout pass:x -outform DER -out k.der")
    rounds, many = bytes.fromhex("0203011170"), bytes.fromhex("02037fffff")  # INTEGER 70,000 and 8,388,607
    encrypted = openssl.bytes("k.der")
    assert rounds in encrypted
    fields: dict[str, str | bytes] = {"certificate": SERVER.pem, "passphrase": "x"}
    refused = operator.form(SERVERS, fields | {"privateKey": encrypted.replace(rounds, many)})
    assert (refused.status, refused.code) == (422, "kdf_too_costly")
    assert refused.json["detail"] == (
        "Opening this key would cost 8,388,607 rounds; at most 1,000,000 is done here. "
        "Re-encrypt the key with fewer rounds."
    )
    operator.form(SERVERS, fields | {"privateKey": encrypted}).ok(201)


def test_a_self_signed_certificate_comes_with_a_warning(operator: Client) -> None:
    assert "self_signed" in codes(upload(operator, certs.server(HOST)))


def test_a_leaf_without_its_issuer_comes_with_a_warning(operator: Client) -> None:
    assert "chain_incomplete" in codes(upload(operator))


def test_other_foreign_names_are_allowed_and_shown(operator: Client) -> None:
    """Names compare without case."""
    one = certs.server(HOST, ROOT, dns=[HOST.upper(), "broker.example.org"])
    found = upload(operator, one, ROOT)
    assert found["names"] == [HOST, "broker.example.org"]
    assert found["hosts"] == [HOST]


def test_the_same_leaf_again_is_the_same_record(operator: Client) -> None:
    first = upload(operator, comments="first")
    again = operator.post(SERVERS, {"certificate": SERVER.pem, "privateKey": SERVER.key_pem, "comments": "again"}).ok(
        200
    )
    assert (again["id"], again["comments"], again["version"]) == (first["id"], "first", first["version"])
    assert len(operator.get(SERVERS).ok()["results"]) == 2
    assert "sni_required" not in codes(again)


# ----------------------------------------------------------------------------------------------- activation


def test_every_org_starts_with_the_default(service: Service, operator: Client, viewer: Client) -> None:
    """It is listed first, it is active, and it covers the org's host."""
    [default] = viewer.get(SERVERS).ok()["results"]
    assert (default["id"], default["source"], default["active"]) == ("default", "default", True)
    assert default["hosts"] == [service.host()]
    assert active(viewer) == ("default", None)
    assert viewer.get(f"{SERVERS}/default").ok()["names"] == ["*.messaging.example.com"]
    assert operator.get(f"{SERVERS}/default/pem").text.startswith("-----BEGIN CERTIFICATE-----")


def test_activation_and_the_way_back(service: Service, operator: Client, viewer: Client) -> None:
    """One is active; `previous` is the one just before, so going back is one call."""
    one = upload(operator, SERVER, INTERMEDIATE)["id"]
    service.clock.now += timedelta(hours=1)
    done = activate(operator, one).ok()
    assert done == {
        "active": one,
        "previous": "default",
        "activatedAt": "2026-06-01T13:00:00Z",
        "version": done["version"],
        "hosts": [HOST],
        "notAfter": "2027-06-01T12:00:00Z",
        "chainComplete": True,
        "warnings": done["warnings"],
    }
    assert codes(done) == ["new_root"]
    assert "CN=Server Root" in done["warnings"][0]["message"]
    assert viewer.get(f"{SERVERS}/{one}").ok()["active"] is True
    assert viewer.get(f"{SERVERS}/default").ok()["active"] is False
    assert activate(operator, "default").ok()["previous"] == one
    assert active(viewer) == ("default", one)


def test_activating_the_active_one_changes_nothing(service: Service, operator: Client) -> None:
    one = upload(operator)["id"]
    first = activate(operator, one)
    service.clock.now += timedelta(hours=1)
    again = operator.post("/activateServerCert", {"id": one})
    assert again.ok()["activatedAt"] == first.ok()["activatedAt"]
    assert again.etag == first.etag
    assert active(operator) == (one, "default")


def test_the_preflight_tells_the_same_and_changes_nothing(service: Service, operator: Client) -> None:
    """`?dryrun=true`: hosts, end, chain, root; and warns of an end within 30 days."""
    soon = certs.server(HOST, ROOT, not_after=NOON + 29 * DAY)
    one = upload(operator, soon)["id"]
    writes = service.store.calls["put"]
    told = activate(operator, one, query={"dryrun": "true"}).ok()
    assert (told["active"], told["previous"], told["chainComplete"]) == (one, "default", False)
    assert set(codes(told)) == {"new_root", "ends_soon", "chain_incomplete"}
    assert service.store.calls["put"] == writes
    assert active(operator) == ("default", None)


def test_the_same_root_is_no_news(operator: Client) -> None:
    """`new_root` is for devices that pin the old one."""
    first, second = upload(operator, numbered(1)), upload(operator, numbered(2))
    activate(operator, first["id"]).ok()
    assert "new_root" not in codes(activate(operator, second["id"]).ok())


def test_activation_may_name_the_version_it_saw(operator: Client) -> None:
    """If-Match is optional here; a stale one is a 412 that changes nothing."""
    one, two = upload(operator, numbered(1))["id"], upload(operator, numbered(2))["id"]
    seen = operator.get(f"{SERVERS}/active").etag
    activate(operator, one, headers={"if-match": seen}).ok()
    stale = activate(operator, two, headers={"if-match": seen})
    assert (stale.status, stale.code) == (412, "stale")
    assert active(operator) == (one, "default")


def test_what_cannot_be_activated(service: Service, operator: Client) -> None:
    """Not what is not there, not a request, not what has ended, or has not begun."""
    missing = activate(operator, "0" * 32)
    assert (missing.status, missing.code) == (404, "not_found")
    request = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)["id"]
    refused = activate(operator, request)
    assert (refused.status, refused.code) == (409, "csr_not_fulfilled")
    one = upload(operator)["id"]
    service.clock.now += 2 * YEAR
    ended = activate(operator, one)
    assert (ended.status, ended.code) == (422, "certificate_expired")
    service.clock.now = NOON - 2 * DAY
    early = activate(operator, one)
    assert (early.status, early.code) == (422, "certificate_not_yet_valid")
    assert active(operator) == ("default", None)


def test_an_active_certificate_that_ends_stays(service: Service, operator: Client) -> None:
    """Never swapped silently."""
    one = upload(operator)["id"]
    activate(operator, one).ok()
    service.clock.now += 2 * YEAR
    assert active(operator) == (one, "default")


# ------------------------------------------------------------------------------------------------- deletion


def test_deleting(operator: Client) -> None:
    """The active one cannot be deleted; a deleted `previous` is no way back any more."""
    one = upload(operator)["id"]
    activate(operator, one).ok()
    refused = operator.delete(f"{SERVERS}/{one}")
    assert (refused.status, refused.code) == (409, "active_certificate")
    assert refused.json["detail"] == "This certificate is the one shown to devices. Activate another first."
    activate(operator, "default").ok()
    operator.delete(f"{SERVERS}/{one}").ok(204)
    assert active(operator) == ("default", None)
    assert operator.get(f"{SERVERS}/{one}").status == 404
    assert operator.delete(f"{SERVERS}/{one}").status == 404
    assert activate(operator, one).status == 404


def test_deleting_may_name_the_version_it_saw(operator: Client) -> None:
    one = upload(operator)
    operator.put(f"{SERVERS}/{one['id']}", {"comments": "changed"}).ok()
    assert operator.delete(f"{SERVERS}/{one['id']}", version=one["version"]).status == 412
    operator.delete(f"{SERVERS}/{one['id']}", version="*").ok(204)


def test_the_default_is_the_platforms(operator: Client) -> None:
    """An org can neither delete nor describe nor renew it."""
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


def test_a_request_from_making_to_serving(operator: Client, viewer: Client) -> None:
    """Made, downloaded as often as one likes, signed, fulfilled under the same id, activated."""
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
    subject = {one.oid: one.value for one in request.subject}
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
    cert = signed(made["csr"])
    done = operator.put(
        f"{SERVERS}/{made['id']}/certificate", {"certificate": certs.bundle(ROOT, cert)}, version=None
    ).ok()
    assert (done["id"], done["status"], done["source"]) == (made["id"], "certificate", "csr")
    assert done["fingerprintSha256"] == cert.fingerprint
    assert viewer.get(f"{SERVERS}/{made['id']}/pem").text == certs.bundle(cert, ROOT)
    assert activate(operator, made["id"]).ok()["hosts"] == [HOST]


@pytest.mark.parametrize("algorithm", ["RSA-2048", "P-384"])
def test_the_key_algorithm_of_a_request(operator: Client, algorithm: str) -> None:
    """RSA-2048 where none is named."""
    fields = {} if algorithm == "RSA-2048" else {"keyAlgorithm": algorithm}
    shown = operator.post("/generateCSR", fields).ok(201)["keyAlgorithm"]
    assert shown == algorithm.replace("RSA-", "RSA ")


def test_fields_of_a_request_that_no_ca_would_take(operator: Client) -> None:
    """Each is named; nothing is made."""
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


def test_a_mistyped_country_does_not_wait_for_a_key(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """An RSA key of 4096 bits takes seconds to make: what is refused is refused before."""

    def make(algorithm: str) -> NoReturn:
        raise AssertionError("a key was made")

    monkeypatch.setattr(usecase, "make_key", make)
    refused = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "RSA-4096", "country": "Germany"})
    assert (refused.status, refused.code) == (422, "subject_invalid")


def test_a_certificate_of_another_key_is_refused_and_the_request_stays(operator: Client) -> None:
    made = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)
    refused = operator.put(f"{SERVERS}/{made['id']}/certificate", {"certificate": SERVER.pem})
    assert (refused.status, refused.code) == (422, "key_mismatch")
    assert operator.get(f"{SERVERS}/{made['id']}").ok()["status"] == "csr"
    operator.post("/fulfillCSR", {"id": made["id"], "certificate": signed(made["csr"]).pem}).ok()


def test_fulfilling_twice(operator: Client) -> None:
    """With the same certificate it is harmless, with another a conflict."""
    made = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)
    first = operator.post("/fulfillCSR", {"id": made["id"], "certificate": signed(made["csr"]).pem})
    cert = operator.get(f"{SERVERS}/{made['id']}/pem").text
    again = operator.post("/fulfillCSR", {"id": made["id"], "certificate": cert})
    assert again.ok()["version"] == first.ok()["version"]
    other = operator.post("/fulfillCSR", {"id": made["id"], "certificate": signed(made["csr"], serial=4712).pem})
    assert (other.status, other.code) == (409, "already_fulfilled")
    assert operator.get(f"{SERVERS}/{made['id']}/pem").text == cert


def test_what_cannot_be_fulfilled(operator: Client) -> None:
    """No such request; an uploaded certificate; an id in the body that is not the one in the path; none at all."""
    one = upload(operator)["id"]
    for certificate_id in ("0" * 32, one):
        refused = operator.post("/fulfillCSR", {"id": certificate_id, "certificate": SERVER.pem})
        assert (refused.status, refused.code) == (404, "not_found")
    differs = operator.put(f"{SERVERS}/{one}/certificate", {"id": "0" * 32, "certificate": SERVER.pem})
    assert (differs.status, differs.code) == (400, "wrong_value")
    assert operator.post("/fulfillCSR", {"certificate": SERVER.pem}).code == "missing_field"


def test_a_signed_certificate_for_another_host_is_refused(operator: Client) -> None:
    """A CA may sign something else than was asked: the rules of an upload hold."""
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
    refused = operator.post("/fulfillCSR", {"id": made["id"], "certificate": signed(made["csr"]).pem})
    assert (refused.status, refused.code) == (404, "not_found")


def test_renewal_keeps_the_key_and_the_old_certificate(operator: Client) -> None:
    """A new record with a request on the same key; the old one stays, and may stay active."""
    made = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256", "organization": "Fleet"}).ok(201)
    unsigned = operator.post(f"{SERVERS}/{made['id']}/renewal", {})
    assert (unsigned.status, unsigned.code) == (409, "csr_not_fulfilled")
    operator.post("/fulfillCSR", {"id": made["id"], "certificate": signed(made["csr"]).pem}).ok()
    activate(operator, made["id"]).ok()
    renewed = operator.post(f"{SERVERS}/{made['id']}/renewal", {}).ok(201)
    assert (renewed["status"], renewed["names"]) == ("csr", [HOST])
    assert renewed["id"] != made["id"]
    old, new = (x509.load_pem_x509_csr(one["csr"].encode()) for one in (made, renewed))
    assert (old.public_key(), old.subject) == (new.public_key(), new.subject)
    cert = signed(renewed["csr"], serial=99)
    operator.post("/fulfillCSR", {"id": renewed["id"], "certificate": cert.pem}).ok()
    assert active(operator)[0] == made["id"]
    activate(operator, renewed["id"]).ok()
    operator.delete(f"{SERVERS}/{made['id']}").ok(204)  # its key was sealed anew: the new one needs nothing of it
    operator.post(f"{SERVERS}/{renewed['id']}/renewal", {}).ok(201)


def test_an_uploaded_certificate_can_be_renewed(operator: Client) -> None:
    one = upload(operator)
    renewed = operator.post(f"{SERVERS}/{one['id']}/renewal", {}).ok(201)
    request = x509.load_pem_x509_csr(renewed["csr"].encode())
    assert request.public_key() == SERVER.cert.public_key()
    assert (operator.get(f"{SERVERS}/{one['id']}/csr").status, renewed["names"]) == (404, [HOST])


def test_a_certificate_whose_key_is_here_belongs_to_its_request(operator: Client) -> None:
    """Uploaded without key it is refused with the id of the request to which it belongs."""
    made = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)
    refused = operator.post(SERVERS, {"certificate": signed(made["csr"]).pem})
    assert (refused.status, refused.code) == (422, "use_fulfil")
    assert refused.json["detail"] == (
        f"Belongs to the waiting request {made['id']}. Upload it there; its key is here already."
    )
    assert refused.json["violations"][0]["id"] == made["id"]


# -------------------------------------------------------------------------------------------- custom domains


def with_domain(operator: Client, *domains: str, enabled: bool = True) -> Answer:
    return operator.put("/authorization/settings", {"customDomains": {"enabled": enabled, "domains": list(domains)}})


@pytest.mark.parametrize("name", ["mtxpd0.messaging.iot.example.org", "*.messaging.iot.example.org"])
def test_a_certificate_for_a_custom_domain(operator: Client, name: str) -> None:
    """Accepted once the domain is listed: for the org's host there, or the wildcard."""
    one = certs.server(name, ROOT)
    fields = {"certificate": one.pem, "privateKey": one.key_pem}
    assert operator.post(SERVERS, fields).code == "host_mismatch"
    with_domain(operator, "iot.example.org").ok()
    found = operator.post(SERVERS, fields).ok(201)
    assert found["hosts"] == ["mtxpd0.messaging.iot.example.org"]
    assert activate(operator, found["id"]).ok()["hosts"] == ["mtxpd0.messaging.iot.example.org"]


def test_a_request_for_a_custom_host(operator: Client) -> None:
    host = "mtxpd0.messaging.iot.example.org"
    assert operator.post(f"{SERVERS}/csr", {"commonName": host}).code == "host_not_allowed"
    with_domain(operator, "iot.example.org").ok()
    made = operator.post(f"{SERVERS}/csr", {"commonName": host, "keyAlgorithm": "P-256"}).ok(201)
    assert made["names"] == [host]


def test_a_long_host_goes_in_the_san_alone(operator: Client) -> None:
    """A CN holds 64 characters."""
    domain = f"{'long' * 13}.example.org"
    with_domain(operator, domain).ok()
    host = f"mtxpd0.messaging.{domain}"
    made = operator.post(f"{SERVERS}/csr", {"commonName": host, "keyAlgorithm": "P-256"}).ok(201)
    assert made["names"] == [host]
    assert "CN=" not in made["subject"]


def test_a_domain_that_the_active_certificate_needs_stays(operator: Client) -> None:
    """Neither unlisted nor switched off; free again once another is active."""
    with_domain(operator, "iot.example.org", "b.example.org").ok()
    one = upload(operator, certs.server("mtxpd0.messaging.iot.example.org", ROOT))["id"]
    activate(operator, one).ok()
    for refused in (with_domain(operator, "b.example.org"), with_domain(operator, "iot.example.org", enabled=False)):
        assert (refused.status, refused.code) == (409, "domain_in_use")
        assert refused.json["detail"] == (
            "The active server certificate is for mtxpd0.messaging.iot.example.org. "
            "Activate another certificate first, then remove iot.example.org."
        )
    with_domain(operator, "iot.example.org").ok()  # the other one may go
    activate(operator, "default").ok()
    with_domain(operator).ok()
    assert activate(operator, one).code == "host_mismatch"  # it covers no host of the org any more


# ----------------------------------------------------------------------------------------------------- limits


def test_fifty_certificates_and_requests(operator: Client) -> None:
    """The next, uploaded, requested or renewed, is a conflict; after a deletion there is room."""
    first = upload(operator, numbered(0))["id"]
    for number in range(1, SERVERS_MAX):
        last = upload(operator, numbered(number))["id"]
    one = numbered(SERVERS_MAX)
    fields = {"certificate": one.pem, "privateKey": one.key_pem}
    for refused in (
        operator.post(SERVERS, fields),
        operator.post(f"{SERVERS}/csr", {}),
        operator.post(f"{SERVERS}/{first}/renewal", {}),
    ):
        assert (refused.status, refused.code) == (409, "too_many_server_certificates")
    operator.delete(f"{SERVERS}/{last}").ok(204)
    operator.post(SERVERS, fields).ok(201)


def test_the_rate_limit(tmp_path: Path) -> None:
    """429 with Retry-After for what is new, of either kind; the same again is not counted."""
    service = make_service(tmp_path / "count_in_window", rate_per_minute=2)
    operator = service.client("operator")
    one = numbered(1)
    fields = {"certificate": one.pem, "privateKey": one.key_pem}
    operator.post(SERVERS, fields).ok(201)
    operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)
    operator.post(SERVERS, fields).ok(200)
    refused = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"})
    assert (refused.status, refused.code, refused.reply.headers["Retry-After"]) == (429, "rate_limited", "60")
    assert "server certificates and requests in a minute" in refused.json["detail"]
    service.clock.now += timedelta(minutes=1)
    operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)
    service.app.close()
