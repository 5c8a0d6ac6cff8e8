"""BER (X.690, section 8) -> DER, for PKCS#12 files.

RFC 7292, section 4, lets a writer use BER. NSS, Apple's tools and BouncyCastle write lengths of indefinite form and
octet strings in pieces.
"""

from typing import Final

from shared.x509.der import CONTEXT_0, OCTET_STRING, OID, SEQUENCE, NotDER, elements, encode

_CONSTRUCTED: Final = 0x20
_MANY_OCTETS: Final = 0x1F  # of a tag with a number of 31 or more, which PKCS#12 has not
_INDEFINITE: Final = 0x80
_END: Final = b"\0\0"  # end-of-contents octets (8.1.5)
_IN_PIECES: Final = OCTET_STRING | _CONSTRUCTED
_IMPLICIT_0: Final = 0x80  # [0], primitive

_DEPTH_MAX: Final = 40
_ELEMENTS_MAX: Final = 20_000

_Node = tuple[int, bytes]
"""The tag of an element, and its content in DER."""


def to_der(data: bytes) -> bytes:
    """Return the one BER element in *data* in DER, as far as lengths and octet strings are concerned.

    An element in DER is returned unchanged. Octets behind the element are left out.

    Raises: NotDER."""
    (tag, content), _ = _Reader(data).read(0, len(data), 0)
    return encode(tag, content)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = _ELEMENTS_MAX

    def read(self, at: int, end: int, depth: int) -> tuple[_Node, int]:
        """Return the element at *at*, and the index behind the element. Raises: NotDER."""
        self._left -= 1
        if self._left < 0 or depth > _DEPTH_MAX:
            raise NotDER("has too many elements")
        if at + 2 > end:
            raise NotDER("is cut off")
        tag, length = self._data[at], self._data[at + 1]
        at += 2
        if tag & _MANY_OCTETS == _MANY_OCTETS:
            raise NotDER("has a tag of several octets")
        if length == _INDEFINITE:
            if not tag & _CONSTRUCTED:
                raise NotDER("has a primitive element of indefinite length")
            return self._read_until_end(tag, at, end, depth)
        if length > _INDEFINITE:
            octets = length - _INDEFINITE
            if octets > 4 or at + octets > end:
                raise NotDER("has a length of too many octets")
            length = int.from_bytes(self._data[at : at + octets])
            at += octets
        if at + length > end:
            raise NotDER("is cut off")
        if not tag & _CONSTRUCTED:
            return (tag, self._data[at : at + length]), at + length
        children, stop = [], at + length
        while at < stop:
            child, at = self.read(at, stop, depth + 1)
            children.append(child)
        return _join(tag, children), stop

    def _read_until_end(self, tag: int, at: int, end: int, depth: int) -> tuple[_Node, int]:
        children = []
        while self._data[at : at + 2] != _END:
            child, at = self.read(at, end, depth + 1)
            children.append(child)
        return _join(tag, children), at + 2


def _join(tag: int, children: list[_Node]) -> _Node:
    """Return a constructed element in DER. An octet string in pieces becomes one (X.690, 8.7.3 and 10.2)."""
    tags = [child for child, _ in children]
    if tag == _IN_PIECES and set(tags) <= {OCTET_STRING}:
        return OCTET_STRING, b"".join(content for _, content in children)
    # EncryptedContentInfo ::= SEQUENCE { type, algorithm, [0] IMPLICIT OCTET STRING OPTIONAL } (RFC 5652, 6.1)
    if (tag, tags) == (SEQUENCE, [OID, SEQUENCE, CONTEXT_0]):
        pieces = elements(children[2][1])
        if all(piece.tag == OCTET_STRING for piece in pieces):
            children[2] = _IMPLICIT_0, b"".join(piece.content for piece in pieces)
    return tag, b"".join(encode(*child) for child in children)
