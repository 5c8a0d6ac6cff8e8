"""The file of an export: lines of JSON, and a code that shows every change of them.

    {"export": 1, "key": {…}}                        the header: a random key, sealed as private keys are
    {"partition": "…", "id": "…", "body": {…}}       a document, one a line
    {"lines": 42, "mac": "…"}                        the end: the number of the lines before, and their HMAC

The HMAC-SHA-256 (RFC 2104) covers the lines before the end, each with a line feed, and their number as text. Only an
installation with the master key can open the key, and so make or verify an export. Version 0.1.0 wrote documents alone.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeVar

import msgspec

from shared.ports import KeySealer, SealBroken
from shared.records import PLATFORM, Record, Sealed

S = TypeVar("S", bound=msgspec.Struct)

_VERSION: Final = 1
_KEY_BYTES: Final = 32
_LOCATION: Final = "export"  # takes the place of a certificate's id, to which a sealed key is bound


class ExportRefused(Exception):
    """A file is no export, was changed, or cannot be verified here. The message is a sentence for the operator."""


class ExportedDocument(msgspec.Struct, frozen=True):
    """A document as the store has it."""

    partition: str
    id: str
    body: dict[str, Any]


class _Header(Record, frozen=True):
    export: int
    key: Sealed


class _End(msgspec.Struct, frozen=True):
    lines: int
    mac: str


def write_export(sealer: KeySealer, documents: Iterable[ExportedDocument]) -> Iterator[bytes]:
    """Yield the lines of an export, without line ends.

    Raises: KeysUnavailable."""
    key = secrets.token_bytes(_KEY_BYTES)
    mac = _Mac(key)
    header = _Header(_VERSION, sealer.seal(key, org_id=PLATFORM, certificate_id=_LOCATION))
    yield mac.add(msgspec.json.encode(header))
    for document in documents:
        yield mac.add(msgspec.json.encode(document))
    yield msgspec.json.encode(_End(mac.lines, mac.digest()))


def verify_export(sealer: KeySealer, lines: Iterable[bytes]) -> None:
    """Verify that *lines*, without line ends, are an export of an installation with this master key, and unchanged.

    Raises: ExportRefused, KeysUnavailable."""
    rest = iter(lines)
    first = next(rest, b"")
    mac = _Mac(_open_key(sealer, first))
    mac.add(first)
    end: _End | None = None
    for line in rest:
        if end is not None:
            raise ExportRefused("This export was changed: it has lines after its end.")
        end = _read_end(line)
        if end is None:
            mac.add(line)
    if end is None:
        raise ExportRefused("This export is not complete: its last line is missing. Export again.")
    if end.lines != mac.lines or not hmac.compare_digest(end.mac, mac.digest()):
        raise ExportRefused("This export was changed after it was written, or lines of it are missing. Export again.")


def read_documents(lines: Iterable[bytes]) -> Iterator[tuple[int, ExportedDocument]]:
    """Yield the number of its line and each document, without verifying the file.

    Raises: ExportRefused."""
    for number, line in enumerate(lines, start=1):
        if _is_header(line) or _read_end(line) is not None:
            continue
        try:
            yield number, msgspec.json.decode(line, type=ExportedDocument)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            raise ExportRefused(f"This is no file that export wrote: line {number} is no document.") from None


class _Mac:
    """The HMAC over lines and their number."""

    def __init__(self, key: bytes) -> None:
        self._hmac = hmac.new(key, digestmod=hashlib.sha256)
        self.lines = 0

    def add(self, line: bytes) -> bytes:
        """Add *line*, and return *line*."""
        self._hmac.update(line + b"\n")
        self.lines += 1
        return line

    def digest(self) -> str:
        """Return the HMAC of all lines so far and their number, in hexadecimal."""
        whole = self._hmac.copy()
        whole.update(str(self.lines).encode())
        return whole.hexdigest()


def _open_key(sealer: KeySealer, line: bytes) -> bytes:
    header = _decode(_Header, line)
    if header is None:
        raise ExportRefused(
            "This file has no seal: version 0.1.0 wrote it, or it was changed. If you trust the file, import it with "
            "--unsigned, which takes no API keys."
        )
    if header.export != _VERSION:
        raise ExportRefused("This export is of a later version of MQTT Trust. Import it with that version.")
    try:
        return sealer.open(header.key, org_id=PLATFORM, certificate_id=_LOCATION)
    except SealBroken as error:
        raise ExportRefused(
            f"The seal of this export does not open here: {error}. Import it where TRUST_KEYS names the master keys of "
            "the installation that exported: its private keys open with them only. If you trust the file, --unsigned "
            "imports the rest, without API keys."
        ) from error


def _is_header(line: bytes) -> bool:
    return _decode(_Header, line) is not None


def _read_end(line: bytes) -> _End | None:
    return _decode(_End, line)


def _decode(kind: type[S], line: bytes) -> S | None:
    """Return the object of *kind* in *line*, or None."""
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
