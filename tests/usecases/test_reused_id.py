"""An id that is deleted and created again: the new organization has nothing of the old one.

The calls of the old organization are stopped before each of their writes, while the id changes hands.
"""

import itertools
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.errors import NotFound, StoreUnavailable
from shared.ports import FoundObject, Key, UploadedObject
from shared.refs import org_ref
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.jobs.maintenance import sweep_org
from shared.usecases.jobs.uploads import End, on_upload
from shared.usecases.orgs.deletion import delete_org, partitions_of, sweep_deleted_orgs
from shared.usecases.orgs.first_start import first_start
from shared.usecases.orgs.organizations import (
    OrgDeleting,
    OrgExists,
    OrgInQuarantine,
    create_org,
    get_org,
    set_suspended,
)
from tests.support import certs
from tests.support.harness import Client, Service, make_service
from tests.support.tenants import (
    CAS,
    DENIALS,
    LATER,
    POLICY,
    ROOT,
    SERVERS,
    SETTINGS,
    Tenant,
    inherited,
    new_tenant,
)

pytestmark = pytest.mark.stores("sqlite")

ORG = "tenant"
WRITES = ("put", "delete")


def tenant(service: Service) -> Tenant:
    """Return a new organization with something of every kind."""
    create_org(service.app.context, ORG)
    made = new_tenant(service, ORG)
    made.fill()
    return made


def hand_over(service: Service) -> None:
    """Delete the organization and create its id again, as the platform's operator does."""
    delete_org(service.app.context, ORG)
    create_org(service.app.context, ORG, now=True)


def run_before_write(service: Service, number: int, call: Callable[[], object]) -> list[Key | None]:
    """Make *call* once, before the write of that *number*. Return the keys of the writes, filled as they happen."""
    keys: list[Key | None] = []

    def between(name: str, key: Key | None, run: Callable[[], Any]) -> Any:
        if name in WRITES:
            keys.append(key)
            if len(keys) == number:
                service.store.between = lambda name, key, run: run()
                call()
                service.store.between = between
        return run()

    service.store.between = between
    return keys


def server(host: str) -> dict[str, str]:
    issued = certs.server(host)
    return {"certificate": issued.pem, "privateKey": issued.key_pem}


def upload(old: Tenant) -> None:
    """Import an object of the upload bucket."""
    stored = FoundObject("bucket", f"{ORG}/ca/later.pem", "1", None, len(LATER.pem), old.service.clock.now)

    class Objects:
        def find(self, uploaded: UploadedObject) -> FoundObject:
            return stored

        def read(self, found: FoundObject) -> bytes:
            return LATER.pem.encode()

        def remove(self, found: FoundObject) -> None: ...

    app = old.service.app
    on_upload(app.context, app.sealer, Objects(), UploadedObject("bucket", stored.key), bucket="bucket")


def flush(old: Tenant) -> None:
    """Write connection events: of an allowed device, and of a refused one."""
    old.connect()
    old.connect(LATER)
    old.service.flush()


def activate_default(old: Tenant) -> None:
    old.operator.put(f"{SERVERS}/active", {"id": "default"})


def delete_ca(old: Tenant) -> None:
    [listed] = old.operator.get(CAS).ok()["results"]
    old.operator.delete(f"{CAS}/{listed['id']}")


CALLS: dict[str, Callable[[Tenant], object]] = {
    "uploadCA": lambda old: old.operator.post(CAS, {"certificate": LATER.pem}),
    "deleteCA": delete_ca,
    "uploadServerCert": lambda old: old.operator.post(SERVERS, server(old.host)),
    "generateCSR": lambda old: old.operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}),
    "activateServerCert": activate_default,
    "deny": lambda old: old.operator.post(DENIALS, {"kind": "fingerprint", "value": ROOT.fingerprint}),
    "settings": lambda old: old.operator.put(SETTINGS, {"typeCertificates": False}),
    "policy": lambda old: old.operator.put(POLICY, {"default": "TLS Optional"}),
    "onUpload": upload,
    "recordSightings": flush,
    "createKey": lambda old: old.service.client("operator", ORG),
    "suspend": lambda old: set_suspended(old.service.app.context, ORG, True),
}


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Service]:
    numbers = itertools.count()
    return lambda: make_service(tmp_path / str(next(numbers)), org_quarantine_days=0)


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_the_old_organization_made_changes_nothing_in_the_new(
    fresh: Callable[[], Service], call: str
) -> None:
    """The id is created again right before each write of the call. The call then ends, acknowledged or refused."""
    first = fresh()
    old = tenant(first)
    keys = run_before_write(first, 0, lambda: None)
    CALLS[call](old)
    first.app.close()
    assert keys, "the call writes nothing"
    for number in range(1, len(keys) + 1):
        service = fresh()
        old = tenant(service)
        run_before_write(service, number, lambda service=service: hand_over(service))  # type: ignore[misc]
        with suppress(NotFound):  # the caller may be a command, which prints the refusal
            CALLS[call](old)
        service.store.between = lambda name, key, run: run()
        new = new_tenant(service, ORG)
        assert inherited(old, new) == [], f"before write {number} of {len(keys)}, at {keys[number - 1]}"
        assert sweep_leaves_only_the_new(service)
        service.app.close()


