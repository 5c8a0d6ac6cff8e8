"""The agent's reports of the clients that the edge refused by itself."""

import pytest

from edge.api import Unavailable
from edge.refusals import RefusalReports


class Runtime:
    """HAProxy's table `refused`. A stub: the real table is in tests/e2e/test_who_gets_in.py."""

    def __init__(self) -> None:
        self.counts: dict[str, int] | None = {}

    def read_counts(self, table: str) -> dict[str, int] | None:
        assert table == "refused"
        return None if self.counts is None else dict(self.counts)


class Feed:
    """edgeFeed, which may be away. A stub: the endpoint's tests are tests/functions/test_callers.py."""

    def __init__(self) -> None:
        self.reports: list[list[tuple[str, str, int]]] = []
        self.is_away = False

    def report_refused(self, edge: str, refusals: list[tuple[str, str, int]]) -> None:
        if self.is_away:
            raise Unavailable("away")
        assert edge == "edge-1"
        self.reports.append(refusals)


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.fixture
def reports(runtime: Runtime, feed: Feed) -> RefusalReports:
    return RefusalReports(feed, runtime, edge="edge-1")  # type: ignore[arg-type]


def test_what_was_added_is_reported_once(runtime: Runtime, feed: Feed, reports: RefusalReports) -> None:
    """What was counted before the agent's start may have been reported by the agent before."""
    runtime.counts = {"acme01|token_of_another": 7}
    reports.step()
    runtime.counts = {"acme01|token_of_another": 9, "acme02|user_name_missing": 1}
    reports.step()
    reports.step()
    assert feed.reports == [[("acme01", "token_of_another", 2), ("acme02", "user_name_missing", 1)]]


def test_a_count_that_begins_again_is_not_lost(runtime: Runtime, feed: Feed, reports: RefusalReports) -> None:
    """HAProxy was started again, or forgot the entry."""
    runtime.counts = {"acme01|token_of_another": 7}
    reports.step()
    runtime.counts = {"acme01|token_of_another": 2}
    reports.step()
    runtime.counts = {}
    reports.step()
    runtime.counts = {"acme01|token_of_another": 1}
    reports.step()
    assert feed.reports == [[("acme01", "token_of_another", 2)], [("acme01", "token_of_another", 1)]]


def test_a_report_that_failed_is_repeated(runtime: Runtime, feed: Feed, reports: RefusalReports) -> None:
    reports.step()
    runtime.counts = {"acme01|token_of_another": 3}
    feed.is_away = True
    with pytest.raises(Unavailable):
        reports.step()
    feed.is_away = False
    runtime.counts = {"acme01|token_of_another": 4}
    reports.step()
    assert feed.reports == [[("acme01", "token_of_another", 4)]]


def test_many_organizations_come_in_several_reports(runtime: Runtime, feed: Feed, reports: RefusalReports) -> None:
    """edgeFeed takes 500 counts at a time."""
    reports.step()
    runtime.counts = {f"o{number:05}|token_of_another": 1 for number in range(501)}
    reports.step()
    assert list(map(len, feed.reports)) == [500, 1]


def test_an_edge_with_the_configuration_of_an_earlier_version(
    runtime: Runtime, feed: Feed, reports: RefusalReports
) -> None:
    runtime.counts = None
    reports.step()
    assert feed.reports == []
