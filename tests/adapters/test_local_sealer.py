"""Private keys at rest: sealed for one place, under master keys in files."""

from pathlib import Path

import msgspec
import pytest

from shared.adapters.local_sealer import LocalSealer
from shared.ports import SealBroken

SECRET = b"a private key"


def sealer(folder: Path) -> LocalSealer:
    return LocalSealer(folder / "keys")


def test_what_was_sealed_opens_for_its_place(tmp_path: Path) -> None:
    """Also in another process, which finds the same master key."""
    sealed = sealer(tmp_path).seal(SECRET, org_id="orga01", certificate_id="1")
    assert sealer(tmp_path).open(sealed, org_id="orga01", certificate_id="1") == SECRET
    assert SECRET not in sealed.ciphertext


@pytest.mark.parametrize(("org", "certificate"), [("orgb01", "1"), ("orga01", "2")])
def test_a_sealed_key_moved_to_another_place_does_not_open(tmp_path: Path, org: str, certificate: str) -> None:
    """Org and certificate id are authenticated with it."""
    one = sealer(tmp_path)
    sealed = one.seal(SECRET, org_id="orga01", certificate_id="1")
    with pytest.raises(SealBroken):
        one.open(sealed, org_id=org, certificate_id=certificate)


@pytest.mark.parametrize("part", ["wrapped", "nonce", "ciphertext"])
def test_a_changed_bit_is_noticed(tmp_path: Path, part: str) -> None:
    one = sealer(tmp_path)
    sealed = one.seal(SECRET, org_id="orga01", certificate_id="1")
    data = bytearray(getattr(sealed, part))
    data[-1] ^= 1
    with pytest.raises(SealBroken):
        one.open(msgspec.structs.replace(sealed, **{part: bytes(data)}), org_id="orga01", certificate_id="1")


def test_another_master_key_does_not_open_it(tmp_path: Path) -> None:
    """An export restored beside other master keys stays closed, and says which one it needs."""
    sealed = sealer(tmp_path / "here").seal(SECRET, org_id="orga01", certificate_id="1")
    with pytest.raises(SealBroken, match=sealed.master):
        sealer(tmp_path / "there").open(sealed, org_id="orga01", certificate_id="1")


def test_a_new_master_key_seals_and_the_old_one_still_opens(tmp_path: Path) -> None:
    one = sealer(tmp_path)
    old = one.seal(SECRET, org_id="orga01", certificate_id="1")
    one.rotate()
    new = one.seal(SECRET, org_id="orga01", certificate_id="1")
    assert new.master != old.master
    assert (one.is_current(old), one.is_current(new)) == (False, True)
    assert one.open(old, org_id="orga01", certificate_id="1") == SECRET


def test_each_secret_has_a_data_key_of_its_own(tmp_path: Path) -> None:
    one = sealer(tmp_path)
    first, second = (one.seal(SECRET, org_id="orga01", certificate_id="1") for _ in range(2))
    assert (first.wrapped, first.nonce, first.ciphertext) != (second.wrapped, second.nonce, second.ciphertext)
