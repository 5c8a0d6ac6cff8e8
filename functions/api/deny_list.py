"""The deny list: certificates, serial numbers and devices that are refused whatever their chain."""

from datetime import datetime
from typing import Final

from functions.api.rehearsal_view import CLIENT, Judged, judge_change
from functions.call import OPERATORS, VIEWERS, MemberCall, endpoint
from functions.registry import PREFIX
from functions.web.body import Body, Comments, File, Short, file_bytes, read_body
from functions.web.conditions import PAGING, read_page
from functions.web.contract import View
from functions.web.message import NO_CONTENT, Reply, json_reply
from shared import errors
from shared.records import Denial, DenialKind
from shared.usecases.devices import deny_list as denials
from shared.usecases.devices.rehearsal import with_denial, without_denial

DENY_LIST: Final = PREFIX + "/authorization/denylist"
FUNCTION: Final = "connectionPolicy"


class DenialView(View, frozen=True, kw_only=True):
    """An entry of the deny list."""

    id: str
    kind: str
    value: str
    reason: str
    created_at: datetime
    created_by: str


def _view(denial: Denial) -> DenialView:
    return DenialView(
        id=denial.id,
        kind=denial.kind.value,
        value=denial.value,
        reason=denial.reason,
        created_at=denial.created_at,
        created_by=denial.created_by,
    )


class DenialList(View, frozen=True, kw_only=True):
    results: tuple[DenialView, ...]
    bookmark: str | None


@endpoint(
    "GET",
    DENY_LIST,
    function=FUNCTION,
    roles=VIEWERS,
    summary="The deny list",
    query=PAGING,
    answers={200: DenialList},
)
def list_denials(call: MemberCall) -> Reply:
    page = read_page(call.request)
    entries = denials.list_denials(call.context, call.member.org, after=page.after, limit=page.look_ahead)
    results = tuple(map(_view, page.cut(entries)))
    return json_reply(DenialList(results=results, bookmark=page.bookmark(entries, results)))


class Deny(Body, frozen=True, kw_only=True):
    """*kind* and *value*; or a *certificate*, whose fingerprint is meant, or with *kind* `key` its public key."""

    kind: DenialKind | None = None
    value: Short | None = None
    certificate: File | None = None
    reason: Comments = ""


class DenialEffect(View, frozen=True, kw_only=True):
    """What adding an entry to the deny list, or taking an entry off the list, would do."""

    judged: Judged


@endpoint(
    "POST",
    DENY_LIST,
    function=FUNCTION,
    roles=OPERATORS,
    summary="Refuse a certificate, a serial number, a public key or a device from now on; with dryrun=true, what that "
    "would do",
    body=Deny,
    query={"dryrun": "true: only answer what the entry would do", "client": CLIENT},
    answers={201: DenialView, 200: (DenialView, DenialEffect)},
    refusals=(errors.InvalidDenial, errors.NotFound, errors.Rejected, errors.TooManyDenials),
)
def deny(call: MemberCall) -> Reply:
    body = read_body(call.request, Deny)
    certificate = file_bytes(body.certificate, "certificate") if body.certificate is not None else None
    if call.request.flag("dryrun"):
        planned = denials.plan_denial(
            call.context, call.member, kind=body.kind, value=body.value, certificate=certificate
        )
        return json_reply(DenialEffect(judged=judge_change(call, with_denial(planned))))
    denial, is_new = denials.deny(
        call.context, call.member, kind=body.kind, value=body.value, certificate=certificate, reason=body.reason
    )
    return json_reply(_view(denial), status=201 if is_new else 200)


@endpoint(
    "DELETE",
    f"{DENY_LIST}/{{id}}",
    function=FUNCTION,
    roles=OPERATORS,
    summary="Take an entry off the deny list; with dryrun=true, what that would do",
    query={"dryrun": "true: only answer what the removal would do", "client": CLIENT},
    answers={204: None, 200: DenialEffect},
    refusals=(errors.NotFound,),
)
def lift(call: MemberCall) -> Reply:
    if call.request.flag("dryrun"):
        return json_reply(DenialEffect(judged=judge_change(call, without_denial(call.id))))
    denials.lift(call.context, call.member, call.id)
    return NO_CONTENT
