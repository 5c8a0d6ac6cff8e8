"""Mutations that keep an input well-formed: DER as a tree, also inside PEM or base64.

libFuzzer's own mutations break a certificate at its first length octet, and never reach the inner parsers. Here all
lengths are written again after every change, so that only the content is wrong.
"""

import base64
import binascii
import random
import re
from collections.abc import Callable
from typing import Final

Mutate = Callable[[bytes, int], bytes]
_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 #]+)-----([^-]*)-----END \1-----")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]{40,}={0,2}")
_DEPTH: Final = 12

Node = tuple[int, "bytes | list[Node]"]  # tag, and content or children
_STRINGS: Final = (0x03, 0x04)  # BIT STRING and OCTET STRING often hold DER


def mutate(data: bytes, most: int, seed: int, plain: Mutate) -> bytes:
    """Return *data* with a mutation, at most *most* bytes long.

    Args:
        plain: libFuzzer's own mutation, which makes a third of the mutations.
    """
    source = random.Random(seed)
    if source.random() < 0.34:
        return plain(data, most)
    mutated = _mutate_der(data, source, plain)
    return mutated if mutated is not None and len(mutated) <= most else plain(data, most)


def _mutate_der(data: bytes, source: random.Random, plain: Mutate) -> bytes | None:
    """Mutate the DER in *data*: the whole, or one PEM block or run of base64. Return None without any DER."""
    if (tree := _parse(data)) is not None:
        return _mutate_tree(tree, source, plain)
    matches = list(_PEM.finditer(data))
    inner = 2
    if not matches or source.random() < 0.1:
        matches, inner = list(_BASE64.finditer(data)), 0
    if not matches:
        return None
    match = source.choice(matches)
    try:
        tree = _parse(base64.b64decode(match[inner].replace(b"\\n", b"").translate(None, b"\r\n \t")))
    except binascii.Error:
        return None
    if tree is None:
        return None
    content = _mutate_tree(tree, source, plain)
    text = base64.encodebytes(content) if inner else base64.b64encode(content)
    if b"\\n" in match[0]:  # PEM inside JSON
        text = text.replace(b"\n", b"\\n")
    return data[: match.start(inner)] + (b"\n" + text if inner else text) + data[match.end(inner) :]


# ---------------------------------------------------------------------------------------------------------- the tree


