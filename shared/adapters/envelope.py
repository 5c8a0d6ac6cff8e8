"""Envelope encryption, the same for every kind of master key.

Each secret is sealed with AES-256-GCM under a data key of its own; a master key, which never leaves where it lives,
wraps the data key. Org and certificate id are bound into both: as associated data of the secret, and as whatever the
master key's home calls it (associated data, encryption context). A sealed key that is moved to another place in the
store therefore does not open, even for somebody who may use the master key.
"""

import logging
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.errors import KeysUnavailable, RotationRefused
from shared.ports import SealBroken
from shared.records import Sealed

log = logging.getLogger(__name__)

DATA_KEY_BYTES: Final = 32  # AES-256
NONCE_BYTES: Final = 12  # of GCM (NIST SP 800-38D, 8.2); a data key seals once, so a random one cannot repeat


class KeyLocation(msgspec.Struct, frozen=True):
    """What a secret is sealed for."""

    org_id: str
    certificate_id: str

    @property
    def associated(self) -> bytes:
        """As associated data. An orgId holds no slash, so no two places read alike."""
        return f"{self.org_id}/{self.certificate_id}".encode()


class DataKey(msgspec.Struct, frozen=True):
    """A fresh data key, in the clear and wrapped, and the name of the master key that wrapped it."""

    master: str
    wrapped: bytes
    plain: bytes

    def __repr__(self) -> str:
        """Without the key."""
        return f"DataKey({self.master})"


class EnvelopeSealer(ABC):
    """See `shared.ports.KeySealer`. A subclass says where the master keys live."""

    @abstractmethod
    def _new_data_key(self, place: KeyLocation) -> DataKey:
        """A fresh data key, wrapped for *place* by the master key that seals now. Raises: KeysUnavailable."""

    @abstractmethod
    def _unwrap(self, master: str, wrapped: bytes, place: KeyLocation) -> bytes:
        """The data key that *master* wrapped for *place*. Raises: SealBroken, KeysUnavailable."""

    @abstractmethod
    def _current(self) -> str:
        """The name of the master key that seals now. Raises: KeysUnavailable."""

    @abstractmethod
    def rotate(self) -> str:
        """Make a new master key (or a new version of it), which seals from now on. Returns its name."""

    def seal(self, secret: bytes, *, org_id: str, certificate_id: str) -> Sealed:
        place = KeyLocation(org_id, certificate_id)
        key = self._new_data_key(place)
        nonce = secrets.token_bytes(NONCE_BYTES)
        return Sealed(key.master, key.wrapped, nonce, AESGCM(key.plain).encrypt(nonce, secret, place.associated))

    def open(self, sealed: Sealed, *, org_id: str, certificate_id: str) -> bytes:
        place = KeyLocation(org_id, certificate_id)
        plain = self._unwrap(sealed.master, sealed.wrapped, place)
        try:
            return AESGCM(plain).decrypt(sealed.nonce, sealed.ciphertext, place.associated)
        except (InvalidTag, ValueError) as error:  # ValueError: a nonce or key of a length that seal never makes
            raise SealBroken("it was sealed for another place, or changed since") from error

    def is_current(self, sealed: Sealed) -> bool:
        return sealed.master == self._current()


class Remembered:
    """The name of the current master key, for a minute: `reseal` asks for it once a record, and key services count
    such questions. A seal that succeeds names it too, so what is remembered is never older than the last seal."""

    def __init__(self, seconds: float = 60.0) -> None:
        self._seconds = seconds
        self._known: tuple[str, float] | None = None  # name, until when (monotonic); replaced as a whole

    def get(self) -> str | None:
        known = self._known
        return known[0] if known and time.monotonic() < known[1] else None

    def set(self, name: str) -> None:
        self._known = name, time.monotonic() + self._seconds

    def forget(self) -> None:
        self._known = None


class Trouble(msgspec.Struct, frozen=True):
    """What an error of a key service means.

    Args:
        name: the service's own word for it; never a key.
        lasting: retrying cannot mend it: another place, a changed blob, a key that is disabled or gone.
        unrotatable: where it says why the key does not rotate: what was found, and what to do.
    """

    name: str
    lasting: bool = False
    unrotatable: tuple[str, str] | None = None


class KeyServiceSealer(EnvelopeSealer):
    """A sealer whose master key is in a cloud's key service.

    Args:
        key: the master key's name there.
        connect: makes the client, at the first call.
    """

    def __init__(self, key: str, *, connect: Callable[[], Any]) -> None:
        self._key = key
        self._connect = connect
        self._lock = threading.Lock()
        self._client: Any = None
        self._remembered = Remembered()

    @abstractmethod
    def _errors(self) -> tuple[type[Exception], ...]:
        """What the service's client raises."""

    @abstractmethod
    def _trouble(self, error: Any) -> Trouble:
        """What one of these means."""

    def _kms(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    @contextmanager
    def _asking(self, what: str, refused: type[SealBroken] | type[RotationRefused] | None = None) -> Iterator[None]:
        """The service's errors in the port's words; where *refused* is None, only KeysUnavailable is left to say."""
        try:
            yield
        except self._errors() as error:
            trouble = self._trouble(error)
            # The name says what is wrong; the error's own text may quote more.
            log.error(
                "the key service refused to %s, or did not answer: %s", what, trouble.name, extra={"key": self._key}
            )
            if refused is SealBroken and trouble.lasting:
                raise SealBroken(f"the key service says {trouble.name}") from error
            if refused is RotationRefused and trouble.unrotatable:
                found, hint = trouble.unrotatable
                raise RotationRefused(key=self._key, found=found, hint=hint) from error
            raise KeysUnavailable from error
