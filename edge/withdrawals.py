"""Ends the live sessions that depend on a withdrawn device, certificate, CA or organization.

A withdrawal says which sessions must be looked at. About those the agent asks the functions again (`recheck`) and ends
the sessions that would be refused now. So no clock is compared, and a device that connected after a CA was active again
stays. Where no answer comes within RECHECK_SECONDS, all of those sessions end.

After each step that succeeded, the agent writes a new number into HAProxy's table `heartbeat` (agent_watch.lua).
"""

import json
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from edge.api import Unavailable
from edge.feed import RECHECK_BYTES, RECHECK_MAX, FeedClient, WithdrawalEntry
from edge.runtime import HAProxyUnavailable, RuntimeApi
from edge.sessions import RegisteredSession
from edge.state import State

log = logging.getLogger(__name__)

TABLE: Final = "sessions"
HEARTBEAT: Final = "heartbeat"
FRONTEND: Final = "mqtts"
RECHECK_SECONDS: Final = 2.0  # for one answer
_FILE: Final = "withdrawals.json"
# A verdict from before a withdrawal may reach HAProxy up to 2.5 s later (the callout's timeout). So sessions that begin
# within this time are looked at, too.
_REPEAT_SECONDS: Final = 5.0
_EXPIRY_SECONDS: Final = 15.0  # between two searches for sessions whose certificates have expired
_QUESTIONS_SECONDS: Final = 2.0  # in one step; then withdrawals are read again before the next question
_ASKERS: Final = 4  # a question without an answer keeps its thread until the connection's own timeout


@dataclass
class _Search:
    """A search for the sessions that one withdrawal concerns.

    Args:
        withdrawal: the withdrawal; None where withdrawals are missing, so that every session is concerned.
        first_at: monotonic seconds of the first search; None before it.
        passed: the sessions that were looked at since the withdrawal.
    """

    withdrawal: WithdrawalEntry | None
    first_at: float | None = None
    passed: set[RegisteredSession] = field(default_factory=set)

    def concerns(self, session: RegisteredSession) -> bool:
        if session in self.passed:
            return False
        return self.withdrawal is None or session.may_depend_on(self.withdrawal)

    def must_end_unasked(self, session: RegisteredSession) -> bool:
        if self.withdrawal is None:  # sessions that begin after the loss have a new verdict
            return self.first_at is None
        return session.must_end_unasked(self.withdrawal)


