"""axe-core finds nothing on any page or dialog. Focus, states and small screens have tests of their own."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.console.live import Live, choose, device, record, root, server_cert
from tests.console.test_ca_certificates import drop

NewContext = Callable[..., BrowserContext]
At = Callable[[str], Page]


def populate(live: Live) -> None:
    """Fill an org with entries of every kind."""
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
    record(live, allowed=70, untrusted_issuer=20, certificate_expired=9, sni_missing=2)
    for day in range(1, 30):
        numbers = {"untrusted_issuer": 3 + day % 7, "certificate_expired": day % 5, "identity_mismatch": day % 3}
        record(live, hours=24 * day, allowed=200 + 9 * day, **numbers)
    for hour in range(1, 24):
        record(live, hours=hour, allowed=40 + hour % 9, untrusted_issuer=hour % 4, certificate_expired=hour % 3)
    rules = [{"deviceType": "press", "level": "TLS with Client Certificate or Token"}]
    policy = {"default": "TLS with Client Certificate Authentication", "rules": rules}
    live.operator.put("/authorization/connectionpolicy", policy).ok()


def open_explanation(page: Page) -> None:
    page.get_by_role("button", name="Explain d:mtxpd0:thermo:43").click()
    page.locator("#verdict").wait_for()


def open_meaning(page: Page) -> None:
    page.get_by_text("My device says …").click()
    page.get_by_label("A line of its log").fill("tlsv1 alert unknown ca")
    page.get_by_text("It does not know the CA").wait_for()


def open_shortcuts(page: Page) -> None:
    page.get_by_role("heading", level=1).focus()
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()


def open_ca_dialog(page: Page) -> None:
    page.get_by_role("button", name="Add certificate").click()
    page.get_by_label("CA certificate, pasted").fill(root("Previewed Root").pem)
    page.get_by_text("Will be accepted and active at once.").wait_for()


def open_several(page: Page) -> None:
    page.get_by_role("button", name="Add several…").click()
    top = root("Top")
    below = root("Below", signer=top)
    files = {
        "bundle.pem": (root("Lower", signer=below).pem + below.pem).encode(),
        "top.cer": top.der,
        "device.pem": device(top).pem.encode(),
        "key.pem": top.key_pem.encode(),
    }
    drop(page, "dialog", files)
    page.get_by_role("button", name="Save 3").wait_for()


def open_refused_dialog(page: Page) -> None:
    page.get_by_role("button", name="Add certificate").click()
    page.get_by_label("CA certificate, pasted").fill("not a certificate")
    page.get_by_role("button", name="Save").click()
    page.locator(".field .error:visible").wait_for()


def open_server_dialog(page: Page) -> None:
    page.get_by_role("button", name="Add certificate").click()
    page.get_by_label("Certificate file, pasted").fill(server_cert("mtxpd0.messaging.example.com", number=9).pem)
    page.get_by_text("Will be accepted.").wait_for()


def open_preflight(page: Page) -> None:
    page.get_by_role("combobox").select_option(index=1)
    page.get_by_role("button", name="Activate…").click()
    page.get_by_text("New root").wait_for()


def press_button(name: str) -> Callable[[Page], None]:
    def press(page: Page) -> None:
        page.get_by_role("button", name=name).first.click()
        page.get_by_role("dialog").wait_for()

    return press


def choose_action(action: str) -> Callable[[Page], None]:
    def act(page: Page) -> None:
        choose(page, action, "Factory Root")
        page.get_by_role("dialog").wait_for()

    return act


def open_menu(page: Page) -> None:
    page.get_by_role("button", name="Actions for Factory Root").click()
    page.get_by_role("button", name="Delete Factory Root").wait_for()


def open_conflict(page: Page) -> None:
    """Change the description elsewhere while this page's dialog is open, then save."""
    choose(page, "Edit description", "mtxpd0")
    page.get_by_label("Description", exact=True).fill("Mine")
    page.evaluate("""async () => {
        const { api } = await import('./api.js');
        const server = (await api.servers()).find((entry) => entry.source !== 'default');
        await api.changeServer(server.id, { comments: 'Theirs' }, server.version);
    }""")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("dialog", name="Changed meanwhile").wait_for()


def open_policy_preview(page: Page) -> None:
    page.get_by_label("TLS with Token and Client Certificate Authentication").check()
    page.get_by_role("button", name="Preview").click()
    page.get_by_text("clients seen in 30 days would be refused").wait_for()


