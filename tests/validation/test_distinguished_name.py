"""Names that differ in spelling only are equal, and other names are not (RFC 5280, 7.1)."""

import itertools

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import crypto

from shared.x509.der import NotDER
from shared.x509.distinguished_name import TEXT_MAX, DistinguishedName
from tests.support import certs
from tests.support.der import der, dotted, seq

CN, O, OU = NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME  # noqa: E741


def attribute(
    value: str, oid: x509.ObjectIdentifier = CN, kind: _ASN1Type | None = None
) -> x509.NameAttribute[str | bytes]:
    return x509.NameAttribute(oid, value, kind, _validate=True)


def name(*rdns: list[x509.NameAttribute[str | bytes]]) -> x509.Name:
    return x509.Name([x509.RelativeDistinguishedName(rdn) for rdn in rdns])


def canonical(made: x509.Name) -> bytes:
    return DistinguishedName(made.public_bytes()).canonical


def format_name(made: x509.Name) -> str:
    return DistinguishedName(made.public_bytes()).text


def encoded(tag: int, content: bytes, oid: str = "2.5.4.3") -> bytes:
    return seq(der(0x31, seq(dotted(oid), der(tag, content))))


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
    """As in OpenSSL. RFC 5280 would fold Ä too, but then OpenSSL would refuse the path."""
    assert canonical(certs.name("Äcme")) != canonical(certs.name("äcme"))
    assert canonical(certs.name("Äcme ROOT")) == canonical(certs.name("Äcme root"))


def test_the_order_of_rdns_counts() -> None:
    assert canonical(name([attribute("a", O)], [attribute("b", OU)])) != canonical(
        name([attribute("b", OU)], [attribute("a", O)])
    )


def test_attributes_in_one_rdn_are_a_set() -> None:
    a, b = attribute("a", O), attribute("b", OU)
    assert canonical(name([a, b])) == canonical(name([b, a]))
    assert canonical(name([a, b])) != canonical(name([a], [b]))


def test_the_attribute_type_counts() -> None:
    assert canonical(name([attribute("a", O)])) != canonical(name([attribute("a", OU)]))


def test_no_value_can_imitate_a_separator() -> None:
    """Names that would be equal if their parts were joined with a separator stay different."""
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
    for first, second in itertools.combinations(names, 2):
        assert canonical(first) != canonical(second)


def test_bits_are_not_text() -> None:
    """x500UniqueIdentifier is a BIT STRING: its octets count unchanged."""
    oid = NameOID.X500_UNIQUE_IDENTIFIER
    bits = x509.Name([x509.NameAttribute(oid, b"AB", _ASN1Type.BitString)])
    other = x509.Name([x509.NameAttribute(oid, b"ab", _ASN1Type.BitString)])
    assert canonical(bits) != canonical(other)
    assert canonical(bits) != canonical(name([attribute("AB", oid)]))


@settings(deadline=None, database=None, derandomize=True)
@given(st.lists(st.text(alphabet="aA bBäÄ\t,=+", min_size=1, max_size=6), min_size=1, max_size=3), st.data())
def test_two_names_are_equal_exactly_if_openssl_says_so(values: list[str], data: st.DataObject) -> None:
    """OpenSSL finds the issuer of a certificate exactly if both names are the same."""
    others = [data.draw(st.sampled_from([value, value.upper(), f" {value} ", value + "b"])) for value in values]
    subject, issuer = (name(*([attribute(value)] for value in texts)) for texts in (values, others))
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
    acme, upper, other = (certs.ca(text).certificate.subject for text in ("acme root", "Acme ROOT", "x"))
    assert acme.digest == upper.digest
    assert acme.digest != other.digest
    assert len(acme.digest) == 64


@pytest.mark.parametrize("kind", [_ASN1Type.UTF8String, _ASN1Type.PrintableString, _ASN1Type.IA5String])
def test_nearly_all_names_are_in_usual_text(kind: _ASN1Type) -> None:
    """Also with several attributes in one RDN, and with values whose length takes several octets."""
    subject = name([attribute("a", O, kind), attribute("b", OU, kind)], [attribute("d" * 200, OU, kind)])
    assert certs.ca(subject).certificate.subject.has_usual_text
    assert certs.ca(x509.Name([])).certificate.subject.has_usual_text


@pytest.mark.parametrize("kind", [_ASN1Type.VisibleString, _ASN1Type.NumericString, _ASN1Type.UniversalString])
def test_other_string_types_are_not_usual_wherever_they_are(kind: _ASN1Type) -> None:
    odd = attribute("7", OU, kind)
    for subject in (name([odd]), name([attribute("a", O)], [odd]), name([attribute("a", O), odd])):
        assert not certs.ca(subject).certificate.subject.has_usual_text


@pytest.mark.parametrize(
    ("tag", "content", "is_usual"),
    [
        (0x14, b"Acme", True),
        (0x14, b"\xc4cme", True),
        (0x14, "Äcme".encode(), False),
        (0x16, "Äcme".encode(), False),
        (0x1E, "Äcme".encode("utf-16-be"), True),
        (0x1E, "😀".encode("utf-16-be"), False),
    ],
)
def test_text_that_can_be_read_in_two_ways_is_not_usual(tag: int, content: bytes, is_usual: bool) -> None:
    """OpenSSL reads T61String as Latin-1, and each pair of octets of a BMPString as one character."""
    assert DistinguishedName(encoded(tag, content)).has_usual_text is is_usual


