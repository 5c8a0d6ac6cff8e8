"""The time of a decision, which records until when the decision holds."""

from datetime import UTC, datetime, timedelta
from typing import Final

from shared.x509.certificate import whole_second

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)
ALWAYS: Final = 1 << 62  # seconds; later than every date in a certificate


def seconds_of(at: datetime) -> int:
    """Return *at*, an aware time, in whole seconds since 1970, rounded down."""
    return (at - _EPOCH) // _SECOND


class Moment:
    """The time of a decision, in whole seconds, as certificates are dated (RFC 5280, 4.1.2.5).

    A decision compares with the clock through this object only. Each comparison records the second at which its answer
    changes. So a decision that depends on nothing else than the time is the same everywhere in `window`: each of its
    comparisons has the same answer there.

    Args:
        at: an aware time.

    Raises: ValueError where *at* is naive.
    """

    __slots__ = ("_begin", "_end", "_now", "at")

    def __init__(self, at: datetime) -> None:
        self.at = whole_second(at)  # for sentences; compare with the methods
        self._now = seconds_of(self.at)
        self._begin, self._end = -ALWAYS, ALWAYS

    def is_before(self, not_before: datetime) -> bool:
        """Return whether a validity that begins at *not_before* has not begun."""
        return self._compare(seconds_of(not_before))

    def is_after(self, not_after: datetime) -> bool:
        """Return whether a validity that ends at *not_after* is over. The second *not_after* itself is inside."""
        return not self._compare(seconds_of(not_after) + 1)

    @property
    def window(self) -> range:
        """The seconds since 1970, this moment among them, in which every comparison so far has the same answer."""
        return range(self._begin, self._end)

    def _compare(self, change: int) -> bool:
        """Return whether this moment is before the second *change*, and note that the answer changes there."""
        if self._now < change:
            self._end = min(self._end, change)
            return True
        self._begin = max(self._begin, change)
        return False
