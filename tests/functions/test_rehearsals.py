"""Dry runs: what a change would do to the clients that were seen. After the change, it is so."""

from typing import Any, Final, NamedTuple

import pytest

from tests.support import certs
from tests.support.harness import Client, Service

CAS: Final = "/authentication/cacertificates"
POLICY: Final = "/authorization/connectionpolicy"
SETTINGS: Final = "/authorization/settings"
DENIALS: Final = "/authorization/denylist"
PREVIEW: Final = "/authentication/preview"
OWN: Final = "mtxpd0.messaging.iot.acme.org"
ROOT = certs.ca("Factory Root")
LINE = certs.ca("Line CA", ROOT)
DEVICE = certs.leaf("d:thermo:42", LINE)
UNNAMED = certs.leaf("something else", ROOT)
DOMAINS: Final = {"customDomains": {"enabled": True, "domains": ["iot.acme.org"]}}


class Org(NamedTuple):
    """An organization whose devices are judged before and after a change."""

    service: Service
    operator: Client
    broker: Client

    def connect(self, *sent: certs.Issued, **fields: str) -> str:
        """Return the decision on a client."""
        body = {"serverName": self.service.host(), "clientId": "d:mtxpd0:thermo:42", "certificate": certs.bundle(*sent)}
        decision: str = self.broker.post("/authorization/verifyclient", body | fields).ok()["decision"]
        self.service.flush()
        return decision

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


def test_of_two_entries_for_one_device_the_removal_of_one_lets_nothing_in(org: Org) -> None:
    ca_id = org.add_ca(ROOT)
    assert org.connect(DEVICE, LINE) == "allow"
    first, _ = (org.operator.post(DENIALS, denials(org, ca_id)[kind]).ok(201)["id"] for kind in ("serial", "key"))
    assert org.operator.delete(f"{DENIALS}/{first}?dryrun=true").ok()["judged"]["admitted"] == 0


def test_a_ca_on_the_deny_list_would_let_nothing_in(org: Org) -> None:
    """An entry that means the new CA counts, as for a registered one: by the issuer's key for a serial number."""
    ca_id = org.add_ca(ROOT)
    stranger = certs.ca("Second Line CA", ROOT)
    device = certs.leaf("d:thermo:42", stranger)
    serial = {"kind": "serial", "value": f"{ca_id}:{stranger.cert.serial_number:x}"}
    org.operator.post(DENIALS, serial).ok(201)
    org.connect(device)
    judged = org.operator.post(f"{PREVIEW}?effect=true", {"certificate": stranger.pem}).ok()["judged"]
    assert (judged["certificates"], judged["admitted"]) == (1, 0)


def test_an_entry_that_does_not_exist(org: Org) -> None:
    """The dry run is the answer to a change that changes nothing."""
    unknown = org.operator.delete(f"{DENIALS}/f-{'0' * 64}?dryrun=true")
    assert unknown.status == 404
