"""KeySealer whose master key is in AWS KMS (TRUST_KEYS=awskms:<key id, ARN or alias>).

GenerateDataKey makes each data key; org and certificate id are its encryption context, so KMS itself refuses to open
it for another place, and CloudTrail tells which certificate a key was opened for. What a secret is sealed under is
named by the key's ARN and the id of its key material:

* RotateKeyOnDemand gives the key new material: the name changes, KMS goes on opening what the old material sealed.
* Pointing the setting (or an alias) at another key does the same; the old key must stay enabled until `reseal` ran.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from shared.adapters.envelope import DataKey, KeyLocation, KeyServiceSealer, Trouble
from shared.errors import RotationRefused
from shared.ports import SealBroken

log = logging.getLogger(__name__)

_SCHEME: Final = "awskms:"
_MATERIAL: Final = "#"  # between ARN and material id: neither holds one
# What retrying cannot mend: another place, a changed blob, a key that is disabled, pending deletion or gone.
_BROKEN: Final = frozenset(
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
_ROTATION_SECONDS: Final = 60.0  # how long a rotation may take to come into force


def _connect() -> Any:
    import boto3
    from botocore.config import Config

    # A person waits for the answer: two tries of a few seconds, not botocore's minute.
    return boto3.client(
        "kms", config=Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 2, "mode": "standard"})
    )


class AwsKmsSealer(KeyServiceSealer):
    """
    Args:
        key: id, ARN or alias (`alias/…`) of a symmetric encryption key; an ARN where it is another account's.
        connect: makes the client, at the first call.
    """

    def __init__(
        self, key: str, *, connect: Callable[[], Any] = _connect, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        super().__init__(key, connect=connect)
        self._sleep = sleep

    def rotate(self) -> str:
        """Give the key new key material (RotateKeyOnDemand), and wait until it is in force.

        Raises: RotationRefused, KeysUnavailable."""
        key_id = self._describe()["KeyId"]
        with self._asking("rotate", refused=RotationRefused):
            self._kms().rotate_key_on_demand(KeyId=key_id)
            deadline = time.monotonic() + _ROTATION_SECONDS
            while "OnDemandRotationStartDate" in self._kms().get_key_rotation_status(KeyId=key_id):
                if time.monotonic() > deadline:
                    log.warning("the key's rotation is still under way", extra={"key": self._key})
                    break
                self._sleep(1)
        self._remembered.forget()
        return self._current()

    def _new_data_key(self, place: KeyLocation) -> DataKey:
        with self._asking("seal"):
            made = self._kms().generate_data_key(KeyId=self._key, KeySpec="AES_256", EncryptionContext=_context(place))
        master = _name(made["KeyId"], made.get("KeyMaterialId"))
        self._remembered.set(master)
        return DataKey(master, made["CiphertextBlob"], made["Plaintext"])

    def _unwrap(self, master: str, wrapped: bytes, place: KeyLocation) -> bytes:
        arn, _, _ = master.removeprefix(_SCHEME).partition(_MATERIAL)
        if not master.startswith(_SCHEME) or not arn:
            raise SealBroken(f"the master key {master!r} is not here")
        with self._asking("open", refused=SealBroken):
            # Naming the key makes KMS refuse a blob that another key wrapped (AWS's own advice for Decrypt).
            opened = self._kms().decrypt(KeyId=arn, CiphertextBlob=wrapped, EncryptionContext=_context(place))
        plain: bytes = opened["Plaintext"]
        return plain

    def _current(self) -> str:
        name = self._remembered.get()
        if name is None:
            found = self._describe()
            name = _name(found["Arn"], found.get("CurrentKeyMaterialId"))
            self._remembered.set(name)
        return name

    def _describe(self) -> dict[str, Any]:
        with self._asking("describe"):
            found: dict[str, Any] = self._kms().describe_key(KeyId=self._key)["KeyMetadata"]
        return found

    def _errors(self) -> tuple[type[Exception], ...]:
        from botocore.exceptions import BotoCoreError, ClientError

        return ClientError, BotoCoreError  # the latter: no network, no credentials, no region

    def _trouble(self, error: Any) -> Trouble:
        answer = getattr(error, "response", None)
        if answer is None:
            return Trouble(type(error).__name__)
        code = str(answer.get("Error", {}).get("Code"))
        return Trouble(code, lasting=code in _BROKEN, unrotatable=_UNROTATABLE.get(code))


_ANOTHER: Final = "Make another key and point TRUST_KEYS (or its alias) at it; the old one must stay enabled."
_UNROTATABLE: Final = {
    "ConflictException": ("a rotation is under way already", "Repeat it when that is done."),
    "LimitExceededException": ("it was rotated on demand as often as AWS allows", _ANOTHER),
    "UnsupportedOperationException": ("its kind does not rotate on demand", _ANOTHER),
    "KMSInvalidStateException": ("it is not enabled", "Enable it."),
    "DisabledException": ("it is not enabled", "Enable it."),
}


def _context(place: KeyLocation) -> dict[str, str]:
    return {"org": place.org_id, "certificate": place.certificate_id}


def _name(arn: str, material: str | None) -> str:
    return f"{_SCHEME}{arn}{_MATERIAL}{material}" if material else f"{_SCHEME}{arn}"
