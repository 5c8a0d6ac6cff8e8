"""Signing in and out, and sessions that end in the middle of work."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from shared.config import Oidc
from shared.usecases.orgs.api_keys import revoke_key
from tests.console.live import Live, root, running
from tests.support.issuer import AUDIENCE, CLIENT, Issuer, run_issuer

At = Callable[[str], Page]
NewContext = Callable[..., BrowserContext]


def sign_in(page: Page, key: str, token: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in", exact=True).click()


def test_an_operator_signs_in_with_key_and_token(new_context: NewContext, live: Live) -> None:
    """The token stays in this tab's session storage, and is never in an address."""
    context = new_context()
    page = context.new_page()
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(live.url)
    expect(page.get_by_label("API key")).to_be_focused()
    expect(page.get_by_text("The token is kept until the last tab of the console closes.")).to_be_visible()
    sign_in(page, live.operator.key, live.operator.token)
    expect(page.get_by_role("heading", level=1, name="Overview")).to_be_visible()
    expect(page.locator("header")).to_contain_text("mtxpd0 · operator")
    assert not [address for address in [*addresses, page.url] if live.operator.token in address]
    assert context.cookies() == []
    assert page.evaluate("Object.keys(localStorage)") == ["trust.last-request"]
    page.reload()
    expect(page.locator("header")).to_contain_text("mtxpd0 · operator")
    page.close()
    assert context.new_page().goto(live.console)
    expect(context.pages[0].get_by_label("API key")).to_be_visible()  # after the last tab the session is gone


def test_a_wrong_token_is_reported_beside_the_field_and_the_key_stays(new_context: NewContext, live: Live) -> None:
    page = new_context().new_page()
    page.goto(live.console)
    sign_in(page, live.operator.key, "wrong")
    expect(
        page.get_by_text("The API key or its token is wrong. If the token is lost, create a new key.")
    ).to_be_visible()
    expect(page.get_by_label("Token")).to_be_focused()
    expect(page.get_by_label("API key")).to_have_value(live.operator.key)
    assert page.evaluate("sessionStorage.length") == 0


def test_a_user_signs_in_by_keyboard_and_gets_the_requested_page(new_context: NewContext, live: Live) -> None:
    page = new_context().new_page()
    page.goto(f"{live.console}#/activity")
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(live.viewer.key)
    page.keyboard.press("Tab")
    page.keyboard.type(live.viewer.token)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Activity")).to_be_visible()


def test_a_brokers_key_is_refused_with_the_role_that_it_lacks(new_context: NewContext, live: Live) -> None:
    broker = live.service.client("broker")
    page = new_context().new_page()
    page.goto(live.console)
    sign_in(page, broker.key, broker.token)
    expect(page.get_by_role("alert")).to_contain_text(
        "This API key has the role broker; this call needs the role operator or viewer."
    )


def test_signing_out_leaves_nothing(at: At, live: Live) -> None:
    page = at("ca")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    assert page.evaluate("sessionStorage.getItem('trust.session')") is None


def test_a_viewer_has_a_sentence_in_place_of_buttons(new_context: NewContext, live: Live) -> None:
    """No control is disabled without a reason."""
    live.add_ca(root())
    live.operator.post("/authentication/servercertificates/csr", {}).ok(201)
    page = new_context(live.viewer).new_page()
    for route in ("", "ca", "servers", "security"):
        page.goto(f"{live.console}#/{route}")
        expect(page.locator("main .panel, main table").first).to_be_visible()
        expect(page.get_by_text("Read-only access (viewer).")).to_be_visible()
        for opener in page.get_by_role("button", name=re.compile("^Actions for")).all():
            opener.click()
            expect(page.get_by_role("button", name=re.compile("^Download PEM"))).to_be_visible()
        for name in (
            "Add",
            "Delete",
            "Save",
            "Activate",
            "Deactivate",
            "Edit description",
            "Generate",
            "Upload",
            "Renew",
        ):
            expect(page.get_by_role("button", name=re.compile(f"^{name}"))).to_have_count(0)


def test_a_session_that_ends_in_the_middle_of_a_form_loses_no_input(at: At, live: Live) -> None:
    """The key is revoked while a CA is described; after a sign-in over the page, the same save succeeds."""
    page = at("ca")
    page.get_by_role("button", name="Add certificate").first.click()
    page.get_by_label("CA certificate, pasted").fill(root().pem)
    page.get_by_label("Description", exact=True).fill("typed before the session ended")
    expect(page.locator(".preview")).to_contain_text("Will be accepted")
    revoke_key(live.service.app.context, live.operator.key)
    page.get_by_role("button", name="Save").click()
    again = page.get_by_role("dialog", name="Sign in")
    expect(again).to_contain_text("Your session has ended. Sign in to go on; nothing typed is lost.")
    page.keyboard.press("Escape")
    expect(again).to_be_visible()  # Esc does not close it: the page needs a session
    fresh = live.service.client("operator")
    sign_in(page, fresh.key, "wrong")
    expect(again).to_contain_text("The API key or its token is wrong.")
    sign_in(page, fresh.key, fresh.token)
    expect(page.get_by_role("link", name="CN=Factory Root")).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)
    [stored] = fresh.get("/authentication/cacertificates").ok()["results"]
    assert (stored["comments"], stored["createdBy"]) == ("typed before the session ended", fresh.key)


def test_another_orgs_key_reloads_the_page(at: At, live: Live) -> None:
    """The old content belongs to the first org, so it is loaded again, and nothing is saved."""
    live.service.other_org()
    other = live.service.client("operator", "other1")
    page = at("ca")
    page.get_by_role("button", name="Add certificate").first.click()
    page.get_by_label("CA certificate, pasted").fill(root().pem)
    expect(page.locator(".preview")).to_contain_text("Will be accepted")
    revoke_key(live.service.app.context, live.operator.key)
    page.get_by_role("button", name="Save").click()
    with page.expect_navigation():
        sign_in(page, other.key, other.token)
    expect(page.locator("header")).to_contain_text("other1 · operator")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert other.get("/authentication/cacertificates").ok()["results"] == []


