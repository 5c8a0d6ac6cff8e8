"""The advice of a refusal, followed to the letter, allows the device."""

import re
from collections.abc import Callable
from typing import Any, Final

import pytest
from cryptography import x509

from tests.functions.test_verify_client import DEVICE, ROOT, add, ask
from tests.support import certs
from tests.support.certs import DAY, NOON
from tests.support.harness import Client

pytestmark = pytest.mark.stores("sqlite")  # the judge asks no store

CAS: Final = "/authentication/cacertificates"
Fields = dict[str, Any]
Mended = Callable[[Client, Client, Fields], Fields]


def read(pattern: str, refused: Fields) -> str:
    """Return what the advice names: what a person would copy from the sentence."""
    match = re.search(pattern, refused["mend"])
    assert match, refused["mend"]
    return match[1]


def issue_with(extension: str) -> certs.Issued:
    """Issue the device's certificate again with an extension as the advice names it, in openssl's words."""
    granted = {
        "basicConstraints=CA:FALSE": {"more": [(x509.BasicConstraints(ca=False, path_length=None), True)]},
        "extendedKeyUsage=clientAuth": {"extended_key_usage": [certs.CLIENT_AUTH]},
        "keyUsage=digitalSignature": {"key_usage": certs.usage(digital_signature=True)},
    }[extension]
    return certs.leaf("d:thermo:42", ROOT, **granted)  # type: ignore[arg-type]


def reissue(broker: Client, _: Client, refused: Fields) -> Fields:
    return ask(broker, issue_with(read(r"again with (\w+=[\w:]+)\.", refused)))


def set_client_id(broker: Client, _: Client, refused: Fields) -> Fields:
    return ask(broker, clientId=read(r"client ID to (\S+),", refused))


def issue_for_the_client_id(broker: Client, _: Client, refused: Fields) -> Fields:
    leaf = certs.leaf(read(r"certificate (?:again )?with CN (\S+)\.", refused), ROOT)
    return ask(broker, leaf, clientId=_client_id_of(leaf))


def _client_id_of(leaf: certs.Issued) -> str:
    kind, _, rest = leaf.certificate.subject.common_names[0].partition(":")
    return f"{kind}:mtxpd0:{rest}"


def connect_to_host(broker: Client, _: Client, refused: Fields) -> Fields:
    return ask(broker, serverName=read(r"Connect to (\S+)\.$", refused))


def name_one_organization(broker: Client, _: Client, refused: Fields) -> Fields:
    assert "Use the same organization in both" in refused["mend"]
    return ask(broker)


def connect_with_tls(broker: Client, _: Client, refused: Fields) -> Fields:
    assert refused["mend"] == "Connect with TLS."
    return ask(broker)


def give_a_certificate(broker: Client, _: Client, refused: Fields) -> Fields:
    assert "Give the device a certificate of its own" in refused["mend"]
    return ask(broker)


def issue_a_new_certificate(broker: Client, _: Client, refused: Fields) -> Fields:
    assert re.search(r"Issue (a new certificate|the certificate again)|issue the certificate again", refused["mend"])
    return ask(broker)


def remove_the_entry(broker: Client, operator: Client, refused: Fields) -> Fields:
    assert "remove the entry from the deny list" in refused["mend"]
    for entry in operator.get("/authorization/denylist").ok()["results"]:
        operator.delete(f"/authorization/denylist/{entry['id']}").ok(204)
    return ask(broker)


def add_the_new_ca(broker: Client, operator: Client, refused: Fields) -> Fields:
    assert "add the new CA certificate; the registered one can stay" in refused["mend"]
    add(operator, AGAIN)
    assert ask(broker)["decision"] == "allow"  # a device of the registered CA
    return ask(broker, certs.leaf("d:thermo:42", AGAIN))


def add_its_certificate(broker: Client, operator: Client, refused: Fields) -> Fields:
    assert read(r"If (.*) is your CA", refused) == "CN=Other"
    add(operator, OTHER)
    return ask(broker, certs.leaf("d:thermo:42", OTHER))


def send_the_intermediates(broker: Client, _: Client, refused: Fields) -> Fields:
    assert "let the device send its intermediate certificates" in refused["mend"]
    return ask(broker, certs.leaf("d:thermo:42", LOWER), LOWER)


def activate(broker: Client, operator: Client, refused: Fields) -> Fields:
    assert "ctivate the CA certificate" in refused["mend"]
    for ca in operator.get(CAS).ok()["results"]:
        operator.put(f"{CAS}/{ca['id']}", {"status": "active"}).ok()
    return ask(broker)


def deactivate(operator: Client) -> None:
    for ca in operator.get(CAS).ok()["results"]:
        operator.put(f"{CAS}/{ca['id']}", {"status": "inactive"}).ok()


def deny(operator: Client) -> None:
    operator.post("/authorization/denylist", {"kind": "identity", "value": "d:thermo:42"}).ok(201)


