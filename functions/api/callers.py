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


class CallerView(View, frozen=True, kw_only=True):
    """An API key and its calls. *key*: its name; of a platform key a label, `platform:` and 8 digits. *role*: null for
    a caller that the platform authenticates itself. *platform*: the key
    may serve other organizations too. *lastCallAt*: the last call that was answered. *failure*: why calls are refused
    now, `wrong_token`, `key_revoked` or `wrong_role`, *failingSince* when, with *reason* and *mend*. *passed*: what
    the broker passed of clients (`chain`, `certificate` for the client's own alone, `names`, `nothing`), and
    *dialects*: the formats of its calls, each with the time of the last. *hours*: of the last 24, the newest first."""

    key: str
    role: str | None
    platform: bool
    created_at: datetime | None
    revoked_at: datetime | None
    last_call_at: datetime | None
    failure: str | None
    failing_since: datetime | None
    last_failure_at: datetime | None
    reason: str
    mend: str
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
        last_call_at=caller.last_call_at,
        failure=caller.failure.value if caller.failure else None,
        failing_since=caller.failing_since,
        last_failure_at=calls.failed_at,
        reason=caller.reason,
        mend=caller.mend,
        passed=calls.forms,
        dialects=calls.dialects,
        hours=tuple(
            HourView(
                hour=f"{hour}:00:00Z",
                answered=counts.answered,
                denied=counts.denied,
                continued=counts.continued,
                failed=counts.failed,
                refused=counts.refused,
            )
            for hour, counts in sorted(calls.hours.items(), reverse=True)
        ),
    )
