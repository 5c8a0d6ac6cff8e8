"""Distinguished names: comparison, and text for people (RFC 5280, sections 4.1.2.4 and 7.1).

One certificate may hold a CA's name as UTF8String and the next as PrintableString, in another case or spacing. Issuers
are therefore found by the canonical form below, which is the form that OpenSSL compares.

Ids of registered CAs contain a hash of the canonical form. A change of the form would lose the CAs that are stored.
"""

import hashlib
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from shared.text import printable
from shared.x509 import der
from shared.x509.once import once

TEXT_MAX: Final = 256  # characters of a name as text
NAMES_KEPT_MAX: Final = 1024  # issuers' names that a process keeps ...
NAME_KEPT_BYTES_MAX: Final = 1024  # ... each at most this long as DER
ATTRIBUTES_MAX: Final = 8192

_ELLIPSIS: Final = "…"
_ANY_TEXT: Final = b"T"
_BITS: Final = b"B"  # x500UniqueIdentifier (RFC 5280, appendix A.1)
_OTHER: Final = b"X"

_COMMON_NAME: Final = der.encode_oid("2.5.4.3")
_EMAIL_ADDRESS: Final = der.encode_oid("1.2.840.113549.1.9.1")
_SHORT_NAMES: Final = {  # RFC 4514, section 3
    _COMMON_NAME: "CN",
    der.encode_oid("2.5.4.6"): "C",
    der.encode_oid("2.5.4.7"): "L",
    der.encode_oid("2.5.4.8"): "ST",
    der.encode_oid("2.5.4.9"): "STREET",
    der.encode_oid("2.5.4.10"): "O",
    der.encode_oid("2.5.4.11"): "OU",
    der.encode_oid("0.9.2342.19200300.100.1.1"): "UID",
    der.encode_oid("0.9.2342.19200300.100.1.25"): "DC",
}


class Attribute(NamedTuple):
    """One attribute of a name: the content of its object identifier, and tag and content of its value."""

    oid: bytes
    tag: int
    content: bytes

    @property
    def text(self) -> str | None:
        """The value as text; None where its type is no type of text."""
        decode = _DECODERS.get(self.tag)
        return None if decode is None else decode(self.content)


RelativeName = tuple[Attribute, ...]
"""A RelativeDistinguishedName: a set of attributes, in the order of the octets."""


class DistinguishedName:
    """The subject or issuer of a certificate.

    Args:
        encoded: the name as it is encoded in the certificate.
        field: the name of the field, for errors.

    Attributes:
        der: *encoded*.
        rdns: the parts of the name.
        has_usual_text: each value is of a type of text that OpenSSL reads in the same way.

    Raises: NotDER.
    """

    def __init__(self, encoded: bytes, field: str = "name") -> None:
        self.der = encoded
        self.rdns = _read_rdns(encoded, field)
        self.has_usual_text = all(_is_usual(attribute) for rdn in self.rdns for attribute in rdn)

    @once
    def canonical(self) -> bytes:
        """The octets that two names share exactly if they are the same name.

        As in OpenSSL, which simplifies RFC 5280, 7.1: ASCII case, spaces at the ends and runs of spaces inside a value
        do not count, nor does its string type; other characters count as they are. The order of the RDNs counts;
        attributes inside one RDN are a set (X.501, 9.3). Each part is preceded by its length, so that no value can
        imitate a border.
        """
        return b"".join(_framed(b"".join(sorted(map(_canonical_attribute, rdn)))) for rdn in self.rdns)

    @once
    def digest(self) -> str:
        """SHA-256 of the canonical form in 64 hexadecimal digits: a key of fixed length."""
        return hashlib.sha256(self.canonical).hexdigest()

    @once
    def text(self) -> str:
        """The name for people: RFC 4514 text of at most TEXT_MAX characters, unprintable characters as "?"."""
        parts, size = [], 0
        for rdn in reversed(self.rdns):
            parts.append("+".join(map(_format_attribute, rdn)))
            size += len(parts[-1]) + 1
            if size > TEXT_MAX + 1:  # more is cut off
                break
        text = ",".join(parts)
        if len(text) > TEXT_MAX:
            text = text[: TEXT_MAX - len(_ELLIPSIS)] + _ELLIPSIS
        return printable(text, TEXT_MAX) or "(empty name)"

    @property
    def common_names(self) -> list[str]:
        """Every CN that is text, in the order of the name."""
        values = [attribute.text for rdn in self.rdns for attribute in rdn if attribute.oid == _COMMON_NAME]
        return [value for value in values if value is not None]

    @property
    def compared_alone_count(self) -> int:
        """How many attributes OpenSSL holds against name constraints by themselves: common names, e-mail addresses."""
        return sum(attribute.oid in (_COMMON_NAME, _EMAIL_ADDRESS) for rdn in self.rdns for attribute in rdn)


class KeptName(msgspec.Struct, frozen=True):
    """A `DistinguishedName` without its parts, which take much memory."""

    der: bytes
    canonical: bytes
    digest: str
    text: str
    has_usual_text: bool


_kept: Final[dict[bytes, KeptName]] = {}


