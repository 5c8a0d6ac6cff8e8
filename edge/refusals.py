"""Reports how many clients this edge refused by itself, after verifyClient let them pass.

The callout counts them in HAProxy's table `refused`, by organization and code (verify_client.lua). The agent reports
what was added since the last report, so that the organization sees these refusals beside those of verifyClient.
"""

from collections.abc import Mapping
from typing import Final

from edge.feed import FeedClient
from edge.runtime import RuntimeApi

EVERY: Final = 2.0  # seconds between two reports
_TABLE: Final = "refused"
_REPORT_MAX: Final = 500  # counts in one report


class RefusalReports:
    """Reports the refusals of this edge to edgeFeed.

    Args:
        feed: the client of edgeFeed.
        runtime: HAProxy's runtime API.
        edge: the name of this edge.
    """

    def __init__(self, feed: FeedClient, runtime: RuntimeApi, *, edge: str) -> None:
        """Store the arguments. No request is made."""
        self._feed, self._runtime, self._edge = feed, runtime, edge
        self._reported: dict[str, int] | None = None  # of each entry; None before the first look

    def step(self) -> None:
        """Report what was added since the last step. What was counted before the first step is left out.

        Raises: HAProxyUnavailable, Unavailable. What was not reported is reported by a later step.
        """
        counts = self._runtime.read_counts(_TABLE)
        if counts is None:  # an HAProxy with the configuration of an earlier version
            return
        if self._reported is None:
            self._reported = counts
            return
        added = list(_added(self._reported, counts).items())
        for start in range(0, len(added), _REPORT_MAX):
            batch = added[start : start + _REPORT_MAX]
            self._feed.report_refused(self._edge, [(*_split(entry), count) for entry, count in batch])
            self._reported.update((entry, counts[entry]) for entry, _ in batch)
        self._reported = counts


def _split(entry: str) -> tuple[str, str]:
    """Return the organization and the code of an entry."""
    org, _, code = entry.partition("|")
    return org, code


def _added(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    """Return how much each entry grew. HAProxy forgets an entry after an hour, or at its start, and counts from 0."""
    added = {
        entry: count - before.get(entry, 0) if count >= before.get(entry, 0) else count for entry, count in now.items()
    }
    return {entry: count for entry, count in added.items() if count and "|" in entry}
