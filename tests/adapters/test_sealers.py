"""Key sealers: a local folder, AWS KMS and Google Cloud KMS pass the same tests."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.adapters.aws_kms_sealer import AwsKmsSealer
from shared.adapters.envelope import EnvelopeSealer, KeyLocation
from shared.adapters.gcp_kms_sealer import GcpKmsSealer
from shared.adapters.local_sealer import LocalSealer
from shared.composition import build
from shared.config import Settings
from shared.errors import KeysUnavailable, RotationRefused, StoreUnavailable
from shared.ports import KeySealer, SealBroken
from shared.records import Role, Sealed
from shared.refs import default_ref
from shared.usecases.callers import Caller, Member
from shared.usecases.context import Context
from shared.usecases.jobs.reseal import reseal
from shared.usecases.orgs.default_certificate import ensure_default
from shared.usecases.orgs.organizations import get_org
from shared.usecases.servers.upload import upload_server_cert
from tests.support import certs
from tests.support.clouds import Aws, aws_environment
from tests.support.emulators import free_port
from tests.support.harness import Service, make_service
from tests.support.kms_server import KEY, KmsServer, serving

SECRET = b"-----BEGIN PRIVATE KEY-----"


@dataclass
class KeyStore:
    """A key service, or a folder of master keys."""

    connect: Callable[[], EnvelopeSealer]  # creates a sealer, as another process would
    rotate: Callable[[], object]  # the operator creates a new master key
    shut_down: Callable[[], None] | None  # the key service does not answer any more

    @property
    def sealer(self) -> EnvelopeSealer:
        return self.connect()


@pytest.fixture(params=["local", "aws", "gcp"])
def key_store(request: pytest.FixtureRequest) -> KeyStore:
    key_store: KeyStore = request.getfixturevalue(f"{request.param}_key_store")
    return key_store


@pytest.fixture
def local_key_store(tmp_path: Path) -> KeyStore:
    def connect() -> LocalSealer:
        return LocalSealer(tmp_path / "keys")

    return KeyStore(connect, lambda: connect().rotate(), None)


@pytest.fixture
def aws_key_store(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> KeyStore:
    """An alias in AWS KMS. A rotation changes the alias to another key."""
    kms = aws.client("kms")
    alias = f"alias/trust-{free_port()}-{kms.create_key()['KeyMetadata']['KeyId']}"
    kms.create_alias(AliasName=alias, TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])

    def rotate() -> None:
        kms.update_alias(AliasName=alias, TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])

    def shut_down() -> None:
        aws_environment(monkeypatch, f"http://127.0.0.1:{free_port()}")

    return KeyStore(lambda: AwsKmsSealer(alias), rotate, shut_down)


@pytest.fixture
def kms_server() -> Iterator[KmsServer]:
    with serving() as server:
        yield server


@pytest.fixture
def gcp_key_store(kms_server: KmsServer) -> KeyStore:
    def connect() -> GcpKmsSealer:
        return GcpKmsSealer(KEY, connect=kms_server.client)

    def shut_down() -> None:
        kms_server.address = f"127.0.0.1:{free_port()}"

    return KeyStore(connect, lambda: connect().rotate(), shut_down)


def seal(sealer: EnvelopeSealer) -> Sealed:
    return sealer.seal(SECRET, org_id="mtxpd0", certificate_id="42")


def open_sealed(sealer: EnvelopeSealer, sealed: Sealed, *, org_id: str = "mtxpd0", certificate_id: str = "42") -> bytes:
    return sealer.open(sealed, org_id=org_id, certificate_id=certificate_id)


def test_a_sealed_key_opens_in_another_process(key_store: KeyStore) -> None:
    """Functions run in separate processes: each opens keys that another sealed."""
    assert open_sealed(key_store.connect(), seal(key_store.connect())) == SECRET


def test_the_stored_form_does_not_contain_the_secret(key_store: KeyStore) -> None:
    """A copy of the store reveals no private key, and sealing a secret twice gives different ciphertexts."""
    first, second = seal(key_store.sealer), seal(key_store.sealer)
    assert SECRET not in first.ciphertext
    assert SECRET not in first.wrapped
    assert first.ciphertext != second.ciphertext
    assert first.wrapped != second.wrapped


@pytest.mark.parametrize("location", [{"org_id": "other1"}, {"certificate_id": "43"}])
def test_a_sealed_key_does_not_open_for_another_document(key_store: KeyStore, location: dict[str, str]) -> None:
    """An attacker who can write to the store cannot use an organization's key for another organization."""
    sealer = key_store.sealer
    with pytest.raises(SealBroken):
        open_sealed(sealer, seal(sealer), **location)


