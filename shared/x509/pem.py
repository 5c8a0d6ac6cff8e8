"""Certificate files as people have them: PEM with text around it, DER, PKCS#7 -> certificates.

    bytes -> blocks (RFC 7468) or DER elements (X.690) -> the DER of each certificate -> x509.Certificate

Everything is bounded before it is parsed, and every field of a certificate is read here: cryptography parses late and
would otherwise raise late, in the middle of a rule.
"""

import base64
import binascii
import codecs
import re
from collections.abc import Iterator
from enum import Enum, auto
from itertools import pairwise
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from shared.errors import (
    ChainTooLong,
    CSRGiven,
    NotACertificate,
    PrivateKeyGiven,
    SeveralCertificates,
    TooLarge,
    WeakKey,
)
from shared.x509.fingerprints import has_unused_bits
from shared.x509.strength import describe_key

FILE_MAX: Final = 64 * 1024  # bytes of one certificate file
DER_MAX: Final = 16 * 1024  # bytes of one certificate as DER

# RFC 7468: section 5.1 (CERTIFICATE, and the obsolete X509 CERTIFICATE), 8 (PKCS7), 9 (CMS).
# TRUSTED CERTIFICATE is OpenSSL's: the certificate, then OpenSSL's own trust settings, which are left aside.
_CERTIFICATE_LABELS: Final = {
    "CERTIFICATE",
    "X509 CERTIFICATE",
    "TRUSTED CERTIFICATE",
    "PKCS7",
    "PKCS #7 SIGNED DATA",
    "CMS",
}
_REQUEST_LABELS: Final = {"CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"}
_MARK: Final = rb"-----(BEGIN|END) ([A-Z0-9][A-Z0-9 #.]{0,60})-----"
_HEADER: Final = rb"[ \t\r\n]*([A-Za-z-]{1,40}):[ \t]*([^\r\n]{0,200})(?:\r\n|\r|\n)"
_WHITESPACE: Final = b" \t\r\n\v\f\0"


# ---------------------------------------------------------------------------------------------- PEM (RFC 7468)


class Block(msgspec.Struct, frozen=True):
    """One PEM block. *der* is empty where its base64 cannot be read.

    *headers* are those of RFC 1421 (4.6), which traditional encrypted keys have: `Proc-Type`, `DEK-Info`.
    """

    label: str
    der: bytes
    headers: dict[str, str]

    @property
    def is_private_key(self) -> bool:
        return self.label.endswith("PRIVATE KEY")


