"""Every code has a row: a set-up that is refused with the code, and the call again as the advice says, which succeeds.

A row is a generator. It yields the refused answer, receives that answer back to read the advice in it, and yields the
answer after the advice was followed. The refusals of devices that `test_mend_works` has are not repeated here.
"""

import base64
import json
import re
from collections.abc import Callable, Generator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from msgspec import structs

from infra.openapi import document
from shared.usecases.cas import documents as ca_documents
from shared.usecases.cas import manage
from shared.usecases.orgs.deletion import delete_org
from shared.usecases.orgs.organizations import create_org, set_suspended
from shared.usecases.servers import documents as server_documents
from shared.validation.ca import read_ca
from tests.functions import test_mend_works
from tests.functions.test_server_certificates import SERVERS, activate, issue, numbered
from tests.functions.test_verify_client import DEVICE, HOST, ROOT, add
from tests.support import certs, forms
from tests.support.certs import DAY, NOON
from tests.support.der import dotted, seq
from tests.support.harness import Answer, Service

CAS: Final = "/authentication/cacertificates"
DENY: Final = "/authorization/denylist"
POLICY: Final = "/authorization/connectionpolicy"
SETTINGS: Final = "/authorization/settings"
VERIFY: Final = "/verifyClient"
SERVER = certs.server(HOST, certs.ca("Server Root"))

Row = Generator[Answer, Answer, None]
ROWS: Final[dict[str, Callable[[Service, pytest.MonkeyPatch], Row]]] = {}

# Codes of a store, a key service, an issuer or a network that fails, and of commands: other tests make them fail, and
# look at what happens after the repeated call.
ELSEWHERE: Final = {
    "unavailable": ("tests/usecases/test_cut_short.py", "StoreUnavailable"),
    "keys_unavailable": ("tests/adapters/test_sealers.py", "KeysUnavailable"),
    "key_work_unavailable": ("tests/adapters/test_key_process.py", "KeyWorkUnavailable"),
    "key_not_opened": ("tests/adapters/test_sealers.py", "SealBroken"),
    "issuer_unavailable": ("tests/functions/test_sign_in_tokens.py", "issuer_unavailable"),
    "token_refused": ("tests/functions/test_sign_in_tokens.py", "token_refused"),
    "role_not_granted": ("tests/functions/test_sign_in_tokens.py", "role_not_granted"),
    "overloaded": ("tests/functions/test_pools.py", "overloaded"),
    "request_timeout": ("tests/functions/test_http_limits.py", "request_timeout"),
    "too_busy": ("tests/test_repository.py", "TooBusy"),
    "insecure_transport": ("tests/functions/test_edge_feed.py", "insecure_transport"),
    "upload_misplaced": ("tests/usecases/test_on_upload.py", "upload_misplaced"),
    "use_refused": ("tests/functions/dialects/test_brokers.py", "acl"),
    "too_many_fields": ("tests/functions/test_key_before_body.py", "too_many_fields"),
    "internal": ("tests/test_secrets.py", "internal"),
    "document_too_large": ("tests/conformance/test_document_store.py", "DocumentTooLarge"),
    "rotation_refused": ("tests/adapters/test_sealers.py", "RotationRefused"),
    "kdf_too_costly": ("tests/functions/test_server_certificates.py", "kdf_too_costly"),
}
NO_REFUSAL: Final = {"allowed", "token_required"}


def row(code: str) -> Callable[[Callable[[Service, pytest.MonkeyPatch], Row]], None]:
    def keep(made: Callable[[Service, pytest.MonkeyPatch], Row]) -> None:
        assert code not in ROWS
        ROWS[code] = made

    return keep


def advice(refused: Answer) -> str:
    """Return reason and advice, whether a device or a call was refused."""
    answer = refused.json
    return f"{answer['reason']} {answer['mend']}" if "reason" in answer else str(answer["detail"])


def read(pattern: str, refused: Answer) -> str:
    match = re.search(pattern, advice(refused))
    assert match, advice(refused)
    return match[1]


