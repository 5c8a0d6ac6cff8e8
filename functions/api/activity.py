"""The activity list: what happened in an organization."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from functions.api.certificate_view import encode_pem, parse_stored
from functions.call import VIEWERS, MemberCall, endpoint
from functions.dialects.failing import Failing
from functions.registry import PREFIX
from functions.web.conditions import PAGING, read_page, read_text, read_time
from functions.web.contract import CSV_TEXT, View
from functions.web.message import Reply, json_reply
from functions.web.table_file import csv_reply
from shared.errors import WrongValue
from shared.records import Activity, ActivityKind
from shared.usecases.activity import READ_MAX, ActivitySearch, FoundActivity, who_of
from shared.usecases.activity import list_activity as read_activity
from shared.usecases.callers import label_key
from shared.usecases.devices.shown import ShownCertificates

_KINDS: Final = ", ".join(kind.value for kind in ActivityKind)


class ActivityView(View, frozen=True, kw_only=True, omit_defaults=True):
    """What happened. Of a refusal also who tried, where, and why, as it was decided; with which certificate: its
    SHA-256, and in PEM what was sent, where it is still kept; and which API key asked, in which format, and what it
    passed of the client (`chain`, `certificate`, `names`, `nothing`)."""

    id: str
    at: datetime
    kind: str
    who: str
    what: str
    result: str
    code: str | None = None
    detail: dict[str, str] = {}
    client_id: str | None = None
    server_name: str | None = None
    certificate: str | None = None
    fingerprint_sha256: str | None = None
    failing: Failing | None = None
    step: int | None = None
    reason: str = ""
    mend: str = ""
    asked_by: str = ""
    dialect: str = ""
    passed: str = ""


def _view(entry: Activity, chains: Mapping[str, Sequence[bytes]]) -> ActivityView:
    failing = entry.failing
    chain = (entry.certificate,) if entry.certificate else chains.get(entry.fingerprint or "", ())
    return ActivityView(
        id=entry.id,
        at=entry.at,
        kind=entry.kind.value,
        who=who_of(entry),
        what=entry.what,
        result=entry.result,
        code=entry.code,
        detail=entry.detail,
        client_id=entry.client_id,
        server_name=entry.server_name,
        certificate="".join(encode_pem(parse_stored(der)) for der in chain) or None,
        fingerprint_sha256=entry.fingerprint,
        failing=Failing(subject=failing["subject"], fingerprint_sha256=failing["fingerprintSha256"])
        if failing
        else None,
        step=entry.step,
        reason=entry.reason,
        mend=entry.mend,
        asked_by=label_key(entry.asked_by),
        dialect=entry.dialect,
        passed=entry.passed,
    )


SEARCH: Final = {
    "kind": f"one or more of {_KINDS}, with commas between; all where not given",
    "q": "a part of a text of the entry: who, what, a code, a client ID, a reason",
    "from": "the first day (2026-11-27, in UTC) or time (2026-11-27T09:30:00Z)",
    "to": "the last day or time",
}
"""The query parameters of a search -> what they mean."""


class ActivityList(View, frozen=True, kw_only=True):
    """A page. A search reads 5,000 entries at most, so a page with few results, or none, may have a bookmark."""

    results: tuple[ActivityView, ...]
    bookmark: str | None


@endpoint(
    "GET",
    PREFIX + "/activity",
    function="activityLog",
    roles=VIEWERS,
    summary="What happened, newest first",
    query={**PAGING, **SEARCH},
    answers={200: ActivityList},
)
def list_activity(call: MemberCall) -> Reply:
    page = read_page(call.request)
    found = _find(call, after=page.after, limit=page.limit)
    fingerprints = {entry.fingerprint for entry in found.entries if entry.fingerprint and not entry.certificate}
    chains = ShownCertificates(call.context.of(call.member.org)).chains(fingerprints)
    results = tuple(_view(entry, chains) for entry in found.entries)
    return json_reply(ActivityList(results=results, bookmark=found.bookmark))


_COLUMNS: Final = ("at", "kind", "who", "what", "detail", "result", "code", "clientId", "serverName", "reason", "mend")


@endpoint(
    "GET",
    PREFIX + "/activity/csv",
    function="activityLog",
    roles=VIEWERS,
    operation_id="activity_table",
    summary=f"The same as a table for spreadsheets: what the newest {READ_MAX:,} entries of these kinds and days hold",
    query=SEARCH,
    answers={200: CSV_TEXT},
)
def get_table(call: MemberCall) -> Reply:
    rows = (
        (
            entry.at,
            entry.kind.value,
            who_of(entry),
            entry.what,
            "; ".join(f"{name}: {value}" for name, value in entry.detail.items()),
            entry.result,
            entry.code,
            entry.client_id,
            entry.server_name,
            entry.reason,
            entry.mend,
        )
        for entry in _find(call, after="", limit=READ_MAX).entries
    )
    return csv_reply(_COLUMNS, rows, f"{call.member.org.org_id}-activity.csv")


def _find(call: MemberCall, *, after: str, limit: int) -> FoundActivity:
    """Return the entries that the query searches for. Raises: WrongValue."""
    query = call.request
    search = ActivitySearch(
        text=read_text(query, "q"), since=read_time(query, "from"), until=read_time(query, "to", at_end=True)
    )
    return read_activity(call.context.of(call.member.org), _kinds(call), search, after=after, limit=limit)


def _kinds(call: MemberCall) -> Sequence[ActivityKind]:
    """Return the kinds of entries that the query names; all without it. Raises: WrongValue."""
    names = call.request.query.get("kind", "").split(",")
    try:
        return [ActivityKind(name) for name in dict.fromkeys(names) if name] or list(ActivityKind)
    except ValueError:
        raise WrongValue(field="kind", found=f"kind takes {_KINDS}") from None
