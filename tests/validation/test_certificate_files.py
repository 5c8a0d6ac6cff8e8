"""Certificate files as people have them are read; any other file is refused with a sentence (RFC 7468)."""

import base64
import itertools
import random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, pkcs7
from hypothesis import given
from hypothesis import strategies as st

from shared import errors
from shared.x509 import certificate_files
from shared.x509.certificate import Certificate
from shared.x509.certificate_files import read_certificates, read_one_certificate
from tests.support import certs
from tests.support.malleable import with_signature
from tests.support.openssl import OpenSSL

# Its last octet does not look like white space, which is cut off a file
ROOT = next(
    ca for ca in (certs.ca("Root", serial=n) for n in itertools.count(1)) if ca.der[-1:].strip(b" \t\r\n\v\f\0")
)
OTHER = certs.ca("Other")
PEM = ROOT.pem.encode()


VARIANTS = {
    "plain": PEM,
    "DER": ROOT.der,
    "DER and the line end an editor adds": ROOT.der + b"\n",
    "text around": b"Certificate:\n    Data: -- 3\n" + PEM + b"trailing words\n",
    "Windows line ends": PEM.replace(b"\n", b"\r\n"),
    "old Mac line ends": PEM.replace(b"\n", b"\r"),
    "byte order mark": b"\xef\xbb\xbf" + PEM,
    "UTF-16, as PowerShell writes": PEM.decode().encode("utf-16"),
    "white space at line ends": PEM.replace(b"\n", b" \t\n"),
    "indented": PEM.replace(b"\n", b"\n\t"),
    "one long line of base64": b"-----BEGIN CERTIFICATE-----\n"
    + base64.b64encode(ROOT.der)
    + b"\n-----END CERTIFICATE-----",
    "X509 CERTIFICATE": PEM.replace(b"CERTIFICATE", b"X509 CERTIFICATE"),
    "PKCS#7 in PEM": pkcs7.serialize_certificates([ROOT.cert], Encoding.PEM),
    "PKCS#7 in DER": pkcs7.serialize_certificates([ROOT.cert], Encoding.DER),
}


@pytest.mark.parametrize("data", VARIANTS.values(), ids=VARIANTS.keys())
def test_one_certificate_is_found_in(data: bytes) -> None:
    """RFC 7468, section 2: parsers should be lax about text around the block and white space in it."""
    assert read_one_certificate(data) == ROOT.certificate


def test_what_openssl_writes_is_read(openssl: OpenSSL) -> None:
    """`-text`, TRUSTED CERTIFICATE with its trust settings, and PKCS#7 from crl2pkcs7."""
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 30 -subj", "/CN=My Root")
    openssl("x509 -in c.pem -text -out text.pem")
    openssl("x509 -in c.pem -trustout -addtrust clientAuth -setalias me -out trusted.pem")
    openssl("crl2pkcs7 -nocrl -certfile c.pem -out c.p7b")
    openssl("crl2pkcs7 -nocrl -certfile c.pem -outform DER -out c.p7c")
    openssl("x509 -in c.pem -outform DER -out c.der")
    expected = read_one_certificate(openssl.bytes("c.pem"))
    for name in ("text.pem", "trusted.pem", "c.p7b", "c.p7c", "c.der"):
        assert read_one_certificate(openssl.bytes(name)) == expected, name


def test_several_certificates_are_counted() -> None:
    for data in (certs.bundle(ROOT, OTHER).encode(), ROOT.der + OTHER.der):
        with pytest.raises(
            errors.SeveralCertificates,
            match=r"2 certificates are in the file\. Save the CA certificate alone in a file\.",
        ):
            read_one_certificate(data)


def test_a_chain_is_read_in_the_order_of_the_file() -> None:
    expected = [OTHER.certificate, ROOT.certificate]
    pkcs7_der = pkcs7.serialize_certificates([OTHER.cert, ROOT.cert], Encoding.DER)
    assert read_certificates(certs.bundle(OTHER, ROOT).encode()) == expected
    assert read_certificates(OTHER.der + ROOT.der) == expected
    assert set(read_certificates(pkcs7_der)) == set(expected)  # a SET: DER sorts it


def test_more_certificates_than_allowed_are_not_even_parsed() -> None:
    with pytest.raises(errors.ChainTooLong, match="21 certificates were sent; at most 20"):
        read_certificates(ROOT.der * 21)


@pytest.mark.parametrize("passphrase", [None, "secret"])
def test_a_private_key_is_named_as_a_private_key(passphrase: str | None) -> None:
    """Its owner must learn that the key was sent, so a key beside the certificate is refused too."""
    key = certs.key_pem(ROOT.key, passphrase)
    der = base64.b64decode("".join(key.splitlines()[1:-1]))
    for data in (key.encode(), der, ROOT.pem.encode() + key.encode()):
        with pytest.raises(errors.PrivateKeyGiven):
            read_one_certificate(data)


