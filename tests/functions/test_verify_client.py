"""verifyClient over HTTP: may this client connect?"""

import base64
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from shared.errors import StoreUnavailable
from shared.records import CA, CAIndex, CAsOfOneName, Org, Revision
from shared.refs import ca_index_ref, cas_ref, org_ref
from shared.usecases.orgs.organizations import set_suspended
from shared.validation.ca import ca_id
from shared.x509 import cache
from shared.x509.digests import serial_digest
from tests.support import certs
from tests.support.certs import CLIENT_AUTH, DAY, NOON, SERVER_AUTH, YEAR
from tests.support.harness import Client, Service, make_service
from tests.support.malleable import twin
from tests.support.openssl import OpenSSL

CAS = "/authentication/cacertificates"
DENY = "/authorization/denylist"
HOST = "mtxpd0.messaging.example.com"
ROOT = certs.ca("Root")
DEVICE = certs.leaf("d:thermo:42", ROOT)
CLIENT_ID = "d:mtxpd0:thermo:42"

Fields = dict[str, Any]


def ask(broker: Client, device: certs.Issued | None = DEVICE, *sent: certs.Issued, **fields: Any) -> Fields:
    """Return the verdict on *device*, which sends *sent* after its own certificate. A field of None is not sent."""
    certificate = {"certificate": certs.bundle(device, *sent)} if device else {}
    whole = {"serverName": HOST, "clientId": CLIENT_ID, **certificate, **fields}
    verdict: Fields = broker.post(
        "/authorization/verifyclient", {name: value for name, value in whole.items() if value is not None}
    ).ok()
    return verdict


def add(client: Client, ca: certs.Issued) -> str:
    ca_id: str = client.post(CAS, {"certificate": ca.pem}).ok(201)["id"]
    return ca_id


def level(operator: Client, name: str, *rules: tuple[str, str]) -> None:
    body = {"default": name, "rules": [{"deviceType": of, "level": to} for of, to in rules]}
    operator.put("/authorization/connectionpolicy", body).ok()


@pytest.mark.parametrize(
    ("name", "decision", "code"),
    [
        ("TLS Optional", "continue", "token_required"),
        ("TLS with Token Authentication", "continue", "token_required"),
        ("TLS with Client Certificate Authentication", "deny", "identity_missing"),
        ("TLS with Token and Client Certificate Authentication", "continue", "token_required"),
        ("TLS with Client Certificate or Token", "continue", "token_required"),
    ],
)
def test_a_valid_certificate_that_names_no_device(
    operator: Client, broker: Client, ca: str, name: str, decision: str, code: str
) -> None:
    """Refused, unless the organization lets a token decide and the level takes a token."""
    unnamed = certs.leaf("pump 7", ROOT)
    operator.put("/authorization/connectionpolicy", {"default": name}).ok()
    assert ask(broker, unnamed)["code"] == "identity_missing"
    operator.put("/authorization/connectionpolicy", {"default": name, "unnamedCertificates": "token"}).ok()
    verdict = ask(broker, unnamed)
    assert (verdict["decision"], verdict["code"]) == (decision, code)
    assert ask(broker, certs.leaf("d:thermo:43", ROOT))["code"] == "identity_mismatch"
    forged = certs.leaf("pump 7", ROOT, signing_key=certs.key("P-256", 66))
    assert ask(broker, forged)["code"] == "signature_invalid"


@pytest.fixture
def ca(operator: Client) -> str:
    """Register ROOT, which is active then. Return its id."""
    return add(operator, ROOT)


@contextmanager
def counted(service: Service) -> Iterator[Counter[str]]:
    """Count the store calls of the block, by name."""
    before, calls = Counter(service.store.calls), Counter[str]()
    yield calls
    calls.update(service.store.calls - before)


# ------------------------------------------------------------------------------------------------- the answer


def test_an_allow_has_identity_ca_and_expiry(broker: Client, ca: str) -> None:
    """Every field of contract.md; `steps` only on request."""
    assert ask(broker) == {
        "decision": "allow",
        "code": "allowed",
        "reason": "d:thermo:42 is allowed.",
        "mend": "",
        "orgId": "mtxpd0",
        "identity": {"class": "d", "typeId": "thermo", "deviceId": "42"},
        "bound": True,
        "proof": "chain",
        "ca": {"id": ca, "subject": "CN=Root"},
        "failing": None,
        "expiresAt": "2027-06-01T12:00:00Z",
        "fingerprintsSha256": [[DEVICE.fingerprint, twin(DEVICE).fingerprint]],
        "keyDigests": [DEVICE.certificate.key_digest, ROOT.certificate.key_digest],
        "serialDigests": [
            serial_digest(ROOT.certificate.key_hash, DEVICE.certificate.serial_number),
            serial_digest(ROOT.certificate.key_hash, ROOT.certificate.serial_number),
        ],
        "basis": "allow",
        "watsonReason": None,
    }


def test_a_refusal_names_the_failing_certificate(broker: Client, ca: str) -> None:
    stranger = certs.leaf("d:thermo:42", certs.ca("Stranger"))
    refused = ask(broker, stranger)
    assert (refused["decision"], refused["code"], refused["ca"], refused["expiresAt"]) == (
        "deny",
        "untrusted_issuer",
        None,
        None,
    )
    assert refused["failing"] == {"subject": "CN=d:thermo:42", "fingerprintSha256": stranger.fingerprint}
    assert refused["reason"] == "The certificate was issued by CN=Stranger, which is not among your CA certificates."
    assert refused["mend"] == (
        "If CN=Stranger is your CA, add its certificate, or let the device send its intermediate certificates."
    )
    assert refused["identity"] == {"class": "d", "typeId": "thermo", "deviceId": "42"}
    assert refused["bound"] is False


