"""Which sessions fall under a withdrawal, from their line in the register."""

import pytest

from edge.feed import Withdrawal
from edge.withdrawals import Session

CA = "0123456789abcdef-" + "c" * 32
KEY = f"10.0.0.1:4711|mtxpd0|d:thermo:1|{CA}|{'f' * 64}|0a1b|1821378114|{'a' * 32},{'b' * 32}"


def falls(kind: str, value: str, org: str = "mtxpd0", key: str = KEY) -> bool:
    session = Session.of(key)
    assert session is not None
    return session.falls_under(Withdrawal(org, kind, value))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("org", "mtxpd0"),
        ("identity", "d:thermo:1"),
        ("ca", CA),
        ("ca", "fedcba9876543210-" + "b" * 32),
        ("fingerprint", "f" * 64),
        ("fingerprint", "a" * 64),
        ("fingerprint", "c" * 64),
        ("serial", f"{CA}:a1b"),
        ("something new", "?"),
    ],
)
def test_a_session_ends_with_what_it_rests_on(kind: str, value: str) -> None:
    """Its org, device, certificate and CA, and the certificates it sent; in doubt it ends, and is judged anew."""
    assert falls(kind, value)
    assert not falls(kind, value, org="other1")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("identity", "d:thermo:11"),
        ("ca", "0123456789abcdef-" + "d" * 32),
        ("fingerprint", "e" * 64),
        ("serial", "0123456789abcdef-" + "d" * 32 + ":a1b"),
    ],
)
def test_other_sessions_stay(kind: str, value: str) -> None:
    """Withdrawing one thing is no reason to disturb another's devices."""
    assert not falls(kind, value)


def test_another_serial_number_of_the_same_ca_stays() -> None:
    """Where no intermediate was sent, whose number could be meant."""
    key = KEY.rpartition("|")[0] + "|"
    assert falls("serial", f"{CA}:a1b", key=key)
    assert not falls("serial", f"{CA}:a1c", key=key)


@pytest.mark.parametrize("key", ["", "a|b", KEY + "|more", KEY.replace("1821378114", "soon")])
def test_a_line_that_is_none_of_ours_is_left_alone(key: str) -> None:
    """Somebody may use a table of that name."""
    assert Session.of(key) is None
