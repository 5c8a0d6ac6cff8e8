"""Private keys under a master key: in a local folder, in AWS KMS, in Google Cloud KMS. One suite for the three."""

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
from shared.repository import default_ref
from shared.usecases.callers import Caller, Member
from shared.usecases.context import Context
from shared.usecases.jobs.reseal import reseal
from shared.usecases.orgs.default_certificate import ensure_default
from shared.usecases.orgs.organizations import get_org
from shared.usecases.servers.upload import upload_server_cert
from tests import certs
from tests.clouds import Aws, aws_environment
from tests.emulators import free_port
from tests.harness import Service, make_service
from tests.kms_server import KEY, KmsServer, serving

SECRET = b"-----BEGIN PRIVATE KEY-----"


@dataclass
class Home:
    """A where where master keys live."""

    again: Callable[[], EnvelopeSealer]  # as another process would see it
    rotate: Callable[[], object]  # a new master key, made by whoever runs the platform
    gone: Callable[[], None] | None  # the master key's home does not answer from now on

    @property
    def sealer(self) -> EnvelopeSealer:
        return self.again()


@pytest.fixture(params=["local", "aws", "gcp"])
def home(request: pytest.FixtureRequest) -> Home:
    found: Home = request.getfixturevalue(f"{request.param}_home")
    return found


@pytest.fixture
def local_home(tmp_path: Path) -> Home:
    def again() -> LocalSealer:
        return LocalSealer(tmp_path / "keys")

    return Home(again, lambda: again().rotate(), None)