def test_traditional_keys_are_named_as_keys(openssl: OpenSSL) -> None:
    """PKCS#1, SEC1 (with the EC PARAMETERS block before it), encrypted or not, in PEM and DER."""
    openssl("genrsa -traditional -out rsa.pem 2048")
    openssl("rsa -in rsa.pem -traditional -aes256 -passout pass:x -out rsa-aes.pem")
    openssl("rsa -in rsa.pem -traditional -outform DER -out rsa.der")
    openssl("ecparam -name prime256v1 -genkey -out ec.pem")
    openssl("ec -in ec.pem -outform DER -out ec.der")
    for name in ("rsa.pem", "rsa-aes.pem", "rsa.der", "ec.pem", "ec.der"):
        with pytest.raises(errors.PrivateKeyGiven):
            read_one_certificate(openssl.bytes(name))


def test_a_request_is_named_as_a_request(openssl: OpenSSL) -> None:
    openssl("req -new -newkey rsa:2048 -nodes -keyout k.pem -out r.pem -subj", "/CN=x")
    openssl("req -in r.pem -outform DER -out r.der")
    for name in ("r.pem", "r.der"):
        with pytest.raises(errors.CSRGiven):
            read_one_certificate(openssl.bytes(name))


def test_a_pkcs12_file_is_named_as_a_pkcs12_file(openssl: OpenSSL) -> None:
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -subj", "/CN=x")
    openssl("pkcs12 -export -in c.pem -inkey k.pem -passout pass:x -out c.p12")
    with pytest.raises(errors.NotACertificate, match="PKCS#12"):
        read_one_certificate(openssl.bytes("c.p12"))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "No certificate found in the file. Choose PEM or DER."),
        (b"hello", "No certificate found in the file. Choose PEM or DER."),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "No certificate found"),
        (PEM[:200], "The certificate is cut off or damaged. Export or copy it again, whole."),
        (PEM.replace(b"MII", b"M*I", 1), "The certificate is cut off or damaged."),
        (ROOT.der[:-1], "The certificate is cut off or damaged."),
        (b"\x30\x03\x02\x01\x01", "The certificate cannot be read: its tbsCertificate"),
        (pkcs7.serialize_certificates([ROOT.cert], Encoding.DER)[:60], "The certificate is cut off or damaged."),
    ],
)
def test_any_other_file_is_refused_with_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(errors.NotACertificate) as refused:
        read_one_certificate(data)
    assert str(refused.value).startswith(sentence)


def test_files_are_bounded_before_they_are_parsed() -> None:
    """64 KiB as a file, 16 KiB as DER."""
    assert read_one_certificate(PEM + b" " * (64 * 1024 - len(PEM))) == ROOT.certificate
    with pytest.raises(errors.TooLarge, match=r"65,537 bytes were sent; at most 65,536 bytes \(64 KiB\) are taken\."):
        read_one_certificate(PEM + b" " * (64 * 1024 + 1 - len(PEM)))
    large = certs.ca("Large", more=[(x509.SubjectAlternativeName([x509.DNSName("a" * 60 + ".b")] * 280), False)])
    with pytest.raises(errors.TooLarge, match="16 KiB"):
        read_one_certificate(large.der)


def test_a_certificate_with_an_extension_twice_is_refused_when_it_is_read() -> None:
    """The same extension twice (RFC 5280, 4.2), which cryptography finds late."""
    first = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x04\x00")
    second = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.2"), b"\x04\x00")
    der = certs.ca("Twice", more=[(first, False), (second, False)]).der
    twice = der.replace(bytes.fromhex("2b06010401868d1f02"), bytes.fromhex("2b06010401868d1f01"))
    assert twice != der
    with pytest.raises(errors.NotACertificate):
        read_one_certificate(twice)