def verdict(service: Service, device: certs.Issued | None = DEVICE, *sent: certs.Issued, **fields: Any) -> Answer:
    certificate = {"certificate": certs.bundle(device, *sent)} if device else {}
    whole = {"serverName": HOST, "clientId": "d:mtxpd0:thermo:42", **certificate, **fields}
    return service.client("broker").post(VERIFY, whole)


# --------------------------------------------------------------------------------------------------- about a device


@row("org_unknown")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    add(service.client("operator"), ROOT)
    broker = service.platform("broker")
    asked = {"clientId": "d:absent:thermo:42", "certificate": DEVICE.pem}
    refused = yield broker.post(VERIFY, asked)
    domain = read(r"Connect to <orgId>\.messaging\.(\S+),", refused)
    yield broker.post(VERIFY, {**asked, "serverName": f"mtxpd0.messaging.{domain}", "clientId": "d:mtxpd0:thermo:42"})


@row("client_id_invalid")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    add(service.client("operator"), ROOT)
    refused = yield verdict(service, clientId="thermo 42")
    form = read(r"Set the client ID to (d:mtxpd0:type:device)", refused)
    yield verdict(service, clientId=form.replace("type:device", "thermo:42"))


@row("certificate_malformed")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    add(service.client("operator"), ROOT)
    damaged = base64.b64encode(forms.leaf(version=8)).decode()
    refused = yield verdict(service, None, certificate=damaged)
    assert "Issue a new certificate" in advice(refused)
    yield verdict(service)


@row("chain_invalid")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    root = certs.ca("Limited", path_length=0)
    inter = certs.ca("Lower", root)
    add(service.client("operator"), root)
    refused = yield verdict(service, certs.leaf("d:thermo:42", inter), inter)
    assert "Issue the certificates again without that limit" in advice(refused)
    again = certs.ca("Limited", private=root.key)
    add(service.client("operator"), again)
    yield verdict(service, certs.leaf("d:thermo:42", inter), inter)


@row("weak_key")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    add(service.client("operator"), ROOT)
    refused = yield verdict(service, certs.leaf("d:thermo:42", ROOT, private=certs.key("RSA-1024")))
    kind = read(r"a new key of (RSA 2048) bits", refused).replace(" ", "-")
    yield verdict(service, certs.leaf("d:thermo:42", ROOT, private=certs.key(kind)))


@row("weak_signature")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    add(service.client("operator"), ROOT)
    sha1 = seq(dotted("1.2.840.10045.4.1"))
    name = ROOT.cert.subject.public_bytes()
    weak = forms.issue(
        ROOT.key,
        subject=forms.name(forms.common_name("d:thermo:42")),
        issuer=name,
        info=forms.key_info(certs.key()),
        algorithm=sha1,
    )
    refused = yield verdict(service, None, certificate=base64.b64encode(weak).decode())
    assert "signed with SHA-256" in advice(refused)
    yield verdict(service)


@row("ca_inactive")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    ca = add(operator, ROOT)
    add(operator, certs.ca("Another"))
    operator.put(f"{CAS}/{ca}", {"status": "inactive"}).ok()
    refused = yield verdict(service)
    assert "activate the CA certificate" in advice(refused)
    operator.put(f"{CAS}/{ca}", {"status": "active"}).ok()
    yield verdict(service)


@row("ca_expired")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    old = certs.ca("Old", private=certs.key("P-256", 31), not_after=NOON + DAY)
    operator = service.client("operator")
    add(operator, old)
    service.clock.now += timedelta(days=2)
    leaf = certs.leaf("d:thermo:42", old)
    refused = yield verdict(service, leaf)
    assert "Add the CA certificate that replaces it" in advice(refused)
    add(operator, certs.ca("Old", private=old.key))
    yield verdict(service, leaf)


@row("type_certificate_refused")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    add(operator, ROOT)
    of_type = certs.leaf("d:thermo:", ROOT)
    refused = yield verdict(service, of_type)
    assert "Switch type certificates on" in advice(refused)
    operator.put(SETTINGS, {"typeCertificates": True}).ok()
    yield verdict(service, of_type)


@row("org_suspended")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    add(service.client("operator"), ROOT)
    set_suspended(service.app.context, "mtxpd0", True)
    refused = yield verdict(service)
    assert "Ask the platform's operator" in advice(refused)
    set_suspended(service.app.context, "mtxpd0", False)
    yield verdict(service)


