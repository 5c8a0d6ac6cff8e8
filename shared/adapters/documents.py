"""Rules for keys and bodies that all stores share, so that every document fits every store.

All stores keep a body as JSON text. The clouds' own types would change the body: DynamoDB has no empty set and rounds
numbers to 38 digits; Firestore has no array inside an array and no integer beyond 64 bits.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from shared.errors import DocumentTooLarge
from shared.ports import MAX_BODY_BYTES, MAX_KEY_BYTES, Key

_CONTROL: Final = r"[\x00-\x1f\x7f]"


def encode(body: Mapping[str, Any]) -> bytes:
    """Encode *body* as compact JSON in UTF-8.

    Raises: DocumentTooLarge.
    """
    data = msgspec.json.encode(body)
    if len(data) > MAX_BODY_BYTES:
        raise DocumentTooLarge(size=len(data), limit=MAX_BODY_BYTES)
    return data


def can_exist(key: Key) -> bool:
    """Return whether a document may have *key*.

    Keys may come from requests. A read leaves impossible keys out, so that the rest of its batch is still found.
    """
    text = key.partition + key.id
    if text.isascii() and text.isprintable():  # the common case
        return 0 < len(key.partition) <= MAX_KEY_BYTES and 0 < len(key.id) <= MAX_KEY_BYTES
    return _is_valid(key.partition) and _is_valid(key.id)


def check_key(key: Key) -> None:
    """Check that a document may have *key*.

    Raises: ValueError.
    """
    if not can_exist(key):
        raise ValueError("A key's partition and id are 1 to 255 bytes of text without control characters.")


def normalize_bookmark(after: str) -> str:
    """Convert *after*, any text, to text that every store accepts and that the same ids follow.

    No id has more than 255 characters, so later characters of *after* decide nothing. A lone surrogate has no UTF-8
    encoding and becomes a question mark.
    """
    return after[:MAX_KEY_BYTES].encode("utf-8", "replace").decode()


def _is_valid(text: str) -> bool:
    if re.search(_CONTROL, text):
        return False
    try:
        return 0 < len(text.encode()) <= MAX_KEY_BYTES
    except UnicodeEncodeError:  # a lone surrogate
        return False
