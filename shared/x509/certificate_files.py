"""Certificate files as people have them: PEM with text around it, DER, PKCS#7.

    bytes -> PEM or binary (file_forms) -> PEM blocks or DER elements -> the DER of each certificate -> Certificate

Everything is bounded before it is parsed.
"""

import binascii
from collections.abc import Iterator
from enum import Enum, auto
from functools import lru_cache
from typing import Final, Literal

from shared.errors import (
    CertificateMalformed,
    ChainTooLong,
    CSRGiven,
    NotACertificate,
    PrivateKeyGiven,
    SeveralCertificates,
    TooComplex,
    TooLarge,
    WeakKey,
)
from shared.x509.ber import to_der
from shared.x509.budget import ELEMENTS_MAX, ElementCount
from shared.x509.certificate import Certificate
from shared.x509.der import CONTEXT_0, INTEGER, OID, SEQUENCE, Element, NotDER, elements
from shared.x509.file_forms import java_key_store, unwrap
from shared.x509.pem import WHITESPACE, blocks, is_pem
from shared.x509.public_keys import UnsupportedKey, describe_key

Part = Literal["certificate", "chain", "private_key"]
"""The part of what was sent that a refusal is about."""

FILE_MAX: Final = 64 * 1024  # bytes of one certificate file
BUNDLE_MAX: Final = 256 * 1024  # bytes of a file with chain or key: a whole request's worth
CERTIFICATE_MAX: Final = 16 * 1024  # bytes of one certificate as DER
CERTIFICATES_MAX: Final = 20  # in one file

# RFC 7468: section 5.1 (CERTIFICATE, and the obsolete X509 CERTIFICATE), 8 (PKCS7), 9 (CMS).
# TRUSTED CERTIFICATE is OpenSSL's: the certificate, then OpenSSL's own trust settings, which are ignored.
_CERTIFICATE_LABELS: Final = {
    "CERTIFICATE",
    "X509 CERTIFICATE",
    "TRUSTED CERTIFICATE",
    "PKCS7",
    "PKCS #7 SIGNED DATA",
    "CMS",
}
_REQUEST_LABELS: Final = {"CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"}
_OID_SIGNED_DATA: Final = bytes.fromhex("2a864886f70d010702")  # pkcs7-signedData, RFC 5652 section 5.1


# -------------------------------------------------------------------------------------------------- kinds of content

# What keytool must know of a format that it does not recognize by itself
_STORE_OPTIONS: Final = {
    "JKS": "",
    "JCEKS": " -{}storetype JCEKS",
    "BKS": (
        " -{}storetype BKS -providerclass org.bouncycastle.jce.provider.BouncyCastleProvider -providerpath bcprov.jar"
    ),
}


def name_key_store(kind: str) -> str:
    """Return a sentence, without its full stop, that names a key store of the format *kind*."""
    return f"This file is a Java key store ({kind})"


def export_from_key_store(kind: str) -> str:
    """Return the advice for the certificate alone in a key store of the format *kind*."""
    options = _STORE_OPTIONS[kind].format("")
    store = f"-keystore store.{kind.lower()}{options}"
    return f"For a certificate alone, run: keytool -exportcert -rfc {store} -alias NAME -file certificate.pem"


def convert_key_store(kind: str) -> str:
    """Return the advice for a certificate and its key in a key store of the format *kind*."""
    options = _STORE_OPTIONS[kind].format("src")
    store = f"-srckeystore store.{kind.lower()}{options}"
    return (
        "For a certificate with its key, run: "
        f"keytool -importkeystore {store} -destkeystore file.p12 -deststoretype PKCS12"
    )


class Content(Enum):
    """What one DER element seems to be, by its outer shape alone."""

    ENCRYPTED_KEY = auto()  # EncryptedPrivateKeyInfo, RFC 5958 section 3
    KEY = auto()  # PKCS#8 (RFC 5958), PKCS#1 (RFC 8017, A.1.2), SEC1 (RFC 5915), DSA's traditional form
    PKCS12 = auto()  # PFX, RFC 7292 section 4
    PKCS7 = auto()  # SignedData, RFC 5652 section 5
    OTHER = auto()


