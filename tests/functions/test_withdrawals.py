"""Withdrawals over HTTP: the sessions that edges and the operator's broker must end."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from msgspec import structs

from shared.errors import StoreUnavailable
from shared.ports import Key
from shared.usecases.edges import withdrawals
from shared.usecases.orgs.deletion import delete_org
from shared.usecases.orgs.organizations import create_org, set_suspended
from shared.x509.digests import serial_digest
from tests.support import certs
from tests.support.certs import DAY, NOON
from tests.support.harness import Answer, Client, Service
from tests.support.malleable import twin
from tests.support.notifier import RecordingNotifier

PATH = "//edge/v1/withdrawals"
CAS = "/authentication/cacertificates"
DENY = "/authorization/denylist"
ROOT = certs.ca("Root")


@dataclass
class Edge:
    """An edge that reads the feed of withdrawals."""

    client: Client
    head: str = ""
    name: str = "hall-2"

    def read(self) -> list[dict[str, str]]:
        """Read pages until the last one. Return the withdrawals."""
        withdrawn = []
        while True:
            page = self.client.get(PATH, query={"since": self.head, "edge": self.name}).ok()
            self.head = page["head"]
            assert page["missed"] is False
            withdrawn += page["withdrawals"]
            if not page["more"]:
                return withdrawn

    def follow(self) -> list[tuple[str, str, str]]:
        """Return organization, kind and value of each withdrawal."""
        return [(line["org"], line["kind"], line["value"]) for line in self.read()]


@pytest.fixture
def edge(service: Service) -> Edge:
    made = Edge(service.platform("edge"))
    assert made.follow() == [], "an edge that starts has no session to end"
    return made


@pytest.fixture
def ca(operator: Client) -> str:
    ca_id: str = operator.post(CAS, {"certificate": ROOT.pem}).ok(201)["id"]
    return ca_id


def test_deactivating_a_ca_withdraws_it_before_the_answer(operator: Client, edge: Edge, ca: str) -> None:
    operator.put(f"{CAS}/{ca}", {"status": "inactive"}).ok()
    assert edge.follow() == [("mtxpd0", "ca", ca)]
    assert edge.follow() == []
    operator.put(f"{CAS}/{ca}", {"comments": "still off"}).ok()
    operator.put(f"{CAS}/{ca}", {"status": "active"}).ok()
    assert edge.follow() == [], "neither a comment nor an activation withdraws anything"


def renew(*, serial: int = 77, **more: Any) -> certs.Issued:
    """Return another certificate with the name and key of ROOT."""
    return certs.ca("Root", private=ROOT.key, serial=serial, **more)


def test_a_withdrawal_carries_what_decisions_compare(operator: Client, edge: Edge, ca: str) -> None:
    """A digest of a CA's subject and key, and of an issuer's key and a serial number; and an id of each line."""
    operator.post(DENY, {"kind": "serial", "value": f"{ca}:00AB"}).ok(201)
    operator.put(f"{CAS}/{ca}", {"status": "inactive"}).ok()
    serial, inactive = edge.read()
    assert serial["serialDigest"] == serial_digest(ROOT.certificate.key_hash, 0xAB)
    assert inactive["keyDigest"] == ROOT.certificate.key_digest == renew().certificate.key_digest
    assert "keyDigest" not in serial
    assert "serialDigest" not in inactive
    assert len({serial["id"], inactive["id"]}) == 2


@pytest.mark.parametrize("change", ["deactivate", "delete"])
def test_a_ca_with_an_active_replacement_of_its_name_and_key_is_not_withdrawn(
    operator: Client, edge: Edge, ca: str, change: str
) -> None:
    """A CA was renewed with its key: its devices stay, in whichever order the certificates go."""
    renewed = operator.post(CAS, {"certificate": renew().pem}).ok(201)["id"]

    def remove(ca_id: str) -> None:
        if change == "delete":
            operator.delete(f"{CAS}/{ca_id}").ok(204)
        else:
            operator.put(f"{CAS}/{ca_id}", {"status": "inactive"}).ok()

    remove(ca)
    assert edge.follow() == []
    remove(renewed)
    assert edge.follow() == [("mtxpd0", "ca", renewed)]


@pytest.mark.parametrize("why", ["inactive", "denied", "expired", "another key"])
def test_a_replacement_that_lets_nobody_in_does_not_count(
    service: Service, operator: Client, edge: Edge, ca: str, why: str
) -> None:
    service.clock.now = NOON - DAY
    other = certs.ca("Root", private=certs.key("P-256", 9)) if why == "another key" else renew(not_after=NOON)
    added = operator.post(CAS, {"certificate": other.pem}).ok(201)["id"]
    service.clock.now = NOON + DAY if why == "expired" else NOON - DAY
    if why == "inactive":
        operator.put(f"{CAS}/{added}", {"status": "inactive"}).ok()
    elif why == "denied":
        operator.post(DENY, {"certificate": other.pem}).ok(201)
    edge.follow()
    operator.put(f"{CAS}/{ca}", {"status": "inactive"}).ok()
    assert edge.follow() == [("mtxpd0", "ca", ca)]


def test_denying_a_registered_intermediate_withdraws_the_sessions_over_it(
    operator: Client, edge: Edge, ca: str
) -> None:
    """By its serial number or its fingerprint; a device often does not send its CA."""
    for number, kind in enumerate(("serial", "fingerprint")):
        intermediate = certs.ca(f"Intermediate {number}", ROOT)
        added = operator.post(CAS, {"certificate": intermediate.pem}).ok(201)["id"]
        serial = f"{ca}:{intermediate.certificate.serial_number:x}"
        value = serial if kind == "serial" else intermediate.fingerprint
        operator.post(DENY, {"kind": kind, "value": value}).ok(201)
        denied, marked = edge.read()
        assert (denied["kind"], denied["value"]) == (kind, value)
        assert (marked["kind"], marked["value"]) == ("ca", added)
        assert marked["keyDigest"] == intermediate.certificate.key_digest


def test_settings_that_are_switched_off_have_the_sessions_judged_again(operator: Client, edge: Edge) -> None:
    settings = "/authorization/settings"
    again = [("mtxpd0", "recheck", "settings")]
    domains = {"customDomains": {"enabled": True, "domains": ["a.acme.org", "b.acme.org"]}}
    operator.put(settings, {"typeCertificates": True, **domains}).ok()
    assert edge.follow() == []
    operator.put(settings, {"typeCertificates": False}).ok()
    assert edge.follow() == again
    operator.put(settings, {"customDomains": {"enabled": True, "domains": ["b.acme.org"]}}).ok()
    assert edge.follow() == again
    operator.put(settings, {"customDomains": {"enabled": False, "domains": ["b.acme.org"]}}).ok()
    assert edge.follow() == again
    operator.put(settings, {"customDomains": {"enabled": False, "domains": []}}).ok()
    assert edge.follow() == [], "a listed domain was switched off already"


def test_a_stricter_policy_has_the_sessions_judged_again(operator: Client, edge: Edge) -> None:
    policy = "/authorization/connectionpolicy"
    optional, both = "TLS Optional", "TLS with Token and Client Certificate Authentication"
    certificate, token = "TLS with Client Certificate Authentication", "TLS with Token Authentication"
    steps: list[tuple[str, dict[str, str], bool]] = [
        (optional, {}, False),
        (optional, {"pump": certificate}, True),
        (optional, {"pump": certificate, "fan": optional}, False),
        (certificate, {}, True),
        (token, {}, True),
        (both, {}, True),
        (certificate, {}, False),
        (optional, {}, False),
    ]
    for default, rules, is_stricter in steps:
        fields = [{"deviceType": device_type, "level": level} for device_type, level in rules.items()]
        operator.put(policy, {"default": default, "rules": fields}).ok()
        assert edge.follow() == ([("mtxpd0", "recheck", "policy")] if is_stricter else []), (default, rules)


def test_an_agent_of_the_version_before_gets_no_kind_that_it_does_not_know(
    service: Service, operator: Client, edge: Edge
) -> None:
    """It gives no name, and ends all sessions of an organization for an unknown kind. It misses nothing else."""
    before = Edge(service.platform("edge"), name="")
    before.follow()
    operator.put("/authorization/settings", {"typeCertificates": True}).ok()
    operator.put("/authorization/settings", {"typeCertificates": False}).ok()
    operator.post(DENY, {"kind": "identity", "value": "d:thermo:42"}).ok(201)
    assert before.follow() == [("mtxpd0", "identity", "d:thermo:42")]
    assert before.follow() == []
    assert [kind for _, kind, _ in edge.follow()] == ["recheck", "identity"]


def test_a_head_names_a_line_by_its_id(service: Service, operator: Client, edge: Edge) -> None:
    """A store of another history has another line of that number: every session must be looked at."""
    operator.post(DENY, {"kind": "identity", "value": "d:thermo:1"}).ok(201)
    [line] = edge.read()
    assert edge.head == f"1.{line['id']}"
    other = f"1.{'0' * 12}"
    page = edge.client.get(PATH, query={"since": other}).ok()
    assert (page["missed"], page["withdrawals"], page["head"]) == (True, [], edge.head)


def test_a_head_of_the_version_before_goes_on_where_its_line_exists(
    service: Service, operator: Client, edge: Edge
) -> None:
    for number in (1, 2):
        operator.post(DENY, {"kind": "identity", "value": f"d:thermo:{number}"}).ok(201)
    before = Edge(edge.client, head="1", name="")
    assert before.follow() == [("mtxpd0", "identity", "d:thermo:2")]
    edge.follow()
    assert before.head == edge.head
    assert edge.client.get(PATH, query={"since": "3"}).ok()["missed"]


def test_deleting_a_ca_withdraws_it(operator: Client, edge: Edge, ca: str) -> None:
    operator.delete(f"{CAS}/{ca}").ok(204)
    assert edge.follow() == [("mtxpd0", "ca", ca)]


@pytest.mark.parametrize("change", ["deactivate", "delete", "deny"])
def test_a_device_is_refused_before_its_session_ends(service: Service, operator: Client, ca: str, change: str) -> None:
    """A device that reconnects as soon as its session ends is not admitted by the CA that is withdrawn."""
    broker, pass_on = service.client("broker"), service.store.between
    question = {
        "serverName": service.host(),
        "clientId": "d:mtxpd0:thermo:42",
        "certificate": certs.leaf("d:thermo:42", ROOT).pem,
    }
    changes: dict[str, Callable[[], Answer]] = {
        "deactivate": lambda: operator.put(f"{CAS}/{ca}", {"status": "inactive"}),
        "delete": lambda: operator.delete(f"{CAS}/{ca}"),
        "deny": lambda: operator.post(DENY, {"certificate": ROOT.pem}),
    }
    decisions = []

    def ask_before_the_withdrawal(name: str, key: Key | None, call: Callable[[], Any]) -> Any:
        if name == "put" and key is not None and key.partition == "feed/withdrawals":
            service.store.between = pass_on
            decisions.append(broker.post("/authorization/verifyclient", question).ok()["decision"])
        return call()

    assert broker.post("/authorization/verifyclient", question).ok()["decision"] == "allow"
    service.store.between = ask_before_the_withdrawal
    assert changes[change]().status < 300
    assert decisions == ["deny"]


@pytest.mark.parametrize(
    ("body", "kind", "value"),
    [
        ({"kind": "identity", "value": "d:thermo:42"}, "identity", "d:thermo:42"),
        ({"kind": "fingerprint", "value": ROOT.fingerprint.upper()}, "fingerprint", ROOT.fingerprint),
        ({"certificate": ROOT.pem}, "fingerprint", ROOT.fingerprint),
    ],
    ids=["identity", "fingerprint", "certificate"],
)
def test_a_denial_withdraws_what_the_deny_list_names(
    operator: Client, edge: Edge, body: dict[str, str], kind: str, value: str
) -> None:
    operator.post(DENY, body).ok(201)
    assert edge.follow() == [("mtxpd0", kind, value)]


def test_denying_a_registered_ca_by_its_other_fingerprint_withdraws_its_id(
    operator: Client, edge: Edge, ca: str
) -> None:
    """Devices do not send the CA certificate: an edge knows the CA of a session by the CA's id."""
    operator.post(DENY, {"certificate": twin(ROOT).pem}).ok(201)
    assert edge.follow() == [("mtxpd0", "fingerprint", twin(ROOT).fingerprint), ("mtxpd0", "ca", ca)]


