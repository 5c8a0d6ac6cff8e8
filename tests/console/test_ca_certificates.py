"""CA certificates, from the click to the stored record."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from playwright.sync_api import Page, expect

from shared.errors import NotACertificate
from shared.x509.certificate_files import read_one_certificate
from tests.console.live import Live, choose, device, root, server_cert
from tests.support import certs
from tests.support.certs import Issued
from tests.validation.test_file_forms import KEY_STORES

At = Callable[[str], Page]


def pem_file(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_first_ca_is_previewed_described_saved_and_active(at: At, live: Live, tmp_path: Path) -> None:
    """With the mouse: a chosen file is previewed; after a description and Save the CA is active at once."""
    page = at("ca")
    expect(page.get_by_text("No CA yet. Add the CA, root or intermediate")).to_be_visible()
    page.get_by_role("button", name="Add certificate").first.click()
    dialog = page.get_by_role("dialog", name="Add CA certificate")
    dialog.get_by_label("CA certificate", exact=True).set_input_files(pem_file(tmp_path, "root.pem", root().pem))
    preview = dialog.locator(".preview")
    expect(preview).to_contain_text("Will be accepted and active at once.")
    expect(preview).to_contain_text("CN=Factory Root")
    expect(preview).to_contain_text("P-256")
    expect(preview).to_contain_text(f"From now on devices must name {live.host} in TLS (SNI)")
    assert live.cas == []  # a preview saves nothing
    dialog.get_by_label("Description", exact=True).fill("Pune, thermometers")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").first).to_contain_text("Factory Root is active.")
    [stored] = live.cas
    assert (stored["status"], stored["comments"]) == ("active", "Pune, thermometers")
    expect(page.get_by_role("link", name="CN=Factory Root")).to_be_focused()


def test_a_ca_is_added_by_keyboard_alone(at: At, live: Live) -> None:
    """From the page's heading: Tab, Enter, paste, type, Enter on Save; then the new row has the focus."""
    page = at("ca")
    page.get_by_role("button", name="Add certificate").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.get_by_label("CA certificate", exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("CA certificate, pasted")).to_be_focused()
    page.keyboard.insert_text(root().pem)
    expect(page.locator(".preview")).to_contain_text("Will be accepted")
    while page.evaluate("document.activeElement.labels?.[0]?.textContent") != "Description":
        page.keyboard.press("Tab")
    page.keyboard.type("typed")
    while page.evaluate("document.activeElement.textContent") != "Save":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="CN=Factory Root")).to_be_focused()
    assert live.cas[0]["comments"] == "typed"


def test_a_file_is_dropped_anywhere_in_the_dialog(at: At, live: Live) -> None:
    """The file may be DER; the file control then shows its name."""
    page = at("ca")
    page.get_by_role("button", name="Add certificate").first.click()
    drop(page, "dialog", {"factory.cer": root().der})
    expect(page.locator(".preview")).to_contain_text("Will be accepted")
    assert page.get_by_label("CA certificate", exact=True).evaluate("input => input.files[0].name") == "factory.cer"
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("link", name="CN=Factory Root")).to_be_visible()
    assert live.cas[0]["subject"] == "CN=Factory Root"


@pytest.mark.parametrize("kind", KEY_STORES)
def test_a_java_key_store_is_not_sent_and_named_as_the_service_names_it(at: At, kind: str) -> None:
    """It may have a private key. The commands that convert it are those of the service."""
    store = KEY_STORES[kind] + bytes(800)
    with pytest.raises(NotACertificate) as refused:
        read_one_certificate(store)
    page = at("ca")
    page.get_by_role("button", name="Add certificate").first.click()
    drop(page, "dialog", {"store": store})
    expect(page.get_by_role("dialog").locator(".error").first).to_have_text(str(refused.value))


def drop(page: Page, where: str, files: dict[str, bytes]) -> None:
    """Drop *files* on the element *where*, as a user drags them from a folder."""
    transfer = page.evaluate_handle(
        """files => {
            const transfer = new DataTransfer();
            for (const [name, bytes] of Object.entries(files)) {
                transfer.items.add(new File([new Uint8Array(bytes)], name));
            }
            return transfer;
        }""",
        {name: list(data) for name, data in files.items()},
    )
    page.dispatch_event(where, "drop", {"dataTransfer": transfer})


