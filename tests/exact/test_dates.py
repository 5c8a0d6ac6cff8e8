"""At every date of every certificate, a remembered answer changes in the same second as a fresh one."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Final

import pytest

from tests.exact.world import CAS, OFFSETS, ORG, Device, World, native, opened
from tests.support import certs
from tests.support.certs import NOON, Issued
from tests.support.stores import Place

pytestmark = pytest.mark.stores("sqlite")

BELOW, RSA = 0, 4  # in Fleet.devices
_MINUTE: Final = timedelta(minutes=1)


def compare_in_order(world: World, device: Device, moments: Sequence[datetime]) -> None:
    """Ask at every two of *moments*, in both orders, with a memory that knows the first of the two only."""
    request = native(device, world.brokers[0])
    for first, second in product(moments, repeat=2):
        world.memory.clear()
        for moment in (first, second):
            world.clock.now = moment
            world.compare(request)


class Dated:
    """Certificates with twelve dates within nine minutes. Each date of a CA decides which path is accepted, or none.

    Args:
        world: where the CAs are registered, one of them inactive.
    """

    def __init__(self, world: World) -> None:
        key, other = certs.key("P-256", 61), certs.key("P-256", 62)
        root = self._ca("Dated Root", None, key, -2.0, 2.0)
        renewed = self._ca("Dated Root", None, key, -1.0, 4.0)
        namesake = self._ca("Dated Root", None, other, -3.0, 1.0)
        inactive = self._ca("Dated Inactive Root", None, certs.key("P-256", 63), -3.5, 3.5)
        inter = self._ca("Dated Devices", root, certs.key("P-256", 64), -3.25, 3.0)
        crossed = self._ca("Dated Devices", inactive, inter.key, -2.5, 4.5)
        leaf = certs.leaf("d:thermo:dated", inter, not_before=NOON - 3.75 * _MINUTE, not_after=NOON + 3.25 * _MINUTE)
        for ca in (root, renewed, namesake, inactive):
            ca_id = world.operator.post(CAS, {"certificate": ca.pem}).ok(201)["id"]
            if ca is inactive:
                world.operator.put(f"{CAS}/{ca_id}", {"status": "inactive"}).ok()
        self.issued = (leaf, inter, crossed, root, renewed, namesake, inactive)
        self.device = Device("dated", f"d:{ORG}:thermo:dated", leaf, (inter, crossed))

    @staticmethod
    def _ca(name: str, signer: Issued | None, key: certs.PrivateKey, first: float, last: float) -> Issued:
        return certs.ca(name, signer, private=key, not_before=NOON + first * _MINUTE, not_after=NOON + last * _MINUTE)

    @property
    def dates(self) -> list[datetime]:
        found = {date for item in self.issued for date in (item.certificate.not_before, item.certificate.not_after)}
        return sorted(found)


def test_an_answer_changes_in_the_second_of_a_date(tmp_path: Path, place: Place) -> None:
    with opened(tmp_path, place) as world:
        dated = Dated(world)
        offsets = [timedelta(seconds=seconds) for seconds in (-0.5, 0, 0.999999, 1)]
        compare_in_order(world, dated.device, [date + offset for date in dated.dates[1::3] for offset in offsets])
        assert world.memory.answers > 10
        assert len(world.codes) >= 3


@pytest.mark.slow
def test_all_dates_with_all_offsets(tmp_path: Path, place: Place) -> None:
    with opened(tmp_path, place) as world:
        dated = Dated(world)
        compare_in_order(world, dated.device, [date + offset for date in dated.dates for offset in OFFSETS])
        assert world.memory.answers > 500


@pytest.mark.slow
@pytest.mark.parametrize("number", [BELOW, RSA])
def test_all_dates_of_the_fleet(tmp_path: Path, place: Place, number: int) -> None:
    """CAs of one name and a cross-signed intermediate are registered beside those on the path."""
    with opened(tmp_path, place) as world:
        for ca in (*world.fleet.cas, world.fleet.crossed):
            world.operator.post(CAS, {"certificate": ca.pem})
        leaf = world.fleet.devices[number].leaf
        assert leaf is not None
        issued = [leaf, world.fleet.inter, *world.fleet.cas, world.fleet.crossed]
        dates = sorted({date for item in issued for date in (item.certificate.not_before, item.certificate.not_after)})
        compare_in_order(
            world, world.fleet.devices[number], [date + offset for date in dates for offset in OFFSETS[::2]]
        )
        assert world.memory.answers > 0
