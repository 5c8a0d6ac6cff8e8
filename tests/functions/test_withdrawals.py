"""Withdrawn means out: what the edges and the operator's broker are told to end, over HTTP."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from msgspec import structs

from shared.errors import StoreUnavailable
from shared.usecases.edges import withdrawals
from shared.usecases.orgs.organizations import create_org, delete_org, set_suspended
from tests import certs
from tests.harness import Client, Service
from tests.malleable import twin

PATH = "//edge/v1/withdrawals"
CAS = "/authentication/cacertificates"
DENY = "/authorization/denylist"
ROOT = certs.ca("Root")


@dataclass
class Announced:
    """Notifier that remembers."""

    messages: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def notify(self, message_id: str, body: bytes) -> None:
        self.messages.append((message_id, json.loads(body)))


@dataclass
class Edge:
    client: Client
    head: str = ""

    def follow(self) -> list[tuple[str, str, str]]:
        """What is told since the last time: org, kind, value."""
        told = []
        while True:
            page = self.client.get(PATH, query={"since": self.head}).ok()
            self.head = page["head"]
            assert page["missed"] is False
            told += [(one["org"], one["kind"], one["value"]) for one in page["withdrawals"]]
            if not page["more"]:
                return told


@pytest.fixture
def edge(service: Service) -> Edge:
    made = Edge(service.platform("edge"))
    assert made.follow() == [], "an edge that begins has no session to end"
    return made


@pytest.fixture
def ca(operator: Client) -> str:
    found: str = operator.post(CAS, {"certificate": ROOT.pem}).ok(201)["id"]
    return found


def test_deactivating_a_ca_is_told_before_it_is_answered(operator: Client, edge: Edge, ca: str) -> None:
    operator.put(f"{CAS}/{ca}", {"status": "inactive"}).ok()
    assert edge.follow() == [("mtxpd0", "ca", ca)]
    assert edge.follow() == []
    operator.put(f"{CAS}/{ca}", {"comments": "still off"}).ok()
    operator.put(f"{CAS}/{ca}", {"status": "active"}).ok()
    assert edge.follow() == [], "nothing was withdrawn by these"


def test_deleting_a_ca_is_told(operator: Client, edge: Edge, ca: str) -> None:
    operator.delete(f"{CAS}/{ca}").ok(204)
    assert edge.follow() == [("mtxpd0", "ca", ca)]


@pytest.mark.parametrize(
    ("body", "kind", "value"),
    [
        ({"kind": "identity", "value": "d:thermo:42"}, "identity", "d:thermo:42"),
        ({"kind": "fingerprint", "value": ROOT.fingerprint.upper()}, "fingerprint", ROOT.fingerprint),
        ({"certificate": ROOT.pem}, "fingerprint", ROOT.fingerprint),
    ],
    ids=["identity", "fingerprint", "certificate"],
)
def test_denying_is_told_in_the_deny_lists_own_words(
    operator: Client, edge: Edge, body: dict[str, str], kind: str, value: str
) -> None:
    operator.post(DENY, body).ok(201)
    assert edge.follow() == [("mtxpd0", kind, value)]


def test_denying_a_registered_ca_by_its_other_fingerprint_names_it_too(operator: Client, edge: Edge, ca: str) -> None:
    """Its devices do not send it: their sessions rest on its id."""
    operator.post(DENY, {"certificate": twin(ROOT).pem}).ok(201)
    assert edge.follow() == [("mtxpd0", "fingerprint", twin(ROOT).fingerprint), ("mtxpd0", "ca", ca)]


def test_denying_a_serial_names_the_ca(operator: Client, edge: Edge, ca: str) -> None:
    operator.post(DENY, {"kind": "serial", "value": f"{ca}:00AB"}).ok(201)
    assert edge.follow() == [("mtxpd0", "serial", f"{ca}:ab")]


def test_lifting_a_denial_is_nothing_to_end(operator: Client, edge: Edge) -> None:
    entry = operator.post(DENY, {"kind": "identity", "value": "d:thermo:42"}).ok(201)["id"]
    edge.follow()
    operator.delete(f"{DENY}/{entry}").ok(204)
    assert edge.follow() == []


def test_suspending_and_deleting_an_org_are_told(service: Service, edge: Edge) -> None:
    set_suspended(service.app.context, "mtxpd0", True)
    assert edge.follow() == [("mtxpd0", "org", "mtxpd0")]
    set_suspended(service.app.context, "mtxpd0", False)
    assert edge.follow() == []
    delete_org(service.app.context, "mtxpd0")
    assert edge.follow() == [("mtxpd0", "org", "mtxpd0")]


def test_the_suspended_orgs_own_edge_still_hears_of_it(service: Service) -> None:
    """Its key is refused everywhere else; here it must learn that its sessions end."""
    edge = Edge(service.client("edge"))
    edge.follow()
    set_suspended(service.app.context, "mtxpd0", True)
    assert edge.follow() == [("mtxpd0", "org", "mtxpd0")]


def test_an_edge_hears_of_its_own_orgs_only(service: Service) -> None:
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


def test_an_edge_too_far_behind_is_told_to_end_every_session(service: Service, edge: Edge) -> None:
    """Rather one reconnection too many than a session that should have ended."""
    for _ in range(3):
        set_suspended(service.app.context, "mtxpd0", True)
        set_suspended(service.app.context, "mtxpd0", False)
    old = edge.head
    edge.follow()
    service.app.context.withdrawals.trim(int(edge.head))
    assert edge.follow() == [], "one that followed has missed nothing"
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
def test_a_withdrawal_that_could_not_be_told_is_told_when_the_call_is_repeated(
    service: Service,
    operator: Client,
    edge: Edge,
    ca: str,
    cut_short: Callable[[Client, Service, str], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """503 says that it is safe to repeat."""
    with monkeypatch.context() as broken:
        broken.setattr(service.app.context.withdrawals, "append", _unavailable)
        assert cut_short(operator, service, ca) == 503
    assert edge.follow() == []
    assert cut_short(operator, service, ca) in (200, 201, 204)
    assert len(edge.follow()) == 1


def test_an_orgs_deletion_that_was_cut_short_can_be_repeated(
    service: Service, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody is let in meanwhile."""
    with monkeypatch.context() as broken:
        broken.setattr(service.app.context.withdrawals, "append", _unavailable)
        with pytest.raises(StoreUnavailable):
            delete_org(service.app.context, "mtxpd0")
    delete_org(service.app.context, "mtxpd0")
    assert edge.follow() == [("mtxpd0", "org", "mtxpd0")]


