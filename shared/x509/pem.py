"""PEM (RFC 7468): blocks of base64 between two boundaries."""

import base64
import binascii
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import msgspec

WHITESPACE: Final = b" \t\r\n\v\f\0"

_BOUNDARY: Final = rb"-----(BEGIN|END) ([A-Z0-9][A-Z0-9 #.]{0,60})-----"
_HEADER: Final = rb"[ \t\r\n]*([A-Za-z-]{1,40}):[ \t]*([^\r\n]{0,200})(?:\r\n|\r|\n)"
_LINE: Final = 64  # characters of base64 on one line (section 2)


class Block(msgspec.Struct, frozen=True):
    """One PEM block. *der* is empty where the base64 cannot be read.

    *headers* are those of RFC 1421 (4.6), which traditional encrypted keys have: `Proc-Type`, `DEK-Info`.
    """

    label: str
    der: bytes
    headers: dict[str, str]

    @property
    def is_private_key(self) -> bool:
        return self.label.endswith("PRIVATE KEY")


def is_pem(data: bytes) -> bool:
    """Whether *data* has a PEM boundary (section 3), of a complete block or not."""
    return re.search(_BOUNDARY, data) is not None


def blocks(data: bytes) -> Iterator[Block]:
    """Return the complete PEM blocks in *data*, in their order, without the text around and between them.

    Line ends of any kind and white space anywhere in the base64 are accepted (section 3, figure 2)."""
    for begin, end in pairwise(re.finditer(_BOUNDARY, data)):
        if (begin[1], end[1]) == (b"BEGIN", b"END") and begin[2] == end[2]:
            at, headers = begin.end(), {}
            while header := re.compile(_HEADER).match(data, at, end.start()):
                headers[header[1].decode()] = header[2].decode("latin-1").strip()
                at = header.end()
            try:
                der = base64.b64decode(data[at : end.start()].translate(None, WHITESPACE), validate=True)
            except binascii.Error:
                der = b""
            yield Block(begin[2].decode(), der, headers)


def encode(label: str, der: bytes) -> str:
    """Return *der* as one PEM block."""
    text = base64.b64encode(der).decode()
    lines = (text[at : at + _LINE] for at in range(0, len(text), _LINE))
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""))