# name -> (route, action on the page)
SCREENS: dict[str, tuple[str, Callable[[Page], None]]] = {
    "overview": ("", lambda page: page.locator(".ends li").first.wait_for()),
    "devices": ("devices", lambda page: page.locator("tbody tr").first.wait_for()),
    "ca-certificates": ("ca", lambda page: page.locator("tbody tr").first.wait_for()),
    "ca-details": ("ca", lambda page: page.get_by_role("link", name="CN=Factory Root").click()),
    "ca-add": ("ca", open_ca_dialog),
    "ca-several": ("ca", open_several),
    "ca-refused": ("ca", open_refused_dialog),
    "ca-menu": ("ca", open_menu),
    "ca-delete": ("ca", choose_action("Delete")),
    "ca-deactivate": ("ca", choose_action("Deactivate")),
    "ca-describe": ("ca", choose_action("Edit description")),
    "server-certificates": ("servers", lambda page: page.locator("tbody tr").first.wait_for()),
    "server-add": ("servers", open_server_dialog),
    "server-preflight": ("servers", open_preflight),
    "server-csr": ("servers", press_button("Generate CSR")),
    "server-fulfil": ("servers", press_button("Upload certificate")),
    "server-conflict": ("servers", open_conflict),
    "connection-security": ("security", lambda page: page.locator(".denials").wait_for()),
    "connection-preview": ("security", open_policy_preview),
    "deny": ("security", press_button("Add to deny list")),
    "brokers": ("brokers", lambda page: page.locator("tbody tr").first.wait_for()),
    "why-refused": ("why", open_explanation),
    "device-says": ("why", open_meaning),
    "shortcuts": ("devices", open_shortcuts),
    "activity": ("activity", lambda page: page.locator("tbody tr").first.wait_for()),
}


def find_violations(page: Page) -> list[str]:
    """Run all rules of axe-core for WCAG 2.2 AA and good practice. Return the violations."""
    result: dict[str, Any] = page.evaluate("""() => axe.run(document, { resultTypes: ['violations'],
        runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] })""")
    return [f"{rule['id']}: {node['html'][:160]}" for rule in result["violations"] for node in rule["nodes"]]


# The page or an open dialog: neither may need horizontal scrolling.
_TOO_WIDE = """[document.documentElement, ...document.querySelectorAll('dialog[open]')]
    .some(element => element.scrollWidth > element.clientWidth)"""


