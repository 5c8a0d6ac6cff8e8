"""Certificates in forms that tools write and that cryptography refuses, or that nothing but a hand-made encoder makes.

`issue` writes a certificate octet by octet. `every_form` is a CA and a device's certificate for each form.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support import certs
from tests.support.certs import PrivateKey
from tests.support.der import der, dotted, number, octets, seq

DEVICE: Final = "d:thermo:42"
TRUE, FALSE = der(1, b"\xff"), der(1, b"\0")
NULL: Final = b"\5\0"
ECDSA: Final = seq(dotted("1.2.840.10045.4.3.2"))
ECDSA_NULL: Final = seq(dotted("1.2.840.10045.4.3.2"), NULL)
ECDSA_384_NULL: Final = seq(dotted("1.2.840.10045.4.3.3"), NULL)
RSA: Final = seq(dotted("1.2.840.113549.1.1.11"), NULL)
RSA_WITHOUT_NULL: Final = seq(dotted("1.2.840.113549.1.1.11"))
_HASHES: Final = {ECDSA_384_NULL: hashes.SHA384()}


class Pair(NamedTuple):
    """The DER of a CA certificate, and of a device's certificate that the CA issued."""

    ca: bytes
    leaf: bytes


def attribute(oid: str, tag: int, content: bytes) -> bytes:
    return seq(dotted(oid), der(tag, content))


def name(*attributes: bytes) -> bytes:
    """Return a Name with one attribute in each part."""
    return seq(*(der(0x31, each) for each in attributes))


def common_name(text: str) -> bytes:
    return attribute("2.5.4.3", 0x0C, text.encode())


def extension(oid: str, value: bytes, critical: bytes = b"") -> bytes:
    return seq(dotted(oid), critical, octets(value))


