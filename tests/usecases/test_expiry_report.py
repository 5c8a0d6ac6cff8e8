"""expiryReport: expiries are reported once a day in three ways, for every org, and what a crash left is mended."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from shared.errors import StoreUnavailable
from shared.org_repository import OrgRepository
from shared.ports import Key, WebhookFailed
from shared.records import ActivityKind, ActivityPage, Org, ServerCertificate
from shared.refs import default_ref, org_ref, server_ref
from shared.usecases.jobs import expiry_report as module
from shared.usecases.jobs.expiry_report import Report, Unfinished, expiry_report
from shared.usecases.organization import Organization
from tests.support import certs
from tests.support.certs import DAY, NOON
from tests.support.harness import Client, Service

ROOT = certs.ca("Root")


@dataclass
class Hook:
    """A webhook that records its messages."""

    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    refuses: Callable[[dict[str, Any]], bool] = lambda _: False

    def send(self, message_id: str, body: bytes) -> None:
        message = json.loads(body)
        if self.refuses(message):
            raise WebhookFailed("it answered 500")
        self.messages.append((message_id, message))

    def certificates(self) -> dict[str, list[dict[str, Any]]]:
        """Return the certificates of each organization, over all messages."""
        orgs = [org for _, message in self.messages for org in message["data"]["orgs"]]
        assert len({org["org"] for org in orgs}) == len(orgs), "an org is reported once"
        return {org["org"]: org["certificates"] for org in orgs}


@pytest.fixture
def hook() -> Hook:
    return Hook()


def run(service: Service, hook: Hook | None, **more: Any) -> Report:
    return expiry_report(service.app.context, hook, **more)


def add_ca(client: Client, name: str, ends: datetime) -> str:
    """Register a CA that ends at *ends*. Return its id."""
    ca = certs.ca(name, not_after=ends)
    ca_id: str = client.post("/authentication/cacertificates", {"certificate": ca.pem}).ok(201)["id"]
    return ca_id


def add_server(service: Service, client: Client, ends: datetime) -> str:
    issued = certs.server(service.host(), ROOT, private=certs.key("P-256", ends.toordinal()), not_after=ends)
    body = {"certificate": issued.pem, "privateKey": issued.key_pem}
    certificate_id: str = client.post("/authentication/servercertificates", body).ok(201)["id"]
    return certificate_id


def entries(client: Client) -> list[dict[str, Any]]:
    results = client.get("/activity?kind=change").ok()["results"]
    return [entry for entry in results if entry["what"] == "expiryReport"]


@pytest.mark.parametrize(
    ("left", "stage"),
    [
        (timedelta(days=30, seconds=1), None),
        (timedelta(days=30), "within30"),
        (timedelta(days=7, seconds=1), "within30"),
        (timedelta(days=7), "within7"),
        (timedelta(0), "within7"),
        (-timedelta(seconds=1), "ended"),
        (-timedelta(days=400), "ended"),
    ],
)
def test_a_ca_is_reported_from_30_days_before_its_end(
    left: timedelta, stage: str | None, service: Service, operator: Client, hook: Hook
) -> None:
    """In three stages: within 30 days, within 7 days, ended. An active CA is reported without end."""
    ends = NOON + timedelta(days=100)
    ca_id = add_ca(operator, "Root", ends)
    service.clock.now = ends - left
    run(service, hook)
    certificates = hook.certificates().get(service.org_id)
    if stage is None:
        assert certificates is None
        assert entries(operator) == []
        return
    expected = {"kind": "ca", "id": ca_id, "notAfter": "2026-09-09T12:00:00Z", "stage": stage, "inForce": True}
    assert certificates == [expected]
    [entry] = entries(operator)
    assert entry["result"] == stage
    assert entry["detail"] == {stage: "1", "certificates": ca_id}


def test_an_inactive_ca_is_not_reported(service: Service, operator: Client, hook: Hook) -> None:
    """No client connects by an inactive CA, ended or not."""
    ca_id = add_ca(operator, "Root", NOON + DAY)
    operator.put(f"/authentication/cacertificates/{ca_id}", {"status": "inactive"}).ok()
    run(service, hook)
    assert hook.certificates() == {}


def test_an_ended_server_certificate_is_reported_as_long_as_it_is_active(
    service: Service, operator: Client, hook: Hook
) -> None:
    """Another certificate, which is not active, is reported for 30 days."""
    active, other = (add_server(service, operator, NOON + days * DAY) for days in (1, 2))
    operator.put("/authentication/servercertificates/active", {"id": active}).ok()
    service.clock.now = NOON + 20 * DAY
    run(service, hook)
    assert [(server["id"], server["inForce"]) for server in hook.certificates()["mtxpd0"]] == [
        (active, True),
        (other, False),
    ]
    hook.messages.clear()
    service.clock.now = NOON + 40 * DAY
    run(service, hook)
    assert [server["id"] for server in hook.certificates()["mtxpd0"]] == [active]


def test_a_request_without_certificate_is_not_reported(service: Service, operator: Client, hook: Hook) -> None:
    """A request has no end."""
    operator.post("/authentication/servercertificates/csr", {"keyAlgorithm": "P-256"}).ok(201)
    run(service, hook)
    assert hook.certificates() == {}


def test_the_default_certificate_of_the_platform_is_reported(service: Service, hook: Hook) -> None:
    """All organizations share the certificate, so the report names the platform."""
    service.clock.now = NOON + timedelta(days=820)
    run(service, hook)
    assert [server["kind"] for server in hook.certificates()["platform"]] == ["default"]


def test_each_certificate_is_a_line_of_the_log(
    service: Service, operator: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """The line has fields that an alarm can use, also without a webhook."""
    ca_id = add_ca(operator, "Root", NOON + 3 * DAY)
    with caplog.at_level(logging.INFO):
        run(service, None)
        run(service, None)
    [line] = [record for record in caplog.records if record.message == "a certificate expires soon"]
    assert (line.levelname, vars(line)["org"], vars(line)["id"]) == ("WARNING", "mtxpd0", ca_id)
    assert (vars(line)["stage"], vars(line)["kind"]) == ("within7", "ca")


def test_an_expired_certificate_in_force_is_an_error_in_the_log(
    service: Service, operator: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Devices are refused at this moment."""
    add_ca(operator, "Root", NOON + DAY)
    service.clock.now = NOON + 2 * DAY
    run(service, None)
    assert [record.levelname for record in caplog.records if record.message == "a certificate has expired"] == ["ERROR"]


