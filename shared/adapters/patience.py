"""How long an adapter asks a store in the cloud, and how often.

The vendors' own retries are switched off: they may take a minute, and they hide from the adapter that an earlier try of
a write may have happened.
"""

import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from shared.errors import StoreUnavailable

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.025  # seconds; doubled at each try, up to the longest
_LONGEST_PAUSE: Final = 0.4


class RetryBudget(msgspec.Struct, frozen=True):
    """Bounds one question to a store, all its tries together.

    Args:
        seconds: after which the question is given up. One that a device waits for has two seconds in all.
    """

    seconds: float = 1.8
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    @property
    def of_one_try(self) -> float:
        """Seconds for one try: below half, so that even after a silent one there is a second."""
        return self.seconds * 0.45

    def ask(self, attempt: Callable[[], T], passes: Callable[[Exception], bool]) -> T:
        """What *attempt* gives; repeated while it fails in a way that *passes*, and a whole try is still left.

        Raises: StoreUnavailable, and what does not pass."""
        last_start = self.clock() + self.seconds - self.of_one_try
        longest = _FIRST_PAUSE
        while True:
            try:
                return attempt()
            except Exception as error:
                if not passes(error):
                    raise
                pause = random.uniform(0, longest)  # noqa: S311 - spreads callers apart
                if self.clock() + pause > last_start:
                    raise StoreUnavailable from error
            self.sleep(pause)
            longest = min(2 * longest, _LONGEST_PAUSE)