def _parse(data: bytes, depth: int = 0) -> list[Node] | None:
    """Parse *data* as DER, one or more elements. Return None if *data* is not DER."""
    nodes: list[Node] = []
    at = 0
    while at < len(data):
        if at + 2 > len(data) or data[at] & 0x1F == 0x1F:
            return None
        tag, length, start = data[at], data[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            if not 1 <= size <= 3 or start + size > len(data):
                return None
            length = int.from_bytes(data[start : start + size])
            start += size
        content = data[start : start + length]
        if len(content) != length:
            return None
        nodes.append((tag, _parse_content(tag, content, depth)))
        at = start + length
    return nodes or None


def _parse_content(tag: int, content: bytes, depth: int) -> "bytes | list[Node]":
    if depth >= _DEPTH:
        return content
    if tag & 0x20:
        return _parse(content, depth + 1) or content
    if tag in _STRINGS and len(content) > 4:
        skip = 1 if tag == 0x03 else 0  # a BIT STRING begins with the number of unused bits
        inside = _parse(content[skip:], depth + 1) if content[:skip] in (b"", b"\0") else None
        if inside is not None:
            return [(-1, content[:skip]), *inside] if skip else inside
    return content


def _encode(nodes: list[Node]) -> bytes:
    parts = []
    for tag, content in nodes:
        body = content if isinstance(content, bytes) else _encode(content)
        parts.append(body if tag < 0 else bytes([tag]) + _encode_length(len(body)) + body)
    return b"".join(parts)


def _encode_length(size: int) -> bytes:
    if size < 0x80:
        return bytes([size])
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([0x80 | len(octets)]) + octets


# ------------------------------------------------------------------------------------------------------- the changes


def _encode_oid(*numbers: int) -> bytes:
    out = bytearray([numbers[0] * 40 + numbers[1]])
    for number in numbers[2:]:
        octets = [number & 0x7F]
        while number := number >> 7:
            octets.append(number & 0x7F | 0x80)
        out += bytes(reversed(octets))
    return bytes(out)


_TEXTS: Final = (
    b"d:thermo:42", b"g:thermo:42", b"d:thermo:", b"d:thermo:42\0", b"d:thermo:42\n", b"D:thermo:42", b"..", b"*",
    b"*.messaging.example.com", b"mtxpd0.messaging.example.com", b"other1.messaging.example.com", b"\xff\xfe", b"",
    "d\u200b:thermo:42".encode(), "d:thermo:42".encode("utf-16-be"), b"A" * 300,
)  # fmt: skip
_OIDS: Final = (
    *(_encode_oid(2, 5, 29, last) for last in (14, 15, 16, 17, 18, 19, 24, 30, 31, 32, 33, 35, 36, 37, 46, 54)),
    *(_encode_oid(2, 5, 4, last) for last in (3, 5, 6, 7, 8, 10, 11, 42, 45)),
    *(_encode_oid(1, 2, 840, 113549, 1, 1, last) for last in (1, 2, 4, 5, 8, 10, 11, 12, 13, 14)),
    *(_encode_oid(1, 2, 840, 10045, *last) for last in ((2, 1), (3, 1, 7), (4, 1), (4, 3, 2), (1, 1))),
    *(_encode_oid(1, 3, 101, last) for last in (110, 112, 113)),
    *(_encode_oid(1, 3, 132, 0, last) for last in (10, 34, 35)),
    *(_encode_oid(1, 3, 6, 1, 5, 5, 7, 3, last) for last in (1, 2, 9)),
    *(_encode_oid(1, 2, 840, 113549, 1, 5, last) for last in (12, 13, 14)),
    *(_encode_oid(1, 2, 840, 113549, 1, 12, 1, last) for last in (1, 3, 6)),
    *(_encode_oid(1, 2, 840, 113549, 1, 12, 10, 1, last) for last in (1, 2, 3, 6)),
    *(_encode_oid(1, 2, 840, 113549, 1, 7, last) for last in (1, 2, 3, 6)),
    _encode_oid(1, 3, 6, 1, 4, 1, 11591, 4, 11), _encode_oid(2, 5, 29, 37, 0), _encode_oid(1, 2, 840, 113549, 1, 9, 1),
)  # fmt: skip
_NUMBERS: Final = (b"\0", b"\1", b"\2", b"\3", b"\xff", b"\x7f\xff\xff\xff", b"\0" + b"\xff" * 8, b"\0" + b"\xff" * 33)
_TAGS: Final = (0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0C, 0x13, 0x16, 0x17, 0x18, 0x1C, 0x1E, 0x30, 0x31, *range(0x80, 0x89), *range(0xA0, 0xA9))  # noqa: E501  # fmt: skip


def _mutate_tree(tree: list[Node], source: random.Random, plain: Mutate) -> bytes:
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        places = _list_places(tree)
        if not places:
            break
        siblings, at = source.choice(places)
        _change(siblings, at, source, plain, places)
    return _encode(tree)


def _list_places(nodes: list[Node]) -> "list[tuple[list[Node], int]]":
    places = []
    for at, (tag, content) in enumerate(nodes):
        if tag >= 0:
            places.append((nodes, at))
        if not isinstance(content, bytes):
            places += _list_places(content)
    return places


def _change(
    siblings: list[Node], at: int, source: random.Random, plain: Mutate, places: "list[tuple[list[Node], int]]"
) -> None:
    tag, content = siblings[at]
    other_siblings, other_at = source.choice(places)
    other = _copy(other_siblings[other_at])
    match source.randrange(9):
        case 0:
            del siblings[at]
        case 1:
            siblings.insert(at, _copy(siblings[at]))
        case 2:
            siblings[at] = other
        case 3:
            siblings.insert(at, other)
        case 4:
            siblings[at] = source.choice(_TAGS), content
        case 5:
            siblings[at] = tag, _choose_value(tag, source)
        case 6 if not isinstance(content, bytes) and len(content) < 50:
            siblings[at] = tag, content * source.choice((2, 3, 20))
        case _:
            body = content if isinstance(content, bytes) else _encode(content)
            siblings[at] = tag, plain(body, len(body) + source.choice((0, 1, 64)))


def _choose_value(tag: int, source: random.Random) -> bytes:
    match tag:
        case 0x02 | 0x01 | 0x0A:
            return source.choice(_NUMBERS)
        case 0x06:
            return source.choice(_OIDS)
        case 0x17 | 0x18:
            return source.choice((b"700101000000Z", b"491231235959Z", b"20500101000000Z", b"99991231235959Z", b"x"))
        case _:
            return source.choice((*_TEXTS, *_OIDS, *_NUMBERS))


def _copy(node: Node) -> Node:
    tag, content = node
    return tag, content if isinstance(content, bytes) else [_copy(child) for child in content]
