"""What every store does alike with keys and bodies, so that a document of one is a document of each.

A body travels as one text of JSON, on the clouds too: their own types would change it on the way (DynamoDB has no empty
set and numbers of 38 digits, Firestore no array in an array and no number beyond 64 bits).
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from shared.errors import DocumentTooLarge
from shared.ports import MAX_BODY_BYTES, MAX_KEY_BYTES, Key

_CONTROL: Final = r"[\x00-\x1f\x7f]"


def encoded(body: Mapping[str, Any]) -> bytes:
    """*body* as it is stored. Raises: DocumentTooLarge."""
    data = msgspec.json.encode(body)
    if len(data) > MAX_BODY_BYTES:
        raise DocumentTooLarge(size=len(data), limit=MAX_BODY_BYTES)
    return data


def can_exist(key: Key) -> bool:
    """Whether a document may lie at *key*: what a caller asks for can be anything, and one bad key must not spoil the
    batch it is in."""
    both = key.partition + key.id
    if both.isascii() and both.isprintable():  # nearly all
        return 0 < len(key.partition) <= MAX_KEY_BYTES and 0 < len(key.id) <= MAX_KEY_BYTES
    return _is_name(key.partition) and _is_name(key.id)


def check_key(key: Key) -> None:
    """Raises: ValueError, where no document may lie at *key*."""
    if not can_exist(key):
        raise ValueError("A key's partition and id are 1 to 255 bytes of text without control characters.")


def position(after: str) -> str:
    """*after*, which may be any text (a caller's bookmark), as one that every store takes: ids behind it are the same.

    No id has more than 255 characters, so what follows those decides nothing. A lone surrogate has no UTF-8."""
    return after[:MAX_KEY_BYTES].encode("utf-8", "replace").decode()


def _is_name(text: str) -> bool:
    if re.search(_CONTROL, text):
        return False
    try:
        return 0 < len(text.encode()) <= MAX_KEY_BYTES
    except UnicodeEncodeError:  # a lone surrogate
        return False