def test_denying_a_serial_withdraws_the_serial_with_its_ca(operator: Client, edge: Edge, ca: str) -> None:
    operator.post(DENY, {"kind": "serial", "value": f"{ca}:00AB"}).ok(201)
    assert edge.follow() == [("mtxpd0", "serial", f"{ca}:ab")]


def test_an_old_entry_that_is_denied_again_withdraws_nothing(operator: Client, edge: Edge) -> None:
    for status in (201, 200):
        operator.post(DENY, {"kind": "identity", "value": "d:thermo:42"}).ok(status)
    assert edge.follow() == [("mtxpd0", "identity", "d:thermo:42")]


def test_lifting_a_denial_withdraws_nothing(operator: Client, edge: Edge) -> None:
    entry = operator.post(DENY, {"kind": "identity", "value": "d:thermo:42"}).ok(201)["id"]
    edge.follow()
    operator.delete(f"{DENY}/{entry}").ok(204)
    assert edge.follow() == []


def test_suspending_and_deleting_an_org_withdraw_it(service: Service, edge: Edge) -> None:
    set_suspended(service.app.context, "mtxpd0", True)
    assert edge.follow() == [("mtxpd0", "org", "mtxpd0")]
    set_suspended(service.app.context, "mtxpd0", False)
    assert edge.follow() == []
    delete_org(service.app.context, "mtxpd0")
    assert edge.follow() == [("mtxpd0", "org", "mtxpd0")]


