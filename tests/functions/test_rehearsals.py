"""Dry runs: what a change would do to the clients that were seen. After the change, it is so."""

from datetime import timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import pytest
from cryptography.x509 import ObjectIdentifier, UnrecognizedExtension

from functions.registry import every_route
from functions.web.contract import Route
from shared.connection_records import ShownChain, ShownKind
from shared.records import Role
from shared.usecases import denials as documents
from shared.usecases.devices.shown import ShownCertificates
from shared.usecases.orgs.organizations import get_org
from tests.support import certs
from tests.support.certs import NOON
from tests.support.harness import Answer, Client, Service

CAS: Final = "/authentication/cacertificates"
SERVERS: Final = "/authentication/servercertificates"
POLICY: Final = "/authorization/connectionpolicy"
SETTINGS: Final = "/authorization/settings"
DENIALS: Final = "/authorization/denylist"
PREVIEW: Final = "/authentication/preview"
OWN: Final = "mtxpd0.messaging.iot.acme.org"
ROOT = certs.ca("Factory Root")
LINE = certs.ca("Line CA", ROOT)
OTHER_LINE = certs.ca("Other Line CA")
DEVICE = certs.leaf("d:thermo:42", LINE)
UNNAMED = certs.leaf("something else", ROOT)
DOMAINS: Final = {"customDomains": {"enabled": True, "domains": ["iot.acme.org"]}}


class Org(NamedTuple):
    """An organization whose devices are judged before and after a change."""

    service: Service
    operator: Client
    broker: Client

    def verify(self, *sent: certs.Issued, broker: Client | None = None, **fields: str | None) -> dict[str, Any]:
        """Return the verdict on a client. A field that is None is not sent."""
        body = {"serverName": self.service.host(), "clientId": "d:mtxpd0:thermo:42", "certificate": certs.bundle(*sent)}
        question = {name: value for name, value in (body | fields).items() if value is not None}
        verdict: dict[str, Any] = (broker or self.broker).post("/authorization/verifyclient", question).ok()
        self.service.flush()
        return verdict

    def connect(self, *sent: certs.Issued, broker: Client | None = None, **fields: str | None) -> str:
        """Return the decision on a client."""
        decision: str = self.verify(*sent, broker=broker, **fields)["decision"]
        return decision

    def preview(self, issued: certs.Issued, asked: certs.Issued) -> dict[str, Any]:
        """Return what registering a CA would do, with the verdict on the client of a certificate."""
        path = f"{PREVIEW}?effect=true&client={asked.fingerprint}"
        judged: dict[str, Any] = self.operator.post(path, {"certificate": issued.pem}).ok()["judged"]
        return judged

    def add_ca(self, issued: certs.Issued) -> str:
        ca_id: str = self.operator.post(CAS, {"certificate": issued.pem}).ok(201)["id"]
        return ca_id


@pytest.fixture
def org(service: Service, operator: Client, broker: Client) -> Org:
    return Org(service, operator, broker)


def test_a_custom_domain_that_is_removed_or_switched_off(org: Org) -> None:
    """Devices that connect to a host of the domain would be refused, the others not. The hosts are named."""
    org.add_ca(ROOT)
    org.operator.put(SETTINGS, DOMAINS).ok()
    other = certs.leaf("d:thermo:43", ROOT)
    assert org.connect(DEVICE, LINE, serverName=OWN) == "allow"
    assert org.connect(other, clientId="d:mtxpd0:thermo:43") == "allow"
    for domains in ({"enabled": False, "domains": ["iot.acme.org"]}, {"enabled": True, "domains": []}):
        effect = org.operator.put(f"{SETTINGS}?dryrun=true", {"customDomains": domains}).ok()
        assert effect["hosts"] == [OWN]
        assert (effect["judged"]["certificates"], effect["judged"]["refused"]) == (2, 1)
        assert list(effect["judged"]["codes"]) == ["sni_unknown"]
    assert org.operator.get(SETTINGS).ok()["customDomains"]["domains"] == ["iot.acme.org"]
    org.operator.put(SETTINGS, {"customDomains": {"enabled": True, "domains": []}}).ok()
    assert org.connect(DEVICE, LINE, serverName=OWN) == "deny"
    assert org.connect(other, clientId="d:mtxpd0:thermo:43") == "allow"


