"""axe-core finds nothing on any page or dialog; and what it cannot see: focus, states, small screens."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.console.live import Live, device, root, server_cert

NewContext = Callable[..., BrowserContext]
At = Callable[[str], Page]


def populated(live: Live) -> None:
    """An org with something of everything."""
    issued = root("Factory Root")
    live.add_ca(issued, "Pune, thermometers")
    live.add_ca(root("Berlin Root 2023", days=12), "Berlin: presses, replaced in spring")
    body = {"status": "inactive"}
    old = live.add_ca(root("Old Root", days=70), "Replaced")
    live.operator.put(f"/authentication/cacertificates/{old['id']}", body).ok()
    live.add_server(server_cert(live.host, root("Public CA"), days=20), "From our public CA")
    request = {"organization": "Acme", "keyAlgorithm": "P-256"}
    live.operator.post("/authentication/servercertificates/csr", request).ok(201)
    broker = live.service.client("broker")
    live.connect(device(issued), "d:mtxpd0:thermo:42", broker)
    live.connect(device(root("Test bench CA")), "d:mtxpd0:thermo:43", broker)
    live.connect(device(issued, "d:press:7", days=-3), "d:mtxpd0:press:7", broker)
    denial = {"kind": "identity", "value": "d:thermo:99", "reason": "Stolen in May"}
    live.operator.post("/authorization/denylist", denial).ok(201)
    domains = {"customDomains": {"enabled": True, "domains": ["iot.acme.org"]}}
    live.operator.put("/authorization/settings", domains).ok()
    rules = [{"deviceType": "press", "level": "TLS with Client Certificate or Token"}]
    policy = {"default": "TLS with Client Certificate Authentication", "rules": rules}
    live.operator.put("/authorization/connectionpolicy", policy).ok()


def explained(page: Page) -> None:
    page.get_by_role("button", name="Explain d:mtxpd0:thermo:43").click()
    page.locator("#verdict").wait_for()


def ca_dialog(page: Page) -> None:
    page.get_by_role("button", name="Add certificate").click()
    page.get_by_label("CA certificate, pasted").fill(root("Previewed Root").pem)
    page.get_by_text("Will be accepted and active at once.").wait_for()


def refused_dialog(page: Page) -> None:
    page.get_by_role("button", name="Add certificate").click()
    page.get_by_label("CA certificate, pasted").fill("not a certificate")
    page.get_by_role("button", name="Save").click()
    page.locator(".field .error:visible").wait_for()


def server_dialog(page: Page) -> None:
    page.get_by_role("button", name="Add certificate").click()
    page.get_by_label("Certificate file, pasted").fill(server_cert("mtxpd0.messaging.example.com", number=9).pem)
    page.get_by_text("Will be accepted.").wait_for()


def preflight(page: Page) -> None:
    page.get_by_role("combobox").select_option(index=1)
    page.get_by_role("button", name="Activate…").click()
    page.get_by_text("New root").wait_for()


def pressing(name: str) -> Callable[[Page], None]:
    def press(page: Page) -> None:
        page.get_by_role("button", name=name).first.click()
        page.get_by_role("dialog").wait_for()

    return press


def conflict(page: Page) -> None:
    """Somebody else describes the certificate while this page's dialog is open."""
    page.get_by_role("button", name="Describe").first.click()
    page.get_by_label("Description").fill("Mine")
    page.evaluate("""async () => {
        const { api } = await import('./api.js');
        const one = (await api.servers()).find((each) => each.source !== 'default');
        await api.changeServer(one.id, { comments: 'Theirs' }, one.version);
    }""")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("dialog", name="Changed meanwhile").wait_for()


def policy_preview(page: Page) -> None:
    page.get_by_label("TLS with Token and Client Certificate Authentication").check()
    page.get_by_role("button", name="Preview").click()
    page.get_by_text("clients seen in 30 days would be refused").wait_for()


