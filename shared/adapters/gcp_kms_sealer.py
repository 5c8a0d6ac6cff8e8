"""KeySealer whose master key is in Google Cloud KMS (TRUST_KEYS=gcpkms:projects/…/cryptoKeys/…).

Data keys are made here and wrapped by Encrypt; org and certificate id are its additional authenticated data, so KMS
itself refuses to open one for another place. What a secret is sealed under is named by the key's *version*: rotation
makes a new primary version, and Decrypt finds the old one by itself as long as it is enabled.

Every request and answer carries CRC32C checksums, which are compared on arrival as "Verifying end-to-end data
integrity" of the Cloud KMS documentation asks for: a data key that was damaged on its way would lock a private key
away for good.
"""

import logging
from collections.abc import Callable
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.adapters.envelope import DATA_KEY_BYTES, DataKey, KeyLocation, KeyServiceSealer, Trouble
from shared.errors import KeysUnavailable, RotationRefused
from shared.ports import SealBroken

log = logging.getLogger(__name__)

_SCHEME: Final = "gcpkms:"
_VERSIONS: Final = "/cryptoKeyVersions/"
_SECONDS: Final = 5.0  # of one call
_TRIES: Final = 2
_UNROTATABLE: Final = (
    "the new version cannot be made primary yet, or the key is of another purpose",
    "Look at the key's versions, then repeat it.",
)


def _connect() -> Any:
    from google.cloud import kms_v1

    return kms_v1.KeyManagementServiceClient()


class GcpKmsSealer(KeyServiceSealer):
    """
    Args:
        key: the crypto key's resource name, of purpose ENCRYPT_DECRYPT.
        connect: makes the client, at the first call.
    """

    def __init__(self, key: str, *, connect: Callable[[], Any] = _connect) -> None:
        super().__init__(key, connect=connect)
        self._rotated_to: str | None = None  # a version this process made primary

    def rotate(self) -> str:
        """Make a new version of the key, and make it primary.

        Raises: RotationRefused, KeysUnavailable."""
        with self._asking("rotate", refused=RotationRefused):
            version = self._kms().create_crypto_key_version(
                request={"parent": self._key, "crypto_key_version": {}}, retry=None, timeout=_SECONDS
            )
            primary = self._kms().update_crypto_key_primary_version(
                request={"name": self._key, "crypto_key_version_id": version.name.rpartition("/")[2]},
                retry=None,
                timeout=_SECONDS,
            )
        # For hours, Encrypt by the key's name may still use the version before ("Cloud KMS resource consistency").
        # Naming the version is not subject to that, so a reseal in this process does not seal under the old one.
        self._rotated_to = primary.primary.name
        self._remembered.set(_SCHEME + self._rotated_to)
        return _SCHEME + self._rotated_to

    def _new_data_key(self, place: KeyLocation) -> DataKey:
        plain = AESGCM.generate_key(DATA_KEY_BYTES * 8)
        for _ in range(_TRIES):
            with self._asking("seal"):
                answer = self._kms().encrypt(
                    request={
                        "name": self._rotated_to or self._key,
                        "plaintext": plain,
                        "plaintext_crc32c": _crc32c(plain),
                        "additional_authenticated_data": place.associated,
                        "additional_authenticated_data_crc32c": _crc32c(place.associated),
                    },
                    retry=None,
                    timeout=_SECONDS,
                )
            if (
                answer.verified_plaintext_crc32c
                and answer.verified_additional_authenticated_data_crc32c
                and answer.ciphertext_crc32c == _crc32c(answer.ciphertext)
                and answer.name.startswith(self._key + _VERSIONS)
            ):
                self._remembered.set(_SCHEME + answer.name)
                return DataKey(_SCHEME + answer.name, answer.ciphertext, plain)
            log.error("a wrapped key was damaged on its way from the key service")
        raise KeysUnavailable

    def _unwrap(self, master: str, wrapped: bytes, place: KeyLocation) -> bytes:
        key, versions, _ = master.removeprefix(_SCHEME).partition(_VERSIONS)
        if not master.startswith(_SCHEME) or not versions:
            raise SealBroken(f"the master key {master!r} is not here")
        for _ in range(_TRIES):
            with self._asking("open", refused=SealBroken):
                answer = self._kms().decrypt(
                    request={
                        "name": key,
                        "ciphertext": wrapped,
                        "ciphertext_crc32c": _crc32c(wrapped),
                        "additional_authenticated_data": place.associated,
                        "additional_authenticated_data_crc32c": _crc32c(place.associated),
                    },
                    retry=None,
                    timeout=_SECONDS,
                )
            if answer.plaintext_crc32c == _crc32c(answer.plaintext):
                plain: bytes = answer.plaintext
                return plain
            log.error("an opened key was damaged on its way from the key service")
        raise KeysUnavailable

    def _current(self) -> str:
        name = self._remembered.get()
        if name is None:
            with self._asking("describe"):
                key = self._kms().get_crypto_key(request={"name": self._key}, retry=None, timeout=_SECONDS)
            name = _SCHEME + (self._rotated_to or key.primary.name)
            self._remembered.set(name)
        return name

    def _errors(self) -> tuple[type[Exception], ...]:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError

        return GoogleAPIError, GoogleAuthError

    def _trouble(self, error: Any) -> Trouble:
        from google.api_core.exceptions import FailedPrecondition, InvalidArgument, NotFound

        return Trouble(
            type(error).__name__,
            # Another place or a changed blob (INVALID_ARGUMENT), a disabled or destroyed version
            # (FAILED_PRECONDITION), no such key: retrying cannot mend it. All else may pass.
            lasting=isinstance(error, InvalidArgument | FailedPrecondition | NotFound),
            unrotatable=_UNROTATABLE if isinstance(error, InvalidArgument | FailedPrecondition) else None,
        )


def _crc32c(data: bytes) -> int:
    import google_crc32c

    value: int = google_crc32c.value(data)
    return value