@pytest.mark.parametrize("part", ["ciphertext", "wrapped", "nonce"])
def test_a_changed_sealed_key_does_not_open(key_store: KeyStore, part: str) -> None:
    """Every part is authenticated: a single changed bit is detected."""
    sealed = seal(key_store.sealer)
    data: bytes = getattr(sealed, part)
    changed = msgspec.structs.replace(sealed, **{part: data[:-1] + bytes([data[-1] ^ 1])})
    with pytest.raises(SealBroken):
        open_sealed(key_store.sealer, changed)


def test_a_data_key_does_not_open_another_secret(key_store: KeyStore) -> None:
    """Parts of two sealed keys cannot be combined."""
    first, second = seal(key_store.sealer), seal(key_store.sealer)
    with pytest.raises(SealBroken):
        open_sealed(key_store.sealer, msgspec.structs.replace(first, wrapped=second.wrapped))


def test_the_wrapped_data_key_is_bound_to_the_location(key_store: KeyStore) -> None:
    """A caller that may use the master key for one organization cannot unwrap a data key of another."""
    sealer = key_store.sealer
    sealed = seal(sealer)
    with pytest.raises(SealBroken):
        sealer._unwrap(sealed.master, sealed.wrapped, KeyLocation("other1", "42"))
    assert len(sealer._unwrap(sealed.master, sealed.wrapped, KeyLocation("mtxpd0", "42"))) == 32


def test_the_secret_is_bound_to_the_location(key_store: KeyStore) -> None:
    """Even with a data key that is wrapped for the other location, the secret does not open there."""
    sealer = key_store.sealer
    key = sealer._new_data_key(KeyLocation("other1", "42"))
    nonce = b"n" * 12
    moved = Sealed(key.master, key.wrapped, nonce, AESGCM(key.plain).encrypt(nonce, SECRET, b"mtxpd0/42"))
    with pytest.raises(SealBroken):
        open_sealed(sealer, moved, org_id="other1")


def test_reseal_moves_every_key_to_the_new_master_key(key_store: KeyStore, tmp_path: Path) -> None:
    """After `python -m functions.admin reseal`, no record needs the old master key. The command may be repeated."""
    service = make_service(tmp_path / "data")
    context, sealer = service.app.context, key_store.connect()
    with pytest.raises(SealBroken, match="platform/default"):
        reseal(context, sealer)  # another sealer sealed the default certificate: its record is named and kept
    ensure_new_default(context, sealer)
    host = certs.server(service.host())
    upload_server_cert(context, sealer, member(service), host.pem.encode(), private_key=host.key_pem.encode())
    assert reseal(context, sealer) == (0, 2)
    key_store.rotate()
    later = key_store.connect()
    assert reseal(context, later) == (2, 0)
    assert reseal(context, later) == (0, 2)
    service.app.close()


def ensure_new_default(context: Context, sealer: KeySealer) -> None:
    context.repository.delete(default_ref())
    assert ensure_default(context, sealer)


def member(service: Service) -> Member:
    return Member(Caller("test", Role.OPERATOR, service.org_id), get_org(service.app.context, service.org_id))


