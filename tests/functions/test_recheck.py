"""`POST /edge/v1/recheck`: an edge asks which of its live sessions would be refused now."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from shared.usecases.devices import recheck
from shared.usecases.orgs.deletion import delete_org
from shared.usecases.orgs.organizations import create_org, set_suspended
from shared.x509.cache import read_registered
from shared.x509.certificate import Certificate
from tests.support import certs
from tests.support.certs import NOON, YEAR
from tests.support.harness import Client, Service

PATH = "//edge/v1/recheck"
CAS = "/authentication/cacertificates"
DENY = "/authorization/denylist"
POLICY = "/authorization/connectionpolicy"
SETTINGS = "/authorization/settings"
HOST = "mtxpd0.messaging.example.com"
ROOT = certs.ca("Root")
RENEWED = certs.ca("Root", private=ROOT.key, serial=1234)
INTERMEDIATE = certs.ca("Intermediate", ROOT)
DEVICE = certs.leaf("d:thermo:42", INTERMEDIATE)

Fields = dict[str, Any]


def connect(service: Service, *chain: certs.Issued, client: str = "d:mtxpd0:thermo:42", **fields: Any) -> Fields:
    """Return the session of a client that is allowed, as an edge registers it."""
    question = {"clientId": client, "serverName": HOST, **fields}
    if chain:
        question["certificate"] = certs.bundle(*chain)
    verdict = service.client("broker").post("/verifyClient", question).ok()
    assert verdict["decision"] != "deny", verdict
    identity = verdict["identity"]
    session = {
        "session": client,
        "org": verdict["orgId"],
        "serverName": question["serverName"],
        "identity": ":".join([identity["class"], identity["typeId"], identity["deviceId"]]) if identity else None,
        "ca": verdict["ca"] and verdict["ca"]["id"],
        "keyDigests": verdict.get("keyDigests", []),
        "serialDigests": verdict.get("serialDigests", []),
        "fingerprints": [one[:16] for both in verdict["fingerprintsSha256"] for one in both],
        "basis": verdict["basis"],
    }
    return {name: value for name, value in session.items() if value is not None}


def is_ended(service: Service, session: Fields, **changed: Any) -> bool:
    ended = service.platform("edge").post(PATH, {"sessions": [{**session, **changed}]}).ok()["end"]
    assert ended in ([], [session["session"]])
    return bool(ended)


@pytest.fixture
def root(operator: Client) -> str:
    ca_id: str = operator.post(CAS, {"certificate": ROOT.pem}).ok(201)["id"]
    return ca_id


@pytest.fixture
def session(service: Service, root: str) -> Fields:
    made = connect(service, DEVICE, INTERMEDIATE)
    assert not is_ended(service, made)
    return made


def test_a_session_over_a_denied_key_ends(service: Service, operator: Client, root: str) -> None:
    """Also over an intermediate certificate with the key; sessions over other keys stay."""
    over_both = connect(service, DEVICE, INTERMEDIATE)
    other = connect(
        service, certs.leaf("d:thermo:43", ROOT, private=certs.key("P-256", 55)), client="d:mtxpd0:thermo:43"
    )
    operator.post(DENY, {"kind": "key", "certificate": INTERMEDIATE.pem}).ok(201)
    assert is_ended(service, over_both)
    assert not is_ended(service, other)
    assert is_ended(service, other, keyDigests=other["keyDigests"][:-1], complete=False), "in doubt"


def test_a_session_over_a_certificate_without_a_name_ends_when_it_needs_a_name(
    service: Service, operator: Client, root: str
) -> None:
    unnamed = {"unnamedCertificates": "token"}
    both = "TLS with Token and Client Certificate Authentication"
    operator.put(POLICY, {"default": both, **unnamed}).ok()
    session = connect(service, certs.leaf("pump", ROOT))
    assert not is_ended(service, session)
    operator.put(POLICY, {"default": "TLS with Client Certificate Authentication", **unnamed}).ok()
    assert is_ended(service, session)
    operator.put(POLICY, {"default": both}).ok()
    assert is_ended(service, session)


def test_a_session_over_an_inactive_or_deleted_ca_ends(
    service: Service, operator: Client, root: str, session: Fields
) -> None:
    operator.put(f"{CAS}/{root}", {"status": "inactive"}).ok()
    assert is_ended(service, session)
    operator.put(f"{CAS}/{root}", {"status": "active"}).ok()
    assert not is_ended(service, session), "a device that is allowed again stays"
    operator.delete(f"{CAS}/{root}").ok(204)
    assert is_ended(service, session)


def test_a_session_stays_while_another_active_ca_has_the_name_and_key(
    service: Service, operator: Client, root: str, session: Fields
) -> None:
    renewed = operator.post(CAS, {"certificate": RENEWED.pem}).ok(201)["id"]
    operator.delete(f"{CAS}/{root}").ok(204)
    assert not is_ended(service, session)
    operator.put(f"{CAS}/{renewed}", {"status": "inactive"}).ok()
    assert is_ended(service, session)


def test_an_expired_ca_replaces_none(service: Service, operator: Client, root: str, session: Fields) -> None:
    service.clock.now = NOON - YEAR / 2
    short = certs.ca("Root", private=ROOT.key, serial=77, not_before=NOON - YEAR, not_after=NOON)
    operator.post(CAS, {"certificate": short.pem}).ok(201)
    service.clock.now = NOON
    operator.put(f"{CAS}/{root}", {"status": "inactive"}).ok()
    assert not is_ended(service, session)
    service.clock.now = NOON + YEAR / 4
    assert is_ended(service, session)


def test_a_session_over_an_inactive_intermediate_ends(service: Service, operator: Client, session: Fields) -> None:
    """Registered in another certificate than the device's: what counts is subject and key."""
    other_root = certs.ca("Other")
    cross = certs.ca("Intermediate", other_root, private=INTERMEDIATE.key)
    crossed = operator.post(CAS, {"certificate": cross.pem}).ok(201)["id"]
    assert not is_ended(service, session)
    operator.put(f"{CAS}/{crossed}", {"status": "inactive"}).ok()
    assert is_ended(service, session)