# ------------------------------------------------------------------------------------------ repeated and interrupted


def test_a_second_run_of_the_day_reports_nothing_again(service: Service, operator: Client, hook: Hook) -> None:
    """The schedule may call at any rate. The next day reports again."""
    add_ca(operator, "Root", NOON + 3 * DAY)
    assert run(service, hook).is_finished
    assert run(service, hook).is_finished
    assert (len(hook.messages), len(entries(operator))) == (1, 1)
    service.clock.now += DAY
    run(service, hook)
    assert (len(hook.messages), len(entries(operator))) == (2, 2)
    assert hook.messages[0][0] != hook.messages[1][0]


def many(service: Service, count: int) -> list[str]:
    """Create *count* organizations with one CA each, which ends soon. Return all ids."""
    operator, orgs = service.client("operator"), [f"org{n:03}" for n in range(count)]
    ca_id = add_ca(operator, "Root", NOON + 3 * DAY)
    repository = service.app.context.repository
    for org_id in orgs:
        service.other_org(org_id)
        [line] = repository.export_documents([Key("ca/mtxpd0", ca_id[:16])], [])
        repository.import_document({**line, "partition": f"ca/{org_id}"})
        for attempt in Organization(OrgRepository(repository, org_id, "")).changing():
            with attempt as org:
                attempt.write(msgspec.structs.replace(org, has_ca=True))
    return [*orgs, "mtxpd0"]


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAGE", 3)


@pytest.mark.usefixtures("small_pages")
def test_every_org_is_reported_page_by_page(service: Service, hook: Hook) -> None:
    """No page is left out, and none comes twice."""
    orgs = many(service, 10)
    assert run(service, hook).orgs == 11
    assert sorted(hook.certificates()) == sorted(orgs)
    assert len(hook.messages) == 4


@pytest.mark.usefixtures("small_pages")
def test_a_run_whose_time_is_up_is_continued_by_the_next_run(service: Service, hook: Hook) -> None:
    """The time of a function is limited, and the platform calls again."""
    orgs = many(service, 10)
    with pytest.raises(Unfinished, match="after 3 organizations"):
        run(service, hook, enough=lambda: True)
    assert run(service, hook).orgs == 8
    assert sorted(hook.certificates()) == sorted(orgs)


@pytest.mark.usefixtures("small_pages")
def test_a_message_that_was_not_delivered_is_sent_by_the_next_run_without_the_others(
    service: Service, hook: Hook, operator: Client
) -> None:
    """The other messages are neither delayed nor repeated. Activity lists and log do not wait for the webhook."""
    orgs = many(service, 10)
    hook.refuses = lambda message: any(org["org"] == "org004" for org in message["data"]["orgs"])
    with pytest.raises(Unfinished, match="it answered 500"):
        run(service, hook)
    assert sorted(hook.certificates()) == sorted(set(orgs) - {"org002", "org003", "org004"})
    assert len(entries(service.client("viewer", "org004"))) == 1
    hook.refuses = lambda _: False
    assert run(service, hook).is_finished
    assert sorted(hook.certificates()) == sorted(orgs)
    assert len(entries(service.client("viewer", "org004"))) == 1


def test_a_default_certificate_whose_message_was_not_delivered_is_reported_again(service: Service, hook: Hook) -> None:
    """The default certificate is reported before the first page."""
    service.clock.now = NOON + timedelta(days=820)
    hook.refuses = lambda _: True
    with pytest.raises(Unfinished):
        run(service, hook)
    hook.refuses = lambda _: False
    run(service, hook)
    assert list(hook.certificates()) == ["platform"]


