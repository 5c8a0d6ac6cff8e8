"""Two callers at once: the whole call of one runs between two calls of the other to the store."""

from collections.abc import Callable, Collection
from typing import Any

import pytest

from benchmarks.faults.check import Findings, check
from benchmarks.faults.load import History
from shared.ports import Document, Key
from shared.records import CAIndex
from shared.refs import ca_index_ref, org_hosts_ref
from shared.usecases.orgs.organizations import set_suspended
from tests.support import certs
from tests.support.harness import Client, Service

pytestmark = pytest.mark.stores("sqlite")

CAS = "/authentication/cacertificates"
SERVERS = "/authentication/servercertificates"
DENIALS = "/authorization/denylist"
ROOT = certs.ca("Root")
DENIAL = {"kind": "fingerprint", "value": ROOT.fingerprint}


def run_before(
    service: Service,
    name: str,
    partition: str,
    call: Callable[[], object],
    *,
    count: int = 1,
    read_last: str | None = None,
) -> None:
    """Make *call* once, right before a call to the store.

    Args:
        name, partition, count: the call number *count* of that name with a key of that partition.
        read_last: the partition of which a batched read returns the newest documents. A batch is not a snapshot, so
            each key is read by itself here.
    """
    read_batch, remaining = service.store.get_many, count

    def look(called: str, key: Key | None) -> None:
        nonlocal remaining
        if called == name and key is not None and key.partition == partition:
            remaining -= 1
            if remaining == 0:
                call()

    def between(called: str, key: Key | None, run: Callable[[], Any]) -> Any:
        look(called, key)
        return run()

    def get_many(keys: Collection[Key]) -> dict[Key, Document]:
        documents: dict[Key, Document] = {}
        for key in sorted(keys, key=lambda key: key.partition == read_last):
            look("get_many", key)
            documents |= read_batch([key])
        return documents

    service.store.between = between
    service.store.get_many = get_many  # type: ignore[method-assign]


def look(service: Service) -> Findings:
    """Return what is incomplete, and what a sweep would have to remove."""
    return check(service.app.context.repository, service.app.sealer, service.org_id, History())


def upload(operator: Client, ca: certs.Issued = ROOT) -> str:
    ca_id: str = operator.post(CAS, {"certificate": ca.pem}).ok(201)["id"]
    return ca_id


def denied_at(operator: Client) -> str | None:
    at: str | None = operator.get(CAS).ok()["results"][0]["deniedAt"]
    return at


def is_listed_as_active(service: Service, ca_id: str) -> bool | None:
    """Return what the index says of a CA; None without a line."""
    index = service.app.context.repository.get(ca_index_ref(service.org_id)) or CAIndex()
    return index.cas.get(ca_id)


def test_a_ca_that_is_registered_again_during_its_deletion_keeps_its_line_and_the_flag(
    service: Service, operator: Client
) -> None:
    """The deletion has deleted the CA and is about to remove the CA's line from the index."""
    ca_id = upload(operator)
    run_before(service, "put", "caindex", lambda: upload(operator))
    operator.delete(f"{CAS}/{ca_id}").ok(204)
    assert [ca["id"] for ca in operator.get(CAS).ok()["results"]] == [ca_id]
    assert look(service) == Findings()


def test_an_upload_without_room_keeps_the_line_of_an_upload_that_found_room(service: Service, operator: Client) -> None:
    """Ten CAs have the name. One of them is deleted after an upload of the eleventh was refused, and the eleventh is
    uploaded again."""
    ids = [upload(operator, certs.ca("Root", private=certs.key("P-256", 700 + number))) for number in range(10)]

    def upload_again() -> None:
        operator.delete(f"{CAS}/{ids[0]}").ok(204)
        upload(operator)

    run_before(service, "put", "caindex", upload_again, count=2)  # the refused upload gives its place back
    assert operator.post(CAS, {"certificate": ROOT.pem}).status == 409
    assert len(operator.get(CAS).ok()["results"]) == 10
    assert look(service) == Findings()


def test_a_ca_that_is_deleted_while_it_is_deactivated_leaves_no_line(service: Service, operator: Client) -> None:
    """The deactivation has read the CA, and has not read the index yet."""
    ca_id = upload(operator)
    run_before(
        service,
        "get_many",
        "caindex",
        lambda: operator.delete(f"{CAS}/{ca_id}").ok(204),
        read_last="caindex",
    )
    operator.put(f"{CAS}/{ca_id}", {"status": "inactive"}).ok()
    assert look(service) == Findings()


def test_the_index_agrees_with_the_later_of_two_changes_of_a_ca(service: Service, operator: Client) -> None:
    """The deactivation is about to change the index. The activation finds the index unchanged."""
    ca_id = upload(operator)
    run_before(service, "put", "caindex", lambda: operator.put(f"{CAS}/{ca_id}", {"status": "active"}).ok())
    operator.put(f"{CAS}/{ca_id}", {"status": "inactive"}).ok()
    assert operator.get(f"{CAS}/{ca_id}").ok()["status"] == "active"
    assert is_listed_as_active(service, ca_id)


def test_a_ca_that_is_denied_during_its_upload_is_marked(service: Service, operator: Client) -> None:
    """The upload has stored the CA and read the deny list without the entry. Then it reads the CA with the mark."""
    name = f"ca/{service.org_id}"
    run_before(
        service,
        "get_many",
        name,
        lambda: operator.post(DENIALS, DENIAL).ok(201),
        count=2,  # the first read is before the CA is stored
        read_last=name,
    )
    upload(operator)
    assert denied_at(operator) is not None