AGAIN: Final = certs.ca("Root", private=certs.key("P-256", 41))
OTHER: Final = certs.ca("Other")
LOWER: Final = certs.ca("Lower", ROOT)

Prepare = Callable[[Client], object]
CASES: Final[dict[str, tuple[str, Prepare | None, tuple[certs.Issued | None, dict[str, Any]], Mended]]] = {
    "a CA": ("wrong_key_usage", None, (certs.ca("d:thermo:42", ROOT), {}), reissue),
    "for servers": (
        "wrong_key_usage",
        None,
        (certs.leaf("d:thermo:42", ROOT, extended_key_usage=[certs.SERVER_AUTH]), {}),
        reissue,
    ),
    "no digitalSignature": (
        "wrong_key_usage",
        None,
        (certs.leaf("d:thermo:42", ROOT, key_usage=certs.usage(key_encipherment=True)), {}),
        reissue,
    ),
    "another device's client ID": (
        "identity_mismatch",
        None,
        (DEVICE, {"clientId": "d:mtxpd0:thermo:43"}),
        set_client_id,
    ),
    "another case": ("identity_mismatch", None, (DEVICE, {"clientId": "d:mtxpd0:Thermo:42"}), set_client_id),
    "another case, the certificate instead": (
        "identity_mismatch",
        None,
        (DEVICE, {"clientId": "d:mtxpd0:Thermo:42"}),
        issue_for_the_client_id,
    ),
    "no identity": ("identity_missing", None, (certs.leaf("pump-0001", ROOT), {}), issue_for_the_client_id),
    "the organization in the CN": (
        "identity_missing",
        None,
        (certs.leaf("d:mtxpd0:thermo:42", ROOT), {}),
        issue_for_the_client_id,
    ),
    "no server name": ("sni_missing", None, (DEVICE, {"serverName": None}), connect_to_host),
    "an alias": ("sni_unknown", None, (DEVICE, {"serverName": "mqtt.example.org"}), connect_to_host),
    "a custom domain that is not listed": (
        "sni_unknown",
        None,
        (DEVICE, {"serverName": "mtxpd0.messaging.acme.example"}),
        connect_to_host,
    ),
    "client ID of another organization": (
        "org_mismatch",
        None,
        (DEVICE, {"clientId": "d:other1:thermo:42"}),
        name_one_organization,
    ),
    "no TLS": ("tls_required", None, (None, {"serverName": None, "tls": False}), connect_with_tls),
    "no certificate": ("certificate_missing", None, (None, {}), give_a_certificate),
    "expired": (
        "certificate_expired",
        None,
        (certs.leaf("d:thermo:42", ROOT, not_after=NOON - DAY), {}),
        issue_a_new_certificate,
    ),
    "not yet valid": (
        "certificate_not_yet_valid",
        None,
        (certs.leaf("d:thermo:42", ROOT, not_before=NOON + DAY), {}),
        issue_a_new_certificate,
    ),
    "denied": ("certificate_revoked", deny, (DEVICE, {}), remove_the_entry),
    "the CA was made again": ("signature_invalid", None, (certs.leaf("d:thermo:42", AGAIN), {}), add_the_new_ca),
    "another CA": ("untrusted_issuer", None, (certs.leaf("d:thermo:42", OTHER), {}), add_its_certificate),
    "no intermediate": ("untrusted_issuer", None, (certs.leaf("d:thermo:42", LOWER), {}), send_the_intermediates),
    "the only CA is deactivated": ("no_trusted_ca", deactivate, (DEVICE, {}), activate),
}


@pytest.mark.parametrize("what", CASES)
def test_the_advice_works_to_the_letter(broker: Client, operator: Client, what: str) -> None:
    code, prepare, (device, fields), mended = CASES[what]
    add(operator, ROOT)
    if prepare is not None:
        prepare(operator)
    refused = ask(broker, device, **fields)
    assert (refused["decision"], refused["code"]) == ("deny", code)
    allowed = mended(broker, operator, refused)
    assert (allowed["decision"], allowed["code"]) == ("allow", "allowed"), refused["mend"]


def test_names_that_differ_in_case_only_are_called_so(broker: Client, operator: Client) -> None:
    add(operator, ROOT)
    refused = ask(broker, clientId="d:mtxpd0:THERMO:42")
    assert refused["reason"] == (
        "The certificate is for d:thermo:42, and the client ID is for d:THERMO:42. "
        "They differ in upper and lower case only."
    )


def test_a_deactivated_ca_is_named_with_the_time(broker: Client, operator: Client) -> None:
    add(operator, ROOT)
    deactivate(operator)
    refused = ask(broker)
    assert refused["mend"] == "Activate the CA certificate CN=Root, which is deactivated since 1 Jun 2026, 12:00 UTC."
    assert ask(broker, certs.leaf("d:thermo:42", OTHER))["mend"] == (
        "Add the CA certificate that signs your devices' certificates."
    )
