"""Broken set-ups: a person finds cause and cure in the console alone, applies the cure, and the device is allowed.

Each set-up is a new organization. A broker asks about a device, which is refused. Then a person opens *Why refused?*
and knows nothing but that the device is refused. A row names what the page must say, and what the person does then: a
button of the page, or what its words ask for (a new certificate, another host).
"""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, NamedTuple

import pytest
from cryptography import x509
from playwright.sync_api import Page, expect

from shared.usecases.orgs.api_keys import revoke_key
from tests.console.live import Live, choose, device, now, root
from tests.support import certs, forms
from tests.support.certs import DAY, Issued
from tests.support.der import der, dotted, seq
from tests.support.harness import Client

At = Callable[[str], Page]
CLIENT: Final = "d:mtxpd0:thermo:42"
NAME: Final = "d:thermo:42"
SETTINGS: Final = "/authorization/settings"
POLICY: Final = "/authorization/connectionpolicy"
OTHER_KEY = certs.key("P-256", 91)


class Question(NamedTuple):
    """What the broker sends: certificates in PEM, and what differs from the usual."""

    certificate: str
    fields: dict[str, Any]


def question(*sent: Issued, **fields: Any) -> Question:
    return Question(certs.bundle(*sent), fields)


def ask(live: Live, asked: Question) -> dict[str, Any]:
    """Ask as the broker does. A field of None is not sent."""
    fields = {"serverName": live.host, "clientId": CLIENT, "certificate": asked.certificate, **asked.fields}
    if fields.pop("dialect", None) == "emqx":
        names = {"clientid": CLIENT, "cert_pem": asked.certificate, "serverName": live.host, "tls": True}
        answer = live.service.client("broker").post("/verifyClient/emqx", names).ok()
        live.service.flush()
        return {"decision": answer["result"]}
    body = {name: value for name, value in fields.items() if value}
    verdict: dict[str, Any] = live.service.client("broker").post("/authorization/verifyclient", body).ok()
    live.service.flush()
    return verdict


SetUp = tuple[Question, list[str], Callable[[Page, Live], Question]]
SET_UPS: Final[dict[str, Callable[[Live], SetUp]]] = {}


def set_up(name: str) -> Callable[[Callable[[Live], SetUp]], None]:
    def keep(made: Callable[[Live], SetUp]) -> None:
        SET_UPS[name] = made

    return keep


def pairs(issued: Issued) -> str:
    """Return the fingerprint as the console shows it."""
    return ":".join(re.findall("..", issued.fingerprint)).upper()


def add_ca(issued: Issued, asked: Question) -> Callable[[Page, Live], Question]:
    """Return what adds a CA by the page's button. The page checks again by itself."""

    def add(page: Page, _: Live) -> Question:
        page.get_by_role("button", name="Add CA").click()
        page.get_by_label("CA certificate, pasted").fill(issued.pem)
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("heading", name="is allowed by")).to_be_visible()
        return asked

    return add


def instead(asked: Question) -> Callable[[Page, Live], Question]:
    """Return what a person does outside of the console, as the page's words ask for."""
    return lambda *_: asked


def press(button: str, asked: Question) -> Callable[[Page, Live], Question]:
    def click(page: Page, _: Live) -> Question:
        page.get_by_role("button", name=button).click()
        expect(page.get_by_role("heading", name="is allowed by")).to_be_visible()
        return asked

    return click


@set_up("1 the CA of the server was uploaded in place of the devices' CA")
def _(live: Live) -> SetUp:
    live.add_ca(root("Server Root"))
    factory = root("Factory Root")
    asked = question(device(factory))
    return asked, ["issued by CN=Factory Root, which is not among your CA certificates"], add_ca(factory, asked)


@set_up("2 the root is registered, and the device sends its own certificate alone")
def _(live: Live) -> SetUp:
    factory = root("Factory Root")
    line = certs.ca("Line CA", factory)
    live.add_ca(factory)
    asked = question(device(line))
    return asked, ["issued by CN=Line CA", "let the device send its intermediate certificates"], add_ca(line, asked)


@set_up("3 the broker passes the device's own certificate alone")
def _(live: Live) -> SetUp:
    """As EMQX does. The device does send its chain."""
    factory = root("Factory Root")
    line = certs.ca("Line CA", factory)
    live.add_ca(factory)
    asked = Question(device(line).pem, {"dialect": "emqx"})
    says = ["issued by CN=Line CA", "This broker passes the device's own certificate alone"]
    return asked, says, add_ca(line, asked)


