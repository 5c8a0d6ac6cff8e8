"""Distinguished names: when two are the same, and how one is shown (RFC 5280, sections 4.1.2.4 and 7.1).

A CA's name may be written as UTF8String in one certificate and as PrintableString, in other case or spacing, in the
next. Issuers are therefore found by the canonical form here, which is the one OpenSSL compares.
"""

import hashlib
from typing import Final

from cryptography import x509

SHOWN_MAX: Final = 256  # characters
_ELLIPSIS: Final = "…"
_UNREADABLE: Final = "(unreadable name)"

_TEXT: Final = b"T"
_BITS: Final = b"B"  # x500UniqueIdentifier, the one attribute that is no text (RFC 5280, appendix A.1)


def canonical(name: x509.Name) -> bytes:
    """The bytes that two names share exactly if they are the same name.

    As in OpenSSL, which simplifies RFC 5280, 7.1: ASCII case, spaces at the ends and runs of spaces inside a value do
    not count, nor does its string type; other characters count as they are. The order of the RDNs counts; attributes
    inside one RDN are a set (X.501, 9.3). Each part is preceded by its length, so that no value can imitate a border.
    """
    return b"".join(_framed(b"".join(sorted(map(_attribute, rdn)))) for rdn in name.rdns)


def digest(name: x509.Name) -> str:
    """SHA-256 of the canonical form in 64 hexadecimal digits: a name as a key of fixed length."""
    return hashlib.sha256(canonical(name)).hexdigest()


def shown(name: x509.Name) -> str:
    """*name* for people, as RFC 4514 text of at most 256 characters; what is not printable becomes "?".

    Never raises, so it can be used where a hostile certificate is being refused."""
    try:
        text = name.rfc4514_string()
    except Exception:  # noqa: BLE001 -- a sentence about a bad certificate must not fail on that certificate's name
        return _UNREADABLE
    if len(text) > SHOWN_MAX:
        text = text[: SHOWN_MAX - len(_ELLIPSIS)] + _ELLIPSIS
    return "".join(one if one.isprintable() else "?" for one in text) or "(empty name)"


def shown_subject(cert: x509.Certificate) -> str:
    """The subject of *cert* for people, as `shown`.

    Never raises: cryptography reads a name when it is asked for, and one that cannot be read may be why *cert* is
    refused."""
    try:
        return shown(cert.subject)
    except Exception:  # noqa: BLE001 -- as above
        return _UNREADABLE


def _attribute(attribute: x509.NameAttribute[str | bytes]) -> bytes:
    value = attribute.value
    if isinstance(value, bytes):
        kind, content = _BITS, value
    else:
        # bytes.lower and bytes.split know ASCII only, like OpenSSL; a lone surrogate is kept, not an error
        kind, content = _TEXT, b" ".join(value.encode("utf-8", "surrogatepass").lower().split())
    return _framed(attribute.oid.dotted_string.encode()) + kind + _framed(content)


def _framed(content: bytes) -> bytes:
    return len(content).to_bytes(4) + content