def as_der(issued: Issued) -> bytes:
    return issued.key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def wrong_files() -> dict[str, tuple[bytes, str]]:
    good = root("Good")
    return {
        "a key": (good.key_pem.encode(), "This is a private key; it was not sent."),
        "a key as DER": (as_der(good), "This is a private key; it was not sent."),
        "a key in base64": (base64.b64encode(good.key_pem.encode()), "This is a private key; it was not sent."),
        "a key as DER in base64": (base64.encodebytes(as_der(good)), "This is a private key; it was not sent."),
        "a key in UTF-16": (good.key_pem.encode("utf-16-le"), "This is a private key; it was not sent."),
        "a key in a JSON string": (json.dumps(good.key_pem).encode(), "This is a private key; it was not sent."),
        "certificate and key": ((good.pem + good.key_pem).encode(), "This is a private key; it was not sent."),
        "two certificates": (certs.bundle(good, root("Other")).encode(), "2 certificates are in the file. Save the CA"),
        "an expired one": (root("Old", days=-2).pem.encode(), "The certificate expired "),
        "a device's": (device(good).pem.encode(), "This is not a CA certificate: "),
        "no certificate": (b"hello", "No certificate found in the file. Choose PEM or DER."),
        "too large": (b"x" * 70_000, "68.4 KiB; at most 64 KiB."),
    }


@pytest.mark.parametrize("kind", list(wrong_files()))
def test_a_wrong_file_shows_its_sentence_and_keeps_the_other_input(
    at: At, live: Live, tmp_path: Path, kind: str
) -> None:
    """The sentence is beside the marked field; a private key is recognized in the browser and never sent."""
    data, sentence = wrong_files()[kind]
    page = at("ca")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.post_data or ""))
    page.get_by_role("button", name="Add certificate").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Description", exact=True).fill("Berlin")
    dialog.get_by_label("CA certificate", exact=True).set_input_files(pem_file(tmp_path, "wrong.pem", data))
    expect(dialog).to_contain_text(sentence)
    dialog.get_by_role("button", name="Save").click()
    field = dialog.get_by_label("CA certificate", exact=True)
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    described = str(field.get_attribute("aria-describedby")).split()
    assert dialog.locator(f"#{described[-1]}").is_visible()
    expect(dialog.get_by_label("Description", exact=True)).to_have_value("Berlin")
    assert live.cas == []
    assert not any("PRIVATE KEY" in body or "MIGHAgEA" in body for body in sent)
    if "key" in kind:
        assert not any(base64.b64encode(data).decode()[:200] in body for body in sent)
    # The right file afterwards is accepted, with the input from before.
    field.set_input_files(pem_file(tmp_path, "right.pem", root("Right").pem))
    expect(dialog.locator(".preview")).to_contain_text("Will be accepted")
    expect(field).not_to_have_attribute("aria-invalid", "true")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_role("link", name="CN=Right")).to_be_visible()
    assert live.cas[0]["comments"] == "Berlin"


def test_a_known_ca_is_reported_and_changes_nothing(at: At, live: Live) -> None:
    issued = root()
    live.add_ca(issued, "first")
    page = at("ca")
    page.get_by_role("button", name="Add certificate").click()
    page.get_by_label("CA certificate, pasted").fill(issued.pem)
    expect(page.locator(".preview")).to_contain_text("Already here since")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").first).to_contain_text("nothing changed")
    assert [ca["comments"] for ca in live.cas] == ["first"]


def test_a_user_without_a_ca_gets_the_commands_to_make_one(at: At) -> None:
    page = at("ca")
    page.get_by_text("Don’t have a CA? Create one").click()
    expect(page.get_by_label("commands", exact=True)).to_contain_text("openssl req -x509")


def test_the_subject_opens_all_facts_of_a_ca(at: At, live: Live) -> None:
    """Issuer, serial number, dates, key, fingerprint with colons, and who added it, at an address of its own."""
    stored = live.add_ca(root())
    page = at("ca")
    page.get_by_role("link", name="CN=Factory Root").click()
    details = page.locator("tr.details")
    pairs = stored["fingerprintSha256"].upper()
    expect(details).to_contain_text(":".join(pairs[at : at + 2] for at in range(0, 32, 2)))
    expect(details).to_contain_text(live.operator.key)
    expect(page).to_have_url(f"{live.console}#/ca/{stored['id']}")
    page.get_by_role("link", name="CN=Factory Root").click()
    expect(details).to_have_count(0)