# --------------------------------------------------------------------------------------------------- about a call


@row("wrong_value")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield operator.put(POLICY, {"default": "TLS"})
    yield operator.put(POLICY, {"default": read(r"It takes one of: (TLS Optional),", refused)})


@row("malformed_body")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield operator.send("POST", CAS, b'{"certificate": ')
    assert "Send JSON" in advice(refused)
    yield operator.send("POST", CAS, json.dumps({"certificate": ROOT.pem}).encode())


@row("malformed_base64")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield operator.post(CAS, {"certificate": "AAAAA"})
    assert "Send PEM as text, or DER in base64" in advice(refused)
    yield operator.post(CAS, {"certificate": base64.b64encode(ROOT.der).decode()})


@row("unknown_field")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield operator.post(CAS, {"cert": ROOT.pem})
    field = read(r"It takes (certificate)", refused)
    yield operator.post(CAS, {field: ROOT.pem})


@row("missing_field")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield operator.post(CAS, {})
    field = read(r"The field (\w+) is missing", refused)
    yield operator.post(CAS, {field: ROOT.pem})


@row("not_authenticated")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield type(operator)(operator.app, operator.key, "wrong").get(CAS)
    assert "API key as user name and its token as password" in advice(refused)
    yield operator.get(CAS)


@row("forbidden")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    refused = yield service.client("viewer").post(CAS, {"certificate": ROOT.pem})
    role = read(r"Use an API key with the role (\w+)", refused)
    yield service.client(role).post(CAS, {"certificate": ROOT.pem})


@row("not_found")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    add(operator, ROOT)
    refused = yield operator.get(f"{CAS}/0123456789abcdef-0123456789abcdef0123456789abcdef")
    assert "Look at the list" in advice(refused)
    [ca] = operator.get(CAS).ok()["results"]
    yield operator.get(f"{CAS}/{ca['id']}")


