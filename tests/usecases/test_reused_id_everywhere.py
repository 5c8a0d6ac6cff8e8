"""A reused id on every store, beside functions of the version before, and under the load of many deletions."""

import contextlib
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.ports import Key
from shared.records import CAsOfOneName, Org, to_body
from shared.refs import cas_ref, org_ref
from shared.usecases.orgs.deletion import delete_org, partitions_of
from shared.usecases.orgs.organizations import create_org, get_org
from tests.support import certs
from tests.support.harness import Service, make_service
from tests.support.tenants import CAS, DENIALS, LATER, ROOT, Tenant, inherited, new_tenant

ORG = "tenant"
NEW_FIELDS = ("incarnation", "deletion", "incarnations", "former")  # version 0.1.0 neither reads nor writes them


def tenant(service: Service) -> Tenant:
    create_org(service.app.context, ORG)
    made = new_tenant(service, ORG)
    made.fill()
    return made


def rewrite_as_before(service: Service, key: Key) -> None:
    """Write a document as version 0.1.0 does: fields that it does not know are lost."""
    [document] = service.store.get_many([key]).values()
    body = {name: value for name, value in document.body.items() if name not in NEW_FIELDS}
    service.store.put(key, body, expected=document.version)


def own_keys(service: Service) -> list[Key]:
    documents = [document for partition in partitions_of(ORG) for document in service.store.list(partition)]
    return [*(document.key for document in documents), org_ref(ORG).key, Key("hosts", ORG), Key("caindex", ORG)]


def test_what_the_version_before_stored_is_the_first_organizations(service: Service) -> None:
    """On every store. Then the id is deleted and created again; a late write of 0.1.0 is not the new organization's."""
    old = tenant(service)
    [late] = [
        document.body
        for document in service.store.get_many(
            [key for key in own_keys(service) if key.partition == f"ca/{ORG}"]
        ).values()
    ]
    for key in own_keys(service):
        rewrite_as_before(service, key)
    assert old.connect()["decision"] == "allow"
    assert [ca["id"] for ca in old.operator.get(CAS).ok()["results"]]
    delete_org(service.app.context, ORG)
    create_org(service.app.context, ORG, now=True)
    ca_id = next(iter(late["cas"]))
    service.store.put(cas_ref(ORG, ca_id[:16]).key, late, expected=None)
    new = new_tenant(service, ORG)
    assert inherited(old, new) == []
    new.operator.post(CAS, {"certificate": ROOT.pem}).ok(201)
    assert new.connect()["decision"] == "allow"


@pytest.mark.stores("sqlite")
def test_both_versions_serve_a_new_organization_beside_each_other(service: Service) -> None:
    """Each version rewrites documents of the other, in both orders, and nothing is lost."""
    old = tenant(service)
    for key in own_keys(service):
        rewrite_as_before(service, key)
        assert old.connect()["decision"] == "allow", key
        assert old.operator.get(CAS).ok()["results"]
        old.operator.post(CAS, {"certificate": LATER.pem})
        rewrite_as_before(service, key)
        assert old.connect(LATER)["decision"] == "allow", key
    old.operator.post(DENIALS, {"kind": "identity", "value": "d:thermo:42"}).ok(201)
    assert old.connect()["decision"] == "deny"


@pytest.mark.stores("sqlite")
def test_a_tombstone_that_the_version_before_rewrote_refuses_everybody(service: Service) -> None:
    """A call of 0.1.0 that was in progress writes the organization without the mark of the deletion. The deletion can
    be repeated, and the id inherits nothing."""
    old = tenant(service)
    delete_org(service.app.context, ORG)
    rewrite_as_before(service, org_ref(ORG).key)
    assert get_org(service.app.context, ORG).suspended
    assert old.operator.get("/session").status == 401
    delete_org(service.app.context, ORG)
    assert create_org(service.app.context, ORG, now=True).incarnation
    assert inherited(old, new_tenant(service, ORG)) == []


@pytest.mark.stores("sqlite")
def test_a_document_of_an_organization_stays_readable_for_the_version_before() -> None:
    """A first organization's documents have no new field at all."""
    assert "incarnation" not in to_body(CAsOfOneName())
    assert not set(NEW_FIELDS) & {name for name in Org.__struct_fields__ if name not in NEW_FIELDS}


class Load:
    """Threads of callers of one tenant, who upload and connect until `stop`."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self._stopping = threading.Event()
        calls: list[Callable[[], Any]] = [
            lambda: tenant.operator.post(CAS, {"certificate": random.choice(CANDIDATES).pem}),
            lambda: tenant.operator.post(DENIALS, {"kind": "identity", "value": f"d:thermo:{random.randrange(9)}"}),
            self._connect,
        ]
        self._threads = [threading.Thread(target=self._run, args=(call,), daemon=True) for call in calls]
        for thread in self._threads:
            thread.start()

    def _connect(self) -> None:
        with contextlib.suppress(AssertionError):  # the key is refused
            self._tenant.connect(ROOT)
        self._tenant.service.flush()

    def _run(self, call: Callable[[], Any]) -> None:
        while not self._stopping.is_set():
            call()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


CANDIDATES = [ROOT, *(certs.ca(f"Old {number}") for number in range(10))]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.stores("sqlite")
def test_many_deletions_under_load_leave_nothing(tmp_path: Path) -> None:
    """The id is created again while the callers of the old organization go on. TRUST_TEST_DELETIONS: how often."""
    service = make_service(tmp_path, org_quarantine_days=0)
    create_org(service.app.context, ORG)
    old = new_tenant(service, ORG)
    for number in range(int(os.environ.get("TRUST_TEST_DELETIONS", "150"))):
        old.operator.post(CAS, {"certificate": ROOT.pem}).ok(201)
        load = Load(old)
        delete_org(service.app.context, ORG)
        create_org(service.app.context, ORG)
        new = new_tenant(service, ORG)
        if number % 2:  # the load goes on while the new organization is looked at
            assert inherited(old, new) == [], f"deletion {number}"
            load.stop()
            left = [new.operator.get(path).ok()["results"] for path in (CAS, DENIALS)]
            assert left == [[], []], f"deletion {number}"
        else:
            load.stop()
            service.flush()
            assert inherited(old, new) == [], f"deletion {number}"
        old = new
    service.app.close()
