"""Why was my device refused? From the refusal to its remedy."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.console.live import Live, device, root
from tests.support import certs

At = Callable[[str], Page]


def check(page: Page, pem: str = "", client_id: str = "d:mtxpd0:thermo:42", **more: Any) -> None:
    page.get_by_label("Device certificate, pasted").fill(pem)
    page.get_by_label("Client ID").fill(client_id)
    if "server_name" in more:
        page.get_by_label("Server name").fill(more["server_name"])
    if "tls" in more:
        page.get_by_label("TLS", exact=True).set_checked(more["tls"])
    page.get_by_role("button", name="Check").click()


def test_a_recent_refusal_is_explained_and_fixed_from_there(at: At, live: Live) -> None:
    """A refused device appears by itself; after its issuer is added from there, the device is allowed.

    Before the CA is added, the page says that the device will be allowed, and how many others."""
    live.add_ca(root("Factory Root"))
    stranger = root("New Root")
    page = at("why")
    expect(page.get_by_text("None in the last hour. Let the device try now.")).to_be_visible()
    live.connect(device(stranger, "d:meter:7"), "d:mtxpd0:meter:7", live.service.client("broker"))
    live.service.clock.now += timedelta(seconds=1)  # the newest of a cause has the button
    live.connect(device(stranger), "d:mtxpd0:thermo:42", live.service.client("broker"))
    page.get_by_role("button", name="Explain d:mtxpd0:thermo:42").click()
    heading = page.get_by_role("heading", name="Refused at step 6 of 10: Chain")
    expect(heading).to_be_focused()
    expect(page.get_by_role("region", name="Result")).to_contain_text(
        "The certificate was issued by CN=New Root, which is not among your CA certificates. "
        "If CN=New Root is your CA, add its certificate, or let the device send its intermediate certificates."
    )
    steps = page.locator(".steps li")
    expect(steps).to_have_count(10)
    expect(page.locator(".steps li.good")).to_have_count(5)
    expect(steps.nth(5)).to_contain_text("Chain failed")
    expect(steps.nth(9)).to_contain_text("Identity not reached")
    page.get_by_role("button", name="Add CA").click()
    page.get_by_label("CA certificate, pasted").fill(root("Another Root").pem)
    preview = page.get_by_role("dialog").locator(".preview")
    expect(preview).to_contain_text("With this change d:mtxpd0:thermo:42 is still refused")
    expect(preview).to_contain_text("None of them would be allowed that is refused now.")
    page.get_by_label("CA certificate, pasted").fill(stranger.pem)
    expect(preview).to_contain_text("With this change d:mtxpd0:thermo:42 is allowed.")
    expect(preview).to_contain_text("2 certificates seen since just now")
    expect(preview).to_contain_text("2 would be allowed that are refused now.")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="thermo/42 is allowed by New Root until")).to_be_visible()
    expect(page.locator(".steps li.good")).to_have_count(10)
    assert sorted(ca["subject"] for ca in live.cas) == ["CN=Factory Root", "CN=New Root"]


def test_the_refusal_is_shown_as_it_was_decided_beside_what_holds_now(at: At, live: Live) -> None:
    """The list and the explanation never contradict each other, also after the cause was mended."""
    stranger = root("New Root")
    live.add_ca(root("Factory Root"))
    live.connect(device(stranger), "d:mtxpd0:thermo:42", live.service.client("broker"))
    live.add_ca(stranger)
    page = at("why")
    page.get_by_role("button", name="Explain d:mtxpd0:thermo:42").click()
    recorded = page.locator(".recorded")
    expect(recorded).to_contain_text("Refused just now")
    expect(recorded).to_contain_text("(untrusted_issuer): The certificate was issued by CN=New Root")
    expect(recorded).to_contain_text("The same question now:")
    expect(page.get_by_role("heading", name="thermo/42 is allowed by New Root until")).to_be_visible()
    expect(page.get_by_role("link", name="More about untrusted_issuer")).to_have_attribute(
        "href", "../docs/errors/untrusted_issuer"
    )


def test_refusals_are_grouped_by_cause(at: At, live: Live) -> None:
    """Three devices of one unknown CA, and one with another fault, are two lines."""
    own, stranger = root("Factory Root"), root("New Root")
    live.add_ca(own)
    broker = live.service.client("broker")
    for number in range(3):
        live.connect(device(stranger, f"d:thermo:{number}"), f"d:mtxpd0:thermo:{number}", broker)
    live.connect(device(own), "d:mtxpd0:thermo:43", broker)
    page = at("why")
    lines = page.locator(".refusals li")
    expect(lines).to_have_count(2)
    expect(lines.filter(has_text="untrusted_issuer")).to_contain_text("3 clients, the latest")
    expect(lines.filter(has_text="untrusted_issuer")).to_contain_text("CN=New Root")
    expect(lines.filter(has_text="identity_mismatch")).to_contain_text("d:mtxpd0:thermo:43")


CASES: dict[str, tuple[str, str]] = {
    "sni_unknown": ("step 1 of 10: Server name", "mtxpd0.messaging.other.example is not a host of this service."),
    "client_id_invalid": ("step 2 of 10: Client ID", "Set the client ID to d:mtxpd0:type:device"),
    "org_mismatch": (
        "step 2 of 10: Client ID",
        "The client ID names the organization abcdef, and the server name names mtxpd0.",
    ),
    "tls_required": ("step 3 of 10: Security level", "requires TLS. Connect with TLS."),
    "certificate_missing": ("step 3 of 10: Security level", "requires a certificate, and the device sent none."),
    "certificate_malformed": ("step 4 of 10: Certificate can be read", "Send the certificate as PEM or DER."),
    "ca_inactive": ("step 6 of 10: Chain", "is deactivated since"),
    "certificate_expired": ("step 7 of 10: Dates", "Issue a new certificate."),
    "certificate_not_yet_valid": (
        "step 7 of 10: Dates",
        "Wait, or correct the clock of the machine that issues certificates and issue the certificate again.",
    ),
    "wrong_key_usage": ("step 8 of 10: Key usage", "The certificate is for serverAuth only"),
    "certificate_revoked": ("step 9 of 10: Not revoked", "on the deny list since"),
    "identity_mismatch": (
        "step 10 of 10: Identity",
        "The certificate is for d:thermo:42, and the client ID is for d:thermo:43.",
    ),
    "identity_missing": ("step 10 of 10: Identity", "The certificate names no device"),
    "type_certificate_refused": (
        "step 10 of 10: Identity",
        "The certificate is for every device of the type thermo, and type certificates are switched off.",
    ),
}


@pytest.mark.parametrize("code", list(CASES))
def test_every_failing_step_shows_its_sentence(at: At, live: Live, code: str) -> None:
    """The sentence is the service's, unchanged, under the failing step."""
    issued = root()
    stored = live.add_ca(issued)
    good = device(issued)
    page = at("why")
    match code:
        case "sni_unknown":
            check(page, good.pem, server_name="mtxpd0.messaging.other.example")
        case "client_id_invalid":
            check(page, good.pem, "thermo-42")
        case "org_mismatch":
            check(page, good.pem, "d:abcdef:thermo:42")
        case "tls_required":
            check(page, good.pem, tls=False)
        case "certificate_missing":
            check(page)
        case "certificate_malformed":
            check(page, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")
        case "ca_inactive":
            live.add_ca(certs.ca("Second Root"))  # without an active CA, step 5 would fail first
            live.operator.put(f"/authentication/cacertificates/{stored['id']}", {"status": "inactive"}).ok()
            check(page, good.pem)
        case "certificate_expired":
            check(page, device(issued, days=-2).pem)
        case "certificate_not_yet_valid":
            later = device(issued).cert.not_valid_after_utc
            early = certs.leaf("d:thermo:42", issued, not_before=later - certs.DAY, not_after=later)
            check(page, early.pem)
        case "wrong_key_usage":
            check(page, device(issued, extended_key_usage=[certs.SERVER_AUTH]).pem)
        case "certificate_revoked":
            body = {"kind": "identity", "value": "d:thermo:42"}
            live.operator.post("/authorization/denylist", body).ok(201)
            check(page, good.pem)
        case "identity_mismatch":
            check(page, good.pem, "d:mtxpd0:thermo:43")
        case "identity_missing":
            check(page, device(issued, "just a name").pem)
        case "type_certificate_refused":
            check(page, device(issued, "d:thermo:").pem)
    where, sentence = CASES[code]
    expect(page.get_by_role("heading", name=f"Refused at {where}")).to_be_focused()
    expect(page.get_by_role("region", name="Result")).to_contain_text(sentence)


def test_a_deactivated_ca_is_activated_from_there(at: At, live: Live) -> None:
    issued = root()
    stored = live.add_ca(issued)
    live.add_ca(certs.ca("Second Root"))
    live.operator.put(f"/authentication/cacertificates/{stored['id']}", {"status": "inactive"}).ok()
    page = at("why")
    check(page, device(issued).pem)
    page.get_by_role("button", name="Activate Factory Root…").click()
    dialog = page.get_by_role("dialog", name="Activate CA certificate?")
    expect(dialog).to_contain_text("This device is allowed then.")
    dialog.get_by_role("button", name="Activate").click()
    expect(page.get_by_role("heading", name="thermo/42 is allowed by Factory Root")).to_be_visible()
    assert {ca["status"] for ca in live.cas} == {"active"}


def test_a_client_id_that_is_proven_is_offered(at: At, live: Live) -> None:
    """One click fills in the client ID of the certificate, and the device is allowed."""
    issued = root()
    live.add_ca(issued)
    page = at("why")
    check(page, device(issued).pem, "d:mtxpd0:thermo:43")
    page.get_by_role("button", name="Check with client ID d:mtxpd0:thermo:42").click()
    expect(page.get_by_role("heading", name="thermo/42 is allowed by Factory Root")).to_be_visible()


def test_a_ca_of_the_same_name_and_another_key_is_not_offered(at: At, live: Live) -> None:
    stored = live.add_ca(root("Factory Root", private=certs.key("P-256", 91)))
    live.operator.put(f"/authentication/cacertificates/{stored['id']}", {"status": "inactive"}).ok()
    live.add_ca(root("Other Root"))
    page = at("why")
    check(page, device(root("Factory Root")).pem)
    expect(page.get_by_role("heading", name="Refused at step")).to_be_visible()
    expect(page.get_by_role("button", name="Activate")).to_have_count(0)


def test_a_valid_device_is_admitted_and_the_page_names_other_causes(at: At, live: Live) -> None:
    issued = root()
    live.add_ca(issued)
    page = at("why")
    check(page, device(issued).pem)
    expect(page.get_by_role("heading", name="thermo/42 is allowed by Factory Root until")).to_be_focused()
    expect(page.get_by_text("If it is still refused, it sends something else")).to_be_visible()


def test_the_page_says_when_the_token_decides(at: At, live: Live) -> None:
    body = {"default": "TLS with Token Authentication", "rules": []}
    live.operator.put("/authorization/connectionpolicy", body).ok()
    issued = root()
    live.add_ca(issued)
    page = at("why")
    check(page, device(issued).pem)
    expect(
        page.get_by_role("heading", name="Certificate part passed; the broker asks for the token next.")
    ).to_be_visible()


def test_a_private_key_is_not_sent(at: At, live: Live) -> None:
    page = at("why")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.post_data or ""))
    check(page, device(root()).key_pem)
    expect(page.get_by_text("This is a private key; it was not sent.")).to_be_visible()
    expect(page.get_by_label("Device certificate, pasted")).to_be_focused()
    assert not any("PRIVATE" in body for body in sent)


