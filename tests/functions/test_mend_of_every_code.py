"""Every code has a row: a set-up that is refused with the code, and the call again as the advice says, which succeeds.

A row is a generator. It yields the refused answer, receives that answer back to read the advice in it, and yields the
answer after the advice was followed. The refusals of devices that `test_mend_works` has are not repeated here.
"""

import asyncio
import base64
import json
import re
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
from cryptography import x509
from msgspec import structs

from functions.dispatch import Dispatcher
from functions.hosts import asgi
from functions.registry import PREFIX
from functions.web import problem
from functions.web.deadline import Workers
from functions.web.message import Reply, Request, build_request
from infra.error_pages import CAUSES
from infra.openapi import document
from shared import repository
from shared.adapters import documents as stored_bodies
from shared.adapters import key_process
from shared.adapters.local_sealer import LocalSealer
from shared.config import Oidc
from shared.errors import KeysUnavailable, StoreUnavailable, TrustError
from shared.ports import WriteConflict
from shared.records import Proof
from shared.usecases.callers import Credentials
from shared.usecases.cas import documents as ca_documents
from shared.usecases.cas import manage
from shared.usecases.devices.verify import verify_use
from shared.usecases.jobs.uploads import End
from shared.usecases.orgs.deletion import delete_org
from shared.usecases.orgs.organizations import create_org, set_suspended
from shared.usecases.servers import documents as server_documents
from shared.validation.ca import read_ca
from shared.validation.topics import may_use_topic
from shared.validation.verdict_by_name import NamedClient
from tests.functions import test_mend_works
from tests.functions.dialects.recorded import LISTENER, Recorded
from tests.functions.test_server_certificates import SERVERS, activate, issue, numbered
from tests.functions.test_verify_client import DEVICE, HOST, ROOT, add
from tests.support import certs, forms
from tests.support.certs import DAY, NOON
from tests.support.der import dotted, seq
from tests.support.harness import Answer, Client, Service, answer, basic, make_current_service
from tests.support.issuer import AUDIENCE, CLIENT, Issuer, run_issuer
from tests.usecases.test_on_upload import Bucket, Objects

pytestmark = pytest.mark.stores("sqlite")  # no advice depends on the kind of store

CAS: Final = "/authentication/cacertificates"
DENY: Final = "/authorization/denylist"
POLICY: Final = "/authorization/connectionpolicy"
SETTINGS: Final = "/authorization/settings"
VERIFY: Final = "/verifyClient"
SERVER = certs.server(HOST, certs.ca("Server Root"))

Row = Generator[Answer, Answer, None]
ROWS: Final[dict[str, Callable[[Service, pytest.MonkeyPatch], Row]]] = {}

# Advice that is about a program outside of the functions: tests that run the program follow the advice.
ELSEWHERE: Final = {
    "kdf_too_costly": "tests/functions/test_server_certificates.py::test_a_key_file_that_costs_too_much_to_open",
    "rotation_refused": "tests/adapters/test_sealers.py::test_aws_a_refused_rotation_has_advice_that_works",
}
NO_REFUSAL: Final = {"allowed", "token_required"}


def row(name: str) -> Callable[[Callable[[Service, pytest.MonkeyPatch], Row]], None]:
    """Keep a row under the code, or under the name of a class that has its parent's code and advice of its own."""

    def keep(made: Callable[[Service, pytest.MonkeyPatch], Row]) -> None:
        assert name not in ROWS
        ROWS[name] = made

    return keep


def advice(refused: Answer) -> str:
    """Return reason and advice, whether a device or a call was refused."""
    shown = refused.json
    return f"{shown['reason']} {shown['mend']}" if "reason" in shown else str(shown["detail"])


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
    field = read(r"again with the field (\w+)\.", refused)
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
    assert "Read the record again, then repeat the change with the new version in If-Match" in advice(refused)
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
    assert "Delete a CA certificate that no device needs any more" in advice(refused)
    operator.delete(f"{CAS}/{first}").ok(204)
    yield operator.post(CAS, {"certificate": other.pem})


