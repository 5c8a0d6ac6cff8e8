"""Google Cloud KMS on this machine: the real gRPC wire and messages, AES-256-GCM instead of an HSM.

Answers as the reference of google.cloud.kms.v1.KeyManagementService says: an encrypt names the version it used, a
decrypt finds it in the ciphertext, checksums that were sent are verified, a disabled version is FAILED_PRECONDITION.
"""

import secrets
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import grpc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.cloud import kms_v1
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcTransport

KEY = "projects/trust/locations/europe-west1/keyRings/trust/cryptoKeys/master"
_ENABLED = kms_v1.CryptoKeyVersion.CryptoKeyVersionState.ENABLED
_DISABLED = kms_v1.CryptoKeyVersion.CryptoKeyVersionState.DISABLED


@dataclass
class Version:
    key: AESGCM = field(default_factory=lambda: AESGCM(AESGCM.generate_key(256)))
    enabled: bool = True


@dataclass
class KmsServer:
    """One crypto key and its versions."""

    address: str = ""
    versions: dict[str, Version] = field(default_factory=lambda: {"1": Version()})
    primary: str = "1"
    damage: int = 0  # so many answers are damaged on their way back
    lag: int = 0  # so many encrypts still use the first version, as a service that is "eventually consistent" may
    calls: list[str] = field(default_factory=list)

    def client(self) -> kms_v1.KeyManagementServiceClient:
        channel = grpc.insecure_channel(self.address)
        return kms_v1.KeyManagementServiceClient(transport=KeyManagementServiceGrpcTransport(channel=channel))

    def encrypt(self, asked: kms_v1.EncryptRequest, context: grpc.ServicerContext) -> kms_v1.EncryptResponse:
        key, _, number = asked.name.partition("/cryptoKeyVersions/")
        self._check(key == KEY, context, grpc.StatusCode.NOT_FOUND)
        if not number:
            number = "1" if self.lag else self.primary
            self.lag = max(0, self.lag - 1)
        version = self.versions[number]
        self._check(version.enabled, context, grpc.StatusCode.FAILED_PRECONDITION)
        aad = asked.additional_authenticated_data
        self._check(asked.plaintext_crc32c == google_crc32c.value(asked.plaintext), context)
        self._check(asked.additional_authenticated_data_crc32c == google_crc32c.value(aad), context)
        nonce = secrets.token_bytes(12)
        sealed = number.encode() + b":" + nonce + version.key.encrypt(nonce, asked.plaintext, aad)
        return kms_v1.EncryptResponse(
            name=f"{KEY}/cryptoKeyVersions/{number}",
            ciphertext=self._damaged(sealed),
            ciphertext_crc32c=google_crc32c.value(sealed),
            verified_plaintext_crc32c=True,
            verified_additional_authenticated_data_crc32c=True,
        )

    def decrypt(self, asked: kms_v1.DecryptRequest, context: grpc.ServicerContext) -> kms_v1.DecryptResponse:
        self._check(asked.name == KEY, context, grpc.StatusCode.NOT_FOUND)
        self._check(asked.ciphertext_crc32c == google_crc32c.value(asked.ciphertext), context)
        number, _, rest = asked.ciphertext.partition(b":")
        version = self.versions.get(number.decode())
        self._check(version is not None and version.enabled, context, grpc.StatusCode.FAILED_PRECONDITION)
        assert version is not None
        try:
            plain = version.key.decrypt(rest[:12], rest[12:], asked.additional_authenticated_data)
        except InvalidTag:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Decryption failed: the ciphertext is invalid.")
        return kms_v1.DecryptResponse(plaintext=self._damaged(plain), plaintext_crc32c=google_crc32c.value(plain))

    def get(self, asked: kms_v1.GetCryptoKeyRequest, context: grpc.ServicerContext) -> kms_v1.CryptoKey:
        self._check(asked.name == KEY, context, grpc.StatusCode.NOT_FOUND)
        return self._key()

    def create(
        self, asked: kms_v1.CreateCryptoKeyVersionRequest, context: grpc.ServicerContext
    ) -> kms_v1.CryptoKeyVersion:
        self._check(asked.parent == KEY, context, grpc.StatusCode.NOT_FOUND)
        number = str(len(self.versions) + 1)
        self.versions[number] = Version()
        return kms_v1.CryptoKeyVersion(name=f"{KEY}/cryptoKeyVersions/{number}", state=_ENABLED)

    def set_primary(
        self, asked: kms_v1.UpdateCryptoKeyPrimaryVersionRequest, context: grpc.ServicerContext
    ) -> kms_v1.CryptoKey:
        version = self.versions.get(asked.crypto_key_version_id)
        self._check(version is not None and version.enabled, context, grpc.StatusCode.FAILED_PRECONDITION)
        self.primary = asked.crypto_key_version_id
        return self._key()

    def _key(self) -> kms_v1.CryptoKey:
        state = _ENABLED if self.versions[self.primary].enabled else _DISABLED
        primary = kms_v1.CryptoKeyVersion(name=f"{KEY}/cryptoKeyVersions/{self.primary}", state=state)
        return kms_v1.CryptoKey(name=KEY, primary=primary)

    def _check(
        self, right: bool, context: grpc.ServicerContext, status: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT
    ) -> None:
        if not right:
            context.abort(status, "refused")

    def _damaged(self, data: bytes) -> bytes:
        if not self.damage:
            return data
        self.damage -= 1
        return bytes([data[0] ^ 1]) + data[1:]


@contextmanager
def serving(server: KmsServer | None = None) -> Iterator[KmsServer]:
    """*server* (a new one where not given) on a free port of this machine."""
    kms = server or KmsServer()
    methods: dict[str, tuple[Callable[..., Any], Any, Any]] = {
        "Encrypt": (kms.encrypt, kms_v1.EncryptRequest, kms_v1.EncryptResponse),
        "Decrypt": (kms.decrypt, kms_v1.DecryptRequest, kms_v1.DecryptResponse),
        "GetCryptoKey": (kms.get, kms_v1.GetCryptoKeyRequest, kms_v1.CryptoKey),
        "CreateCryptoKeyVersion": (kms.create, kms_v1.CreateCryptoKeyVersionRequest, kms_v1.CryptoKeyVersion),
        "UpdateCryptoKeyPrimaryVersion": (
            kms.set_primary,
            kms_v1.UpdateCryptoKeyPrimaryVersionRequest,
            kms_v1.CryptoKey,
        ),
    }

    def counted(name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        def call(asked: Any, context: grpc.ServicerContext) -> Any:
            kms.calls.append(name)
            return answer(asked, context)

        return call

    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            counted(name, answer), request_deserializer=asked.deserialize, response_serializer=told.serialize
        )
        for name, (answer, asked, told) in methods.items()
    }
    running = grpc.server(futures.ThreadPoolExecutor(4))
    service = "google.cloud.kms.v1.KeyManagementService"
    running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    kms.address = f"127.0.0.1:{running.add_insecure_port('127.0.0.1:0')}"
    running.start()
    try:
        yield kms
    finally:
        running.stop(0).wait()