def test_the_whole_report_is_copied(at: At, live: Live) -> None:
    """The page says “Copied” only after success; if the browser does not allow it, the text is selected instead."""
    page = at("why")
    check(page)
    copy = page.get_by_role("button", name="Copy report")
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('not allowed')); }")
    copy.click()
    expect(page.get_by_text("Press Ctrl+C")).to_be_visible()
    assert "Code: certificate_missing" in page.evaluate("getSelection().toString()")
    page.evaluate("() => { navigator.clipboard.writeText = async (text) => { window.copied = text; }; }")
    copy.click()
    expect(page.get_by_text("Copied")).to_be_visible()
    report = page.evaluate("window.copied")
    assert "Refused at step 3 of 10: Security level" in report
    assert "10. Identity: not reached" in report


def test_an_older_refusal_has_an_address_and_comes_from_the_activity_list(at: At, live: Live) -> None:
    issued = root()
    live.add_ca(issued)
    live.connect(device(issued, days=-2), "d:mtxpd0:thermo:42", live.service.client("broker"))
    page = at("activity/refusal")
    expect(page.get_by_text("Refused (certificate_expired)")).to_be_visible()
    page.get_by_role("button", name="Explain d:thermo:42").click()
    expect(page.get_by_role("heading", name="Refused at step 7 of 10: Dates")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Refused at step 7 of 10: Dates")).to_be_visible()
    page.goto(f"{live.console}#/why/unknown")
    expect(page.get_by_text("This refusal is no longer in the list.")).to_be_visible()


# --------------------------------------------------------------------------------------------- activity, overview


def test_activity_names_user_action_and_entry(at: At, live: Live) -> None:
    live.add_ca(root())
    page = at("activity")
    row = page.locator("tbody tr", has_text="CA added")
    expect(row).to_contain_text(live.operator.key)
    expect(row).to_contain_text("just now")
    row.get_by_role("link", name="Factory Root").click()
    expect(page.locator("tr.details")).to_be_visible()
    page.goto(f"{live.console}#/activity")
    page.get_by_role("link", name="Refusals").click()
    expect(page.get_by_text("Nothing yet.")).to_be_visible()
    expect(page.get_by_role("link", name="Refusals")).to_have_attribute("aria-current", "true")


def test_a_long_activity_list_can_be_continued(at: At, live: Live) -> None:
    for number in range(60):
        value = f"d:thermo:{number}"
        live.operator.post("/authorization/denylist", {"kind": "identity", "value": value}).ok(201)
    page = at("activity/change")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator("tbody tr")).to_have_count(61)
    expect(page.get_by_role("button", name="Show more")).to_have_count(0)