def test_expires_at_is_the_first_expiry_on_the_path(broker: Client, operator: Client) -> None:
    """A session must not outlive any certificate of the path."""
    short = certs.ca("Short", ROOT, not_after=NOON + DAY)
    add(operator, ROOT)
    assert ask(broker, certs.leaf("d:thermo:42", short), short)["expiresAt"] == "2026-06-02T12:00:00Z"


@pytest.mark.parametrize("form", ["chain in PEM", "certificateDer and chainDer", "DER in certificate", "alias"])
def test_every_format_of_a_devices_certificates(broker: Client, ca: str, form: str) -> None:
    """PEM of leaf and chain; or the leaf as DER in base64, with the concatenated chain."""
    upper = certs.ca("Upper", ROOT)
    lower = certs.ca("Lower", upper)
    device = certs.leaf("d:thermo:42", lower)
    der = base64.b64encode(device.der).decode()
    chain = base64.b64encode(lower.der + upper.der).decode()
    match form:
        case "chain in PEM":
            verdict = ask(broker, device, lower, upper)
        case "certificateDer and chainDer":
            verdict = ask(broker, None, certificateDer=der, chainDer=chain)
        case "DER in certificate":
            verdict = ask(broker, None, certificate=der, chainDer=chain)
        case _:
            body = {"serverName": HOST, "certificateDer": der, "chainDer": chain}
            verdict = broker.post("/verifyClient", body).ok()
    assert (verdict["decision"], verdict["ca"]["id"]) == ("allow", ca)


def test_an_explained_verdict_has_ten_steps(service: Service, viewer: Client, operator: Client, ca: str) -> None:
    """Each step is passed, failed or not reached, with the value and the expected value."""
    passed = ask(viewer, explain=True)["steps"]
    assert [(step["number"], step["name"], step["status"]) for step in passed] == [
        (number, name, "passed")
        for number, name in enumerate(
            (
                "Server name",
                "Client ID",
                "Security level",
                "Certificate can be read",
                "An active CA",
                "Chain",
                "Dates",
                "Key usage",
                "Not revoked",
                "Identity",
            ),
            start=1,
        )
    ]
    assert (passed[9]["found"], passed[9]["expected"]) == ("d:thermo:42", "d:thermo:42")
    failed = ask(operator, certs.leaf("d:thermo:43", ROOT), explain=True)["steps"]
    assert [step["status"] for step in failed] == ["passed"] * 9 + ["failed"]
    assert failed[9]["found"] == "The certificate is for d:thermo:43, and the client ID is for d:thermo:42."
    early = ask(viewer, serverName="elsewhere.example.org", explain=True)["steps"]
    assert [step["status"] for step in early] == ["failed"] + ["not reached"] * 9


def test_the_roles_of_verify_client(
    service: Service, broker: Client, viewer: Client, operator: Client, ca: str
) -> None:
    """Brokers; viewers and operators for explained verdicts only; edges never."""
    for client, plain, explained in (
        (broker, 200, 200),
        (viewer, 403, 200),
        (operator, 403, 200),
        (service.client("edge"), 403, 403),
        (service.platform("broker"), 200, 200),
        (service.platform("edge"), 403, 403),
        (service.anonymous, 401, 401),
    ):
        body = {"serverName": HOST, "certificate": DEVICE.pem}
        assert client.post("/verifyClient", body).status == plain
        assert client.post("/verifyClient", {**body, "explain": True}).status == explained


# ---------------------------------------------------------------------------------------- the table of refusals


OTHER_ROOT = certs.ca("Other Root")
FORGED = certs.leaf("d:thermo:42", ROOT, signing_key=certs.key("P-256", 41))
NO_CA = certs.ca("No CA", ROOT, is_ca=False)
ENDED_CA = certs.ca("Ended", ROOT, not_after=NOON - DAY)
LATER_CA = certs.ca("Later", ROOT, not_before=NOON + DAY, not_after=NOON + YEAR)
INACTIVE = certs.ca("Inactive", ROOT)


def one_of(signer: certs.Issued = ROOT, name: str | None = "d:thermo:42", **more: Any) -> certs.Issued:
    return certs.leaf(name, signer, **more)


