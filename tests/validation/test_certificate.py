"""The fields of a certificate have the values that cryptography reads, and follow RFC 5280."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from shared import errors
from shared.x509 import extensions
from shared.x509.cache import read_intermediate, read_registered
from shared.x509.certificate import Certificate, _read_rest, _read_short_extension
from shared.x509.der import NotDER
from tests.support import certs
from tests.support.certs import CLIENT_AUTH, DAY, NOON, SERVER_AUTH

K = certs.key
KINDS = ["RSA-2048", "P-256", "P-384", "P-521", "Ed25519", "Ed448"]
ROOT = certs.ca("Root")


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_a_certificate_are_those_that_cryptography_finds(kind: str) -> None:
    root = certs.ca("Root", private=K(kind, 1))
    issued = certs.leaf("d:thermo:42", root, private=K(kind, 2), emails=["d:thermo:42"], dns=["a.example"])
    parsed, cert = issued.cert, issued.certificate
    assert cert.signed == parsed.tbs_certificate_bytes
    assert cert.signature == parsed.signature
    assert cert.issuer.der == parsed.issuer.public_bytes()
    assert cert.subject.der == parsed.subject.public_bytes()
    assert cert.key_info == cert.public_key_info
    assert cert.serial_number == parsed.serial_number
    assert (cert.not_before, cert.not_after) == (parsed.not_valid_before_utc, parsed.not_valid_after_utc)
    assert cert.fingerprint == parsed.fingerprint(hashes.SHA256()).hex()
    assert (cert.dns_names, cert.email_names) == (["a.example"], ["d:thermo:42"])


def test_two_certificates_are_equal_if_their_octets_are() -> None:
    root = certs.ca("Root")
    assert root.certificate == Certificate.from_der(root.der)
    assert len({root.certificate, Certificate.from_der(root.der)}) == 1
    assert root.certificate != certs.ca("Root").certificate
    assert root.certificate != root.der


@pytest.mark.parametrize(
    "octets",
    [b"", b"\x30\x80", ROOT.der[:-1], ROOT.der + b"\0", ROOT.der * 2, ROOT.pem.encode(), b"junk"],
    ids=["empty", "indefinite", "cut", "trailing", "two", "pem", "junk"],
)
def test_octets_that_are_not_one_certificate_are_malformed(octets: bytes) -> None:
    """Nothing may follow the certificate: each certificate has one encoding, and thus one fingerprint."""
    for read in (Certificate.from_der, read_intermediate, read_registered):
        with pytest.raises(errors.CertificateMalformed) as refusal:
            read(octets)
        assert refusal.value.facts["found"]


# ---------------------------------------------------------------------------------------------------------- signature


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_is_signed_by_the_key_of_its_issuer_alone(kind: str) -> None:
    root = certs.ca("Root", private=K(kind, 1))
    leaf = certs.leaf("d:thermo:42", root).certificate
    assert leaf.is_signed_by(root.certificate)
    for other in KINDS:
        assert not leaf.is_signed_by(certs.ca("Root", private=K(other, 7)).certificate)


@pytest.mark.parametrize("digest", [hashes.SHA224(), hashes.SHA3_256()])
def test_unusual_algorithms_are_verified_too(digest: hashes.HashAlgorithm) -> None:
    """SHA-224 and SHA-3, with PKCS#1 v1.5, PSS and ECDSA."""
    for kind, scheme in (
        ("RSA-2048", None),
        ("RSA-2048", padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)),
        ("P-256", None),
    ):
        key, name = K(kind, 1), certs.name("x")
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOON, NOON + DAY)
        made = builder.sign(key, digest, rsa_padding=scheme)  # type: ignore[arg-type]
        cert = Certificate.from_der(made.public_bytes(Encoding.DER))
        assert cert.is_self_signed
        assert not cert.is_signed_by(certs.ca("x", private=K(kind, 2)).certificate)


# ----------------------------------------------------------------------------------------------------------- validity

SECOND = dt.timedelta(seconds=1)
CERT = certs.ca(not_before=NOON, not_after=NOON + DAY).certificate


