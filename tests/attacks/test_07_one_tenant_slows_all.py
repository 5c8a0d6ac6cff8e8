"""Row 7: an organization that opens costly key files and makes large keys must not slow the others.

The pace of changes is set so high that nothing but the mechanism itself protects the neighbours.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from benchmarks.faults.neighbours import PROMISED, Busy, Costs, Neighbour, measure
from demo.stack import ApiRefused
from tests.attacks.rig import Attacked, attacked

pytestmark = pytest.mark.slow

SECONDS: Final = 8.0


@pytest.fixture
def functions(tmp_path: Path) -> Iterator[Attacked]:
    with attacked(tmp_path) as running:
        yield running


@pytest.fixture
def neighbour(functions: Attacked) -> Neighbour:
    return Neighbour(functions, functions.folder, "good01")


@pytest.fixture
def busy(functions: Attacked) -> Busy:
    return Busy(functions, functions.folder, "evil01")


def in_time(costs: Costs, callers: int) -> None:
    sys.stdout.write(f"{costs}\n")
    assert costs.sent >= callers
    assert costs.refused == []
    assert max(costs.verdicts) < PROMISED, str(costs)
    assert max(costs.polls) < PROMISED, str(costs)
    assert max(costs.withdrawn) < PROMISED, str(costs)


@pytest.mark.parametrize("callers", [8, 32])
def test_wrong_passphrases_delay_no_verdict_and_no_withdrawal(neighbour: Neighbour, busy: Busy, callers: int) -> None:
    """Key files at the rounds limit, with wrong passphrases, from *callers* at the same time."""
    in_time(measure(neighbour, busy, callers, busy.try_passphrase, seconds=SECONDS), callers)


@pytest.mark.parametrize("callers", [8, 32])
def test_rsa_keys_delay_no_verdict_and_no_withdrawal(neighbour: Neighbour, busy: Busy, callers: int) -> None:
    """Requests for RSA-4096 keys from *callers* at the same time."""
    in_time(measure(neighbour, busy, callers, busy.make_rsa_key, seconds=SECONDS), callers)


def test_a_wrong_passphrase_counts_as_an_attempt(tmp_path: Path) -> None:
    """An organization has as many attempts in a minute as new server certificates; the next is refused at once."""
    with attacked(tmp_path, TRUST_RATE_PER_MINUTE="3") as running:
        trying = Busy(running, tmp_path, "evil01")
        statuses = []
        for _ in range(7):  # a new minute may begin once within this loop
            try:
                trying.try_passphrase()
            except ApiRefused as refused:
                statuses.append(refused.status)
        assert set(statuses) == {422, 429}, statuses
