"""KeySealer with a master key in Google Cloud KMS (TRUST_KEYS=gcpkms:projects/…/cryptoKeys/…).

Data keys are generated in this process and wrapped by Encrypt. Organization and certificate id are the additional
authenticated data: KMS refuses to decrypt the data key for another location.

The name of a master key is the resource name of the key's version. A rotation makes a new primary version. Decrypt
still uses the old version, as long as the old version is enabled.

Every request and response carries CRC32C checksums, and both sides compare them ("Verifying end-to-end data integrity"
in the Cloud KMS documentation). Without the checksums, a data key that was damaged in transit would make a private key
permanently unreadable.
"""

import logging
from collections.abc import Callable
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.adapters.envelope import (
    DATA_KEY_BYTES,
    DataKey,
    KeyLocation,
    KeyServiceSealer,
    ServiceFailure,
    refuse_master,
)
from shared.errors import KeysUnavailable, RotationRefused
from shared.ports import SealBroken

log = logging.getLogger(__name__)

_SCHEME: Final = "gcpkms:"
_VERSIONS: Final = "/cryptoKeyVersions/"
_SECONDS: Final = 5.0  # timeout of one request
_ATTEMPTS: Final = 2  # if a checksum does not match
_ROTATION_REFUSAL: Final = (
    "the new version cannot be made primary yet, or the key is of another purpose",
    "Look at the key's versions, then repeat it.",
)


def _connect() -> Any:
    from google.cloud import kms_v1

    return kms_v1.KeyManagementServiceClient()


class GcpKmsSealer(KeyServiceSealer):
    """A sealer whose master key is in Google Cloud KMS.

    Args:
        key: the resource name of a crypto key of purpose ENCRYPT_DECRYPT.
        connect: creates the client; called once, before the first request.
    """

    def __init__(self, key: str, *, connect: Callable[[], Any] = _connect) -> None:
        """Store the arguments. No request is made."""
        super().__init__(key, connect=connect)
        self._rotated_to: str | None = None  # the version that this process made primary

    def rotate(self) -> str:
        """Create a new version of the key, make it primary, and return its name.

        Raises: RotationRefused, KeysUnavailable.
        """
        with self._translate_errors("rotate", RotationRefused):
            version = self._kms().create_crypto_key_version(
                request={"parent": self._key, "crypto_key_version": {}}, retry=None, timeout=_SECONDS
            )
            primary = self._kms().update_crypto_key_primary_version(
                request={"name": self._key, "crypto_key_version_id": version.name.rpartition("/")[2]},
                retry=None,
                timeout=_SECONDS,
            )
        # Encrypt with the key's name may use the previous version for hours ("Cloud KMS resource consistency").
        # Encrypt with a version's name is consistent, so a reseal in this process never uses the previous version.
        self._rotated_to = primary.primary.name
        self._cached_name.set(_SCHEME + self._rotated_to)
        return _SCHEME + self._rotated_to

    def _new_data_key(self, location: KeyLocation) -> DataKey:
        plain = AESGCM.generate_key(DATA_KEY_BYTES * 8)
        for _ in range(_ATTEMPTS):
            with self._translate_errors("seal"):
                response = self._kms().encrypt(
                    request={
                        "name": self._rotated_to or self._key,
                        "plaintext": plain,
                        "plaintext_crc32c": _crc32c(plain),
                        "additional_authenticated_data": location.associated_data,
                        "additional_authenticated_data_crc32c": _crc32c(location.associated_data),
                    },
                    retry=None,
                    timeout=_SECONDS,
                )
            if (
                response.verified_plaintext_crc32c
                and response.verified_additional_authenticated_data_crc32c
                and response.ciphertext_crc32c == _crc32c(response.ciphertext)
                and response.name.startswith(self._key + _VERSIONS)
            ):
                self._cached_name.set(_SCHEME + response.name)
                return DataKey(_SCHEME + response.name, response.ciphertext, plain)
            log.error("the checksum of a wrapped data key does not match")
        raise KeysUnavailable

    def _unwrap(self, master: str, wrapped: bytes, location: KeyLocation) -> bytes:
        key, versions, _ = master.removeprefix(_SCHEME).partition(_VERSIONS)
        if not master.startswith(_SCHEME) or not versions:
            refuse_master(master)
        for _ in range(_ATTEMPTS):
            with self._translate_errors("open", SealBroken):
                response = self._kms().decrypt(
                    request={
                        "name": key,
                        "ciphertext": wrapped,
                        "ciphertext_crc32c": _crc32c(wrapped),
                        "additional_authenticated_data": location.associated_data,
                        "additional_authenticated_data_crc32c": _crc32c(location.associated_data),
                    },
                    retry=None,
                    timeout=_SECONDS,
                )
            if response.plaintext_crc32c == _crc32c(response.plaintext):
                plain: bytes = response.plaintext
                return plain
            log.error("the checksum of an unwrapped data key does not match")
        raise KeysUnavailable

    def _fetch_current_master(self) -> str:
        with self._translate_errors("describe"):
            key = self._kms().get_crypto_key(request={"name": self._key}, retry=None, timeout=_SECONDS)
        return _SCHEME + (self._rotated_to or key.primary.name)

    def _classify(self, error: Exception) -> ServiceFailure | None:
        from google.api_core.exceptions import FailedPrecondition, GoogleAPIError, InvalidArgument, NotFound
        from google.auth.exceptions import GoogleAuthError

        if not isinstance(error, GoogleAPIError | GoogleAuthError):
            return None
        return ServiceFailure(
            type(error).__name__,
            # INVALID_ARGUMENT: another location or a changed ciphertext. FAILED_PRECONDITION: a version that is
            # disabled or destroyed. NOT_FOUND: no such key. Every other error may be temporary.
            is_permanent=isinstance(error, InvalidArgument | FailedPrecondition | NotFound),
            rotation_refusal=_ROTATION_REFUSAL if isinstance(error, InvalidArgument | FailedPrecondition) else None,
        )


def _crc32c(data: bytes) -> int:
    import google_crc32c

    checksum: int = google_crc32c.value(data)
    return checksum