def test_a_key_of_an_unknown_kind_is_weak() -> None:
    """id-ecPublicKey becomes an unknown algorithm: the certificate parses, its key does not."""
    der = ROOT.der.replace(bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d0209"))
    with pytest.raises(errors.WeakKey, match=r"1\.2\.840\.10045\.2\.9"):
        read_one_certificate(der)


def test_a_file_full_of_boundaries_is_read_in_one_pass() -> None:
    """No block is complete. A reader that searches each END from its BEGIN would take a long time."""
    with pytest.raises(errors.NotACertificate):
        read_one_certificate(b"-----BEGIN CERTIFICATE-----\n" * 2300)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_refusal(data: bytes) -> None:
    for prefix in (b"", b"-----BEGIN CERTIFICATE-----\n", b"\x30\x82\x01\x00"):
        with pytest.raises(errors.TrustError):
            read_one_certificate(prefix + data)


def test_mutated_certificates_raise_nothing_but_refusals() -> None:
    """2,000 files with up to 4 wrong bytes: read whole or refused; every field of a file that is read can be used."""
    dice = random.Random(7)
    kinds = [ROOT.der, PEM, VARIANTS["PKCS#7 in DER"], certs.leaf("d:t:1", ROOT, emails=["d:t:1"], dns=["x.y"]).der]
    for _ in range(2000):
        data = bytearray(dice.choice(kinds))
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            cert = read_one_certificate(bytes(data))
        except errors.TrustError:
            continue
        assert cert.subject_text
        assert cert.public_key is not None
        assert cert.extensions is not None


# ------------------------------------------------------------------------------------------ PEM as programs write it

TWO = [certs.leaf(f"d:thermo:{number}", certs.ca(), private=certs.key("RSA-2048", 1)) for number in range(2)]
TIDY = certs.bundle(*TWO).encode()


def test_tidy_pem_is_read_in_the_fast_way() -> None:
    assert certificate_files._split_tidy(TIDY) == [leaf.der for leaf in TWO]
    assert certificate_files._split_tidy(TIDY.replace(b"\n", b"\r\n")) == [leaf.der for leaf in TWO]


@given(
    st.lists(
        st.sampled_from(
            [
                *(leaf.pem.encode() for leaf in TWO),
                b"-----BEGIN CERTIFICATE-----",
                b"-----END CERTIFICATE-----",
                b"-----BEGIN PKCS7-----",
                b"-----END PKCS7-----",
                b"-----BEGIN X509 CERTIFICATE-----",
                b"-----",
                b"-",
                b"Proc-Type: 4,ENCRYPTED\n",
                b"some text\n",
                b"\xef\xbb\xbf",
                b"\0 \n",
                b"=",
                *(leaf.pem.encode().split(b"-----")[2] for leaf in TWO),
                TWO[0].pem.encode().split(b"-----")[2][:100],
            ]
        ),
        max_size=9,
    ).map(b"".join)
)
def test_the_fast_way_finds_what_the_general_way_finds(data: bytes) -> None:
    encoded = certificate_files._split_tidy(data)
    if encoded:
        assert encoded == certificate_files._split_pem(data, "certificate")


# ---------------------------------------------------------------------------------------------------- one certificate


def test_a_certificate_is_written_as_cryptography_writes_it() -> None:
    """The same PEM, line by line, for every length of the last line."""
    for length in range(1, 70):
        issued = certs.ca("x" * length if length < 64 else "Root")
        assert issued.certificate.pem == issued.pem
        assert issued.certificate.der == issued.der


def test_the_refusal_names_what_cannot_be_read() -> None:
    """A damaged key is reported as such; a damaged extension as a damaged certificate."""
    point = ROOT.cert.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    off_the_curve = ROOT.der.replace(point, point[:-1] + bytes([point[-1] ^ 1]))
    with pytest.raises(errors.NotACertificate, match=r"its public key is not a key that can be loaded.*Make a new key"):
        read_one_certificate(off_the_curve)
    with pytest.raises(errors.CertificateMalformed) as refused:
        Certificate.from_der(off_the_curve)
    assert refused.value.cert is not None
    assert refused.value.cert.subject_text == "CN=Root"


@pytest.mark.parametrize(
    ("fault", "named"), [("extension", "its subjectAltName"), ("unused bits", "its signatureValue is not whole octets")]
)
def test_a_damaged_key_beside_another_fault(fault: str, named: str) -> None:
    """The other fault is named: a new key alone would not mend the certificate."""
    point = ROOT.cert.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\x30\x03\x89\x01a")
    issued = certs.ca("Root", private=ROOT.key, more=[(broken, False)] if fault == "extension" else ())
    changed = with_signature(issued.cert, b"\0\0" if fault == "extension" else b"\1\0")
    damaged = changed.replace(point, point[:-1] + bytes([point[-1] ^ 1]))
    with pytest.raises(errors.NotACertificate, match=named):
        read_one_certificate(damaged)
    with pytest.raises(errors.CertificateMalformed, match=named):
        Certificate.from_der(damaged)


def test_a_process_keeps_what_follows_a_leaf_and_no_leaf() -> None:
    """The devices of a fleet send the same intermediates. Each has a leaf of its own, which would fill the memory."""
    certificate_files._decode_following.cache_clear()
    assert certificate_files._split_tidy(TIDY) == certificate_files._split_tidy(TIDY)
    assert certificate_files._decode_following.cache_info()[:2] == (1, 1)  # hits, misses: the second of TWO


def test_a_process_keeps_no_long_text() -> None:
    """What strangers send is bounded in the memory that it takes."""
    padded = TIDY.replace(b"-----END", b"\n" * certificate_files._KEPT_TEXT + b"-----END")
    certificate_files._decode_following.cache_clear()
    assert certificate_files._split_tidy(padded) == [leaf.der for leaf in TWO]
    assert certificate_files._decode_following.cache_info().currsize == 0