def test_after_a_rotation_the_new_master_key_seals_and_the_old_key_still_opens(key_store: KeyStore) -> None:
    """A rotation makes no key unreadable, and `is_current` finds the keys that `reseal` must move."""
    old = seal(key_store.sealer)
    assert key_store.connect().is_current(old)
    key_store.rotate()
    new = seal(key_store.connect())
    later = key_store.connect()
    assert (later.is_current(old), later.is_current(new)) == (False, True)
    assert open_sealed(later, old) == open_sealed(later, new) == SECRET


@pytest.mark.parametrize("master", ["", "local:../../etc/passwd", "awskms:", "gcpkms:", "elsewhere:1"])
def test_the_master_key_of_another_key_service_is_refused(key_store: KeyStore, master: str) -> None:
    """After a move to another cloud, or with a changed name, a key does not open, and no other master key is tried."""
    with pytest.raises(SealBroken):
        open_sealed(key_store.sealer, msgspec.structs.replace(seal(key_store.sealer), master=master))


def test_the_repr_of_a_sealed_key_contains_no_ciphertext(key_store: KeyStore) -> None:
    """A sealed key may be logged."""
    sealed = seal(key_store.sealer)
    assert repr(sealed) == f"Sealed(master={sealed.master!r})"


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_an_unavailable_key_service_is_a_temporary_error(cloud: str, request: pytest.FixtureRequest) -> None:
    """The caller may retry (503). SealBroken would mean that the key is lost."""
    key_store: KeyStore = request.getfixturevalue(f"{cloud}_key_store")
    sealed = seal(key_store.sealer)
    assert key_store.shut_down is not None
    key_store.shut_down()
    with pytest.raises(KeysUnavailable) as refusal:
        seal(key_store.connect())
    assert isinstance(refusal.value, StoreUnavailable)
    with pytest.raises(KeysUnavailable):
        open_sealed(key_store.connect(), sealed)
    with pytest.raises(KeysUnavailable):
        key_store.connect().is_current(sealed)


