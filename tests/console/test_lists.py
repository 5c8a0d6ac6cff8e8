"""Lists that stay usable when they are long: devices, CA certificates and activity; and the numbers of the overview."""

import csv
import io
import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from playwright.sync_api import Page, expect

from tests.console.live import DAY, Live, choose, device, now, record, root, server_cert
from tests.support import certs

At = Callable[[str], Page]
ORG = "mtxpd0"


# ---------------------------------------------------------------------------------------------------------- overview


def test_the_overview_shows_how_many_clients_connected_and_were_refused(at: At, live: Live) -> None:
    record(live, allowed=70, untrusted_issuer=20, certificate_expired=10)
    record(live, hours=30, allowed=500, weak_key=9)
    page = at("")
    connected = page.locator(".card", has_text="Connections, 24 hours")
    refused = page.locator(".card", has_text="Refused, 24 hours")
    expect(connected.locator(".number")).to_have_text("70")
    expect(refused.locator(".number")).to_have_text("30")
    expect(refused).to_contain_text("30 % of all; most often untrusted_issuer")
    legend = page.locator(".legend li")
    expect(legend).to_have_text(["untrusted_issuer20", "certificate_expired10"])
    page.get_by_role("button", name="30 days").click()
    expect(page.get_by_role("button", name="30 days")).to_have_attribute("aria-pressed", "true")
    expect(legend).to_have_text(["untrusted_issuer20", "certificate_expired10", "weak_key9"])
    page.get_by_text("As a table").click()
    expect(page.locator(".numbers tbody tr")).to_have_count(2, timeout=5_000)
    with page.expect_popup() as opened:
        page.get_by_role("link", name="untrusted_issuer").first.click()
    assert opened.value.url.endswith("/docs/errors/untrusted_issuer")


def test_the_overview_says_that_all_is_well(at: At, live: Live) -> None:
    live.add_ca(root())
    live.connect(device(root()), "d:mtxpd0:thermo:42", live.service.client("broker"))
    page = at("")
    expect(page.locator(".card", has_text="Refused, 24 hours")).to_contain_text("✓ Every device was accepted")
    expect(page.locator(".card", has_text="Expiring within 30 days")).to_contain_text("✓ Nothing in use expires")
    expect(page.locator(".card", has_text="TLS edges")).to_contain_text("No TLS edge has asked within a month")
    expect(page.get_by_text("No connection was refused in the last 24 hours.")).to_be_visible()


def test_the_overview_counts_certificates_in_use_that_expire(at: At, live: Live) -> None:
    for days in (5, 20, 40):
        live.add_ca(root(f"Factory {days}", days=days))
    unused = live.add_ca(root("Unused", days=6))
    live.operator.put(f"/authentication/cacertificates/{unused['id']}", {"status": "inactive"}).ok()
    page = at("")
    expiring = page.locator(".card", has_text="Expiring within 30 days")
    expect(expiring.locator(".number")).to_have_text("2")
    expiring.get_by_role("link").click()
    expect(page.get_by_role("heading", name="Expiring soon")).to_be_focused()
    assert page.url.endswith("#/"), "the link is within the page"


def test_the_first_steps_are_gone_when_they_are_done(at: At, live: Live) -> None:
    live.add_ca(root())
    page = at("")
    expect(page.get_by_role("heading", name="First steps")).to_be_visible()
    record(live, allowed=1)
    page.reload()
    expect(page.locator(".card", has_text="Connections, 24 hours").locator(".number")).to_have_text("1")
    expect(page.get_by_role("heading", name="First steps")).to_have_count(0)


def test_the_rest_of_the_overview_is_shown_without_the_numbers(at: At, live: Live) -> None:
    live.add_ca(root())
    page = at("security")
    for name in ("traffic?days=30", "edges"):
        page.route(f"**/{name}", lambda request: request.fulfill(status=503, body="{}"))
    page.goto(page.url.partition("#")[0] + "#/")
    expect(page.locator(".card", has_text="Refused, 24 hours")).to_contain_text("Not available now")
    expect(page.get_by_text("The numbers are not available now.")).to_be_visible()
    expect(page.get_by_role("heading", name="Expiring soon")).to_be_visible()


# ----------------------------------------------------------------------------------------------------------- devices


def test_devices_are_listed_searched_and_explained(at: At, live: Live) -> None:
    issued = root("Factory Root")
    live.add_ca(issued)
    broker = live.service.client("broker")
    live.connect(device(issued), "d:mtxpd0:thermo:42", broker)
    live.connect(device(issued, "d:press:7", days=-3), "d:mtxpd0:press:7", broker)
    live.connect(device(root("Stranger"), "d:thermo:66"), "d:mtxpd0:thermo:66", broker)
    page = at("devices")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.filter(has_text="d:thermo:42")).to_contain_text("Factory Root")
    expect(rows.filter(has_text="d:press:7")).to_contain_text("certificate_expired")
    page.get_by_role("button", name="Refused 1").click()
    expect(rows).to_have_count(1)
    page.get_by_role("button", name="All 2").click()
    expect(rows).to_have_count(2)
    page.get_by_role("searchbox").fill("thermo")
    expect(rows).to_have_count(1)
    page.get_by_role("searchbox").fill("zebra")
    expect(page.get_by_text("No device here matches “zebra”.")).to_be_visible()
    page.get_by_role("searchbox").fill("press")
    choose(page, "Explain", "d:press:7")
    expect(page.locator("#verdict")).to_contain_text("Refused at step")


