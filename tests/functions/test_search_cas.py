"""The list of CA certificates for people with many of them: search, states, order, pages, and files."""

import csv
import io
from datetime import timedelta
from typing import Any

import pytest

from tests.support import certs
from tests.support.certs import DAY, NOON
from tests.support.harness import Client, Service

SECOND = timedelta(seconds=1)
CAS = "/authentication/cacertificates"


def add(operator: Client, name: str, comments: str = "", *, status: str = "active", **more: Any) -> dict[str, Any]:
    body = {"certificate": certs.ca(name, **more).pem, "comments": comments, "status": status}
    record: dict[str, Any] = operator.post(CAS, body).ok(201)
    return record


@pytest.fixture
def four(operator: Client) -> dict[str, dict[str, Any]]:
    """CAs in four states, by name."""
    return {
        "Berlin": add(operator, "Berlin", "hall 1", not_before=NOON - 9 * DAY, not_after=NOON + 300 * DAY),
        "athens": add(operator, "athens", "Hall 2", not_before=NOON - 9 * DAY, not_after=NOON + 30 * DAY - SECOND),
        "Cairo": add(operator, "Cairo", not_after=NOON + 900 * DAY, status="inactive"),
        "Delhi": add(operator, "Delhi", not_before=NOON - 9 * DAY, not_after=NOON + 30 * DAY),
    }


def found(client: Client, query: str) -> list[str]:
    return [ca["subject"].removeprefix("CN=") for ca in client.get(f"{CAS}?{query}").ok()["results"]]


def test_a_search_finds_a_part_of_what_is_shown(four: dict[str, dict[str, Any]], viewer: Client) -> None:
    assert found(viewer, "q=hall") == ["athens", "Berlin"], "the description, in any case"
    assert found(viewer, "q=BER") == ["Berlin"], "the subject"
    digits = four["Cairo"]["fingerprintSha256"]
    pairs = ":".join(digits[at : at + 2] for at in range(10, 30, 2)).upper()
    assert found(viewer, f"q={digits[10:30]}") == found(viewer, f"q={pairs}") == ["Cairo"], "the fingerprint"
    serial = four["Delhi"]["serialNumber"]
    for written in (serial, f"00:{serial.upper()}"):
        assert "Delhi" in found(viewer, f"q={written}")
    assert found(viewer, "q=nothing") == []
    assert found(viewer, "q=") == ["athens", "Berlin", "Cairo", "Delhi"]


def test_the_states_are_counted_and_searched_for(four: dict[str, dict[str, Any]], service: Service) -> None:
    operator = service.client("operator")
    denied = {"kind": "fingerprint", "value": four["Berlin"]["fingerprintSha256"]}
    operator.post("/authorization/denylist", denied).ok(201)
    page = operator.get(f"{CAS}?sort=subject").ok()
    assert page["total"] == 4
    states = {"active": 3, "inactive": 1, "expiring": 1, "expired": 0, "notYetValid": 0, "denied": 1}
    assert page["states"] == states
    assert found(operator, "status=denied") == ["Berlin"]
    assert found(operator, "status=expiring") == ["athens"], "less than 30 days"
    assert found(operator, "status=inactive") == ["Cairo"]
    of_state = operator.get(f"{CAS}?status=inactive&q=e").ok()
    assert (of_state["total"], of_state["states"]["active"]) == (0, 3), "the other states are counted too"
    service.clock.now = NOON + 30 * DAY + timedelta(seconds=0.5)
    assert found(operator, "status=expired") == ["athens"], "the second notAfter is within the validity"
    service.clock.now = NOON + 30 * DAY + SECOND
    assert found(operator, "status=expired") == ["athens", "Delhi"]


def test_the_list_is_sorted(four: dict[str, dict[str, Any]], service: Service) -> None:
    viewer, broker = service.client("viewer"), service.client("broker")
    for seconds, name in enumerate(("Berlin", "Berlin", "Delhi")):
        service.clock.now = NOON + timedelta(seconds=seconds)
        device = certs.leaf("d:thermo:42", certs.ca(name, not_before=NOON - 9 * DAY))
        fields = {"serverName": service.host(), "clientId": "d:mtxpd0:thermo:42", "certificate": device.pem}
        assert broker.post("/authorization/verifyclient", fields).ok()["decision"] == "allow"
    service.flush()
    assert found(viewer, "sort=-lastUsed")[:2] == ["Delhi", "Berlin"]
    assert found(viewer, "sort=lastUsed")[2:] == ["Berlin", "Delhi"], "a CA that was not used comes first"
    assert found(viewer, "sort=-connections30d")[:2] == ["Berlin", "Delhi"]
    assert found(viewer, "sort=subject") == ["athens", "Berlin", "Cairo", "Delhi"], "upper and lower case are equal"
    assert found(viewer, "sort=-subject") == ["Delhi", "Cairo", "Berlin", "athens"]
    assert found(viewer, "sort=notAfter") == ["athens", "Delhi", "Berlin", "Cairo"]
    assert found(viewer, "sort=-notAfter")[0] == "Cairo"
    assert sorted(found(viewer, "sort=createdAt")) == sorted(four)


