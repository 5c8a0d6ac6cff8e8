"""Several CA certificates at once: from several files and bundles, shown as a tree before they are saved."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.console.live import Live, device, root
from tests.console.test_ca_certificates import drop
from tests.support import certs
from tests.support.certs import bundle

At = Callable[[str], Page]


def test_files_are_shown_as_a_tree_and_saved_together(at: At, live: Live) -> None:
    """A bundle, a DER file, CAs that are here already or twice, a device's certificate, and a file with a key."""
    top = root("Top")
    below = root("Below", signer=top)
    lower = root("Lower", signer=below)
    other = root("Other")
    live.add_ca(other)
    page = at("ca")
    page.get_by_role("button", name="Add several…").click()
    dialog = page.get_by_role("dialog", name="Add several CA certificates")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.post_data or ""))
    files = {
        "bundle.pem": bundle(lower, below).encode(),
        "top.cer": top.der,
        "again.pem": (top.pem + other.pem).encode(),
        "device.pem": device(top).pem.encode(),
        "key.pem": (other.pem + other.key_pem).encode(),
        "note.txt": b"hello",
    }
    drop(page, "dialog", files)
    expect(dialog.get_by_role("status")).to_have_text("5 certificates read, 3 chosen.")
    rows = dialog.locator(".tree li")
    expect(rows).to_have_count(5)
    shown = {row.locator("label").inner_text(): row.get_attribute("data-depth") for row in rows.all()}
    assert shown == {"CN=Top": "0", "CN=Below": "1", "CN=Lower": "2", "CN=d:thermo:42": "1", "CN=Other": "0"}
    expect(rows.filter(has=page.get_by_text("CN=Top", exact=True))).to_contain_text("Root · SHA-256")
    expect(rows.filter(has_text="CN=Lower")).to_contain_text("Intermediate")
    expect(rows.filter(has_text="CN=Other")).to_contain_text("Already here since")
    expect(rows.filter(has_text="d:thermo:42")).to_contain_text("Add the CA certificate that signed it, CN=Top")
    expect(dialog).to_contain_text("key.pem: The file has a private key; nothing of the file was sent.")
    expect(dialog).to_contain_text("note.txt: No certificate was found in the file.")
    assert not [body for body in sent if "PRIVATE KEY" in body]
    rows.filter(has_text="CN=Lower").get_by_role("checkbox").uncheck()
    dialog.get_by_role("button", name="Save 2").click()
    expect(page.get_by_role("status").first).to_contain_text("2 CAs registered.")
    assert sorted(ca["subject"] for ca in live.cas) == ["CN=Below", "CN=Other", "CN=Top"]


def test_a_certificate_that_is_refused_leaves_the_dialog_open(at: At, live: Live) -> None:
    """What was saved stays saved, and the row says why the other was refused."""
    private = certs.key("P-256", 9)
    first, second = root("Same", private=private), root("Same", private=private, days=100)
    page = at("ca")
    page.get_by_role("button", name="Add several…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Save 0").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Choose files with CA certificates first.")
    drop(page, "dialog", {"one.pem": first.pem.encode(), "two.pem": second.pem.encode()})
    expect(dialog.get_by_role("button", name="Save 2")).to_be_visible()
    page.route(
        "**/cacertificates",
        lambda route: (
            route.fulfill(status=503, json={"code": "unavailable", "detail": "The store does not answer."})
            if live.cas
            else route.continue_()
        ),
    )
    dialog.get_by_role("button", name="Save 2").click()
    expect(dialog.locator(".tree")).to_contain_text("The store does not answer.")
    expect(dialog.locator(".tree")).to_contain_text("Registered.")
    assert len(live.cas) == 1
    dialog.get_by_role("button", name="Close").click()
    expect(page.get_by_role("status").first).to_contain_text("1 CA registered.")


def test_cas_of_one_name_have_the_beginning_of_their_fingerprints(at: At, live: Live) -> None:
    for number in (1, 2):
        live.add_ca(root("Same", private=certs.key("P-256", number)))
    live.add_ca(root("Another"))
    page = at("ca")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.filter(has_text="SHA-256")).to_have_count(2)
    expect(rows.filter(has_text="CN=Another")).not_to_contain_text("SHA-256")
