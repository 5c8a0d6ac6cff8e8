"""The forms in which files with certificates and keys arrive, undone before anything is parsed.

| form | written by |
|---|---|
| UTF-16, with a byte order mark or without one; UTF-8 with one | PowerShell's `>`, Notepad |
| `\\n` as two characters in place of a line end | a value copied out of JSON, an environment variable |
| base64 of a whole file, without a BEGIN line | a Kubernetes Secret, a key store's web page |
| PKCS#12 between BEGIN and END lines | Apple's and Java's tools |

The result is PEM text in UTF-8, or binary content. What is in none of these forms is returned unchanged.
"""

import base64
import binascii
import codecs
import re
from typing import Final

from shared.x509.der import SEQUENCE
from shared.x509.pem import WHITESPACE, blocks, is_pem

_DEPTH: Final = 3  # base64 of base64 of UTF-16 occurs, and nothing deeper
_BASE64: Final = rb"[A-Za-z0-9+/_-]{40,}={0,2}"
_QUOTES: Final = b"\"'"
_PKCS12_LABELS: Final = ("PKCS12", "PKCS #12", "PFX")


def unwrap(data: bytes) -> bytes:
    """Return the content of *data*, PEM text in UTF-8 or binary."""
    for _ in range(_DEPTH):
        text = _unescape(_decode_text(data))
        if is_pem(text):
            return _pkcs12_in(text) or text
        content = _decode_base64(text)
        if content is None:
            return data
        data = content
    return data


_KEY_STORES: Final = {
    b"\xfe\xed\xfe\xed": "JKS",
    b"\xce\xce\xce\xce": "JCEKS",
    b"\0\0\0\x01\0\0\0\x14": "BKS",  # the version, and the length of a salt of 20 octets
    b"\0\0\0\x02\0\0\0\x14": "BKS",
}


def java_key_store(data: bytes) -> str | None:
    """Return the format of a key store of Java (JKS, JCEKS) or of Bouncy Castle (BKS); None for other content."""
    if len(data) <= 32:  # the head, and a digest at the end
        return None
    return next((kind for magic, kind in _KEY_STORES.items() if data.startswith(magic)), None)


def is_text(data: bytes) -> bool:
    """Whether *data* is text: no character of it is a control character other than white space."""
    return not re.search(rb"[\x00-\x08\x0e-\x1f]", _decode_text(data))


def _decode_text(data: bytes) -> bytes:
    """Return text in UTF-8 without byte order mark. Binary content is returned unchanged."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace").encode("utf-8", "replace")
    # Without a mark, every second octet of ASCII text in UTF-16 is zero.
    for encoding, zeros in (("utf-16-le", data[1::2]), ("utf-16-be", data[::2])):
        if len(zeros) > 20 and zeros.count(0) > 0.9 * len(zeros):
            return data.decode(encoding, "replace").encode("utf-8", "replace")
    return data.removeprefix(codecs.BOM_UTF8)


_ESCAPES: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def _unescape(text: bytes) -> bytes:
    """Return PEM with the escapes of JSON (RFC 8259, section 7) and of shells undone: PEM has no backslash."""
    if b"\\" not in text or b"-----BEGIN" not in text:
        return text
    text = re.sub(rb"\\+u00([0-9A-Fa-f]{2})", lambda match: bytes.fromhex(match[1].decode()), text)
    return re.sub(rb"\\+([nrt/])", lambda match: _ESCAPES.get(match[1], match[1]), text)


def _decode_base64(text: bytes) -> bytes | None:
    """Return what *text* encodes, if *text* is base64 of DER or of text (RFC 4648, sections 4 and 5), else None."""
    packed = text.translate(None, WHITESPACE + _QUOTES)
    if not re.fullmatch(_BASE64, packed):
        return None
    packed = packed.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
    try:
        content = base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
    except binascii.Error:
        return None
    return content if content[:1] == bytes([SEQUENCE]) or java_key_store(content) or is_text(content) else None


def _pkcs12_in(text: bytes) -> bytes | None:
    """Return the PKCS#12 file in a PEM block of *text*, or None."""
    return next((block.der for block in blocks(text) if block.label in _PKCS12_LABELS and block.der), None)