def sweep_leaves_only_the_new(service: Service) -> bool:
    """Sweep; return whether every remaining document of the id belongs to the new organization."""
    context = service.app.context
    org = get_org(context, ORG)
    sweep_org(context, org, at=context.clock() + timedelta(hours=3))
    documents = [document for partition in partitions_of(ORG) for document in service.store.list(partition, limit=500)]
    return {document.body.get("incarnation", "") for document in documents} <= {org.incarnation}


@pytest.mark.parametrize("call", ["uploadCA", "uploadServerCert", "deny"])
def test_a_late_write_is_no_obstacle_to_the_same_write_of_the_new_organization(service: Service, call: str) -> None:
    """What the old call left under the same key is overwritten."""
    old = tenant(service)
    keys = run_before_write(service, 1, lambda: delete_org(service.app.context, ORG))
    CALLS[call](old)
    service.store.between = lambda name, key, run: run()
    assert keys
    create_org(service.app.context, ORG, now=True)
    new = new_tenant(service, ORG)
    assert inherited(old, new) == []
    answer = CALLS[call](new)
    assert getattr(answer, "status", None) == 201
    if call == "uploadCA":
        assert new.connect(LATER)["decision"] == "allow"


# ------------------------------------------------------------------------------------------------ interrupted


class Killed(BaseException):
    """The process ends."""


def kill_at(service: Service, number: int, *, is_made: bool) -> None:
    """End the process at the write of that number, before or after the write is made."""
    seen = 0

    def between(name: str, key: Key | None, run: Callable[[], Any]) -> Any:
        nonlocal seen
        if name in WRITES:
            seen += 1
            if seen == number:
                if is_made:
                    run()
                raise Killed
        return run()

    service.store.between = between


def writes_of_a_deletion(service: Service) -> int:
    tenant(service)
    keys = run_before_write(service, 0, lambda: None)
    delete_org(service.app.context, ORG)
    service.app.close()
    return len(keys)


@pytest.mark.slow
@pytest.mark.parametrize("is_made", [False, True], ids=["before the write", "after the write"])
@pytest.mark.parametrize("completion", ["the same call again", "a sweep"])
def test_a_deletion_that_is_killed_at_any_write_is_completed(
    fresh: Callable[[], Service], completion: str, is_made: bool
) -> None:
    for number in range(1, writes_of_a_deletion(fresh()) + 1):
        service = fresh()
        context, old = service.app.context, tenant(service)
        kill_at(service, number, is_made=is_made)
        with pytest.raises(Killed):
            delete_org(context, ORG)
        service.store.between = lambda name, key, run: run()
        stored = context.repository.get(org_ref(ORG))
        assert stored is not None
        if stored.deletion is None:
            assert (number, is_made) == (1, False), "the first write is the tombstone"
            delete_org(context, ORG)
        elif stored.is_deleting:
            with pytest.raises(OrgDeleting):
                create_org(context, ORG, now=True)
            assert old.operator.get("/session").status in (401, 404)
            answer = old.broker.post("/verifyClient", old.question(ROOT))
            assert answer.status == 401 or answer.ok()["code"] == "org_unknown"
            assert old.scoped_edge.get(f"//edge/v1/hosts/{old.host}").status == 404
            if completion == "a sweep":
                assert sweep_deleted_orgs(context) == 1
                assert HostFeed(context).sweep() == 0
            else:
                delete_org(context, ORG)
        create_org(context, ORG)
        assert inherited(old, new_tenant(service, ORG)) == [], f"killed at write {number}"
        service.app.close()


