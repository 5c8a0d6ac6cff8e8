"""Text that others wrote stays text: in subjects, descriptions, client IDs and names of users."""

import json
import re
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.console.conftest import Watch
from tests.console.live import Live, device, root

At = Callable[[str], Page]
NewContext = Callable[..., BrowserContext]

MARKUP = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
MARKS = "safe\u202egnp.exe\u2066\u200b\u0007"
LONG = "wide " + "x" * 10_000
HOSTILE = {"markup": MARKUP, "marks": MARKS, "long": LONG, "javascript": "javascript:window.hacked=1"}


def poison(value: object, text: str) -> object:
    """Replace every text that another person could have written."""
    foreign = {
        "subject",
        "issuer",
        "comments",
        "createdBy",
        "updatedBy",
        "reason",
        "who",
        "what",
        "clientId",
        "serverName",
        "mend",
        "found",
        "expected",
        "deviceId",
        "typeId",
        "keyAlgorithm",
        "serialNumber",
    }
    if isinstance(value, dict):
        return {
            key: text if key in foreign and isinstance(inner, str) else poison(inner, text)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [poison(inner, text) if not isinstance(inner, str) else text for inner in value]
    return value


@pytest.mark.parametrize(
    "kind", ["markup", *(pytest.param(kind, marks=pytest.mark.slow) for kind in HOSTILE if kind != "markup")]
)
def test_hostile_text_is_shown_as_text_on_every_page(at: At, live: Live, page: Page, kind: str) -> None:
    """Hostile text in the answers of the API, larger than the service allows, neither runs nor breaks the page."""
    text = HOSTILE[kind]
    issued = root()
    live.add_ca(issued, "described")
    live.connect(device(issued, days=-2), "d:mtxpd0:thermo:42", live.service.client("broker"))
    live.operator.post("/authentication/servercertificates/csr", {"keyAlgorithm": "P-256"}).ok(201)
    live.operator.post("/authorization/denylist", {"kind": "identity", "value": "d:t:1", "reason": "r"}).ok(201)

    def poison_answer(route: Route) -> None:
        answer = route.fetch()
        if "json" not in answer.headers.get("content-type", "") or "/session" in route.request.url:
            route.fulfill(response=answer)
        else:
            route.fulfill(response=answer, body=json.dumps(poison(answer.json(), text)))

    page.route("**/api/v0002/**", poison_answer)
    for route in ("", "ca", f"ca/{live.cas[0]['id']}", "servers", "security", "activity", "why"):
        at(route)
        page.wait_for_load_state("networkidle")
        if route == "why":
            page.get_by_role("button", name="Explain").first.click()
            page.locator("#verdict").wait_for()
        main = page.locator("main")
        if route not in ("", "security"):
            expect(main).to_contain_text("⟨U+202E⟩" if kind == "marks" else text[:40].strip())
        assert page.evaluate("window.hacked") is None
        assert page.locator("main img, main script, main iframe").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{route} is wider than the window"
        hrefs = page.locator("main a").evaluate_all("links => links.map(link => link.getAttribute('href') ?? '')")
        assert [href for href in hrefs if not re.fullmatch(r"#/.*|\.\./docs/errors/[a-z_]+", href)] == []


def test_a_certificate_can_hold_markup_and_is_shown_whole(at: At, live: Live) -> None:
    """A stranger chooses the subject of a certificate, and its uploader the description."""
    nasty = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "<img src=x onerror=hacked=1>")])
    page = at("ca")
    page.get_by_role("button", name="Add certificate").first.click()
    page.get_by_label("CA certificate, pasted").fill(root(nasty).pem)
    expect(page.locator(".preview")).to_contain_text(r"CN=\<img src=x onerror=hacked=1\>")
    page.get_by_label("Description", exact=True).fill(MARKS)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("cell", name="⟨U+202E⟩gnp.exe⟨U+2066⟩")).to_be_visible()
    assert live.cas[0]["comments"] == MARKS  # stored as typed


@pytest.mark.slow
def test_long_text_is_cut_to_three_lines_until_it_is_expanded(at: At, live: Live) -> None:
    live.add_ca(root(), "line\n" * 190)
    page = at("ca")
    more = page.get_by_role("button", name="Show all")
    text = page.locator("td .foreign", has_text="line").first
    box = text.bounding_box()
    assert box is not None
    assert box["height"] < 90
    more.click()
    expect(page.get_by_role("button", name="Show less")).to_have_attribute("aria-expanded", "true")
    box = text.bounding_box()
    assert box is not None
    assert box["height"] > 1000


@pytest.mark.slow
def test_right_to_left_text_does_not_change_the_text_beside_it(at: At, live: Live) -> None:
    """Directions are isolated: the buttons of a row with a Hebrew description stay where they are."""
    live.add_ca(root("Left"), "מפעל")
    page = at("ca")
    cell = page.get_by_role("cell", name="מפעל")
    cell.wait_for()
    assert cell.locator("bdi").count() == 1
    boxes = [cell.bounding_box() for cell in page.locator("tbody td").all()]
    lefts = [box["x"] for box in boxes if box]
    assert lefts == sorted(lefts)


def test_a_policy_violation_would_be_detected(new_context: NewContext, live: Live, watch: Watch) -> None:
    """The watch over all these tests works: the policy refuses markup from text, and the watch reports it."""
    page = new_context(live.operator).new_page()
    page.goto(live.console)
    page.locator("h1").wait_for()
    refused = page.evaluate("""() => {
        try { document.body.innerHTML = '<b>x</b>'; return false; } catch (error) { return error.name; }
    }""")
    assert refused == "TypeError"
    [complaint] = watch.complaints
    assert "TrustedHTML" in complaint
    watch.complaints.clear()