# name -> (route, what to do there)
SCREENS: dict[str, tuple[str, Callable[[Page], None]]] = {
    "overview": ("", lambda page: page.locator(".ends li").first.wait_for()),
    "ca-certificates": ("ca", lambda page: page.locator("tbody tr").first.wait_for()),
    "ca-details": ("ca", lambda page: page.get_by_role("link", name="CN=Factory Root").click()),
    "ca-add": ("ca", ca_dialog),
    "ca-refused": ("ca", refused_dialog),
    "ca-delete": ("ca", pressing("Delete Factory Root")),
    "ca-deactivate": ("ca", pressing("Deactivate Factory Root")),
    "ca-describe": ("ca", pressing("Describe Factory Root")),
    "server-certificates": ("servers", lambda page: page.locator("tbody tr").first.wait_for()),
    "server-add": ("servers", server_dialog),
    "server-preflight": ("servers", preflight),
    "server-csr": ("servers", pressing("Generate CSR")),
    "server-fulfil": ("servers", pressing("Upload certificate")),
    "server-conflict": ("servers", conflict),
    "connection-security": ("security", lambda page: page.locator(".denials").wait_for()),
    "connection-preview": ("security", policy_preview),
    "deny": ("security", pressing("Add to deny list")),
    "why-refused": ("why", explained),
    "activity": ("activity", lambda page: page.locator("tbody tr").first.wait_for()),
}


def findings(page: Page) -> list[str]:
    """What axe-core finds, of every rule it has for WCAG 2.2 AA and good practice."""
    found: dict[str, Any] = page.evaluate("""() => axe.run(document, { resultTypes: ['violations'],
        runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] })""")
    return [f"{one['id']}: {node['html'][:160]}" for one in found["violations"] for node in one["nodes"]]


# The page, or an open dialog: neither may have to be moved sideways.
_TOO_WIDE = """[document.documentElement, ...document.querySelectorAll('dialog[open]')]
    .some(one => one.scrollWidth > one.clientWidth)"""