def test_a_deletion_that_was_slow_deletes_nothing_of_the_new_organization(service: Service) -> None:
    """Another process completed the deletion meanwhile, and the id was created again."""
    old = tenant(service)
    new: list[Tenant] = []

    def take_over() -> None:
        hand_over(service)
        new.append(new_tenant(service, ORG))
        new[0].operator.post(CAS, {"certificate": LATER.pem}).ok(201)

    keys = run_before_write(service, 8, take_over)
    delete_org(service.app.context, ORG)
    service.store.between = lambda name, key, run: run()
    assert len(keys) >= 8
    assert new[0].connect(LATER)["decision"] == "allow"
    assert new[0].connect(ROOT)["decision"] == "deny"
    assert old.operator.get("/session").status == 401


@pytest.mark.parametrize(("days", "is_deleted"), [(6, True), (8, False)])
def test_a_sweep_deletes_what_a_late_call_wrote(service: Service, days: int, is_deleted: bool) -> None:
    """For a week after the deletion. Then the sweep no longer looks, and the document counts for no organization."""
    old = tenant(service)
    [body] = [document.body for document in service.store.list(f"ca/{ORG}")][:1]
    delete_org(service.app.context, ORG)
    service.clock.now += timedelta(days=days)
    service.store.put(Key(f"ca/{ORG}", "late"), body, expected=None)
    assert sweep_deleted_orgs(service.app.context) == 0
    assert (service.store.list(f"ca/{ORG}") == []) is is_deleted
    create_org(service.app.context, ORG, now=True)
    assert inherited(old, new_tenant(service, ORG)) == []


# ------------------------------------------------------------------------------------------------- quarantine


def test_an_id_is_refused_during_its_quarantine(service: Service) -> None:
    """The refusal says until when. The platform's operator may override it."""
    context = service.app.context
    tenant(service)
    tombstone = delete_org(context, ORG)
    assert tombstone.deletion is not None
    with pytest.raises(OrgInQuarantine, match="1 Jul 2026, 12:00 UTC"):
        create_org(context, ORG)
    service.clock.now += timedelta(days=30, seconds=-1)
    with pytest.raises(OrgInQuarantine):
        create_org(context, ORG)
    service.clock.now += timedelta(seconds=1)
    create_org(context, ORG)
    with pytest.raises(OrgExists):
        create_org(context, ORG, now=True)


def test_a_later_incarnation_sorts_behind_even_if_the_clock_was_set_back(service: Service) -> None:
    context, marks = service.app.context, [""]
    create_org(context, ORG)
    for _ in range(3):
        service.clock.now -= timedelta(days=100)
        delete_org(context, ORG)
        org = create_org(context, ORG, now=True)
        assert org.incarnation > marks[-1]
        marks.append(org.incarnation)


def test_a_tombstone_is_a_suspended_organization_for_the_version_before(service: Service) -> None:
    """Version 0.1.0 does not know the fields `deletion` and `incarnation`."""
    tenant(service)
    delete_org(service.app.context, ORG)
    [document] = service.store.get_many([org_ref(ORG).key]).values()
    body = {name: value for name, value in document.body.items() if name not in ("deletion", "incarnation")}
    assert body["suspended"] is True
    assert "servers" not in body
    assert "outbox" not in body


# ------------------------------------------------------------------------------------- stores of the version before


def test_an_organization_that_is_new_has_no_mark(service: Service) -> None:
    """So functions of the version before, which write no mark, may run beside the new ones on one store."""
    old = tenant(service)
    documents = [document for partition in partitions_of(ORG) for document in service.store.list(partition)]
    assert len(documents) > 10
    assert not [document for document in documents if "incarnation" in document.body]
    assert old.connect()["decision"] == "allow"


@pytest.mark.parametrize("left", ["ca", "key", "hosts", "scope"])
def test_an_id_that_the_version_before_deleted_inherits_nothing(service: Service, left: str) -> None:
    """Version 0.1.0 leaves no tombstone. Whatever it left is a sign that the id was in use."""
    context, old = service.app.context, tenant(service)
    kept = {
        "ca": [f"ca/{ORG}"],
        "key": [f"key/{ORG}"],
        "hosts": ["hosts"],
        "scope": [],
    }[left]
    for partition in {"org", "caindex", "hosts", *partitions_of(ORG)} - set(kept):
        for document in service.store.list(partition, limit=500):
            if ORG in (document.key.id, partition.partition("/")[2].partition("/")[0]):
                service.store.delete(document.key, expected=document.version)
    service.clock.now += timedelta(seconds=1)
    assert create_org(context, ORG).incarnation
    assert inherited(old, new_tenant(service, ORG)) == []


