"""A moment answers comparisons with dates, and knows until when each of its answers holds."""

import datetime as dt
from collections.abc import Callable

import pytest

from shared.x509.moment import Moment, seconds_of

NOON = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)
FRACTIONS = [dt.timedelta(microseconds=micros) for micros in (0, 1, 500_000, 999_999)]
FIRST = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
LAST = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)  # "no well-defined expiration date" (RFC 5280, 4.1.2.5)
DATES = [FIRST, NOON - 2 * SECOND, NOON - SECOND, NOON, NOON + SECOND, NOON + 2 * SECOND, LAST]


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_both_ends_of_a_validity_are_inside(fraction: dt.timedelta) -> None:
    """Dates are whole seconds, and each second counts as a whole."""
    moment = Moment(NOON + fraction)
    assert [moment.is_before(date) for date in DATES] == [False, False, False, False, True, True, True]
    assert [moment.is_after(date) for date in DATES] == [True, True, True, False, False, False, False]


@pytest.mark.parametrize("compare", [Moment.is_before, Moment.is_after])
@pytest.mark.parametrize("date", DATES)
@pytest.mark.parametrize("fraction", FRACTIONS)
def test_a_comparison_has_one_answer_in_its_window_and_the_other_beyond(
    compare: Callable[[Moment, dt.datetime], bool], date: dt.datetime, fraction: dt.timedelta
) -> None:
    """Every second around *date* is tried: the answer is the same exactly where the window says so."""
    moment = Moment(NOON + fraction)
    answer = compare(moment, date)
    for second in range(-4, 5):
        try:
            other = date + second * SECOND
        except OverflowError:
            continue
        assert (compare(Moment(other), date) == answer) == (seconds_of(other) in moment.window), second


def test_the_window_is_that_of_all_comparisons() -> None:
    moment = Moment(NOON)
    assert not moment.is_before(NOON - 10 * SECOND)
    assert not moment.is_before(NOON - 5 * SECOND)
    assert not moment.is_after(NOON + 3 * SECOND)
    assert not moment.is_after(NOON + 7 * SECOND)
    noon = seconds_of(NOON)
    assert moment.window == range(noon - 5, noon + 4)  # the second 3 s after noon is inside, the next is not


def test_a_moment_without_comparisons_holds_always() -> None:
    assert all(seconds_of(date) in Moment(NOON).window for date in DATES)


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="naive"):
        Moment(NOON.replace(tzinfo=None))