@pytest.mark.parametrize(
    ("tag", "content", "digest"),
    [
        (0x0C, "Äcme  Root".encode(), "68fdcd644eaf1f93"),
        (0x13, b"Acme  ROOT", "1dc07187b6675c12"),
        (0x16, b" Acme@Root ", "f7c93b2a3153e54a"),
        (0x12, b"0 42", "e75ef7796aa9c04b"),
        (0x1A, b"Acme\tRoot", "1dc07187b6675c12"),
        (0x14, b"Acme Root", "1dc07187b6675c12"),
        (0x14, "Äcme".encode(), "1c5c9ccb30f1c23d"),
        (0x1E, "Äcme Root".encode("utf-16-be"), "68fdcd644eaf1f93"),
        (0x1E, "😀".encode("utf-16-be"), "1c15da72bad65087"),
        (0x1C, "Acme".encode("utf-32-be"), "a1d0d9b0a13f98a7"),
        (0x04, b"Acme", "a1d0d9b0a13f98a7"),
        (0x03, b"\0AB", "0a90983107cd4deb"),
    ],
)
def test_the_ids_of_stored_cas_stay(tag: int, content: bytes, digest: str) -> None:
    """An id of a registered CA begins with these digits; they are those of the first version that stored CAs."""
    made = encoded(tag, content, "2.5.4.45" if tag == 0x03 else "2.5.4.3")
    assert DistinguishedName(made).digest[:16] == digest


@pytest.mark.parametrize(
    ("tag", "content", "text"),
    [(0x14, b"\xc4cme", "Äcme"), (0x13, b"\xe9", "é"), (0x16, b"M\xfcller", "Müller"), (0x12, b"a@b", "a@b")],
)
def test_text_that_is_not_of_its_type_is_latin_1(tag: int, content: bytes, text: str) -> None:
    """Tools write T61String in Latin-1, and OpenSSL reads it so."""
    made = DistinguishedName(encoded(tag, content))
    assert made.common_names == [text]
    assert made.canonical == canonical(certs.name(text))


@pytest.mark.parametrize(
    ("made", "issue"),
    [
        (encoded(0x0C, b"\xff"), "has text that is not UTF-8"),
        (encoded(0x1E, b"\xd8\x00"), "has text that is not UCS-2"),
        (encoded(0x1E, b"a"), "has text that is not UCS-2"),
        (encoded(0x1C, b"abc"), "has text that is not UCS-4"),
        (seq(der(0x31)), "has a part without attributes"),
        (seq(der(0x31, seq(dotted("2.5.4.3")))), "is missing or cut off"),
        (seq(der(0x31, seq(dotted("2.5.4.3"), der(0x13, b"a"), der(0x13, b"b")))), "one type and one value"),
        (seq(der(0x31, seq(der(6, b"\x80"), der(0x13, b"a")))), "object identifier"),
        (encoded(0x0C, b"a") + b"\0", "has octets after its end"),
    ],
)
def test_a_name_that_cannot_be_read_is_named(made: bytes, issue: str) -> None:
    with pytest.raises(NotDER, match=issue) as error:
        DistinguishedName(made, "issuer")
    assert error.value.field == "issuer"


def test_the_order_inside_a_set_is_free() -> None:
    """DER sorts a SET, and some tools do not."""
    a, b = (seq(dotted(oid), der(0x0C, text)) for oid, text in (("2.5.4.10", b"Acme"), ("2.5.4.3", b"Root")))
    first, second = (DistinguishedName(seq(der(0x31, *parts))) for parts in ((a, b), (b, a)))
    assert first.canonical == second.canonical
    assert first.has_usual_text


@pytest.mark.parametrize("value", [r'a,b+c"d\e<f>g;h', " a ", "#a", " ", "a\0b", "Ä=é"])
def test_the_text_of_a_name_is_that_of_cryptography(value: str) -> None:
    made = name([attribute("Acme", O)], [attribute(value)])
    assert format_name(made) == made.rfc4514_string()


def test_the_text_of_a_name_is_that_of_rfc_4514() -> None:
    assert format_name(certs.name("Acme Root", organization="Acme, Inc")) == r"CN=Acme Root,O=Acme\, Inc"


def test_the_text_of_a_long_name_is_shortened() -> None:
    text = format_name(x509.Name([attribute("x" * 60, O) for _ in range(100)]))
    assert len(text) == TEXT_MAX
    assert text.endswith("…")


def test_unprintable_characters_become_question_marks() -> None:
    """A name can neither reverse a sentence (U+202E) nor begin a new line in a log."""
    text = format_name(certs.name("a\nb\u202ec\0\x7f"))
    assert text.startswith("CN=a?b?c")
    assert text.isprintable()


def test_an_empty_name_has_a_text_too() -> None:
    assert format_name(x509.Name([])) == "(empty name)"