@pytest.fixture
def aws_home(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An alias; re-pointing it is how a new key comes into force."""
    kms = aws.client("kms")
    alias = f"alias/trust-{free_port()}-{kms.create_key()['KeyMetadata']['KeyId']}"
    kms.create_alias(AliasName=alias, TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])

    def rotate() -> None:
        kms.update_alias(AliasName=alias, TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])

    def gone() -> None:
        aws_environment(monkeypatch, f"http://127.0.0.1:{free_port()}")

    return Home(lambda: AwsKmsSealer(alias), rotate, gone)


@pytest.fixture
def kms_server() -> Iterator[KmsServer]:
    with serving() as server:
        yield server


@pytest.fixture
def gcp_home(kms_server: KmsServer) -> Home:
    def again() -> GcpKmsSealer:
        return GcpKmsSealer(KEY, connect=kms_server.client)

    def gone() -> None:
        kms_server.address = f"127.0.0.1:{free_port()}"

    return Home(again, lambda: again().rotate(), gone)


def sealed_by(sealer: EnvelopeSealer) -> Sealed:
    return sealer.seal(SECRET, org_id="mtxpd0", certificate_id="42")


def opened_by(sealer: EnvelopeSealer, sealed: Sealed, *, org_id: str = "mtxpd0", certificate_id: str = "42") -> bytes:
    return sealer.open(sealed, org_id=org_id, certificate_id=certificate_id)


def test_a_sealed_key_opens_for_its_place_in_another_process(home: Home) -> None:
    """What one function sealed, another opens."""
    assert opened_by(home.again(), sealed_by(home.again())) == SECRET


def test_nothing_of_the_secret_is_in_what_is_stored(home: Home) -> None:
    """A copy of the store alone opens no private key, and two seals of one key do not look alike."""
    one, two = sealed_by(home.sealer), sealed_by(home.sealer)
    assert SECRET not in one.ciphertext
    assert SECRET not in one.wrapped
    assert one.ciphertext != two.ciphertext
    assert one.wrapped != two.wrapped


@pytest.mark.parametrize("where", [{"org_id": "other1"}, {"certificate_id": "43"}])
def test_a_sealed_key_moved_to_another_document_does_not_open(home: Home, where: dict[str, str]) -> None:
    """Whoever can write to the store cannot make one org's key serve as another's."""
    sealer = home.sealer
    with pytest.raises(SealBroken):
        opened_by(sealer, sealed_by(sealer), **where)


@pytest.mark.parametrize("part", ["ciphertext", "wrapped", "nonce"])
def test_a_sealed_key_that_was_changed_does_not_open(home: Home, part: str) -> None:
    """One changed bit is noticed, wherever it is."""
    sealed = sealed_by(home.sealer)
    data: bytes = getattr(sealed, part)
    changed = msgspec.structs.replace(sealed, **{part: data[:-1] + bytes([data[-1] ^ 1])})
    with pytest.raises(SealBroken):
        opened_by(home.sealer, changed)


def test_the_data_key_of_one_secret_does_not_open_another(home: Home) -> None:
    """Parts of two sealed keys do not fit together."""
    one, two = sealed_by(home.sealer), sealed_by(home.sealer)
    with pytest.raises(SealBroken):
        opened_by(home.sealer, msgspec.structs.replace(one, wrapped=two.wrapped))


def test_the_master_key_itself_is_bound_to_the_place(home: Home) -> None:
    """Whoever may use the master key, but only for one org, cannot unwrap another org's data key with it."""
    sealer = home.sealer
    sealed = sealed_by(sealer)
    with pytest.raises(SealBroken):
        sealer._unwrap(sealed.master, sealed.wrapped, KeyLocation("other1", "42"))
    assert len(sealer._unwrap(sealed.master, sealed.wrapped, KeyLocation("mtxpd0", "42"))) == 32


def test_the_secret_itself_is_bound_to_the_place(home: Home) -> None:
    """And where the data key is known for another where, the secret still does not open there."""
    sealer = home.sealer
    key = sealer._new_data_key(KeyLocation("other1", "42"))
    nonce = b"n" * 12
    moved = Sealed(key.master, key.wrapped, nonce, AESGCM(key.plain).encrypt(nonce, SECRET, b"mtxpd0/42"))
    with pytest.raises(SealBroken):
        opened_by(sealer, moved, org_id="other1")


def test_reseal_moves_every_key_to_the_new_master_key(home: Home, tmp_path: Path) -> None:
    """`python -m functions.admin reseal`: afterwards nothing is left under the old master key; twice is harmless."""
    service = make_service(tmp_path / "data")
    context, sealer = service.app.context, home.again()
    with pytest.raises(SealBroken, match="platform/default"):
        reseal(context, sealer)  # the service's own key lies in a folder: what does not open is named, and stays
    ensure_new_default(context, sealer)
    host = certs.server(service.host())
    upload_server_cert(context, sealer, member(service), host.pem.encode(), private_key=host.key_pem.encode())
    assert reseal(context, sealer) == (0, 2)
    home.rotate()
    later = home.again()
    assert reseal(context, later) == (2, 0)
    assert reseal(context, later) == (0, 2)
    service.app.close()


def ensure_new_default(context: Context, sealer: KeySealer) -> None:
    context.repository.delete(default_ref())
    assert ensure_default(context, sealer)


def member(service: Service) -> Member:
    return Member(Caller("test", Role.OPERATOR, service.org_id), get_org(service.app.context, service.org_id))


def test_a_new_master_key_seals_and_the_old_one_still_opens(home: Home) -> None:
    """Rotation: nothing becomes unreadable, and what is under the old master key is known."""
    old = sealed_by(home.sealer)
    assert home.again().is_current(old)
    home.rotate()
    new = sealed_by(home.again())
    later = home.again()
    assert (later.is_current(old), later.is_current(new)) == (False, True)
    assert opened_by(later, old) == opened_by(later, new) == SECRET


@pytest.mark.parametrize("master", ["", "local:../../etc/passwd", "awskms:", "gcpkms:", "elsewhere:1"])
def test_a_master_key_of_another_home_is_no_master_key_here(home: Home, master: str) -> None:
    """After a move to another cloud, or with a changed name, a key does not open; nothing else is tried."""
    with pytest.raises(SealBroken):
        opened_by(home.sealer, msgspec.structs.replace(sealed_by(home.sealer), master=master))


def test_a_sealed_key_shows_neither_ciphertext_nor_key(home: Home) -> None:
    """It may stand in a log line."""
    sealed = sealed_by(home.sealer)
    assert repr(sealed) == f"Sealed(master={sealed.master!r})"


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_a_key_service_that_does_not_answer_is_a_503_and_no_lost_key(
    cloud: str, request: pytest.FixtureRequest
) -> None:
    """Sealing and opening say "try again"; SealBroken would say that the key is lost."""
    home: Home = request.getfixturevalue(f"{cloud}_home")
    sealed = sealed_by(home.sealer)
    assert home.gone is not None
    home.gone()
    with pytest.raises(KeysUnavailable) as refusal:
        sealed_by(home.again())
    assert isinstance(refusal.value, StoreUnavailable)
    with pytest.raises(KeysUnavailable):
        opened_by(home.again(), sealed)
    with pytest.raises(KeysUnavailable):
        home.again().is_current(sealed)


@pytest.mark.parametrize("keys", ["awskms:alias/trust", f"gcpkms:{KEY}"])
def test_a_function_that_never_opens_a_key_asks_no_key_service(
    keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting chooses the sealer; its client is made at the first seal, so verifyClient never pays for it."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    app = build(Settings.from_env({"TRUST_KEYS": keys, "TRUST_DATA": str(tmp_path)}))
    assert isinstance(app.sealer, AwsKmsSealer | GcpKmsSealer)
    assert app.sealer._client is None
    app.close()


# ------------------------------------------------------------------------------------------------------------ AWS


def test_aws_another_key_in_the_setting_seals_and_the_one_before_still_opens(aws: Aws) -> None:
    """TRUST_KEYS may be pointed at another key; `reseal` then moves what is under the old one."""
    kms = aws.client("kms")
    first, second = (AwsKmsSealer(kms.create_key()["KeyMetadata"]["KeyId"]) for _ in range(2))
    old = sealed_by(first)
    assert opened_by(second, old) == SECRET
    assert not second.is_current(old)
    assert second.is_current(sealed_by(second))


def test_aws_rotation_on_demand_is_asked_of_kms_and_what_was_sealed_opens(aws: Aws) -> None:
    """`reseal --rotate` really rotates the key in KMS (moto keeps count)."""
    kms = aws.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    sealer = AwsKmsSealer(key)
    old = sealed_by(sealer)
    sealer.rotate()
    assert [one["RotationType"] for one in kms.list_key_rotations(KeyId=key)["Rotations"]] == ["ON_DEMAND"]
    assert opened_by(sealer, old) == SECRET


ARN = "arn:aws:kms:eu-central-1:123456789012:key/0"


class Script:
    """KMS's answers as its API reference shows them, one after the other; what moto does not play."""

    def __init__(self) -> None:
        import boto3
        from botocore.stub import Stubber

        self.kms = boto3.client("kms", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
        self.answers = Stubber(self.kms)
        self.answers.activate()

    def then(self, call: str, **answer: Any) -> "Script":
        self.answers.add_response(call, answer)
        return self

    def fails(self, call: str, code: str) -> "Script":
        self.answers.add_client_error(call, code, "message")
        return self

    def sealer(self) -> AwsKmsSealer:
        return AwsKmsSealer(ARN, connect=lambda: self.kms, sleep=lambda _: None)


def _made(material: str) -> dict[str, Any]:
    return {"KeyId": ARN, "Plaintext": b"k" * 32, "CiphertextBlob": b"wrapped", "KeyMaterialId": material}


def test_aws_new_material_of_the_same_key_is_a_new_master_key() -> None:
    """KMS keeps the key's ARN when it rotates; the id of the material tells old from new."""
    old, new = "a" * 64, "b" * 64
    described = {"KeyId": "0", "Arn": ARN}
    script = Script().then("generate_data_key", **_made(old)).then("describe_key", KeyMetadata=described)
    script.then("rotate_key_on_demand", KeyId="0")
    script.then("get_key_rotation_status", KeyRotationEnabled=True, OnDemandRotationStartDate=0)  # under way
    script.then("get_key_rotation_status", KeyRotationEnabled=True)
    script.then("describe_key", KeyMetadata={**described, "CurrentKeyMaterialId": new})
    script.then("generate_data_key", **_made(new))
    sealer = script.sealer()
    before = sealed_by(sealer)
    assert sealer.is_current(before)
    assert sealer.rotate() == f"awskms:{ARN}#{new}"
    assert not sealer.is_current(before)
    assert sealer.is_current(sealed_by(sealer))
    script.answers.assert_no_pending_responses()


@pytest.mark.parametrize("code", ["DisabledException", "KMSInvalidStateException", "NotFoundException"])
def test_aws_a_key_that_is_disabled_or_gone_is_told_apart_from_a_failure(code: str) -> None:
    """Retrying does not enable a key: whoever runs the platform must."""
    script = Script().then("generate_data_key", **_made("a" * 64)).fails("decrypt", code)
    sealer = script.sealer()
    with pytest.raises(SealBroken, match=code):
        opened_by(sealer, sealed_by(sealer))


@pytest.mark.parametrize("code", ["ThrottlingException", "KMSInternalException", "AccessDeniedException"])
def test_aws_a_failure_that_may_pass_is_a_503(code: str) -> None:
    """Throttled, broken, or a role that is not granted yet: the key is not lost."""
    script = Script().then("generate_data_key", **_made("a" * 64)).fails("decrypt", code)
    sealer = script.sealer()
    with pytest.raises(KeysUnavailable):
        opened_by(sealer, sealed_by(sealer))


def test_aws_a_disabled_key_seals_nothing_and_nothing_is_half_done() -> None:
    """An upload is refused before anything is stored."""
    with pytest.raises(KeysUnavailable):
        sealed_by(Script().fails("generate_data_key", "DisabledException").sealer())


def test_aws_a_key_that_cannot_rotate_says_what_to_do_instead() -> None:
    """AWS allows a limited number of rotations on demand."""
    script = Script().then("describe_key", KeyMetadata={"KeyId": "0", "Arn": ARN})
    with pytest.raises(RotationRefused, match="Make another key"):
        script.fails("rotate_key_on_demand", "LimitExceededException").sealer().rotate()


# --------------------------------------------------------------------------------------------------------- Google


def test_gcp_a_disabled_version_does_not_open_what_it_sealed(gcp_home: Home, kms_server: KmsServer) -> None:
    """FAILED_PRECONDITION is no outage: the version must be enabled again."""
    sealed = sealed_by(gcp_home.sealer)
    kms_server.versions["1"].enabled = False
    with pytest.raises(SealBroken):
        opened_by(gcp_home.sealer, sealed)
    with pytest.raises(KeysUnavailable):
        sealed_by(gcp_home.sealer)


@pytest.mark.parametrize("calls", [1, 2])
def test_gcp_an_answer_damaged_on_its_way_is_never_believed(calls: int, gcp_home: Home, kms_server: KmsServer) -> None:
    """A wrapped key that was damaged would lock the private key away for good: asked again once, then refused."""
    kms_server.damage = calls
    if calls == 1:
        assert opened_by(gcp_home.sealer, sealed_by(gcp_home.sealer)) == SECRET
    else:
        with pytest.raises(KeysUnavailable):
            sealed_by(gcp_home.sealer)


@pytest.mark.parametrize("calls", [1, 2])
def test_gcp_an_opened_key_damaged_on_its_way_is_asked_for_again(
    calls: int, gcp_home: Home, kms_server: KmsServer
) -> None:
    """The same for opening; "damaged on the way" is not "does not open"."""
    sealed = sealed_by(gcp_home.sealer)
    kms_server.damage = calls
    if calls == 1:
        assert opened_by(gcp_home.sealer, sealed) == SECRET
    else:
        with pytest.raises(KeysUnavailable):
            opened_by(gcp_home.sealer, sealed)


def test_gcp_a_reseal_after_a_rotation_uses_the_new_version_at_once(gcp_home: Home, kms_server: KmsServer) -> None:
    """Google: Encrypt may use the old primary for hours after a change; the process that rotated names the new one."""
    sealer = gcp_home.sealer
    name = sealer.rotate()
    kms_server.lag = 10
    sealed = sealed_by(sealer)
    assert sealed.master == name
    assert sealer.is_current(sealed)


def test_gcp_resealing_a_fleet_asks_for_the_current_version_once(gcp_home: Home, kms_server: KmsServer) -> None:
    """Google allows few reads of a key's metadata a minute: not one for each private key."""
    sealed = sealed_by(gcp_home.sealer)
    sealer = gcp_home.again()
    assert all(sealer.is_current(sealed) for _ in range(50))
    assert kms_server.calls.count("GetCryptoKey") == 1


def test_gcp_another_key_than_the_one_in_the_setting_opens_what_it_sealed(kms_server: KmsServer) -> None:
    """TRUST_KEYS may be pointed at another key: the sealed key names its own."""
    sealed = sealed_by(GcpKmsSealer(KEY, connect=kms_server.client))
    assert opened_by(GcpKmsSealer(f"{KEY}2", connect=kms_server.client), sealed) == SECRET
