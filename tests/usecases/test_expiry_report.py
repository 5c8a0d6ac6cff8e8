"""expiryReport: what ends soon is told once a day, in three ways, of every org; and what a crash left is mended."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from shared.errors import StoreUnavailable
from shared.ports import Key, WebhookFailed
from shared.records import Activity, ActivityKind, ActivityPage, Org, ServerCertificate
from shared.repository import default_ref, org_ref, server_ref
from shared.usecases.jobs import expiry_report as module
from shared.usecases.jobs.expiry_report import Report, Unfinished, expiry_report
from tests import certs
from tests.certs import DAY, NOON
from tests.harness import Client, Service

ROOT = certs.ca("Root")


@dataclass
class Hook:
    """A receiver that keeps what it is told."""

    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    refuses: Callable[[dict[str, Any]], bool] = lambda _: False

    def send(self, message_id: str, body: bytes) -> None:
        message = json.loads(body)
        if self.refuses(message):
            raise WebhookFailed("it answered 500")
        self.messages.append((message_id, message))

    def told(self) -> dict[str, list[dict[str, Any]]]:
        """org -> certificates, over all messages."""
        orgs = [one for _, message in self.messages for one in message["data"]["orgs"]]
        assert len({one["org"] for one in orgs}) == len(orgs), "an org is told of once"
        return {one["org"]: one["certificates"] for one in orgs}


@pytest.fixture
def hook() -> Hook:
    return Hook()


def run(service: Service, hook: Hook | None, **more: Any) -> Report:
    return expiry_report(service.app.context, hook, **more)


def add_ca(client: Client, name: str, ends: datetime) -> str:
    """A CA that ends then; the id it has here."""
    ca = certs.ca(name, not_after=ends)
    found: str = client.post("/authentication/cacertificates", {"certificate": ca.pem}).ok(201)["id"]
    return found


def add_server(service: Service, client: Client, ends: datetime) -> str:
    issued = certs.server(service.host(), ROOT, private=certs.key("P-256", ends.toordinal()), not_after=ends)
    body = {"certificate": issued.pem, "privateKey": issued.key_pem}
    found: str = client.post("/authentication/servercertificates", body).ok(201)["id"]
    return found


def entries(client: Client) -> list[dict[str, Any]]:
    found = client.get("/activity?kind=change").ok()["results"]
    return [one for one in found if one["what"] == "expiryReport"]


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
def test_a_ca_is_told_of_from_30_days_before_its_end(
    left: timedelta, stage: str | None, service: Service, operator: Client, hook: Hook
) -> None:
    """Within 30 days, within 7, ended; as long as it is active."""
    ends = NOON + timedelta(days=100)
    ca_id = add_ca(operator, "Root", ends)
    service.clock.now = ends - left
    run(service, hook)
    found = hook.told().get(service.org_id)
    if stage is None:
        assert found is None
        assert entries(operator) == []
        return
    assert found == [{"kind": "ca", "id": ca_id, "notAfter": "2026-09-09T12:00:00Z", "stage": stage, "inForce": True}]
    [entry] = entries(operator)
    assert entry["result"] == stage
    assert entry["detail"] == {stage: "1", "certificates": ca_id}


def test_an_inactive_ca_is_not_told_of(service: Service, operator: Client, hook: Hook) -> None:
    """Nobody is let in by it, ended or not."""
    ca_id = add_ca(operator, "Root", NOON + DAY)
    operator.put(f"/authentication/cacertificates/{ca_id}", {"status": "inactive"}).ok()
    run(service, hook)
    assert hook.told() == {}


def test_an_ended_server_certificate_is_told_of_as_long_as_it_is_shown(
    service: Service, operator: Client, hook: Hook
) -> None:
    """Another one, which nobody is shown, for 30 days."""
    active, other = (add_server(service, operator, NOON + days * DAY) for days in (1, 2))
    operator.put("/authentication/servercertificates/active", {"id": active}).ok()
    service.clock.now = NOON + 20 * DAY
    run(service, hook)
    assert [(one["id"], one["inForce"]) for one in hook.told()["mtxpd0"]] == [(active, True), (other, False)]
    hook.messages.clear()
    service.clock.now = NOON + 40 * DAY
    run(service, hook)
    assert [one["id"] for one in hook.told()["mtxpd0"]] == [active]


def test_a_waiting_request_has_no_end(service: Service, operator: Client, hook: Hook) -> None:
    """There is no certificate yet."""
    operator.post("/authentication/servercertificates/csr", {"keyAlgorithm": "P-256"}).ok(201)
    run(service, hook)
    assert hook.told() == {}


def test_the_platforms_default_certificate_is_told_of(service: Service, hook: Hook) -> None:
    """It is every org's, so it is told of as the platform's."""
    service.clock.now = NOON + timedelta(days=820)
    run(service, hook)
    assert [one["kind"] for one in hook.told()["platform"]] == ["default"]


def test_each_certificate_is_a_line_of_the_log(
    service: Service, operator: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """With fields that an alarm can be set on; without a webhook too."""
    ca_id = add_ca(operator, "Root", NOON + 3 * DAY)
    with caplog.at_level(logging.INFO):
        run(service, None)
        run(service, None)
    [line] = [one for one in caplog.records if one.message == "a certificate ends"]
    assert (line.levelname, vars(line)["org"], vars(line)["id"]) == ("WARNING", "mtxpd0", ca_id)
    assert (vars(line)["stage"], vars(line)["kind"]) == ("within7", "ca")


def test_an_end_that_came_is_an_error_in_the_log(
    service: Service, operator: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Devices are being refused."""
    add_ca(operator, "Root", NOON + DAY)
    service.clock.now = NOON + 2 * DAY
    run(service, None)
    assert [one.levelname for one in caplog.records if one.message == "a certificate ends"] == ["ERROR"]