def test_a_change_that_is_refused_is_refused_as_a_dry_run(org: Org) -> None:
    answer = org.operator.put(f"{SETTINGS}?dryrun=true", {"customDomains": {"enabled": True, "domains": ["no domain"]}})
    assert (answer.status, answer.code) == (422, "policy_invalid")


def test_type_certificates_that_are_switched_on(org: Org) -> None:
    org.add_ca(ROOT)
    typed = certs.leaf("d:thermo:", ROOT)
    assert org.connect(typed) == "deny"
    effect = org.operator.put(f"{SETTINGS}?dryrun=true", {"typeCertificates": True}).ok()
    assert (effect["hosts"], effect["judged"]["admitted"]) == ([], 1)
    org.operator.put(SETTINGS, {"typeCertificates": True}).ok()
    assert org.connect(typed) == "allow"


def test_a_policy_is_judged_on_certificates_that_name_no_device(org: Org) -> None:
    """The sample of identities does not have such clients; their certificates were seen."""
    org.add_ca(ROOT)
    token = {"default": "TLS with Token Authentication", "unnamedCertificates": "token"}
    org.operator.put(POLICY, token).ok()
    assert org.connect(UNNAMED) == "continue"
    report = org.operator.post(f"{POLICY}/dryrun", token | {"unnamedCertificates": "deny"}).ok()
    assert (report["judged"]["refused"], report["judged"]["codes"]) == (1, {"identity_missing": 1})
    assert org.operator.post(f"{POLICY}/dryrun", token).ok()["judged"]["refused"] == 0
    org.operator.put(POLICY, token | {"unnamedCertificates": "deny"}).ok()
    assert org.connect(UNNAMED) == "deny"


def test_a_ca_that_would_be_registered(org: Org) -> None:
    """The client that was asked about has its own verdict; others that are refused for the same cause are counted."""
    others = [certs.leaf(f"d:thermo:{number}", LINE) for number in range(3)]
    for number, device in enumerate(others):
        assert org.connect(device, clientId=f"d:mtxpd0:thermo:{number}") == "deny"
    wrong = certs.leaf("d:thermo:9", LINE)
    assert org.connect(wrong, clientId="d:mtxpd0:thermo:10") == "deny"
    asked = f"{PREVIEW}?effect=true&client={others[0].fingerprint}"
    judged = org.operator.post(asked, {"certificate": LINE.pem}).ok()["judged"]
    assert (judged["certificates"], judged["admitted"], judged["client"]["decision"]) == (4, 3, "allow")
    root_alone = org.operator.post(asked, {"certificate": ROOT.pem}).ok()["judged"]  # the devices send no intermediate
    assert (root_alone["admitted"], root_alone["client"]["code"]) == (0, "untrusted_issuer")
    mistaken = org.operator.post(f"{PREVIEW}?effect=true&client={wrong.fingerprint}", {"certificate": LINE.pem}).ok()
    assert mistaken["judged"]["client"]["code"] == "identity_mismatch"
    assert "judged" not in org.operator.post(PREVIEW, {"certificate": LINE.pem}).ok()
    assert "judged" not in org.operator.post(asked, {"certificate": DEVICE.pem}).ok()  # not accepted as a CA
    assert org.operator.get(CAS).ok()["results"] == []
    org.add_ca(LINE)
    assert org.connect(others[0], clientId="d:mtxpd0:thermo:0") == "allow"


def denials(org: Org, ca_id: str) -> dict[str, dict[str, Any]]:
    """Return the body of an entry of each kind that refuses DEVICE."""
    return {
        "certificate": {"certificate": DEVICE.pem},
        "device": {"kind": "identity", "value": "d:thermo:42"},
        "serial": {"kind": "serial", "value": f"{ca_id}:{LINE.cert.serial_number:x}"},
        "key": {"kind": "key", "certificate": LINE.pem},
        "registered CA": {"kind": "fingerprint", "value": ROOT.fingerprint},
    }


@pytest.mark.parametrize("kind", ["certificate", "device", "serial", "key", "registered CA"])
def test_an_entry_that_would_be_taken_off_the_deny_list(org: Org, kind: str) -> None:
    ca_id = org.add_ca(ROOT)
    assert org.connect(DEVICE, LINE) == "allow"
    entry = org.operator.post(DENIALS, denials(org, ca_id)[kind]).ok(201)["id"]
    assert org.connect(DEVICE, LINE) == "deny"
    judged = org.operator.delete(f"{DENIALS}/{entry}?dryrun=true").ok()["judged"]
    assert (judged["certificates"], judged["admitted"]) == (1, 1)
    assert len(org.operator.get(DENIALS).ok()["results"]) == 1
    org.operator.delete(f"{DENIALS}/{entry}").ok(204)
    assert org.connect(DEVICE, LINE) == "allow"