def test_an_error_of_the_store_ends_the_run_and_the_next_run_completes_the_report(
    service: Service, operator: Client, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is raised, so that the platform calls again."""
    add_ca(operator, "Root", NOON + DAY)

    def fails(*_: Any, **__: Any) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(service.store, "put", fails)
        with pytest.raises(StoreUnavailable):
            run(service, hook)
    run(service, hook)
    assert list(hook.certificates()) == ["mtxpd0"]


def test_a_message_holds_at_most_20_certificates_of_an_org(service: Service, operator: Client, hook: Hook) -> None:
    """The first to end, and the number of the others."""
    ids = [add_ca(operator, f"CA {n}", NOON + timedelta(days=3, hours=n)) for n in range(23)]
    run(service, hook)
    [(_, message)] = hook.messages
    [org] = message["data"]["orgs"]
    assert [ca["id"] for ca in org["certificates"]] == ids[:20]
    assert org["more"] == 3
    assert message["type"] == "certificates.ending"


# ----------------------------------------------------------------------------------------------------------- mending


def test_a_body_that_no_index_names_is_deleted_after_an_hour(service: Service, operator: Client) -> None:
    """An upload wrote the body and crashed before it wrote the index. Listed and younger bodies stay."""
    kept = add_server(service, operator, NOON + 100 * DAY)
    repository = service.app.context.repository
    body = repository.get(server_ref("mtxpd0", kept))
    assert body is not None
    repository.create(server_ref("mtxpd0", "orphan"), body)
    run(service, None, sweep_all=True)
    assert bodies(service) == sorted([kept, "orphan"])
    service.clock.now += DAY
    young = msgspec.structs.replace(body.changed, created_at=service.clock.now - timedelta(minutes=59))
    repository.create(server_ref("mtxpd0", "young"), msgspec.structs.replace(body, changed=young))
    assert run(service, None, sweep_all=True).swept == 1
    assert bodies(service) == sorted([kept, "young"])


def bodies(service: Service) -> list[str]:
    return sorted(
        certificate_id
        for certificate_id, _ in service.app.context.repository.iterate("server/mtxpd0", ServerCertificate)
    )


def test_every_org_is_swept_once_a_week(service: Service) -> None:
    """A daily scan of all bodies of all organizations would cost more than it mends."""
    repository = service.app.context.repository
    swept = 0
    record = ServerCertificate(
        source="upload",  # type: ignore[arg-type]
        key=repository.get(default_ref()).key,  # type: ignore[union-attr]
        key_hash="00",
        changed=repository.get(org_ref("mtxpd0")).settings_changed,  # type: ignore[union-attr]
    )
    for _ in range(7):
        service.clock.now += DAY
        repository.create(server_ref("mtxpd0", "orphan"), record)
        swept += run(service, None).swept
    assert swept == 1


def test_an_activity_entry_that_a_crash_left_in_its_document_is_copied(
    service: Service, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry is written into the changed document first. The report copies the entry to the list."""
    put = service.store.put

    def fails_for_the_list(key: Key, *more: Any, **named: Any) -> str:
        if key.partition.startswith("activity/"):
            raise StoreUnavailable
        return put(key, *more, **named)

    def list_activity() -> list[str]:
        return [entry["what"] for entry in operator.get("/activity?kind=change").ok()["results"]]

    with monkeypatch.context() as patched:
        patched.setattr(service.store, "put", fails_for_the_list)
        add_ca(operator, "Root", NOON + 100 * DAY)
        operator.post("/authorization/denylist", {"kind": "identity", "value": "d:thermo:42"}).ok(201)
        server = add_server(service, operator, NOON + 100 * DAY)
        operator.put("/authentication/servercertificates/active", {"id": server}).ok()
    before = list_activity()
    assert "uploadCA" not in before
    assert "deny" not in before
    assert run(service, None).copied >= 3
    assert {"uploadCA", "deny", "activateServerCert"} <= set(list_activity())
    service.clock.now += DAY
    assert run(service, None).copied == 0
    assert list_activity().count("uploadCA") == 1


def test_a_run_changes_no_other_documents(service: Service, operator: Client) -> None:
    """A run adds to the activity list of an organization, and changes nothing else of the organization."""
    add_ca(operator, "Root", NOON + DAY)
    server = add_server(service, operator, NOON + DAY)
    repository = service.app.context.repository
    before = repository.get(org_ref("mtxpd0")), repository.get(server_ref("mtxpd0", server))
    run(service, None, sweep_all=True)
    assert (repository.get(org_ref("mtxpd0")), repository.get(server_ref("mtxpd0", server))) == before
    assert isinstance(before[0], Org)
    page = repository.list("activity/mtxpd0/change", ActivityPage)
    assert all(entry.kind is ActivityKind.CHANGE for _, record in page for entry in record.entries)
