"""Count the calls of each API key: how many were answered, and how many were refused before they were answered."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from shared.connection_records import ConnectionEvent, EdgeRefusals, FailedCalls, HourOfCalls, KeyCalls, QueuedEvent

KEYS_MAX: Final = 30  # of an organization and day: 180 KB at most, beside the 180 KB of the rest of a day's usage


def count_calls(events: Iterable[QueuedEvent]) -> dict[str, KeyCalls]:
    """Return the calls of each API key in *events*."""
    callers: dict[str, KeyCalls] = {}
    alike: dict[tuple[Any, ...], tuple[int, ConnectionEvent]] = {}  # verdicts that differ in their time within an hour
    for event in events:
        if isinstance(event, ConnectionEvent):
            at = event.at
            same = (event.key, at.toordinal(), at.hour, event.decision, event.form, event.dialect)
            count, last = alike.get(same, (0, event))
            alike[same] = count + 1, event if at > last.at else last
        else:
            add_calls(callers, {event.key: _count_other(event)})
    for count, last in alike.values():
        if last.key:
            add_calls(callers, {last.key: _count_verdicts(count, last)})
    return callers


def add_calls(callers: dict[str, KeyCalls], more: Mapping[str, KeyCalls]) -> None:
    """Add *more* to *callers*. Keys beyond KEYS_MAX are left out."""
    for key, calls in more.items():
        if key in callers:
            callers[key] = merge(callers[key], calls)
        elif len(callers) < KEYS_MAX:
            callers[key] = calls


def merge(first: KeyCalls, other: KeyCalls) -> KeyCalls:
    """Return the calls of both, of one key. The order does not matter."""
    answered_at = _latest(first.answered_at, other.answered_at)
    since = [
        at
        for at in (first.failing_since, other.failing_since)
        if at is not None and (answered_at is None or at > answered_at)
    ]
    last_failed = max(first, other, key=lambda calls: calls.failed_at.timestamp() if calls.failed_at else 0.0)
    return KeyCalls(
        answered_at=answered_at,
        failed_at=last_failed.failed_at,
        failing_since=min(since, default=None),
        failure=last_failed.failure,
        forms=_latest_of_each(first.forms, other.forms),
        dialects=_latest_of_each(first.dialects, other.dialects),
        hours={
            hour: _add_hours(first.hours.get(hour), other.hours.get(hour)) for hour in {**first.hours, **other.hours}
        },
    )


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
        hours={_hour_of(last.at): hour},
    )


def _count_other(event: FailedCalls | EdgeRefusals) -> KeyCalls:
    if isinstance(event, EdgeRefusals):
        return KeyCalls(hours={_hour_of(event.at): HourOfCalls(refused={event.code: event.count})})
    return _count_failed(event)


def _count_failed(event: FailedCalls) -> KeyCalls:
    hour = HourOfCalls(failed={event.failure.value: event.count})
    return KeyCalls(
        failed_at=event.at, failing_since=event.since, failure=event.failure.value, hours={_hour_of(event.at): hour}
    )


def _add_hours(first: HourOfCalls | None, other: HourOfCalls | None) -> HourOfCalls:
    first, other = first or HourOfCalls(), other or HourOfCalls()
    return HourOfCalls(
        answered=first.answered + other.answered,
        denied=first.denied + other.denied,
        continued=first.continued + other.continued,
        failed=_add_counts(first.failed, other.failed),
        refused=_add_counts(first.refused, other.refused),
    )


def _add_counts(first: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: first.get(name, 0) + other.get(name, 0) for name in {**first, **other}}


def _latest_of_each(first: Mapping[str, datetime], other: Mapping[str, datetime]) -> dict[str, datetime]:
    return {name: max(at for at in (first.get(name), other.get(name)) if at) for name in {**first, **other}}


def _latest(first: datetime | None, other: datetime | None) -> datetime | None:
    return max((at for at in (first, other) if at is not None), default=None)


def _hour_of(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H")
