"""KeySealer with a master key in AWS KMS (TRUST_KEYS=awskms:<key id, ARN or alias>).

GenerateDataKey makes each data key. Organization and certificate id are its encryption context: KMS refuses to decrypt
the data key for another location, and CloudTrail records the certificate of each request.

The name of a master key is the key's ARN and the id of its key material:

* RotateKeyOnDemand gives the key new material. The name changes, and KMS still decrypts with the old material.
* TRUST_KEYS, or the alias in it, may be changed to another key. The old key must stay enabled until `reseal` has run.

Source: AWS KMS API Reference (GenerateDataKey, Decrypt, DescribeKey, RotateKeyOnDemand, GetKeyRotationStatus).
"""

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from shared.adapters.envelope import DataKey, KeyLocation, KeyServiceSealer, ServiceFailure, refuse_master
from shared.errors import RotationRefused
from shared.ports import SealBroken

log = logging.getLogger(__name__)

_SCHEME: Final = "awskms:"
_MATERIAL: Final = "#"  # separates ARN and material id; neither contains it
_PERMANENT: Final = frozenset(
    (
        "InvalidCiphertextException",
        "IncorrectKeyException",
        "DisabledException",
        "KMSInvalidStateException",
        "NotFoundException",
        "InvalidKeyUsageException",
        "ValidationException",
    )
)
_ANOTHER_KEY: Final = "Make another key and point TRUST_KEYS (or its alias) at it; the old one must stay enabled."
_ROTATION_REFUSALS: Final = {
    "ConflictException": ("a rotation is under way already", "Repeat it when that is done."),
    "LimitExceededException": ("it was rotated on demand as often as AWS allows", _ANOTHER_KEY),
    "UnsupportedOperationException": ("its kind does not rotate on demand", _ANOTHER_KEY),
    "KMSInvalidStateException": ("it is not enabled", "Enable it."),
    "DisabledException": ("it is not enabled", "Enable it."),
}
_ROTATION_SECONDS: Final = 60.0  # how long to wait for a rotation to complete


def _connect() -> Any:
    import boto3
    from botocore.config import Config

    # A person waits for the answer: two attempts of a few seconds. botocore's defaults can take minutes.
    return boto3.client(
        "kms", config=Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 2, "mode": "standard"})
    )


class AwsKmsSealer(KeyServiceSealer):
    """A sealer whose master key is in AWS KMS.

    Args:
        key: the id, ARN or alias (`alias/…`) of a symmetric encryption key; an ARN if the key is in another account.
        connect: creates the client; called once, before the first request.
        sleep: waits for seconds, while a rotation is under way.
    """

    def __init__(
        self, key: str, *, connect: Callable[[], Any] = _connect, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Store the arguments. No request is made."""
        super().__init__(key, connect=connect)
        self._sleep = sleep

    def rotate(self) -> str:
        """Give the key new key material, wait until it is in use, and return its name.

        Raises: RotationRefused, KeysUnavailable.
        """
        key_id = self._describe()["KeyId"]
        with self._translate_errors("rotate", RotationRefused):
            self._kms().rotate_key_on_demand(KeyId=key_id)
            deadline = time.monotonic() + _ROTATION_SECONDS
            while "OnDemandRotationStartDate" in self._kms().get_key_rotation_status(KeyId=key_id):
                if time.monotonic() > deadline:
                    log.warning("the key's rotation is still in progress", extra={"key": self._key})
                    break
                self._sleep(1)
        self._cached_name.clear()
        return self._current_master()

    def _new_data_key(self, location: KeyLocation) -> DataKey:
        with self._translate_errors("seal"):
            response = self._kms().generate_data_key(
                KeyId=self._key, KeySpec="AES_256", EncryptionContext=_encryption_context(location)
            )
        master = _master_name(response["KeyId"], response.get("KeyMaterialId"))
        self._cached_name.set(master)
        return DataKey(master, response["CiphertextBlob"], response["Plaintext"])

    def _unwrap(self, master: str, wrapped: bytes, location: KeyLocation) -> bytes:
        arn, _, _ = master.removeprefix(_SCHEME).partition(_MATERIAL)
        if not master.startswith(_SCHEME) or not arn:
            refuse_master(master)
        with self._translate_errors("open", SealBroken):
            # With the key's ARN, KMS refuses a ciphertext of another key (recommended in the reference of Decrypt).
            response = self._kms().decrypt(
                KeyId=arn, CiphertextBlob=wrapped, EncryptionContext=_encryption_context(location)
            )
        plain: bytes = response["Plaintext"]
        return plain

    def _fetch_current_master(self) -> str:
        metadata = self._describe()
        return _master_name(metadata["Arn"], metadata.get("CurrentKeyMaterialId"))

    def _describe(self) -> dict[str, Any]:
        with self._translate_errors("describe"):
            metadata: dict[str, Any] = self._kms().describe_key(KeyId=self._key)["KeyMetadata"]
        return metadata

    def _classify(self, error: Exception) -> ServiceFailure | None:
        from botocore.exceptions import BotoCoreError, ClientError

        if isinstance(error, ClientError):
            code = str(error.response.get("Error", {}).get("Code"))
            return ServiceFailure(code, code in _PERMANENT, _ROTATION_REFUSALS.get(code))
        if isinstance(error, BotoCoreError):  # no network, no credentials, no region
            return ServiceFailure(type(error).__name__)
        return None


def _encryption_context(location: KeyLocation) -> dict[str, str]:
    return {"org": location.org_id, "certificate": location.certificate_id}


def _master_name(arn: str, material_id: str | None) -> str:
    return f"{_SCHEME}{arn}{_MATERIAL}{material_id}" if material_id else f"{_SCHEME}{arn}"