def read_issuer(encoded: bytes) -> DistinguishedName | KeptName:
    """Return the issuer's name whose DER is *encoded*. Raises: NotDER.

    A fleet has few issuers: their names are kept, so that no decision makes a canonical form again."""
    kept = _kept.get(encoded)
    if kept is not None:
        return kept
    name = DistinguishedName(encoded, "issuer")
    if len(encoded) > NAME_KEPT_BYTES_MAX:
        return name
    kept = KeptName(encoded, name.canonical, name.digest, name.text, name.has_usual_text)
    if len(_kept) >= NAMES_KEPT_MAX:
        _kept.clear()
    _kept[encoded] = kept
    return kept


# ------------------------------------------------------------------------------------------------------------ reading


def _read_rdns(encoded: bytes, field: str) -> tuple[RelativeName, ...]:
    """Return the parts of a Name. The order of the attributes inside a SET does not count (X.501, 9.3).

    Raises: NotDER."""
    rdns: list[RelativeName] = []
    count = 0
    at, end = der.expect_whole(encoded, der.SEQUENCE, field)
    while at < end:
        start, at = der.expect(encoded, at, end, der.SET, field)
        if start == at:
            raise der.NotDER("has a part without attributes", field)
        rdn: list[Attribute] = []
        while start < at:
            count += 1
            if count > ATTRIBUTES_MAX:
                raise der.NotDER(f"has more than {ATTRIBUTES_MAX:,} attributes", field)
            inside, start = der.expect(encoded, start, at, der.SEQUENCE, field)
            rdn.append(_read_attribute(encoded, inside, start, field))
        rdns.append(tuple(rdn))
    return tuple(rdns)


def _read_attribute(encoded: bytes, at: int, end: int, field: str) -> Attribute:
    start, stop = der.expect(encoded, at, end, der.OID, field)
    oid = encoded[start:stop]
    if oid not in _SHORT_NAMES:
        der.read_oid(oid, field)
    tag, start, stop = der.element(encoded, stop, end, field)
    if stop != end:
        raise der.NotDER("has an attribute that is not one type and one value", field)
    attribute = Attribute(oid, tag, encoded[start:stop])
    if tag in _FALLIBLE:
        try:
            _ = attribute.text
        except UnicodeDecodeError as error:
            raise der.NotDER(f"has text that is not {_FALLIBLE[tag]}", field) from error
    return attribute


def _decode_octets(content: bytes) -> str:
    """Return text of a type with one octet for a character: UTF-8 where the octets are UTF-8, else Latin-1.

    OpenSSL reads Latin-1. UTF-8 is what ids of stored CAs are made of. Where both readings are possible, the name is
    not usual, and OpenSSL judges the certificate."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


_DECODERS: Final[dict[int, Callable[[bytes], str]]] = {
    der.UTF8_STRING: lambda content: content.decode(),
    der.OCTET_STRING: _decode_octets,
    der.NUMERIC_STRING: _decode_octets,
    der.PRINTABLE_STRING: _decode_octets,
    der.T61_STRING: _decode_octets,
    der.IA5_STRING: _decode_octets,
    der.VISIBLE_STRING: _decode_octets,
    der.UNIVERSAL_STRING: lambda content: content.decode("utf-32-be"),
    der.BMP_STRING: lambda content: content.decode("utf-16-be"),
}
_FALLIBLE: Final = {der.UTF8_STRING: "UTF-8", der.UNIVERSAL_STRING: "UCS-4", der.BMP_STRING: "UCS-2"}


def _is_usual(attribute: Attribute) -> bool:
    """Whether OpenSSL compares the value as `canonical` does.

    OpenSSL takes no VisibleString in a name, and compares a NumericString as it is encoded. It reads each pair of
    octets in a BMPString as one character, also where two pairs are one character of UTF-16."""
    content = attribute.content
    match attribute.tag:
        case der.UTF8_STRING:
            return True
        case der.PRINTABLE_STRING | der.T61_STRING | der.IA5_STRING:
            return content.isascii() or not _is_utf8(content)
        case der.BMP_STRING:
            return not any(0xD8 <= octet <= 0xDF for octet in content[::2])
    return False


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


# ------------------------------------------------------------------------------------------------ comparison and text


def _canonical_attribute(attribute: Attribute) -> bytes:
    oid = _framed(der.read_oid(attribute.oid, "name").encode())
    text = attribute.text
    if text is not None:
        # bytes.lower and bytes.split know ASCII only, like OpenSSL
        return oid + _ANY_TEXT + _framed(b" ".join(text.encode().lower().split()))
    if attribute.tag == der.BIT_STRING:
        return oid + _BITS + _framed(attribute.content)
    return oid + _OTHER + bytes((attribute.tag,)) + _framed(attribute.content)


def _framed(content: bytes) -> bytes:
    return len(content).to_bytes(4) + content


def _format_attribute(attribute: Attribute) -> str:
    """Return `CN=pump 7`, escaped as RFC 4514, 2.4 says; a value that is not text in hexadecimal."""
    name = _SHORT_NAMES.get(attribute.oid) or der.read_oid(attribute.oid, "name")
    text = attribute.text
    if text is None:
        return f"{name}=#{attribute.content.hex()}"
    escaped = "".join(_ESCAPES.get(char, char) for char in text)
    if text[:1] in ("#", " "):
        escaped = "\\" + escaped
    if text[-1:] == " " and len(text) > 1:
        escaped = escaped[:-1] + "\\ "
    return f"{name}={escaped}"


_ESCAPES: Final = {"\0": "\\00"} | {char: "\\" + char for char in '"+,;<>\\'}