def test_a_ca_has_no_mark_if_its_entry_is_lifted_while_the_entry_is_made(service: Service, operator: Client) -> None:
    """The denial is about to write the mark. The other call finds no mark to remove."""
    upload(operator)

    def lift() -> None:
        entry_id = operator.get(DENIALS).ok()["results"][0]["id"]
        operator.delete(f"{DENIALS}/{entry_id}").ok(204)

    run_before(service, "put", f"ca/{service.org_id}", lift)
    operator.post(DENIALS, DENIAL).ok(201)
    assert denied_at(operator) is None


def test_edges_serve_an_organization_that_is_resumed_while_it_is_suspended(service: Service) -> None:
    """The suspension is about to publish that no host is served. The other call finds the hosts as they must be."""
    context = service.app.context
    run_before(service, "put", "hosts", lambda: set_suspended(context, service.org_id, False))
    set_suspended(context, service.org_id, True)
    hosts = context.repository.get(org_hosts_ref(service.org_id))
    assert hosts is not None
    assert list(hosts.hosts) == [service.host()]
    assert hosts.is_published


def test_edges_serve_what_is_active_after_two_activations_at_the_same_moment(
    service: Service, operator: Client
) -> None:
    """The activation has read the hosts as it would publish them. The other call publishes other hosts meanwhile."""
    issued = certs.server(service.host())
    own = operator.post(SERVERS, {"certificate": issued.pem, "privateKey": issued.key_pem}).ok(201)["id"]
    operator.put(f"{SERVERS}/active", {"id": own}).ok()
    run_before(
        service,
        "get_many",
        "org",
        lambda: operator.put(f"{SERVERS}/active", {"id": "default"}).ok(),
        count=2,  # the first read admits the caller
    )
    operator.put(f"{SERVERS}/active", {"id": own}).ok()
    hosts = service.app.context.repository.get(org_hosts_ref(service.org_id))
    assert hosts is not None
    assert (hosts.certificate_id, hosts.is_published) == (own, True)


# ------------------------------------------------------------------------------------------ server certificates


def server_fields(service: Service) -> dict[str, str]:
    issued = certs.server(service.host(), ROOT)
    return {"certificate": issued.pem, "privateKey": issued.key_pem}


def test_a_description_that_is_edited_during_a_repeated_upload_does_not_count_as_a_completed_chain(
    service: Service, operator: Client
) -> None:
    """The upload has read the stored certificate, and is about to compare the chains."""
    fields = server_fields(service)
    path = f"{SERVERS}/{operator.post(SERVERS, fields).ok(201)['id']}"
    edit = lambda: operator.put(path, {"comments": "edited"}).ok()  # noqa: E731
    run_before(service, "get_many", f"server/{service.org_id}", edit, count=2)
    again = operator.post(SERVERS, fields).ok(200)
    assert again["comments"] == "edited"
    assert [warning["code"] for warning in again["warnings"]] == ["chain_incomplete"]


@pytest.mark.parametrize(("name", "count"), [("get_many", 2), ("put", 1)])
def test_a_certificate_that_is_deleted_during_its_repeated_upload_is_added_as_new(
    service: Service, operator: Client, name: str, count: int
) -> None:
    """The upload has read the stored certificate, and is about to compare the chains, or to store its chain."""
    fields = server_fields(service)
    deleted = operator.post(SERVERS, fields).ok(201)["id"]
    delete = lambda: operator.delete(f"{SERVERS}/{deleted}").ok(204)  # noqa: E731
    run_before(service, name, f"server/{service.org_id}", delete, count=count)
    added = operator.post(SERVERS, fields | {"chain": ROOT.pem}).ok(201)
    assert added["id"] != deleted
    assert len(added["chain"]) == 1
    assert [server["id"] for server in operator.get(SERVERS).ok()["results"]] == ["default", added["id"]]
    assert look(service) == Findings()


def test_a_certificate_that_is_stored_meanwhile_without_its_chain_gets_the_chain(
    service: Service, operator: Client
) -> None:
    """Two uploads of one certificate at once. The upload with the chain has not stored anything yet."""
    fields = server_fields(service)
    run_before(service, "put", f"server/{service.org_id}", lambda: operator.post(SERVERS, fields).ok(201))
    completed = operator.post(SERVERS, fields | {"chain": ROOT.pem}).ok(200)
    assert [warning["code"] for warning in completed["warnings"]] == ["chain_completed"]
    assert [len(server["chain"]) for server in operator.get(SERVERS).ok()["results"]] == [0, 1]
    assert look(service) == Findings()


def test_a_chain_that_is_completed_meanwhile_to_another_root_is_kept(service: Service, operator: Client) -> None:
    """Two repeated uploads of one certificate at once. The slower upload is about to store its chain."""
    other_root = certs.ca("Other Root")
    lower = certs.ca("Lower", ROOT)
    cross = certs.ca("Lower", other_root, private=lower.key)
    issued = certs.server(service.host(), lower)
    fields = {"certificate": issued.pem, "privateKey": issued.key_pem}
    first = operator.post(SERVERS, fields).ok(201)
    complete = lambda: operator.post(SERVERS, fields | {"chain": cross.pem}).ok(200)  # noqa: E731
    run_before(service, "put", f"server/{service.org_id}", complete)
    slower = operator.post(SERVERS, fields | {"chain": lower.pem}).ok(200)
    assert [warning["code"] for warning in slower["warnings"]] == ["chain_kept"]
    assert operator.get(f"{SERVERS}/{first['id']}/pem").text == certs.bundle(issued, cross)