TABLE: dict[str, tuple[Callable[[Client], Fields], str, int, int]] = {
    # the question -> code, step, Watson's reason
    "no SNI": (lambda b: ask(b, serverName=None), "sni_missing", 1, 163),
    "foreign SNI": (lambda b: ask(b, serverName="mqtt.example.org"), "sni_unknown", 1, 163),
    "SNI is an address": (lambda b: ask(b, serverName="192.0.2.1"), "sni_unknown", 1, 163),
    "bad client ID": (lambda b: ask(b, clientId="thermo-42"), "client_id_invalid", 2, 166),
    "newline in client ID": (lambda b: ask(b, clientId=CLIENT_ID + "\n"), "client_id_invalid", 2, 166),
    "NUL in client ID": (lambda b: ask(b, clientId=CLIENT_ID + "\0"), "client_id_invalid", 2, 166),
    "other org's client ID": (lambda b: ask(b, clientId="d:other1:thermo:42"), "org_mismatch", 2, 166),
    "without TLS": (lambda b: ask(b, tls=False), "tls_required", 3, 163),
    "no certificate": (lambda b: ask(b, None), "certificate_missing", 3, 169),
    "garbage": (lambda b: ask(b, None, certificate="-----BEGIN CERTIFICATE-----"), "certificate_malformed", 4, 170),
    "eleven certificates": (lambda b: ask(b, DEVICE, *[ROOT] * 10), "certificate_malformed", 4, 170),
    "65 KiB": (lambda b: ask(b, None, certificate=DEVICE.pem + " " * 65536), "certificate_malformed", 4, 170),
    "unknown issuer": (lambda b: ask(b, one_of(OTHER_ROOT)), "untrusted_issuer", 6, 170),
    "sends its own root": (lambda b: ask(b, one_of(OTHER_ROOT), OTHER_ROOT), "untrusted_issuer", 6, 170),
    "signs itself": (lambda b: ask(b, certs.server("d:thermo:42", dns=[])), "untrusted_issuer", 6, 170),
    "forged": (lambda b: ask(b, FORGED), "signature_invalid", 6, 170),
    "issuer is no CA": (lambda b: ask(b, one_of(NO_CA), NO_CA), "chain_invalid", 6, 170),
    "device as CA": (lambda b: ask(b, one_of(DEVICE), DEVICE), "chain_invalid", 6, 170),
    "weak key": (lambda b: ask(b, one_of(private=certs.key("RSA-1024"))), "weak_key", 6, 170),
    "inactive CA in the middle": (lambda b: ask(b, one_of(INACTIVE), INACTIVE), "ca_inactive", 6, 170),
    "ended": (lambda b: ask(b, one_of(not_after=NOON - DAY)), "certificate_expired", 7, 170),
    "not begun": (
        lambda b: ask(b, one_of(not_before=NOON + DAY, not_after=NOON + YEAR)),
        "certificate_not_yet_valid",
        7,
        170,
    ),
    "CA not begun": (lambda b: ask(b, one_of(LATER_CA), LATER_CA), "certificate_not_yet_valid", 7, 170),
    "CA ended": (lambda b: ask(b, one_of(ENDED_CA), ENDED_CA), "ca_expired", 7, 170),
    "a server's": (lambda b: ask(b, one_of(extended_key_usage=[SERVER_AUTH])), "wrong_key_usage", 8, 170),
    "no digitalSignature": (
        lambda b: ask(b, one_of(key_usage=certs.usage(key_encipherment=True))),
        "wrong_key_usage",
        8,
        170,
    ),
    "a CA as a device": (lambda b: ask(b, certs.ca("d:thermo:42", ROOT)), "wrong_key_usage", 8, 170),
    "names nobody": (lambda b: ask(b, one_of(name="Sample Cert")), "identity_missing", 10, 170),
    "several, no client ID": (
        lambda b: ask(b, one_of(emails=["d:thermo:43"]), clientId=None),
        "identity_missing",
        10,
        170,
    ),
    "another device": (lambda b: ask(b, one_of(name="d:thermo:43")), "identity_mismatch", 10, 170),
    "gateway for device": (lambda b: ask(b, one_of(name="g:thermo:42")), "identity_mismatch", 10, 170),
    "other case": (lambda b: ask(b, one_of(name="d:Thermo:42")), "identity_mismatch", 10, 170),
    "trailing newline": (lambda b: ask(b, one_of(name="d:thermo:42\n")), "identity_missing", 10, 170),
    "type certificate": (lambda b: ask(b, one_of(name="d:thermo:")), "type_certificate_refused", 10, 170),
}


@pytest.mark.parametrize("case", TABLE)
def test_each_row_of_the_table_of_refusals(broker: Client, operator: Client, ca: str, case: str) -> None:
    """The code, the step, Watson's reason, and a sentence with the remedy."""
    inactive = add(operator, INACTIVE)
    operator.put(f"{CAS}/{inactive}", {"status": "inactive"}).ok()
    question, code, step, watson = TABLE[case]
    plain = question(broker)
    assert (plain["decision"], plain["code"], plain["watsonReason"]) == ("deny", code, watson)
    assert plain["mend"]
    assert "steps" not in plain
    with_steps = {**_last_asked(broker, question), "explain": True}
    steps = broker.post("/authorization/verifyclient", with_steps).ok()["steps"]
    assert [row["number"] for row in steps if row["status"] == "failed"] == [step]
    assert all(row["status"] == "passed" for row in steps[: step - 1])
    assert all(row["status"] == "not reached" for row in steps[step:])


class _Recorder(Client):
    """Records the requests."""

    asked: list[Fields] = []

    def post(self, path: str, fields: Any, **more: Any) -> Any:
        self.asked.append(fields)
        return super().post(path, fields, **more)


def _last_asked(broker: Client, question: Callable[[Client], Fields]) -> Fields:
    recorder = _Recorder(broker.app, broker.key, broker.token)
    question(recorder)
    return recorder.asked.pop()


def test_without_an_active_ca(broker: Client, operator: Client) -> None:
    """Without any active CA: `no_trusted_ca`, step 5; with another active CA: `untrusted_issuer`."""
    assert ask(broker)["code"] == "no_trusted_ca"
    ca = add(operator, ROOT)
    operator.put(f"{CAS}/{ca}", {"status": "inactive"}).ok()
    stranger = one_of(certs.ca("Stranger"))
    refused = ask(broker, stranger)
    assert (refused["code"], refused["watsonReason"]) == ("no_trusted_ca", 170)
    assert ask(broker, stranger, explain=True)["steps"][4]["status"] == "failed"
    add(operator, OTHER_ROOT)
    assert ask(broker, stranger)["code"] == "untrusted_issuer"