@row("org_gone")
def _(service: Service, monkeypatch: pytest.MonkeyPatch) -> Row:
    """The organization is deleted while the call is in progress, and its id is created again."""
    operator = service.client("operator")

    def delete_meanwhile(*args: Any, **more: Any) -> Any:
        delete_org(service.app.context, "mtxpd0")
        return read_ca(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(manage, "read_ca", delete_meanwhile)
        refused = yield operator.post(CAS, {"certificate": ROOT.pem})
    assert "use a key of the new organization" in advice(refused)
    create_org(service.app.context, "mtxpd0", now=True)
    yield service.client("operator").post(CAS, {"certificate": ROOT.pem})


@row("method_not_allowed")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield operator.send("PATCH", CAS)
    method = read(r"It takes (GET)", refused)
    yield operator.send(method, CAS)


@row("unsupported_media_type")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    body = json.dumps({"certificate": ROOT.pem}).encode()
    refused = yield operator.send("POST", CAS, body, headers={"content-type": "text/csv"})
    kind = read(r"Send (application/json)", refused)
    yield operator.send("POST", CAS, body, headers={"content-type": kind})


@row("precondition_required")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    ca = add(operator, ROOT)
    refused = yield operator.put(f"{CAS}/{ca}", {"comments": "x"}, version=None)
    version = read(r"If-Match: (\*) to override", refused)
    yield operator.put(f"{CAS}/{ca}", {"comments": "x"}, version=version)


@row("stale")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    ca = add(operator, ROOT)
    before = operator.get(f"{CAS}/{ca}").etag
    operator.put(f"{CAS}/{ca}", {"comments": "first"}).ok()
    refused = yield operator.put(f"{CAS}/{ca}", {"comments": "second"}, version=before)
    assert "Read it again, then repeat the change with the new version in If-Match" in advice(refused)
    yield operator.put(f"{CAS}/{ca}", {"comments": "second"}, version=operator.get(f"{CAS}/{ca}").etag)


@row("file_too_large")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield operator.post(CAS, {"certificate": ROOT.pem + "\n" * 70_000})
    assert "Save the certificate alone" in advice(refused)
    yield operator.post(CAS, {"certificate": ROOT.pem})


@row("rate_limited")
def _(service: Service, monkeypatch: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")

    structs.force_setattr(service.app.context, "ca_rate_per_minute", 1)
    add(operator, ROOT)
    other = certs.ca("Another")
    refused = yield operator.post(CAS, {"certificate": other.pem})
    service.clock.now += timedelta(seconds=int(read(r"Try again in (\d+) seconds", refused)))
    yield operator.post(CAS, {"certificate": other.pem})


# ----------------------------------------------------------------------------------------------- limits and conflicts


@row("too_many_cas")
def _(service: Service, monkeypatch: pytest.MonkeyPatch) -> Row:
    monkeypatch.setattr(ca_documents, "CAS_MAX", 1)
    operator = service.client("operator")
    first, other = add(operator, ROOT), certs.ca("Another")
    refused = yield operator.post(CAS, {"certificate": other.pem})
    assert "Delete one that no device needs" in advice(refused)
    operator.delete(f"{CAS}/{first}").ok(204)
    yield operator.post(CAS, {"certificate": other.pem})


@row("too_many_cas_of_one_name")
def _(service: Service, monkeypatch: pytest.MonkeyPatch) -> Row:
    monkeypatch.setattr(ca_documents, "CAS_OF_ONE_NAME_MAX", 1)
    operator = service.client("operator")
    first, again = add(operator, ROOT), certs.ca("Root", private=ROOT.key)
    refused = yield operator.post(CAS, {"certificate": again.pem})
    assert "Delete an old one first" in advice(refused)
    operator.delete(f"{CAS}/{first}").ok(204)
    yield operator.post(CAS, {"certificate": again.pem})


@row("too_many_denials")
def _(service: Service, monkeypatch: pytest.MonkeyPatch) -> Row:
    from shared.usecases import denials

    monkeypatch.setattr(denials, "DENIALS_MAX", 1)
    operator = service.client("operator")
    first = operator.post(DENY, {"kind": "identity", "value": "d:thermo:1"}).ok(201)["id"]
    refused = yield operator.post(DENY, {"kind": "identity", "value": "d:thermo:2"})
    assert "Take entries off the list" in advice(refused)
    operator.delete(f"{DENY}/{first}").ok(204)
    yield operator.post(DENY, {"kind": "identity", "value": "d:thermo:2"})


@row("too_many_server_certificates")
def _(service: Service, monkeypatch: pytest.MonkeyPatch) -> Row:
    monkeypatch.setattr(server_documents, "SERVERS_MAX", 1)
    operator = service.client("operator")
    first = _upload(operator, SERVER).ok(201)["id"]
    refused = yield _upload(operator, numbered(1))
    assert "Delete one that is not needed" in advice(refused)
    operator.delete(f"{SERVERS}/{first}").ok(204)
    yield _upload(operator, numbered(1))


@row("active_certificate")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    first = _upload(operator, SERVER).ok(201)["id"]
    activate(operator, first).ok()
    refused = yield operator.delete(f"{SERVERS}/{first}")
    assert "Activate another certificate first" in advice(refused)
    activate(operator, "default").ok()
    yield operator.delete(f"{SERVERS}/{first}")


@row("csr_not_fulfilled")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    request = _request(operator)
    refused = yield activate(operator, request["id"])
    assert "upload the certificate to the request first" in advice(refused)
    _fulfil(operator, request).ok()
    yield activate(operator, request["id"])


@row("already_fulfilled")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    request = _request(operator)
    _fulfil(operator, request).ok()
    refused = yield _fulfil(operator, request, serial=4712)
    assert "renew it: a renewal makes a new request with the same key" in advice(refused)
    renewal = operator.post(f"{SERVERS}/{request['id']}/renewal", {}).ok(201)
    yield _fulfil(operator, renewal, serial=4713)


@row("domain_in_use")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    operator.put(SETTINGS, {"customDomains": {"enabled": True, "domains": ["iot.acme.org"]}}).ok()
    own = certs.server("mtxpd0.messaging.iot.acme.org", certs.ca("Server Root"))
    activate(operator, _upload(operator, own).ok(201)["id"]).ok()
    without = {"customDomains": {"enabled": True, "domains": []}}
    refused = yield operator.put(SETTINGS, without)
    assert "Activate another certificate first" in advice(refused)
    activate(operator, "default").ok()
    yield operator.put(SETTINGS, without)


# ------------------------------------------------------------------------------------------------------------- files


@row("not_a_certificate")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield operator.form(CAS, {"certificate": b"hello"})
    assert "Choose PEM or DER" in advice(refused)
    yield operator.form(CAS, {"certificate": ROOT.der})


@row("several_certificates")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield operator.post(CAS, {"certificate": certs.bundle(ROOT, certs.ca("Another"))})
    assert "Save the CA certificate alone" in advice(refused)
    yield operator.post(CAS, {"certificate": ROOT.pem})


@row("too_complex")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    names = x509.SubjectAlternativeName([x509.DNSName(f"n{number}.example") for number in range(200)])
    refused = yield operator.post(CAS, {"certificate": certs.ca("Many", more=[(names, False)]).pem})
    fewer = x509.SubjectAlternativeName(list(names)[: int(read(r"at most (\d+) are read", refused))])
    yield operator.post(CAS, {"certificate": certs.ca("Many", more=[(fewer, False)]).pem})


@row("private_key_given")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield operator.post(CAS, {"certificate": ROOT.key_pem})
    assert "Choose the certificate alone" in advice(refused)
    yield operator.post(CAS, {"certificate": ROOT.pem})


@row("csr_given")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    request = _request(operator)
    refused = yield operator.post(CAS, {"certificate": request["csr"]})
    assert "Have the request signed by your CA, and upload the certificate" in advice(refused)
    yield _fulfil(operator, request)


@row("not_a_ca")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield operator.post(CAS, {"certificate": DEVICE.pem})
    issuer = read(r"Add the CA certificate that signed it, (CN=Root)", refused)
    assert issuer == ROOT.certificate.subject_text
    yield operator.post(CAS, {"certificate": ROOT.pem})


@row("self_signature_invalid")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    damaged = ROOT.der[:-1] + bytes([ROOT.der[-1] ^ 1])
    refused = yield operator.form(CAS, {"certificate": damaged})
    assert "Copy the certificate again" in advice(refused)
    yield operator.form(CAS, {"certificate": ROOT.der})


@row("private_key_missing")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield operator.post(SERVERS, {"certificate": SERVER.pem})
    assert "Add the private key file" in advice(refused)
    yield _upload(operator, SERVER)


@row("not_a_key")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield operator.post(SERVERS, {"certificate": SERVER.pem, "privateKey": SERVER.pem})
    assert "Choose the key in PEM or DER" in advice(refused)
    yield _upload(operator, SERVER)


@row("key_unsupported")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield _upload(operator, certs.server(HOST, certs.ca("Server Root"), private=certs.key("Ed25519")))
    kind = read(r"(P-256)", refused)
    yield _upload(operator, certs.server(HOST, certs.ca("Server Root"), private=certs.key(kind, 21)))


@row("passphrase_required")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    sealed = {"certificate": SERVER.pem, "privateKey": certs.key_pem(SERVER.key, "secret")}
    refused = yield operator.post(SERVERS, sealed)
    assert "Enter the passphrase" in advice(refused)
    yield operator.post(SERVERS, {**sealed, "passphrase": "secret"})


@row("passphrase_wrong")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    sealed = {"certificate": SERVER.pem, "privateKey": certs.key_pem(SERVER.key, "secret")}
    refused = yield operator.post(SERVERS, {**sealed, "passphrase": "guess"})
    assert "Type the passphrase again" in advice(refused)
    yield operator.post(SERVERS, {**sealed, "passphrase": "secret"})


@row("passphrase_unneeded")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield _upload(operator, SERVER, passphrase="secret")
    assert "Leave the passphrase empty" in advice(refused)
    yield _upload(operator, SERVER, passphrase="")


@row("key_mismatch")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    other = certs.key_pem(certs.key("P-256", 97))
    refused = yield operator.post(SERVERS, {"certificate": SERVER.pem, "privateKey": other})
    assert "Choose the key that was made for this certificate" in advice(refused)
    yield _upload(operator, SERVER)


@row("chain_broken")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield _upload(operator, SERVER, chain=certs.ca("Stranger").pem)
    assert "and no others" in advice(refused)
    yield _upload(operator, SERVER, chain=certs.ca("Server Root").pem)


@row("chain_too_long")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    many = "".join(certs.ca(f"C{number}", private=certs.key()).pem for number in range(12))
    refused = yield _upload(operator, SERVER, chain=many)
    assert "Send only those that lead from the leaf to its root" in advice(refused)
    yield _upload(operator, SERVER, chain=certs.ca("Server Root").pem)


@row("host_mismatch")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield _upload(operator, certs.server("mqtt.example.org", certs.ca("Server Root")))
    host = read(r"Have a certificate issued with (\S+) as DNS name", refused)
    yield _upload(operator, certs.server(host, certs.ca("Server Root")))


@row("use_fulfil")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    request = _request(operator)
    signed = issue(request["csr"])
    refused = yield operator.post(SERVERS, {"certificate": signed.pem})
    request_id = read(r"belongs to the request (\S+?),", refused)
    yield operator.put(f"{SERVERS}/{request_id}/certificate", {"certificate": signed.pem})


@row("subject_invalid")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield operator.post(f"{SERVERS}/csr", {"country": "Germany"})
    assert "two letters" in advice(refused)
    yield operator.post(f"{SERVERS}/csr", {"country": "DE"})


@row("host_not_allowed")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield operator.post(f"{SERVERS}/csr", {"commonName": "mqtt.example.org"})
    host = read(r"Use (\S+?)\. ", refused)
    yield operator.post(f"{SERVERS}/csr", {"commonName": host})


# ----------------------------------------------------------------------------------------------------------- settings


@row("domain_reserved")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield operator.put(SETTINGS, {"customDomains": {"enabled": True, "domains": ["iot.example.com"]}})
    assert "List a domain of your own" in advice(refused)
    yield operator.put(SETTINGS, {"customDomains": {"enabled": True, "domains": ["iot.acme.org"]}})


@row("policy_invalid")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    level = "TLS with Client Certificate Authentication"
    rule = {"deviceType": "pump", "level": level}
    refused = yield operator.put(POLICY, {"default": level, "rules": [rule, rule]})
    assert "Keep one of them" in advice(refused)
    yield operator.put(POLICY, {"default": level, "rules": [rule]})


@row("denial_invalid")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    refused = yield operator.post(DENY, {"kind": "identity", "value": "thermo 42"})
    form = read(r"Write (d:type:device)", refused)
    yield operator.post(DENY, {"kind": "identity", "value": form.replace("type:device", "thermo:42")})


def _upload(operator: Any, issued: certs.Issued, **more: str) -> Answer:
    made: Answer = operator.post(SERVERS, {"certificate": issued.pem, "privateKey": issued.key_pem, **more})
    return made


def _request(operator: Any) -> dict[str, Any]:
    made: dict[str, Any] = operator.post(f"{SERVERS}/csr", {}).ok(201)
    return made


def _fulfil(operator: Any, request: dict[str, Any], **more: Any) -> Answer:
    made: Answer = operator.put(
        f"{SERVERS}/{request['id']}/certificate", {"certificate": issue(request["csr"], **more).pem}
    )
    return made


# ------------------------------------------------------------------------------------------------------------- the test


@pytest.mark.parametrize("code", ROWS)
def test_the_advice_works_to_the_letter(service: Service, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    made = ROWS[code](service, monkeypatch)
    refused = next(made)
    assert refused.code == code
    assert advice(refused)
    mended = made.send(refused)
    assert mended.status < 300, mended.text
    decision = mended.json.get("decision") if mended.reply.body else None
    assert decision in (None, "allow"), mended.text


def test_no_code_is_without_a_row() -> None:
    codes = set(document()["components"]["schemas"]["Code"]["enum"])
    in_mend_works = {code for code, *_ in test_mend_works.CASES.values()}
    missing = codes - set(ROWS) - in_mend_works - set(ELSEWHERE) - NO_REFUSAL
    assert missing == set()
    root = Path(__file__).parents[2]
    assert [code for code, (path, word) in ELSEWHERE.items() if word not in (root / path).read_text()] == []
