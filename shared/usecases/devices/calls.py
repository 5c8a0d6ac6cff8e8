"""Count the calls of each API key: how many were answered, and how many were refused before they were answered."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from shared.connection_records import (
    AnsweredCalls,
    CallFailure,
    ConnectionEvent,
    EdgeRefusals,
    FailedCalls,
    FailedHour,
    HourOfCalls,
    KeyCalls,
    LastFailure,
    QueuedEvent,
)

KEYS_MAX: Final = 30  # of an organization and day: 215 KB at most, beside the 180 KB of the rest of a day's usage
_HOUR: Final = "%Y-%m-%dT%H"  # of a day in UTC
_FAILING: Final = timedelta(hours=1)  # after the last refused call; a broker that is refused asks again


def count_calls(events: Iterable[QueuedEvent]) -> tuple[dict[str, KeyCalls], bool]:
    """Return the calls of each API key in *events*, and whether keys were left out (`add_calls`)."""
    callers: dict[str, KeyCalls] = {}
    alike: dict[tuple[Any, ...], tuple[int, ConnectionEvent]] = {}  # verdicts that differ in their time within an hour
    has_more = False
    for event in events:
        if isinstance(event, ConnectionEvent):
            at = event.at
            same = (event.key, at.toordinal(), at.hour, event.decision, event.form, event.dialect)
            count, last = alike.get(same, (0, event))
            alike[same] = count + 1, event if at > last.at else last
        else:
            has_more |= add_calls(callers, {event.key: _count_other(event)})
    for count, last in alike.values():
        if last.key:
            has_more |= add_calls(callers, {last.key: _count_verdicts(count, last)})
    return callers, has_more


def add_calls(callers: dict[str, KeyCalls], more: Mapping[str, KeyCalls], *, keys_max: int | None = KEYS_MAX) -> bool:
    """Add *more* to *callers*. Keys beyond *keys_max* are left out. Return whether keys were left out."""
    has_more = False
    for key, calls in more.items():
        if key in callers:
            callers[key] = merge(callers[key], calls)
        elif keys_max is None or len(callers) < keys_max:
            callers[key] = calls
        else:
            has_more = True
    return has_more


def merge(first: KeyCalls, other: KeyCalls) -> KeyCalls:
    """Return the calls of both, of one key. The order does not matter."""
    return KeyCalls(
        answered_at=_latest(first.answered_at, other.answered_at),
        failures={
            name: max(
                (failure for failure in (first.failures.get(name), other.failures.get(name)) if failure),
                key=lambda failure: (failure.at, failure.needed),
            )
            for name in {**first.failures, **other.failures}
        },
        forms=_latest_of_each(first.forms, other.forms),
        dialects=_latest_of_each(first.dialects, other.dialects),
        hours={
            hour: _add_hours(first.hours.get(hour), other.hours.get(hour)) for hour in {**first.hours, **other.hours}
        },
    )


def find_failing_since(calls: KeyCalls, failure: CallFailure, at: datetime) -> datetime | None:
    """Return since when the calls with a key are refused for *failure*; None where they are not refused so at *at*.

    The failure ends with a call that is answered, or an hour after the last refused call. A wrong role ends in the
    second way only: calls to another function, which needs the role that the key has, are answered all the time.

    Of an hour, the first and the last refused call are stored. Where the last answer came between two refused calls of
    one hour, the result is the time of the last refused call of that hour.
    """
    last = calls.failures.get(failure)
    if last is None or at - last.at >= _FAILING:
        return None
    answered_at = None if failure is CallFailure.ROLE else calls.answered_at
    if answered_at is not None and answered_at >= last.at:
        return None
    since = last.at
    for hour, counts in sorted(calls.hours.items(), reverse=True):
        failed = counts.failed.get(failure)
        if failed is None:
            continue
        start = start_of(hour)
        first_at, last_at = (start + timedelta(seconds=seconds) for seconds in (failed.first, failed.last))
        if since - last_at >= _FAILING or (answered_at is not None and last_at <= answered_at):
            break
        if answered_at is not None and first_at <= answered_at:
            return min(since, last_at)
        since = min(since, first_at)
    return since


def _count_verdicts(count: int, last: ConnectionEvent) -> KeyCalls:
    hour = HourOfCalls(
        answered=count,
        denied=count if last.decision == "deny" else 0,
        continued=count if last.decision == "continue" else 0,
    )
    return KeyCalls(
        answered_at=last.at,
        forms={last.form: last.at},
        dialects={last.dialect: last.at},
        hours={hour_of(last.at): hour},
    )


def _count_other(event: FailedCalls | AnsweredCalls | EdgeRefusals) -> KeyCalls:
    match event:
        case EdgeRefusals():
            return KeyCalls(hours={hour_of(event.at): HourOfCalls(refused={event.code: event.count})})
        case AnsweredCalls():
            return KeyCalls(answered_at=event.at, dialects=_at_of(event.dialect, event.at))
        case FailedCalls():
            return KeyCalls(
                failures={event.failure.value: LastFailure(event.at, event.needed)},
                dialects=_at_of(event.dialect, event.at),
                hours={hour_of(event.since): HourOfCalls(failed={event.failure.value: _failed_hour(event)})},
            )


def _at_of(dialect: str, at: datetime) -> dict[str, datetime]:
    return {dialect: at} if dialect else {}


def _failed_hour(event: FailedCalls) -> FailedHour:
    """Return the calls of *event* as calls of the hour of the first."""
    first, last = (int((at - start_of(hour_of(event.since))).total_seconds()) for at in (event.since, event.at))
    return FailedHour(event.count, first, min(last, 3599))


def _add_hours(first: HourOfCalls | None, other: HourOfCalls | None) -> HourOfCalls:
    first, other = first or HourOfCalls(), other or HourOfCalls()
    return HourOfCalls(
        answered=first.answered + other.answered,
        denied=first.denied + other.denied,
        continued=first.continued + other.continued,
        failed={
            name: _add_failed([failed for failed in (first.failed.get(name), other.failed.get(name)) if failed])
            for name in {**first.failed, **other.failed}
        },
        refused=_add_counts(first.refused, other.refused),
    )


def _add_failed(hours: Sequence[FailedHour]) -> FailedHour:
    return FailedHour(
        sum(hour.count for hour in hours), min(hour.first for hour in hours), max(hour.last for hour in hours)
    )


def _add_counts(first: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: first.get(name, 0) + other.get(name, 0) for name in {**first, **other}}


def _latest_of_each(first: Mapping[str, datetime], other: Mapping[str, datetime]) -> dict[str, datetime]:
    return {name: max(at for at in (first.get(name), other.get(name)) if at) for name in {**first, **other}}


def _latest(first: datetime | None, other: datetime | None) -> datetime | None:
    return max((at for at in (first, other) if at is not None), default=None)


def hour_of(at: datetime) -> str:
    """Return the name of the hour of *at*, a time in UTC: `2026-11-27T09`."""
    return at.strftime(_HOUR)


def start_of(hour: str) -> datetime:
    """Return the start of an hour by its name."""
    return datetime.strptime(hour, _HOUR).replace(tzinfo=UTC)
