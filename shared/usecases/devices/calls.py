"""Count the calls of each API key: how many were answered, and how many were refused before they were answered."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from shared.connection_records import (
    AnsweredCalls,
    CallFailure,
    ConnectionEvent,
    EdgeRefusals,
    FailedCalls,
    HourOfCalls,
    KeyCalls,
    QueuedEvent,
)

KEYS_MAX: Final = 30  # of an organization and day: 180 KB at most, beside the 180 KB of the rest of a day's usage
FAILING: Final = timedelta(hours=1)  # after the last refused call; a broker that is refused asks again


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


def add_calls(callers: dict[str, KeyCalls], more: Mapping[str, KeyCalls], *, keys_max: int | None = KEYS_MAX) -> None:
    """Add *more* to *callers*. Keys beyond *keys_max* are left out."""
    for key, calls in more.items():
        if key in callers:
            callers[key] = merge(callers[key], calls)
        elif keys_max is None or len(callers) < keys_max:
            callers[key] = calls


def merge(first: KeyCalls, other: KeyCalls) -> KeyCalls:
    """Return the calls of both, of one key. The order does not matter."""
    last_failed = max(first, other, key=_last_failure)
    return KeyCalls(
        answered_at=_latest(first.answered_at, other.answered_at),
        failed_at=last_failed.failed_at,
        failure=last_failed.failure,
        needed=last_failed.needed,
        forms=_latest_of_each(first.forms, other.forms),
        dialects=_latest_of_each(first.dialects, other.dialects),
        hours={
            hour: _add_hours(first.hours.get(hour), other.hours.get(hour)) for hour in {**first.hours, **other.hours}
        },
    )


def find_failing_since(calls: KeyCalls, at: datetime) -> datetime | None:
    """Return since when the calls with a key are refused; None where they are not refused at *at*.

    The failure ends with a call that is answered, or FAILING after the last refused call. A wrong role ends in the
    second way only: calls to another function, which needs the role that the key has, are answered all the time.

    Of an hour, the time of the first refused call alone is stored. Where an answer came between two refused calls of
    one hour, and none came after them, the result is the time of the last refused call.
    """
    failed_at = calls.failed_at
    if failed_at is None or at - failed_at >= FAILING:
        return None
    answered_at = None if calls.failure == CallFailure.ROLE else calls.answered_at
    if answered_at is not None and answered_at >= failed_at:
        return None
    since = failed_at
    for _, hour in sorted(calls.hours.items(), reverse=True):
        if hour.failed_from is None or hour.failed_from > since:
            continue
        # The last refused call of that hour is not stored. An hour without a refused call ends the failure.
        is_later_failure = since - hour.failed_from >= 2 * FAILING
        is_before_answer = answered_at is not None and hour.failed_from <= answered_at
        if is_later_failure or is_before_answer:
            break
        since = hour.failed_from
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
        hours={_hour_of(last.at): hour},
    )


def _count_other(event: FailedCalls | AnsweredCalls | EdgeRefusals) -> KeyCalls:
    match event:
        case EdgeRefusals():
            return KeyCalls(hours={_hour_of(event.at): HourOfCalls(refused={event.code: event.count})})
        case AnsweredCalls():
            return KeyCalls(answered_at=event.at)
        case FailedCalls():
            hour = HourOfCalls(failed={event.failure.value: event.count}, failed_from=event.since)
            return KeyCalls(
                failed_at=event.at,
                failure=event.failure.value,
                needed=event.needed,
                hours={_hour_of(event.since): hour},
            )


def _last_failure(calls: KeyCalls) -> tuple[float, str, str]:
    """Return what orders failures. Two failures of one moment have an order too."""
    return calls.failed_at.timestamp() if calls.failed_at else 0.0, calls.failure, calls.needed


def _add_hours(first: HourOfCalls | None, other: HourOfCalls | None) -> HourOfCalls:
    first, other = first or HourOfCalls(), other or HourOfCalls()
    return HourOfCalls(
        answered=first.answered + other.answered,
        denied=first.denied + other.denied,
        continued=first.continued + other.continued,
        failed=_add_counts(first.failed, other.failed),
        failed_from=min((at for at in (first.failed_from, other.failed_from) if at is not None), default=None),
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
