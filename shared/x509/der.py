"""DER (X.690), as much of it as certificates, keys and their containers need: one reader and one writer.

The reader is strict where a lax one could see something else in the same octets: tags of one octet, definite lengths in
their shortest form (X.690, 8.1.3 and 10.1), every element inside its data. Nothing here recurses.
"""

from functools import lru_cache
from typing import Final

import msgspec

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OID: Final = 0x06
NULL: Final = 0x05
UTF8_STRING: Final = 0x0C
NUMERIC_STRING: Final = 0x12
PRINTABLE_STRING: Final = 0x13
T61_STRING: Final = 0x14
IA5_STRING: Final = 0x16
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18
VISIBLE_STRING: Final = 0x1A
UNIVERSAL_STRING: Final = 0x1C
BMP_STRING: Final = 0x1E
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

OID_MAX: Final = 64  # octets of an object identifier
_LONG: Final = 0x80  # a length of 128 or more has its own octets, whose number is added to this


class NotDER(ValueError):
    """Octets that are not DER, or not what a field must hold.

    Args:
        issue: what is wrong, for people, as the rest of a sentence: "is cut off".
        field: the name of the field in its standard (RFC 5280: "subjectAltName").
    """

    def __init__(self, issue: str, field: str = "the data") -> None:
        super().__init__(f"not DER: {field} {issue}")
        self.field = field
        self.issue = issue


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
    return element(data, at, len(data), "the data")


def element(data: bytes, at: int, end: int, field: str) -> tuple[int, int, int]:
    """Return the tag of the element at *at*, and the indices of its content. The element ends at *end* at the latest.

    Raises: NotDER, which names *field*."""
    start = at + 2
    if start > end:
        raise NotDER("is missing or cut off", field)
    tag, length = data[at], data[at + 1]
    if tag & 0x1F == 0x1F:
        raise NotDER("has a tag of several octets", field)
    if length >= _LONG:
        octets = data[start : start + length - _LONG]
        start += length - _LONG
        length = int.from_bytes(octets)
        if not 1 <= len(octets) <= 4 or length < _LONG or not octets[0]:
            raise NotDER("has a length that is not in its shortest form", field)
    stop = start + length
    if stop > end:
        raise NotDER("is cut off", field)
    return tag, start, stop


def expect(data: bytes, at: int, end: int, tag: int, field: str) -> tuple[int, int]:
    """Return the indices of the content of the element at *at*, whose tag must be *tag*. Arguments: see `element`."""
    start = at + 2
    if start <= end and data[at] == tag and data[at + 1] < _LONG:  # most elements are short, and this is called most
        stop = start + data[at + 1]
        if stop <= end:
            return start, stop
    found, start, stop = element(data, at, end, field)
    if found != tag:
        raise NotDER(f"has the type 0x{found:02X} in place of 0x{tag:02X}", field)
    return start, stop


def expect_whole(data: bytes, tag: int, field: str) -> tuple[int, int]:
    """Return the indices of the content of the only element in *data*. Raises: NotDER, which names *field*."""
    start, stop = expect(data, 0, len(data), tag, field)
    if stop != len(data):
        raise NotDER("has octets after its end", field)
    return start, stop


def children(data: bytes, at: int, end: int, at_most: int, field: str) -> list[tuple[int, int, int]]:
    """Return tag and indices of the content of each element between *at* and *end*, at most *at_most* elements.

    Raises: NotDER, which names *field*."""
    found: list[tuple[int, int, int]] = []
    while at < end:
        if len(found) == at_most:
            raise NotDER(f"has more than {at_most:,} parts", field)
        child = element(data, at, end, field)
        found.append(child)
        at = child[2]
    return found


def read_integer(data: bytes, start: int, stop: int, field: str) -> int:
    """Return the INTEGER whose content is between *start* and *stop* (X.690, 8.3). Raises: NotDER."""
    if start == stop:
        raise NotDER("is an integer without octets", field)
    if stop - start > 1 and (data[start], data[start + 1] >> 7) in ((0x00, 0), (0xFF, 1)):
        raise NotDER("is an integer with a needless octet in front", field)
    return int.from_bytes(data[start:stop], signed=True)


def read_boolean(data: bytes, start: int, stop: int, field: str) -> bool:
    """Return the BOOLEAN whose content is between *start* and *stop* (X.690, 8.2 and 11.1). Raises: NotDER."""
    if stop - start != 1 or data[start] not in (0x00, 0xFF):
        raise NotDER("is not a BOOLEAN of 0x00 or 0xFF", field)
    return data[start] == 0xFF


@lru_cache(maxsize=1024)  # certificates have few different ones
def read_oid(content: bytes, field: str) -> str:
    """Return an OBJECT IDENTIFIER, given its *content*, in dotted form (X.690, 8.19). Raises: NotDER."""
    if not content or content[-1] & 0x80 or len(content) > OID_MAX:
        raise NotDER("has an object identifier that cannot be read", field)
    arcs: list[int] = []
    arc, is_first_octet = 0, True
    for octet in content:
        if is_first_octet and octet == 0x80:
            raise NotDER("has an object identifier that cannot be read", field)
        arc = arc << 7 | octet & 0x7F
        is_first_octet = not octet & 0x80
        if is_first_octet:
            arcs.append(arc)
            arc = 0
    top = min(arcs[0] // 40, 2)
    return ".".join(map(str, (top, arcs[0] - 40 * top, *arcs[1:])))


def encode_oid(dotted: str) -> bytes:
    """Return the content of the OBJECT IDENTIFIER *dotted* (X.690, 8.19)."""
    top, second, *rest = map(int, dotted.split("."))
    content = bytearray()
    for arc in (40 * top + second, *rest):
        septets = [arc & 0x7F]
        while arc := arc >> 7:
            septets.append(arc & 0x7F | 0x80)
        content += bytes(reversed(septets))
    return bytes(content)


def elements(data: bytes) -> list[Element]:
    """Split *data* into the elements it consists of, one level deep, at most ELEMENTS_MAX.

    Raises: NotDER."""
    parsed: list[Element] = []
    at = 0
    while at < len(data):
        if len(parsed) == ELEMENTS_MAX:
            raise NotDER("has too many elements")
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