@set_up("22 a plain client ID, and a common name without a type")
def _(live: Live) -> SetUp:
    """Both faults are named at once."""
    factory = root()
    live.add_ca(factory)
    asked = question(device(factory, "pump-0001"), clientId="pump-0001")
    says = ["The client ID has none of the forms", "The certificate names no device either", "d:mtxpd0:type:device"]
    return asked, says, instead(question(device(factory, "d:pump:0001"), clientId="d:mtxpd0:pump:0001"))


@set_up("4 the certificate is expired")
def _(live: Live) -> SetUp:
    factory = root()
    live.add_ca(factory)
    return (
        question(device(factory, days=-5.1)),
        ["expired 5 days ago", "Issue a new certificate"],
        instead(question(device(factory))),
    )


@set_up("5 the certificate is not yet valid")
def _(live: Live) -> SetUp:
    factory = root()
    live.add_ca(factory)
    early = certs.leaf(NAME, factory, not_before=now() + timedelta(hours=2, minutes=5), not_after=now() + 9 * DAY)
    return question(early), ["valid only from", "in 2 hours", "correct the clock"], instead(question(device(factory)))


@set_up("6 the client ID of another device")
def _(live: Live) -> SetUp:
    factory = root()
    live.add_ca(factory)
    asked = question(device(factory), clientId="d:mtxpd0:thermo:43")
    says = ["The certificate is for d:thermo:42, and the client ID is for d:thermo:43"]
    return asked, says, press("Check with client ID d:mtxpd0:thermo:42", question(device(factory)))


@set_up("7 the type in another case")
def _(live: Live) -> SetUp:
    factory = root()
    live.add_ca(factory)
    asked = question(device(factory), clientId="d:mtxpd0:Thermo:42")
    return asked, ["They differ in upper and lower case only"], press("Check with client ID", question(device(factory)))


@set_up("8 a certificate for servers only")
def _(live: Live) -> SetUp:
    factory = root()
    live.add_ca(factory)
    wrong = device(factory, extended_key_usage=[certs.SERVER_AUTH])
    right = device(factory, extended_key_usage=[certs.CLIENT_AUTH])
    return question(wrong), ["serverAuth only", "extendedKeyUsage=clientAuth"], instead(question(right))


@set_up("9 no server name")
def _(live: Live) -> SetUp:
    factory = root()
    live.add_ca(factory)
    asked = question(device(factory), serverName=None)
    says = ["sent no server name (SNI)", f"Connect to {live.host}"]
    return asked, says, press("Check with server name", question(device(factory)))


@set_up("9 the server name of an alias")
def _(live: Live) -> SetUp:
    factory = root()
    live.add_ca(factory)
    asked = question(device(factory), serverName="mqtt.example.org")
    says = ["mqtt.example.org is not a host of this service", f"Connect to {live.host}"]
    return asked, says, press("Check with server name", question(device(factory)))


@set_up("10 the CA was made again with a new key")
def _(live: Live) -> SetUp:
    first = root()
    live.add_ca(first)
    live.add_ca(root("Factory"))  # a name within the name of the other CA
    again = root(private=OTHER_KEY)
    refused = device(again)
    asked = question(refused)
    says = ["A CA named CN=Factory Root is registered", "signed with another key"]
    return asked, [*says, *map(pairs, (first, refused))], add_ca(again, asked)


@set_up("11 a signature with SHA-1")
def _(live: Live) -> SetUp:
    factory = root()
    live.add_ca(factory)
    dates = seq(der(0x17, b"250101000000Z"), der(0x17, b"350101000000Z"))
    weak = forms.issue(
        factory.key,
        subject=forms.name(forms.common_name(NAME)),
        issuer=factory.cert.subject.public_bytes(),
        info=forms.key_info(OTHER_KEY),
        algorithm=seq(dotted("1.2.840.10045.4.1")),
        dates=dates,
    )
    sha1 = x509.load_der_x509_certificate(weak)
    return (
        question(Issued(sha1, OTHER_KEY)),
        ["signed with SHA-1", "signed with SHA-256"],
        instead(question(device(factory))),
    )


@set_up("12 a device certificate that is marked as a CA")
def _(live: Live) -> SetUp:
    factory = root()
    live.add_ca(factory)
    marked = certs.ca(NAME, factory, not_before=now() - DAY, not_after=now() + 9 * DAY)
    return (
        question(marked),
        ["marked as a CA (CA:TRUE)", "basicConstraints=CA:FALSE"],
        instead(question(device(factory))),
    )


