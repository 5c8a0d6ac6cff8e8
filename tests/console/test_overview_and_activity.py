"""The drawing of what expires when, and the activity of edges, uploads and the daily report."""

import json
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
from playwright.sync_api import FloatRect, Locator, Page, expect

from functions.events.expiry import report_expiry
from functions.events.folder import FOLDER, UploadWatcher
from shared.usecases.callers import label_key
from tests.console.live import Live, now, root, server_cert

At = Callable[[str], Page]

HOSTS = "//edge/v1/hosts"


def boxes(elements: Locator) -> list[FloatRect]:
    return [box for element in elements.all() if (box := element.bounding_box())]


def overlap(first: FloatRect, second: FloatRect) -> bool:
    """Return whether two boxes overlap by more than a rounding error."""
    return all(
        min(first[at] + first[size], second[at] + second[size]) - max(first[at], second[at]) > 1  # type: ignore[literal-required]
        for at, size in (("x", "width"), ("y", "height"))
    )


def serve_by_an_edge(live: Live) -> None:
    """Report as a TLS edge that it serves what edgeFeed lists."""
    edge = live.service.platform("edge")
    hosts = edge.get(HOSTS).ok()["hosts"]
    served = [{"serverName": host["serverName"], "version": host["version"]} for host in hosts]
    body = json.dumps({"edge": "edge-1", "hosts": served}).encode()
    assert edge.send("POST", "//edge/v1/served", body=body).ok()["taken"] == len(served)


def test_no_name_in_the_drawing_covers_another_mark(at: At, live: Live) -> None:
    """Neighbouring days are in rows below each other; without room names are left out, and the list has them."""
    days = [2, 2, 2, 3, 4, 5, 6, 8, 10, 11, 13, 20, 40, 41, 42, 80, 88, 89]
    for number, day in enumerate(days):
        live.add_ca(root(f"Factory {number} of a name that is rather long", days=day + 0.5))
    live.add_server(server_cert(live.host, days=15))
    page = at("")
    line = page.get_by_role("group", name="What expires within 90 days")
    marks = line.get_by_role("link")
    expect(page.locator(".ends li")).to_have_count(len(days) + 1)
    expect(marks).to_have_count(len(days) + 1)
    assert line.locator(".mark-text").count() >= 6
    drawn = boxes(line.locator("circle, .mark-text"))
    crossing = [(first, second) for first, second in combinations(drawn, 2) if overlap(first, second)]
    assert crossing == []
    assert all(box["x"] > 0 and box["x"] + box["width"] < 1280 for box in drawn)


@pytest.mark.parametrize("route", ["", "why"])
def test_a_page_is_shown_where_the_list_of_callers_is_not_available(at: At, live: Live, route: str) -> None:
    """The list is a warning on these pages, and not their content."""
    live.add_ca(root())
    page = at("security")
    page.route("**/callers", lambda request: request.fulfill(status=503, body="{}"))
    with page.expect_response("**/callers"):
        page.goto(page.url.partition("#")[0] + f"#/{route}")
    content = page.get_by_text("None in the last hour." if route else "Add the CA that signs your devices.")
    expect(content.first).to_be_visible()
    expect(page.locator("#content .sentence.bad")).to_have_count(0)


def test_the_time_since_an_edge_serves_a_certificate_is_shown(at: At, live: Live) -> None:
    """Active is the decision; served is what devices get."""
    stored = live.add_server(server_cert(live.host))
    live.operator.put("/authentication/servercertificates/active", {"id": stored["id"]}).ok()
    page = at("servers")
    chosen = page.locator("#shown-at")
    expect(chosen).to_contain_text("Active since")
    expect(chosen).to_contain_text("No TLS edge has reported yet that it serves this certificate.")
    serve_by_an_edge(live)
    page.reload()
    expect(chosen).to_contain_text("Served since just now")
    page.goto(f"{live.console}#/servers/{stored['id']}")
    expect(page.locator("tr.details dt", has_text="Served since")).to_be_visible()
    page.goto(f"{live.console}#/brokers")
    expect(page.locator("#content")).to_contain_text(f"{live.host} is served since just now")
    expect(page.get_by_role("table", name="API keys").get_by_role("row", name="edge of the platform")).to_contain_text(
        "Not counted"
    )


def test_activity_of_edges_uploads_and_the_daily_report(at: At, live: Live, tmp_path: Path) -> None:
    """Each entry is in words, and names what it is about."""
    stored = live.add_server(server_cert(live.host, days=20))
    live.operator.put("/authentication/servercertificates/active", {"id": stored["id"]}).ok()
    edge = live.service.platform("edge")
    edge.get(f"{HOSTS}/{live.host}").ok()
    serve_by_an_edge(live)
    page = at("activity")
    page.get_by_role("link", name="Edges", exact=True).click()
    handed = page.locator("tbody tr", has_text="Certificate and key handed to a TLS edge")
    expect(handed).to_contain_text(label_key(edge.key))
    expect(handed.get_by_role("link", name=live.host)).to_be_visible()
    expect(page.locator("tbody tr", has_text="TLS edge serves a certificate")).to_contain_text("edge-1")

    uploads = live.service.app.settings.data / FOLDER / "mtxpd0" / "ca"
    uploads.mkdir(parents=True)
    (uploads / "good.pem").write_text(root("By upload").pem)
    (uploads / "bad.pem").write_text("nothing")
    watcher = UploadWatcher(live.service.app)
    watcher.start()
    page.get_by_role("link", name="Uploads").click()
    row = page.locator("tbody tr", has_text="File put into the upload bucket")
    while row.count() < 2:
        page.get_by_role("link", name="All").click()
        page.get_by_role("link", name="Uploads").click()
        page.locator(".content:not([aria-busy])").wait_for()
    watcher.close()
    expect(page.locator("tbody tr", has_text="good.pem")).to_contain_text("Done")
    expect(page.locator("tbody tr", has_text="bad.pem")).to_contain_text("Refused (not_a_certificate)")
    expect(page.locator("tbody tr", has_text="bad.pem")).to_contain_text("No certificate found")

    report_expiry(live.service.app)
    page.get_by_role("link", name="Changes").click()
    report = page.locator("tbody tr", has_text="Daily report of expiring certificates")
    expect(report).to_contain_text("Expires within 30 days")
    expect(report.get_by_role("link", name=live.host)).to_be_visible()


def test_certificates_expire_and_do_not_end(at: At, live: Live) -> None:
    """The overview and the chain of a server certificate use the word of RFC 5280."""
    short = root("Short root", days=3 / 86_400)
    live.add_ca(short)
    time.sleep(max(0, (short.certificate.not_after - now()).total_seconds()) + 1)
    page = at("")
    expect(page.get_by_text("A certificate in use has expired.")).to_be_visible()
    valid = root("Server root", days=900)
    body = {"certificate": (cert := server_cert(live.host, valid)).pem, "privateKey": cert.key_pem, "chain": valid.pem}
    stored = live.operator.post("/authentication/servercertificates", body).ok(201)
    page.goto(f"{live.console}#/servers/{stored['id']}")
    expect(page.locator("tr.details .chain li")).to_contain_text("Server root, expires in")
