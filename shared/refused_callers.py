"""Count calls that a known API key makes and that are refused: a wrong token, a revoked key, a wrong role.

A broker whose token is wrong lets no device in, and shows nothing to the organization. So each process counts such
calls, by key and reason, and offers the counts to the queue of connection events. Keys that do not exist are not
counted: a stranger could make up any number of them. A stranger who knows the name of a key causes one event a second
at most, and no document that a verdict reads is written.
"""

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from shared.connection_records import CallFailure, FailedCalls
from shared.ports import Clock

log = logging.getLogger(__name__)

_OFFER_EVERY: Final = timedelta(seconds=1)  # for one key and reason
_WARN_EVERY: Final = timedelta(minutes=1)
_KEYS_MAX: Final = 1_000  # remembered by a process
_NAMED_MAX: Final = 20  # keys in one warning


class RefusedCallers:
    """Counts the refused calls of known keys in this process.

    Args:
        offer: takes counted calls for the store. Never raises, never waits.
    """

    def __init__(self, clock: Clock, offer: Callable[[FailedCalls], None]) -> None:
        self._clock = clock
        self._offer = offer
        self._lock = threading.Lock()
        self._counting: dict[tuple[str, CallFailure], FailedCalls] = {}  # not offered yet
        self._offered: dict[tuple[str, CallFailure], datetime] = {}
        self._unreported: dict[str, int] = {}  # key -> calls since the last warning
        self._warned: datetime | None = None

    def note(self, org_id: str, key: str, failure: CallFailure, *, incarnation: str = "") -> None:
        """Count a refused call. Never raises, and never waits for the store.

        Args:
            org_id: of the key; PLATFORM for a platform key.
            key: the name of a key that exists.
            incarnation: of the key's organization.
        """
        at = self._clock()
        with self._lock:
            counted = self._count(org_id, key, failure, incarnation, at)
            unreported = self._take_warning(key, at)
        if counted is not None:
            self._offer(counted)
        if unreported:
            log.warning(
                "calls with a known API key are refused",
                extra={
                    "failure": failure.value,
                    "key": key,
                    "keys": dict(list(unreported.items())[:_NAMED_MAX]),
                    "count": sum(unreported.values()),
                },
            )

    def _count(self, org_id: str, key: str, failure: CallFailure, incarnation: str, at: datetime) -> FailedCalls | None:
        """Return the counted calls of the key if they are due to be offered."""
        slot = (key, failure)
        calls = self._counting.pop(slot, None)
        if calls is None:
            calls = FailedCalls(
                org_id=org_id, key=key, failure=failure, count=0, since=at, at=at, incarnation=incarnation
            )
        calls = replace(calls, count=calls.count + 1, at=at)
        offered = self._offered.get(slot)
        if offered is not None and at - offered < _OFFER_EVERY:
            self._counting[slot] = calls
            return None
        if len(self._offered) >= _KEYS_MAX:
            self._offered.clear()
            self._counting.clear()
        self._offered[slot] = at
        return calls

    def _take_warning(self, key: str, at: datetime) -> dict[str, int]:
        """Count the call for the warning; return the calls of each key if a warning is due, and begin again."""
        if key in self._unreported or len(self._unreported) < _KEYS_MAX:
            self._unreported[key] = self._unreported.get(key, 0) + 1
        if self._warned is not None and at - self._warned < _WARN_EVERY:
            return {}
        self._warned = at
        unreported, self._unreported = self._unreported, {}
        return unreported