@pytest.mark.parametrize("keys", ["awskms:alias/trust", f"gcpkms:{KEY}"])
def test_a_function_that_opens_no_key_makes_no_request_to_the_key_service(
    keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is created at the first seal, so it does not slow down the start of verifyClient."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    app = build(Settings.from_env({"TRUST_KEYS": keys, "TRUST_DATA": str(tmp_path)}))
    assert isinstance(app.sealer, AwsKmsSealer | GcpKmsSealer)
    assert app.sealer._client is None
    app.close()


# ------------------------------------------------------------------------------------------------------------ AWS


def test_aws_after_a_change_of_the_setting_the_new_key_seals_and_the_old_key_still_opens(aws: Aws) -> None:
    """TRUST_KEYS may be changed to another key. `reseal` then moves the secrets to the new key."""
    kms = aws.client("kms")
    first, second = (AwsKmsSealer(kms.create_key()["KeyMetadata"]["KeyId"]) for _ in range(2))
    old = seal(first)
    assert open_sealed(second, old) == SECRET
    assert not second.is_current(old)
    assert second.is_current(seal(second))


def test_aws_rotates_the_key_on_demand_and_earlier_secrets_still_open(aws: Aws) -> None:
    """`reseal --rotate` rotates the key in KMS; moto records the rotation."""
    kms = aws.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    sealer = AwsKmsSealer(key)
    old = seal(sealer)
    sealer.rotate()
    rotations = kms.list_key_rotations(KeyId=key)["Rotations"]
    assert [rotation["RotationType"] for rotation in rotations] == ["ON_DEMAND"]
    assert open_sealed(sealer, old) == SECRET


ARN = "arn:aws:kms:eu-central-1:123456789012:key/0"


class ScriptedKms:
    """A sequence of KMS responses from the API reference, for cases that moto does not simulate."""

    def __init__(self) -> None:
        import boto3
        from botocore.stub import Stubber

        self.kms = boto3.client("kms", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
        self.responses = Stubber(self.kms)
        self.responses.activate()

    def respond(self, operation: str, **response: Any) -> "ScriptedKms":
        self.responses.add_response(operation, response)
        return self

    def fail(self, operation: str, code: str) -> "ScriptedKms":
        self.responses.add_client_error(operation, code, "message")
        return self

    def sealer(self) -> AwsKmsSealer:
        return AwsKmsSealer(ARN, connect=lambda: self.kms, sleep=lambda _: None)


def _data_key(material_id: str) -> dict[str, Any]:
    return {"KeyId": ARN, "Plaintext": b"k" * 32, "CiphertextBlob": b"wrapped", "KeyMaterialId": material_id}


def test_aws_new_key_material_is_a_new_master_key() -> None:
    """A rotation keeps the key's ARN. The id of the key material distinguishes old from new."""
    old, new = "a" * 64, "b" * 64
    metadata = {"KeyId": "0", "Arn": ARN}
    kms = ScriptedKms().respond("generate_data_key", **_data_key(old)).respond("describe_key", KeyMetadata=metadata)
    kms.respond("rotate_key_on_demand", KeyId="0")
    kms.respond("get_key_rotation_status", KeyRotationEnabled=True, OnDemandRotationStartDate=0)  # in progress
    kms.respond("get_key_rotation_status", KeyRotationEnabled=True)
    kms.respond("describe_key", KeyMetadata={**metadata, "CurrentKeyMaterialId": new})
    kms.respond("generate_data_key", **_data_key(new))
    sealer = kms.sealer()
    before = seal(sealer)
    assert sealer.is_current(before)
    assert sealer.rotate() == f"awskms:{ARN}#{new}"
    assert not sealer.is_current(before)
    assert sealer.is_current(seal(sealer))
    kms.responses.assert_no_pending_responses()


@pytest.mark.parametrize("code", ["DisabledException", "KMSInvalidStateException", "NotFoundException"])
def test_aws_a_disabled_or_deleted_key_is_a_permanent_error(code: str) -> None:
    """A retry cannot succeed: the operator must enable the key."""
    kms = ScriptedKms().respond("generate_data_key", **_data_key("a" * 64)).fail("decrypt", code)
    sealer = kms.sealer()
    with pytest.raises(SealBroken, match=code):
        open_sealed(sealer, seal(sealer))


@pytest.mark.parametrize("code", ["ThrottlingException", "KMSInternalException", "AccessDeniedException"])
def test_aws_other_failures_are_temporary_errors(code: str) -> None:
    """Throttling, an internal error, or a role without permission: the key is not lost (503)."""
    kms = ScriptedKms().respond("generate_data_key", **_data_key("a" * 64)).fail("decrypt", code)
    sealer = kms.sealer()
    with pytest.raises(KeysUnavailable):
        open_sealed(sealer, seal(sealer))


def test_aws_a_disabled_key_seals_nothing() -> None:
    """An upload is refused before any write."""
    with pytest.raises(KeysUnavailable):
        seal(ScriptedKms().fail("generate_data_key", "DisabledException").sealer())


def test_aws_a_refused_rotation_has_advice() -> None:
    """AWS limits the number of rotations on demand. The error recommends a new key."""
    kms = ScriptedKms().respond("describe_key", KeyMetadata={"KeyId": "0", "Arn": ARN})
    with pytest.raises(RotationRefused, match="Make another key"):
        kms.fail("rotate_key_on_demand", "LimitExceededException").sealer().rotate()


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("LimitExceededException", r"Make another key and point TRUST_KEYS \(or its alias\) at it"),
        ("ConflictException", "Repeat it when that is done"),
        ("DisabledException", "Enable it"),
    ],
)
def test_aws_a_refused_rotation_has_advice_that_works(aws_key_store: KeyStore, code: str, advice: str) -> None:
    """The advice to the letter: the alias names another key, or the same rotation is done again."""
    metadata = {"KeyId": "0", "Arn": ARN, "CurrentKeyMaterialId": "b" * 64}
    kms = ScriptedKms().respond("describe_key", KeyMetadata=metadata).fail("rotate_key_on_demand", code)
    sealer = kms.sealer()
    with pytest.raises(RotationRefused, match=advice):
        sealer.rotate()
    if "Make another key" in advice:
        before = seal(aws_key_store.sealer)
        aws_key_store.rotate()
        assert seal(aws_key_store.sealer).master != before.master
        assert open_sealed(aws_key_store.sealer, before) == SECRET, "the old key stays enabled"
        return
    kms.respond("describe_key", KeyMetadata=metadata).respond("rotate_key_on_demand", KeyId="0")
    kms.respond("get_key_rotation_status", KeyRotationEnabled=True).respond("describe_key", KeyMetadata=metadata)
    assert sealer.rotate().endswith("b" * 64)


