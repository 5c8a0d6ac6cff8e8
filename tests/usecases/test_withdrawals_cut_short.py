"""A process is killed during a change that withdraws sessions, at each call to the store: the withdrawal is not lost.

The outbox of withdrawals is in the changed document (docs/decisions/0112).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from shared.errors import StoreUnavailable
from shared.ports import Key
from shared.records import Denials, RecordWithOutbox
from shared.refs import Ref, denials_ref, org_ref
from shared.repository import WITHDRAWALS_MAX, Repository
from shared.usecases.edges.withdrawals import WithdrawalKind, make_withdrawal
from shared.usecases.jobs.expiry_report import expiry_report
from shared.usecases.jobs.maintenance import publish_all_left, sweep_org
from shared.usecases.orgs.organizations import get_org, set_suspended
from tests.support import certs
from tests.support.certs import NOON
from tests.support.harness import Answer, Client, Service
from tests.usecases.test_cut_short import Cut

pytestmark = pytest.mark.stores("sqlite")

CAS = "/authentication/cacertificates"
DENY = "/authorization/denylist"
POLICY = "/authorization/connectionpolicy"
SETTINGS = "/authorization/settings"
ROOT = certs.ca("Root")
INTERMEDIATE = certs.ca("Intermediate", ROOT)
CERTIFICATE = "TLS with Client Certificate Authentication"


@dataclass(frozen=True)
class Org:
    service: Service
    id: str
    operator: Client
    root: str
    intermediate: str

    def is_suspended(self) -> bool:
        return get_org(self.service.app.context, self.id).suspended

    def policy(self) -> str:
        level: str = self.operator.get(POLICY).ok()["default"]
        return level

    def status(self) -> str | None:
        answer = self.operator.get(f"{CAS}/{self.root}")
        return answer.json["status"] if answer.status == 200 else None

    def has_denial(self) -> bool:
        return bool(self.operator.get(DENY).ok()["results"])

    def is_marked(self) -> bool:
        return self.operator.get(f"{CAS}/{self.intermediate}").ok()["deniedAt"] is not None

    def published(self) -> set[tuple[str, str]]:
        feed = self.service.app.context.withdrawals
        return {(change.what.kind, change.what.value) for change in feed.since(0) if change.what.org_id == self.id}

    def waiting(self) -> int:
        return count_waiting(self.service.app.context.repository, self.id)


def count_waiting(repository: Repository, org_id: str) -> int:
    documents: list[RecordWithOutbox] = [record] if (record := repository.get(org_ref(org_id))) else []
    for partition in ("ca", "deny"):
        documents += [record for _, record in repository.iterate(f"{partition}/{org_id}", RecordWithOutbox)]
    return sum(len(record.withdrawals) for record in documents)


@dataclass(frozen=True)
class Change:
    """A change, whether it is in force, and the withdrawals that it makes."""

    make: Callable[[Org], Any]
    in_force: Callable[[Org], bool]
    withdrawn: Callable[[Org], set[tuple[str, str]]]


def _suspend(org: Org) -> Answer | None:
    try:
        set_suspended(org.service.app.context, org.id, True)
    except StoreUnavailable:
        return None
    return None


CHANGES = {
    "deactivate": Change(
        lambda org: org.operator.put(f"{CAS}/{org.root}", {"status": "inactive"}),
        lambda org: org.status() == "inactive",
        lambda org: {("ca", org.root)},
    ),
    "delete": Change(
        lambda org: org.operator.delete(f"{CAS}/{org.root}"),
        lambda org: org.status() in ("inactive", None),
        lambda org: {("ca", org.root)},
    ),
    "deny": Change(
        lambda org: org.operator.post(DENY, {"kind": "identity", "value": "d:thermo:42"}),
        Org.has_denial,
        lambda org: {("identity", "d:thermo:42")},
    ),
    "deny a CA": Change(
        lambda org: org.operator.post(DENY, {"certificate": INTERMEDIATE.pem}),
        Org.has_denial,
        lambda org: {("fingerprint", INTERMEDIATE.fingerprint), ("ca", org.intermediate)},
    ),
    "suspend": Change(_suspend, Org.is_suspended, lambda org: {("org", org.id)}),
    "policy": Change(
        lambda org: org.operator.put(POLICY, {"default": CERTIFICATE, "rules": []}),
        lambda org: org.policy() == CERTIFICATE,
        lambda org: {("recheck", "policy")},
    ),
}


def make_org(service: Service, number: int) -> Org:
    org_id = service.other_org(f"w{number:05}")
    operator = service.client("operator", org_id)
    ids = [operator.post(CAS, {"certificate": ca.pem}).ok(201)["id"] for ca in (ROOT, INTERMEDIATE)]
    operator.put(POLICY, {"default": "TLS Optional", "rules": []}).ok()
    return Org(service, org_id, operator, *ids)


def kill(service: Service) -> None:
    """Forget what the process knew: a new one continues on the same store."""
    repository = service.app.context.repository
    repository._copied.clear()
    repository._published.clear()


@pytest.mark.parametrize("repair", ["sweep", "start", "report"])
@pytest.mark.parametrize("is_answer_lost", [False, True], ids=["not made", "answer lost"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_kill_loses_no_withdrawal(service: Service, name: str, is_answer_lost: bool, repair: str) -> None:
    change, pass_on, context = CHANGES[name], service.store.between, service.app.context
    for number in range(1, 100):
        org = make_org(service, number)
        cut = Cut(number, is_answer_lost)
        service.store.between = cut
        change.make(org)
        service.store.between = pass_on
        kill(service)
        if repair == "sweep":
            sweep_org(context, get_org(context, org.id), at=context.clock() + timedelta(hours=3))
        elif repair == "start":
            publish_all_left(context)
        else:
            service.clock.now += timedelta(days=1)
            expiry_report(context, None)
        at = f"call {number}"
        if name == "suspend" or not org.is_suspended():
            is_in_force = change.in_force(org)
            assert (org.published() >= change.withdrawn(org)) is is_in_force, at
        assert org.waiting() == 0, at
        if name == "deny a CA":
            assert org.is_marked() == org.has_denial(), at
        if cut.calls < number:
            return
    raise AssertionError("the change takes too many calls to the store")


@pytest.mark.parametrize("name", CHANGES)
def test_the_repeated_call_publishes_what_a_kill_left(service: Service, name: str) -> None:
    change, pass_on = CHANGES[name], service.store.between
    for number in range(1, 100):
        org = make_org(service, number)
        cut = Cut(number, is_answer_lost=True)
        service.store.between = cut
        change.make(org)
        service.store.between = pass_on
        kill(service)
        again = change.make(org)
        assert again is None or again.status < 300 or (name == "delete" and again.status == 404)
        assert org.published() >= change.withdrawn(org), f"call {number}"
        assert org.waiting() == 0, f"call {number}"
        if cut.calls < number:
            return
    raise AssertionError("the change takes too many calls to the store")


def _without_feed(name: str, key: Key | None, call: Callable[[], Any]) -> Any:
    if key is not None and key.partition == "feed/withdrawals":
        raise StoreUnavailable
    return call()


def test_no_withdrawal_is_dropped_and_a_full_outbox_refuses_a_change(service: Service) -> None:
    """Activity entries are trimmed; withdrawals are not. Where 100 wait, a change of the document is refused."""
    context, pass_on = service.app.context, service.store.between
    org = make_org(service, 1)
    service.store.between = _without_feed
    for _ in range(WITHDRAWALS_MAX):
        assert org.operator.put(POLICY, {"default": CERTIFICATE, "rules": []}).status == 503
        assert org.policy() == CERTIFICATE, "the change is in force, and its withdrawal waits"
        for attempt in context.repository.changing(org_ref(org.id)):
            with attempt as record:
                if record is None or len(attempt.withdrawals) >= WITHDRAWALS_MAX:
                    break
                attempt.write(record, withdrawals=[make_withdrawal(NOON, org.id, WithdrawalKind.ORG, org.id)])
        if org.waiting() >= WITHDRAWALS_MAX:
            break
    waiting = org.waiting()
    assert waiting == WITHDRAWALS_MAX
    service.store.between = pass_on
    assert org.operator.put(SETTINGS, {"typeCertificates": True}).status == 503
    assert not org.operator.get(SETTINGS).ok()["typeCertificates"]
    sweep_org(context, get_org(context, org.id), at=context.clock())
    assert org.waiting() == 0
    lines = [change for change in context.withdrawals.since(0) if change.what.org_id == org.id]
    assert len(lines) == waiting
    org.operator.put(SETTINGS, {"typeCertificates": True}).ok()


def test_a_document_stays_until_the_feed_has_its_withdrawals(service: Service) -> None:
    """An entry is denied, its withdrawal waits, and the entry is lifted."""
    org, pass_on = make_org(service, 1), service.store.between
    service.store.between = _without_feed
    denial = {"kind": "identity", "value": "d:thermo:42"}
    assert org.operator.post(DENY, denial).status == 503
    [entry] = org.operator.get(DENY).ok()["results"]
    assert org.operator.delete(f"{DENY}/{entry['id']}").status == 503
    repository = service.app.context.repository
    ref: Ref[Denials] = denials_ref(org.id, entry["id"])
    assert repository.get(ref) is not None
    with pytest.raises(StoreUnavailable):
        repository.delete(ref)
    service.store.between = pass_on
    sweep_org(service.app.context, get_org(service.app.context, org.id), at=service.clock.now)
    assert org.published() == {("identity", "d:thermo:42")}
    assert repository.get(ref) is None


def test_a_published_withdrawal_is_not_published_again(service: Service) -> None:
    """An agent of version 0.1.0 ends the sessions of a line whenever it reads one: a later change repeats none."""
    org = make_org(service, 1)
    for change in CHANGES.values():
        change.make(org)
    lines = len(service.app.context.withdrawals.since(0))
    kill(service)
    sweep_org(service.app.context, get_org(service.app.context, org.id), at=service.clock.now)
    set_suspended(service.app.context, org.id, False)
    org.operator.put(SETTINGS, {"typeCertificates": True}).ok()
    org.operator.put(f"{CAS}/{org.intermediate}", {"comments": "kept"}).ok()
    assert len(service.app.context.withdrawals.since(0)) == lines


@dataclass
class DeniedUpload:
    """Makes a denial at one call to the store, and fails all calls after another.

    Args:
        denied_at: the number of the call, from 1, before which the denial is made.
        killed_at: the number of the last call that is made.
    """

    service: Service
    operator: Client
    denial: dict[str, str]
    denied_at: int
    killed_at: int
    calls: int = 0

    def __call__(self, name: str, key: Key | None, call: Callable[[], Any]) -> Any:
        self.calls += 1
        if self.calls == self.denied_at:
            self.service.store.between = lambda name, key, call: call()
            self.operator.post(DENY, self.denial).ok(201)
            self.service.store.between = self
        if self.calls > self.killed_at:
            raise StoreUnavailable
        return call()


@pytest.mark.parametrize("kind", ["fingerprint", "serial"])
def test_a_ca_that_is_denied_during_its_upload_never_lets_a_device_in(service: Service, kind: str) -> None:
    """The denial comes at each store call of the upload, and the upload dies at each later call."""
    pass_on, broker = service.store.between, service.platform()
    device = certs.leaf("d:thermo:42", INTERMEDIATE)
    for denied_at in range(1, 100):
        for killed_at in range(denied_at, 100):
            org_id = service.other_org(f"{kind[0]}{denied_at:02}{killed_at:03}")
            operator = service.client("operator", org_id)
            root = operator.post(CAS, {"certificate": ROOT.pem}).ok(201)["id"]
            serial = f"{root}:{INTERMEDIATE.certificate.serial_number:x}"
            value = INTERMEDIATE.fingerprint if kind == "fingerprint" else serial
            upload = DeniedUpload(service, operator, {"kind": kind, "value": value}, denied_at, killed_at)
            service.store.between = upload
            operator.post(CAS, {"certificate": INTERMEDIATE.pem})
            service.store.between = pass_on
            if upload.calls < denied_at:
                return
            kill(service)
            question = {
                "serverName": service.host(org_id),
                "clientId": f"d:{org_id}:thermo:42",
                "certificate": device.pem,
            }
            verdict = broker.post("/verifyClient", question).ok()
            assert verdict["decision"] == "deny", f"denied at call {denied_at}, killed after call {killed_at}"
            if upload.calls <= killed_at:
                break
    raise AssertionError("the upload takes too many calls to the store")
