"""A certificate that OpenSSL takes is taken: as a CA at upload, and from a device. What is refused is named."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from shared.x509.certificate import Certificate
from shared.x509.der import elements
from tests.functions.test_verify_client import Fields, ask
from tests.support import certs, forms
from tests.support.der import der, dotted, number, seq
from tests.support.differential import openssl_accepts
from tests.support.forms import Pair
from tests.support.harness import Answer, Client
from tests.support.malleable import order

pytestmark = pytest.mark.stores("sqlite")  # a store keeps any bytes (tests/conformance)

CAS = "/authentication/cacertificates"
FORMS = forms.every_form()
ML_DSA = ["ML-DSA-44", "ML-DSA-65", "ML-DSA-87"]


def pem(encoded: bytes) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(encoded).decode()}-----END CERTIFICATE-----\n"


def upload(operator: Client, encoded: bytes) -> Answer:
    return operator.post(CAS, {"certificate": pem(encoded)})


def verdict(broker: Client, encoded: bytes) -> Fields:
    return ask(broker, None, certificate=pem(encoded))


@pytest.mark.parametrize("form", FORMS)
def test_what_openssl_takes_is_taken(form: str, operator: Client, broker: Client) -> None:
    ca, leaf = (Certificate.from_der(encoded) for encoded in FORMS[form])
    assert openssl_accepts((leaf, ca)), "the test is about certificates that OpenSSL takes"
    upload(operator, ca.der).ok(201)
    decided = verdict(broker, leaf.der)
    assert (decided["decision"], decided["code"]) == ("allow", "allowed"), decided


@pytest.mark.parametrize("form", FORMS)
def test_a_device_is_found_again_by_the_fingerprint_that_was_denied(
    form: str, operator: Client, broker: Client
) -> None:
    pair = FORMS[form]
    upload(operator, pair.ca).ok(201)
    operator.post("/authorization/denylist", {"certificate": pem(pair.leaf)}).ok(201)
    assert verdict(broker, pair.leaf)["code"] == "certificate_revoked"


@pytest.mark.parametrize("kind", ML_DSA)
def test_post_quantum_cas_and_devices_are_taken(kind: str, operator: Client, broker: Client) -> None:
    """FIPS 204; RFC 9881. The list of CAs names the kind of key."""
    ca_key, key = certs.key(kind, 1), certs.key(kind, 2)
    root = certs.ca("Quantum Root", private=ca_key)
    leaf = certs.leaf("d:thermo:42", root, private=key)
    assert upload(operator, root.der).ok(201)["keyAlgorithm"] == kind
    assert verdict(broker, leaf.der)["code"] == "allowed"
    forged = certs.leaf("d:thermo:42", root, private=key, signing_key=key)
    assert verdict(broker, forged.der)["code"] == "signature_invalid"


# --------------------------------------------------------------------------------------------- refused by its name


def _dates(before: bytes, after: bytes) -> bytes:
    return seq(der(0x17, before), der(0x17, after))


def _unreadable() -> dict[str, tuple[bytes, str]]:
    """Return a device's certificate for each fault, and what the refusal names."""
    rsa = certs.key("RSA-2048", 72)
    modulus = rsa.public_key().public_numbers().n.to_bytes(256)  # type: ignore[union-attr]
    negative = seq(seq(dotted("1.2.840.113549.1.1.1"), forms.NULL), der(3, b"\0" + seq(der(2, modulus), number(65537))))
    leaf = forms.leaf()
    signed, algorithm, signature = (part.whole for part in elements(leaf)[0].children)
    twice = forms.extension("2.5.29.15", der(3, b"\x07\x80"))
    without_key = seq(seq(dotted("1.2.840.113549.1.1.1"), forms.NULL))
    good, no_seconds, no_date = b"250101000000Z", b"2501010000Z", b"350231000000Z"
    names = forms.extension("2.5.29.17", b"\x30\x05\x81")
    purposes = forms.extension("2.5.29.37", seq())
    not_text = forms.name(forms.attribute("2.5.4.3", 0x0C, b"\xff"))
    other_algorithm = seq(signed, forms.ECDSA_NULL, signature)
    return {
        "negative modulus": (forms.leaf(info=negative), "its public key has an RSA number that is written as a neg"),
        "key cut off": (forms.leaf(info=without_key), "its public key"),
        "version 9": (forms.leaf(version=8), "its version is not 1, 2, 3 or 4"),
        "no seconds": (forms.leaf(dates=_dates(no_seconds, good)), "its notBefore is not a date in UTC with seconds"),
        "no date": (forms.leaf(dates=_dates(good, no_date)), "its notAfter is a date that does not exist"),
        "extension twice": (forms.leaf(extensions=(twice, twice)), "its tbsCertificate has the extension 2.5.29.15 tw"),
        "names cut off": (forms.leaf(extensions=(names,)), "its subjectAltName is cut off"),
        "no purposes": (forms.leaf(extensions=(purposes,)), "its extKeyUsage is not a list of purposes"),
        "text not UTF-8": (forms.leaf(subject=not_text), "its subject has text that is not UTF-8"),
        "element behind": (seq(signed, algorithm, signature, forms.NULL), "the certificate has octets after its end"),
        "another algorithm outside": (other_algorithm, "its signatureAlgorithm is not the algorithm in the signed"),
    }