# ------------------------------------------------------------------------------------------ again, at once, in part


def test_a_second_run_of_the_day_tells_nothing_again(service: Service, operator: Client, hook: Hook) -> None:
    """So the schedule may call as often as it likes; the next day tells again."""
    add_ca(operator, "Root", NOON + 3 * DAY)
    assert run(service, hook).finished
    assert run(service, hook).finished
    assert (len(hook.messages), len(entries(operator))) == (1, 1)
    service.clock.now += DAY
    run(service, hook)
    assert (len(hook.messages), len(entries(operator))) == (2, 2)
    assert hook.messages[0][0] != hook.messages[1][0]


def many(service: Service, count: int) -> list[str]:
    """So many orgs with one CA each, which ends soon."""
    operator, orgs = service.client("operator"), [f"org{n:03}" for n in range(count)]
    ca_id = add_ca(operator, "Root", NOON + 3 * DAY)
    repository = service.app.context.repository
    for org_id in orgs:
        service.other_org(org_id)
        line = next(
            one for one in repository.dump([Key("ca/mtxpd0", ca_id[:16])], ["ca/mtxpd0"]) if one["id"] == ca_id[:16]
        )
        repository.restore({**line, "partition": f"ca/{org_id}"})
        repository.change(org_ref(org_id), lambda org: msgspec.structs.replace(org, has_ca=True) if org else org)
    return [*orgs, "mtxpd0"]


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAGE", 3)


@pytest.mark.usefixtures("small_pages")
def test_every_org_is_told_of_page_by_page(service: Service, hook: Hook) -> None:
    """However many there are: no page is left out, none comes twice."""
    orgs = many(service, 10)
    assert run(service, hook).orgs == 11
    assert sorted(hook.told()) == sorted(orgs)
    assert len(hook.messages) == 4


@pytest.mark.usefixtures("small_pages")
def test_a_run_whose_time_is_up_goes_on_where_it_was(service: Service, hook: Hook) -> None:
    """A function's time is limited; the platform calls again."""
    orgs = many(service, 10)
    with pytest.raises(Unfinished, match="after 3 organizations"):
        run(service, hook, enough=lambda: True)
    assert run(service, hook).orgs == 8
    assert sorted(hook.told()) == sorted(orgs)


