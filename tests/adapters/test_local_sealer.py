"""The local sealer: private keys sealed for one location, under master keys in files."""

from pathlib import Path

import msgspec
import pytest

from shared.adapters.local_sealer import LocalSealer
from shared.ports import SealBroken
from shared.records import Sealed

SECRET = b"a private key"


def create_sealer(folder: Path) -> LocalSealer:
    return LocalSealer(folder / "keys")


def seal(sealer: LocalSealer) -> Sealed:
    return sealer.seal(SECRET, org_id="orga01", certificate_id="1")


def test_a_sealed_key_opens_in_another_process(tmp_path: Path) -> None:
    """Another process uses the same master key, and the stored form does not contain the secret."""
    sealed = seal(create_sealer(tmp_path))
    assert create_sealer(tmp_path).open(sealed, org_id="orga01", certificate_id="1") == SECRET
    assert SECRET not in sealed.ciphertext


@pytest.mark.parametrize(("org", "certificate"), [("orgb01", "1"), ("orga01", "2")])
def test_a_sealed_key_does_not_open_for_another_location(tmp_path: Path, org: str, certificate: str) -> None:
    """Organization and certificate id are authenticated."""
    sealer = create_sealer(tmp_path)
    sealed = seal(sealer)
    with pytest.raises(SealBroken):
        sealer.open(sealed, org_id=org, certificate_id=certificate)


@pytest.mark.parametrize("part", ["wrapped", "nonce", "ciphertext"])
def test_a_changed_bit_is_detected(tmp_path: Path, part: str) -> None:
    """Every part of a sealed key is authenticated."""
    sealer = create_sealer(tmp_path)
    sealed = seal(sealer)
    data = bytearray(getattr(sealed, part))
    data[-1] ^= 1
    with pytest.raises(SealBroken):
        sealer.open(msgspec.structs.replace(sealed, **{part: bytes(data)}), org_id="orga01", certificate_id="1")


def test_a_sealed_key_does_not_open_under_other_master_keys(tmp_path: Path) -> None:
    """A restored export does not open without its master key. The error names the master key."""
    sealed = seal(create_sealer(tmp_path / "here"))
    with pytest.raises(SealBroken, match=sealed.master):
        create_sealer(tmp_path / "there").open(sealed, org_id="orga01", certificate_id="1")


def test_after_a_rotation_the_new_master_key_seals_and_the_old_key_still_opens(tmp_path: Path) -> None:
    """A rotation makes no key unreadable."""
    sealer = create_sealer(tmp_path)
    old = seal(sealer)
    sealer.rotate()
    new = seal(sealer)
    assert new.master != old.master
    assert (sealer.is_current(old), sealer.is_current(new)) == (False, True)
    assert sealer.open(old, org_id="orga01", certificate_id="1") == SECRET


def test_each_secret_has_a_data_key_of_its_own(tmp_path: Path) -> None:
    """Sealing a secret twice gives different results."""
    sealer = create_sealer(tmp_path)
    first, second = (seal(sealer) for _ in range(2))
    assert (first.wrapped, first.nonce, first.ciphertext) != (second.wrapped, second.nonce, second.ciphertext)