def as_text(data: bytes) -> bytes:
    """*data* without byte order mark; UTF-16, which PowerShell's `>` writes, becomes UTF-8."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace").encode("utf-8", "replace")
    return data.removeprefix(codecs.BOM_UTF8)


def is_pem(data: bytes) -> bool:
    """Whether there is any PEM boundary in *data* (RFC 7468, section 3), be its block complete or not."""
    return re.search(_MARK, as_text(data)) is not None


def blocks(data: bytes) -> Iterator[Block]:
    """The complete PEM blocks in *data*, in their order, with whatever stands around and between them left out.

    Lax as in RFC 7468 section 3, figure 2: any line ends, white space anywhere in the base64."""
    text = as_text(data)
    for begin, end in pairwise(re.finditer(_MARK, text)):
        if (begin[1], end[1]) == (b"BEGIN", b"END") and begin[2] == end[2]:
            at, headers = begin.end(), {}
            while header := re.compile(_HEADER).match(text, at, end.start()):
                headers[header[1].decode()] = header[2].decode("latin-1").strip()
                at = header.end()
            try:
                der = base64.b64decode(text[at : end.start()].translate(None, _WHITESPACE), validate=True)
            except binascii.Error:
                der = b""
            yield Block(begin[2].decode(), der, headers)


# ------------------------------------------------------------------------------------------------- DER (X.690)

INTEGER: Final = 0x02
OCTET_STRING: Final = 0x04
OID: Final = 0x06
SEQUENCE: Final = 0x30
SET: Final = 0x31
CONTEXT_0: Final = 0xA0  # [0], constructed
ELEMENTS_MAX: Final = 1000  # on one level

_OID_SIGNED_DATA: Final = bytes.fromhex("2a864886f70d010702")  # pkcs7-signedData, RFC 5652 section 5.1
_OID_DATA: Final = bytes.fromhex("2a864886f70d010701")  # pkcs7-data, RFC 5652 section 4


class Element(msgspec.Struct, frozen=True):
    """One DER element: its *tag* byte, its *content*, and both with the length between them (*whole*)."""

    tag: int
    content: bytes
    whole: bytes

    @property
    def children(self) -> "list[Element]":
        """The elements in a constructed one.

        Raises: ValueError where the content is not DER."""
        return elements(self.content)


def elements(data: bytes) -> list[Element]:
    """*data* cut into the DER elements it consists of, one level deep.

    Strict where a lax reader could see something else in the same bytes: one-byte tags, definite lengths in their
    shortest form (X.690, 8.1.3 and 10.1), nothing left over. More than ELEMENTS_MAX are no file that anybody has:
    two bytes make an element, so noise of 256 KiB would otherwise cost half a second.

    Raises: ValueError."""
    found: list[Element] = []
    at = 0
    while at < len(data):
        if len(found) == ELEMENTS_MAX:
            raise ValueError("not DER: too many elements")
        tag, start = data[at], at + 2
        if tag & 0x1F == 0x1F or start > len(data):
            raise ValueError("not DER: tag")
        length = data[at + 1]
        if length > 0x7F:
            octets = data[start : start + (length & 0x7F)]
            start += len(octets)
            length = int.from_bytes(octets)
            if not 1 <= len(octets) <= 4 or octets[0] == 0 or length < 0x80:
                raise ValueError("not DER: length")
        end = start + length
        if end > len(data):
            raise ValueError("not DER: cut off")
        found.append(Element(tag, data[start:end], data[at:end]))
        at = end
    return found


class Content(Enum):
    """What one DER element seems to be, told from its outer shape alone."""

    ENCRYPTED_KEY = auto()  # EncryptedPrivateKeyInfo, RFC 5958 section 3
    KEY = auto()  # PKCS#8 (RFC 5958), PKCS#1 (RFC 8017, A.1.2), SEC1 (RFC 5915), DSA's traditional form
    PKCS12 = auto()  # PFX, RFC 7292 section 4
    PKCS7 = auto()  # SignedData, RFC 5652 section 5
    OTHER = auto()


def content_of(der: bytes) -> Content:
    """What *der*, one DER element, seems to be."""
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


# ------------------------------------------------------------------------------------------------ certificates


def read_one_ca(data: bytes, *, field: str = "certificate") -> x509.Certificate:
    """The one certificate in a file that is to hold a CA, and nothing else but text.

    A private key beside the certificate is refused too: its owner should know that it travelled.

    Raises: TooLarge, NotACertificate, SeveralCertificates, PrivateKeyGiven, CSRGiven, WeakKey (a key of a kind that
    cannot even be read)."""
    check_size(data, FILE_MAX, field=field)
    if any(block.is_private_key for block in blocks(data)):
        raise PrivateKeyGiven(field=field)
    found = split(data, field=field)
    if len(found) > 1:
        raise SeveralCertificates(field=field, n=len(found))
    return parse(found[0], field=field)


def read_certificates(
    data: bytes, *, limit: int = FILE_MAX, at_most: int = 20, field: str = "certificate"
) -> list[x509.Certificate]:
    """All certificates in a file of up to *limit* bytes, one or more, in the file's order.

    Raises: TooLarge, ChainTooLong (more than *at_most*), NotACertificate, WeakKey; PrivateKeyGiven, CSRGiven where
    the file holds that and no certificate."""
    check_size(data, limit, field=field)
    found = split(data, field=field)
    if len(found) > at_most:
        raise ChainTooLong(field=field, n=len(found), limit=at_most)
    return [parse(der, field=field) for der in found]


def check_size(data: bytes, limit: int, *, field: str, hint: str = "Save the certificate alone.") -> None:
    """Raises: TooLarge where *data* has more than *limit* bytes (a multiple of 1,024)."""
    if len(data) > limit:
        raise TooLarge(
            field=field, size=f"{len(data):,} bytes", limit=f"{limit:,} bytes ({limit // 1024} KiB)", hint=hint
        )


def split(data: bytes, *, field: str = "certificate") -> list[bytes]:
    """The DER of each certificate in *data*, not parsed yet: PEM blocks, DER one after the other, or PKCS#7.

    Raises: NotACertificate, PrivateKeyGiven, CSRGiven: there is always one at least."""
    if tidy := _split_tidy(data):
        return tidy
    return _split_pem(data, field) if is_pem(data) else _split_der(data, field)


def parse(der: bytes, *, field: str = "certificate") -> x509.Certificate:
    """One certificate, all of whose fields can be read without an error from here on.

    Two may still raise UnsupportedAlgorithm: `signature_hash_algorithm` and `signature_algorithm_parameters`, which
    are the signature rule's to judge.

    Raises: TooLarge, NotACertificate, WeakKey (a key of a kind that nothing here can use)."""
    check_size(der, DER_MAX, field=field)
    try:
        cert = x509.load_der_x509_certificate(der)
        if has_unused_bits(cert, der):
            raise ValueError("a signature is whole octets")
        _ = cert.version, cert.serial_number, cert.signature, cert.tbs_certificate_bytes
        _ = cert.subject.public_bytes(), cert.issuer.public_bytes()
        _ = cert.subject.rfc4514_string(), cert.issuer.rfc4514_string()
        _ = cert.not_valid_before_utc, cert.not_valid_after_utc, cert.signature_algorithm_oid
        _ = list(cert.extensions)
        oid = cert.public_key_algorithm_oid
    except Exception as error:
        raise NotACertificate(
            field=field,
            found="The certificate cannot be read: it is damaged, or breaks the rules of X.509",
            hint="Export it again as PEM or DER.",
        ) from error
    try:
        cert.public_key()
    except UnsupportedAlgorithm as error:
        raise WeakKey(field=field, cert=cert, found=describe_key(oid)) from error
    except Exception as error:
        raise NotACertificate(
            field=field, found="The public key in the certificate cannot be read", hint="Have it issued again."
        ) from error
    return cert


_BOUNDARY: Final = b"-----"
_TIDY_MIN: Final = 260  # bytes of a certificate; below, a length takes fewer octets


def _split_tidy(data: bytes) -> list[bytes]:
    """What `_split_pem` finds in PEM as programs write it: CERTIFICATE blocks of base64, one certificate in each.

    Empty where anything at all is otherwise: it is then read with patience. Devices connect with this very form."""
    parts = data.split(_BOUNDARY)
    if len(parts) < 5 or parts[1::4] != [b"BEGIN CERTIFICATE"] * (len(parts) // 4):
        return []
    if len(parts) % 4 != 1 or parts[3::4] != [b"END CERTIFICATE"] * (len(parts) // 4):
        return []
    found = []
    for text in parts[2::4]:
        try:
            der = binascii.a2b_base64(text.translate(None, _WHITESPACE), strict_mode=True)
        except binascii.Error:
            return []
        # A SEQUENCE that fills the block, its length in two octets, and a SEQUENCE first in it: no PKCS#7, no rest
        if len(der) < _TIDY_MIN or der[:2] != b"\x30\x82" or der[4] != SEQUENCE:
            return []
        if int.from_bytes(der[2:4]) != len(der) - 4:
            return []
        found.append(der)
    return found


def _split_pem(data: bytes, field: str) -> list[bytes]:
    found: list[bytes] = []
    other: set[str] = set()
    for block in blocks(data):
        if block.label not in _CERTIFICATE_LABELS:
            other.add("key" if block.is_private_key else "request" if block.label in _REQUEST_LABELS else "other")
        elif not block.der:
            raise _damaged(field)
        elif block.label == "TRUSTED CERTIFICATE":
            found += [one.whole for one in _elements(block.der, field)[:1]]
        else:
            found += _certificates(block.der, field)
    if found:
        return found
    if "key" in other:
        raise PrivateKeyGiven(field=field)
    if "request" in other:
        raise CSRGiven(field=field)
    if other:
        raise NotACertificate(field=field)
    raise _damaged(field)


def _split_der(data: bytes, field: str) -> list[bytes]:
    if content_of(data) in (Content.KEY, Content.ENCRYPTED_KEY):
        raise PrivateKeyGiven(field=field)
    if content_of(data) is Content.PKCS12:
        raise NotACertificate(
            field=field, found="This is a PKCS#12 file", hint="Export the certificate alone, as PEM or DER."
        )
    try:
        x509.load_der_x509_csr(data)
    except Exception:  # noqa: BLE001 - then it is no request
        return _certificates(data, field)
    raise CSRGiven(field=field)


def _certificates(der: bytes, field: str) -> list[bytes]:
    if content_of(der) is Content.PKCS7:
        found = list(_in_pkcs7(der))
    else:
        found = [one.whole for one in _elements(der, field) if one.tag == SEQUENCE]
    if not found:
        raise NotACertificate(field=field)
    return found


def _in_pkcs7(der: bytes) -> Iterator[bytes]:
    """The certificates of a SignedData (RFC 5652, 5.1): its field `certificates`, an implicit [0]."""
    try:
        signed_data = elements(der)[0].children[1].children[0]
        for part in signed_data.children:
            if part.tag == CONTEXT_0:
                yield from (one.whole for one in part.children if one.tag == SEQUENCE)
    except (ValueError, IndexError):
        return


def _elements(der: bytes, field: str) -> list[Element]:
    # Editors and shells leave a line end or zeros behind the last element. What cannot be cut off is a last byte that
    # only looks like white space, so the file is tried as it is first.
    for data in (der, der.rstrip(_WHITESPACE)):
        try:
            return elements(data)
        except ValueError:
            continue
    if der[:1] == b"\x30":
        raise _damaged(field)
    raise NotACertificate(field=field)


def _damaged(field: str) -> NotACertificate:
    return NotACertificate(
        field=field, found="The certificate is cut off or damaged", hint="Export or copy it again, whole."
    )