def test_completed_first_steps_are_ticked(at: At, live: Live) -> None:
    issued = root()
    page = at("")
    steps = page.locator(".first-steps > li")
    for number in range(3):
        expect(steps.nth(number)).to_have_class("open")
    expect(page.get_by_label("command", exact=True)).to_contain_text(f"mosquitto_pub -h {live.host}")
    live.add_ca(issued)
    page.reload()
    expect(steps.nth(0)).to_have_class("done")
    page.goto(f"{live.console}#/why")
    check(page, device(issued).pem)
    expect(page.get_by_role("heading", name="thermo/42 is allowed")).to_be_visible()
    page.get_by_role("link", name="Overview").click()
    expect(steps.nth(1)).to_have_class("done")
    expect(steps.nth(2)).to_have_class("open")
    live.connect(device(issued), "d:mtxpd0:thermo:42", live.service.client("broker"))
    page.reload()
    expect(steps.nth(2)).to_have_class("done")


def test_what_ends_soon_is_in_the_drawing_and_in_the_list(at: At, live: Live) -> None:
    """Marks are links; ended ones are left of today; phones show the list only."""
    from tests.console.live import now, server_cert

    page = at("")
    expect(page.get_by_text("Nothing expires within 90 days.")).to_be_visible()
    soon = live.add_ca(root("Soon", days=5))
    live.add_ca(root("Same day", days=5))
    live.add_ca(root("Later", days=2000))
    live.add_server(server_cert(live.host, days=40))
    live.service.clock.now -= certs.YEAR
    gone = certs.ca("Gone", not_before=live.service.clock.now - certs.DAY, not_after=now() - 3 * certs.DAY)
    live.add_ca(gone)
    live.service.clock.now = now()
    page.reload()
    line = page.get_by_role("group", name="What expires within 90 days")
    expect(line.get_by_role("link")).to_have_count(4)
    expect(line).to_contain_text("2 later")
    listed = page.locator(".ends li")
    expect(listed).to_have_count(4)
    expect(listed.first).to_contain_text("Gone")
    marks = [box["x"] for link in line.get_by_role("link").all() if (box := link.locator("circle").bounding_box())]
    today = line.locator(".today").bounding_box()
    assert today is not None
    assert min(marks) < today["x"]
    page.set_viewport_size({"width": 390, "height": 800})
    expect(line).to_be_hidden()
    expect(listed.first).to_be_visible()
    page.set_viewport_size({"width": 1280, "height": 800})
    line.get_by_role("link", name="Soon, ").focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{live.console}#/ca/{soon['id']}")
