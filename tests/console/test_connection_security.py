"""Connection security, custom domains, type certificates, the deny list."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.console.live import Live, device, root

At = Callable[[str], Page]
TOKEN = "TLS with Token Authentication"
CERTIFICATE = "TLS with Client Certificate Authentication"
BOTH = "TLS with Token and Client Certificate Authentication"


def policy(live: Live) -> dict[str, Any]:
    document: dict[str, Any] = live.operator.get("/authorization/connectionpolicy").ok()
    return document


def settings(live: Live) -> dict[str, Any]:
    document: dict[str, Any] = live.operator.get("/authorization/settings").ok()
    return document


def connect_under_a_token_level(live: Live) -> None:
    """Let two clients connect under a token level, one of them with a certificate."""
    issued = root()
    live.add_ca(issued)
    live.operator.put("/authorization/connectionpolicy", {"default": TOKEN, "rules": []}).ok()
    broker = live.service.client("broker")
    live.connect(device(issued), "d:mtxpd0:thermo:42", broker)
    body = {"serverName": live.host, "clientId": "d:mtxpd0:meter:7"}
    assert broker.post("/authorization/verifyclient", body).ok()["decision"] == "continue"
    live.service.flush()


def test_a_change_is_previewed_with_the_clients_it_would_refuse_then_saved(at: At, live: Live) -> None:
    connect_under_a_token_level(live)
    page = at("security")
    page.get_by_role("radio", name=CERTIFICATE).check()
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("1 of 2 clients seen in 30 days would be refused: meter.")).to_be_visible()
    assert policy(live)["default"] == TOKEN
    page.get_by_role("button", name="Save", exact=True).click()
    dialog = page.get_by_role("dialog", name="Save, and refuse them?")
    expect(dialog).to_contain_text("meter")
    page.keyboard.press("Escape")
    assert policy(live)["default"] == TOKEN
    page.get_by_role("button", name="Save", exact=True).click()
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").first).to_contain_text("Connection security is saved")
    assert policy(live)["default"] == CERTIFICATE


def test_saving_without_a_preview_shows_it_first(at: At, live: Live) -> None:
    """No client is refused by a hasty click."""
    connect_under_a_token_level(live)
    page = at("security")
    page.get_by_role("radio", name=CERTIFICATE).check()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text("1 of 2 clients seen in 30 days would be refused: meter.")
    assert policy(live)["default"] == TOKEN


def test_rules_are_saved_by_keyboard(at: At, live: Live) -> None:
    """Add a rule, type the device type, choose the level with the arrow keys, save with Enter."""
    page = at("security")
    page.get_by_role("button", name="Add rule").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Device type")).to_be_focused()
    page.keyboard.type("thermo")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.get_by_label("Device type").press("Enter")
    expect(page.get_by_role("status").first).to_contain_text("Connection security is saved")
    assert policy(live)["rules"] == [{"deviceType": "thermo", "level": BOTH}]
    page.get_by_role("button", name="Remove this rule").click()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("No rules: the default level holds")).to_be_visible()
    assert policy(live)["rules"] == []


def test_an_invalid_rule_is_reported_beside_it(at: At, live: Live) -> None:
    page = at("security")
    for name in ("thermo", "no type!"):
        page.get_by_role("button", name="Add rule").click()
        page.get_by_label("Device type").last.fill(name)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("This is not a device type.")).to_be_visible()
    expect(page.get_by_label("Device type").last).to_be_focused()
    expect(page.get_by_label("Device type").last).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Device type").first).to_have_value("thermo")
    assert policy(live)["rules"] == []


def test_custom_domains_show_their_dns_records_and_are_saved(at: At, live: Live) -> None:
    page = at("security")
    page.get_by_role("textbox", name="Domains").fill("iot.acme.org")
    expect(page.get_by_text("Add this record for mtxpd0.messaging.iot.acme.org at your DNS provider:")).to_be_visible()
    expect(page.get_by_label("DNS records")).to_contain_text(f"mtxpd0.messaging.iot.acme.org. CNAME {live.host}.")
    page.get_by_label("Use custom domains").check()
    page.get_by_label("Accept type certificates").check()
    page.get_by_role("button", name="Save settings").click()
    expect(page.get_by_role("status").first).to_contain_text("Settings saved.")
    kept = settings(live)
    assert kept["customDomains"] == {"enabled": True, "domains": ["iot.acme.org"]}
    assert kept["typeCertificates"] is True


def test_removing_a_domain_shows_whose_devices_would_be_refused(at: At, live: Live) -> None:
    issued = root()
    live.add_ca(issued)
    domains = {"customDomains": {"enabled": True, "domains": ["iot.acme.org"]}}
    live.operator.put("/authorization/settings", domains).ok()
    host = "mtxpd0.messaging.iot.acme.org"
    assert live.connect(device(issued), "d:mtxpd0:thermo:42", live.service.client("broker"), serverName=host)["ca"]
    page = at("security")
    page.get_by_role("textbox", name="Domains").fill("")
    page.get_by_role("button", name="Save settings").click()
    dialog = page.get_by_role("dialog", name="Save settings?")
    expect(dialog).to_contain_text(f"Devices can no longer connect to {host}.")
    expect(dialog).to_contain_text("1 would be refused (sni_unknown)")
    page.keyboard.press("Escape")
    assert settings(live)["customDomains"]["domains"] == ["iot.acme.org"]
    page.get_by_role("button", name="Save settings").click()
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").first).to_contain_text("Settings saved.")
    assert settings(live)["customDomains"]["domains"] == []


def test_a_domain_of_the_platform_is_refused_beside_the_field(at: At, live: Live) -> None:
    page = at("security")
    page.get_by_role("textbox", name="Domains").fill("iot.acme.org\niot.example.com")
    page.get_by_role("button", name="Save settings").click()
    expect(page.get_by_text("iot.example.com belongs to the platform.")).to_be_visible()
    expect(page.get_by_role("textbox", name="Domains")).to_be_focused()
    expect(page.get_by_role("textbox", name="Domains")).to_have_value("iot.acme.org\niot.example.com")
    assert settings(live)["customDomains"]["domains"] == []


def test_a_device_is_denied_by_its_certificate_and_admitted_again(at: At, live: Live) -> None:
    """The certificate is dropped or pasted, and previewed; with a reason it is denied, and its device is refused."""
    issued = root()
    live.add_ca(issued)
    lost = device(issued)
    broker = live.service.client("broker")
    page = at("security")
    page.get_by_role("button", name="Add to deny list").click()
    dialog = page.get_by_role("dialog", name="Add to deny list")
    dialog.get_by_label("Certificate, pasted").fill(lost.pem)
    expect(dialog.locator(".preview")).to_contain_text("CN=d:thermo:42")
    dialog.get_by_label("Reason").fill("stolen")
    dialog.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("cell", name="stolen")).to_be_visible()
    assert live.connect(lost, "d:mtxpd0:thermo:42", broker)["code"] == "certificate_revoked"
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("dialog")).to_contain_text("1 would be allowed that is refused now.")
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_text("The deny list is empty.")).to_be_visible()
    assert live.connect(lost, "d:mtxpd0:thermo:42", broker)["decision"] == "allow"


@pytest.mark.parametrize("kind", ["identity", "fingerprint", "serial"])
def test_a_device_is_denied_by_name_fingerprint_or_serial(at: At, live: Live, kind: str) -> None:
    issued = root()
    ca = live.add_ca(issued)
    lost = device(issued, serial=0x4F2A)
    typed = {"identity": "d:thermo:42", "fingerprint": lost.fingerprint.upper(), "serial": "4F:2A"}[kind]
    label = {"identity": "Device", "fingerprint": "SHA-256 fingerprint", "serial": "Serial number"}[kind]
    page = at("security")
    page.get_by_role("button", name="Add to deny list").click()
    page.get_by_label("Deny", exact=True).select_option(kind)
    page.get_by_label(label, exact=True).fill("???")
    page.get_by_role("button", name="Deny", exact=True).click()
    expect(page.get_by_label(label, exact=True)).to_have_attribute("aria-invalid", "true")
    page.get_by_label(label, exact=True).fill(typed)
    page.keyboard.press("Enter")
    expect(page.locator("table.denials tbody tr")).to_have_count(1)
    [entry] = live.records("/authorization/denylist")
    stored = {"identity": "d:thermo:42", "fingerprint": lost.fingerprint, "serial": f"{ca['id']}:4f2a"}[kind]
    assert (entry["kind"], entry["value"]) == (kind, stored)