def test_of_two_entries_for_one_device_the_removal_of_one_changes_nothing(org: Org) -> None:
    ca_id = org.add_ca(ROOT)
    assert org.connect(DEVICE, LINE) == "allow"
    first, _ = (org.operator.post(DENIALS, denials(org, ca_id)[kind]).ok(201)["id"] for kind in ("serial", "key"))
    assert org.operator.delete(f"{DENIALS}/{first}?dryrun=true").ok()["judged"]["admitted"] == 0


@pytest.mark.parametrize("kind", ["certificate", "device", "serial", "key", "registered CA"])
def test_an_entry_that_would_be_added_to_the_deny_list(org: Org, kind: str) -> None:
    """Nothing is stored. With the entry, it is so; after that, the same entry again changes nothing."""
    body = denials(org, org.add_ca(ROOT))[kind]
    other = certs.leaf("d:thermo:43", OTHER_LINE)
    org.add_ca(OTHER_LINE)
    assert org.connect(DEVICE, LINE) == "allow"
    assert org.connect(other, clientId="d:mtxpd0:thermo:43") == "allow"
    path = f"{DENIALS}?dryrun=true&client={DEVICE.fingerprint}"
    judged = org.operator.post(path, body).ok(200)["judged"]
    assert (judged["certificates"], judged["refused"], judged["codes"]) == (2, 1, {"certificate_revoked": 1})
    assert org.operator.get(DENIALS).ok()["results"] == []
    assert org.connect(DEVICE, LINE) == "allow"
    org.operator.post(DENIALS, body).ok(201)
    assert org.verify(DEVICE, LINE)["code"] == judged["client"]["code"]
    assert org.connect(other, clientId="d:mtxpd0:thermo:43") == "allow"
    assert org.operator.post(path, body).ok(200)["judged"]["refused"] == 0


