"""Distinguished names: comparison, and text for people (RFC 5280, sections 4.1.2.4 and 7.1).

One certificate may hold a CA's name as UTF8String and the next as PrintableString, in another case or spacing. Issuers
are therefore found by the canonical form below, which is the form that OpenSSL compares.
"""

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import Final

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID

from shared.text import printable
from shared.x509 import der

TEXT_MAX: Final = 256  # characters of a name as text
NAMES_KEPT_MAX: Final = 1024  # issuers' names that a process keeps ...
NAME_KEPT_BYTES_MAX: Final = 1024  # ... each at most this long as DER

_ELLIPSIS: Final = "…"
_UNREADABLE: Final = "(unreadable name)"
_TEXT: Final = b"T"
_BITS: Final = b"B"  # x500UniqueIdentifier, the only attribute that is not text (RFC 5280, appendix A.1)
_USUAL_TAGS: Final = {der.UTF8_STRING, der.PRINTABLE_STRING, der.IA5_STRING}


class DistinguishedName:
    """The subject or issuer of a certificate.

    Attributes:
        der: the name as it is encoded in the certificate.
        parsed: the name as cryptography reads it.
        has_usual_text: each value is a UTF8String, PrintableString or IA5String. cryptography reads other string types
            in another way than OpenSSL does.
    """

    def __init__(self, encoded: bytes, parsed: x509.Name) -> None:
        self.der = encoded
        self.parsed = parsed
        self.has_usual_text = _value_tags(encoded) <= _USUAL_TAGS

    @cached_property
    def canonical(self) -> bytes:
        """The octets that two names share exactly if they are the same name (`canonical`)."""
        return canonical(self.parsed)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical form in 64 hexadecimal digits: a key of fixed length."""
        return hashlib.sha256(self.canonical).hexdigest()

    @property
    def text(self) -> str:
        """The name for people (`format_name`)."""
        return format_name(self.parsed)

    @property
    def common_names(self) -> list[str]:
        """Every CN, in the order of the name."""
        return common_names(self.parsed)


class KeptName(msgspec.Struct, frozen=True):
    """A `DistinguishedName` without the parsed name, which takes up to 48 KiB of memory; the rest takes 4 KiB."""

    der: bytes
    canonical: bytes
    digest: str
    text: str
    has_usual_text: bool


_kept: Final[dict[bytes, KeptName]] = {}


def read_issuer(encoded: bytes, read: Callable[[], x509.Name]) -> DistinguishedName | KeptName:
    """Return the name whose DER is *encoded*; *read* parses it where this process does not keep it.

    A fleet has few issuers: their names are kept, so that no decision makes a canonical form again."""
    kept = _kept.get(encoded)
    if kept is not None:
        return kept
    name = DistinguishedName(encoded, read())
    if len(encoded) > NAME_KEPT_BYTES_MAX:
        return name
    kept = KeptName(encoded, name.canonical, name.digest, name.text, name.has_usual_text)
    if len(_kept) >= NAMES_KEPT_MAX:
        _kept.clear()
    _kept[encoded] = kept
    return kept


def canonical(name: x509.Name) -> bytes:
    """Return the octets that two names share exactly if they are the same name.

    As in OpenSSL, which simplifies RFC 5280, 7.1: ASCII case, spaces at the ends and runs of spaces inside a value do
    not count, nor does its string type; other characters count as they are. The order of the RDNs counts; attributes
    inside one RDN are a set (X.501, 9.3). Each part is preceded by its length, so that no value can imitate a border.
    """
    return b"".join(_framed(b"".join(sorted(map(_canonical_attribute, rdn)))) for rdn in name.rdns)


def format_name(name: x509.Name) -> str:
    """Return *name* for people: RFC 4514 text of at most TEXT_MAX characters, unprintable characters as "?".

    Never raises, so that a refusal can name a hostile certificate."""
    try:
        text = name.rfc4514_string()
    except Exception:  # noqa: BLE001 -- a sentence about a bad certificate must not fail on that certificate's name
        return _UNREADABLE
    if len(text) > TEXT_MAX:
        text = text[: TEXT_MAX - len(_ELLIPSIS)] + _ELLIPSIS
    return printable(text, TEXT_MAX) or "(empty name)"


def format_subject(cert: x509.Certificate) -> str:
    """Return the subject of *cert* as `format_name` does, also where cryptography cannot read it. Never raises."""
    try:
        return format_name(cert.subject)
    except Exception:  # noqa: BLE001 -- cryptography reads names late; this one may be why *cert* is refused
        return _UNREADABLE


def common_names(name: x509.Name) -> list[str]:
    """Return every CN of *name*."""
    return [str(attribute.value) for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)]


def _value_tags(name: bytes) -> set[int]:
    """Return the tags of all values in *name*, the DER of a Name."""
    tags: set[int] = set()
    _, at, end = der.header(name, 0)
    while at < end:
        _, at, set_end = der.header(name, at)  # RelativeDistinguishedName
        while at < set_end:
            _, start, at = der.header(name, at)  # AttributeTypeAndValue
            _, _, value = der.header(name, start)
            tags.add(name[value])
    return tags


def _canonical_attribute(attribute: x509.NameAttribute[str | bytes]) -> bytes:
    value = attribute.value
    if isinstance(value, bytes):
        kind, content = _BITS, value
    else:
        # bytes.lower and bytes.split know ASCII only, like OpenSSL; a lone surrogate is kept, not an error
        kind, content = _TEXT, b" ".join(value.encode("utf-8", "surrogatepass").lower().split())
    return _framed(attribute.oid.dotted_string.encode()) + kind + _framed(content)


def _framed(content: bytes) -> bytes:
    return len(content).to_bytes(4) + content
