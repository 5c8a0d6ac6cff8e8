"""Certificates are valid in their period, ends included (RFC 5280, 4.1.2.5)."""

import contextlib
import datetime as dt
import locale

import pytest

from shared import errors
from shared.x509.validity import check_validity, shown_time
from tests import certs
from tests.certs import DAY, NOON

SECOND = dt.timedelta(seconds=1)
CERT = certs.ca(not_before=NOON, not_after=NOON + DAY).cert


@pytest.mark.parametrize("at", [NOON, NOON + DAY, NOON + DAY + SECOND * 0.9])
def test_both_ends_are_inside(at: dt.datetime) -> None:
    """ "through notAfter, inclusive"; the fraction of a second after it still belongs to it."""
    check_validity(CERT, at=at)


def test_before_its_begin_it_is_not_yet_valid_and_the_time_is_told() -> None:
    with pytest.raises(errors.CertificateNotYetValid, match=r"Begins 1 Jun 2026, 12:00 UTC\."):
        check_validity(CERT, at=NOON - SECOND)


def test_after_its_end_it_is_expired_and_the_time_is_told() -> None:
    with pytest.raises(errors.CertificateExpired, match=r"Ended 2 Jun 2026, 12:00 UTC\."):
        check_validity(CERT, at=NOON + DAY + SECOND)


def test_another_time_zone_is_the_same_moment() -> None:
    """12:30 at +01:00 is 11:30 UTC: before noon."""
    with pytest.raises(errors.CertificateNotYetValid):
        check_validity(CERT, at=dt.datetime(2026, 6, 1, 12, 30, tzinfo=dt.timezone(dt.timedelta(hours=1))))


def test_a_time_without_zone_is_a_mistake_in_the_program() -> None:
    with pytest.raises(ValueError, match="zone"):
        check_validity(CERT, at=dt.datetime(2026, 6, 1, 12))  # noqa: DTZ001


def test_times_are_shown_in_english_whatever_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    before = locale.setlocale(locale.LC_TIME)
    with contextlib.suppress(locale.Error):  # a machine without German shows English anyway
        locale.setlocale(locale.LC_TIME, "")
    try:
        shown = shown_time(dt.datetime(2026, 12, 16, 9, 30, tzinfo=dt.UTC))
    finally:
        locale.setlocale(locale.LC_TIME, before)
    assert shown == "16 Dec 2026, 09:30 UTC"