class WithdrawalSync:
    """Follows edgeFeed's withdrawals and ends the sessions that depend on them.

    Args:
        feed: the client of edgeFeed.
        runtime: HAProxy's runtime API.
        state: the folder with the cursor.
        edge: the name of this edge.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        feed: FeedClient,
        runtime: RuntimeApi,
        state: State,
        *,
        edge: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the cursor. No request is made."""
        self._feed, self._runtime, self._state, self._edge, self._clock = feed, runtime, state, edge, clock
        self._saved_head = str(state.read_document(_FILE).get("head", ""))
        self._head = self._saved_head
        self._searches: list[_Search] = []
        self._expiry_due = 0.0
        self._is_behind = False  # whether sessions wait for a question
        self._askers = ThreadPoolExecutor(_ASKERS, thread_name_prefix="recheck")
        self._beat = random.getrandbits(32)  # another number than that of an earlier agent

    def close(self) -> None:
        """Stop the threads that ask about sessions."""
        self._askers.shutdown(wait=False, cancel_futures=True)

    def step(self) -> int:
        """Read new withdrawals, end the sessions that depend on them, and return the number of ended sessions.

        Raises: Unavailable, HAProxyUnavailable, CommandRefused. The next call continues with the same withdrawals.
        """
        self._read_withdrawals()
        now = self._clock()
        if not self._is_behind:
            self._searches = [s for s in self._searches if s.first_at is None or now - s.first_at < _REPEAT_SECONDS]
        count = 0
        if self._searches or now >= self._expiry_due:
            count = self._search()
            self._expiry_due = now + _EXPIRY_SECONDS
            for search in () if self._is_behind else self._searches:
                search.first_at = now if search.first_at is None else search.first_at
        if (
            self._head != self._saved_head and not self._is_behind
        ):  # saved last: after a restart, unapplied withdrawals are read again
            self._saved_head = self._head
            self._state.write_document(_FILE, {"head": self._saved_head})
        self._write_heartbeat()
        return count

    def _read_withdrawals(self) -> None:
        has_more = True
        while has_more:
            page = self._feed.list_withdrawals(self._head, self._edge)
            if page.missed or not self._head:
                log.warning("withdrawals may be missing: every session is looked at")
                self._searches.append(_Search(None))
            self._searches += map(_Search, page.withdrawals)
            self._head, has_more = page.head, page.more

    def _search(self) -> int:
        """End the sessions that have expired, or that a search concerns and the functions would refuse now."""
        sessions = list(filter(None, map(RegisteredSession.parse, self._runtime.list_registered(TABLE))))
        now = time.time()
        ending = {session.source: session for session in sessions if session.ends and session.ends <= now}
        concerned = [session for session in sessions if any(search.concerns(session) for search in self._searches)]
        looked_at, refused = self._select_refused(concerned)
        self._is_behind = len(looked_at) < len(concerned)
        ending.update((session.source, session) for session in refused)
        count = 0
        if ending:
            for source, name in self._runtime.list_sessions(FRONTEND):
                if session := ending.get(source):
                    self._runtime.end_session(name)
                    log.info("ended the session of %s in %s (%s)", session.identity, session.org, source)
                    count += 1
        for search in self._searches:
            # A session that is gone may begin again, with a verdict from before the withdrawal.
            search.passed = search.passed.intersection(sessions).union(looked_at)
        return count

    def _select_refused(
        self, sessions: Sequence[RegisteredSession]
    ) -> tuple[list[RegisteredSession], list[RegisteredSession]]:
        """Return those of *sessions* that were looked at, and those that the functions would refuse now.

        Where no answer comes, all sessions are refused. An organization of many sessions takes many questions: the
        others come first, and after _QUESTIONS_SECONDS the rest waits for the next step. So it delays no withdrawal of
        another organization, and no heartbeat.
        """
        looked_at: list[RegisteredSession] = []
        ending: list[RegisteredSession] = []
        counts = Counter(session.org for session in sessions)
        can_ask, began_at = True, self._clock()
        for batch in _split(sorted(sessions, key=lambda session: (counts[session.org], session.org))):
            if can_ask and looked_at and self._clock() - began_at >= _QUESTIONS_SECONDS:
                break
            refused = frozenset(session.source for session in batch)
            if can_ask:
                try:
                    refused = self._ask(batch)
                except Unavailable as error:
                    can_ask = False  # every further question could take as long
                    log.error("edgeFeed does not say which sessions must end, so all that may end: %s", error)
            looked_at += batch
            ending += (session for session in batch if session.source in refused)
        return looked_at, ending

    def _ask(self, sessions: Sequence[RegisteredSession]) -> frozenset[str]:
        """Return the addresses of those of *sessions* that must end.

        Raises: Unavailable, also if the answer does not come in time.
        """
        asking = self._askers.submit(self._feed.recheck, [session.question() for session in sessions])
        try:
            refused = asking.result(RECHECK_SECONDS)
        except TimeoutError as error:
            raise Unavailable("no answer in time") from error
        if refused is not None:
            return refused
        # Functions of the version before: the comparison alone decides, as the agent of that version does.
        return frozenset(
            session.source
            for session in sessions
            if any(search.concerns(session) and search.must_end_unasked(session) for search in self._searches)
        )

    def _write_heartbeat(self) -> None:
        """Show HAProxy that this step succeeded. An HAProxy that is away needs none."""
        self._beat = (self._beat + 1) % 2**32
        try:
            if not self._runtime.set_number(HEARTBEAT, "agent", self._beat):
                log.debug("HAProxy's configuration is of a version without the table %s", HEARTBEAT)
        except HAProxyUnavailable as error:
            log.debug("%s", error)


def _split(sessions: Iterable[RegisteredSession]) -> Iterator[list[RegisteredSession]]:
    """Yield *sessions* in lists that fit one question."""
    batch: list[RegisteredSession] = []
    size = 0
    for session in sessions:
        length = len(json.dumps(session.question()))
        if batch and (len(batch) == RECHECK_MAX or size + length > RECHECK_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(session)
        size += length
    if batch:
        yield batch
