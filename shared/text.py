"""Text for people: printable characters, and times in English."""

from datetime import UTC, datetime
from typing import Final

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def printable(text: str, limit: int) -> str:
    """Return the first *limit* characters of *text*, each unprintable one replaced by "?"."""
    cut = text[:limit]
    return cut if cut.isprintable() else "".join(char if char.isprintable() else "?" for char in cut)


def format_age(moment: datetime, now: datetime) -> str:
    """Return how long before or after *now* a moment is, both aware: `5 days ago`, `in 2 hours`."""
    seconds = int(abs((now - moment).total_seconds()))
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            number = seconds // length
            distance = f"{number:,} {unit}{'s' if number > 1 else ''}"
            break
    else:
        distance = "less than a minute"
    return f"{distance} ago" if moment <= now else f"in {distance}"


def format_time(moment: datetime) -> str:
    """Return *moment*, an aware time, as `16 Dec 2026, 09:30 UTC`.

    The month is English in every locale; `strftime` would follow the locale."""
    utc = moment.astimezone(UTC)
    return f"{utc.day} {_MONTHS[utc.month - 1]} {utc.year}, {utc.hour:02}:{utc.minute:02} UTC"