def test_pages_show_each_ca_once_in_every_order(operator: Client, viewer: Client) -> None:
    names = [f"Root {number:02}" for number in range(7)]
    for name in names:
        add(operator, name)
    for sort in ("subject", "-subject", "notAfter", "-createdAt", "lastUsed", "-connections30d"):
        shown: list[str] = []
        bookmark = ""
        while bookmark is not None:
            page = viewer.get(f"{CAS}?sort={sort}&limit=3" + (bookmark and f"&bookmark={bookmark}")).ok()
            shown += [ca["subject"] for ca in page["results"]]
            bookmark = page["bookmark"]
        assert sorted(shown) == [f"CN={name}" for name in names], sort


def test_a_page_after_a_deleted_ca_is_refused(operator: Client) -> None:
    first, _ = add(operator, "A"), add(operator, "B")
    bookmark = operator.get(f"{CAS}?sort=subject&limit=1").ok()["bookmark"]
    operator.delete(f"{CAS}/{first['id']}").ok(204)
    reply = operator.get(f"{CAS}?sort=subject&limit=1&bookmark={bookmark}")
    assert reply.status == 400
    assert reply.json["violations"][0]["field"] == "bookmark"
    assert "Read the list from its start." in reply.json["detail"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("sort=size", "sort"),
        ("sort=--subject", "sort"),
        ("sort=-", "sort"),
        ("status=good", "status"),
        ("q=" + "x" * 201, "q"),
    ],
)
@pytest.mark.stores("sqlite")
def test_a_search_that_is_not_understood_is_refused(viewer: Client, query: str, field: str) -> None:
    reply = viewer.get(f"{CAS}?{query}")
    assert reply.status == 400
    assert reply.json["violations"][0]["field"] == field


def test_a_list_without_a_search_reads_one_page(service: Service) -> None:
    operator = service.client("operator")
    for number in range(5):
        add(operator, f"Root {number}")
    page = operator.get(f"{CAS}?limit=2").ok()
    assert "total" not in page
    assert [ca["id"] for ca in page["results"]] == sorted(ca["id"] for ca in page["results"])


def test_cas_are_read_by_their_ids(four: dict[str, dict[str, Any]], service: Service) -> None:
    """In one read; an id that does not exist is left out, and so is another organization's."""
    viewer = service.client("viewer")
    other = service.client("operator", service.other_org("other1"))
    theirs = add(other, "Theirs")
    ids = [four["Cairo"]["id"], four["Delhi"]["id"], "absent", theirs["id"]]
    before = service.store.calls["get_many"]
    page = viewer.get(CAS, query={"ids": ",".join([*ids, ids[0]])}).ok()
    assert sorted(ca["id"] for ca in page["results"]) == sorted(ids[:2])
    assert service.store.calls["get_many"] - before <= 3, "the caller, the CAs and their use"
    assert other.get(CAS, query={"ids": ids[0]}).ok()["results"] == []
    assert viewer.get(CAS, query={"ids": ""}).ok()["results"] == []
    for wrong in (",".join(f"a{number}" for number in range(51)), "a/b", "a b"):
        refused = viewer.get(CAS, query={"ids": wrong})
        assert (refused.status, refused.json["violations"][0]["field"]) == (400, "ids")


def test_the_table_has_what_the_search_finds(four: dict[str, dict[str, Any]], viewer: Client) -> None:
    reply = viewer.get(f"{CAS}/csv?q=hall&sort=-subject")
    assert reply.reply.content_type == "text/csv; charset=utf-8"
    assert reply.reply.headers["Content-Disposition"] == 'attachment; filename="mtxpd0-ca-certificates.csv"'
    rows = list(csv.DictReader(io.StringIO(reply.text)))
    assert [row["subject"] for row in rows] == ["CN=Berlin", "CN=athens"]
    stored = four["Berlin"]
    for column in ("id", "status", "fingerprintSha256", "comments", "createdBy"):
        assert rows[0][column] == stored[column]
    assert rows[0]["notAfter"] == stored["notAfter"]
    assert (rows[0]["lastUsed"], rows[0]["connections30d"]) == ("", "0")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", " =1", "\r=1"])
@pytest.mark.stores("sqlite")
def test_no_cell_of_a_table_is_a_formula(operator: Client, text: str) -> None:
    """OWASP: CSV injection. A spreadsheet would run the text that another person wrote."""
    add(operator, "Root", text)
    (row,) = csv.DictReader(io.StringIO(operator.get(f"{CAS}/csv").text, newline=""))
    assert row["comments"].startswith("'")
    assert row["comments"][1:].strip() == text.strip()


def test_the_bundle_has_what_the_search_finds(four: dict[str, dict[str, Any]], viewer: Client) -> None:
    each = [viewer.get(f"{CAS}/{four[name]['id']}/pem").text for name in ("athens", "Berlin")]
    assert viewer.get(f"{CAS}/pem?q=hall").text == "".join(each)
    assert viewer.get(f"{CAS}/pem?q=nothing").text == ""
