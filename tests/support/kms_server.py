"""A local Google Cloud KMS: the real gRPC protocol and messages, with AES-256-GCM instead of an HSM.

The server follows the reference of google.cloud.kms.v1.KeyManagementService: an encrypt response names the version
used, a decrypt reads the version from the ciphertext, checksums in a request are verified, and a disabled version
fails with FAILED_PRECONDITION.
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
    damage: int = 0  # number of the next answers to damage
    lag: int = 0  # number of the next encrypts that still use version 1: the real service is eventually consistent
    calls: list[str] = field(default_factory=list)

    def client(self) -> kms_v1.KeyManagementServiceClient:
        channel = grpc.insecure_channel(self.address)
        return kms_v1.KeyManagementServiceClient(transport=KeyManagementServiceGrpcTransport(channel=channel))

    def encrypt(self, request: kms_v1.EncryptRequest, context: grpc.ServicerContext) -> kms_v1.EncryptResponse:
        key, _, number = request.name.partition("/cryptoKeyVersions/")
        self._check(key == KEY, context, grpc.StatusCode.NOT_FOUND)
        if not number:
            number = "1" if self.lag else self.primary
            self.lag = max(0, self.lag - 1)
        version = self.versions[number]
        self._check(version.enabled, context, grpc.StatusCode.FAILED_PRECONDITION)
        aad = request.additional_authenticated_data
        self._check(request.plaintext_crc32c == google_crc32c.value(request.plaintext), context)
        self._check(request.additional_authenticated_data_crc32c == google_crc32c.value(aad), context)
        nonce = secrets.token_bytes(12)
        sealed = number.encode() + b":" + nonce + version.key.encrypt(nonce, request.plaintext, aad)
        return kms_v1.EncryptResponse(
            name=f"{KEY}/cryptoKeyVersions/{number}",
            ciphertext=self._damage(sealed),
            ciphertext_crc32c=google_crc32c.value(sealed),
            verified_plaintext_crc32c=True,
            verified_additional_authenticated_data_crc32c=True,
        )

    def decrypt(self, request: kms_v1.DecryptRequest, context: grpc.ServicerContext) -> kms_v1.DecryptResponse:
        self._check(request.name == KEY, context, grpc.StatusCode.NOT_FOUND)
        self._check(request.ciphertext_crc32c == google_crc32c.value(request.ciphertext), context)
        number, _, rest = request.ciphertext.partition(b":")
        version = self.versions.get(number.decode())
        self._check(version is not None and version.enabled, context, grpc.StatusCode.FAILED_PRECONDITION)
        assert version is not None
        try:
            plain = version.key.decrypt(rest[:12], rest[12:], request.additional_authenticated_data)
        except InvalidTag:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Decryption failed: the ciphertext is invalid.")
        return kms_v1.DecryptResponse(plaintext=self._damage(plain), plaintext_crc32c=google_crc32c.value(plain))

    def get(self, request: kms_v1.GetCryptoKeyRequest, context: grpc.ServicerContext) -> kms_v1.CryptoKey:
        self._check(request.name == KEY, context, grpc.StatusCode.NOT_FOUND)
        return self._key()

    def create(
        self, request: kms_v1.CreateCryptoKeyVersionRequest, context: grpc.ServicerContext
    ) -> kms_v1.CryptoKeyVersion:
        self._check(request.parent == KEY, context, grpc.StatusCode.NOT_FOUND)
        number = str(len(self.versions) + 1)
        self.versions[number] = Version()
        return kms_v1.CryptoKeyVersion(name=f"{KEY}/cryptoKeyVersions/{number}", state=_ENABLED)

    def set_primary(
        self, request: kms_v1.UpdateCryptoKeyPrimaryVersionRequest, context: grpc.ServicerContext
    ) -> kms_v1.CryptoKey:
        version = self.versions.get(request.crypto_key_version_id)
        self._check(version is not None and version.enabled, context, grpc.StatusCode.FAILED_PRECONDITION)
        self.primary = request.crypto_key_version_id
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

    def _damage(self, data: bytes) -> bytes:
        if not self.damage:
            return data
        self.damage -= 1
        return bytes([data[0] ^ 1]) + data[1:]


@contextmanager
def serving(server: KmsServer | None = None) -> Iterator[KmsServer]:
    """Run *server*, or a new server, on a free port of this machine."""
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

    def count_calls(name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            kms.calls.append(name)
            return answer(request, context)

        return call

    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            count_calls(name, answer), request_deserializer=request.deserialize, response_serializer=response.serialize
        )
        for name, (answer, request, response) in methods.items()
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
