"""DER (X.690), as much of it as certificates, keys and their containers need: one reader and one writer.

The reader is strict where a lax one could see something else in the same octets: tags of one octet, definite lengths in
their shortest form (X.690, 8.1.3 and 10.1), every element inside its data. Nothing here recurses.
"""

from typing import Final

import msgspec

INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OID: Final = 0x06
UTF8_STRING: Final = 0x0C
PRINTABLE_STRING: Final = 0x13
IA5_STRING: Final = 0x16
SEQUENCE: Final = 0x30
SET: Final = 0x31
CONTEXT_0: Final = 0xA0  # [0], constructed

_CONSTRUCTED: Final = 0x20
_HOLDS_DER: Final = (
    bytes([SEQUENCE]),
    bytes([SET]),
    bytes([CONTEXT_0]),
)  # how the content of such an OCTET STRING begins

ELEMENTS_MAX: Final = 1000  # on one level: two octets make an element, so 256 KiB of noise would take half a second

_LONG: Final = 0x80  # a length of 128 or more has its own octets, whose number is added to this


class NotDER(ValueError):
    """Octets that are not DER."""

    def __init__(self, issue: str) -> None:
        super().__init__(f"not DER: {issue}")


class Element(msgspec.Struct, frozen=True):
    """One DER element: its *tag* octet, its *content*, and the *whole* of it with tag and length."""

    tag: int
    content: bytes
    whole: bytes

    @property
    def children(self) -> "list[Element]":
        """The elements in a constructed element. Raises: NotDER."""
        return elements(self.content)


def header(data: bytes, at: int) -> tuple[int, int, int]:
    """Return the tag of the element at *at*, and the indices at which its content begins and ends.

    Raises: NotDER."""
    try:
        tag, length = data[at], data[at + 1]
    except IndexError:
        raise NotDER("cut off") from None
    if tag & 0x1F == 0x1F:
        raise NotDER("tag")
    start = at + 2
    if length >= _LONG:
        octets = data[start : start + length - _LONG]
        start += length - _LONG
        length = int.from_bytes(octets)
        if not 1 <= len(octets) <= 4 or length < _LONG or not octets[0]:
            raise NotDER("length")
    end = start + length
    if end > len(data):
        raise NotDER("cut off")
    return tag, start, end


def elements(data: bytes) -> list[Element]:
    """Split *data* into the elements it consists of, one level deep, at most ELEMENTS_MAX.

    Raises: NotDER."""
    parsed: list[Element] = []
    at = 0
    while at < len(data):
        if len(parsed) == ELEMENTS_MAX:
            raise NotDER("too many elements")
        tag, start, end = header(data, at)
        parsed.append(Element(tag, data[start:end], data[at:end]))
        at = end
    return parsed


def count_elements(data: bytes, at_most: int) -> int:
    """Return how many elements there are in *data* on all levels, also in the OCTET STRINGs that hold DER.

    Counting stops beyond *at_most*. What is not DER counts up to the first mistake; the rest of its container is left
    out, as a parser would refuse it."""
    count = at = 0
    ends = [len(data)]
    while ends:
        if at >= ends[-1]:
            at = ends.pop()
            continue
        try:
            tag, start, end = header(data, at)
        except NotDER:
            at = ends[-1]
            continue
        if end > ends[-1]:
            at = ends[-1]
            continue
        count += 1
        if count > at_most:
            return count
        if tag & _CONSTRUCTED or (tag == OCTET_STRING and data[start : start + 1] in _HOLDS_DER):
            ends.append(end)
            at = start
        else:
            at = end
    return count


def encode(tag: int, *contents: bytes) -> bytes:
    """Return one element with *contents*, joined, as its content."""
    content = b"".join(contents)
    size = len(content)
    if size < _LONG:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, _LONG | len(octets))) + octets + content