def test_a_deactivated_ca_vouches_for_no_device_until_it_is_active_again(
    broker: Client, operator: Client, ca: str
) -> None:
    """In force at the next connection. The reason has the time of the deactivation."""
    add(operator, OTHER_ROOT)
    operator.put(f"{CAS}/{ca}", {"status": "inactive"}).ok()
    refused = ask(broker)
    assert refused["code"] == "ca_inactive"
    assert refused["reason"] == "The CA certificate CN=Root is deactivated since 1 Jun 2026, 12:00 UTC."
    operator.put(f"{CAS}/{ca}", {"status": "active"}).ok()
    assert ask(broker)["decision"] == "allow"


def test_a_deleted_ca_vouches_for_no_device(broker: Client, operator: Client, ca: str) -> None:
    add(operator, OTHER_ROOT)
    operator.delete(f"{CAS}/{ca}").ok(204)
    assert ask(broker)["code"] == "untrusted_issuer"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("inactive", "ca_inactive"),
        ("deleted", "untrusted_issuer"),
        ("denied", "certificate_revoked"),
        ("old", "ca_expired"),
    ],
)
def test_the_cache_of_a_ca_does_not_hold_its_status(
    service: Service, broker: Client, operator: Client, ca: str, change: str, code: str
) -> None:
    """The certificate is parsed once in a process; the status is read for each connection."""
    add(operator, OTHER_ROOT)
    upper = certs.ca("Upper", ROOT, not_after=ROOT.cert.not_valid_after_utc + DAY)
    device = one_of(upper, not_after=ROOT.cert.not_valid_after_utc + DAY)
    for _ in range(2):
        assert ask(broker, device, upper)["decision"] == "allow"
    assert ROOT.der in cache._registered
    match change:
        case "inactive":
            operator.put(f"{CAS}/{ca}", {"status": "inactive"}).ok()
        case "deleted":
            operator.delete(f"{CAS}/{ca}").ok(204)
        case "denied":
            operator.post(DENY, {"certificate": ROOT.pem}).ok(201)
        case "old":
            service.clock.now = ROOT.cert.not_valid_after_utc + timedelta(seconds=1)
    refused = ask(broker, device, upper)
    assert (refused["decision"], refused["code"]) == ("deny", code)


def test_a_ca_of_another_organization_vouches_for_no_device(service: Service, broker: Client, operator: Client) -> None:
    """Trust belongs to an organization: a CA that only another organization registered is not trusted."""
    add(service.client("operator", service.other_org()), ROOT)
    add(operator, OTHER_ROOT)
    assert ask(broker)["code"] == "untrusted_issuer"


def test_an_sha1_leaf_is_refused(openssl: OpenSSL, tmp_path: Path) -> None:
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout r.key -out r.pem -days 30 -subj", "/CN=Root")
    openssl("req -new -newkey rsa:2048 -nodes -keyout d.key -out d.csr -subj", "/CN=d:thermo:42")
    openssl("x509 -req -in d.csr -CA r.pem -CAkey r.key -CAcreateserial -days 30 -sha1 -out d.pem")
    root = x509.load_pem_x509_certificate(openssl.bytes("r.pem"))
    service = make_service(tmp_path / "sha1", at=root.not_valid_before_utc + timedelta(hours=1))
    service.client("operator").post(CAS, {"certificate": openssl.read("r.pem")}).ok(201)
    refused = ask(service.client("broker"), None, certificate=openssl.read("d.pem"))
    assert (refused["code"], refused["reason"]) == (
        "weak_signature",
        "The certificate is signed with SHA-1, which is not secure.",
    )
    service.app.close()


# ----------------------------------------------------------------------------------------- identity and binding


def test_real_device_certificates_pass(broker: Client, ca: str) -> None:
    """The identity in the CN or in any e-mail SAN, beside unrelated names; gateways; with clientAuth."""
    long = "x" * 36
    for device, client_id in (
        (one_of(name="Sample Cert", emails=["d:thermo:42"]), CLIENT_ID),
        (one_of(name="Sample Cert", emails=["a@example.org", "d:thermo:1", "d:thermo:42"]), CLIENT_ID),
        (one_of(dns=["printer.example.org"], uris=["urn:x"]), CLIENT_ID),
        (one_of(name=None, emails=[f"d:{long}:{long}"]), f"d:mtxpd0:{long}:{long}"),
        (one_of(name="g:hub:7", extended_key_usage=[CLIENT_AUTH]), "g:mtxpd0:hub:7"),
        (one_of(key_usage=certs.usage(digital_signature=True)), CLIENT_ID),
        (one_of(serial=0x0111111111), CLIENT_ID),
    ):
        assert ask(broker, device, clientId=client_id)["code"] == "allowed"


def test_without_client_id_the_verdict_is_not_bound(broker: Client, ca: str) -> None:
    """The broker must bind the client to the identity in the reply."""
    verdict = ask(broker, clientId=None)
    assert (verdict["decision"], verdict["bound"]) == ("allow", False)
    assert verdict["identity"] == {"class": "d", "typeId": "thermo", "deviceId": "42"}


