"""Envelope encryption of private keys, shared by all kinds of master keys.

Each secret is encrypted with AES-256-GCM under a data key of its own. A master key, which never leaves its key store,
wraps the data key. Organization and certificate id are bound to both: as associated data of the secret, and as
associated data or encryption context of the wrapped data key. So a sealed key that is copied to another document does
not open, even for a caller that may use the master key.

Sources: NIST SP 800-38D (GCM), RFC 5116 (associated data).
"""

import logging
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec
from cryptography.exceptions import InvalidTag

from shared.errors import KeysUnavailable, RotationRefused
from shared.ports import SealBroken
from shared.records import Sealed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

log = logging.getLogger(__name__)

DATA_KEY_BYTES: Final = 32  # AES-256
NONCE_BYTES: Final = 12  # NIST SP 800-38D, 8.2; random, because a data key encrypts once


def aes_gcm(key: bytes) -> "AESGCM":
    """Return the cipher of *key*. Its module is loaded late: most processes open and seal no key."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


class KeyLocation(msgspec.Struct, frozen=True):
    """The organization and the certificate that a secret is bound to."""

    org_id: str
    certificate_id: str

    @property
    def associated_data(self) -> bytes:
        """The location as associated data. An orgId contains no slash, so two locations never have the same bytes."""
        return f"{self.org_id}/{self.certificate_id}".encode()


class DataKey(msgspec.Struct, frozen=True):
    """A new data key.

    Args:
        master: the name of the master key that wrapped it.
        wrapped: the data key, encrypted by the master key.
        plain: the data key in the clear, 32 bytes.
    """

    master: str
    wrapped: bytes
    plain: bytes

    def __repr__(self) -> str:
        """Return a representation without key material."""
        return f"DataKey({self.master})"


def decrypt(key: bytes, nonce: bytes, ciphertext: bytes, location: KeyLocation) -> bytes:
    """Decrypt *ciphertext*, which was encrypted under *key* for *location*.

    Raises: SealBroken.
    """
    try:
        return aes_gcm(key).decrypt(nonce, ciphertext, location.associated_data)
    except (InvalidTag, ValueError) as error:  # ValueError: a key or nonce of a length that sealing never produces
        raise SealBroken("it was sealed for another place, or changed since") from error


def refuse_master(master: str) -> NoReturn:
    """Raise SealBroken for a master key that the sealer does not have."""
    raise SealBroken(f"the master key {master!r} is not here")


class EnvelopeSealer(ABC):
    """Base of all sealers, see `shared.ports.KeySealer`. A subclass provides the master keys."""

    @abstractmethod
    def _new_data_key(self, location: KeyLocation) -> DataKey:
        """Generate a data key, wrapped for *location* by the current master key.

        Raises: KeysUnavailable.
        """

    @abstractmethod
    def _unwrap(self, master: str, wrapped: bytes, location: KeyLocation) -> bytes:
        """Return the data key that *master* wrapped for *location*.

        Raises: SealBroken, KeysUnavailable.
        """

    @abstractmethod
    def _current_master(self) -> str:
        """Return the name of the master key that seals new secrets.

        Raises: KeysUnavailable.
        """

    @abstractmethod
    def rotate(self) -> str:
        """Create a new master key, or a new version of it, and return its name. It seals all later secrets."""

    def seal(self, secret: bytes, *, org_id: str, certificate_id: str) -> Sealed:
        """Encrypt *secret* under a new data key, bound to the organization and the certificate."""
        location = KeyLocation(org_id, certificate_id)
        key = self._new_data_key(location)
        nonce = secrets.token_bytes(NONCE_BYTES)
        ciphertext = aes_gcm(key.plain).encrypt(nonce, secret, location.associated_data)
        return Sealed(key.master, key.wrapped, nonce, ciphertext)

    def open(self, sealed: Sealed, *, org_id: str, certificate_id: str) -> bytes:
        """Decrypt *sealed*, which was sealed for the same organization and certificate."""
        location = KeyLocation(org_id, certificate_id)
        key = self._unwrap(sealed.master, sealed.wrapped, location)
        return decrypt(key, sealed.nonce, sealed.ciphertext, location)

    def is_current(self, sealed: Sealed) -> bool:
        """Return whether the current master key sealed *sealed*."""
        return sealed.master == self._current_master()


class CachedName:
    """The name of the current master key, kept for a minute.

    `reseal` compares the name once for each record, and key services limit the number of such requests. Each successful
    seal stores the name too, so the cached name is never older than the last seal.
    """

    def __init__(self, seconds: float = 60.0) -> None:
        """Create an empty cache whose entry is valid for *seconds*."""
        self._seconds = seconds
        self._entry: tuple[str, float] | None = None  # name, expiry (monotonic seconds); replaced as a whole

    def get(self) -> str | None:
        """Return the name, or None if it is missing or too old."""
        entry = self._entry
        return entry[0] if entry and time.monotonic() < entry[1] else None

    def set(self, name: str) -> None:
        """Store *name*."""
        self._entry = name, time.monotonic() + self._seconds

    def clear(self) -> None:
        """Remove the name."""
        self._entry = None


class ServiceFailure(msgspec.Struct, frozen=True):
    """The meaning of an error of a key service.

    Args:
        name: the service's own name of the error; never key material.
        is_permanent: whether a retry cannot succeed: another location, a changed ciphertext, a key that is disabled or
            deleted.
        rotation_refusal: the reason why the key does not rotate, and the advice to the operator; None for other errors.
    """

    name: str
    is_permanent: bool = False
    rotation_refusal: tuple[str, str] | None = None


class KeyServiceSealer(EnvelopeSealer):
    """Base of the sealers whose master key is in a cloud's key service.

    A subclass makes the requests, each inside `_translate_errors`, and classifies the errors of its client library.

    Args:
        key: the master key's name in the service.
        connect: creates the client; called once, before the first request.
    """

    def __init__(self, key: str, *, connect: Callable[[], Any]) -> None:
        """Store the arguments. No request is made."""
        self._key = key
        self._connect = connect
        self._lock = threading.Lock()
        self._client: Any = None
        self._cached_name = CachedName()

    @abstractmethod
    def _fetch_current_master(self) -> str:
        """Ask the service for the name of the current master key.

        Raises: KeysUnavailable.
        """

    @abstractmethod
    def _classify(self, error: Exception) -> ServiceFailure | None:
        """Return the meaning of *error*, or None if the service's client did not raise it."""

    def _current_master(self) -> str:
        name = self._cached_name.get()
        if name is None:
            name = self._fetch_current_master()
            self._cached_name.set(name)
        return name

    def _kms(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    @contextmanager
    def _translate_errors(
        self, action: str, refusal: type[SealBroken] | type[RotationRefused] | None = None
    ) -> Iterator[None]:
        """Translate the service's errors into the port's errors.

        Args:
            action: a verb for the log.
            refusal: the error to raise if a retry cannot succeed. Every other failure is KeysUnavailable.

        Raises: SealBroken, RotationRefused, KeysUnavailable.
        """
        try:
            yield
        except Exception as error:
            failure = self._classify(error)
            if failure is None:
                raise
            # The log has the error's name only: its text may quote the request.
            log.error(
                "the key service refused to %s, or did not answer: %s", action, failure.name, extra={"key": self._key}
            )
            if refusal is SealBroken and failure.is_permanent:
                raise SealBroken(f"the key service says {failure.name}") from error
            if refusal is RotationRefused and failure.rotation_refusal:
                reason, advice = failure.rotation_refusal
                raise RotationRefused(key=self._key, found=reason, hint=advice) from error
            raise KeysUnavailable from error
