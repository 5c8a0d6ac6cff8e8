"""Write DER by hand (X.690), for encodings that no tool produces."""


def der(tag: int, *parts: bytes) -> bytes:
    """Encode one element, with its length in the shortest form."""
    content = b"".join(parts)
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8)
    return (
        bytes([tag]) + (bytes([len(content)]) if len(content) < 128 else bytes([0x80 + len(length)]) + length) + content
    )


def seq(*parts: bytes) -> bytes:
    return der(0x30, *parts)


def oid(text: str) -> bytes:
    """Encode an OBJECT IDENTIFIER from its content octets in hexadecimal."""
    return der(6, bytes.fromhex(text))


def octets(content: bytes) -> bytes:
    return der(4, content)


def number(value: int) -> bytes:
    return der(2, value.to_bytes(value.bit_length() // 8 + 1))


def dotted(text: str) -> bytes:
    """Encode an OBJECT IDENTIFIER from its dotted form."""
    first, second, *rest = map(int, text.split("."))
    content = bytearray()
    for arc in (40 * first + second, *rest):
        octets_ = [arc & 0x7F]
        while arc := arc >> 7:
            octets_.append(arc & 0x7F | 0x80)
        content += bytes(reversed(octets_))
    return der(6, bytes(content))
