"""The brokers and edges of an organization: their API keys, and what became of their calls."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec.structs import replace

from shared.connection_records import CallFailure, KeyCalls
from shared.records import PLATFORM, ApiKey, Org, Role
from shared.text import format_time
from shared.usecases.callers import scope_of
from shared.usecases.context import Context
from shared.usecases.devices.calls import merge
from shared.usecases.devices.usage import read_calls
from shared.usecases.orgs.api_keys import list_keys

DAYS: Final = 7  # whose calls are listed
_FAILING: Final = timedelta(hours=1)  # after the last refused call; a broker that is refused asks again
_HOURS: Final = timedelta(hours=24)
_MACHINES: Final = (Role.BROKER, Role.EDGE)


class ListedCaller(msgspec.Struct, frozen=True, kw_only=True):
    """An API key that may ask about an organization, and the calls with it.

    Args:
        key: None in *record*: a caller that the platform authenticates itself.
        last_call_at: the last call that was answered.
        failure: why calls are refused now; None: the last call was answered, or was more than an hour ago.
        reason, mend: the same in sentences.
        calls: of the last DAYS days; the hours of the last 24.
    """

    key: str
    record: ApiKey | None
    last_call_at: datetime | None
    failure: CallFailure | None = None
    reason: str = ""
    mend: str = ""
    calls: KeyCalls


def list_callers(context: Context, org: Org) -> Sequence[ListedCaller]:
    """Return the keys of brokers and edges that may ask about *org*, and other keys whose calls are refused.

    Keys that are refused now come first.

    Raises: StoreUnavailable.
    """
    at = context.clock()
    answered = read_calls(context.of(org), org.org_id, at, DAYS)
    refused_of_platform = read_calls(context.repository, PLATFORM, at, DAYS)
    callers: list[ListedCaller] = []
    for owner, refused in ((org.org_id, answered), (None, refused_of_platform)):
        asked = _last_asked(context, owner)
        for key in list_keys(context, owner):
            if not scope_of(key).may_ask_about(org.org_id, org.incarnation):
                continue
            calls = answered.pop(key.key, None)
            if owner is None and key.key in refused:
                calls = _join(calls, refused[key.key])
            if calls is not None or (key.role in _MACHINES and key.revoked_at is None):
                callers.append(_describe(key, calls or KeyCalls(), asked.get(key.key), at))
    for name, calls in answered.items():  # AWS IoT's own authorizer has no key
        callers.append(ListedCaller(key=name, record=None, last_call_at=calls.answered_at, calls=_recent(calls, at)))
    return sorted(callers, key=lambda caller: caller.failure is None)


def _last_asked(context: Context, owner: str | None) -> Mapping[str, datetime]:
    """Return when each edge key of *owner* asked last."""
    asked: dict[str, datetime] = {}
    for contact in context.heartbeats.list_contacts(owner):
        asked[contact.key] = max(contact.asked_at, asked.get(contact.key, contact.asked_at))
    return asked


def _join(answered: KeyCalls | None, refused: KeyCalls) -> KeyCalls:
    """Return the calls of a platform key, whose refused calls are stored with the platform."""
    return refused if answered is None else merge(answered, refused)


def _describe(key: ApiKey, calls: KeyCalls, asked_at: datetime | None, at: datetime) -> ListedCaller:
    if asked_at is not None:
        calls = merge(calls, KeyCalls(answered_at=asked_at))
    is_failing = calls.failing_since is not None and calls.failed_at is not None and at - calls.failed_at < _FAILING
    failure = CallFailure(calls.failure) if is_failing else None
    reason, mend = _explain(key, failure) if failure is not None else ("", "")
    return ListedCaller(
        key=key.key,
        record=key,
        last_call_at=calls.answered_at,
        failure=failure,
        reason=reason,
        mend=mend,
        calls=_recent(calls, at),
    )


def _recent(calls: KeyCalls, at: datetime) -> KeyCalls:
    """Return *calls* with the hours of the last day."""
    oldest = (at - _HOURS).strftime("%Y-%m-%dT%H")
    return replace(calls, hours={hour: counts for hour, counts in calls.hours.items() if hour >= oldest})


def _explain(key: ApiKey, failure: CallFailure) -> tuple[str, str]:
    """Return why calls with *key* are refused, and what to do."""
    role = key.role.value if key.role in _MACHINES else Role.BROKER.value
    command = f"functions.admin key create --org {key.org_id} --role {role}"
    new = f"Create a new key ({command})" if key.org_id else "Ask the operator of the platform for a new key"
    match failure:
        case CallFailure.TOKEN:
            return (
                f"Calls with the API key {key.key} are refused: the token is wrong.",
                "Configure the token that was shown when the key was created. If the token is lost: "
                f"{new[0].lower()}{new[1:]}, and configure the new key and its token.",
            )
        case CallFailure.REVOKED:
            since = f" on {format_time(key.revoked_at)}" if key.revoked_at else ""
            return (
                f"Calls with the API key {key.key} are refused: the key was revoked{since}.",
                f"{new}, and configure the new key and its token where the revoked key is configured.",
            )
        case CallFailure.ROLE:
            return (
                f"Calls with the API key {key.key} are refused: the key has the role {key.role.value}, which may not "
                "make these calls.",
                f"A broker needs a key with the role broker, a TLS edge needs the role edge. {new}, and configure the "
                "new key and its token.",
            )