def test_type_certificates_if_they_are_enabled(broker: Client, operator: Client, ca: str) -> None:
    """`d:type:` is valid for every device of the type and for no other type; without a client ID for no device."""
    device = one_of(name="d:thermo:")
    assert (
        ask(broker, device)["reason"]
        == "The certificate is for every device of the type thermo, and type certificates are switched off."
    )
    operator.put("/authorization/settings", {"typeCertificates": True}).ok()
    verdict = ask(broker, device)
    assert (verdict["decision"], verdict["identity"]["deviceId"]) == ("allow", "42")
    assert ask(broker, device, clientId="d:mtxpd0:pump:42")["code"] == "identity_mismatch"
    assert ask(broker, device, clientId="g:mtxpd0:thermo:42")["code"] == "identity_mismatch"
    assert ask(broker, device, clientId=None)["code"] == "identity_missing"


def test_an_organization_in_the_certificate_is_no_identity(broker: Client, ca: str) -> None:
    """The old form with an orgId is no identity."""
    assert ask(broker, one_of(name="d:mtxpd0:thermo:42"))["code"] == "identity_missing"


# ------------------------------------------------------------------------------------------------------- policy


INVALID = one_of(OTHER_ROOT)
LEVELS = {
    "TLS Optional": ("allow", "deny", "continue"),
    "TLS with Token Authentication": ("continue", "deny", "continue"),
    "TLS with Client Certificate Authentication": ("allow", "deny", "deny"),
    "TLS with Token and Client Certificate Authentication": ("continue", "deny", "deny"),
    "TLS with Client Certificate or Token": ("allow", "deny", "continue"),
}


@pytest.mark.parametrize("name", LEVELS)
def test_the_table_of_levels(broker: Client, operator: Client, ca: str, name: str) -> None:
    """Level x (valid, invalid, no certificate), with and without TLS, by rule and by default."""
    level(operator, name)
    devices = (DEVICE, INVALID, None)
    assert tuple(ask(broker, device)["decision"] for device in devices) == LEVELS[name]
    without_tls = "continue" if name == "TLS Optional" else "deny"
    assert [ask(broker, device, tls=False)["decision"] for device in devices] == [without_tls] * 3
    assert ask(broker, tls=False)["code"] == ("token_required" if name == "TLS Optional" else "tls_required")
    # by the rule for the type and not by the rule for another type; also if only the certificate has the type
    level(operator, "TLS with Client Certificate Authentication", ("thermo", name), ("pump", "TLS Optional"))
    assert tuple(ask(broker, device)["decision"] for device in devices) == LEVELS[name]
    assert ask(broker, clientId=None)["decision"] == LEVELS[name][0]
    level(operator, name, ("Thermo", "TLS Optional"))
    assert ask(broker, None)["decision"] == LEVELS[name][2]


def test_continue_asks_for_the_token(broker: Client, operator: Client, ca: str) -> None:
    """The certificate part is satisfied. With identity, CA and expiry the broker can end the session."""
    level(operator, "TLS with Token and Client Certificate Authentication")
    verdict = ask(broker)
    assert (verdict["code"], verdict["bound"], verdict["watsonReason"]) == ("token_required", True, None)
    assert verdict["reason"] == "Certificate part passed; the broker asks for the token next."
    assert (verdict["ca"]["id"], verdict["expiresAt"]) == (ca, "2027-06-01T12:00:00Z")
    level(operator, "TLS with Token Authentication")
    bare = ask(broker, None)
    assert (bare["code"], bare["ca"], bare["expiresAt"]) == ("token_required", None, None)


@pytest.mark.parametrize("client_id", ["a:mtxpd0:app", "A:mtxpd0:app", "A:mtxpd0:app:1"])
def test_applications_authenticate_by_their_key_at_the_broker(
    broker: Client, operator: Client, ca: str, client_id: str
) -> None:
    """TLS as the default level requires; a certificate is not judged; then `continue`."""
    for device in (None, DEVICE, INVALID):
        assert ask(broker, device, clientId=client_id)["decision"] == "continue"
    assert ask(broker, None, certificate="garbage!", clientId=client_id)["decision"] == "continue"
    assert ask(broker, clientId=client_id, tls=False)["code"] == "tls_required"
    level(operator, "TLS Optional")
    assert ask(broker, None, clientId=client_id, tls=False)["decision"] == "continue"


# ----------------------------------------------------------------------------------------------- which org (SNI)


def test_sni_is_required_as_soon_as_an_organization_has_a_ca_or_certificate(
    service: Service, broker: Client, operator: Client
) -> None:
    """Before that, the client ID names the organization; after that, a TLS connection must name its server."""
    level(operator, "TLS with Client Certificate or Token")
    assert ask(broker, None, serverName=None)["decision"] == "continue"
    server = certs.server(HOST, ROOT)
    own = operator.post(
        "/authentication/servercertificates", {"certificate": server.pem, "privateKey": server.key_pem}
    ).ok(201)["id"]
    refused = ask(broker, None, serverName=None)
    assert (refused["code"], refused["mend"]) == ("sni_missing", f"Connect to {HOST}.")
    operator.delete(f"/authentication/servercertificates/{own}").ok(204)
    assert ask(broker, None, serverName=None)["decision"] == "continue"


def test_the_server_name_compares_without_case_and_root_dot(broker: Client, ca: str) -> None:
    assert ask(broker, serverName=HOST.upper())["code"] == "allowed"
    assert ask(broker, serverName=HOST + ".")["code"] == "allowed"


@pytest.mark.parametrize(
    "name",
    [
        "mtxpd0.messaging.example.com.evil.org",
        "evil.mtxpd0.messaging.example.com",
        "mtxpd0.example.com",
        "mtxpd0.messaging.example.com\n",
        "mtxpd0.messaging.examp1e.com",
        "ｍtxpd0.messaging.example.com",
    ],
)
def test_names_that_resemble_the_host_are_refused(broker: Client, ca: str, name: str) -> None:
    assert ask(broker, serverName=name)["code"] == "sni_unknown"