# --------------------------------------------------------------------------------------------------------- Google


def test_gcp_a_disabled_version_does_not_open_its_secrets(gcp_key_store: KeyStore, kms_server: KmsServer) -> None:
    """FAILED_PRECONDITION is a permanent error: the operator must enable the version."""
    sealed = seal(gcp_key_store.sealer)
    kms_server.versions["1"].enabled = False
    with pytest.raises(SealBroken):
        open_sealed(gcp_key_store.sealer, sealed)
    with pytest.raises(KeysUnavailable):
        seal(gcp_key_store.sealer)


@pytest.mark.parametrize("calls", [1, 2])
def test_gcp_a_response_with_a_wrong_checksum_is_not_used(
    calls: int, gcp_key_store: KeyStore, kms_server: KmsServer
) -> None:
    """A damaged wrapped key would make the private key unreadable. The request is repeated once, then refused."""
    kms_server.damage = calls
    if calls == 1:
        assert open_sealed(gcp_key_store.sealer, seal(gcp_key_store.sealer)) == SECRET
    else:
        with pytest.raises(KeysUnavailable):
            seal(gcp_key_store.sealer)


@pytest.mark.parametrize("calls", [1, 2])
def test_gcp_an_unwrapped_key_with_a_wrong_checksum_is_requested_again(
    calls: int, gcp_key_store: KeyStore, kms_server: KmsServer
) -> None:
    """The request is repeated once. The error is temporary, not SealBroken."""
    sealed = seal(gcp_key_store.sealer)
    kms_server.damage = calls
    if calls == 1:
        assert open_sealed(gcp_key_store.sealer, sealed) == SECRET
    else:
        with pytest.raises(KeysUnavailable):
            open_sealed(gcp_key_store.sealer, sealed)


def test_gcp_a_reseal_after_a_rotation_uses_the_new_version(gcp_key_store: KeyStore, kms_server: KmsServer) -> None:
    """Encrypt may use the old primary version for hours. The process that rotated the key names the new version."""
    sealer = gcp_key_store.sealer
    name = sealer.rotate()
    kms_server.lag = 10
    sealed = seal(sealer)
    assert sealed.master == name
    assert sealer.is_current(sealed)


def test_gcp_reseal_requests_the_current_version_once(gcp_key_store: KeyStore, kms_server: KmsServer) -> None:
    """Google limits reads of a key's metadata per minute, so there is no read for each private key."""
    sealed = seal(gcp_key_store.sealer)
    sealer = gcp_key_store.connect()
    assert all(sealer.is_current(sealed) for _ in range(50))
    assert kms_server.calls.count("GetCryptoKey") == 1


def test_gcp_after_a_change_of_the_setting_the_old_key_still_opens(kms_server: KmsServer) -> None:
    """TRUST_KEYS may be changed to another key. Each sealed key names its master key."""
    sealed = seal(GcpKmsSealer(KEY, connect=kms_server.client))
    assert open_sealed(GcpKmsSealer(f"{KEY}2", connect=kms_server.client), sealed) == SECRET
