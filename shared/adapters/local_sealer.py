"""KeySealer with master keys in files: the embedded default.

Envelope encryption: each secret is sealed with AES-256-GCM under a data key of its own, and the data key under the
newest master key. Org and certificate id are the associated data of both, so a sealed key that is moved to another
place does not open. Master keys lie one per file (mode 600) in a folder (mode 700); the newest seals, all open.
"""

import os
import secrets
import threading
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.ports import SealBroken
from shared.records import Sealed

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_SUFFIX: Final = ".key"


class LocalSealer:
    """See `shared.ports.KeySealer`. The folder is made with a first master key where it does not exist."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._names():
            self.rotate()

    def rotate(self) -> str:
        """Make a new master key, which seals from now on. Returns its name."""
        with self._lock:
            name = f"{len(self._names()) + 1:04d}-{secrets.token_hex(4)}"
            path = self._folder / f"{name}{_SUFFIX}"
            partial = path.with_suffix(".partial")  # whole or not at all, whatever happens in between
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
            return name

    def seal(self, secret: bytes, *, org_id: str, certificate_id: str) -> Sealed:
        master = self._names()[-1]
        place = _place(org_id, certificate_id)
        data_key, nonce, wrap_nonce = AESGCM.generate_key(256), secrets.token_bytes(12), secrets.token_bytes(12)
        return Sealed(
            master=f"local:{master}",
            wrapped=wrap_nonce + AESGCM(self._master(master)).encrypt(wrap_nonce, data_key, place),
            nonce=nonce,
            ciphertext=AESGCM(data_key).encrypt(nonce, secret, place),
        )

    def open(self, sealed: Sealed, *, org_id: str, certificate_id: str) -> bytes:
        place = _place(org_id, certificate_id)
        scheme, _, master = sealed.master.partition(":")
        if scheme != "local" or master not in self._names():
            raise SealBroken(f"the master key {sealed.master!r} is not here")
        wrap_nonce, wrapped = sealed.wrapped[:_NONCE_BYTES], sealed.wrapped[_NONCE_BYTES:]
        try:
            data_key = AESGCM(self._master(master)).decrypt(wrap_nonce, wrapped, place)
            return AESGCM(data_key).decrypt(sealed.nonce, sealed.ciphertext, place)
        except InvalidTag as error:
            raise SealBroken("it was sealed for another place, or changed since") from error

    def is_current(self, sealed: Sealed) -> bool:
        return sealed.master == f"local:{self._names()[-1]}"

    def _names(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob(f"*{_SUFFIX}"))

    def _master(self, name: str) -> bytes:
        return (self._folder / f"{name}{_SUFFIX}").read_bytes()


def _place(org_id: str, certificate_id: str) -> bytes:
    return f"{org_id}/{certificate_id}".encode()  # an orgId holds no slash, so no two places read alike
