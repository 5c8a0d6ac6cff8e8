"""Withdrawn means out: ends the live sessions of devices, CAs and organizations that are withdrawn.

HAProxy's table `sessions` is the register: the callout enters every session it lets in, under one key that tells where
the device is connected from, its organization, identity, CA and certificates (verify_client.lua), and HAProxy keeps the
entry exactly as long as the session lives.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from edge.feed import Feed, Withdrawal
from edge.runtime import Runtime
from edge.state import State

log = logging.getLogger(__name__)

TABLE: Final = "sessions"
FRONTEND: Final = "mqtts"
_FILE: Final = "withdrawals.json"
# A verdict given just before the withdrawal reaches HAProxy up to 2.5 s (the callout's time) later: look again so long.
_LOOK_AGAIN_SECONDS: Final = 5.0
_EXPIRY_SECONDS: Final = 15.0
_DIGITS: Final = 16  # of a fingerprint in the register, whose keys have 600 characters


@dataclass(frozen=True)
class Session:
    """An entry of the register."""

    source: str
    org: str
    identity: str
    ca: str
    leaf: tuple[str, ...]  # the fingerprints its certificate has: SHA-256, hex, the first 16 digits
    serial: str
    ends: int  # seconds since 1970; 0: never
    via: tuple[str, ...]  # the same of the certificates sent after it

    @classmethod
    def of(cls, key: str) -> "Session | None":
        """Read a key; None where it is none of ours."""
        parts = key.split("|")
        if len(parts) != 8 or not parts[6].isdigit():
            return None
        source, org, identity, ca, leaf, serial, ends, via = parts
        return cls(source, org, identity, ca, _listed(leaf), serial, int(ends), _listed(via))

    def falls_under(self, withdrawal: Withdrawal) -> bool:
        """Where this is not certain the session ends: its device connects again, and is judged anew."""
        if self.org != withdrawal.org:
            return False
        value = withdrawal.value
        match withdrawal.kind:
            case "identity":
                return self.identity == value
            case "ca":
                return self._rests_on(value.partition("-")[2])
            case "fingerprint":
                return value[:_DIGITS] in self.leaf or self._rests_on(value)
            case "serial":  # of the leaf, or of an intermediate, whose serial number is not in the register
                ca, _, serial = value.partition(":")
                return self._rests_on(ca.partition("-")[2]) and (
                    _number(self.serial) == _number(serial) or bool(self.via)
                )
        return True  # the org as a whole, or a kind that this version does not know

    def _rests_on(self, fingerprint: str) -> bool:
        """Whether a CA certificate, by the beginning of its SHA-256, vouched for the device or was sent by it."""
        beginning = fingerprint[:_DIGITS]
        return beginning in (self.ca.partition("-")[2][:_DIGITS], *self.via)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(one[:_DIGITS] for one in text.split(",") if one)  # more, where an earlier callout wrote them


def _number(hexadecimal: str) -> int:
    try:
        return int(hexadecimal, 16)
    except ValueError:
        return -1


class Withdrawer:
    """Follows edgeFeed's withdrawals and ends what falls under them."""

    def __init__(
        self, feed: Feed, runtime: Runtime, state: State, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._feed, self._runtime, self._state, self._clock = feed, runtime, state, clock
        self._head = str(state.document(_FILE).get("head", ""))
        self._heard = self._head
        self._pending: list[Withdrawal] = []  # heard of, no sweep has succeeded yet
        self._recent: list[tuple[float, Withdrawal]] = []
        self._all = False  # whether every session must end
        self._expiry_at = 0.0

    def step(self) -> int:
        """Hear what is new, and end what falls under it. Returns how many sessions were ended.

        Raises: Unavailable, HAProxyAway, Refused; what was heard is not forgotten."""
        self._listen()
        now = self._clock()
        self._recent = [(at, one) for at, one in self._recent if now - at < _LOOK_AGAIN_SECONDS]
        ended = 0
        if self._all or self._pending or self._recent or now >= self._expiry_at:
            ended = self._sweep([*self._pending, *(one for _, one in self._recent)])
            self._expiry_at = now + _EXPIRY_SECONDS
            self._recent += [(now, one) for one in self._pending]
            self._pending, self._all = [], False
        if self._heard != self._head:  # only now: what was not carried out is heard again after a restart
            self._head = self._heard
            self._state.keep_document(_FILE, {"head": self._head})
        return ended

    def _listen(self) -> None:
        more = True
        while more:
            page = self._feed.withdrawals(self._heard)
            if page.missed or not self._heard:
                # More was withdrawn than can be told, or nobody knows what this edge heard last.
                self._all = True
            self._pending += page.withdrawals
            self._heard, more = page.head, page.more

    def _sweep(self, withdrawals: Iterable[Withdrawal]) -> int:
        found = list(withdrawals)
        at = time.time()
        condemned = {
            one.source: one
            for one in filter(None, map(Session.of, self._runtime.registered(TABLE)))
            if self._all or (one.ends and one.ends <= at) or any(one.falls_under(other) for other in found)
        }
        if not condemned:
            return 0
        ended = 0
        for source, name in self._runtime.sessions(FRONTEND):
            if session := condemned.get(source):
                self._runtime.end_session(name)
                log.info("ended the session of %s in %s (%s)", session.identity, session.org, source)
                ended += 1
        return ended
