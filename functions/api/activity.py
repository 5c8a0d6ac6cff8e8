"""The activity list: what happened in an organization."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from functions.api.certificate_view import encode_pem, parse_stored
from functions.call import VIEWERS, MemberCall, endpoint
from functions.dialects.failing import Failing
from functions.registry import PREFIX
from functions.web.conditions import PAGING, read_page
from functions.web.contract import View
from functions.web.message import Reply, json_reply
from shared.errors import WrongValue
from shared.records import Activity, ActivityKind
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
        who=entry.who if entry.kind is ActivityKind.REFUSAL else label_key(entry.who),  # a client chooses its name
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


class ActivityList(View, frozen=True, kw_only=True):
    results: tuple[ActivityView, ...]
    bookmark: str | None


@endpoint(
    "GET",
    PREFIX + "/activity",
    function="activityLog",
    roles=VIEWERS,
    summary="What happened, newest first",
    query={**PAGING, "kind": f"one or more of {_KINDS}, with commas between; all where not given"},
    answers={200: ActivityList},
)
def list_activity(call: MemberCall) -> Reply:
    page = read_page(call.request)
    records = call.context.of(call.member.org)
    entries = read_activity(records, _kinds(call), after=page.after, limit=page.look_ahead)
    fingerprints = {entry.fingerprint for entry in entries if entry.fingerprint and not entry.certificate}
    chains = ShownCertificates(records).chains(fingerprints)
    results = tuple(_view(entry, chains) for entry in page.cut(entries))
    return json_reply(ActivityList(results=results, bookmark=page.bookmark(entries, results)))


def _kinds(call: MemberCall) -> Sequence[ActivityKind]:
    """Return the kinds of entries that the query names; all without it. Raises: WrongValue."""
    names = call.request.query.get("kind", "").split(",")
    try:
        return [ActivityKind(name) for name in dict.fromkeys(names) if name] or list(ActivityKind)
    except ValueError:
        raise WrongValue(field="kind", found=f"kind takes {_KINDS}") from None