@row("too_many_cas_of_one_name")
def _(service: Service, monkeypatch: pytest.MonkeyPatch) -> Row:
    monkeypatch.setattr(ca_documents, "CAS_OF_ONE_NAME_MAX", 1)
    operator = service.client("operator")
    first, again = add(operator, ROOT), certs.ca("Root", private=ROOT.key)
    refused = yield operator.post(CAS, {"certificate": again.pem})
    assert "Delete a CA certificate with this subject" in advice(refused)
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
    assert "Delete a server certificate or a request" in advice(refused)
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


# ------------------------------------------------------------------------- a part of the service fails, and works again


class Fails:
    """A stand-in for a method: it raises *error* until *works* is set, then calls the method."""

    def __init__(self, method: Callable[..., Any], error: Exception) -> None:
        self._method = method
        self._error = error
        self.works = False

    def __call__(self, *args: Any, **more: Any) -> Any:
        if self.works:
            return self._method(*args, **more)
        raise self._error


@row("unavailable")
def _(service: Service, monkeypatch: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    put = Fails(service.store.put, StoreUnavailable())
    monkeypatch.setattr(service.store, "put", put)
    refused = yield operator.post(CAS, {"certificate": ROOT.pem})
    assert "Try again in a few seconds" in advice(refused)
    assert refused.reply.headers["Retry-After"] == "2"
    put.works = True
    yield operator.post(CAS, {"certificate": ROOT.pem})


@row("too_busy")
def _(service: Service, monkeypatch: pytest.MonkeyPatch) -> Row:
    """Another writer is first, at each attempt of the call."""
    operator = service.client("operator")
    ca = add(operator, ROOT)
    put = Fails(service.store.put, WriteConflict())
    monkeypatch.setattr(service.store, "put", put)
    monkeypatch.setattr(repository, "_ATTEMPTS", 3)
    refused = yield operator.put(f"{CAS}/{ca}", {"comments": "x"})
    assert "Repeat the call" in advice(refused)
    put.works = True
    yield operator.put(f"{CAS}/{ca}", {"comments": "x"})


@row("document_too_large")
def _(service: Service, monkeypatch: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    ca = add(operator, ROOT)
    monkeypatch.setattr(stored_bodies, "MAX_BODY_BYTES", 1200)
    refused = yield operator.put(f"{CAS}/{ca}", {"comments": "x" * 400})
    assert "shorten comments, then repeat" in advice(refused)
    yield operator.put(f"{CAS}/{ca}", {"comments": "x"})


@row("keys_unavailable")
def _(service: Service, monkeypatch: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    wrap = Fails(LocalSealer._new_data_key, KeysUnavailable())
    monkeypatch.setattr(LocalSealer, "_new_data_key", lambda *args: wrap(*args))
    refused = yield _upload(operator, SERVER)
    assert "Try again in a few seconds" in advice(refused)
    wrap.works = True
    yield _upload(operator, SERVER)


@row("key_not_opened")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    """The answer has an id and no advice. The page of the code has the advice: restore the folder of master keys."""
    operator = service.client("operator")
    certificate = _upload(operator, SERVER).ok(201)["id"]
    folder = service.app.settings.data / "keys"
    [key] = folder.glob("*.key")
    aside = key.rename(key.with_suffix(".aside"))
    yield operator.post(f"{SERVERS}/{certificate}/renewal", {})
    assert "restore the folder of keys" in " ".join(CAUSES["key_not_opened"].steps)
    aside.rename(key)
    yield operator.post(f"{SERVERS}/{certificate}/renewal", {})


@row("key_work_unavailable")
def _(service: Service, monkeypatch: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    run = Fails(subprocess.run, subprocess.TimeoutExpired("helper", 10))
    monkeypatch.setattr(subprocess, "run", run)
    structs.force_setattr(service.app.context, "key_work", key_process.KeyProcess(seconds=60))
    refused = yield _upload(operator, SERVER)
    assert "Try again in a minute" in advice(refused)
    run.works = True
    yield _upload(operator, SERVER)


@row("internal")
def _(service: Service, monkeypatch: pytest.MonkeyPatch) -> Row:
    """The log has the id of the answer, and the page of the code says to search for it."""
    operator = service.client("operator")
    get_many = Fails(service.store.get_many, RuntimeError("a defect"))
    monkeypatch.setattr(service.store, "get_many", get_many)
    lines: list[str] = []
    monkeypatch.setattr(problem.log, "error", lambda line, *words, **_: lines.append(line % words))
    refused = yield operator.get(CAS)
    assert "Search the log of the service for the id in the answer" in " ".join(CAUSES["internal"].steps)
    [line] = lines
    assert read(r"id in the log is (\w+)", refused) in line
    get_many.works = True
    yield operator.get(CAS)


@row("overloaded")
def _(service: Service, monkeypatch: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    workers = Workers(1, spares=0, stuck=60, waiting=1, per_owner=1)
    monkeypatch.setattr("functions.dispatch.MANAGEMENT", workers)
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        ended.wait(60)

    busy = [workers.submit(work, owner="mtxpd0")]
    assert begun.wait(60)
    busy.append(workers.submit(work, owner="mtxpd0"))
    refused = yield _ask_server(operator, "GET")
    assert "Try again in a few seconds" in advice(refused)
    assert refused.reply.headers["Retry-After"] == "2"
    ended.set()
    wait(busy)
    yield _ask_server(operator, "GET")


@row("request_timeout")
def _(service: Service, monkeypatch: pytest.MonkeyPatch) -> Row:
    """The server's own reader of bodies waits for a client that sends half a body."""
    operator = service.client("operator")
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.05)
    body = json.dumps({"certificate": ROOT.pem}).encode()
    refused = yield _ask_server(operator, "POST", [body[:9]])
    assert "Send the request again" in advice(refused)
    yield _ask_server(operator, "POST", [body[:9], body[9:]])


def _ask_server(operator: Client, method: str, parts: list[bytes] | None = None) -> Answer:
    """Return the answer of the asynchronous server. It waits for the rest of a body that is not complete JSON."""

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.sleep(60)
        part = left.pop(0)
        return {"type": "http.request", "body": part, "more_body": not (left == [] and part.endswith(b"}"))}

    async def run() -> Reply:
        read_body = None if parts is None else lambda: asgi._read_body(receive)
        with ThreadPoolExecutor(1) as pool:
            return await Dispatcher(lambda: operator.app).dispatch_async(request, pool, read_body)

    left = list(parts or [])
    headers = {"content-type": "application/json", "authorization": basic(operator.key, operator.token)}
    request = Request(method, PREFIX + CAS, {}, headers, scheme="https")
    return Answer(asyncio.run(run()))


# ------------------------------------------------------------------------------------------------------------ sign-in


@contextmanager
def _signing_in() -> Iterator[tuple[Service, Issuer]]:
    with TemporaryDirectory() as folder, run_issuer() as issuer:
        service = make_current_service(Path(folder), oidc=Oidc(issuer.url, AUDIENCE, CLIENT))
        try:
            yield service, issuer
        finally:
            service.app.close()


def _session(service: Service, token: str) -> Answer:
    return service.anonymous.send("GET", "/session", headers={"authorization": f"Bearer {token}"})


@row("token_refused")
def _(_service: Service, _: pytest.MonkeyPatch) -> Row:
    with _signing_in() as (service, issuer):
        refused = yield _session(service, issuer.token(exp=service.clock.now.timestamp() - 120))
        assert "Sign in again" in advice(refused)
        yield _session(service, issuer.token())


@row("role_not_granted")
def _(_service: Service, _: pytest.MonkeyPatch) -> Row:
    with _signing_in() as (service, issuer):
        refused = yield _session(service, issuer.token(role="admin"))
        role = read(r"for the role (viewer) or operator", refused)
        yield _session(service, issuer.token(role=role))


@row("issuer_unavailable")
def _(_service: Service, _: pytest.MonkeyPatch) -> Row:
    with _signing_in() as (service, issuer):
        issuer.down = True
        refused = yield _session(service, issuer.token())
        assert "Try again in a minute, or use an API key" in advice(refused)
        service.client("viewer").get("/session").ok()
        issuer.down = False
        service.clock.now += timedelta(seconds=int(refused.reply.headers["Retry-After"]))
        yield _session(service, issuer.token())


# ------------------------------------------------------------------------------------ edges, brokers, buckets, commands


@row("insecure_transport")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    edge = service.platform("edge")
    refused = yield replace(edge, scheme="http").get("//edge/v1/hosts")
    scheme = read(r"begins with (https)://", refused)
    yield replace(edge, scheme=scheme).get("//edge/v1/hosts")


@row("too_many_fields")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    headers = {"authorization": basic(operator.key, operator.token)}
    extra = "".join(f"&x{number}=1" for number in range(100))
    refused = yield Answer(answer(service.app, build_request("GET", PREFIX + CAS, f"limit=5{extra}", headers)))
    assert "Send the documented fields only" in advice(refused)
    yield Answer(answer(service.app, build_request("GET", PREFIX + CAS, "limit=5", headers)))


@row("use_refused")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    add(service.client("operator"), ROOT)
    prover = service.client("broker", proof=Proof.BROKER, listener=LISTENER)

    def use(topic: str) -> Answer:
        credentials = Credentials(prover.key, prover.token)
        named = NamedClient("d:thermo:42", "d:mtxpd0:thermo:42", listeners=frozenset((LISTENER,)), may_be_typed=True)
        found = verify_use(
            service.app.verifier, credentials, named, lambda _org, _device, prefix: may_use_topic(prefix, topic)
        )
        return _shown(
            {"decision": found.decision.value, "code": found.code, "reason": found.reason, "mend": found.mend}
        )

    refused = yield use("mtxpd0/thermo/43/evt")
    prefix = read(r"under (\S+/thermo/42/)", refused)
    yield use(f"{prefix}evt")


@row("upload_misplaced")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    bucket = Bucket(service, Objects())

    def put(key: str) -> Answer:
        outcome = bucket.put(key, ROOT.pem)
        return _shown({"code": outcome.code, "detail": outcome.why}, 200 if outcome.end is End.DONE else 422)

    refused = yield put("mtxpd0/certs/root.pem")
    folder = read(r"under (mtxpd0/ca/),", refused)
    yield put(f"{folder}root.pem")


@row("org_exists")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    refused = yield _run(lambda: create_org(service.app.context, "mtxpd0"))
    assert "Choose another orgId" in advice(refused)
    yield _run(lambda: create_org(service.app.context, "other1"))


@row("org_deleting")
def _(service: Service, monkeypatch: pytest.MonkeyPatch) -> Row:
    """The deletion fails after its beginning, and is repeated."""
    context = service.app.context
    remove = Fails(service.store.delete, StoreUnavailable())
    monkeypatch.setattr(service.store, "delete", remove)
    with pytest.raises(StoreUnavailable):
        delete_org(context, "mtxpd0")
    refused = yield _run(lambda: create_org(context, "mtxpd0", now=True))
    org = read(r"Repeat `org delete (\w+)`", refused)
    remove.works = True
    delete_org(context, org)
    yield _run(lambda: create_org(context, org, now=True))


@row("org_in_quarantine")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    delete_org(service.app.context, "mtxpd0")
    refused = yield _run(lambda: create_org(service.app.context, "mtxpd0"))
    assert "With --now you may use it at once" in advice(refused)
    yield _run(lambda: create_org(service.app.context, "mtxpd0", now=True))


def _run(command: Callable[[], object]) -> Answer:
    """Return what a command of the operator prints, as an answer."""
    try:
        command()
    except TrustError as refusal:
        return _shown({"code": refusal.code, "detail": str(refusal)}, 409)
    return _shown({})


def _shown(fields: dict[str, Any], status: int = 200) -> Answer:
    return Answer(Reply(status, json.dumps(fields).encode(), "application/json"))


# -------------------------------------------------------------------- the same code with advice of its own (a subclass)


@row("DomainSwitchedOff")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    add(operator, ROOT)
    domains = {"enabled": False, "domains": ["iot.acme.org"]}
    operator.put(SETTINGS, {"customDomains": domains}).ok()
    refused = yield verdict(service, serverName="mtxpd0.messaging.iot.acme.org")
    assert "Switch custom domains on" in advice(refused)
    assert verdict(service, serverName=read(r"or connect to (\S+)\.$", refused)).json["decision"] == "allow"
    operator.put(SETTINGS, {"customDomains": {**domains, "enabled": True}}).ok()
    yield verdict(service, serverName="mtxpd0.messaging.iot.acme.org")


@row("SelfSigned")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    operator = service.client("operator")
    add(operator, ROOT)
    own = certs.certificate(certs.name("d:thermo:42"), signer=None, private=certs.key("P-256", 68))
    refused = yield verdict(service, own)
    assert "Issue the device's certificate from a CA, and add that CA's certificate" in advice(refused)
    ca = certs.ca("Of devices")
    add(operator, ca)
    yield verdict(service, certs.leaf("d:thermo:42", ca, private=own.key))


@row("IssuerNotPassed")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    """EMQX passes the leaf alone and gets no advice: the refusal in the activity list has the advice."""
    operator, broker = service.client("operator"), service.client("broker")
    add(operator, ROOT)
    lower = certs.ca("Lower", ROOT)
    device = certs.leaf("d:thermo:42", lower)

    def ask() -> Answer:
        result = Recorded("emqx").send(broker, device, lower).json["result"]
        if result == "allow":
            return _shown({"decision": "allow"})
        service.flush()
        [entry] = operator.get("/activity?kind=refusal").ok()["results"]
        return _shown({"decision": "deny", "code": entry["code"], "reason": entry["reason"], "mend": entry["mend"]})

    refused = yield ask()
    assert read(r"If (\S+) is your CA, add its certificate", refused) == "CN=Lower"
    add(operator, lower)
    yield ask()


@row("ChainTooCostly")
def _(service: Service, _: pytest.MonkeyPatch) -> Row:
    """One CA limits 128 names, and the device's certificate has more than may be compared with each of them."""
    operator = service.client("operator")
    subtrees = x509.NameConstraints(None, [x509.DNSName(f"h{number}.example.com") for number in range(128)])
    limited = certs.ca("Limited", more=[(subtrees, True)])
    add(operator, limited)
    dns = [f"x{number}.example.org" for number in range(100)]
    refused = yield verdict(service, certs.leaf("d:thermo:42", limited, dns=dns))
    hint = advice(refused)
    assert "fewer" in hint, hint
    yield verdict(service, certs.leaf("d:thermo:42", limited, dns=dns[:10]))


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


def kinds() -> dict[str, type[TrustError]]:
    """Return each class with advice of its own: under its code, or under its name where the code is its parent's."""
    found: dict[str, type[TrustError]] = {}
    pending: list[type[TrustError]] = [TrustError]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        if "code" in vars(kind):
            found[kind.code] = kind
        elif "mend" in vars(kind) and kind is not TrustError:
            found[kind.__name__] = kind
    return {name: kind for name, kind in found.items() if kind.__module__ in LOADED}


LOADED: Final = ("shared.errors", "functions.web.errors", "shared.usecases.orgs.organizations")


@pytest.mark.parametrize("name", ROWS)
def test_the_advice_works_to_the_letter(service: Service, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    made = ROWS[name](service, monkeypatch)
    refused = next(made)
    kind = kinds().get(name)
    assert refused.code == (name if kind is None else kind.code)
    assert advice(refused)
    if kind is not None:  # the sentences are those of this class, not of another class with the same code
        sentences = re.escape(f"{kind.says} {kind.mend}".strip())
        assert re.fullmatch(re.sub(r"\\{\w+\\}", ".*", sentences), advice(refused).strip())
    mended = made.send(refused)
    assert mended.status < 300, mended.text
    decision = mended.json.get("decision") if mended.reply.body else None
    assert decision in (None, "allow"), mended.text
    made.close()


def test_no_advice_is_without_a_row() -> None:
    codes = set(document()["components"]["schemas"]["Code"]["enum"])
    in_mend_works = {code for code, *_ in test_mend_works.CASES.values()}
    missing = (codes | set(kinds())) - set(ROWS) - in_mend_works - set(ELSEWHERE) - NO_REFUSAL
    assert missing == set()
    assert set(ELSEWHERE) & set(ROWS) == set()


@pytest.mark.parametrize("code", ELSEWHERE)
def test_the_test_elsewhere_exists(code: str) -> None:
    path, _, name = ELSEWHERE[code].partition("::")
    assert f"def {name}(" in (Path(__file__).parents[2] / path).read_text()
