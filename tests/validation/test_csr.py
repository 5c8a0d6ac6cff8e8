"""A certificate request that CAs take, and the certificate that comes back for it (RFC 2986)."""

import random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from shared import errors
from shared.validation import csr
from shared.x509.private_keys import PrivateKey
from shared.x509.public_keys import public_key_info
from tests.support import certs
from tests.support.openssl import OpenSSL

HOST = "mtxpd0.messaging.example.com"
LONG = f"mtxpd0.messaging.{'a' * 50}.example.com"
OWN = certs.key("P-256", 42)
assert isinstance(OWN, ec.EllipticCurvePrivateKey)
KEY: PrivateKey = OWN
PUBLIC_KEY = public_key_info(OWN.public_key())


def made(*, host: str = HOST, **fields: str | None) -> x509.CertificateSigningRequest:
    return csr.make_csr(KEY, csr.subject_name(host=host, **fields), host=host)


@pytest.mark.parametrize(
    ("algorithm", "kind", "bits"),
    [
        ("RSA-2048", rsa.RSAPrivateKey, 2048),
        ("RSA-3072", rsa.RSAPrivateKey, 3072),
        ("RSA-4096", rsa.RSAPrivateKey, 4096),
        ("P-256", ec.EllipticCurvePrivateKey, 256),
        ("P-384", ec.EllipticCurvePrivateKey, 384),
    ],
)
def test_each_key_algorithm_makes_its_key(algorithm: str, kind: type, bits: int) -> None:
    key = csr.make_key(algorithm)
    assert isinstance(key, kind)
    assert key.key_size == bits
    assert csr.make_csr(key, csr.subject_name(host=HOST), host=HOST).is_signature_valid


def test_rsa_2048_is_the_default_and_others_are_refused() -> None:
    assert csr.make_key().key_size == 2048
    with pytest.raises(errors.WrongValue, match="RSA-2048, RSA-3072, RSA-4096, P-256, P-384"):
        csr.make_key("RSA-1024")


def test_openssl_reads_the_request(openssl: OpenSSL) -> None:
    """Every field in its place, CN and SAN dNSName the host, signed."""
    request = made(
        organization="Acme Ltd",
        organizational_unit="Fleet",
        locality="Rīga",
        state="Rīga",
        country="lv",
        email_address="ops@acme.example",
    )
    openssl.write("r.pem", request.public_bytes(Encoding.PEM).decode())
    text = openssl("req -in r.pem -noout -verify -subject -text -nameopt RFC2253,-esc_msb,utf8")
    assert f"emailAddress=ops@acme.example,CN={HOST},OU=Fleet,O=Acme Ltd,L=Rīga,ST=Rīga,C=LV" in text
    assert f"DNS:{HOST}" in text


def test_a_host_of_over_64_characters_goes_in_the_san_alone() -> None:
    """ub-common-name (RFC 5280, appendix A.1); with an empty subject the SAN is critical (4.2.1.6)."""
    assert len(LONG) > 64
    request = made(host=LONG)
    san = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert request.subject == x509.Name([])
    assert san.value.get_values_for_type(x509.DNSName) == [LONG]
    assert san.critical
    with_country = made(host=LONG, country="DE")
    assert not with_country.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


def test_empty_fields_are_left_out_and_spaces_around_are_dropped() -> None:
    subject = made(organization="  Acme ", locality="", state=None, country=" ").subject
    assert subject.rfc4514_string() == f"CN={HOST},O=Acme"


