"""Retries of requests to a store in the cloud.

The retries of the vendors' clients are switched off. They may take a minute, and they hide from the adapter that an
earlier attempt of a write may have succeeded.
"""

import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from shared.errors import StoreUnavailable

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.025  # seconds; doubled after each attempt
_LONGEST_PAUSE: Final = 0.4


class RetryBudget(msgspec.Struct, frozen=True):
    """The time limit of one request to a store, including all its attempts.

    Args:
        seconds: the time limit. A verdict has two seconds in all.
        clock: returns monotonic seconds.
        sleep: waits for seconds.
    """

    seconds: float = 1.8
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    @property
    def attempt_seconds(self) -> float:
        """The timeout of one attempt: less than half, so that a second attempt is possible after a timeout."""
        return self.seconds * 0.45

    def run(self, attempt: Callable[[int], T], is_transient: Callable[[Exception], bool]) -> T:
        """Return the result of *attempt*; repeat it after transient errors while there is time for a whole attempt.

        Pauses between attempts are random and grow.

        Args:
            attempt: called with the number of the attempt, beginning with 1.
            is_transient: whether another attempt may succeed after this error.

        Raises: StoreUnavailable, when the budget is used up, and every error that is not transient.
        """
        last_start = self.clock() + self.seconds - self.attempt_seconds
        longest_pause = _FIRST_PAUSE
        number = 0
        while True:
            number += 1
            try:
                return attempt(number)
            except Exception as error:
                if not is_transient(error):
                    raise
                pause = random.uniform(0, longest_pause)  # noqa: S311 - spreads callers apart
                if self.clock() + pause > last_start:
                    raise StoreUnavailable from error
            self.sleep(pause)
            longest_pause = min(2 * longest_pause, _LONGEST_PAUSE)