def test_the_edge_of_a_suspended_org_gets_the_withdrawal(service: Service) -> None:
    """The keys of a suspended organization are refused elsewhere; this edge must learn that its sessions end."""
    edge = Edge(service.client("edge"))
    edge.follow()
    set_suspended(service.app.context, "mtxpd0", True)
    assert edge.follow() == [("mtxpd0", "org", "mtxpd0")]


def test_an_edge_gets_the_withdrawals_of_its_own_orgs_only(service: Service) -> None:
    for org_id in ("other1", "other2"):
        service.other_org(org_id)
    own, some = Edge(service.client("edge")), Edge(service.platform("edge", orgs=["mtxpd0", "other2"]))
    own.follow(), some.follow()
    for org_id in ("other1", "other2", "mtxpd0"):
        set_suspended(service.app.context, org_id, True)
    assert [org for org, _, _ in own.follow()] == ["mtxpd0"]
    assert [org for org, _, _ in some.follow()] == ["other2", "mtxpd0"]


def test_many_withdrawals_come_in_pages(service: Service, edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withdrawals, "PAGE", 3)
    names = [f"o{number:05}" for number in range(8)]
    for name in names:
        create_org(service.app.context, name)
        set_suspended(service.app.context, name, True)
    first = edge.client.get(PATH, query={"since": edge.head}).ok()
    assert (len(first["withdrawals"]), first["more"]) == (3, True)
    assert [org for org, _, _ in edge.follow()] == names