def kept(page: Page, folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", full_page=page.get_by_role("dialog").count() == 0)


# name -> (colour scheme, width)
LOOKS: Final[dict[str, tuple[Literal["light", "dark"], int]]] = {
    "light-wide": ("light", 1280),
    "dark-wide": ("dark", 1280),
    "light-phone": ("light", 390),
    "dark-phone": ("dark", 390),
}


@pytest.mark.timeout(300)  # seconds; axe-core looks at every element of many screens
@pytest.mark.parametrize("part", range(3))  # so that the workers share them
def test_axe_finds_nothing_and_every_screen_is_kept(
    new_context: NewContext, live: Live, axe: Path, screenshots: Path, part: int
) -> None:
    """Every page and dialog, light and dark, wide and phone; none is wider than its window. The pictures stay in
    screenshots/ for people to look at."""
    populated(live)
    # axe-core looks at styles in ways the policy forbids pages; the policy itself is what the other tests run under.
    context = new_context(live.operator, bypass_csp=True)
    context.add_init_script(path=axe)
    found: list[str] = []
    for name, (route, prepare) in list(SCREENS.items())[part::3]:
        page = context.new_page()
        page.goto(f"{live.console}#/{route}")
        page.locator("main table, main form, main .panel > *").first.wait_for()
        prepare(page)
        for look in LOOKS:
            found += [f"{name}-{look}: {one}" for one in seen(page, screenshots, name, look)]
        page.close()
    assert found == []


def seen(page: Page, folder: Path, name: str, look: str) -> list[str]:
    """What is wrong with *page* in one of LOOKS; its picture is kept."""
    scheme, width = LOOKS[look]
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    wrong = findings(page)
    if page.evaluate(_TOO_WIDE):
        wrong.append("wider than the window")
    kept(page, folder, f"{name}-{look}")
    return wrong


def test_axe_finds_nothing_where_one_signs_in(
    new_context: NewContext, live: Live, axe: Path, screenshots: Path
) -> None:
    """Alone, with nothing stored yet, and over a page."""
    context = new_context(bypass_csp=True)
    context.add_init_script(path=axe)
    page = context.new_page()

    def look_at(name: str) -> None:
        for look in LOOKS:
            assert seen(page, screenshots, name, look) == []

    page.goto(live.console)
    page.get_by_label("API key").wait_for()
    look_at("sign-in")
    page.get_by_label("API key").fill(live.operator.key)
    page.get_by_label("Token").fill(live.operator.token)
    page.keyboard.press("Enter")
    page.goto(f"{live.console}#/ca")
    page.get_by_text("I have none").click()
    look_at("ca-empty")
    page.goto(f"{live.console}#/")
    page.get_by_text("Nothing ends within 90 days.").wait_for()
    look_at("overview-empty")
    page.evaluate("""async () => {
        const session = await import('./session.js');
        session.keep({ kind: 'key', key: 'x', token: 'y' }, session.who());
    }""")
    page.goto(f"{live.console}#/activity")
    page.get_by_role("dialog", name="Sign in").wait_for()
    look_at("session-ended")


def test_a_new_page_has_its_heading_in_focus_and_one_can_skip_to_it(at: At) -> None:
    page = at("ca")
    page.keyboard.press("Tab")
    page.get_by_role("link", name="Skip to the content").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    page.get_by_role("link", name="Activity").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Activity")).to_be_focused()
    expect(page).to_have_title("Activity · Trust console")
    page.go_back()
    expect(page.get_by_role("heading", level=1, name="CA certificates")).to_be_focused()


def test_a_refresh_keeps_the_focus(at: At, live: Live) -> None:
    """The list of refusals is live; a new one does not take the focus from who reads it."""
    broker = live.service.client("broker")
    live.connect(device(root("One")), "d:mtxpd0:thermo:1", broker)
    page = at("why")
    button = page.get_by_role("button", name="Explain d:mtxpd0:thermo:1")
    button.focus()
    live.connect(device(root("Two"), "d:thermo:2"), "d:mtxpd0:thermo:2", broker)
    expect(page.get_by_role("button", name="Explain d:mtxpd0:thermo:2")).to_be_visible(timeout=15_000)
    expect(button).to_be_focused()


def test_small_screens_have_targets_that_a_finger_hits(new_context: NewContext, live: Live) -> None:
    """44 pixels, and rows as labelled blocks."""
    populated(live)
    page = new_context(live.operator, viewport={"width": 390, "height": 800}).new_page()
    for route in ("ca", "servers", "security", "why", "activity"):
        page.goto(f"{live.console}#/{route}")
        page.locator("main table, main form").first.wait_for()
        small = page.locator("button:visible, nav a:visible, select:visible").evaluate_all(
            "all => all.filter(one => one.getBoundingClientRect().height < 43.5).map(one => one.textContent)"
        )
        assert small == [], route
    page.goto(f"{live.console}#/ca")
    labels = page.locator("tbody td").first.evaluate("cell => getComputedStyle(cell, '::before').content")
    assert labels == '"Subject"'


def test_a_store_that_does_not_answer_is_said_and_tried_again(at: At, live: Live) -> None:
    """What was there stays; one click tries again."""
    from shared.errors import StoreUnavailable

    live.add_ca(root())
    page = at("ca")
    expect(page.get_by_role("link", name="CN=Factory Root")).to_be_visible()
    real = live.service.store.get_many

    def down(keys: object) -> Any:
        raise StoreUnavailable

    live.service.store.get_many = down  # type: ignore[method-assign]
    page.get_by_role("button", name="Download PEM").click()
    expect(page.get_by_role("alert")).to_contain_text("The store does not answer; nothing was changed")
    expect(page.get_by_role("link", name="CN=Factory Root")).to_be_visible()
    live.service.store.get_many = real  # type: ignore[method-assign]
    with page.expect_download():
        page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert")).to_have_count(0)
