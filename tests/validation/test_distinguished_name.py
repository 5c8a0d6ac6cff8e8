"""Two spellings of one name are one name, two names never are (RFC 5280, 7.1)."""

import itertools

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import crypto

from shared.x509.distinguished_name import SHOWN_MAX, canonical, digest, shown
from tests import certs

CN, O, OU = NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME  # noqa: E741


def attribute(
    value: str, oid: x509.ObjectIdentifier = CN, kind: _ASN1Type | None = None
) -> x509.NameAttribute[str | bytes]:
    return x509.NameAttribute(oid, value, kind, _validate=True)


def name(*rdns: list[x509.NameAttribute[str | bytes]]) -> x509.Name:
    return x509.Name([x509.RelativeDistinguishedName(rdn) for rdn in rdns])


@pytest.mark.parametrize(
    "other",
    ["acme root", "ACME ROOT", "  Acme Root", "Acme Root \t", "Acme   Root", "Acme\t\n Root"],
)
def test_case_and_spacing_do_not_count(other: str) -> None:
    assert canonical(certs.name(other)) == canonical(certs.name("Acme Root"))


@pytest.mark.parametrize("kind", [_ASN1Type.PrintableString, _ASN1Type.BMPString, _ASN1Type.IA5String])
def test_the_string_type_does_not_count(kind: _ASN1Type) -> None:
    assert canonical(name([attribute("Acme Root", CN, kind)])) == canonical(name([attribute("Acme Root")]))


def test_only_ascii_loses_its_case() -> None:
    """As OpenSSL has it; RFC 5280 would fold Ä too, but then OpenSSL would refuse the path that was found."""
    assert canonical(certs.name("Äcme")) != canonical(certs.name("äcme"))
    assert canonical(certs.name("Äcme ROOT")) == canonical(certs.name("Äcme root"))


def test_the_order_of_rdns_counts() -> None:
    assert canonical(name([attribute("a", O)], [attribute("b", OU)])) != canonical(
        name([attribute("b", OU)], [attribute("a", O)])
    )


def test_attributes_in_one_rdn_are_a_set() -> None:
    one, two = attribute("a", O), attribute("b", OU)
    assert canonical(name([one, two])) == canonical(name([two, one]))
    assert canonical(name([one, two])) != canonical(name([one], [two]))


def test_the_attribute_type_counts() -> None:
    assert canonical(name([attribute("a", O)])) != canonical(name([attribute("a", OU)]))


def test_no_value_can_imitate_a_border() -> None:
    """Names that look alike when joined with a separator stay different."""
    names = [
        name([attribute("a,O=b")]),
        name([attribute("a")], [attribute("b", O)]),
        name([attribute("a+O=b")]),
        name([attribute("a"), attribute("b", O)]),
        name([attribute("a\0b")]),
        name([attribute("a")]),
        name([attribute("a")], [attribute("a")]),
        name(),
    ]
    for one, other in itertools.combinations(names, 2):
        assert canonical(one) != canonical(other)


def test_bits_are_not_text() -> None:
    """x500UniqueIdentifier is a BIT STRING: its bytes count as they are."""
    oid = NameOID.X500_UNIQUE_IDENTIFIER
    bits = x509.Name([x509.NameAttribute(oid, b"AB", _ASN1Type.BitString)])
    other = x509.Name([x509.NameAttribute(oid, b"ab", _ASN1Type.BitString)])
    assert canonical(bits) != canonical(other)
    assert canonical(bits) != canonical(name([attribute("AB", oid)]))


@settings(deadline=None, database=None, derandomize=True)
@given(st.lists(st.text(alphabet="aA bBäÄ\t,=+", min_size=1, max_size=6), min_size=1, max_size=3), st.data())
def test_two_names_are_one_exactly_if_openssl_says_so(values: list[str], data: st.DataObject) -> None:
    """The oracle is OpenSSL: it finds the issuer of a certificate exactly if the two write one name."""
    others = [data.draw(st.sampled_from([value, value.upper(), f" {value} ", value + "b"])) for value in values]
    subject, issuer = (name(*([attribute(value)] for value in some)) for some in (values, others))
    trusted = certs.ca(subject, private=certs.key("P-256", 4))
    cert = certs.certificate(
        certs.name("a device"), signer=trusted, private=certs.key("P-256", 5), issuer=issuer, not_after=certs.NOON
    )
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN | 0x200000)  # no check of dates
    store.add_cert(crypto.X509.from_cryptography(trusted.cert))
    try:
        crypto.X509StoreContext(store, crypto.X509.from_cryptography(cert.cert)).verify_certificate()
        same = True
    except crypto.X509StoreContextError:
        same = False
    assert (canonical(subject) == canonical(issuer)) is same


def test_a_digest_is_64_hexadecimal_digits_of_the_canonical_form() -> None:
    assert digest(certs.name("Acme ROOT")) == digest(certs.name("acme root"))
    assert len(digest(certs.name("x"))) == 64
    assert digest(certs.name("x")) != digest(certs.name("y"))


def test_a_name_is_shown_as_rfc_4514_text() -> None:
    assert shown(certs.name("Acme Root", organization="Acme, Inc")) == r"CN=Acme Root,O=Acme\, Inc"


def test_a_long_name_is_shown_shortened() -> None:
    text = shown(x509.Name([attribute("x" * 60, O) for _ in range(100)]))
    assert len(text) == SHOWN_MAX
    assert text.endswith("…")


def test_what_cannot_be_printed_is_shown_as_a_question_mark() -> None:
    """A name cannot turn a sentence around (U+202E) nor begin a new line in a log."""
    text = shown(certs.name("a\nb\u202ec\0\x7f"))
    assert text.startswith("CN=a?b?c")
    assert text.isprintable()


def test_an_empty_name_is_shown_too() -> None:
    assert shown(x509.Name([])) == "(empty name)"


def test_a_name_that_cannot_be_shown_does_not_raise() -> None:
    """A lone surrogate in a value, which no encoder takes."""
    broken = name([attribute("\udc80", NameOID.DN_QUALIFIER)])
    assert shown(broken).endswith("=?")
    assert canonical(broken) != canonical(name([attribute("?", NameOID.DN_QUALIFIER)]))
    assert shown(None) == "(unreadable name)"  # type: ignore[arg-type]