def test_a_store_that_had_organizations_gets_no_first_keys(tmp_path: Path) -> None:
    """Neither after all were deleted, nor where the version before deleted them without a tombstone."""
    service = make_service(tmp_path, org_quarantine_days=0)
    app = service.app
    delete_org(app.context, service.org_id)
    assert first_start(app.context, app.sealer) == []
    [tombstone] = service.store.list("org")
    service.store.delete(tombstone.key, expected=tombstone.version)
    assert first_start(app.context, app.sealer) == []
    app.close()


# ------------------------------------------------------------------------------------------------ late events


def test_an_object_that_the_old_organization_uploaded_is_not_imported(service: Service) -> None:
    """An event may be delivered again after days, and the object may still be there."""
    old = tenant(service)
    stored = FoundObject("bucket", f"{ORG}/ca/later.pem", "1", None, len(LATER.pem), service.clock.now)
    service.clock.now += timedelta(days=1)
    hand_over(service)

    class Objects:
        def find(self, uploaded: UploadedObject) -> FoundObject:
            return stored

        def read(self, found: FoundObject) -> bytes:
            return LATER.pem.encode()

        def remove(self, found: FoundObject) -> None: ...

    app = service.app
    outcome = on_upload(app.context, app.sealer, Objects(), UploadedObject("bucket", stored.key), bucket="bucket")
    assert outcome.end is End.IGNORED
    assert inherited(old, new_tenant(service, ORG)) == []


def test_platform_edges_remove_the_hosts_of_the_old_organization(service: Service) -> None:
    """Also where the id changed hands between two of their requests. The new organization does not learn the names."""
    old = tenant(service)
    old.operator.put(SETTINGS, {"customDomains": {"enabled": True, "domains": ["old.example"]}}).ok()
    everywhere = service.platform("edge")
    heads = {edge: edge.get("//edge/v1/hosts").ok()["head"] for edge in (everywhere, old.scoped_edge)}
    hand_over(service)
    new = new_tenant(service, ORG)

    def removed(edge: Client, head: str) -> set[str]:
        listed = edge.get("//edge/v1/hosts", query={"since": head}).ok()["hosts"]
        return {host["serverName"] for host in listed if host.get("removed")}

    custom = f"{ORG}.messaging.old.example"
    assert removed(everywhere, heads[everywhere]) == {custom}
    assert removed(old.scoped_edge, heads[old.scoped_edge]) == {custom, old.host}
    assert removed(new.edge, heads[everywhere]) == set()


def test_a_deletion_leaves_the_tombstone_and_the_removed_hosts(tmp_path: Path) -> None:
    """And lines of the feeds. A partition of an organization that is added later must not be forgotten."""
    service = make_service(tmp_path)
    tenant(service)
    with sqlite3.connect(tmp_path / "trust.db") as store:
        keys = [key for (key,) in store.execute("SELECT key FROM documents") if ORG in key]
        kinds = {key.partition("\x1f")[0].partition("/")[0] for key in keys}
        assert kinds >= {"org", "hosts", "caindex", "ca", "server", "deny", "denycount", "usage", "key", "activity"}
        delete_org(service.app.context, ORG)
        left = [key for (key,) in store.execute("SELECT key FROM documents") if ORG in key]
    assert left == [f"hosts\x1f{ORG}", f"org\x1f{ORG}"]
    service.app.close()


def test_a_store_that_fails_during_the_deletion_says_so(service: Service) -> None:
    """The caller repeats the call."""
    old = tenant(service)

    def between(name: str, key: Key | None, run: Callable[[], Any]) -> Any:
        if name == "delete":
            raise StoreUnavailable
        return run()

    service.store.between = between
    with pytest.raises(StoreUnavailable):
        delete_org(service.app.context, ORG)
    service.store.between = lambda name, key, run: run()
    delete_org(service.app.context, ORG)
    delete_org(service.app.context, ORG)  # a third time, for late writes
    create_org(service.app.context, ORG, now=True)
    assert inherited(old, new_tenant(service, ORG)) == []