@pytest.mark.parametrize("why", ["expired", "denied"])
def test_a_session_over_another_certificate_of_an_expired_or_denied_intermediate_stays(
    service: Service, operator: Client, root: str, session: Fields, why: str
) -> None:
    """Its device is allowed, so an end of the session would be repeated after each withdrawal."""
    old = certs.ca("Intermediate", ROOT, private=INTERMEDIATE.key, serial=77, not_after=NOON + YEAR / 8)
    operator.post(CAS, {"certificate": old.pem}).ok(201)
    if why == "denied":
        operator.post(DENY, {"certificate": old.pem}).ok(201)
    else:
        service.clock.now = NOON + YEAR / 4
    renewed = connect(service, DEVICE, INTERMEDIATE)
    assert not is_ended(service, renewed)


@pytest.mark.parametrize("what", ["leaf", "intermediate", "identity", "serial", "serial of the intermediate", "root"])
def test_a_denied_session_ends_and_another_stays(
    service: Service, operator: Client, root: str, session: Fields, what: str
) -> None:
    other = connect(service, certs.leaf("d:thermo:7", ROOT), client="d:mtxpd0:thermo:7")
    registered = operator.post(CAS, {"certificate": INTERMEDIATE.pem}).ok(201)["id"]
    denial = {
        "leaf": {"certificate": DEVICE.pem},
        "intermediate": {"certificate": INTERMEDIATE.pem},
        "identity": {"kind": "identity", "value": "d:thermo:42"},
        "serial": {"kind": "serial", "value": f"{registered}:{DEVICE.certificate.serial_number:x}"},
        "serial of the intermediate": {
            "kind": "serial",
            "value": f"{root}:{INTERMEDIATE.certificate.serial_number:x}",
        },
        "root": {"certificate": ROOT.pem},
    }[what]
    entry = operator.post(DENY, denial).ok(201)["id"]
    assert is_ended(service, session)
    assert is_ended(service, other) is (what == "root")
    operator.delete(f"{DENY}/{entry}").ok(204)
    assert not is_ended(service, session)


