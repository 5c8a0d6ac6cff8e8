"""The same flows without a mouse: Tab, arrows, Enter, Esc. More keyboard tests are in the files of the pages."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.console.live import Live, device, root, server_cert

At = Callable[[str], Page]


def tab_to(page: Page, name: str) -> None:
    """Press Tab until the focused element is called *name*. Raises: AssertionError, if Tab does not reach it."""
    for _ in range(80):
        page.keyboard.press("Tab")
        called = page.evaluate(
            """() => {
                const element = document.activeElement;
                return element.getAttribute('aria-label')
                    ?? element.labels?.[0]?.textContent.trim() ?? element.textContent.trim();
            }"""
        )
        if called == name:
            return
    raise AssertionError(f"Tab does not reach {name!r}")


def test_a_server_certificate_is_activated_and_then_the_previous_one_again(at: At, live: Live) -> None:
    live.add_server(server_cert(live.host))
    page = at("servers")
    page.get_by_role("combobox").wait_for()
    tab_to(page, "Default messaging server certificate")
    page.keyboard.press("ArrowDown")
    tab_to(page, "Activate…")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("button", name="Cancel")).to_be_focused()
    tab_to(page, "Activate")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").first).to_contain_text(f"{live.host} is active.")
    expect(page.get_by_role("button", name="Activate…")).to_be_focused()
    assert live.servers[1]["active"]
    tab_to(page, "Return to Default certificate")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").first).to_contain_text("Default certificate is active.")
    assert live.servers[0]["active"]


def test_a_request_is_generated(at: At, live: Live) -> None:
    page = at("servers")
    page.get_by_role("button", name="Generate CSR").wait_for()
    tab_to(page, "Generate CSR")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Common name")).to_be_focused()
    tab_to(page, "Organization")
    page.keyboard.type("Acme")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name=live.host)).to_be_focused()
    assert "O=Acme" in live.servers[1]["subject"]


def test_a_ca_is_deactivated_and_esc_changes_nothing(at: At, live: Live) -> None:
    live.add_ca(root())
    page = at("ca")
    page.locator("tbody tr").wait_for()
    menu = page.get_by_role("button", name="Actions for Factory Root")

    def open_dialog() -> None:
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Deactivate Factory Root")).to_be_focused()
        page.keyboard.press("ArrowUp")
        expect(page.get_by_role("button", name="Delete Factory Root")).to_be_focused()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.get_by_role("dialog").wait_for()

    tab_to(page, "Actions for Factory Root")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(menu).to_be_focused()
    open_dialog()
    page.keyboard.press("Escape")
    expect(menu).to_be_focused()
    assert live.cas[0]["status"] == "active"
    open_dialog()
    tab_to(page, "Deactivate")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="CN=Factory Root")).to_be_focused()
    assert live.cas[0]["status"] == "inactive"


def test_a_device_is_checked_and_put_on_the_deny_list(at: At, live: Live) -> None:
    issued = root()
    live.add_ca(issued)
    page = at("why")
    tab_to(page, "Device certificate, pasted")
    page.keyboard.insert_text(device(issued).pem)
    tab_to(page, "Client ID")
    page.keyboard.type("d:mtxpd0:thermo:42")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="thermo/42 is allowed by Factory Root")).to_be_focused()
    page = at("security")
    page.get_by_role("button", name="Add to deny list").wait_for()
    tab_to(page, "Add to deny list")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Deny", exact=True)).to_be_focused()
    page.keyboard.press("ArrowDown")
    tab_to(page, "Device")
    page.keyboard.type("d:thermo:42")
    tab_to(page, "Reason")
    page.keyboard.type("lost")
    tab_to(page, "Deny")
    page.keyboard.press("Enter")
    expect(page.get_by_role("cell", name="lost")).to_be_visible()
    [entry] = live.records("/authorization/denylist")
    assert (entry["value"], entry["reason"]) == ("d:thermo:42", "lost")
