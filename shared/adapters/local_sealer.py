"""KeySealer with master keys in files: the embedded default.

Each master key is a file (mode 0600) in a folder (mode 0700). The newest master key seals; every master key opens.
"""

import os
import secrets
import threading
from pathlib import Path
from typing import Final

from shared.adapters.envelope import (
    DATA_KEY_BYTES,
    NONCE_BYTES,
    DataKey,
    EnvelopeSealer,
    KeyLocation,
    aes_gcm,
    decrypt,
    refuse_master,
)

_SCHEME: Final = "local:"
_SUFFIX: Final = ".key"


class LocalSealer(EnvelopeSealer):
    """A sealer whose master keys are files in *folder*."""

    def __init__(self, folder: Path) -> None:
        """Create *folder* and a first master key if they do not exist."""
        self._folder = folder
        self._lock = threading.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._names():
            self.rotate()

    def rotate(self) -> str:
        """Create a new master key and return its name."""
        with self._lock:
            name = f"{len(self._names()) + 1:04d}-{secrets.token_hex(4)}"
            path = self._folder / f"{name}{_SUFFIX}"
            partial = path.with_suffix(".partial")  # renamed when complete, so no crash leaves half a key
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(DATA_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
            return name

    def _new_data_key(self, location: KeyLocation) -> DataKey:
        name = self._names()[-1]
        plain, nonce = secrets.token_bytes(DATA_KEY_BYTES), secrets.token_bytes(NONCE_BYTES)
        wrapped = aes_gcm(self._read_master(name)).encrypt(nonce, plain, location.associated_data)
        return DataKey(_SCHEME + name, nonce + wrapped, plain)

    def _unwrap(self, master: str, wrapped: bytes, location: KeyLocation) -> bytes:
        name = master.removeprefix(_SCHEME)
        if not master.startswith(_SCHEME) or name not in self._names():
            refuse_master(master)
        return decrypt(self._read_master(name), wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], location)

    def _current_master(self) -> str:
        return _SCHEME + self._names()[-1]

    def _names(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob(f"*{_SUFFIX}"))

    def _read_master(self, name: str) -> bytes:
        return (self._folder / f"{name}{_SUFFIX}").read_bytes()