@pytest.mark.parametrize("fault", _unreadable())
def test_the_refusal_names_the_field_that_cannot_be_read(fault: str, broker: Client, operator: Client) -> None:
    """The sentence names the field, and advises what mends it: never to export a file again that is whole."""
    encoded, named = _unreadable()[fault]
    upload(operator, forms.ca()).ok(201)
    refused = verdict(broker, encoded)
    assert refused["code"] == "certificate_malformed"
    assert named in refused["reason"]
    assert "xport" not in refused["mend"]
    assert upload(operator, encoded).status == 422


# -------------------------------------------------------------------------------- the octets that are not signed


def _in_four_octets(tag: int, content: bytes) -> bytes:
    return bytes((tag, 0x84)) + len(content).to_bytes(4) + content


def rewritings(leaf: bytes, order: int | None) -> dict[str, bytes]:
    """Return the certificate in every other form that a holder without the issuer's key can give its octets."""
    signed, algorithm, bits = elements(leaf)[0].children
    parts = signed.whole + algorithm.whole + bits.whole
    value = bits.content[1:]
    pieces = der(0x23, der(3, b"\0" + value[:9]), der(3, b"\0" + value[9:]))
    made = {
        "length in four octets": _in_four_octets(0x30, parts),
        "indefinite length": b"\x30\x80" + parts + b"\0\0",
        "octets behind": leaf + b"\0\0",
        "element behind the signature": seq(parts, forms.NULL),
        "signed part's length in four octets": seq(_in_four_octets(0x30, signed.content), algorithm.whole, bits.whole),
        "algorithm's length in four octets": seq(signed.whole, _in_four_octets(0x30, algorithm.content), bits.whole),
        "algorithm of indefinite length": seq(signed.whole, b"\x30\x80" + algorithm.content + b"\0\0", bits.whole),
        "algorithm with NULL": seq(signed.whole, seq(algorithm.content, forms.NULL), bits.whole),
        "algorithm without NULL": seq(signed.whole, seq(algorithm.content.removesuffix(forms.NULL)), bits.whole),
        "signature's length in four octets": seq(signed.whole, algorithm.whole, _in_four_octets(3, bits.content)),
        "signature in pieces": seq(signed.whole, algorithm.whole, pieces),
        "one unused bit": seq(signed.whole, algorithm.whole, der(3, b"\1" + value)),
        "eight unused bits": seq(signed.whole, algorithm.whole, der(3, b"\x08" + value)),
        "zero before the signature": seq(signed.whole, algorithm.whole, der(3, b"\0\0" + value)),
        "zero behind the signature": seq(signed.whole, algorithm.whole, der(3, bits.content + b"\0")),
    }  # fmt: skip
    if order is not None:
        r, s = decode_dss_signature(value)
        for label, other in (
            ("n - s", seq(number(r), number(order - s))),
            ("s + n", seq(number(r), number(s + order))),
            ("zero before r", seq(der(2, b"\0" + r.to_bytes(33)), number(s))),
            ("something behind s", seq(number(r), number(s), forms.NULL)),
            ("length in two octets", b"\x30\x81" + bytes((len(value) - 2,)) + value[2:]),
        ):
            made[label] = seq(signed.whole, algorithm.whole, der(3, b"\0" + other))
    return {label: encoded for label, encoded in made.items() if encoded != leaf}


@pytest.mark.parametrize("kind", ["ECDSA", "ECDSA with NULL", "RSA-2048", "Ed25519", "ML-DSA-44"])
def test_a_denied_certificate_has_no_other_fingerprint(kind: str, operator: Client, broker: Client) -> None:
    """OpenSSL takes six of these forms. The certificate is denied in the form that its CA issued."""
    if kind.startswith("ECDSA"):
        ca, leaf = FORMS["ECDSA with NULL, both"] if "NULL" in kind else Pair(forms.ca(), forms.leaf())
    else:
        root = certs.ca("Other Root", private=certs.key(kind, 73))
        ca, leaf = root.der, certs.leaf("d:thermo:42", root).der
    upload(operator, ca).ok(201)
    assert verdict(broker, leaf)["code"] == "allowed"
    operator.post("/authorization/denylist", {"certificate": pem(leaf)}).ok(201)
    others = rewritings(leaf, order("P-256") if kind.startswith("ECDSA") else None)
    assert len(others) >= 13
    for label, other in others.items():
        for sent in (pem(other), base64.b64encode(other).decode()):
            decided = ask(broker, None, certificate=sent)
            assert decided["decision"] == "deny", label