def test_a_device_is_denied_from_the_list_and_the_denial_is_taken_back(at: At, live: Live) -> None:
    issued = root()
    live.add_ca(issued)
    broker = live.service.client("broker")
    live.connect(device(issued), "d:mtxpd0:thermo:42", broker)
    page = at("devices")
    choose(page, "Deny", "d:thermo:42")
    page.get_by_label("Reason").fill("lost")
    page.get_by_role("dialog").get_by_role("button", name="Deny", exact=True).click()
    expect(page.get_by_role("status").first).to_contain_text("d:thermo:42 is denied.")
    [entry] = live.records("/authorization/denylist")
    assert (entry["kind"], entry["value"], entry["reason"]) == ("identity", "d:thermo:42", "lost")
    assert live.connect(device(issued), "d:mtxpd0:thermo:42", broker)["code"] == "certificate_revoked"
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("status").first).to_contain_text("is not on the deny list any more.")
    assert live.records("/authorization/denylist") == []
    assert live.connect(device(issued), "d:mtxpd0:thermo:42", broker)["decision"] == "allow"


# --------------------------------------------------------------------------------------------------- CA certificates


def test_cas_are_filtered_by_status_and_sorted(at: At, live: Live) -> None:
    live.add_ca(root("Ending", days=9))
    old = live.add_ca(root("Amber", days=900))
    live.add_ca(root("Zinc", days=100))
    live.operator.put(f"/authentication/cacertificates/{old['id']}", {"status": "inactive"}).ok()
    page = at("ca")
    names = page.locator("tbody tr td:first-child")
    expect(names).to_have_text(["CN=Amber", "CN=Ending", "CN=Zinc"])
    page.get_by_label("Sort").select_option("Expires first")
    expect(names).to_have_text(["CN=Ending", "CN=Zinc", "CN=Amber"])
    page.get_by_role("button", name="Expires soon 1").click()
    expect(names).to_have_text(["CN=Ending"])
    page.get_by_role("button", name="Inactive 1").click()
    expect(names).to_have_text(["CN=Amber"])
    with page.expect_download() as download:
        page.get_by_role("button", name="Download…").click()
        page.get_by_role("button", name="Table for spreadsheets").click()
    assert download.value.suggested_filename == "mtxpd0-ca-certificates.csv"
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert [row["subject"] for row in rows] == ["CN=Amber"], "the table has what the list shows"
    with page.expect_download() as download:
        page.get_by_role("button", name="Download…").click()
        page.get_by_role("button", name="Certificates (PEM)").click()
    assert download.value.path().read_text().count("BEGIN CERTIFICATE") == 1


def test_a_ca_that_is_on_no_page_yet_is_opened_by_its_address(at: At, live: Live) -> None:
    private = certs.key("P-256", 5)
    for number in range(55):
        live.add_ca(root(f"Factory {number:02}", private=private))
    last = live.add_ca(root("Zinc", private=private))
    page = at(f"ca/{last['id']}")
    rows = page.locator("tbody tr:not(.details)")
    expect(rows).to_have_count(51)
    expect(rows.first).to_contain_text("CN=Zinc")
    expect(page.locator("tr.details")).to_contain_text("SHA-256 fingerprint")
    expect(page.get_by_text("50 of 56 are shown.")).to_be_visible()
    page.get_by_role("button", name="Show more").click()
    expect(rows).to_have_count(56)
    expect(page.get_by_role("button", name="Show more")).to_have_count(0)