def test_an_entry_that_would_be_refused(org: Org, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dry run refuses it, too: a value that cannot be read, an unknown CA, one entry more than there may be."""
    monkeypatch.setattr(documents, "DENIALS_MAX", 1)
    org.operator.post(DENIALS, {"kind": "identity", "value": "d:thermo:1"}).ok(201)
    for kind, value, code in (
        ("identity", "thermo", "denial_invalid"),
        ("serial", f"{'0' * 16}-{'0' * 32}:1", "not_found"),
        ("identity", "d:thermo:2", "too_many_denials"),
    ):
        for path in (f"{DENIALS}?dryrun=true", DENIALS):
            assert org.operator.post(path, {"kind": kind, "value": value}).code == code
    org.operator.post(f"{DENIALS}?dryrun=true", {"kind": "identity", "value": "d:thermo:1"}).ok(200)


def test_a_ca_on_the_deny_list_would_allow_nothing(org: Org) -> None:
    """An entry that means the new CA counts, as for a registered one: by the issuer's key for a serial number."""
    ca_id = org.add_ca(ROOT)
    stranger = certs.ca("Second Line CA", ROOT)
    device = certs.leaf("d:thermo:42", stranger)
    serial = {"kind": "serial", "value": f"{ca_id}:{stranger.cert.serial_number:x}"}
    org.operator.post(DENIALS, serial).ok(201)
    org.connect(device)
    judged = org.operator.post(f"{PREVIEW}?effect=true", {"certificate": stranger.pem}).ok()["judged"]
    assert (judged["certificates"], judged["admitted"]) == (1, 0)


def test_a_self_signed_ca_whose_own_serial_number_is_denied(org: Org) -> None:
    """The issuer of such a CA is the CA itself, which is registered with the change."""
    ca_id = org.add_ca(ROOT)
    serial = {"kind": "serial", "value": f"{ca_id}:{ROOT.cert.serial_number:x}"}
    org.operator.post(DENIALS, serial).ok(201)
    org.operator.delete(f"{CAS}/{ca_id}").ok(204)
    assert org.connect(DEVICE, LINE) == "deny"
    judged = org.preview(ROOT, DEVICE)
    org.add_ca(ROOT)
    assert org.verify(DEVICE, LINE)["code"] == "certificate_revoked"
    assert (judged["admitted"], judged["client"]["code"]) == (0, "certificate_revoked")


def test_an_entry_that_does_not_exist(org: Org) -> None:
    """The dry run is the answer to a change that changes nothing."""
    unknown = org.operator.delete(f"{DENIALS}/f-{'0' * 64}?dryrun=true")
    assert unknown.status == 404


# ---------------------------------------------------------------------------------------- changes without a dry run

CHANGES: Final = [
    route for route in every_route() if route.endpoint.roles == {Role.OPERATOR} and "dryrun" not in route.endpoint.query
]


@pytest.mark.parametrize("route", CHANGES, ids=lambda route: f"{route.method} {route.path}")
def test_a_change_without_a_dry_run_refuses_the_parameter(operator: Client, broker: Client, route: Route) -> None:
    """A dry run that is ignored would be the change."""
    path = "/" + route.path.replace("{id}", "x")
    answer = operator.send(route.method, f"{path}?dryrun=true", b"{}")
    assert (answer.status, answer.code) == (400, "wrong_value")
    assert "no dry run" in answer.text
    assert "no dry run" not in operator.send(route.method, f"{path}?dryrun=false", b"{}").text
    assert broker.send(route.method, f"{path}?dryrun=true", b"{}").code == "forbidden"


def test_a_certificate_request_that_was_meant_as_a_dry_run_is_not_made(operator: Client) -> None:
    before = operator.get(SERVERS).ok()
    assert operator.post(f"{SERVERS}/csr?dryrun=true", {}).status == 400
    assert operator.get(SERVERS).ok() == before


# -------------------------------------------------------------------------------------------- the last connection


def test_the_last_of_several_connections_of_a_day_counts(org: Org) -> None:
    """A device that came by the organization's host in the morning and by a custom domain at noon, and back again."""
    org.add_ca(ROOT)
    org.operator.put(SETTINGS, DOMAINS).ok()
    removal = {"customDomains": {"enabled": True, "domains": []}}

    def promise() -> int:
        refused: int = org.operator.put(f"{SETTINGS}?dryrun=true", removal).ok()["judged"]["refused"]
        return refused

    refused = []
    for host in (org.service.host(), OWN, org.service.host(), OWN):
        org.service.clock.now += timedelta(hours=1)
        assert org.connect(DEVICE, LINE, serverName=host) == "allow"
        refused.append(promise())
    assert refused == [0, 1, 0, 1]
    org.operator.put(SETTINGS, removal).ok()
    assert org.connect(DEVICE, LINE, serverName=OWN) == "deny"


def test_of_the_connections_within_one_batch_the_last_counts(org: Org) -> None:
    org.add_ca(ROOT)
    org.operator.put(SETTINGS, DOMAINS).ok()
    removal = {"customDomains": {"enabled": True, "domains": []}}
    refused = []
    for hosts in ([OWN, org.service.host()], [OWN, org.service.host()], [org.service.host(), OWN]):
        for host in hosts:
            fields = {"serverName": host, "clientId": "d:mtxpd0:thermo:42", "certificate": certs.bundle(DEVICE, LINE)}
            org.broker.post("/authorization/verifyclient", fields).ok()
        org.service.flush()
        refused.append(org.operator.put(f"{SETTINGS}?dryrun=true", removal).ok()["judged"]["refused"])
    assert refused == [0, 0, 1]


def test_a_device_that_sends_another_client_id(org: Org) -> None:
    """The device is refused for its client ID, and then sends the right one: it is an allowed device again."""
    ca_id = org.add_ca(ROOT)
    assert org.connect(DEVICE, LINE) == "allow"
    assert org.connect(DEVICE, LINE, clientId="d:mtxpd0:thermo:43") == "deny"
    path = f"{CAS}/{ca_id}?dryrun=true"
    assert org.operator.delete(path).ok()["judged"]["refused"] == 0
    assert org.connect(DEVICE, LINE) == "allow"
    assert org.operator.delete(path).ok()["judged"]["refused"] == 1


def test_a_device_that_stops_sending_its_intermediate(org: Org) -> None:
    """The registration of the intermediate would help, and the chain of the morning does not hide that."""
    org.add_ca(ROOT)
    assert org.connect(DEVICE, LINE) == "allow"
    assert org.connect(DEVICE) == "deny"
    assert org.preview(LINE, DEVICE)["admitted"] == 1
    org.add_ca(LINE)
    assert org.connect(DEVICE) == "allow"


def test_a_device_that_stops_sending_its_intermediate_within_one_batch(org: Org) -> None:
    """The last connection counts, although an earlier one of the batch reached a CA."""
    org.add_ca(ROOT)
    for sent in ([DEVICE, LINE], [DEVICE]):
        fields = {
            "serverName": org.service.host(),
            "clientId": "d:mtxpd0:thermo:42",
            "certificate": certs.bundle(*sent),
        }
        org.broker.post("/authorization/verifyclient", fields).ok()
    org.service.flush()
    assert org.preview(LINE, DEVICE)["admitted"] == 1


def test_a_device_whose_ca_is_deleted_after_a_day_of_many_changes(org: Org) -> None:
    """Two days later, the device connects with another client ID: the last connection counts."""
    ca_id = org.add_ca(ROOT)
    org.operator.put(SETTINGS, DOMAINS).ok()
    for number in range(30):
        org.service.clock.now += timedelta(minutes=1)
        org.connect(DEVICE, LINE, serverName=(org.service.host(), OWN)[number % 2])
    org.service.clock.now += timedelta(days=2)
    org.operator.delete(f"{CAS}/{ca_id}").ok(204)
    assert org.connect(DEVICE, LINE, clientId="d:mtxpd0:thermo:77") == "deny"
    code = org.preview(ROOT, DEVICE)["client"]["code"]
    org.add_ca(ROOT)
    verdict = org.verify(DEVICE, LINE, clientId="d:mtxpd0:thermo:77")
    assert (verdict["code"], code) == ("identity_mismatch", "identity_mismatch")


# ------------------------------------------------------------------------------- judged as the broker asked about it


def test_a_key_without_sni_is_judged_without_the_server_name(org: Org) -> None:
    """The server name that the broker passes means nothing: the removal of its domain refuses no client."""
    org.add_ca(ROOT)
    org.operator.put(SETTINGS, DOMAINS).ok()
    no_sni = org.service.client("broker", no_sni=True)
    assert org.connect(DEVICE, LINE, broker=no_sni, serverName=OWN) == "allow"
    removal = {"customDomains": {"enabled": True, "domains": []}}
    assert org.operator.put(f"{SETTINGS}?dryrun=true", removal).ok()["judged"]["refused"] == 0
    org.operator.put(SETTINGS, removal).ok()
    assert org.connect(DEVICE, LINE, broker=no_sni, serverName=OWN) == "allow"


@pytest.mark.parametrize(("no_sni", "code"), [(False, "sni_missing"), (True, "allowed")])
def test_the_first_ca_and_a_client_without_a_server_name(org: Org, no_sni: bool, code: str) -> None:
    """From the first CA on, clients must name their server, unless the key of their broker is marked."""
    broker = org.service.client("broker", no_sni=no_sni)
    assert org.connect(DEVICE, LINE, broker=broker, serverName=None) == "deny"
    judged = org.preview(ROOT, DEVICE)
    assert (judged["admitted"], judged["client"]["code"]) == (int(no_sni), code)
    org.add_ca(ROOT)
    assert org.verify(DEVICE, LINE, broker=broker, serverName=None)["code"] == code


def test_the_last_ca_and_a_client_without_a_server_name(org: Org) -> None:
    """Without a CA and a server certificate, clients need not name their server."""
    ca_id = org.add_ca(ROOT)
    assert org.verify(DEVICE, LINE, serverName=None)["code"] == "sni_missing"
    path = f"{CAS}/{ca_id}?dryrun=true&client={DEVICE.fingerprint}"
    code = org.operator.delete(path).ok()["judged"]["client"]["code"]
    org.operator.delete(f"{CAS}/{ca_id}").ok(204)
    assert (org.verify(DEVICE, LINE, serverName=None)["code"], code) == ("no_trusted_ca", "no_trusted_ca")


def test_a_broker_that_passes_no_client_id(org: Org) -> None:
    """Without a client ID, the certificate must name exactly one device: the promise counts that step, too."""
    org.add_ca(ROOT)
    token = {"default": "TLS with Token Authentication", "unnamedCertificates": "token"}
    org.operator.put(POLICY, token).ok()
    assert org.connect(UNNAMED, clientId=None) == "continue"
    stricter = token | {"unnamedCertificates": "deny"}
    judged = org.operator.post(f"{POLICY}/dryrun", stricter).ok()["judged"]
    assert (judged["refused"], judged["codes"]) == (1, {"identity_missing": 1})
    org.operator.put(POLICY, stricter).ok()
    assert org.connect(UNNAMED, clientId=None) == "deny"


def test_a_broker_that_passes_the_certificate_alone(org: Org) -> None:
    """The advice for a chain that is not complete names the broker."""
    headers = {"x-sni": org.service.host(), "x-client-cert": quote(DEVICE.pem), "x-client-id": "d:mtxpd0:thermo:42"}

    def ask() -> Answer:
        answer = org.broker.send("GET", "//verifyClient/nginx", headers=headers)
        org.service.flush()
        return answer

    assert ask().status == 403
    client = org.preview(ROOT, DEVICE)["client"]
    assert "This broker passes the device's own certificate alone" in client["mend"]
    assert org.preview(LINE, DEVICE)["client"]["decision"] == "allow"
    org.add_ca(LINE)
    assert ask().status == 204


def test_emqx_refuses_a_client_without_a_client_id_that_the_verdict_allows(org: Org) -> None:
    """The dry run counts the verdict (docs/decisions/0135), so the client counts as allowed."""
    ca_id = org.add_ca(LINE)
    question = {"cert_pem": DEVICE.pem, "tls": True, "serverName": org.service.host()}
    assert org.broker.post("/verifyClient/emqx", question).ok()["result"] == "deny"
    org.service.flush()
    assert org.operator.delete(f"{CAS}/{ca_id}?dryrun=true").ok()["judged"]["refused"] == 1
    assert org.connect(DEVICE, clientId=None) == "allow"


def test_a_chain_that_is_too_long_to_be_stored_is_not_judged(org: Org) -> None:
    """A part of the chain says nothing about the whole."""
    root = certs.ca("Large Root")
    padding = UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"x" * 20_000)
    line = certs.ca("Large Line", root, more=[(padding, False)])
    device = certs.leaf("d:thermo:42", line)
    ca_id = org.add_ca(root)
    assert org.connect(device, line) == "allow"
    assert org.connect(DEVICE, LINE) == "deny"
    judged = org.operator.delete(f"{CAS}/{ca_id}?dryrun=true&client={device.fingerprint}").ok()["judged"]
    assert (judged["certificates"], "client" in judged) == (1, False)


