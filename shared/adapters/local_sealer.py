"""KeySealer with master keys in files: the embedded default.

Master keys lie one per file (mode 600) in a folder (mode 700); the newest seals, all open.
"""

import os
import secrets
import threading
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.adapters.envelope import DATA_KEY_BYTES, NONCE_BYTES, DataKey, EnvelopeSealer, KeyLocation
from shared.ports import SealBroken

_SCHEME: Final = "local:"
_SUFFIX: Final = ".key"


class LocalSealer(EnvelopeSealer):
    """The folder is made with a first master key where it does not exist."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._names():
            self.rotate()

    def rotate(self) -> str:
        with self._lock:
            name = f"{len(self._names()) + 1:04d}-{secrets.token_hex(4)}"
            path = self._folder / f"{name}{_SUFFIX}"
            partial = path.with_suffix(".partial")  # whole or not at all, whatever happens in between
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(DATA_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
            return name

    def _new_data_key(self, place: KeyLocation) -> DataKey:
        name = self._names()[-1]
        plain, nonce = AESGCM.generate_key(DATA_KEY_BYTES * 8), secrets.token_bytes(NONCE_BYTES)
        wrapped = AESGCM(self._master(name)).encrypt(nonce, plain, place.associated)
        return DataKey(_SCHEME + name, nonce + wrapped, plain)

    def _unwrap(self, master: str, wrapped: bytes, place: KeyLocation) -> bytes:
        name = master.removeprefix(_SCHEME)
        if not master.startswith(_SCHEME) or name not in self._names():
            raise SealBroken(f"the master key {master!r} is not here")
        nonce, rest = wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:]
        try:
            return AESGCM(self._master(name)).decrypt(nonce, rest, place.associated)
        except (InvalidTag, ValueError) as error:
            raise SealBroken("it was sealed for another place, or changed since") from error

    def _current(self) -> str:
        return _SCHEME + self._names()[-1]

    def _names(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob(f"*{_SUFFIX}"))

    def _master(self, name: str) -> bytes:
        return (self._folder / f"{name}{_SUFFIX}").read_bytes()
