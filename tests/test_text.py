"""Text for people."""

import contextlib
import datetime as dt
import locale

import pytest

from shared.text import format_time, printable


def test_times_are_in_english_whatever_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    before = locale.setlocale(locale.LC_TIME)
    with contextlib.suppress(locale.Error):  # a machine without German formats times in English anyway
        locale.setlocale(locale.LC_TIME, "")
    try:
        text = format_time(dt.datetime(2026, 12, 16, 9, 30, tzinfo=dt.UTC))
    finally:
        locale.setlocale(locale.LC_TIME, before)
    assert text == "16 Dec 2026, 09:30 UTC"


def test_times_are_in_utc() -> None:
    east = dt.timezone(dt.timedelta(hours=10))
    assert format_time(dt.datetime(2026, 1, 1, 5, 7, tzinfo=east)) == "31 Dec 2025, 19:07 UTC"


def test_text_is_cut_and_unprintable_characters_become_question_marks() -> None:
    assert printable("a\nb\u202ec\0\x7fé", 6) == "a?b?c?"