def _unavailable(_: object) -> int:
    raise StoreUnavailable


def test_the_operators_broker_is_told_too(service: Service, operator: Client, ca: str) -> None:
    """One message each, with an id of its own: what a webhook signs and delivers."""
    announced = Announced()
    structs.force_setattr(service.app.context, "notifier", announced)
    operator.put(f"{CAS}/{ca}", {"status": "inactive"}).ok()
    operator.post(DENY, {"kind": "identity", "value": "d:thermo:42"}).ok(201)
    assert [body for _, body in announced.messages] == [
        {
            "type": "sessions.withdrawn",
            "timestamp": "2026-06-01T12:00:00Z",
            "data": {"number": number, "org": "mtxpd0", "kind": kind, "value": value},
        }
        for number, kind, value in [(1, "ca", ca), (2, "identity", "d:thermo:42")]
    ]
    assert len({name for name, _ in announced.messages}) == 2


@pytest.mark.parametrize("role", ["viewer", "operator", "broker"])
def test_other_roles_are_not_told(service: Service, role: str) -> None:
    assert service.client(role).get(PATH).status == 403
    assert service.anybody.get(PATH).status == 401


def test_it_is_told_over_tls_or_within_this_machine_only(edge: Edge) -> None:
    assert replace(edge.client, scheme="http").get(PATH).code == "insecure_transport"


@pytest.mark.parametrize("since", ["x", "-1", "1.0", "9" * 17])
def test_a_since_that_nobody_told_is_refused(edge: Edge, since: str) -> None:
    assert edge.client.get(PATH, query={"since": since}).code == "wrong_value"