@set_up("14 the serial number is on the deny list")
def _(live: Live) -> SetUp:
    factory = root()
    ca = live.add_ca(factory)
    leaf = device(factory)
    value = f"{ca['id']}:{leaf.cert.serial_number:x}"
    live.operator.post("/authorization/denylist", {"kind": "serial", "value": value, "reason": "stolen"}).ok(201)
    asked = question(leaf)

    def lift(page: Page, _: Live) -> Question:
        page.get_by_role("link", name="Deny list").click()
        expect(page.locator("tbody tr", has_text="stolen")).to_be_visible()
        page.get_by_role("button", name="Remove").first.click()
        page.get_by_role("dialog").get_by_role("button").last.click()
        expect(page.get_by_text("The deny list is empty.")).to_be_visible()
        return asked

    return asked, ["on the deny list since"], lift


@set_up("15 a custom domain that is listed and switched off")
def _(live: Live) -> SetUp:
    factory = root()
    live.add_ca(factory)
    live.operator.put(SETTINGS, {"customDomains": {"enabled": False, "domains": ["iot.acme.org"]}}).ok()
    asked = question(device(factory), serverName="mtxpd0.messaging.iot.acme.org")

    def switch_on(page: Page, _: Live) -> Question:
        page.get_by_role("link", name="Connection security").last.click()
        page.get_by_label("Use custom domains").check()
        page.get_by_role("button", name="Save").last.click()
        expect(page.get_by_role("status").filter(has_text="Settings saved.")).to_be_visible()
        return asked

    says = ["The custom domain iot.acme.org is listed, but custom domains are switched off", "Switch custom domains on"]
    return asked, says, switch_on


@set_up("18 the organization is in the common name")
def _(live: Live) -> SetUp:
    factory = root()
    live.add_ca(factory)
    wrong = device(factory, "d:mtxpd0:thermo:42")
    return (
        question(wrong),
        ["The certificate names no device", "with CN d:thermo:42"],
        instead(question(device(factory))),
    )


@set_up("19 a self-signed device certificate")
def _(live: Live) -> SetUp:
    live.add_ca(root("Server Root"))
    own = certs.certificate(
        certs.name(NAME), signer=None, private=OTHER_KEY, not_before=now() - DAY, not_after=now() + 9 * DAY
    )
    factory = root("Factory Root")

    def issue(_: Page, live: Live) -> Question:
        live.add_ca(factory)
        return question(device(factory))

    return question(own), ["self-signed", "is its own issuer", "Issue the device's certificate from a CA"], issue


@set_up("20 an expired intermediate certificate")
def _(live: Live) -> SetUp:
    factory = root()
    live.add_ca(factory)
    key = certs.key("P-256", 92)
    old = certs.ca("Line CA", factory, private=key, not_after=now() - 1.1 * DAY)
    renewed = certs.ca("Line CA", factory, private=key, not_after=now() + 9 * DAY)
    leaf = device(old)
    asked = question(leaf, old)
    return asked, ["CN=Line CA expired 1 day ago", "Add the CA certificate that replaces it"], add_ca(renewed, asked)


@set_up("21 the only CA is deactivated")
def _(live: Live) -> SetUp:
    factory = root()
    ca = live.add_ca(factory)
    live.operator.put(f"/authentication/cacertificates/{ca['id']}", {"status": "inactive"}).ok()
    asked = question(device(factory))

    def activate(page: Page, _: Live) -> Question:
        page.get_by_role("button", name="Activate Factory Root…").click()
        page.get_by_role("dialog").get_by_role("button", name="Activate").click()
        expect(page.get_by_role("heading", name="is allowed by")).to_be_visible()
        return asked

    return asked, ["CN=Factory Root, which is deactivated since"], activate


@set_up("23 no certificate")
def _(live: Live) -> SetUp:
    factory = root()
    live.add_ca(factory)
    says = ["TLS with Client Certificate Authentication, requires a certificate, and the device sent none"]
    return Question("", {}), says, instead(question(device(factory)))


@set_up("24 a chain and the client ID of another device")
def _(live: Live) -> SetUp:
    factory = root()
    line = certs.ca("Line CA", factory)
    live.add_ca(factory)
    asked = question(device(line), line, clientId="d:mtxpd0:thermo:43")
    says = ["The certificate is for d:thermo:42, and the client ID is for d:thermo:43"]
    return asked, says, press("Check with client ID d:mtxpd0:thermo:42", question(device(line), line))


@pytest.mark.slow
@pytest.mark.parametrize("what", SET_UPS)
def test_the_cause_is_found_and_the_cure_works(at: At, live: Live, what: str) -> None:
    asked, says, cure = SET_UPS[what](live)
    assert ask(live, asked)["decision"] == "deny"
    page = at("why")
    page.get_by_role("button", name="Explain").first.click()
    result = page.get_by_role("region", name="Result")
    for sentence in says:
        expect(result).to_contain_text(sentence)
    mended = cure(page, live)
    assert ask(live, mended)["decision"] == "allow"


