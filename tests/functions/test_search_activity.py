"""The activity list for people with much of it: text, days, pages, and a table."""

import csv
import io
from datetime import timedelta

import pytest

from shared.records import Activity, ActivityKind
from shared.refs import activity_id
from shared.usecases import activity
from shared.usecases.callers import label_key
from tests.support.certs import NOON
from tests.support.harness import Client, Service

DENY = "/authorization/denylist"
DAY = timedelta(days=1)


@pytest.fixture
def days(service: Service, operator: Client) -> Client:
    """Three entries at noon of 1, 2 and 3 June, beside the two that made the organization; return a viewer."""
    for number in range(3):
        service.clock.now = NOON + number * DAY
        operator.post(DENY, {"kind": "identity", "value": f"d:Pump:{number}"}).ok(201)
    return service.client("viewer")


def found(client: Client, **query: str) -> list[str]:
    """Return the identities in the entries that a search finds, of every page."""
    shown: list[str] = []
    bookmark: str | None = ""
    while bookmark is not None:
        page = client.get("/activity", query={**query, **({"bookmark": bookmark} if bookmark else {})}).ok()
        shown += [value for entry in page["results"] for value in entry.get("detail", {}).values() if "Pump" in value]
        bookmark = page["bookmark"]
    return [value.rpartition(":")[2] for value in shown]


def test_entries_of_some_days_are_found(days: Client) -> None:
    """Both ends are within. A day is a day in UTC."""
    assert found(days) == ["2", "1", "0"]
    assert found(days, **{"from": "2026-06-02"}) == ["2", "1"]
    assert found(days, to="2026-06-02") == ["1", "0"]
    assert found(days, **{"from": "2026-06-02", "to": "2026-06-02"}) == ["1"]
    assert found(days, **{"from": "2026-06-02T12:00:00Z", "to": "2026-06-03T12:00:00Z"}) == ["2", "1"]
    assert found(days, **{"from": "2026-06-02T14:00:01+02:00"}) == ["2"]
    assert found(days, to="2026-06-02T11:59:59Z") == ["0"]
    assert found(days, **{"from": "2027-01-01"}) == []


def test_entries_with_a_text_are_found(days: Client, operator: Client) -> None:
    assert found(days, q="pump:1") == ["1"], "in any case"
    assert found(days, q=operator.key) == ["2", "1", "0"], "who"
    assert found(days, q="DENY") == ["2", "1", "0"], "what"
    assert found(days, q="pump", **{"from": "2026-06-02"}) == ["2", "1"]
    assert found(days, q="nothing") == []


@pytest.mark.parametrize("limit", ["1", "2"])
def test_a_search_is_paged_to_its_end(days: Client, limit: str) -> None:
    assert found(days, q="pump", limit=limit) == ["2", "1", "0"]
    assert found(days, to="2026-06-02", limit=limit) == ["1", "0"]
    page = days.get("/activity", query={"from": "2026-06-03", "limit": "1"}).ok()
    assert page["bookmark"] is None, "what is older is not in the list"


def test_a_long_search_is_continued(days: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that finds little reads no more than a part of the list, and says where to go on."""
    monkeypatch.setattr(activity, "READ_MAX", 1)
    page = days.get("/activity", query={"q": "pump:0"}).ok()
    assert (page["results"], page["bookmark"] is None) == ([], False)
    assert found(days, q="pump:0") == ["0"]


def test_the_name_of_a_platform_key_cannot_be_searched_for(service: Service) -> None:
    """An organization sees a label in its place."""
    platform = service.platform("edge")
    records = service.app.context.repository
    entry = Activity(activity_id(NOON), NOON, ActivityKind.EDGE, platform.key, "served", "done", detail={"x": "Pump:7"})
    records.append(service.org_id, ActivityKind.EDGE, [entry])
    viewer = service.client("viewer")
    assert found(viewer, q=label_key(platform.key)) == ["7"]
    assert found(viewer, q=platform.key) == found(viewer, q=platform.key[:6]) == []


@pytest.mark.parametrize("name", ["from", "to"])
@pytest.mark.parametrize(
    "text", ["yesterday", "2026-13-01", "2026-06-02T12:00:00", "1780000000", "2026-06-02T12:00:00 02:00", "0000-00-00"]
)
@pytest.mark.stores("sqlite")
def test_a_time_that_is_not_understood_is_refused(viewer: Client, name: str, text: str) -> None:
    reply = viewer.get("/activity", query={name: text})
    assert (reply.status, reply.code, reply.json["violations"][0]["field"]) == (400, "wrong_value", name)
    assert "a day like 2026-11-27, or a time like 2026-11-27T09:30:00Z" in reply.json["detail"]


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize("text", ["0001-01-01", "9999-12-31", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_the_first_and_the_last_day_are_days(viewer: Client, text: str) -> None:
    for name in ("from", "to"):
        assert viewer.get("/activity", query={name: text}).status in (200, 400)


def test_the_table_has_what_the_search_finds(days: Client, service: Service) -> None:
    broker = service.client("broker")
    broker.post("/verifyClient", {"serverName": service.host(), "clientId": "=cmd"}).ok()
    service.flush()
    rows = list(csv.DictReader(io.StringIO(days.get("/activity/csv", query={"q": "pump"}).text)))
    assert [row["detail"].rpartition(":")[2] for row in rows] == ["2", "1", "0"]
    assert {row["what"] for row in rows} == {"deny"}
    (refusal,) = csv.DictReader(io.StringIO(days.get("/activity/csv?kind=refusal").text))
    assert (refusal["clientId"], refusal["code"]) == ("'=cmd", "client_id_invalid")
    assert refusal["at"] == "2026-06-03T12:00:00Z"