def test_custom_domains_belong_to_the_organization_that_listed_them(
    service: Service, broker: Client, operator: Client
) -> None:
    """Not before they are listed, not for another organization, and not while they are disabled."""
    add(operator, ROOT)
    name = "mtxpd0.messaging.iot.example.org"
    other = service.client("operator", service.other_org())
    listed = {"customDomains": {"enabled": True, "domains": ["iot.example.org"]}}
    other.put("/authorization/settings", listed).ok()
    assert ask(broker, serverName=name)["code"] == "sni_unknown"
    operator.put("/authorization/settings", listed).ok()
    assert ask(broker, serverName=name)["decision"] == "allow"
    listed["customDomains"]["enabled"] = False
    operator.put("/authorization/settings", listed).ok()
    refused = ask(broker, serverName=name)
    assert refused["code"] == "sni_unknown"
    assert refused["reason"] == ("The custom domain iot.example.org is listed, but custom domains are switched off.")


def test_a_self_signed_device_is_called_so(operator: Client, broker: Client) -> None:
    """It is its own issuer, so adding its issuer as a CA would be no mend."""
    add(operator, ROOT)
    own = certs.certificate(certs.name("d:thermo:42"), signer=None, private=certs.key("P-256", 68))
    refused = ask(broker, own)
    assert refused["code"] == "untrusted_issuer"
    assert refused["reason"].startswith("The certificate is self-signed: CN=d:thermo:42 is its own issuer")


def test_a_broker_that_cannot_pass_sni(service: Service, ca: str) -> None:
    """With a no-SNI key the client ID names the organization, else the key; a server name is ignored."""
    broker = service.client("broker", no_sni=True)
    assert ask(broker, serverName=None)["decision"] == "allow"
    assert ask(broker, serverName=None, clientId=None)["decision"] == "allow"
    assert ask(broker, serverName="whatever.example.org")["decision"] == "allow"
    assert ask(broker, serverName=None, clientId="d:other1:thermo:42")["code"] == "org_mismatch"


def test_without_tls_there_is_no_sni(broker: Client, operator: Client, ca: str) -> None:
    level(operator, "TLS Optional")
    assert ask(broker, None, serverName=None, tls=False)["decision"] == "continue"
    assert ask(broker, None, serverName=None, clientId=None, tls=False)["orgId"] == "mtxpd0"


def test_an_organizations_key_learns_nothing_about_another_organization(
    service: Service, broker: Client, ca: str
) -> None:
    """The answer is the same, except for the name in the question, whether that organization exists or not."""
    theirs = service.client("operator", service.other_org("other1"))
    add(theirs, ROOT)
    theirs.put("/authorization/settings", {"customDomains": {"enabled": True, "domains": ["iot.example.org"]}}).ok()
    for host in ("{}.messaging.example.com", "{}.messaging.iot.example.org"):
        answers = []
        for org in ("other1", "nobody"):
            verdict = ask(broker, serverName=host.format(org), clientId=f"d:{org}:thermo:42", explain=True)
            assert (verdict["decision"], verdict["code"]) == ("deny", "org_mismatch")
            answers.append(str(verdict).replace(org, "......"))
        assert answers[0] == answers[1]


def test_platform_keys(service: Service, broker: Client, ca: str) -> None:
    """A key without a list is valid for all organizations; a key with a list learns nothing of other organizations."""
    service.other_org("other1")
    everybody, some = service.platform("broker"), service.platform("broker", orgs=["mtxpd0"])
    assert ask(everybody)["decision"] == ask(some)["decision"] == "allow"
    verdict = ask(everybody, serverName=service.host("other1"), clientId="d:other1:thermo:42")
    assert (verdict["code"], verdict["orgId"]) == ("no_trusted_ca", "other1")
    unknown = ask(everybody, serverName=service.host("nobody"), clientId=None)
    assert (unknown["code"], unknown["watsonReason"], unknown["orgId"]) == ("org_unknown", 163, None)
    assert ask(everybody, None, serverName=None, clientId=None)["code"] == "org_unknown"
    answers = []
    for org in ("other1", "nobody"):
        refused = ask(some, serverName=service.host(org), clientId=None)
        assert (refused["code"], refused["orgId"]) == ("org_mismatch", None)
        answers.append(str(refused).replace(org, "......"))
    assert answers[0] == answers[1]
    assert ask(some, clientId="d:other1:thermo:42")["code"] == "org_mismatch"


def test_a_suspended_org(service: Service, broker: Client, ca: str) -> None:
    """Its devices are refused from the suspension until it is resumed."""
    set_suspended(service.app.context, service.org_id, True)
    refused = ask(broker)
    assert (refused["code"], refused["watsonReason"], refused["mend"]) == (
        "org_suspended",
        163,
        "Ask the platform's operator.",
    )
    set_suspended(service.app.context, service.org_id, False)
    assert ask(broker)["decision"] == "allow"


# --------------------------------------------------------------------------------------------------- deny list


def test_a_denied_certificate(broker: Client, operator: Client, ca: str) -> None:
    """By the fingerprint of the leaf. After the entry is lifted, the certificate is accepted again."""
    entry = operator.post(DENY, {"certificate": DEVICE.pem, "reason": "stolen"}).ok(201)["id"]
    refused = ask(broker)
    assert (refused["code"], refused["watsonReason"]) == ("certificate_revoked", 170)
    assert refused["reason"] == "The device or its certificate is on the deny list since 1 Jun 2026, 12:00 UTC."
    assert refused["failing"]["fingerprintSha256"] == DEVICE.fingerprint
    assert ask(broker, one_of())["decision"] == "allow"
    operator.delete(f"{DENY}/{entry}").ok(204)
    assert ask(broker)["decision"] == "allow"