def test_the_serial_number_of_another_issuer_ends_no_session(
    service: Service, operator: Client, session: Fields
) -> None:
    """Fleets repeat serial numbers: the issuer's key counts."""
    other = operator.post(CAS, {"certificate": certs.ca("Other").pem}).ok(201)["id"]
    operator.post(DENY, {"kind": "serial", "value": f"{other}:{DEVICE.certificate.serial_number:x}"}).ok(201)
    assert not is_ended(service, session)


def test_a_certificate_that_was_only_sent_is_not_on_the_path(service: Service, operator: Client, root: str) -> None:
    unrelated = certs.ca("Unrelated")
    session = connect(service, DEVICE, INTERMEDIATE, unrelated)
    assert [len(session["keyDigests"]), len(session["serialDigests"])] == [3, 3]
    other = operator.post(CAS, {"certificate": unrelated.pem}).ok(201)["id"]
    operator.put(f"{CAS}/{other}", {"status": "inactive"}).ok()
    assert not is_ended(service, session)


def test_the_organization_and_its_hosts(service: Service, operator: Client, root: str) -> None:
    custom = "mtxpd0.messaging.iot.acme.org"
    operator.put(SETTINGS, {"customDomains": {"enabled": True, "domains": ["iot.acme.org"]}}).ok()
    own, other = connect(service, DEVICE, INTERMEDIATE), connect(service, DEVICE, INTERMEDIATE, serverName=custom)
    assert not is_ended(service, other)
    operator.put(SETTINGS, {"customDomains": {"enabled": False, "domains": []}}).ok()
    assert is_ended(service, other)
    assert not is_ended(service, own)
    assert not is_ended(service, {name: value for name, value in own.items() if name != "serverName"})
    create_org(service.app.context, "other1")
    assert is_ended(service, own, serverName=service.host("other1"))
    set_suspended(service.app.context, "mtxpd0", True)
    assert is_ended(service, own)
    delete_org(service.app.context, "mtxpd0")
    assert is_ended(service, own)


def test_a_session_by_a_type_certificate_ends_when_they_are_switched_off(
    service: Service, operator: Client, root: str
) -> None:
    operator.put(SETTINGS, {"typeCertificates": True}).ok()
    by_type = connect(service, certs.leaf("d:thermo:", ROOT))
    by_name = connect(service, certs.leaf("d:thermo:42", ROOT))
    assert not is_ended(service, by_type)
    operator.put(SETTINGS, {"typeCertificates": False}).ok()
    assert is_ended(service, by_type)
    assert not is_ended(service, by_name)


@pytest.mark.parametrize(
    ("before", "after", "with_certificate", "without"),
    [
        ("TLS Optional", "TLS with Client Certificate Authentication", False, True),
        ("TLS with Client Certificate or Token", "TLS with Client Certificate Authentication", False, True),
        ("TLS Optional", "TLS with Token and Client Certificate Authentication", True, True),
        ("TLS with Token Authentication", "TLS with Token and Client Certificate Authentication", False, True),
        ("TLS Optional", "TLS with Token Authentication", True, False),
        ("TLS with Token Authentication", "TLS Optional", False, False),
    ],
)
def test_a_stricter_policy_ends_what_it_would_refuse(
    service: Service, operator: Client, root: str, before: str, after: str, with_certificate: bool, without: bool
) -> None:
    """A session that the broker never asked for a token ends where a token is needed now."""
    operator.put(POLICY, {"default": before, "rules": []}).ok()
    sessions = connect(service, DEVICE, INTERMEDIATE), connect(service)
    operator.put(POLICY, {"default": after, "rules": []}).ok()
    assert [is_ended(service, session) for session in sessions] == [with_certificate, without]


def test_an_application_needs_no_certificate(service: Service, operator: Client, root: str) -> None:
    assert not is_ended(service, connect(service, client="a:mtxpd0:app"))