@pytest.mark.parametrize(
    ("keyword", "field", "value"),
    [
        ("organization", "organization", "x" * 65),
        ("organizational_unit", "organizationalUnit", "x" * 65),
        ("locality", "locality", "x" * 129),
        ("state", "state", "x" * 129),
        ("country", "country", "DEU"),
        ("country", "country", "Ü1"),
        ("email_address", "emailAddress", "x@" + "y" * 254),
        ("email_address", "emailAddress", "ops"),
        ("email_address", "emailAddress", "öps@example.com"),
        ("email_address", "emailAddress", "a@b@c"),
        ("organization", "organization", "Ac\nme"),
        ("locality", "locality", "a\0b"),
        ("state", "state", "\u202eevil"),
        ("organization", "organization", "\udc80"),
    ],
)
def test_fields_that_no_certificate_can_hold_are_refused_by_name(keyword: str, field: str, value: str) -> None:
    """Upper bounds of X.520 as in RFC 5280, appendix A.1; no control or direction characters."""
    with pytest.raises(errors.InvalidSubject) as refused:
        made(**{keyword: value})
    assert refused.value.part == refused.value.field == field
    assert refused.value.advice


def test_fields_at_their_bounds_are_taken() -> None:
    request = made(
        organization="x" * 64,
        organizational_unit="x" * 64,
        locality="ä" * 128,
        state="x" * 128,
        email_address="x@" + "y" * 253,
    )
    assert request.is_signature_valid


@given(st.text(max_size=140))
def test_any_text_makes_a_request_or_a_refusal(text: str) -> None:
    fields = ("organization", "organizational_unit", "locality", "state", "country", "email_address")
    for field in fields:
        try:
            request = made(**{field: text})
        except errors.InvalidSubject:
            continue
        assert x509.load_der_x509_csr(request.public_bytes(Encoding.DER)).subject == request.subject


# --- the certificate that comes back

ROOT = certs.ca("Signing CA")
LEAF = certs.server(HOST, ROOT, private=OWN)
DER7 = pkcs7.serialize_certificates([ROOT.cert, LEAF.cert], Encoding.DER)


@pytest.mark.parametrize(
    "data",
    [
        certs.bundle(LEAF, ROOT).encode(),
        certs.bundle(ROOT, LEAF).encode(),
        LEAF.der + ROOT.der,
        DER7,
        pkcs7.serialize_certificates([ROOT.cert, LEAF.cert], Encoding.PEM),
    ],
)
def test_the_signed_certificate_is_read_with_its_chain(data: bytes) -> None:
    """PEM, DER or PKCS#7, in any order."""
    assert csr.read_signed(data) == (LEAF.certificate, (ROOT.certificate,))
    assert csr.read_signed(data, public_key=PUBLIC_KEY) == (LEAF.certificate, (ROOT.certificate,))


def test_a_request_signed_by_openssl_comes_back(openssl: OpenSSL) -> None:
    openssl.write("r.pem", made(organization="Acme").public_bytes(Encoding.PEM).decode())
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out ca.pem -days 30 -subj", "/CN=My CA")
    openssl("x509 -req -in r.pem -CA ca.pem -CAkey k.pem -CAcreateserial -copy_extensions copy -out c.pem -days 30")
    openssl("crl2pkcs7 -nocrl -certfile c.pem -certfile ca.pem -out c.p7b")
    leaf, chain = csr.read_signed(openssl.bytes("c.p7b"))
    assert leaf.public_key_info == PUBLIC_KEY
    assert len(chain) == 1


def test_the_request_itself_is_not_its_certificate() -> None:
    """The most frequent mistake: the file that was downloaded is uploaded again."""
    with pytest.raises(errors.CSRGiven):
        csr.read_signed(made().public_bytes(Encoding.PEM))


def test_mutated_answers_raise_nothing_but_refusals() -> None:
    dice = random.Random(13)
    for sample in (DER7, certs.bundle(LEAF, ROOT).encode(), LEAF.der + ROOT.der):
        for _ in range(400):
            data = bytearray(sample)
            for _ in range(dice.randint(1, 3)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            try:
                csr.read_signed(bytes(data))
                csr.read_signed(bytes(data), public_key=PUBLIC_KEY)
            except errors.TrustError:
                continue


def test_country_is_printed_in_capitals() -> None:
    """ISO 3166 alpha-2, as X.520 asks."""
    assert made(country="de").subject.get_attributes_for_oid(NameOID.COUNTRY_NAME)[0].value == "DE"