@pytest.mark.parametrize("at", [NOON, NOON + DAY, NOON + DAY + SECOND * 0.9])
def test_both_ends_are_inside_the_validity(at: dt.datetime) -> None:
    """RFC 5280, 4.1.2.5: "through notAfter, inclusive". The fraction of a second after notAfter is inside too."""
    CERT.check_dates(at)


def test_before_it_begins_a_certificate_is_not_yet_valid() -> None:
    with pytest.raises(
        errors.CertificateNotYetValid, match=r"only from 1 Jun 2026, 12:00 UTC \(in less than a minute\)"
    ):
        CERT.check_dates(NOON - SECOND)


def test_after_its_end_a_certificate_is_expired() -> None:
    with pytest.raises(errors.CertificateExpired, match=r"expired less than a minute ago \(2 Jun 2026, 12:00 UTC\)"):
        CERT.check_dates(NOON + DAY + SECOND)


def test_times_of_other_zones_are_compared_as_moments() -> None:
    """12:30 at +01:00 is 11:30 UTC: before noon."""
    with pytest.raises(errors.CertificateNotYetValid):
        CERT.check_dates(dt.datetime(2026, 6, 1, 12, 30, tzinfo=dt.timezone(dt.timedelta(hours=1))))


def test_a_naive_time_is_a_mistake_in_the_program() -> None:
    with pytest.raises(ValueError, match="naive"):
        CERT.check_dates(dt.datetime(2026, 6, 1, 12))  # noqa: DTZ001


# ----------------------------------------------------------------------------------------------------------- purposes


@pytest.mark.parametrize(
    ("purposes", "for_clients", "for_servers"),
    [
        ([], True, True),
        ([CLIENT_AUTH], True, False),
        ([SERVER_AUTH], False, True),
        ([SERVER_AUTH, CLIENT_AUTH], True, True),
        ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], True, False),
        ([ExtendedKeyUsageOID.CODE_SIGNING], False, False),
    ],
)
def test_an_extended_key_usage_limits_what_a_certificate_is_for(
    purposes: list[x509.ObjectIdentifier], for_clients: bool, for_servers: bool
) -> None:
    """RFC 5280, 4.2.1.12. anyExtendedKeyUsage is enough for devices, which have it, and not for servers."""
    cert = certs.leaf("x", certs.ca(), extended_key_usage=purposes).certificate
    assert (cert.is_for_clients, cert.is_for_servers) == (for_clients, for_servers)
    assert len(cert.purposes) == len(purposes)


def test_a_key_usage_limits_what_a_key_may_sign() -> None:
    """RFC 5280, 4.2.1.3."""
    plain, signs, certifies = (
        certs.ca(key_usage=usage).certificate
        for usage in (None, certs.usage(digital_signature=True), certs.usage(key_cert_sign=True))
    )
    assert (plain.may_sign_data, plain.may_sign_certificates) == (True, True)
    assert (signs.may_sign_data, signs.may_sign_certificates) == (True, False)
    assert (certifies.may_sign_data, certifies.may_sign_certificates) == (False, True)


def test_an_extension_that_ends_in_a_length_is_cut_off() -> None:
    """The fault has the same words as in any other field that is cut off there."""
    cut_off, following = bytes.fromhex("30070603551d130482"), bytes.fromhex("300a0603551d0f0403020780")
    table = cut_off + following
    with pytest.raises(NotDER, match="extension is cut off"):
        _read_rest(bytes((0xA3, len(table) + 2, 0x30, len(table))) + table)


def test_a_process_keeps_short_extensions_only() -> None:
    """What strangers send is bounded in the memory that it takes."""
    leaf = certs.leaf("d:thermo:42", certs.ca(), dns=[f"{'x' * 60}{n}" for n in range(3)])
    _read_short_extension.cache_clear()
    read = Certificate(leaf.der).extensions
    assert len(read[extensions.SUBJECT_ALTERNATIVE_NAME].value) > 128
    assert _read_short_extension.cache_info().currsize == len(read) - 1
