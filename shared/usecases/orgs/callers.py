"""The brokers and edges of an organization: their API keys, and the calls with each key."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec.structs import replace

from shared.connection_records import CallFailure, KeyCalls
from shared.records import PLATFORM, ApiKey, Org, Proof, Role
from shared.text import format_time
from shared.usecases.callers import MACHINES, label_key, scope_of
from shared.usecases.context import Context
from shared.usecases.devices.calls import find_failing_since, merge
from shared.usecases.devices.usage import read_calls
from shared.usecases.orgs.api_keys import list_keys
from shared.validation.verdict_by_name import NO_LISTENER

DAYS: Final = 7  # whose calls are listed
_HOURS: Final = timedelta(hours=24)
_PLACES: Final = {Role.BROKER: "broker", Role.EDGE: "TLS edge"}
_NAMES_BY_LISTENER: Final = ("vernemq", "mosquitto")  # dialects whose names are proven by the listener alone
_NAMES: Final = ("rabbitmq", *_NAMES_BY_LISTENER)  # dialects that pass names of clients and no certificate


class Failing(msgspec.Struct, frozen=True, kw_only=True):
    """Why calls with a key are refused now.

    Args:
        since, last_at: the first and the last of these calls.
        reason, mend: the same in sentences.
    """

    failure: CallFailure
    since: datetime
    last_at: datetime
    reason: str
    mend: str


class ListedCaller(msgspec.Struct, frozen=True, kw_only=True):
    """An API key that may ask about an organization, and the calls with the key.

    Args:
        key: the name of the key; of a platform key, a label.
        record: None: a caller that the platform authenticates itself.
        failures: why calls are refused now; empty: they are not.
        calls: of the last DAYS days; the hours of the last 24.
    """

    key: str
    record: ApiKey | None
    failures: Sequence[Failing] = ()
    calls: KeyCalls


class ListedCallers(msgspec.Struct, frozen=True):
    """The callers of an organization; those that are refused now come first.

    Args:
        is_complete: False: more keys called than a day counts, so that the calls of some keys are not known.
    """

    callers: Sequence[ListedCaller]
    is_complete: bool


def list_callers(context: Context, org: Org) -> ListedCallers:
    """Return the keys of brokers and edges that may ask about *org*, and keys with which such calls are refused.

    Raises: StoreUnavailable.
    """
    at = context.clock()
    own = read_calls(context.of(org), org.org_id, at, DAYS)
    of_platform = read_calls(context.repository, PLATFORM, at, DAYS)
    answered = dict(own.by_key)
    callers: list[ListedCaller] = []
    for owner, refused in ((org.org_id, {}), (None, of_platform.by_key)):
        asked = _last_asked(context, owner)
        for key in list_keys(context, owner):
            if not scope_of(key).may_ask_about(org.org_id, org.incarnation):
                continue
            calls = merge(answered.pop(key.key, KeyCalls()), refused.get(key.key, KeyCalls()))
            if key.key in asked:
                calls = merge(calls, KeyCalls(answered_at=asked[key.key]))
            if calls != KeyCalls() or (key.role in MACHINES and key.revoked_at is None):
                callers.append(_describe(key, calls, at))
    for name, calls in answered.items():  # AWS IoT's own authorizer has no key
        callers.append(ListedCaller(key=name, record=None, calls=_recent(calls, at)))
    callers.sort(key=lambda caller: not caller.failures)
    return ListedCallers(callers, own.is_complete and of_platform.is_complete)


def _last_asked(context: Context, owner: str | None) -> Mapping[str, datetime]:
    """Return when each edge key of *owner* asked last."""
    asked: dict[str, datetime] = {}
    for contact in context.heartbeats.list_contacts(owner):
        asked[contact.key] = max(contact.asked_at, asked.get(contact.key, contact.asked_at))
    return asked


def _describe(key: ApiKey, calls: KeyCalls, at: datetime) -> ListedCaller:
    failures: list[Failing] = []
    for failure in CallFailure:
        since = find_failing_since(calls, failure, at)
        if since is not None:
            reason, mend = _explain(key, calls, failure)
            last_at = calls.failures[failure].at
            failures.append(Failing(failure=failure, since=since, last_at=last_at, reason=reason, mend=mend))
    return ListedCaller(key=label_key(key.key), record=key, failures=failures, calls=_recent(calls, at))


def _recent(calls: KeyCalls, at: datetime) -> KeyCalls:
    """Return *calls* with the hours of the last day."""
    oldest = (at - _HOURS).strftime("%Y-%m-%dT%H")
    return replace(calls, hours={hour: counts for hour, counts in calls.hours.items() if hour > oldest})


def _explain(key: ApiKey, calls: KeyCalls, failure: CallFailure) -> tuple[str, str]:
    """Return why calls with *key* are refused, and what to do."""
    needed = Role(calls.failures[failure].needed or Role.BROKER)
    place = _PLACES[needed]
    if key.org_id is None:
        new = f"Ask the operator of the platform for a new key in place of {label_key(key.key)}"
    else:
        command = _creation(key, needed, calls)
        explained = ", where NAME is the broker's listener" if command.endswith(" NAME") else ""
        new = f"Create a new key ({command}{explained})"
    replacement = f"{new}, and configure the new key and its token at the {place}."
    refused = f"Calls with the API key {label_key(key.key)} are refused: "
    match failure:
        case CallFailure.TOKEN if key.role is needed:
            return (
                f"{refused}the token is wrong.",
                f"Configure at the {place} the token that was shown when the key was created. If the token is lost: "
                f"{replacement[0].lower()}{replacement[1:]}",
            )
        case CallFailure.TOKEN:
            return (
                f"{refused}the token is wrong, and the key has the role {key.role.value}; a {place} needs the role "
                f"{needed.value}.",
                replacement,
            )
        case CallFailure.REVOKED:
            since = f" on {format_time(key.revoked_at)}" if key.revoked_at else ""
            return f"{refused}the key was revoked{since}.", replacement
        case CallFailure.ROLE:
            return (
                f"{refused}the key has the role {key.role.value}; a {place} needs the role {needed.value}.",
                replacement,
            )


def _creation(key: ApiKey, role: Role, calls: KeyCalls) -> str:
    """Return the command that creates a key in place of *key*, with the role *role*."""
    command = f"python -m functions.admin key create --org {key.org_id} --role {role.value}"
    if role is Role.EDGE:
        return command
    is_replaced = key.role is role
    if is_replaced and key.no_sni:
        command += " --no-sni"
    if key.proof is Proof.BROKER or (not is_replaced and any(dialect in calls.dialects for dialect in _NAMES)):
        command += f" --proof {Proof.BROKER.value}"
        listener = key.listener if is_replaced else None
        if listener is None and any(dialect in calls.dialects for dialect in _NAMES_BY_LISTENER):
            listener = "NAME"
        if listener is not None and listener != NO_LISTENER:
            command += f" --listener {listener}"
    return command