def test_a_session_without_digests_is_judged_by_its_ca_and_ends_in_doubt(
    service: Service, operator: Client, root: str, session: Fields
) -> None:
    """A callout of the version before registers no digests."""
    bare = {name: value for name, value in session.items() if name not in ("keyDigests", "serialDigests", "basis")}
    assert not is_ended(service, bare, complete=False)
    operator.post(DENY, {"kind": "identity", "value": "d:thermo:13"}).ok(201)
    assert not is_ended(service, bare, complete=False)
    operator.post(DENY, {"kind": "serial", "value": f"{root}:1"}).ok(201)
    assert is_ended(service, bare, complete=False), "the path may have a certificate with that number"
    assert not is_ended(service, session)
    operator.put(f"{CAS}/{root}", {"status": "inactive"}).ok()
    assert is_ended(service, bare, complete=False)
    assert is_ended(service, bare, complete=False, ca="0" * 16 + "-" + "0" * 32)


def test_many_sessions_take_a_few_reads(service: Service, session: Fields) -> None:
    edge = service.platform("edge")
    before = service.store.calls.total()
    sessions = [{**session, "session": str(number)} for number in range(500)]
    assert edge.post(PATH, {"sessions": sessions}).ok()["end"] == []
    assert service.store.calls.total() - before == 4, "key before the body; key and organization; CAs; deny list"
    assert edge.post(PATH, {"sessions": [*sessions, session]}).status == 400


@pytest.mark.parametrize(("cas", "seconds"), [(20, 0.1), (2, 1.0)])
def test_an_organization_that_takes_long_to_read_ends_no_session_of_another(
    service: Service,
    operator: Client,
    root: str,
    session: Fields,
    monkeypatch: pytest.MonkeyPatch,
    cas: int,
    seconds: float,
) -> None:
    """Neither many CAs nor costly ones. The sessions of that organization end: they could not be judged."""
    for name in ("One", "Two", "Three"):
        operator.post(CAS, {"certificate": certs.ca(name).pem}).ok(201)
    create_org(service.app.context, "aaaaaa")  # first in the order of ids
    costly = [certs.ca(f"Costly {number}") for number in range(cas)]
    neighbour = service.client("operator", org_id="aaaaaa")
    for ca in costly:
        neighbour.post(CAS, {"certificate": ca.pem}).ok(201)
    now = 0.0

    def read_slowly(encoded: bytes) -> Certificate:
        nonlocal now
        now += seconds if any(ca.der == encoded for ca in costly) else 0
        return read_registered(encoded)

    monkeypatch.setattr(recheck, "read_registered", read_slowly)
    monkeypatch.setattr(recheck, "time", SimpleNamespace(monotonic=lambda: now))
    other = {**session, "session": "other", "org": "aaaaaa", "serverName": service.host("aaaaaa")}
    for sessions in ([other, session], [session, other]):
        now = 0.0
        assert service.platform("edge").post(PATH, {"sessions": sessions}).ok()["end"] == ["other"]
        assert now < 2, "the edge waits 2 s"


def test_a_session_of_no_organization_ends(service: Service, session: Fields) -> None:
    assert is_ended(service, session, org="../org/x")


def test_an_edge_asks_about_its_own_organizations(service: Service, session: Fields) -> None:
    service.other_org("other1")
    edge = service.platform("edge", orgs=["other1"])
    assert edge.post(PATH, {"sessions": [session]}).ok()["end"] == [session["session"]]
    assert service.client("edge").post(PATH, {"sessions": [session]}).ok()["end"] == []


@pytest.mark.parametrize("role", ["viewer", "operator", "broker"])
def test_other_roles_are_refused(service: Service, role: str) -> None:
    assert service.client(role).post(PATH, {"sessions": []}).status == 403


def test_plain_http_from_another_machine_is_refused(service: Service) -> None:
    edge = replace(service.platform("edge"), scheme="http")
    assert edge.post(PATH, {"sessions": []}).code == "insecure_transport"