@pytest.mark.parametrize("before", [True, False])
def test_a_denied_ca_that_the_client_does_not_send(broker: Client, operator: Client, before: bool) -> None:
    """Denied before or after the registration. After the entry is lifted, the CA vouches again."""
    if before:
        entry = operator.post(DENY, {"certificate": ROOT.pem}).ok(201)["id"]
    ca = add(operator, ROOT)
    if not before:
        entry = operator.post(DENY, {"kind": "fingerprint", "value": ROOT.fingerprint}).ok(201)["id"]
    assert operator.get(f"{CAS}/{ca}").ok()["deniedAt"] == "2026-06-01T12:00:00Z"
    assert ask(broker)["code"] == "certificate_revoked"
    operator.delete(f"{DENY}/{entry}").ok(204)
    assert ask(broker)["decision"] == "allow"


def test_a_denied_intermediate_with_another_path(broker: Client, operator: Client, ca: str) -> None:
    """Any valid path is enough: a second certificate with the intermediate's name and key is not denied."""
    first, second = certs.ca("Intermediate", ROOT), certs.ca("Intermediate", ROOT)
    device = one_of(first)
    operator.post(DENY, {"certificate": first.pem}).ok(201)
    assert ask(broker, device, first)["code"] == "certificate_revoked"
    assert ask(broker, device, first, second)["decision"] == "allow"


def test_the_other_form_of_a_denied_certificate_is_denied(broker: Client, operator: Client, ca: str) -> None:
    """An ECDSA signature can be written in a second form without the key: another fingerprint, and as valid."""
    intermediate = certs.ca("Intermediate", ROOT)
    below = one_of(intermediate)
    assert ask(broker, twin(DEVICE))["fingerprintsSha256"] == [[twin(DEVICE).fingerprint, DEVICE.fingerprint]]
    assert ask(broker, below, twin(intermediate))["decision"] == "allow"
    operator.post(DENY, {"kind": "fingerprint", "value": DEVICE.fingerprint}).ok(201)
    operator.post(DENY, {"certificate": intermediate.pem}).ok(201)
    assert ask(broker, twin(DEVICE))["code"] == "certificate_revoked"
    assert ask(broker, below, twin(intermediate))["code"] == "certificate_revoked"


@pytest.mark.parametrize("before", [True, False])
def test_a_denied_ca_in_its_other_form_vouches_for_no_device(broker: Client, operator: Client, before: bool) -> None:
    """Denied before or after the registration."""
    add(operator, twin(ROOT))
    if before:
        operator.delete(f"{CAS}/{ca_id(twin(ROOT).certificate)}").ok(204)
    operator.post(DENY, {"kind": "fingerprint", "value": ROOT.fingerprint}).ok(201)
    if before:
        add(operator, twin(ROOT))
    assert ask(broker)["code"] == "certificate_revoked"


def test_a_denied_serial_number_belongs_to_an_issuers_key(broker: Client, operator: Client, ca: str) -> None:
    """Recipes in use hard-code serial numbers. Of two CAs with the same name, only one issuer's is refused."""
    namesake = certs.ca("Root", private=certs.key("P-256", 77))
    other_id = add(operator, namesake)
    mine, theirs = one_of(serial=0x0111111111), one_of(namesake, serial=0x0111111111)
    operator.post(DENY, {"kind": "serial", "value": f"{ca}:0111111111"}).ok(201)
    assert ask(broker, mine)["code"] == "certificate_revoked"
    assert ask(broker, theirs)["decision"] == "allow"
    operator.post(DENY, {"kind": "serial", "value": f"{other_id}:111111111"}).ok(201)
    assert ask(broker, theirs)["code"] == "certificate_revoked"


def test_a_denied_identity(broker: Client, operator: Client, ca: str) -> None:
    """With any certificate, without a certificate, without TLS, and without a client ID; similar names are accepted."""
    operator.post(DENY, {"kind": "identity", "value": "d:thermo:42"}).ok(201)
    assert ask(broker)["code"] == "certificate_revoked"
    assert ask(broker, clientId=None)["code"] == "certificate_revoked"
    assert ask(broker, one_of(name="d:thermo:43"), clientId="d:mtxpd0:thermo:43")["decision"] == "allow"
    assert ask(broker, one_of(name="g:thermo:42"), clientId="g:mtxpd0:thermo:42")["decision"] == "allow"
    level(operator, "TLS Optional")
    assert ask(broker, None)["code"] == "certificate_revoked"
    assert ask(broker, None, tls=False)["code"] == "certificate_revoked"
    steps = [step["status"] for step in ask(broker, None, explain=True)["steps"]]
    assert steps == ["passed"] * 3 + ["not reached"] * 5 + ["failed", "not reached"]  # no chain to judge
    assert ask(broker, None, clientId="d:mtxpd0:thermo:43")["decision"] == "continue"


# ---------------------------------------------------------------------------------------- what a decision costs


