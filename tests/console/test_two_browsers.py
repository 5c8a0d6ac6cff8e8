"""Two users change the same entry: one change wins, and the other user is asked."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.console.live import Live, choose, root, server_cert
from tests.support.harness import Client

pytestmark = pytest.mark.slow

NewContext = Callable[..., BrowserContext]
TOKEN = "TLS with Token Authentication"
EITHER = "TLS with Client Certificate or Token"


@pytest.fixture
def rival(live: Live) -> Client:
    return live.service.client("operator")


@pytest.fixture
def two(new_context: NewContext, live: Live, rival: Client) -> Callable[[str], tuple[Page, Page]]:
    """A function that opens the same page in two browsers, each with an operator of its own."""

    def open_both(route: str) -> tuple[Page, Page]:
        pages = new_context(live.operator).new_page(), new_context(rival).new_page()
        for page in pages:
            page.goto(f"{live.console}#/{route}")
            page.locator("main table, main form").first.wait_for()
        return pages

    return open_both


Two = Callable[[str], tuple[Page, Page]]


def describe(page: Page, text: str) -> None:
    choose(page, "Edit description", "Factory Root")
    page.get_by_label("Description", exact=True).fill(text)


@pytest.mark.parametrize("choice", ["Keep the other change", "Save my change"])
def test_the_second_save_names_the_first_user_and_asks(two: Two, live: Live, rival: Client, choice: str) -> None:
    live.add_ca(root())
    first, second = two("ca")
    describe(first, "by the second")
    describe(second, "by the first")
    second.get_by_role("button", name="Save").click()
    expect(second.get_by_role("dialog")).to_have_count(0)
    first.get_by_role("button", name="Save").click()
    conflict = first.get_by_role("dialog", name="Changed meanwhile")
    expect(conflict).to_contain_text(re.compile(rf"{rival.key} changed this at \d+ \w+ \d+, \d\d:\d\d UTC\."))
    expect(conflict).to_contain_text("by the first")
    assert live.cas[0]["comments"] == "by the first"
    conflict.get_by_role("button", name=choice).click()
    won = "by the first" if choice == "Keep the other change" else "by the second"
    expect(first.get_by_role("cell", name=won)).to_be_visible()
    expect(first.get_by_role("status").first).to_have_text(
        "The other change was kept; yours was discarded." if choice == "Keep the other change" else "Description saved."
    )
    assert live.cas[0]["comments"] == won


def test_of_two_policies_the_first_stays_after_esc(two: Two, live: Live, rival: Client) -> None:
    """Closing a dialog overwrites nothing."""
    first, second = two("security")
    for page, level in ((second, TOKEN), (first, EITHER)):
        page.get_by_role("radio", name=level).check()
        page.get_by_role("button", name="Save", exact=True).click()
        if page is second:
            expect(page.get_by_role("status").first).to_contain_text("is saved")
    conflict = first.get_by_role("dialog", name="Changed meanwhile")
    expect(conflict).to_contain_text(rival.key)
    expect(conflict).to_contain_text(TOKEN)
    first.keyboard.press("Escape")
    expect(first.get_by_role("status").first).to_have_text("The other change was kept; yours was discarded.")
    expect(first.get_by_role("radio", name=TOKEN)).to_be_checked()
    assert live.operator.get("/authorization/connectionpolicy").ok()["default"] == TOKEN


def test_of_two_activations_the_second_user_is_asked(two: Two, live: Live, rival: Client) -> None:
    first_id = live.add_server(server_cert(live.host, number=1))["id"]
    other = live.add_server(server_cert(live.host, number=2))["id"]
    first, second = two("servers")
    for page, choice in ((first, first_id), (second, other)):
        page.get_by_role("combobox").select_option(choice)
        page.get_by_role("button", name="Activate…").click()
    second.get_by_role("dialog").get_by_role("button", name="Activate").click()
    expect(second.get_by_role("status").first).to_contain_text("is active.")
    first.get_by_role("dialog").get_by_role("button", name="Activate").click()
    conflict = first.get_by_role("dialog", name="Changed meanwhile")
    expect(conflict).to_contain_text(f"{rival.key} changed this")
    conflict.get_by_role("button", name="Save my change").click()
    expect(first.get_by_role("status").first).to_contain_text("is active.")
    active = live.operator.get("/authentication/servercertificates/active").ok()
    assert (active["active"], active["previous"]) == (first_id, other)
    assert sum(entry["active"] for entry in live.servers) == 1


def test_a_ca_that_was_deleted_meanwhile_is_reported(two: Two, live: Live) -> None:
    live.add_ca(root())
    first, second = two("ca")
    describe(first, "too late")
    choose(second, "Delete", "Factory Root")
    second.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(second.get_by_role("dialog")).to_have_count(0)
    first.get_by_role("button", name="Save").click()
    expect(first.get_by_role("alert")).to_contain_text("There is no CA certificate of that id here.")
    expect(first.get_by_label("Description", exact=True)).to_have_value("too late")


def test_deleting_an_entry_that_was_changed_meanwhile_asks_again(two: Two, live: Live, rival: Client) -> None:
    """No user deletes a version that the page has not shown."""
    live.add_ca(root())
    first, second = two("ca")
    choose(first, "Delete", "Factory Root")
    describe(second, "still needed!")
    second.get_by_role("button", name="Save").click()
    expect(second.get_by_role("dialog")).to_have_count(0)
    first.get_by_role("dialog").get_by_role("button", name="Delete").click()
    conflict = first.get_by_role("dialog", name="Changed meanwhile")
    expect(conflict).to_contain_text(rival.key)
    conflict.get_by_role("button", name="Keep the other change").click()
    expect(first.get_by_role("cell", name="still needed!")).to_be_visible()
    assert len(live.cas) == 1
