"""Count the calls with API keys that make no connection event: above all calls that are refused.

A broker whose token is wrong gets no verdict, so all its devices are refused, and no refusal of a device is listed.
Each process counts such calls, by key and reason, and offers the counts to the queue of connection events. Only calls
to functions for brokers and edges count: a person who mistypes a token is no broker that is refused. Keys that do not
exist are not counted: a stranger could make up any number of them. A stranger who knows the name of a key causes one
event a second at most, and no document that a verdict reads is written. A wrong token of a platform key is logged
alone: each organization would see a warning that any stranger, or another organization, could cause.
"""

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from shared.connection_records import AnsweredCalls, CallFailure, FailedCalls
from shared.ports import Clock
from shared.records import PLATFORM, Role

log = logging.getLogger(__name__)

_OFFER_EVERY: Final = timedelta(seconds=1)  # for one key and reason
_ANSWER_EVERY: Final = timedelta(seconds=10)  # for one key and organization
_WARN_EVERY: Final = timedelta(minutes=1)
_KEYS_MAX: Final = 1_000  # remembered by a process
_NAMED_MAX: Final = 20  # keys in one warning


class CallCounter:
    """Counts calls of known keys in this process.

    Args:
        offer: takes counted calls for the store. Never raises, never waits.
    """

    def __init__(self, clock: Clock, offer: Callable[[FailedCalls | AnsweredCalls], None]) -> None:
        self._clock = clock
        self._offer = offer
        self._lock = threading.Lock()
        self._held: dict[tuple[str, CallFailure, str], FailedCalls] = {}  # not offered yet
        self._offered: dict[tuple[str, CallFailure, str], datetime] = {}
        self._answered: dict[tuple[str, str], datetime] = {}
        self._unreported: dict[str, int] = {}  # key -> calls since the last warning
        self._warned: datetime | None = None

    def note_refused(
        self,
        org_id: str,
        key: str,
        failure: CallFailure,
        *,
        needed: Role,
        dialect: str = "",
        incarnation: str = "",
    ) -> None:
        """Count a refused call. Never raises, and never waits for the store.

        Args:
            org_id: of the key; PLATFORM for a platform key.
            key: the name of a key that exists.
            needed: the role that the called function needs.
            dialect: the broker's format.
            incarnation: of the key's organization.
        """
        at = self._clock()
        call = FailedCalls(
            org_id=org_id,
            key=key,
            failure=failure,
            needed=needed.value,
            dialect=dialect,
            count=1,
            since=at,
            at=at,
            incarnation=incarnation,
        )
        is_logged_alone = org_id == PLATFORM and failure is CallFailure.TOKEN
        with self._lock:
            due = [] if is_logged_alone else self._take_due(call)
            unreported = self._take_warning(key, at)
        for calls in due:
            self._offer(calls)
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

    def note_answered(self, org_id: str, key: str, *, dialect: str = "", incarnation: str = "") -> None:
        """Note an answered call that is no verdict on a connection, at most every 10 s. Never raises, never waits.

        Args:
            org_id: the organization that the call was about.
            key: the name of the caller's key.
            dialect: the broker's format.
            incarnation: of the organization.
        """
        at, slot = self._clock(), (org_id, key)
        with self._lock:
            noted = self._answered.get(slot)
            if noted is not None and at - noted < _ANSWER_EVERY:
                return
            if len(self._answered) >= _KEYS_MAX:
                self._answered.clear()
            self._answered[slot] = at
        self._offer(AnsweredCalls(org_id=org_id, key=key, dialect=dialect, at=at, incarnation=incarnation))

    def flush(self) -> None:
        """Offer what is held."""
        with self._lock:
            held, self._held = self._held, {}
        for calls in held.values():
            self._offer(calls)

    def _take_due(self, call: FailedCalls) -> list[FailedCalls]:
        """Hold *call*, or return it with what is held of its kind if the last offer was a second ago.

        Calls that were held for longer are counted apart: their times say when an earlier failure was.
        """
        slot = (call.key, call.failure, call.needed)
        held, offered = self._held.pop(slot, None), self._offered.get(slot)
        if offered is not None and call.at - offered < _OFFER_EVERY:
            self._held[slot] = call if held is None else replace(held, count=held.count + 1, at=call.at)
            return []
        due: list[FailedCalls] = []
        if len(self._offered) >= _KEYS_MAX:
            due += self._held.values()
            self._offered.clear()
            self._held.clear()
        self._offered[slot] = call.at
        if held is None:
            return [*due, call]
        if call.at - held.at > _OFFER_EVERY:
            return [*due, held, call]
        return [*due, replace(held, count=held.count + 1, at=call.at)]

    def _take_warning(self, key: str, at: datetime) -> dict[str, int]:
        """Count the call for the warning; return the calls of each key if a warning is due, and begin again."""
        if key in self._unreported or len(self._unreported) < _KEYS_MAX:
            self._unreported[key] = self._unreported.get(key, 0) + 1
        if self._warned is not None and at - self._warned < _WARN_EVERY:
            return {}
        self._warned = at
        unreported, self._unreported = self._unreported, {}
        return unreported