def key_info(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


IS_CA: Final = extension("2.5.29.19", seq(TRUE), TRUE)
ROOT_NAME: Final = name(common_name("Form Root"))
_DATES: Final = seq(der(0x17, b"250101000000Z"), der(0x17, b"350101000000Z"))


def issue(
    signer: PrivateKey,
    *,
    subject: bytes,
    issuer: bytes,
    info: bytes,
    serial: int = 2,
    extensions: tuple[bytes, ...] = (),
    version: int | None = 2,
    algorithm: bytes = ECDSA,
    dates: bytes = _DATES,
) -> bytes:
    """Return the DER of a certificate. Names, dates, key and extensions are DER. *version*: as it is encoded."""
    signed = seq(
        b"" if version is None else der(0xA0, number(version)),
        number(serial),
        algorithm,
        issuer,
        dates,
        subject,
        info,
        der(0xA3, seq(*extensions)) if extensions else b"",
    )
    return seq(signed, algorithm, der(3, b"\0" + sign(signer, signed, algorithm)))


def sign(signer: PrivateKey, signed: bytes, algorithm: bytes) -> bytes:
    digest = _HASHES.get(algorithm, hashes.SHA256())
    match signer:
        case ec.EllipticCurvePrivateKey():
            return signer.sign(signed, ec.ECDSA(digest))
        case rsa.RSAPrivateKey():
            return signer.sign(signed, padding.PKCS1v15(), digest)
    return signer.sign(signed)


def ca(**changed: object) -> bytes:
    key = certs.key("P-256", 71)
    usual = {"subject": ROOT_NAME, "issuer": ROOT_NAME, "info": key_info(key), "serial": 1, "extensions": (IS_CA,)}
    return issue(key, **(usual | changed))  # type: ignore[arg-type]


def leaf(**changed: object) -> bytes:
    usual = {
        "subject": name(common_name(DEVICE)),
        "issuer": ROOT_NAME,
        "info": key_info(certs.key("P-256", 72)),
    }
    return issue(certs.key("P-256", 71), **(usual | changed))  # type: ignore[arg-type]


def every_form() -> dict[str, Pair]:
    """Return each form by what it is."""
    return dict(_forms())


def _forms() -> Iterator[tuple[str, Pair]]:
    yield from _algorithms()
    yield from _defaults()
    yield from _names()
    yield from _broken_extensions()
    for version in (1, 3):
        yield f"version {version + 1}, device", Pair(ca(), leaf(version=version))
        yield f"version {version + 1}, CA", Pair(ca(version=version), leaf())
    yield "version 1", Pair(ca(), leaf(version=None))
    late = seq(der(0x18, b"20250101000000Z"), der(0x18, b"20350101000000Z"))
    yield "GeneralizedTime before 2050", Pair(ca(dates=late), leaf(dates=late))
    yield "serial number 0", Pair(ca(), leaf(serial=0))
    usage = extension("2.5.29.15", der(3, b"\x00\x80\x00"))
    yield "KeyUsage with an octet too many", Pair(ca(), leaf(extensions=(usage,)))


def _algorithms() -> Iterator[tuple[str, Pair]]:
    """Parameters of a signature algorithm are NULL or absent (RFC 5758, 3.2; RFC 4055, 5). mbed TLS 2 writes NULL."""
    yield "ECDSA with NULL, device", Pair(ca(), leaf(algorithm=ECDSA_NULL))
    yield "ECDSA with NULL, CA", Pair(ca(algorithm=ECDSA_NULL), leaf())
    yield "ECDSA with NULL, both", Pair(ca(algorithm=ECDSA_NULL), leaf(algorithm=ECDSA_NULL))
    yield "ECDSA with SHA-384 and NULL", Pair(ca(algorithm=ECDSA_384_NULL), leaf(algorithm=ECDSA_384_NULL))
    key = certs.key("RSA-2048", 71)
    for label, algorithm in (("with", RSA), ("without", RSA_WITHOUT_NULL)):
        root = issue(
            key, subject=ROOT_NAME, issuer=ROOT_NAME, info=key_info(key), extensions=(IS_CA,), algorithm=algorithm
        )
        made = issue(
            key,
            subject=name(common_name(DEVICE)),
            issuer=ROOT_NAME,
            info=key_info(certs.key("P-256", 72)),
            algorithm=algorithm,
        )
        yield f"RSA {label} NULL", Pair(root, made)


def _defaults() -> Iterator[tuple[str, Pair]]:
    """DER leaves out a value that is the default (X.690, 11.5). Tools write the value out."""
    yield "CA:FALSE written out", Pair(ca(), leaf(extensions=(extension("2.5.29.19", seq(FALSE)),)))
    yield "critical FALSE written out, device", Pair(ca(), leaf(extensions=(extension("2.5.29.19", seq(), FALSE),)))
    yield "critical FALSE written out, CA", Pair(ca(extensions=(extension("2.5.29.19", seq(TRUE), FALSE),)), leaf())
    yield "path length beside CA:FALSE", Pair(ca(), leaf(extensions=(extension("2.5.29.19", seq(number(0))),)))
    both = extension("2.5.29.19", seq(FALSE, number(0)), TRUE)
    yield "path length beside CA:FALSE written out", Pair(ca(), leaf(extensions=(both,)))
    yield "version 1 written out", Pair(ca(), leaf(version=0))


def _names() -> Iterator[tuple[str, Pair]]:
    """Types of text as tools fill them, and a SET that is not sorted (X.690, 11.6)."""
    french = name(attribute("2.5.4.10", 0x14, "Société d'Eaux".encode("latin-1")), common_name("Form Root"))
    yield "T61String in Latin-1, CA", Pair(ca(subject=french, issuer=french), leaf(issuer=french))
    for label, tag in (("T61String", 0x14), ("PrintableString", 0x13), ("IA5String", 0x16)):
        subject = name(attribute("2.5.4.10", tag, "Müller".encode("latin-1")), common_name(DEVICE))
        yield f"{label} in Latin-1, device", Pair(ca(), leaf(subject=subject))
    wide = name(attribute("2.5.4.10", 0x1E, "Müller".encode("utf-16-be")), common_name(DEVICE))
    yield "BMPString", Pair(ca(), leaf(subject=wide))
    issuer = name(attribute("2.5.4.3", 0x1E, "FORM  Root ".encode("utf-16-be")))
    yield "issuer in another type of text", Pair(ca(), leaf(issuer=issuer))
    unsorted_ = seq(der(0x31, common_name(DEVICE), attribute("2.5.4.5", 0x13, b"77")))
    yield "SET that is not sorted, device", Pair(ca(), leaf(subject=unsorted_))
    parts = common_name("Form Root"), attribute("2.5.4.10", 0x0C, b"Acme")
    one, other = seq(der(0x31, *parts)), seq(der(0x31, *reversed(parts)))
    yield "SET in another order than the CA's", Pair(ca(subject=one, issuer=one), leaf(issuer=other))


def _broken_extensions() -> Iterator[tuple[str, Pair]]:
    """Extensions that no rule asks for, broken, and not critical."""
    notice = seq(dotted("1.3.6.1.5.5.7.2.2"), seq(der(0x1A, "Sûreté".encode("latin-1"))))
    broken = {
        "policy text in Latin-1": extension("2.5.29.32", seq(seq(dotted("1.2.3"), seq(notice)))),
        "policies cut off": extension("2.5.29.32", b"\x30\x09\x30"),
        "authority information access": extension("1.3.6.1.5.5.7.1.1", b"\x04\x00"),
        "issuerAltName": extension("2.5.29.18", b""),
        "unknown extension without content": extension("1.2.3.4", b""),
        "IP address with a mask": extension("2.5.29.17", seq(der(0x87, b"\x7f\0\0\1\xff\xff\xff\0"))),
        "e-mail in Latin-1": extension("2.5.29.17", seq(der(0x81, "jürgen@example.com".encode("latin-1")))),
        "two empty key identifiers": extension("2.5.29.14", octets(b"")),
    }
    for label, value in broken.items():
        yield f"broken: {label}", Pair(ca(), leaf(extensions=(value,)))
    yield "broken: policies of the CA", Pair(ca(extensions=(IS_CA, broken["policies cut off"])), leaf())
