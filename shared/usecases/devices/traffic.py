"""How many clients of an organization connected and were refused, by the hour: a document for each day."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from shared.connection_records import ConnectionEvent, EdgeRefusals, HourOfTraffic, QueuedEvent, Traffic
from shared.org_repository import OrgRepository
from shared.refs import traffic_ref
from shared.repository import KEEP_USAGE
from shared.usecases.devices.calls import hour_of, start_of


def count_traffic(events: Iterable[QueuedEvent]) -> dict[str, HourOfTraffic]:
    """Return the number of verdicts in *events*, by the name of the hour."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for event in events:
        match event:
            case ConnectionEvent():
                counts[hour_of(event.at), event.decision, event.code] += 1
            case EdgeRefusals():
                counts[hour_of(event.at), "deny", event.code] += event.count
            case _:  # a call that is no verdict
                continue
    hours: dict[str, HourOfTraffic] = {}
    for (hour, decision, code), count in counts.items():
        hours[hour] = _merge(hours.get(hour), _hour(decision, code, count))
    return hours


def merge_traffic(parts: Iterable[Mapping[str, HourOfTraffic]]) -> dict[str, HourOfTraffic]:
    """Return the sum of *parts*, by the name of the hour."""
    hours: dict[str, HourOfTraffic] = {}
    for part in parts:
        for name, hour in part.items():
            hours[name] = _merge(hours.get(name), hour)
    return hours


def add_traffic(repository: OrgRepository, hours: Mapping[str, HourOfTraffic]) -> None:
    """Add *hours* to the stored numbers, with one write for each day. Raises: OrgGone, TooBusy, StoreUnavailable."""
    by_day: dict[str, dict[str, HourOfTraffic]] = {}
    for name, hour in hours.items():
        by_day.setdefault(name.partition("T")[0], {})[name] = hour
    for day, of_day in by_day.items():
        expires = start_of(max(of_day)) + KEEP_USAGE
        for attempt in repository.changing(traffic_ref(repository.org_id, day), expires=expires):
            with attempt as stored:
                attempt.write(Traffic(merge_traffic([stored.hours if stored else {}, of_day])))


def read_traffic(repository: OrgRepository, at: datetime, days: int) -> dict[str, HourOfTraffic]:
    """Return the numbers of the last *days*, the day of *at* among them, in one read.

    Hours without verdicts are absent. Connection events are a sample, so the numbers are lower bounds.

    Raises: StoreUnavailable."""
    refs = [traffic_ref(repository.org_id, (at - timedelta(days=back)).strftime("%Y-%m-%d")) for back in range(days)]
    batch = repository.read_batch(refs)
    return merge_traffic(stored.hours for ref in refs if (stored := batch.get(ref)) is not None)


def _hour(decision: str, code: str, count: int) -> HourOfTraffic:
    if decision == "deny":
        return HourOfTraffic(denied={code: count})
    return HourOfTraffic(continued=count) if decision == "continue" else HourOfTraffic(allowed=count)


def _merge(first: HourOfTraffic | None, other: HourOfTraffic) -> HourOfTraffic:
    if first is None:
        return other
    return HourOfTraffic(
        first.allowed + other.allowed,
        first.continued + other.continued,
        dict(Counter(first.denied) + Counter(other.denied)),
    )