def test_a_record_of_version_0_1_0_is_judged_with_the_organizations_host_and_without_the_client_id(org: Org) -> None:
    """The record has the certificate alone."""
    org.add_ca(ROOT)
    typed, device = certs.leaf("d:thermo:", ROOT), certs.leaf("d:thermo:7", ROOT)
    old = [
        ShownChain(fingerprint=leaf.fingerprint, kind=ShownKind.STRANGER, at=NOON, chain=(leaf.der,))
        for leaf in (typed, device)
    ]
    ShownCertificates(org.service.app.context.of(get_org(org.service.app.context, org.service.org_id))).add(old)
    assert org.operator.put(f"{SETTINGS}?dryrun=true", {"typeCertificates": True}).ok()["judged"]["admitted"] == 0
    judged = org.operator.post(f"{POLICY}/dryrun", {"default": "TLS with Client Certificate Authentication"}).ok()
    assert (judged["judged"]["certificates"], judged["judged"]["refused"]) == (2, 0)


def test_more_registered_cas_than_one_decision_reads(org: Org) -> None:
    """A verdict refuses a client whose CAs are too much to read, and so does the judge of a dry run."""
    large = [_large_ca(number) for number in range(4)]
    device = certs.leaf("d:thermo:42", large[0])
    for issued in large[:3]:
        org.add_ca(issued)
    before = org.connect(device)
    judged = org.preview(large[3], device)
    org.add_ca(large[3])
    after = org.verify(device)
    assert (before, after["decision"]) == ("allow", "deny")
    assert (judged["refused"], judged["codes"]) == (1, {after["code"]: 1})


def _large_ca(number: int) -> certs.Issued:
    """Return one of several CAs with one name and one key, of about 3,000 DER elements each."""
    sequence = b"\x30\x82\x17\x70" + b"\x05\x00" * 3_000
    padding = UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), sequence)
    return certs.ca("Large", private=certs.key("P-256", 99), serial=number + 1, more=[(padding, False)])
