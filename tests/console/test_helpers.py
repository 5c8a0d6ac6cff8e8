"""What helps a person along: shortcuts, the meaning of a device's own error, and the end of a session that is left."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Dialog, Page, Route, expect

from tests.console.conftest import NewContext
from tests.console.live import Live, root

At = Callable[[str], Page]

DEVICE, SERVER, EDGE, SILENT, NETWORK = (
    "The device refused the server certificate.",
    "This service refused the device.",
    "The TLS edge refused the handshake.",
    "The other side closed the connection without an answer.",
    "The device did not reach the service.",
)
OTHER = "The side that did not write this line refused the certificate of the side that did."
SAID = {
    "error:0A000418:SSL routines::tlsv1 alert unknown ca:SSL alert number 48": OTHER,
    "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local issuer certificate": DEVICE,
    "Verify return code: 18 (self signed certificate)": DEVICE,
    "esp-tls-mbedtls: mbedtls_ssl_handshake returned -0x2700": DEVICE,
    "x509: certificate signed by unknown authority": DEVICE,
    "error:0A000458:SSL routines::tlsv1 unrecognized name:SSL alert number 112": EDGE,
    "ssl3_read_bytes:tlsv1 alert certificate expired:SSL alert number 45": OTHER,
    "tlsv13 alert certificate required: SSL alert number 116": "The server refused the device.",
    "mbedtls_ssl_handshake returned -0x7780": "The server ended the TLS handshake.",
    "Connection Refused: not authorised.": SERVER,
    "CONNACK return code 5": SERVER,
    "Connection error: 135 (Not authorized)": SERVER,
    "reason code 0x87": SERVER,
    "on_connect rc=5": SERVER,
    "Connection Refused: identifier rejected.": SERVER,
    "Connection Refused: broker unavailable. rc=3": "The broker or the edge had no verdict.",
    "Connection Refused: bad user name or password. code 4": "The broker refused the user name or the password.",
    "Unexpected disconnection, rc=7": SILENT,
    "read ECONNRESET": SILENT,
    "mbedtls_ssl_read returned -0x7280": SILENT,
    "getaddrinfo ENOTFOUND mtxpd0.messaging.example.com": NETWORK,
    "Error: connect ECONNREFUSED 192.0.2.1:8883": NETWORK,
    "my device is blue": "This line is not known here.",
}


def test_the_words_of_a_device_are_explained(at: At, live: Live) -> None:
    page = at("why")
    page.get_by_text("My device says …").click()
    line = page.get_by_label("A line of its log")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.post_data or ""))
    for said, who in SAID.items():
        line.fill(said)
        expect(page.locator("details.panel [aria-live]"), said).to_contain_text(who)
    assert not [sent for sent in requests if "blue" in sent], "nothing of it is sent"
    line.fill("tlsv1 alert unknown ca")
    page.locator("details.panel").get_by_role("link", name="Server certificates").click()
    expect(page.get_by_role("heading", name="Server certificates", level=1)).to_be_visible()


def test_keys_search_and_go_to_pages(at: At, live: Live) -> None:
    for name in ("First", "Second"):
        live.add_ca(root(name))
    page = at("ca")
    page.locator("tbody tr").first.wait_for()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("gd/?")
    expect(page.get_by_role("searchbox")).to_have_value("gd/?")
    page.get_by_role("heading", level=1).focus()
    page.keyboard.press("g")
    page.keyboard.press("a")
    expect(page.get_by_role("heading", name="Activity", level=1)).to_be_focused()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(dialog).to_contain_text("Devices")
    dialog.get_by_label("Use these shortcuts").uncheck()
    dialog.get_by_role("button", name="Close").click()
    page.keyboard.press("g")
    page.keyboard.press("c")
    page.keyboard.press("/")
    expect(page.get_by_role("heading", name="Activity", level=1)).to_be_visible()
    expect(page.get_by_role("searchbox")).not_to_be_focused()


@pytest.mark.parametrize("is_open", [True, False])
def test_a_session_ends_in_every_tab_after_12_hours_without_a_request(
    new_context: NewContext, live: Live, is_open: bool
) -> None:
    """Whether the tab stays open, or is opened again."""
    context = new_context(live.operator)
    context.clock.install()
    first, second = context.new_page(), context.new_page()
    for page in (first, second):
        page.goto(f"{live.console}#/ca")  # a page that asks nothing by itself
        page.get_by_role("heading", name="CA certificates").wait_for()
    context.clock.fast_forward("11:58:00")
    for page in (first, second):
        expect(page.locator("header")).to_contain_text("mtxpd0 · operator")
    if is_open:
        context.clock.fast_forward("03:00")
        for page in (first, second):
            expect(page.get_by_label("API key")).to_be_visible()
        assert first.evaluate("sessionStorage.getItem('trust.session')") is None
        return
    second.close()
    first.evaluate("localStorage.setItem('trust.last-request', String(Date.now() - 12 * 3600_000 - 1))")
    first.reload()
    expect(first.get_by_text("Your session ended after 12 hours without a request. Sign in again.")).to_be_visible()
    expect(first.get_by_label("API key")).to_be_visible()


def test_changes_that_are_not_saved_are_not_left_without_a_question(at: At, live: Live) -> None:
    page = at("security")
    page.get_by_label("TLS with Client Certificate or Token").check()
    asked: list[str] = []

    def answer(dialog: Dialog, accept: bool = False) -> None:
        asked.append(dialog.message)
        dialog.accept() if accept else dialog.dismiss()

    page.once("dialog", answer)
    page.get_by_role("link", name="Devices").click()
    expect(page.get_by_role("heading", name="Connection security", level=1)).to_be_visible()
    assert asked == ["Leave this page? Its changes are not saved."]
    assert page.url.endswith("#/security")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("status").first).to_contain_text("Connection security is saved")
    page.get_by_role("link", name="Devices").click()
    expect(page.get_by_role("heading", name="Devices", level=1)).to_be_visible()
    assert len(asked) == 1, "nothing is left to save"
    page.get_by_role("link", name="Connection security").click()
    page.get_by_label("Use custom domains").check()
    page.once("dialog", lambda dialog: answer(dialog, accept=True))
    page.get_by_role("link", name="Activity").click()
    expect(page.get_by_role("heading", name="Activity", level=1)).to_be_visible()


def test_what_was_typed_into_a_dialog_is_discarded_at_the_second_cancel_only(at: At, live: Live) -> None:
    page = at("ca")
    page.get_by_role("button", name="Add certificate").first.click()
    page.get_by_label("Description", exact=True).fill("Line 4")
    for leave in ("Escape", "Cancel"):
        if leave == "Escape":
            page.keyboard.press("Escape")
        else:
            page.get_by_label("Description", exact=True).fill("Line 5")
            page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("dialog")).to_contain_text("What you entered is not saved. Press Cancel again")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_times_are_in_the_zone_of_the_browser(new_context: NewContext, live: Live) -> None:
    """The title has UTC, for a talk with people elsewhere."""
    live.add_ca(root(days=400))
    page = new_context(live.operator, timezone_id="Asia/Kolkata").new_page()
    page.goto(f"{live.console}#/ca")
    time = page.locator("tbody time").first
    expect(time).to_contain_text("GMT+5:30")
    expect(time).to_have_attribute("title", re.compile(r"^\d+ \w{3} \d{4}, \d\d:\d\d UTC$"))


@pytest.mark.slow
@pytest.mark.parametrize("route", ["", "devices", "ca", "servers", "security", "brokers", "activity"])
def test_a_slow_and_a_failing_service_are_shown_on_every_page(at: At, live: Live, route: str) -> None:
    """While a page waits it says so; after a failure it says why, and [Try again] shows the page."""
    live.add_ca(root())
    page = at("why")
    state = {"fails": True}

    def answer(request: Route) -> None:
        page.wait_for_timeout(700)
        if state["fails"]:
            request.fulfill(status=503, json={"code": "unavailable", "detail": "The store does not answer."})
        else:
            request.continue_()

    page.route("**/api/v0002/**", answer)
    page.evaluate("route => { location.hash = `#/${route}`; }", route)
    expect(page.locator(".content")).to_have_attribute("aria-busy", "true")
    expect(page.locator(".load-error")).to_contain_text("The store does not answer.")
    state["fails"] = False
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".load-error")).to_have_count(0)
    expect(page.locator(".content")).not_to_have_attribute("aria-busy", "true")
    page.unroute_all(behavior="ignoreErrors")
