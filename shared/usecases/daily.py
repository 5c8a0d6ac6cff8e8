"""What is logged once a day and process: a warning about something that every request would repeat."""

from datetime import date, datetime
from threading import Lock
from typing import Final

_SUBJECTS_MAX: Final = 10_000  # whose last day is remembered; beyond, a warning may be repeated within the day

_last: Final[dict[str, date]] = {}
_lock: Final = Lock()


def is_first_today(subject: str, at: datetime) -> bool:
    """Whether this is the first question about *subject* on the day of *at*, in this process."""
    today = at.date()
    with _lock:
        if _last.get(subject) == today:
            return False
        if len(_last) >= _SUBJECTS_MAX:
            _last.clear()
        _last[subject] = today
    return True