def test_an_allow_is_a_single_read_and_no_write(service: Service, broker: Client, operator: Client) -> None:
    """With a policy, rules, a deny list, several CAs of the same name, and a chain."""
    for number in range(3):
        add(operator, certs.ca("Root", private=certs.key("P-256", 300 + number)))
    add(operator, ROOT)
    operator.post(DENY, {"kind": "identity", "value": "d:thermo:1"}).ok(201)
    upper = certs.ca("Upper", ROOT)
    for device, sent in ((DEVICE, ()), (one_of(upper), (upper, ROOT))):
        for client in (broker, service.platform("broker")):
            remembered = service.app.verifier.memory.answers
            for _ in range(2):  # computed, then remembered
                with counted(service) as calls:
                    assert ask(client, device, *sent)["decision"] == "allow"
                assert calls == {"get_many": 1}
            assert service.app.verifier.memory.answers == remembered + 1


def test_a_verdict_that_does_not_hold_any_more_is_one_read_too(
    service: Service, operator: Client, broker: Client, ca: str
) -> None:
    """What was read to look whether the verdict holds is what the new verdict is computed from."""
    assert ask(broker)["decision"] == "allow"
    operator.put("/authorization/connectionpolicy", {"default": "TLS with Client Certificate or Token"}).ok()
    with counted(service) as calls:
        assert ask(broker)["decision"] == "allow"
    assert calls == {"get_many": 1}
    assert service.app.verifier.memory.answers == 0


@pytest.mark.parametrize("case", TABLE)
def test_a_refusal_is_two_reads_at_most_and_no_write(service: Service, broker: Client, ca: str, case: str) -> None:
    with counted(service) as calls:
        TABLE[case][0](broker)
    assert set(calls) <= {"get_many"}
    assert calls["get_many"] <= 2


class TestScale:
    """The cost of a decision does not depend on the number of documents. Always on the embedded store."""

    def test_a_thousand_registered_cas(self, tmp_path: Path) -> None:
        service = make_service(tmp_path / "many")
        operator, broker = service.client("operator"), service.client("broker")
        add(operator, ROOT)
        repository = service.app.context.repository
        stamp = Revision("1", NOON, "test", NOON, "test")
        names = [f"{number:016x}" for number in range(999)]
        for name in names:
            ca_id = f"{name}-{0:032x}"
            repository.create(
                cas_ref(service.org_id, name), CAsOfOneName(cas={ca_id: CA(der=OTHER_ROOT.der, changed=stamp)})
            )
        for attempt in repository.changing(ca_index_ref(service.org_id)):
            with attempt as index:
                cas = {f"{name}-{0:032x}": True for name in names}
                attempt.write(CAIndex({**(index.cas if index else {}), **cas}))
        assert len(operator.get(f"{CAS}?limit=200").ok()["results"]) == 200
        self.check(service, broker)
        service.app.close()

    def test_ten_thousand_orgs(self, tmp_path: Path) -> None:
        service = make_service(tmp_path / "many")
        add(service.client("operator"), ROOT)
        repository = service.app.context.repository
        stamp = Revision("1", NOON, "test", NOON, "test")
        for number in range(10_000):
            org_id = f"o{number:05d}"
            org = Org(
                org_id=org_id, created_at=NOON, settings_changed=stamp, policy_changed=stamp, activation_changed=stamp
            )
            repository.create(org_ref(org_id), org)
        self.check(service, service.client("broker"))
        self.check(service, service.platform("broker"))
        service.app.close()

    def check(self, service: Service, broker: Client) -> None:
        with counted(service) as calls:
            assert ask(broker)["decision"] == "allow"
        assert calls == {"get_many": 1}
        with counted(service) as calls:
            assert ask(broker, one_of(certs.ca("Stranger")))["code"] == "untrusted_issuer"
        assert calls == {"get_many": 2}


# ------------------------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize("failure", [StoreUnavailable(), RuntimeError("a bug"), MemoryError()])
def test_every_failure_refuses_the_client(
    service: Service, broker: Client, ca: str, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 with deny and `unavailable`, also for an explained verdict; without the text of the failure."""

    def down(*_: object) -> None:
        raise failure

    monkeypatch.setattr(service.store, "get_many", down)
    for explain in (False, True):
        refused = ask(broker, explain=explain)
        assert (refused["decision"], refused["code"]) == ("deny", "unavailable")
        assert (refused["orgId"], refused["identity"], refused["ca"]) == ("mtxpd0", None, None)
        assert "a bug" not in str(refused)


def test_a_failure_while_the_request_is_read_refuses_the_client(
    broker: Client, ca: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug in a parser")

    monkeypatch.setattr("shared.usecases.devices.verify.Presented.read", broken)
    assert ask(broker)["code"] == "unavailable"


def test_a_callers_own_mistakes_are_problem_documents(service: Service, broker: Client) -> None:
    """400, 401, 413 and 415, before any decision. Without a key the body is not read."""
    path = "/authorization/verifyclient"
    for answer, status, code in (
        (broker.send("POST", path, b"{"), 400, "malformed_body"),
        (broker.post(path, {"sni": HOST}), 400, "unknown_field"),
        (broker.post(path, {"tls": "yes"}), 400, "wrong_value"),
        (broker.post(path, {"certificateDer": "abcde"}), 400, "malformed_base64"),
        (broker.send("POST", path, b"{}", headers={"content-type": "text/plain"}), 415, "unsupported_media_type"),
        (broker.post(path, {"certificate": "x" * 300_000}), 413, "file_too_large"),
        (Client(service.app, broker.key, "wrong").post(path, {}), 401, "not_authenticated"),
        (service.anonymous.send("POST", path, b"{"), 401, "not_authenticated"),
    ):
        assert (answer.status, answer.code) == (status, code)
        assert answer.reply.content_type == "application/problem+json"