@pytest.mark.usefixtures("small_pages")
def test_a_message_that_did_not_arrive_is_sent_by_the_next_run_alone(
    service: Service, hook: Hook, operator: Client
) -> None:
    """The others are not held up, and not told again; activity lists and log do not wait for a receiver."""
    orgs = many(service, 10)
    hook.refuses = lambda message: any(one["org"] == "org004" for one in message["data"]["orgs"])
    with pytest.raises(Unfinished, match="it answered 500"):
        run(service, hook)
    assert sorted(hook.told()) == sorted(set(orgs) - {"org002", "org003", "org004"})
    assert len(entries(service.client("viewer", "org004"))) == 1
    hook.refuses = lambda _: False
    assert run(service, hook).finished
    assert sorted(hook.told()) == sorted(orgs)
    assert len(entries(service.client("viewer", "org004"))) == 1


def test_a_default_certificate_whose_message_did_not_arrive_is_told_of_again(service: Service, hook: Hook) -> None:
    """It comes before the first page."""
    service.clock.now = NOON + timedelta(days=820)
    hook.refuses = lambda _: True
    with pytest.raises(Unfinished):
        run(service, hook)
    hook.refuses = lambda _: False
    run(service, hook)
    assert list(hook.told()) == ["platform"]


def test_a_store_that_does_not_answer_ends_the_run_and_the_next_one_finishes(
    service: Service, operator: Client, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raised, so that the platform calls again."""
    add_ca(operator, "Root", NOON + DAY)

    def fails(*_: Any, **__: Any) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(service.store, "put", fails)
        with pytest.raises(StoreUnavailable):
            run(service, hook)
    run(service, hook)
    assert list(hook.told()) == ["mtxpd0"]


def test_a_message_holds_at_most_so_many_certificates_of_an_org(service: Service, operator: Client, hook: Hook) -> None:
    """The first to end, and how many more there are."""
    ids = [add_ca(operator, f"CA {n}", NOON + timedelta(days=3, hours=n)) for n in range(23)]
    run(service, hook)
    [(_, message)] = hook.messages
    [org] = message["data"]["orgs"]
    assert [one["id"] for one in org["certificates"]] == ids[:20]
    assert org["more"] == 3
    assert message["type"] == "certificates.ending"


# ----------------------------------------------------------------------------------------------------------- mending


def test_a_body_that_no_index_names_is_removed_an_hour_later(service: Service, operator: Client) -> None:
    """An upload wrote it and crashed before it came to be. What the index names stays, and so does what is young."""
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
    return sorted(one for one, _ in service.app.context.repository.every("server/mtxpd0", ServerCertificate))


def test_every_org_is_swept_once_a_week(service: Service) -> None:
    """Looking through all bodies of all orgs each day would cost more than it mends."""
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
    """It is written into the changed document first; the report sees to it that the list has it too."""
    put = service.store.put

    def fails_for_the_list(key: Key, *more: Any, **named: Any) -> str:
        if key.partition.startswith("activity/"):
            raise StoreUnavailable
        return put(key, *more, **named)

    def listed() -> list[str]:
        return [one["what"] for one in operator.get("/activity?kind=change").ok()["results"]]

    with monkeypatch.context() as patched:
        patched.setattr(service.store, "put", fails_for_the_list)
        add_ca(operator, "Root", NOON + 100 * DAY)
        operator.post("/authorization/denylist", {"kind": "identity", "value": "d:thermo:42"}).ok(201)
        server = add_server(service, operator, NOON + 100 * DAY)
        operator.put("/authentication/servercertificates/active", {"id": server}).ok()
    before = listed()
    assert "uploadCA" not in before
    assert "deny" not in before
    assert run(service, None).copied >= 3
    assert {"uploadCA", "deny", "activateServerCert"} <= set(listed())
    service.clock.now += DAY
    assert run(service, None).copied == 0
    assert listed().count("uploadCA") == 1


def test_nothing_of_another_kind_is_touched(service: Service, operator: Client) -> None:
    """A run over an org changes none of its documents but by adding to its list."""
    add_ca(operator, "Root", NOON + DAY)
    server = add_server(service, operator, NOON + DAY)
    repository = service.app.context.repository
    before = repository.get(org_ref("mtxpd0")), repository.get(server_ref("mtxpd0", server))
    run(service, None, sweep_all=True)
    assert (repository.get(org_ref("mtxpd0")), repository.get(server_ref("mtxpd0", server))) == before
    assert isinstance(before[0], Org)
    page = repository.list("activity/mtxpd0/change", ActivityPage)
    assert all(isinstance(one, Activity) and one.kind is ActivityKind.CHANGE for _, p in page for one in p.entries)