def test_an_edge_too_far_behind_must_end_every_session(service: Service, edge: Edge) -> None:
    """`missed` is true if the feed does not have the edge's cursor any more, or does not have it yet."""
    for _ in range(3):
        set_suspended(service.app.context, "mtxpd0", True)
        set_suspended(service.app.context, "mtxpd0", False)
    old = edge.head
    edge.follow()
    service.app.context.withdrawals.trim(int(edge.head.partition(".")[0]))
    assert edge.follow() == [], "an edge that followed has missed nothing"
    page = edge.client.get(PATH, query={"since": "1"}).ok()
    assert (page["missed"], page["withdrawals"], page["head"]) == (True, [], edge.head)
    assert old == "0"
    assert edge.client.get(PATH, query={"since": "99"}).ok()["missed"], "a head of another store"


@pytest.mark.parametrize(
    "cut_short",
    [
        lambda operator, service, ca: operator.delete(f"{CAS}/{ca}").status,
        lambda operator, service, ca: operator.put(f"{CAS}/{ca}", {"status": "inactive"}).status,
        lambda operator, service, ca: operator.post(DENY, {"kind": "identity", "value": "d:thermo:42"}).status,
    ],
    ids=["deleteCA", "deactivateCA", "deny"],
)
def test_a_repeated_call_withdraws_what_an_interrupted_call_did_not(
    service: Service,
    operator: Client,
    edge: Edge,
    ca: str,
    cut_short: Callable[[Client, Service, str], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call that is answered with 503 is safe to repeat."""
    with monkeypatch.context() as broken:
        broken.setattr(service.app.context.withdrawals, "append", _unavailable)
        assert cut_short(operator, service, ca) == 503
    assert edge.follow() == []
    assert cut_short(operator, service, ca) in (200, 201, 204)
    assert len(edge.follow()) == 1


def test_an_interrupted_deletion_of_an_org_can_be_repeated(
    service: Service, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repeated deletion withdraws the organization."""
    with monkeypatch.context() as broken:
        broken.setattr(service.app.context.withdrawals, "append", _unavailable)
        with pytest.raises(StoreUnavailable):
            delete_org(service.app.context, "mtxpd0")
    delete_org(service.app.context, "mtxpd0")
    assert edge.follow() == [("mtxpd0", "org", "mtxpd0")]


def _unavailable(_: object) -> int:
    raise StoreUnavailable


def test_the_operators_broker_gets_each_withdrawal(service: Service, operator: Client, ca: str) -> None:
    """Each withdrawal is a message with an id of its own."""
    notifier = RecordingNotifier()
    structs.force_setattr(service.app.context, "notifier", notifier)
    operator.put(f"{CAS}/{ca}", {"status": "inactive"}).ok()
    operator.post(DENY, {"kind": "identity", "value": "d:thermo:42"}).ok(201)
    assert [body for _, body in notifier.messages] == [
        {
            "type": "sessions.withdrawn",
            "timestamp": "2026-06-01T12:00:00Z",
            "data": {"number": number, "org": "mtxpd0", "kind": kind, "value": value},
        }
        for number, kind, value in [(1, "ca", ca), (2, "identity", "d:thermo:42")]
    ]
    assert len({message_id for message_id, _ in notifier.messages}) == 2


@pytest.mark.parametrize("role", ["viewer", "operator", "broker"])
def test_other_roles_are_refused(service: Service, role: str) -> None:
    assert service.client(role).get(PATH).status == 403
    assert service.anonymous.get(PATH).status == 401


def test_plain_http_from_another_machine_is_refused(edge: Edge) -> None:
    assert replace(edge.client, scheme="http").get(PATH).code == "insecure_transport"


@pytest.mark.parametrize("since", ["x", "-1", "1.0", "9" * 17])
def test_a_since_that_is_no_head_is_refused(edge: Edge, since: str) -> None:
    assert edge.client.get(PATH, query={"since": since}).code == "wrong_value"
