"""Server certificates: uploads, requests, and the certificate that is shown to devices."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from playwright.sync_api import Page, expect

from tests.console.live import Live, choose, now, root, server_cert
from tests.console.test_ca_certificates import drop, pem_file
from tests.support import certs

At = Callable[[str], Page]


def open_dialog(page: Page, button: str = "Add certificate") -> None:
    page.get_by_role("button", name=button).first.click()
    expect(page.get_by_role("dialog")).to_be_visible()


def test_certificate_and_key_are_saved_then_activated_after_a_preflight(at: At, live: Live, tmp_path: Path) -> None:
    """The preflight shows names, chain, end and the new root before anything changes."""
    issued = server_cert(live.host, root("Server Root"))
    page = at("servers")
    open_dialog(page)
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Certificate file", exact=True).set_input_files(pem_file(tmp_path, "cert.pem", issued.pem))
    expect(dialog.locator(".preview")).to_contain_text("Will be accepted.")
    dialog.get_by_label("Private key file", exact=True).set_input_files(pem_file(tmp_path, "key.pem", issued.key_pem))
    expect(dialog.get_by_label("This key is encrypted. Passphrase:")).to_be_hidden()
    dialog.get_by_label("Description", exact=True).fill("from our CA")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").first).to_contain_text("is saved. Activate it to show it to devices.")
    stored = live.servers[1]
    assert (stored["source"], stored["comments"], stored["active"]) == ("upload", "from our CA", False)

    choice = page.get_by_role("combobox", name="Default messaging server certificate")
    choice.select_option(stored["id"])
    assert not live.servers[1]["active"]  # choosing alone changes nothing
    page.get_by_role("button", name="Activate…").click()
    dialog = page.get_by_role("dialog", name=f"Activate {live.host}?")
    expect(dialog).to_contain_text(f"Names cover {live.host}")
    expect(dialog).to_contain_text("New root CN=Server Root. Devices that trust only")
    expect(dialog).to_contain_text("Expires in ")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    dialog.get_by_role("button", name="Activate").click()
    expect(page.get_by_role("status").first).to_contain_text(f"{live.host} is active.")
    assert live.servers[1]["active"]
    expect(page.get_by_text("Active since")).to_be_visible()

    page.get_by_role("button", name="Return to Default certificate").click()  # one click
    expect(page.get_by_role("status").first).to_contain_text("Default certificate is active.")
    assert live.servers[0]["active"]
    expect(page.get_by_role("button", name=f"Return to {live.host}")).to_be_visible()


def test_two_files_dropped_together_are_distinguished_by_content(at: At, live: Live) -> None:
    """The names of the files do not matter."""
    issued = server_cert(live.host)
    page = at("servers")
    open_dialog(page)
    drop(page, "dialog", {"a.txt": issued.key_pem.encode(), "b.txt": issued.pem.encode()})
    expect(page.locator(".preview")).to_contain_text("Will be accepted.")
    expect(page.locator(".preview")).to_contain_text("Browsers refuse this certificate until it is added to them")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").first).to_contain_text("is saved.")
    assert len(live.servers) == 2


def test_a_chain_that_replaces_nothing_is_answered_with_the_way_to_serve_it(at: At, live: Live) -> None:
    """The certificate is stored with its chain, and uploaded again with a chain to another root."""
    lower = certs.ca("Lower", root("Server Root"))
    issued = server_cert(live.host, lower)
    stored = {"certificate": issued.pem, "chain": lower.pem, "privateKey": issued.key_pem}
    live.operator.post("/authentication/servercertificates", stored).ok(201)
    page = at("servers")
    open_dialog(page)
    cross = certs.ca("Lower", root("Other Root"), private=lower.key)
    drop(page, "dialog", {"key.pem": issued.key_pem.encode(), "cert.pem": certs.bundle(issued, cross).encode()})
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").first).to_contain_text("The certificate keeps its stored chain")
    expect(page.get_by_role("status").first).to_contain_text("renew the certificate")
    assert len(live.servers) == 2


def test_an_encrypted_key_asks_for_its_passphrase_and_a_wrong_one_keeps_the_files(
    at: At, live: Live, tmp_path: Path
) -> None:
    """The field appears only then, with the focus; the flow works by keyboard to its end."""
    issued = server_cert(live.host)
    page = at("servers")
    open_dialog(page)
    page.get_by_label("Certificate file, pasted").fill(issued.pem)
    encrypted = pem_file(tmp_path, "key.pem", certs.key_pem(issued.key, "right"))
    page.get_by_label("Private key file", exact=True).set_input_files(encrypted)
    passphrase = page.get_by_label("This key is encrypted. Passphrase:")
    expect(passphrase).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("This key is encrypted: its passphrase.")).to_be_visible()
    expect(passphrase).to_be_focused()
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_text("The passphrase does not open the key. Type the passphrase again;")).to_be_visible()
    expect(passphrase).to_be_focused()
    assert len(live.servers) == 1
    page.keyboard.type("right")  # the wrong passphrase is selected, so typing replaces it
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name=live.host)).to_be_focused()
    assert live.servers[1]["status"] == "certificate"


def test_pkcs12_brings_its_key(at: At, live: Live, tmp_path: Path) -> None:
    issued = server_cert(live.host)
    bundle = pkcs12.serialize_key_and_certificates(
        b"server",
        issued.key,
        issued.cert,
        None,
        serialization.BestAvailableEncryption(b"secret"),
    )
    page = at("servers")
    open_dialog(page)
    page.get_by_label("Certificate file", exact=True).set_input_files(pem_file(tmp_path, "server.p12", bundle))
    expect(page.get_by_label("Private key file", exact=True)).to_be_hidden()
    page.get_by_label("This key is encrypted. Passphrase:").fill("secret")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").first).to_contain_text("is saved.")
    assert live.servers[1]["names"] == [live.host]


def test_the_key_of_another_certificate_is_refused_beside_its_field(at: At, live: Live) -> None:
    page = at("servers")
    open_dialog(page)
    page.get_by_label("Certificate file, pasted").fill(server_cert(live.host).pem)
    page.get_by_label("Private key file, pasted").fill(server_cert(live.host, number=8).key_pem)
    page.get_by_label("Description", exact=True).fill("kept")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("The key belongs to another certificate.")).to_be_visible()
    expect(page.get_by_label("Private key file, pasted")).to_be_focused()
    expect(page.get_by_label("Private key file, pasted")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Description", exact=True)).to_have_value("kept")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("another host", "The certificate is for other.example.net; the host of this organization is"),
        ("expired", "The certificate expired "),
        ("no key", "The certificate's private key is missing. Add the private key file."),
    ],
)
def test_a_wrong_certificate_shows_its_sentence(at: At, live: Live, kind: str, sentence: str) -> None:
    issued = {
        "another host": lambda: server_cert("other.example.net"),
        "expired": lambda: server_cert(live.host, days=-3),
        "no key": lambda: server_cert(live.host),
    }[kind]()
    page = at("servers")
    open_dialog(page)
    page.get_by_label("Certificate file, pasted").fill(issued.pem)
    if kind != "no key":
        page.get_by_label("Private key file, pasted").fill(issued.key_pem)
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".field .error", has_text=sentence)).to_be_visible()
    expect(page.locator("[aria-invalid=true]").first).to_be_visible()
    assert len(live.servers) == 1


def test_a_private_key_stays_in_the_browser_until_it_is_saved(at: At, live: Live) -> None:
    """Only the certificates of a PEM file with a key are sent for the preview."""
    issued = server_cert(live.host)
    page = at("servers")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.post_data or ""))
    open_dialog(page)
    page.get_by_label("Certificate file, pasted").fill(issued.key_pem + issued.pem)
    expect(page.locator(".preview")).to_contain_text("Will be accepted.")
    assert not any("PRIVATE" in body for body in sent)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").first).to_contain_text("is saved.")


def sign(live: Live, request: str) -> str:
    """Sign a request as a CA."""
    issuer = root("Public CA")
    csr = x509.load_pem_x509_csr(request.encode())
    builder = (
        x509.CertificateBuilder()
        .subject_name(csr.subject)
        .issuer_name(issuer.cert.subject)
        .public_key(csr.public_key())
        .serial_number(4711)
        .not_valid_before(now() - certs.DAY)
        .not_valid_after(now() + certs.YEAR)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(live.host)]), False)
    )
    cert = builder.sign(issuer.key, hashes.SHA256())
    return cert.public_bytes(serialization.Encoding.PEM).decode()


def test_a_request_is_made_downloaded_and_replaced_by_its_certificate(at: At, live: Live) -> None:
    """The certificate gets the row and the id of its request; the key never leaves the service."""
    page = at("servers")
    open_dialog(page, "Generate CSR")
    dialog = page.get_by_role("dialog", name="Generate CSR")
    expect(dialog).to_contain_text("The key cannot be downloaded.")
    expect(dialog.get_by_label("Common name")).to_have_value(live.host)
    dialog.get_by_label("Organization").fill("A" * 65)
    dialog.get_by_label("Country").select_option("Germany (DE)")
    dialog.get_by_label("Key", exact=True).select_option("P-256")
    dialog.get_by_role("button", name="Generate").click()
    expect(dialog.get_by_label("Organization")).to_have_attribute("aria-invalid", "true")
    expect(dialog.get_by_label("Organization")).to_be_focused()
    expect(dialog.get_by_label("Country")).to_have_value("DE")
    dialog.get_by_label("Organization").fill("Acme")
    page.keyboard.press("Enter")
    expect(page.locator(".states", has_text="Waiting for signature")).to_be_visible()
    stored = live.servers[1]
    assert stored["status"] == "csr"
    assert {"C=DE", "O=Acme"} <= set(stored["subject"].split(","))
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Download request {live.host}").click()
    request = download.value.path().read_text()
    assert "BEGIN CERTIFICATE REQUEST" in request
    assert "PRIVATE" not in request

    open_dialog(page, f"Upload certificate {live.host}")
    page.get_by_label("Signed certificate, pasted").fill(server_cert(live.host).pem)
    page.get_by_role("button", name="Save").click()
    expect(
        page.get_by_text("This certificate was not made from this request: its public key is another.")
    ).to_be_visible()
    page.get_by_label("Signed certificate, pasted").fill(sign(live, request))
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").first).to_contain_text("took the place of its request.")
    assert (live.servers[1]["id"], live.servers[1]["status"]) == (stored["id"], "certificate")

    choose(page, "Renew", live.host)
    page.get_by_role("dialog").get_by_role("button", name="Make the request").click()
    expect(page.locator(".states", has_text="Waiting for signature")).to_be_visible()
    assert sorted(server["status"] for server in live.servers) == ["certificate", "certificate", "csr"]


def test_a_certificate_of_a_waiting_request_leads_to_its_row(at: At, live: Live) -> None:
    request = live.operator.post("/authentication/servercertificates/csr", {"keyAlgorithm": "P-256"}).ok(201)
    page = at("servers")
    open_dialog(page)
    page.get_by_label("Certificate file, pasted").fill(sign(live, request["csr"]))
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Upload it there").click()
    dialog = page.get_by_role("dialog", name="Upload certificate")
    expect(dialog.locator(".preview")).to_contain_text("Will be accepted.")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").first).to_contain_text("took the place of its request.")
    assert [server["status"] for server in live.servers if server["id"] == request["id"]] == ["certificate"]


def test_deleting_a_request_names_the_consequence(at: At, live: Live) -> None:
    live.operator.post("/authentication/servercertificates/csr", {"keyAlgorithm": "P-256"}).ok(201)
    page = at("servers")
    choose(page, "Delete", live.host)
    dialog = page.get_by_role("dialog", name="Delete request?")
    expect(dialog).to_contain_text("A certificate issued for it becomes useless.")
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("status").first).to_contain_text("is deleted.")
    assert len(live.servers) == 1


def test_the_active_certificate_cannot_be_deleted_and_the_page_says_why(at: At, live: Live) -> None:
    stored = live.add_server(server_cert(live.host))
    live.operator.put("/authentication/servercertificates/active", {"id": stored["id"]}).ok()
    page = at("servers")
    expect(page.get_by_text("To delete it, activate another first.")).to_be_visible()
    page.get_by_role("button", name=f"Actions for {live.host}").click()
    expect(page.get_by_role("button", name=f"Renew {live.host}")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("^Delete"))).to_have_count(0)


def test_an_ended_certificate_is_marked_and_the_preflight_refuses_it(at: At, live: Live) -> None:
    """The certificate was valid when it was uploaded."""
    live.service.clock.now -= certs.YEAR
    begins = live.service.clock.now - certs.DAY
    ended = certs.server(live.host, not_before=begins, not_after=begins + 30 * certs.DAY)
    stored = live.add_server(ended)
    live.service.clock.now = now()
    page = at("servers")
    expect(page.locator(".states", has_text="Expired")).to_be_visible()
    page.get_by_role("combobox", name="Default messaging server certificate").select_option(stored["id"])
    expect(page.locator("option:checked")).to_contain_text("(expired)")
    page.get_by_role("button", name="Activate…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("The certificate expired ")
    expect(dialog.get_by_role("button", name="Activate")).to_have_count(0)
    dialog.get_by_role("button", name="Close").click()
    assert live.servers[0]["active"]


def test_a_request_can_be_made_for_a_custom_domain(at: At, live: Live) -> None:
    """The host is offered once the domain is listed."""
    body = {"customDomains": {"enabled": True, "domains": ["iot.acme.org"]}}
    live.operator.put("/authorization/settings", body).ok()
    page = at("servers")
    open_dialog(page, "Generate CSR")
    page.get_by_label("Common name").select_option("mtxpd0.messaging.iot.acme.org")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.get_by_role("link", name="mtxpd0.messaging.iot.acme.org")).to_be_visible()
    assert live.servers[1]["names"] == ["mtxpd0.messaging.iot.acme.org"]
