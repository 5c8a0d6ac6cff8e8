"""A daily warning about each key that proves names on every listener of its broker.

Keys made before keys could name a listener keep working, and the warning says what to do.
"""

import logging
from datetime import date, datetime
from threading import Lock
from typing import Final

log = logging.getLogger(__name__)

_KEYS_MAX: Final = 10_000  # whose last warning is remembered; beyond, keys are warned about again

_warned: Final[dict[str, date]] = {}
_lock: Final = Lock()


def warn_daily(key: str, at: datetime) -> None:
    """Log a warning about *key*, once a day in each process."""
    today = at.date()
    with _lock:
        if _warned.get(key) == today:
            return
        if len(_warned) >= _KEYS_MAX:
            _warned.clear()
        _warned[key] = today
    log.warning(
        "a broker's key names no listener, so a client of any listener can type a device's name; make a key with "
        "--proof broker --listener NAME, and revoke this key",
        extra={"key": key},
    )
