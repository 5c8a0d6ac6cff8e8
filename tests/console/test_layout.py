"""The console on every width, and what stays visible and true while a page is open."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from tests.console.conftest import NewContext
from tests.console.live import Live, choose, device, root, running, server_cert
from tests.console.test_ca_certificates import drop
from tests.console.test_sign_in import sign_in

At = Callable[[str], Page]


def populate(live: Live) -> None:
    """Fill every list."""
    issuer = root("A Factory Root Certificate Authority With A Long Name 2026")
    live.add_ca(issuer)
    for days in (20, 300):
        live.add_server(server_cert(live.host, days=days))
    broker = live.service.client("broker")
    live.connect(device(issuer), "d:mtxpd0:thermo:42", broker)
    live.connect(device(issuer), "d:mtxpd0:thermometer-of-the-second-line:43", broker)
    live.operator.post("/authorization/denylist", {"kind": "identity", "value": "d:thermo:7"}).ok(201)


@pytest.fixture
def long_names(tmp_path: Path) -> Iterator[Live]:
    """The service on its default domain, whose host names are longer than a line of a phone."""
    with running(tmp_path / "long-names", domain="internetofthings.ibmcloud.com") as started:
        populate(started)
        for stored in started.servers[1:]:  # the second activation lets the page offer a return to the first
            started.operator.put("/authentication/servercertificates/active", {"id": stored["id"]}).ok()
        started.operator.post("/authentication/servercertificates/csr", {"keyAlgorithm": "P-256"}).ok(201)
        yield started


def click(role: Literal["button", "link"], name: str, then: str) -> Callable[[Page], None]:
    """A function that clicks and waits for the element *then*."""

    def act(page: Page) -> None:
        page.get_by_role(role, name=name).first.click()
        page.locator(then).first.wait_for()

    return act


# route and action: every page, and what opens on it
VIEWS: tuple[tuple[str, Callable[[Page], None]], ...] = (
    ("", lambda page: page.locator(".ends li").first.wait_for()),
    ("devices", lambda page: page.locator("tbody tr").first.wait_for()),
    ("ca", click("link", "CN=A Factory Root", "tr.details")),
    ("ca", click("button", "Actions for A Factory Root", ".menu:popover-open")),
    ("servers", click("button", "Return to", ".status:not(:empty)")),
    ("servers", click("link", "mtxpd0.messaging", "tr.details")),
    ("servers", click("button", "Generate CSR", "dialog")),
    ("servers", click("button", "Upload certificate", "dialog")),
    ("security", lambda page: page.locator(".denials").wait_for()),
    ("brokers", lambda page: page.locator("tbody tr").first.wait_for()),
    ("why", click("button", "Explain", "#verdict")),
    ("activity", lambda page: page.locator("tbody tr").first.wait_for()),
)


@pytest.mark.parametrize(
    "width",
    [
        375,
        *(pytest.param(width, marks=pytest.mark.slow) for width in (320, 360, 640, 768, 800, 1000, 1024, 1440, 2560)),
    ],
)
def test_no_page_scrolls_sideways(long_names: Live, new_context: NewContext, width: int) -> None:
    """Also with the long host names of the default domain, and at 200 % zoom (a width of 640)."""
    page = new_context(long_names.operator, viewport={"width": width, "height": 800}).new_page()
    for number, (route, act) in enumerate(VIEWS):
        page.goto(f"{long_names.console}?{number}#/{route}")  # another query loads the page again
        act(page)
        too_wide = page.evaluate("""[document.scrollingElement, ...document.querySelectorAll('dialog[open]')]
            .map(element => element.scrollWidth - element.clientWidth)""")
        assert max(too_wide) <= 0, f"view {number} of {route or 'the overview'} at {width}"


@pytest.mark.parametrize("width", [375, 800, 1000])
def test_a_name_in_the_overview_has_a_line_of_its_own_where_columns_do_not_fit(
    long_names: Live, new_context: NewContext, width: int
) -> None:
    """The drawing would have letters too small to read there, so the list alone is shown."""
    page = new_context(long_names.operator, viewport={"width": width, "height": 800}).new_page()
    page.goto(long_names.console)
    line = page.locator(".ends li").first
    line.wait_for()
    widths = line.evaluate("line => [line.clientWidth, ...[...line.children].map(cell => cell.clientWidth)]")
    assert len(set(widths)) == 1, widths
    expect(page.get_by_role("group", name="What expires within 90 days")).to_be_hidden()


@pytest.mark.parametrize(("width", "display"), [(640, "block"), (800, "block"), (1000, "block"), (1280, "table-cell")])
def test_a_table_becomes_blocks_where_its_columns_do_not_fit(
    new_context: NewContext, live: Live, width: int, display: str
) -> None:
    populate(live)
    page = new_context(live.operator, viewport={"width": width, "height": 800}).new_page()
    for route in ("ca", "servers", "activity"):
        page.goto(f"{live.console}#/{route}")
        cell = page.locator("tbody td").first
        cell.wait_for()
        assert cell.evaluate("cell => getComputedStyle(cell).display") == display, route


def test_what_was_done_is_seen_wherever_the_page_is_scrolled_to(new_context: NewContext, live: Live) -> None:
    for number in range(12):
        live.add_ca(root(f"Root {number:02}"))
    page = new_context(live.operator, viewport={"width": 1280, "height": 600}).new_page()
    page.goto(f"{live.console}#/ca")
    last = page.get_by_role("button", name="Actions for Root 11")
    last.scroll_into_view_if_needed()
    assert page.evaluate("scrollY") > 0
    choose(page, "Deactivate", "Root 11")
    page.get_by_role("dialog").get_by_role("button", name="Deactivate", exact=True).click()
    said = page.get_by_role("status").filter(has_text="Root 11 is inactive.")
    expect(said).to_be_in_viewport()


def test_a_chosen_certificate_is_not_active_before_it_is_activated(at: At, live: Live) -> None:
    stored = live.add_server(server_cert(live.host))
    page = at("servers")
    choice = page.get_by_role("combobox", name="Default messaging server certificate")
    expect(page.get_by_text("Not active yet.")).to_be_hidden()
    choice.select_option(stored["id"])
    expect(page.get_by_text("Not active yet.")).to_be_visible()
    choice.select_option("default")
    expect(page.get_by_text("Not active yet.")).to_be_hidden()


def test_of_several_dropped_files_the_unread_ones_are_named(at: At) -> None:
    page = at("ca")
    page.locator("[data-key=primary]").click()
    drop(page, "dialog", {"first.pem": root("First").pem.encode(), "second.pem": root("Second").pem.encode()})
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("This field takes one file. first.pem was read; not read: second.pem.")
    expect(dialog.locator(".preview")).to_contain_text("CN=First")
    expect(dialog.get_by_label("CA certificate", exact=True)).not_to_have_attribute("aria-invalid", "true")


def test_a_device_is_checked_with_the_first_of_several_files(at: At, live: Live) -> None:
    """The sentence about the others is no failure."""
    factory = root("Factory Root")
    live.add_ca(factory)
    page = at("why")
    drop(page, "form", {"device.pem": device(factory).pem.encode(), "other.pem": factory.pem.encode()})
    expect(page.get_by_text("This field takes one file. device.pem was read; not read: other.pem.")).to_be_visible()
    page.get_by_label("Client ID").fill("d:mtxpd0:thermo:42")
    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.locator("#verdict")).to_contain_text("is allowed")


FOLDER = """() => {
    // A page cannot make a folder: the browser's answer about the item is replaced.
    const entry = DataTransferItem.prototype.webkitGetAsEntry;
    DataTransferItem.prototype.webkitGetAsEntry = function () {
        return this.getAsFile()?.name === 'folder' ? { isDirectory: true } : entry.call(this);
    };
    File.prototype.arrayBuffer = async function () {
        if (this.name === 'folder') throw new DOMException('A requested file could not be read', 'NotReadableError');
        return Blob.prototype.arrayBuffer.call(this);
    };
}"""


@pytest.mark.parametrize("name", ["ca", pytest.param("servers", marks=pytest.mark.slow)])
def test_a_dropped_folder_is_refused_with_a_sentence(at: At, name: str) -> None:
    """A file that is dropped with the folder is read."""
    page = at(name)
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.evaluate(FOLDER)
    page.locator("[data-key=primary]").click()
    drop(page, "dialog", {"folder": b""})
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".error", has_text="Drop files, not a folder.")).to_be_visible()
    drop(page, "dialog", {"folder": b"", "first.pem": root("First").pem.encode()})
    expect(dialog.locator(".preview")).to_contain_text("CN=First")
    expect(dialog.locator(".note")).to_have_text("Drop files, not a folder.")
    assert failures == []


def test_a_file_that_cannot_be_read_is_named(at: At) -> None:
    page = at("ca")
    page.evaluate(FOLDER.replace("=== 'folder' ? {", "=== '' ? {"))
    page.locator("[data-key=primary]").click()
    drop(page, "dialog", {"folder": b""})
    expect(page.get_by_role("dialog").locator(".error").first).to_have_text("folder cannot be read. Choose it again.")


UNCOVERED = """() => document.activeElement.getBoundingClientRect().top
    >= document.querySelector('.status').getBoundingClientRect().bottom"""


@pytest.mark.slow
def test_the_message_covers_no_row_that_gets_the_focus(at: At, live: Live) -> None:
    """The message stays at the top while the page is scrolled (WCAG 2.2, 2.4.11)."""
    for number in range(30):
        live.add_ca(root(f"Factory {number}"))
    page = at("ca")
    rows = page.locator("tbody a")
    expect(rows).to_have_count(30)
    page.locator(".status").evaluate("status => { status.textContent = 'Factory 1 is active. '.repeat(9); }")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    for number in range(29, 0, -1):
        rows.nth(number).focus()
        page.wait_for_function(UNCOVERED, timeout=3000)


def test_a_shortened_label_cuts_no_mark(at: At) -> None:
    """An invisible character is shown as one letter, at the end of a label too."""
    page = at("")
    label = page.evaluate(
        "async () => (await import('/console/format.js')).short('x'.repeat(58) + '\\u202e' + 'y'.repeat(9))"
    )
    assert label == "x" * 58 + "⟨U+202E⟩…"
    console = Path(__file__).parents[2] / "console"
    cut = [file.name for file in console.rglob("*.js") if "short(visible(" in file.read_text()]
    assert cut == [], "a mark that is text already can be cut in its middle"


def test_the_width_of_a_name_counts_letters(at: At) -> None:
    """An emoji of several code units, and a letter with an accent of its own, are one letter."""
    page = at("")
    for text, width in (("Factory", 7), ("é" * 3, 3), ("e\u0301" * 3, 3), ("👩‍👩‍👧", 2), ("工場", 4)):
        assert page.evaluate("async (text) => (await import('/console/format.js')).width(text)", text) == width, text


def test_times_stay_true_while_the_page_is_open(new_context: NewContext, live: Live) -> None:
    stored = live.add_ca(root("Factory Root"))
    page = new_context(live.operator).new_page()
    page.clock.install(time=stored["createdAt"])
    page.goto(f"{live.console}#/ca/{stored['id']}")
    ago = page.locator("time .ago", has_text="just now").first
    expect(ago).to_be_visible()
    page.clock.run_for("03:00")
    expect(page.locator("time .ago", has_text="just now")).to_have_count(0)
    expect(page.locator("time .ago", has_text="3 minutes ago").first).to_be_visible()


def test_a_new_tab_is_signed_in_and_signing_out_ends_every_tab(new_context: NewContext, live: Live) -> None:
    """No credential is written to the disk; the tabs ask each other."""
    context = new_context()
    first = context.new_page()
    first.goto(live.console)
    sign_in(first, live.operator.key, live.operator.token)
    expect(first.locator("header")).to_contain_text("mtxpd0 · operator")
    second = context.new_page()
    second.goto(f"{live.console}#/ca")
    expect(second.get_by_role("heading", level=1, name="CA certificates")).to_be_visible()
    assert second.evaluate("Object.keys(localStorage)") == ["trust.last-request"]
    second.get_by_role("button", name="Sign out").click()
    for tab in (first, second):
        expect(tab.get_by_label("API key")).to_be_visible()
        assert tab.evaluate("sessionStorage.length") == 0


@pytest.mark.parametrize(
    ("text", "cut"),
    [("e\u0301" * 8, "e\u0301" * 3 + "…"), ("👍🏽" * 8, "👍🏽" * 3 + "…"), ("ab\u202ecde", "ab⟨U+202E⟩…")],
)
def test_a_long_name_is_cut_between_the_letters_that_people_see(at: At, text: str, cut: str) -> None:
    """A letter with its accent, an emoji with its colour, and the mark of a hidden character stay whole."""
    assert at("").evaluate("(text) => import('/console/format.js').then(({ short }) => short(text, 4))", text) == cut


@pytest.mark.parametrize("width", [375, 800, 1280])
def test_the_words_of_a_button_are_not_broken(new_context: NewContext, live: Live, width: int) -> None:
    """A button keeps the width of its longest word, also beside a long text."""
    live.add_ca(root("A Factory Root"))
    broker = live.service.client("broker")
    for number in range(3):
        live.connect(device(root("Stranger"), f"d:thermo:{number}"), f"d:mtxpd0:thermo:{number}", broker)
    page = new_context(live.operator, viewport={"width": width, "height": 800}).new_page()
    page.goto(f"{live.console}#/why")
    button = page.get_by_role("button", name="Explain").first
    button.wait_for()
    size = button.evaluate("button => [button.getBoundingClientRect().width, button.getBoundingClientRect().height]")
    assert size[0] > size[1]


@pytest.mark.slow
def test_a_tab_that_signed_out_is_not_signed_in_by_another_organization(new_context: NewContext, live: Live) -> None:
    """A new tab asks the open tabs. A tab whose user has just signed out shows the sign-in."""
    other = live.service.client("operator", live.service.other_org())
    context = new_context()
    first = context.new_page()
    first.goto(live.console)
    sign_in(first, other.key, other.token)
    expect(first.locator("header")).to_contain_text("other1 · operator")
    second = context.new_page()
    second.goto(live.console)
    second.get_by_role("button", name="Sign out").click()
    third = context.new_page()
    third.goto(live.console)
    sign_in(third, live.operator.key, live.operator.token)
    expect(third.locator("header")).to_contain_text("mtxpd0 · operator")
    expect(second.get_by_label("API key")).to_be_visible()
    sign_in(second, other.key, other.token)
    expect(second.locator("header")).to_contain_text("other1 · operator")
    second.get_by_role("button", name="Sign out").click()
    expect(second.get_by_label("API key")).to_be_visible()
    expect(third.locator("header")).to_contain_text("mtxpd0 · operator")


def test_a_country_is_chosen_by_its_name(at: At) -> None:
    """Of a name that is typed, two letters could be another country: of "Germany", Georgia."""
    page = at("servers")
    page.get_by_role("button", name="Generate CSR").first.click()
    country = page.get_by_role("dialog", name="Generate CSR").get_by_label("Country")
    expect(country.locator("option")).to_have_count(250)
    shown = country.locator("option").all_inner_texts()
    assert {"Germany (DE)", "Georgia (GE)"} <= set(shown)
    assert not [name for name in shown[1:] if name.startswith(name[-3:-1] + " ")], "a code without a name"