def content_of(der: bytes) -> Content:
    """Return what *der*, one DER element, seems to be."""
    try:
        [outer] = elements(der)
        parts = outer.children if outer.tag == SEQUENCE else []
        match [part.tag for part in parts]:
            case [0x30, 0x04] if parts[0].children[0].tag == OID:
                return Content.ENCRYPTED_KEY
            case [0x02, 0x30, 0x04, *_] if parts[0].content in (b"\0", b"\1"):
                return Content.KEY
            case [0x02, 0x04, *_] if parts[0].content == b"\1":
                return Content.KEY
            case [0x02, 0x02, 0x02, 0x02, 0x02, 0x02, *_]:
                return Content.KEY
            case [0x02, 0x30, *_] if parts[0].content == b"\3":
                return Content.PKCS12
            case [0x06, 0xA0] if parts[0].content == _OID_SIGNED_DATA:
                return Content.PKCS7
    except (ValueError, IndexError):
        pass
    return Content.OTHER


def _content_of_ber(data: bytes) -> Content:
    """Return what *data* seems to be, also where it is in BER: a PKCS#12 file may be (RFC 7292, section 4)."""
    content = content_of(data)
    if content is not Content.OTHER or data[:1] != bytes([SEQUENCE]):
        return content
    try:
        return content_of(to_der(data))
    except NotDER:
        return Content.OTHER


# ----------------------------------------------------------------------------------------------------------- reading


def read_one_certificate(data: bytes, *, part: Part = "certificate") -> Certificate:
    """Return the certificate of a file that may hold one certificate and text around it.

    A private key beside the certificate is refused too, so that its owner knows that the key was sent.

    Raises: TooLarge, NotACertificate, SeveralCertificates, PrivateKeyGiven, CSRGiven, WeakKey (the key is of a kind
    that cannot be read)."""
    check_size(data, FILE_MAX, part=part)
    data = unwrap(data)
    if any(block.is_private_key for block in blocks(data)):
        raise PrivateKeyGiven(part=part)
    encoded = split(data, part=part)
    if len(encoded) > 1:
        raise SeveralCertificates(part=part, n=len(encoded))
    return read_certificate(encoded[0], part=part)


def read_certificates(
    data: bytes, *, limit: int = FILE_MAX, at_most: int = CERTIFICATES_MAX, part: Part = "certificate"
) -> list[Certificate]:
    """Return all certificates in a file of up to *limit* bytes, at least one, in the order of the file.

    Raises: TooLarge, ChainTooLong (more than *at_most*), NotACertificate, WeakKey; PrivateKeyGiven, CSRGiven where
    the file holds a key or a request and no certificate."""
    check_size(data, limit, part=part)
    encoded = split(data, part=part)
    if len(encoded) > at_most:
        raise ChainTooLong(part=part, n=len(encoded), limit=at_most)
    return [read_certificate(der, part=part) for der in encoded]


def read_certificate(der: bytes, *, part: Part = "certificate") -> Certificate:
    """Return one certificate with a key that can be used.

    Raises: TooLarge, TooComplex, NotACertificate, WeakKey (the key is of a kind that cannot be read)."""
    check_size(der, CERTIFICATE_MAX, part=part)
    if not ElementCount(ELEMENTS_MAX, len(der)).takes(der):
        raise TooComplex(part=part, found=f"more than {ELEMENTS_MAX:,} elements of DER")
    try:
        cert = Certificate.from_der(der)
    except CertificateMalformed as error:
        raise NotACertificate(part=part, found=error.reason.rstrip("."), hint=error.advice) from error
    if isinstance(cert.public_key, UnsupportedKey):
        raise WeakKey(part=part, cert=cert, found=describe_key(cert.public_key))
    return cert


def check_size(data: bytes, limit: int, *, part: Part, hint: str = "Save the certificate alone.") -> None:
    """Refuse *data* of more than *limit* bytes, a multiple of 1,024. Raises: TooLarge."""
    if len(data) > limit:
        raise TooLarge(
            part=part, size=f"{len(data):,} bytes", limit=f"{limit:,} bytes ({limit // 1024} KiB)", hint=hint
        )


def split(data: bytes, *, part: Part = "certificate") -> list[bytes]:
    """Return the DER of each certificate in *data*, not parsed: PEM blocks, DER one after the other, or PKCS#7.

    The list is never empty.

    Raises: NotACertificate, PrivateKeyGiven, CSRGiven."""
    if tidy := _split_tidy(data):
        return tidy
    data = unwrap(data)
    return _split_pem(data, part) if is_pem(data) else _split_der(data, part)


_DASHES: Final = b"-----"
_TIDY_MIN: Final = 260  # bytes of a certificate; below that, its length takes fewer octets


