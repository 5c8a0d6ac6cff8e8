"""Ends the live sessions that depend on a withdrawn device, certificate, CA or organization.

HAProxy's stick table `sessions` lists the live sessions. The callout (verify_client.lua) adds each accepted session
under a key that contains the device's address, organization, identity, CA and certificates. HAProxy keeps the entry as
long as the session exists.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from edge.feed import FeedClient, WithdrawalEntry
from edge.runtime import RuntimeApi
from edge.state import State

log = logging.getLogger(__name__)

TABLE: Final = "sessions"
FRONTEND: Final = "mqtts"
_FILE: Final = "withdrawals.json"
# A verdict from before a withdrawal may reach HAProxy up to 2.5 s later (the callout's timeout). So each withdrawal is
# applied again for this time.
_REPEAT_SECONDS: Final = 5.0
_EXPIRY_SECONDS: Final = 15.0  # between two searches for sessions whose certificates have expired
_DIGITS: Final = 16  # of each fingerprint in a key; a key has at most 599 characters


@dataclass(frozen=True)
class Session:
    """An entry of the table `sessions`. Fingerprints are SHA-256, the first 16 hex digits.

    Args:
        source: the device's address, `address:port`.
        org: the orgId.
        identity: the device's identity, `class:type:device`, or "-".
        ca: the id of the CA certificate, or "-".
        leaf: the fingerprints of the device's certificate.
        serial: the serial number of the device's certificate in hex, or "-".
        ends: the expiry of the certificates in seconds since 1970; 0 without certificates.
        via: the fingerprints of the other certificates that the device sent.
    """

    source: str
    org: str
    identity: str
    ca: str
    leaf: tuple[str, ...]
    serial: str
    ends: int
    via: tuple[str, ...]

    @classmethod
    def parse(cls, key: str) -> "Session | None":
        """Parse a key of the table, or return None for a key of another form."""
        parts = key.split("|")
        if len(parts) != 8 or not parts[6].isdigit():
            return None
        source, org, identity, ca, leaf, serial, ends, via = parts
        return cls(source, org, identity, ca, _split(leaf), serial, int(ends), _split(via))

    def depends_on(self, withdrawal: WithdrawalEntry) -> bool:
        """Return whether the session must end after *withdrawal*.

        In doubt the session ends: the device connects again and gets a new verdict.
        """
        if self.org != withdrawal.org:
            return False
        value = withdrawal.value
        match withdrawal.kind:
            case "identity":
                return self.identity == value
            case "ca":
                return self._has_ca(value.partition("-")[2])
            case "fingerprint":
                return value[:_DIGITS] in self.leaf or self._has_ca(value)
            case "serial":
                # The serial number is that of the device's certificate or of an intermediate. Serial numbers of
                # intermediates are not in the table.
                ca, _, serial = value.partition(":")
                return self._has_ca(ca.partition("-")[2]) and (
                    _parse_hex(self.serial) == _parse_hex(serial) or bool(self.via)
                )
        return True  # the whole organization, or a kind that this version does not know

    def _has_ca(self, fingerprint: str) -> bool:
        """Return whether the device's CA, or a certificate that the device sent, has this SHA-256 fingerprint."""
        prefix = fingerprint[:_DIGITS]
        return prefix in (self.ca.partition("-")[2][:_DIGITS], *self.via)


def _split(text: str) -> tuple[str, ...]:
    # An earlier version of the callout wrote longer fingerprints.
    return tuple(fingerprint[:_DIGITS] for fingerprint in text.split(",") if fingerprint)


def _parse_hex(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return -1


class WithdrawalSync:
    """Follows edgeFeed's withdrawals and ends the sessions that depend on them.

    Args:
        feed: the client of edgeFeed.
        runtime: HAProxy's runtime API.
        state: the folder with the cursor.
        clock: returns monotonic seconds.
    """

    def __init__(
        self, feed: FeedClient, runtime: RuntimeApi, state: State, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the cursor. No request is made."""
        self._feed, self._runtime, self._state, self._clock = feed, runtime, state, clock
        self._saved_head = str(state.read_document(_FILE).get("head", ""))
        self._head = self._saved_head
        self._pending: list[WithdrawalEntry] = []  # not applied yet
        self._recent: list[tuple[float, WithdrawalEntry]] = []  # applied at this time, and to be applied again
        self._must_end_all = False
        self._expiry_due = 0.0

    def step(self) -> int:
        """Read new withdrawals, end the sessions that depend on them, and return the number of ended sessions.

        Raises: Unavailable, HAProxyUnavailable, CommandRefused. The next call continues with the same withdrawals.
        """
        self._read_withdrawals()
        now = self._clock()
        self._recent = [(at, withdrawal) for at, withdrawal in self._recent if now - at < _REPEAT_SECONDS]
        count = 0
        if self._must_end_all or self._pending or self._recent or now >= self._expiry_due:
            count = self._end_sessions([*self._pending, *(withdrawal for _, withdrawal in self._recent)])
            self._expiry_due = now + _EXPIRY_SECONDS
            self._recent += [(now, withdrawal) for withdrawal in self._pending]
            self._pending, self._must_end_all = [], False
        if self._head != self._saved_head:  # saved last: after a restart, unapplied withdrawals are read again
            self._saved_head = self._head
            self._state.write_document(_FILE, {"head": self._saved_head})
        return count

    def _read_withdrawals(self) -> None:
        has_more = True
        while has_more:
            page = self._feed.list_withdrawals(self._head)
            if page.missed or not self._head:
                # Withdrawals are missing, or this edge has no cursor.
                self._must_end_all = True
            self._pending += page.withdrawals
            self._head, has_more = page.head, page.more

    def _end_sessions(self, withdrawals: Iterable[WithdrawalEntry]) -> int:
        entries = list(withdrawals)
        now = time.time()
        ending = {
            session.source: session
            for session in filter(None, map(Session.parse, self._runtime.list_registered(TABLE)))
            if self._must_end_all
            or (session.ends and session.ends <= now)
            or any(session.depends_on(entry) for entry in entries)
        }
        if not ending:
            return 0
        count = 0
        for source, name in self._runtime.list_sessions(FRONTEND):
            if session := ending.get(source):
                self._runtime.end_session(name)
                log.info("ended the session of %s in %s (%s)", session.identity, session.org, source)
                count += 1
        return count