# ----------------------------------------------------------------------------------------------------------- OIDC


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with run_issuer() as started:
        yield started


@pytest.fixture(params=[AUDIENCE, CLIENT], ids=["access token", "id token"])
def with_issuer(tmp_path: Path, issuer: Issuer, request: pytest.FixtureRequest) -> Iterator[Live]:
    with running(tmp_path / "oidc", oidc=Oidc(issuer.url, request.param, CLIENT)) as started:
        yield started


@pytest.mark.slow
def test_a_person_signs_in_at_the_issuer_and_is_back_at_the_same_page(
    with_issuer: Live, new_context: NewContext, issuer: Issuer
) -> None:
    """Authorization code with PKCE: the issuer checks the verifier, the page the nonce, the service the signature."""
    page = new_context().new_page()
    page.goto(f"{with_issuer.console}#/activity/change")
    page.get_by_role("button", name=f"Sign in with {issuer.url.removeprefix('http://')}").click()
    page.get_by_role("button", name="I am Anna").click()
    expect(page.get_by_role("heading", level=1, name="Activity")).to_be_visible()
    expect(page).to_have_url(f"{with_issuer.console}#/activity/change")  # neither code nor state stays
    expect(page.locator("header")).to_contain_text("mtxpd0 · operator")
    page.goto(f"{with_issuer.console}#/ca")
    page.get_by_role("button", name="Add certificate").first.click()
    page.get_by_label("CA certificate, pasted").fill(root().pem)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("link", name="CN=Factory Root")).to_be_visible()
    assert with_issuer.cas[0]["createdBy"] == "oidc:anna"


@pytest.fixture
def one_issuer(tmp_path: Path, issuer: Issuer) -> Iterator[Live]:
    with running(tmp_path / "oidc", oidc=Oidc(issuer.url, AUDIENCE, CLIENT)) as started:
        yield started


@pytest.mark.slow
def test_an_unrequested_answer_is_refused(one_issuer: Live, new_context: NewContext, issuer: Issuer) -> None:
    """No code in a foreign link is exchanged (login CSRF, RFC 6749, section 10.12)."""
    page = new_context().new_page()
    page.goto(f"{one_issuer.console}?code=stolen&state=made-up")
    expect(page.get_by_role("alert")).to_contain_text("it was not begun in this tab")
    expect(page).to_have_url(one_issuer.console)
    assert issuer.asked["/token"] == 0


@pytest.mark.slow
def test_an_answer_to_another_request_is_refused(one_issuer: Live, new_context: NewContext, issuer: Issuer) -> None:
    """The state must be that of this tab, even while the tab waits for an answer."""
    page = new_context().new_page()
    page.goto(one_issuer.console)
    page.get_by_role("button", name="Sign in with").click()
    page.get_by_role("button", name="I am Anna").wait_for()
    page.goto(f"{one_issuer.console}?code=stolen&state=made-up")
    expect(page.get_by_role("alert")).to_contain_text("it was not begun in this tab")
    assert issuer.asked["/token"] == 0


@pytest.mark.slow
def test_a_user_without_a_role_is_refused_with_the_reason(
    one_issuer: Live, new_context: NewContext, issuer: Issuer
) -> None:
    issuer.person["role"] = "broker"
    page = new_context().new_page()
    page.goto(one_issuer.console)
    page.get_by_role("button", name="Sign in with").click()
    page.get_by_role("button", name="I am Anna").click()
    expect(page.get_by_role("alert")).to_contain_text("Your sign-in names the role broker.")
    assert page.evaluate("sessionStorage.getItem('trust.session')") is None


@pytest.mark.slow
def test_a_session_of_the_issuer_that_ends_comes_back_in_a_window_of_its_own(
    one_issuer: Live, new_context: NewContext, issuer: Issuer
) -> None:
    """The page with the open form stays: the second window passes back only the code, and closes itself."""
    context = new_context()
    page = context.new_page()
    page.goto(f"{one_issuer.console}#/ca")
    page.get_by_role("button", name="Sign in with").click()
    page.get_by_role("button", name="I am Anna").click()
    page.get_by_role("button", name="Add certificate").first.click()
    page.get_by_label("CA certificate, pasted").fill(root().pem)
    page.get_by_label("Description", exact=True).fill("typed before")
    expect(page.locator(".preview")).to_contain_text("Will be accepted")
    page.evaluate("""async () => {
        const session = await import('./session.js');
        session.keep({ kind: 'token', token: 'ended' }, session.who());
    }""")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog", name="Sign in")).to_be_visible()
    with context.expect_page() as opened:
        page.get_by_role("dialog", name="Sign in").get_by_role("button", name="Sign in with").click()
    opened.value.get_by_role("button", name="I am Anna").click()
    expect(page.get_by_role("link", name="CN=Factory Root")).to_be_visible()
    assert one_issuer.cas[0]["comments"] == "typed before"
    if not opened.value.is_closed():
        opened.value.wait_for_event("close")


@pytest.mark.slow
def test_the_api_key_works_while_the_issuer_is_down(one_issuer: Live, new_context: NewContext, issuer: Issuer) -> None:
    issuer.down = True
    page = new_context().new_page()
    page.goto(one_issuer.console)
    sign_in(page, one_issuer.operator.key, one_issuer.operator.token)
    expect(page.locator("header")).to_contain_text("mtxpd0 · operator")
