"""The brokers and edges that ask about an organization: for its viewers and operators."""

from collections.abc import Mapping
from datetime import datetime

from functions.call import VIEWERS, MemberCall, endpoint
from functions.registry import PREFIX
from functions.web.contract import View
from functions.web.message import Reply, json_reply
from shared.usecases.orgs.callers import ListedCaller
from shared.usecases.orgs.callers import list_callers as read_callers


class HourView(View, frozen=True, kw_only=True):
    """The calls within the hour that begins at *hour* (UTC). *answered*: verdicts; *denied* and *continued* are among
    them. *failed*: calls that were refused, by `failure`. *refused*: clients that the edge refused by itself, by code.
    Lower bounds."""

    hour: str
    answered: int
    denied: int
    continued: int
    failed: Mapping[str, int]
    refused: Mapping[str, int]


class FailureView(View, frozen=True, kw_only=True):
    """Why calls with a key are refused now. *failure*: `wrong_token`, `key_revoked` or `wrong_role`; *since*, *lastAt*:
    the first and the last of these calls."""

    failure: str
    since: datetime
    last_at: datetime
    reason: str
    mend: str


class CallerView(View, frozen=True, kw_only=True):
    """An API key and its calls. *key*: its name; of a platform key a label, `platform:` and 8 hexadecimal digits.
    *role*: null for a caller that the platform authenticates itself. *platform*: the key may serve other organizations
    too. *lastCallAt*: the last call that was answered. *failures*: why calls are refused now. *passed*: what
    the broker passed of clients (`chain`, `certificate` for the client's own alone, `names`, `nothing`), and
    *dialects*: the formats of its calls, each with the time of the last. *hours*: of the last 24, the newest first."""

    key: str
    role: str | None
    platform: bool
    created_at: datetime | None
    revoked_at: datetime | None
    last_call_at: datetime | None
    failures: tuple[FailureView, ...]
    passed: Mapping[str, datetime]
    dialects: Mapping[str, datetime]
    hours: tuple[HourView, ...]


class CallerList(View, frozen=True, kw_only=True):
    """*complete*: false if more keys called within 7 days than are counted, so that the calls of some are not known."""

    complete: bool
    results: tuple[CallerView, ...]


@endpoint(
    "GET",
    PREFIX + "/callers",
    function="activityLog",
    roles=VIEWERS,
    summary="The keys of the brokers and edges that ask about the org, and the calls with each key",
    answers={200: CallerList},
)
def list_callers(call: MemberCall) -> Reply:
    listed = read_callers(call.context, call.member.org)
    return json_reply(CallerList(complete=listed.is_complete, results=tuple(map(_view, listed.callers))))


def _view(caller: ListedCaller) -> CallerView:
    key, calls = caller.record, caller.calls
    return CallerView(
        key=caller.key,
        role=key.role.value if key else None,
        platform=key is None or key.org_id is None,
        created_at=key.created_at if key else None,
        revoked_at=key.revoked_at if key else None,
        last_call_at=calls.answered_at,
        failures=tuple(
            FailureView(
                failure=failing.failure.value,
                since=failing.since,
                last_at=failing.last_at,
                reason=failing.reason,
                mend=failing.mend,
            )
            for failing in caller.failures
        ),
        passed=calls.forms,
        dialects=calls.dialects,
        hours=tuple(
            HourView(
                hour=f"{hour}:00:00Z",
                answered=counts.answered,
                denied=counts.denied,
                continued=counts.continued,
                failed={failure: hour.count for failure, hour in counts.failed.items()},
                refused=counts.refused,
            )
            for hour, counts in sorted(calls.hours.items(), reverse=True)
        ),
    )
