"""A store that stops answering during a change, at each store call in turn: no change is half done, and the repeated
call ends as an uninterrupted call does."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from cryptography import x509

from benchmarks.faults.check import Findings, check
from benchmarks.faults.load import History
from shared.errors import StoreUnavailable
from shared.ports import Key, WriteConflict
from shared.records import CAIndex
from shared.refs import ca_index_ref, org_ref, server_ref
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.jobs.maintenance import sweep_org
from shared.usecases.orgs.organizations import get_org
from shared.usecases.servers.documents import host_version
from tests.support import certs
from tests.support.harness import Answer, Client, Service

pytestmark = pytest.mark.stores("sqlite")  # what the adapters make of a network is tests/adapters/test_cloud_faults.py

CAS = "/authentication/cacertificates"
SERVERS = "/authentication/servercertificates"
DENIALS = "/authorization/denylist"
ROOT = certs.ca("Root")


@dataclass(frozen=True)
class Org:
    """An organization, with the id of the thing that an operation changes."""

    service: Service
    id: str
    operator: Client
    thing: str = ""

    @property
    def host(self) -> str:
        return self.service.host(self.id)

    def look(self, *entries: tuple[str, str]) -> Findings:
        """Return what is incomplete. *entries*: action and id that the activity list must have."""
        context = self.service.app.context
        return check(context.repository, self.service.app.sealer, self.id, History(entries=[*entries]))

    def sweep(self) -> None:
        context = self.service.app.context
        sweep_org(context, get_org(context, self.id), at=context.clock() + timedelta(hours=3))
        HostFeed(context).sweep()

    def has_ca(self) -> bool:
        org = self.service.app.context.repository.get(org_ref(self.id))
        assert org is not None
        return org.has_ca

    def reserved(self) -> list[str]:
        """Return the ids of the CAs in the index."""
        return list((self.service.app.context.repository.get(ca_index_ref(self.id)) or CAIndex()).cas)

    def ids(self, path: str) -> list[str]:
        """Return the ids that the API lists, without the default certificate."""
        return [item["id"] for item in self.operator.get(path).ok()["results"] if item["id"] != "default"]


@dataclass(frozen=True)
class Operation:
    """A change, with what exists before the change and what must be true after it.

    Args:
        prepare: makes the thing that is changed, and returns its id.
        change: makes the change.
        after: whether the change is complete.
        action: the action in the activity list.
        is_deletion: the change deletes the thing, so the repeated call may answer 404.
    """

    prepare: Callable[[Org], str]
    change: Callable[[Org], Answer]
    after: Callable[[Org], bool]
    action: str
    is_deletion: bool = False


def _upload_ca(org: Org) -> Answer:
    return org.operator.post(CAS, {"certificate": ROOT.pem})


@cache
def _server(host: str) -> certs.Issued:
    return certs.server(host)


def _upload_server(org: Org) -> Answer:
    issued = _server(org.host)
    return org.operator.post(SERVERS, {"certificate": issued.pem, "privateKey": issued.key_pem})


@cache
def _server_with_chain(host: str) -> tuple[certs.Issued, str]:
    inter = certs.ca("Server Intermediate", ROOT)
    issued = certs.server(host, inter)
    return issued, certs.bundle(issued, inter)


def _activate_without_chain(org: Org) -> str:
    issued, _ = _server_with_chain(org.host)
    server_id = _id(org.operator.post(SERVERS, {"certificate": issued.pem, "privateKey": issued.key_pem}))
    org.operator.put(f"{SERVERS}/active", {"id": server_id}).ok()
    return server_id


def _upload_chain(org: Org) -> Answer:
    issued, bundle = _server_with_chain(org.host)
    return org.operator.post(SERVERS, {"certificate": bundle, "privateKey": issued.key_pem})


def _serves_chain(org: Org) -> bool:
    """Whether the edges serve the certificate with its chain."""
    record = org.service.app.context.repository.get(server_ref(org.id, org.thing))
    hosts = HostFeed(org.service.app.context).find([org.id])[org.id]
    assert record is not None
    return len(record.chain) == 1 and hosts.is_published and hosts.hosts == {org.host: host_version(record)}


def _request(org: Org) -> Answer:
    return org.operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"})


def _id(answer: Answer) -> str:
    created_id: str = answer.ok(201)["id"]
    return created_id


def _deny_root(org: Org) -> Answer:
    return org.operator.post(DENIALS, {"kind": "fingerprint", "value": ROOT.fingerprint})


def _denied(org: Org) -> bool:
    return org.operator.get(f"{CAS}/{org.thing}").ok()["deniedAt"] is not None


def _ca_then_denial(org: Org) -> str:
    _upload_ca(org).ok(201)
    return _id(_deny_root(org))


OPERATIONS = {
    "uploadCA": Operation(lambda org: "", _upload_ca, lambda org: len(org.ids(CAS)) == 1 and org.has_ca(), "uploadCA"),
    "deleteCA": Operation(
        lambda org: _id(_upload_ca(org)),
        lambda org: org.operator.delete(f"{CAS}/{org.thing}"),
        lambda org: org.ids(CAS) == [] and org.reserved() == [] and not org.has_ca(),
        "deleteCA",
        is_deletion=True,
    ),
    "uploadServerCert": Operation(
        lambda org: "", _upload_server, lambda org: len(org.ids(SERVERS)) == 1, "uploadServerCert"
    ),
    "generateCSR": Operation(lambda org: "", _request, lambda org: len(org.ids(SERVERS)) >= 1, "generateCSR"),
    "activateServerCert": Operation(
        lambda org: _id(_upload_server(org)),
        lambda org: org.operator.put(f"{SERVERS}/active", {"id": org.thing}),
        lambda org: org.operator.get(f"{SERVERS}/active").ok()["active"] == org.thing,
        "activateServerCert",
    ),
    "completeChain": Operation(_activate_without_chain, _upload_chain, _serves_chain, "completeChain"),
    "deleteServerCert": Operation(
        lambda org: _id(_upload_server(org)),
        lambda org: org.operator.delete(f"{SERVERS}/{org.thing}"),
        lambda org: org.ids(SERVERS) == [] and org.service.store.list(f"server/{org.id}") == [],
        "deleteServerCert",
        is_deletion=True,
    ),
    "deny": Operation(lambda org: _id(_upload_ca(org)), _deny_root, _denied, "deny"),
    "lift": Operation(
        _ca_then_denial,
        lambda org: org.operator.delete(f"{DENIALS}/{org.thing}"),
        lambda org: not _denied(replace(org, thing=org.ids(CAS)[0])) and org.ids(DENIALS) == [],
        "lift",
        is_deletion=True,
    ),
}


@dataclass
class Cut:
    """Makes a call to the store, and all calls after it, fail.

    Args:
        number: of the first call that fails, from 1.
        is_answer_lost: the first failing call is made and reported as failed; otherwise the call is not made.
    """

    number: int
    is_answer_lost: bool
    calls: int = 0

    def __call__(self, name: str, key: Key | None, call: Callable[[], Any]) -> Any:
        self.calls += 1
        if self.calls < self.number:
            return call()
        if self.calls == self.number and self.is_answer_lost:
            call()
        raise StoreUnavailable


def _org(service: Service, operation: Operation, number: int) -> Org:
    org_id = service.other_org(f"o{number:05}")
    org = Org(service, org_id, service.client("operator", org_id))
    return replace(org, thing=operation.prepare(org))


def interrupt(service: Service, operation: Operation, is_answer_lost: bool) -> Iterator[tuple[Org, Cut, Answer]]:
    """Yield after each change that was interrupted, at each of its calls to the store, and after a complete change.

    Each change is made in an organization of its own."""
    pass_on = service.store.between
    for number in range(1, 100):
        org = _org(service, operation, number)
        cut = Cut(number, is_answer_lost)
        service.store.between = cut
        answer = operation.change(org)
        service.store.between = pass_on
        yield org, cut, answer
        if cut.calls < number:
            return
    raise AssertionError("the change takes too many calls to the store")


@pytest.mark.parametrize("is_answer_lost", [False, True], ids=["not made", "answer lost"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_same_call_again_completes_an_interrupted_change(service: Service, name: str, is_answer_lost: bool) -> None:
    operation = OPERATIONS[name]
    for org, cut, first in interrupt(service, operation, is_answer_lost):
        at = f"call {cut.number}: {first.text}"
        assert org.look().halves == [], at
        if cut.calls >= cut.number:  # otherwise the change was complete before this call
            assert first.status == 503 or first.status < 300, at
        if first.status == 503:
            again = operation.change(org)
            assert again.status < 300 or (operation.is_deletion and again.status == 404), f"{at}; again: {again.text}"
        assert operation.after(org), at
        entries = (
            [(operation.action, org.thing)] if name in ("deleteCA", "deleteServerCert", "activateServerCert") else []
        )
        findings = org.look(*entries)
        assert findings.halves == [], at
        assert findings.lost == [], at
        org.sweep()
        assert org.look().leftovers == [], at
        assert operation.after(org), f"after a sweep; {at}"


@pytest.mark.parametrize("is_answer_lost", [False, True], ids=["not made", "answer lost"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_sweep_removes_what_an_interrupted_change_left(service: Service, name: str, is_answer_lost: bool) -> None:
    """The change is not repeated. The thing that was changed exists as a whole, or not at all."""
    for org, cut, _ in interrupt(service, OPERATIONS[name], is_answer_lost):
        org.sweep()
        findings = org.look()
        assert (findings.halves, findings.leftovers) == ([], []), f"call {cut.number}"
        assert org.has_ca() == bool(org.ids(CAS)), f"call {cut.number}"
        denied = {denial["value"] for denial in org.operator.get(DENIALS).ok()["results"]}
        for ca in org.operator.get(CAS).ok()["results"]:
            assert (ca["deniedAt"] is not None) == (ca["fingerprintSha256"] in denied), f"call {cut.number}"


@pytest.mark.parametrize("is_answer_lost", [False, True], ids=["not made", "answer lost"])
def test_an_upload_without_chain_publishes_what_an_interrupted_completion_stored(
    service: Service, is_answer_lost: bool
) -> None:
    """Also if the completion ended between the line in the index and the publication of the hosts."""
    lengths = set()
    for org, cut, _ in interrupt(service, OPERATIONS["completeChain"], is_answer_lost):
        issued, _ = _server_with_chain(org.host)
        again = org.operator.post(SERVERS, {"certificate": issued.pem, "privateKey": issued.key_pem}).ok(200)
        record = service.app.context.repository.get(server_ref(org.id, org.thing))
        hosts = HostFeed(service.app.context).find([org.id])[org.id]
        assert record is not None
        assert hosts.is_published, f"call {cut.number}"
        assert hosts.hosts == {org.host: host_version(record)}, f"call {cut.number}"
        lengths.add(len(again["chain"]))
    assert lengths == {0, 1}


@dataclass
class Overwritten:
    """Makes a write look like a conflict (docs/decisions/0032).

    The write is made, its answer is lost, and another writer changes the document before the adapter repeats the write.
    """

    service: Service
    number: int
    calls: int = 0

    def __call__(self, name: str, key: Key | None, call: Callable[[], Any]) -> Any:
        result = call()
        if key is None:
            return result
        self.calls += 1
        if self.calls == self.number:
            self._touch(key)
            raise WriteConflict(key)
        return result

    def _touch(self, key: Key) -> None:
        before, self.service.store.between = self.service.store.between, lambda name, key, call: call()
        document = self.service.store.get_many([key]).get(key)
        if document is not None:
            self.service.store.put(key, document.body, expected=document.version)
        self.service.store.between = before


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_write_that_looks_like_a_conflict_is_made_once(service: Service, name: str) -> None:
    operation, pass_on = OPERATIONS[name], service.store.between
    for number in range(1, 100):
        org = _org(service, operation, number)
        overwritten = Overwritten(service, number)
        service.store.between = overwritten
        answer = operation.change(org)
        service.store.between = pass_on
        assert answer.status < 300, f"write {number}: {answer.text}"
        assert operation.after(org), f"write {number}"
        assert org.look().halves == [], f"write {number}"
        if name == "generateCSR":
            assert len(org.ids(SERVERS)) == 1
        if overwritten.calls < number:
            return
    raise AssertionError("the change takes too many writes")


def test_the_fiftieth_request_that_looks_like_a_conflict_keeps_its_key(service: Service, operator: Client) -> None:
    """The repeated attempt finds its own line and 50 lines in all. The body must stay: the index names the body."""
    for _ in range(49):
        operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)
    pass_on = service.store.between
    service.store.between = Overwritten(service, number=2)  # the body, then the org with the index
    made = operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)["id"]
    service.store.between = pass_on
    assert len(operator.get(SERVERS).ok()["results"]) == 51
    assert service.app.context.repository.get(server_ref(service.org_id, made)) is not None
    assert operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).status == 409


def test_a_denied_ca_never_allows_a_device_even_if_its_upload_is_interrupted(
    service: Service, operator: Client
) -> None:
    """The CA has its denial mark from the first write: a device need not send the denied CA."""
    broker = service.client("broker")
    operator.post(DENIALS, {"kind": "fingerprint", "value": ROOT.fingerprint}).ok(201)
    device = certs.leaf("d:thermo:42", ROOT)
    question = {
        "serverName": service.host(),
        "clientId": f"d:{service.org_id}:thermo:42",
        "certificate": device.pem,
    }
    pass_on = service.store.between
    for number in range(1, 100):
        cut = Cut(number, is_answer_lost=True)
        service.store.between = cut
        operator.post(CAS, {"certificate": ROOT.pem})
        service.store.between = pass_on
        verdict = broker.post("/verifyClient", question).ok()
        assert verdict["decision"] == "deny", f"call {cut.number}"
        if cut.calls < number:
            assert verdict["code"] == "certificate_revoked"
            return


def _without_activity(name: str, key: Key | None, call: Callable[[], Any]) -> Any:
    if key is not None and key.partition.startswith("activity/"):
        raise StoreUnavailable
    return call()


def test_a_document_stays_until_the_activity_list_has_its_entries(service: Service) -> None:
    """A deletion fails with 503 while the activity list does not take the entries in the document."""
    operation, pass_on = OPERATIONS["deleteCA"], service.store.between
    org = _org(service, operation, 1)
    request = org.operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)
    signed = certs.certificate(
        certs.name(org.host),
        signer=ROOT,
        private=_PublicOnly(request["csr"]),  # type: ignore[arg-type]
        extensions=[(x509.SubjectAlternativeName([x509.DNSName(org.host)]), False)],
    )
    service.store.between = _without_activity
    answers = [
        org.operator.put(f"{SERVERS}/{request['id']}/certificate", {"certificate": signed.pem}),
        org.operator.delete(f"{SERVERS}/{request['id']}"),
        operation.change(org),
    ]
    service.store.between = pass_on
    assert [answer.status for answer in answers] == [200, 503, 503]
    assert org.operator.delete(f"{SERVERS}/{request['id']}").status == 204
    assert operation.change(org).status == 204
    org.sweep()
    findings = org.look(("deleteCA", org.thing), ("fulfillCSR", request["id"]), ("deleteServerCert", request["id"]))
    assert (findings.lost, findings.halves, findings.leftovers) == ([], [], [])


@dataclass(frozen=True)
class _PublicOnly:
    """Takes the place of a private key: only the public key of a request is known."""

    csr: str

    def public_key(self) -> Any:
        return x509.load_pem_x509_csr(self.csr.encode()).public_key()


def test_an_upload_restores_its_line_that_a_sweep_removed(service: Service) -> None:
    """An upload reserves a line in the index before the CA exists, so a sweep in between removes the line."""
    operation, pass_on = OPERATIONS["uploadCA"], service.store.between
    org = _org(service, operation, 1)

    def sweep_before_the_ca(name: str, key: Key | None, call: Callable[[], Any]) -> Any:
        if key is not None and key.partition == f"ca/{org.id}":
            service.store.between = pass_on
            org.sweep()
            assert org.reserved() == []
        return call()

    service.store.between = sweep_before_the_ca
    operation.change(org).ok(201)
    assert org.reserved() == org.ids(CAS)
    assert org.look().halves == []


def test_a_sweep_keeps_the_line_of_a_ca_that_is_stored_meanwhile(service: Service) -> None:
    """An interrupted upload reserved the line. The upload is repeated while the sweep is about to remove the line."""
    operation, pass_on = OPERATIONS["uploadCA"], service.store.between
    org = _org(service, operation, 1)

    def interrupt_before_the_ca(name: str, key: Key | None, call: Callable[[], Any]) -> Any:
        if key is not None and key.partition == f"ca/{org.id}":
            raise StoreUnavailable
        return call()

    def repeat_before_the_index(name: str, key: Key | None, call: Callable[[], Any]) -> Any:
        if name == "put" and key == ca_index_ref(org.id).key:
            service.store.between = pass_on
            operation.change(org).ok(201)
        return call()

    service.store.between = interrupt_before_the_ca
    assert operation.change(org).status == 503
    service.store.between = repeat_before_the_index
    org.sweep()
    assert service.store.between == pass_on, "the upload was repeated during the sweep"
    assert org.reserved() == org.ids(CAS) != []
    assert org.look().halves == []