@pytest.mark.slow
def test_13_a_token_is_missing(at: At, live: Live) -> None:
    """The certificate passed. The page says that the broker asks for the token, and the level can be changed."""
    factory = root()
    live.add_ca(factory)
    level = "TLS with Token and Client Certificate Authentication"
    live.operator.put(POLICY, {"default": level}).ok()
    asked = question(device(factory))
    assert ask(live, asked)["decision"] == "continue"
    page = at("why")
    page.get_by_label("Device certificate, pasted").fill(asked.certificate)
    page.get_by_label("Client ID").fill(CLIENT)
    page.get_by_role("button", name="Check", exact=True).click()
    expect(
        page.get_by_role("heading", name="Certificate part passed; the broker asks for the token next.")
    ).to_be_visible()
    page.goto(f"{live.console}#/security")
    page.get_by_role("radio", name="TLS with Client Certificate Authentication").check()
    page.locator("[data-key=save-policy]").click()
    expect(page.get_by_role("status").filter(has_text="Connection security is saved")).to_be_visible()
    assert ask(live, asked)["decision"] == "allow"


@pytest.mark.slow
def test_25_a_renewed_ca_keeps_the_devices_of_its_predecessor(at: At, live: Live) -> None:
    """The dry run of deactivating the old CA says so, and it is so."""
    old = root("Factory Root", days=100)
    renewed = root("Factory Root", private=old.key)
    live.add_ca(old)
    live.add_ca(renewed)
    asked = question(device(old))
    assert ask(live, asked)["decision"] == "allow"
    page = at("ca")
    choose(page, "Deactivate", "Factory Root")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("The same devices are allowed by CN=Factory Root")
    expect(dialog).to_contain_text("None of them would be refused")
    dialog.get_by_role("button", name="Deactivate", exact=True).click()
    expect(page.locator(".states", has_text="Inactive")).to_have_count(1)
    assert ask(live, asked)["decision"] == "allow"


@pytest.mark.slow
@pytest.mark.parametrize("failure", ["16 the token of the broker is wrong", "16 the key of the broker is revoked"])
def test_16_the_broker_is_refused(at: At, live: Live, failure: str) -> None:
    """No device of this broker is judged, so the list of refusals is empty. The page names the key, and since when."""
    factory = root()
    live.add_ca(factory)
    broker = live.service.client("broker")
    refused = Client(live.service.app, broker.key, "not-the-token")
    if "revoked" in failure:
        revoke_key(live.service.app.context, broker.key)
        refused = broker
    asked = question(device(factory))
    body = {"serverName": live.host, "clientId": CLIENT, "certificate": asked.certificate}
    assert refused.post("/authorization/verifyclient", body).status == 401
    live.service.flush()
    page = at("why")
    trouble = page.locator("#content .sentence.bad")
    expect(trouble).to_contain_text(f"Calls with the API key {broker.key} are refused")
    expect(trouble).to_contain_text("the key was revoked" if "revoked" in failure else "the token is wrong")
    expect(trouble).to_contain_text("functions.admin key create --org mtxpd0 --role broker")
    page.get_by_role("link", name="Brokers and edges").first.click()
    row = page.get_by_role("row", name=broker.key)
    expect(row).to_contain_text(
        "1 call after the key was revoked" if "revoked" in failure else "1 call with a wrong token"
    )
    assert ask(live, asked)["decision"] == "allow"  # with a new key
    page.reload()
    expect(page.get_by_role("table", name="API keys")).to_contain_text("1 verdict, 0 devices refused")


@pytest.mark.slow
def test_17_the_broker_uses_the_key_of_an_operator(at: At, live: Live) -> None:
    """The page names the key and its role, and the role that a broker needs."""
    factory = root()
    live.add_ca(factory)
    asked = question(device(factory))
    body = {"serverName": live.host, "clientId": CLIENT, "certificate": asked.certificate}
    operator = live.service.client("operator")
    assert operator.post("/authorization/verifyclient", body).status == 403
    live.service.flush()
    page = at("why")
    trouble = page.locator("#content .sentence.bad")
    expect(trouble).to_contain_text(f"{operator.key} are refused: the key has the role operator")
    expect(trouble).to_contain_text("a broker needs the role broker")
    expect(trouble).to_contain_text("functions.admin key create --org mtxpd0 --role broker)")
    assert ask(live, asked)["decision"] == "allow"  # with a new key of that role