@pytest.mark.slow
def test_a_thousand_cas_cost_one_page(at: At, live: Live) -> None:
    """As many as an organization may have. Each page asks for 50 rows, or for those that it names."""
    private = certs.key("P-256", 5)
    for number in range(1_000):
        live.service.clock.now = now() - timedelta(minutes=5 - number // 500)  # 600 new CAs a minute are the limit
        live.add_ca(root(f"Factory {number:04}", private=private))
    live.service.clock.now = now()
    page = at("security")
    asked: list[str] = []
    page.on("response", lambda response: asked.append(response.url))
    for route in ("ca", "", "activity", "why", "security", "devices"):
        asked.clear()
        page.goto(f"{live.console}?{route}#/{route}")
        page.wait_for_load_state("networkidle")
        expect(page.locator(".content")).not_to_have_attribute("aria-busy", "true")
        assert [url for url in asked if "/cacertificates?limit=" in url] == [], "no page reads the whole list"
        assert page.evaluate("document.documentElement.scrollHeight") < 8_000, route
    page.goto(f"{live.console}#/ca")
    page.get_by_role("searchbox").fill("factory 0777")
    expect(page.locator("tbody tr")).to_have_count(1)


# ---------------------------------------------------------------------------------------------------------- activity


def test_activity_is_searched_by_text_and_day_and_downloaded(at: At, live: Live) -> None:
    live.service.clock.now = now() - 3 * DAY
    live.operator.post("/authorization/denylist", {"kind": "identity", "value": "d:lamp:1"}).ok(201)
    live.service.clock.now = now()
    live.add_ca(root("Early"))
    for name in ("7", "8"):
        live.operator.post("/authorization/denylist", {"kind": "identity", "value": f"d:pump:{name}"}).ok(201)
    page = at("activity")
    rows = page.locator("tbody tr")
    expect(rows.filter(has_text="CA added").get_by_role("link", name="Early")).to_be_visible()
    page.get_by_label("Search").fill("PUMP:8")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("Put on the deny list")
    page.get_by_label("Search").fill("")
    page.get_by_label("To", exact=True).fill((now() - 2 * DAY).date().isoformat())
    expect(rows.filter(has_text="CA added")).to_have_count(0)
    expect(rows.filter(has_text="d:lamp:1")).to_have_count(1)
    page.get_by_label("From", exact=True).fill((now() - 2 * DAY).date().isoformat())
    expect(page.get_by_text("No entry here matches. Choose other days or another text.")).to_be_visible()
    page.get_by_label("To", exact=True).fill("")
    page.get_by_label("Search").fill("pump")
    expect(rows).to_have_count(2)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download table (CSV)").click()
    found = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert sorted(re.sub(r".*:", "", row["detail"]) for row in found) == ["7", "8"]


# ---------------------------------------------------------------------------------------------- what is taken back


def test_a_deleted_ca_is_registered_again(at: At, live: Live) -> None:
    """With its description and its status: nothing is lost."""
    stored = live.add_ca(root("Factory Root"), "Line 4")
    live.operator.put(f"/authentication/cacertificates/{stored['id']}", {"status": "inactive"}).ok()
    page = at("ca")
    choose(page, "Delete", "Factory Root")
    page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("status").first).to_contain_text("Factory Root is deleted.")
    assert live.cas == []
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("status").first).to_contain_text("Factory Root is registered again.")
    [again] = live.cas
    assert {name: again[name] for name in ("id", "status", "comments")} == {
        "id": stored["id"],
        "status": "inactive",
        "comments": "Line 4",
    }


@pytest.mark.parametrize("kind", ["identity", "fingerprint", "key"])
def test_an_entry_that_was_taken_off_the_deny_list_is_put_on_again(at: At, live: Live, kind: str) -> None:
    issued = device(root())
    body = {
        "identity": {"kind": "identity", "value": "d:thermo:7"},
        "fingerprint": {"kind": "fingerprint", "value": issued.fingerprint},
        "key": {"kind": "key", "certificate": issued.pem},
    }[kind]
    entry = live.operator.post("/authorization/denylist", body | {"reason": "lost"}).ok(201)
    page = at("security")
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_role("status").first).to_contain_text("Taken off the deny list.")
    assert live.records("/authorization/denylist") == []
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("cell", name="lost")).to_be_visible()
    [again] = live.records("/authorization/denylist")
    assert (again["id"], again["reason"]) == (entry["id"], "lost")


def test_the_devices_of_a_ca_are_listed(at: At, live: Live) -> None:
    broker = live.service.client("broker")
    ids = []
    for name in ("1", "2"):
        issued = root(f"Factory {name}")
        ids.append(live.add_ca(issued)["id"])
        live.connect(device(issued, f"d:thermo:{name}"), f"d:mtxpd0:thermo:{name}", broker)
    page = at(f"ca/{ids[0]}")
    page.get_by_role("link", name="Devices that this CA accepted").click()
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("d:thermo:1")
    page.get_by_role("link", name="Accepted by Factory 1").click()
    expect(rows).to_have_count(2)


def test_what_devices_must_trust_is_downloaded(at: At, live: Live) -> None:
    issuer = root("Server Root", days=900)
    issued = server_cert(live.host, issuer)
    body = {"certificate": issued.pem, "privateKey": issued.key_pem}
    stored = live.operator.post("/authentication/servercertificates", body | {"chain": issuer.pem}).ok(201)
    page = at("servers")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download what devices must trust").click()
    default = live.operator.get("/authentication/servercertificates/default/pem").text
    assert download.value.path().read_text().strip() == default.strip(), "no CA signed the default certificate"
    live.operator.put("/authentication/servercertificates/active", {"id": stored["id"]}).ok()
    page.reload()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download what devices must trust").click()
    assert download.value.path().read_text().strip() == issuer.pem.strip()