def _split_tidy(data: bytes) -> list[bytes]:
    """Return what `_split_pem` finds in PEM as programs write it: CERTIFICATE blocks, one certificate in each.

    Devices connect with this form, so it is read fast. The list is empty for any other form."""
    parts = data.split(_DASHES)
    if len(parts) < 5 or parts[1::4] != [b"BEGIN CERTIFICATE"] * (len(parts) // 4):
        return []
    if len(parts) % 4 != 1 or parts[3::4] != [b"END CERTIFICATE"] * (len(parts) // 4):
        return []
    encoded = []
    for number, text in enumerate(parts[2::4]):
        der = _decode_following(text) if number and len(text) <= _KEPT_TEXT else _decode_tidy(text)
        if der is None:
            return []
        encoded.append(der)
    return encoded


def _decode_tidy(text: bytes) -> bytes | None:
    """Return the certificate that *text*, between BEGIN and END, encodes; None where it is anything else."""
    try:
        der = binascii.a2b_base64(text.translate(None, WHITESPACE), strict_mode=True)
    except binascii.Error:
        return None
    # A SEQUENCE that fills the block, its length in two octets, and a SEQUENCE first in it: no PKCS#7, no rest
    if len(der) < _TIDY_MIN or der[:2] != b"\x30\x82" or der[4] != SEQUENCE:
        return None
    return der if int.from_bytes(der[2:4]) == len(der) - 4 else None


# The devices of a fleet send the same few certificates after their own
_decode_following: Final = lru_cache(maxsize=256)(_decode_tidy)
_KEPT_TEXT: Final = 4096  # octets of a text that a process may keep


def _split_pem(data: bytes, part: Part) -> list[bytes]:
    encoded: list[bytes] = []
    others: set[str] = set()
    for block in blocks(data):
        if block.label not in _CERTIFICATE_LABELS:
            others.add("key" if block.is_private_key else "request" if block.label in _REQUEST_LABELS else "other")
        elif not block.der:
            raise _damaged(part)
        elif block.label == "TRUSTED CERTIFICATE":
            encoded += [element.whole for element in _elements(block.der, part)[:1]]
        else:
            encoded += _certificates(block.der, part)
    if encoded:
        return encoded
    if "key" in others:
        raise PrivateKeyGiven(part=part)
    if "request" in others:
        raise CSRGiven(part=part)
    if others:
        raise NotACertificate(part=part)
    raise _damaged(part)


def _split_der(data: bytes, part: Part) -> list[bytes]:
    if kind := java_key_store(data):
        hint = f"{export_from_key_store(kind)} {convert_key_store(kind)}"
        raise NotACertificate(part=part, found=name_key_store(kind), hint=hint)
    content = _content_of_ber(data)
    if content in (Content.KEY, Content.ENCRYPTED_KEY):
        raise PrivateKeyGiven(part=part)
    if content is Content.PKCS12:
        raise NotACertificate(
            part=part, found="This is a PKCS#12 file", hint="Export the certificate alone, as PEM or DER."
        )
    if _is_request(data):
        raise CSRGiven(part=part)
    return _certificates(data, part)


def _is_request(data: bytes) -> bool:
    """Whether *data* begins as a CertificationRequest does (RFC 2986, 4.2): version, subject, key, attributes."""
    try:
        info = elements(data)[0].children[0].children
    except (NotDER, IndexError):
        return False
    return [part.tag for part in info] in ([INTEGER, SEQUENCE, SEQUENCE], [INTEGER, SEQUENCE, SEQUENCE, CONTEXT_0])


def _certificates(der: bytes, part: Part) -> list[bytes]:
    if content_of(der) is Content.PKCS7:
        encoded = list(_in_pkcs7(der))
    else:
        encoded = [element.whole for element in _elements(der, part) if element.tag == SEQUENCE]
    if not encoded:
        raise NotACertificate(part=part)
    return encoded


def _in_pkcs7(der: bytes) -> Iterator[bytes]:
    """Return the certificates of a SignedData (RFC 5652, 5.1): its field `certificates`, an implicit [0]."""
    try:
        signed_data = elements(der)[0].children[1].children[0]
        for field in signed_data.children:
            if field.tag == CONTEXT_0:
                yield from (element.whole for element in field.children if element.tag == SEQUENCE)
    except (ValueError, IndexError):
        return


def _elements(der: bytes, part: Part) -> list[Element]:
    # Editors and shells leave a line end or zeros behind the last element. The last octet of an element may look like
    # white space, so the file is first tried unchanged.
    for data in (der, der.rstrip(WHITESPACE)):
        try:
            return elements(data)
        except ValueError:
            continue
    if der[:1] == b"\x30":
        raise _damaged(part)
    raise NotACertificate(part=part)


def _damaged(part: Part) -> NotACertificate:
    return NotACertificate(
        part=part, found="The certificate is cut off or damaged", hint="Export or copy it again, whole."
    )