def take_screenshot(page: Page, folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", full_page=page.get_by_role("dialog").count() == 0)


# name -> (colour scheme, width): a phone, a tablet, a small window and a desk
LOOKS: Final[dict[str, tuple[Literal["light", "dark"], int]]] = {
    "light-360": ("light", 360),
    "dark-360": ("dark", 360),
    "light-768": ("light", 768),
    "dark-768": ("dark", 768),
    "light-1024": ("light", 1024),
    "dark-1024": ("dark", 1024),
    "light-1440": ("light", 1440),
    "dark-1440": ("dark", 1440),
}


@pytest.mark.slow
@pytest.mark.timeout(300)  # seconds; axe-core checks every element of many screens
@pytest.mark.parametrize("part", range(3))  # so that several workers share the screens
def test_axe_finds_nothing_on_any_screen(
    new_context: NewContext, live: Live, axe: Path, screenshots: Path, part: int
) -> None:
    """Every page and dialog is accessible, light and dark, in each width; none is wider than its window.

    The screenshots stay in screenshots/ for review by people.
    """
    populate(live)
    # axe-core inspects styles in ways that the content security policy forbids; other tests run with the policy.
    context = new_context(live.operator, bypass_csp=True)
    context.add_init_script(path=axe)
    violations: list[str] = []
    for name, (route, prepare) in list(SCREENS.items())[part::3]:
        page = context.new_page()
        page.goto(f"{live.console}#/{route}")
        page.locator("main table, main form, main .panel:not([hidden]) > *").first.wait_for()
        prepare(page)
        for look in LOOKS:
            violations += [f"{name}-{look}: {violation}" for violation in inspect(page, screenshots, name, look)]
        page.close()
    assert violations == []


def inspect(page: Page, folder: Path, name: str, look: str) -> list[str]:
    """Return the violations on *page* in one of LOOKS, and take a screenshot."""
    scheme, width = LOOKS[look]
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    wrong = find_violations(page)
    if page.evaluate(_TOO_WIDE):
        wrong.append("wider than the window")
    take_screenshot(page, folder, f"{name}-{look}")
    return wrong


@pytest.mark.slow
def test_axe_finds_nothing_at_sign_in(new_context: NewContext, live: Live, axe: Path, screenshots: Path) -> None:
    """The sign-in page, an empty organization, and the sign-in dialog over a page are accessible."""
    context = new_context(bypass_csp=True)
    context.add_init_script(path=axe)
    page = context.new_page()

    def look_at(name: str) -> None:
        for look in LOOKS:
            assert inspect(page, screenshots, name, look) == []

    page.goto(live.console)
    page.get_by_label("API key").wait_for()
    look_at("sign-in")
    page.get_by_label("API key").fill(live.operator.key)
    page.get_by_label("Token").fill(live.operator.token)
    page.keyboard.press("Enter")
    page.goto(f"{live.console}#/ca")
    page.get_by_text("Don’t have a CA? Create one").click()
    look_at("ca-empty")
    page.goto(f"{live.console}#/")
    page.get_by_text("Nothing expires within 90 days.").wait_for()
    look_at("overview-empty")
    page.evaluate("""async () => {
        const session = await import('./session.js');
        session.keep({ kind: 'key', key: 'x', token: 'y' }, session.who());
    }""")
    page.goto(f"{live.console}#/activity")
    page.get_by_role("dialog", name="Sign in").wait_for()
    look_at("session-ended")


def test_a_new_page_focuses_its_heading_and_has_a_skip_link(at: At) -> None:
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
    """A new entry in the live list of refusals does not take the focus from the user."""
    live.add_ca(root("Known"))
    broker = live.service.client("broker")
    live.connect(device(root("One")), "d:mtxpd0:thermo:1", broker)
    page = at("why")
    button = page.get_by_role("button", name="Explain d:mtxpd0:thermo:1")
    button.focus()
    live.connect(device(root("Two"), "d:thermo:2"), "d:mtxpd0:thermo:2", broker)
    expect(page.get_by_role("button", name="Explain d:mtxpd0:thermo:2")).to_be_visible(timeout=15_000)
    expect(button).to_be_focused()
    live.service.clock.now += timedelta(seconds=1)  # the newest of a cause has the button
    live.connect(device(root("One"), "d:thermo:3"), "d:mtxpd0:thermo:3", broker)  # of the first one's cause
    expect(page.get_by_role("button", name="Explain d:mtxpd0:thermo:3")).to_be_focused(timeout=15_000)


def test_small_screens_have_targets_large_enough_for_a_finger(new_context: NewContext, live: Live) -> None:
    """Targets have 44 pixels, and rows are labelled blocks."""
    populate(live)
    page = new_context(live.operator, viewport={"width": 390, "height": 800}).new_page()
    for route in ("ca", "servers", "security", "brokers", "why", "activity"):
        page.goto(f"{live.console}#/{route}")
        page.locator("main table, main form").first.wait_for()
        small = page.locator("button:visible, nav a:visible, select:visible").evaluate_all(
            "all => all.filter(link => link.getBoundingClientRect().height < 43.5).map(link => link.textContent)"
        )
        assert small == [], route
    page.goto(f"{live.console}#/ca")
    labels = page.locator("tbody td").first.evaluate("cell => getComputedStyle(cell, '::before').content")
    assert labels == '"Subject"'


def test_an_unavailable_store_is_reported_and_can_be_tried_again(at: At, live: Live) -> None:
    """The old content stays; one click tries again."""
    from shared.errors import StoreUnavailable

    live.add_ca(root())
    page = at("ca")
    expect(page.get_by_role("link", name="CN=Factory Root")).to_be_visible()
    real = live.service.store.get_many

    def raise_unavailable(keys: object) -> Any:
        raise StoreUnavailable

    live.service.store.get_many = raise_unavailable  # type: ignore[method-assign]
    choose(page, "Download PEM", "Factory Root")
    expect(page.get_by_role("alert")).to_contain_text("The store does not answer; nothing was changed")
    expect(page.get_by_role("link", name="CN=Factory Root")).to_be_visible()
    live.service.store.get_many = real  # type: ignore[method-assign]
    with page.expect_download():
        page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert")).to_have_count(0)