def test_a_fingerprint_is_found_with_and_without_colons(at: At, live: Live) -> None:
    fingerprint = live.add_ca(root("Wanted"))["fingerprintSha256"]
    live.add_ca(root("Other"))
    page = at("ca")
    search = page.get_by_role("searchbox", name="Search")
    for text in (fingerprint, fingerprint[:16].upper(), ":".join(fingerprint[at : at + 2] for at in range(0, 64, 2))):
        search.fill(text)
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.get_by_role("link", name="CN=Wanted")).to_be_visible()
    search.fill("zebra")
    expect(page.get_by_text("No CA here matches “zebra”.")).to_be_visible()


def test_a_ca_is_described_deactivated_and_activated_again(at: At, live: Live) -> None:
    live.add_ca(root())
    page = at("ca")
    choose(page, "Edit description", "Factory Root")
    page.get_by_label("Description", exact=True).fill("Line 4")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("cell", name="Line 4")).to_be_visible()
    choose(page, "Deactivate", "Factory Root")
    dialog = page.get_by_role("dialog", name="Deactivate CA certificate?")
    expect(dialog).to_contain_text("You can activate it again.")
    expect(dialog).to_contain_text("Every device certificate will be refused.")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    dialog.get_by_role("button", name="Deactivate").click()
    expect(page.locator(".states")).to_have_text("○ Inactive")
    assert live.cas[0]["status"] == "inactive"
    choose(page, "Activate", "Factory Root")
    expect(page.get_by_role("status").first).to_contain_text("Factory Root is active.")
    assert (live.cas[0]["status"], live.cas[0]["comments"]) == ("active", "Line 4")


def test_deleting_a_ca_in_use_shows_the_effect_and_asks_for_a_confirmation(at: At, live: Live) -> None:
    """The connections of 30 days are shown; Cancel has the focus; Esc changes nothing and restores the focus."""
    issued = root()
    live.add_ca(issued)
    broker = live.service.client("broker")
    for _ in range(3):
        live.connect(device(issued), "d:mtxpd0:thermo:42", broker)
    page = at("ca")
    choose(page, "Delete", "Factory Root")
    dialog = page.get_by_role("dialog", name="Delete CA certificate?")
    expect(dialog).to_contain_text("Last 30 days: at least 3 connections seen")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("button", name="Actions for Factory Root")).to_be_focused()
    choose(page, "Delete", "Factory Root")
    dialog.get_by_role("button", name="Delete").click()
    expect(dialog).to_contain_text("Type DELETE in capitals")
    assert len(live.cas) == 1
    dialog.get_by_label("Type DELETE").fill("DELETE")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").first).to_contain_text("Factory Root is deleted.")
    assert live.cas == []


def test_other_cas_that_vouch_are_named_and_the_ca_can_be_deactivated_instead(at: At, live: Live) -> None:
    """In a rotation a newer certificate has the same name and key; its devices stay."""
    private = certs.key("P-256", 555)
    live.add_ca(root("Factory Root", private=private))
    live.add_ca(root("Factory Root", days=3000, private=private))
    page = at("ca")
    choose(page, "Delete", "Factory Root")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("The same devices are allowed by CN=Factory Root")
    dialog.get_by_role("button", name="Deactivate instead").click()
    expect(page.locator(".states", has_text="Inactive")).to_have_count(1)
    assert sorted(ca["status"] for ca in live.cas) == ["active", "inactive"]


def test_what_deactivating_does_is_judged_on_the_certificates_that_were_seen(at: At, live: Live) -> None:
    """Without another CA of the same key, the devices that were seen would be refused."""
    own = root("Factory Root")
    live.add_ca(own)
    live.connect(device(own), "d:mtxpd0:thermo:42", live.service.client("broker"))
    page = at("ca")
    choose(page, "Deactivate", "Factory Root")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("1 certificate seen since")
    expect(dialog).to_contain_text("1 would be refused (no_trusted_ca).")


def test_a_ca_is_downloaded_as_pem(at: At, live: Live) -> None:
    issued = root()
    stored = live.add_ca(issued)
    page = at("ca")
    with page.expect_download() as download:
        choose(page, "Download PEM", "Factory Root")
    assert download.value.suggested_filename == f"{stored['id']}.pem"
    assert download.value.path().read_text().strip() == issued.pem.strip()


def test_a_server_certificate_is_refused_as_a_ca(at: At, live: Live) -> None:
    """The sentence is the service's."""
    page = at("ca")
    page.get_by_role("button", name="Add certificate").first.click()
    page.get_by_label("CA certificate, pasted").fill(server_cert(live.host).pem)
    expect(page.locator(".preview")).to_contain_text("This is not a CA certificate: it does not say CA:TRUE.")
