"""CA certificates: register, list, show, change and delete."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import fields

from functions.api.certificate_view import (
    Stamped,
    Warned,
    certificate_fields,
    encode_pem,
    stamp_fields,
    warnings_view,
)
from functions.api.rehearsal_view import CLIENT, Judged, judge_change
from functions.call import OPERATORS, VIEWERS, MemberCall, endpoint
from functions.registry import PREFIX
from functions.web.body import Body, Comments, File, file_bytes, read_body
from functions.web.conditions import IDS_MAX, PAGING, if_match, read_choice, read_ids, read_page, read_text
from functions.web.contract import CSV_TEXT, PEM_TEXT, View
from functions.web.message import NO_CONTENT, Reply, Request, json_reply, pem_reply
from functions.web.table_file import csv_reply
from shared import errors
from shared.records import CA, CAStatus
from shared.usecases.cas import manage
from shared.usecases.cas.search import CAState, Found, Order, Search, search_cas
from shared.usecases.devices.rehearsal import Change, with_status, without
from shared.usecases.devices.usage import RecentUsage, read_recent_usage
from shared.validation.notices import Notice
from shared.x509.cache import read_registered

CAS: Final = PREFIX + "/authentication/cacertificates"
MANAGE: Final = "manageCertificates"


class CAView(Stamped, frozen=True, kw_only=True):
    """A registered CA certificate."""

    id: str
    status: str  # "active" or "inactive"
    subject: str
    issuer: str
    serial_number: str
    not_before: datetime
    not_after: datetime
    fingerprint_sha256: str = msgspec.field(name="fingerprintSha256")
    key_algorithm: str
    comments: str
    denied_at: datetime | None  # on the deny list since then
    last_used: datetime | None
    connections_30d: int = msgspec.field(name="connections30d")
    warnings: tuple[Warned, ...] | UnsetType = UNSET


def _view(ca_id: str, ca: CA, usage: RecentUsage, warnings: Sequence[Notice] | None = None) -> CAView:
    use = usage.of_ca(ca_id)
    return CAView(
        id=ca_id,
        status=ca.status.value,
        comments=ca.comments,
        denied_at=ca.denied_at,
        last_used=use.last if use else None,
        connections_30d=use.count if use else 0,
        warnings=UNSET if warnings is None else warnings_view(warnings),
        **certificate_fields(read_registered(ca.der)),
        **stamp_fields(ca.changed),
    )


def _recent_usage(call: MemberCall) -> RecentUsage:
    return read_recent_usage(call.context.of(call.member.org), call.context.clock())


class UploadCA(Body, frozen=True, kw_only=True):
    certificate: File
    comments: Comments = ""
    status: CAStatus = CAStatus.ACTIVE


@endpoint(
    "POST",
    CAS,
    alias=True,
    function="uploadCA",
    roles=OPERATORS,
    operation_id="upload_ca",
    summary="Register a CA certificate whose devices are trusted; active at once, unless status is inactive",
    body=UploadCA,
    answers={201: CAView, 200: CAView},
    refusals=(errors.TooManyCAs, errors.TooManyCAsOfOneName, errors.RateLimited, errors.Rejected),
)
def upload(call: MemberCall) -> Reply:
    body = read_body(call.request, UploadCA)
    data = file_bytes(body.certificate, "certificate")
    uploaded = manage.upload_ca(call.context, call.member, data, comments=body.comments, status=body.status)
    view = _view(uploaded.id, uploaded.ca, _recent_usage(call), uploaded.warnings)
    return json_reply(view, status=201 if uploaded.is_new else 200, version=uploaded.ca.changed.version)


class CAList(View, frozen=True, kw_only=True):
    """A page of CA certificates. Of a search also *total*, how many were found on all pages, and *states*: how many of
    the CAs with the text have each state, whatever state was searched for."""

    results: tuple[CAView, ...]
    bookmark: str | None
    total: int | UnsetType = UNSET
    states: dict[str, int] | UnsetType = UNSET


SEARCH: Final = {
    "q": "a part of the subject, the issuer, the description or the SHA-256 fingerprint, or the serial number",
    "status": f"only CAs with this state: {', '.join(CAState)}; expiring is within 30 days",
    "sort": f"{', '.join(Order)}; with - before the name, the last comes first",
}
"""The query parameters of a search -> what they mean."""


def _read_search(request: Request) -> Search:
    """Return what the query searches for. Raises: WrongValue."""
    sort = request.query.get("sort", "")
    return Search(
        text=read_text(request, "q"),
        state=read_choice(request, "status", CAState),
        order=read_choice(request, "sort", Order, value=sort.removeprefix("-") or sort) or Order.SUBJECT,
        descending=sort.startswith("-"),
    )


def _find_all(call: MemberCall) -> Found:
    return search_cas(call.context, call.member.org, _read_search(call.request), _recent_usage(call).by_ca())


@endpoint(
    "GET",
    CAS,
    function=MANAGE,
    roles=VIEWERS,
    summary="The org's CA certificates, ordered by id; a search reads all of them, and sorts by the subject",
    query={**PAGING, **SEARCH, "ids": f"these alone, those that exist: up to {IDS_MAX} ids, with commas between"},
    answers={200: CAList},
)
def list_cas(call: MemberCall) -> Reply:
    page, org, usage = read_page(call.request), call.member.org, _recent_usage(call)
    if "ids" in call.request.query:
        named = manage.find_cas(call.context, org, read_ids(call.request, "ids"))
        results = tuple(_view(ca_id, ca, usage) for ca_id, ca in named.items())
        return json_reply(CAList(results=results, bookmark=None))
    if not SEARCH.keys() & call.request.query.keys():
        cas = manage.list_cas(call.context, org, after=page.after, limit=page.look_ahead)
        results = tuple(_view(ca_id, ca, usage) for ca_id, ca in page.cut(cas))
        return json_reply(CAList(results=results, bookmark=page.bookmark(cas, results)))
    search = _read_search(call.request)
    found = search_cas(call.context, org, search, usage.by_ca(), after=page.after, limit=page.look_ahead)
    results = tuple(_view(ca_id, ca, usage) for ca_id, ca in page.cut(found.cas))
    states = {state.value: found.states[state] for state in CAState}
    bookmark = page.bookmark(found.cas, results)
    return json_reply(CAList(results=results, bookmark=bookmark, total=found.total, states=states))


_STAMP: Final = frozenset(field.name for field in fields(Stamped))
_COLUMNS: Final = {
    field.encode_name: field.name
    for field in sorted(fields(CAView), key=lambda field: field.name in _STAMP)
    if field.name not in ("version", "warnings")
}
"""The columns of the table -> the fields of `CAView`."""


@endpoint(
    "GET",
    f"{CAS}/csv",
    function=MANAGE,
    roles=VIEWERS,
    operation_id="ca_table",
    summary="The CA certificates that a search finds, as a table for spreadsheets",
    query=SEARCH,
    answers={200: CSV_TEXT},
)
def get_table(call: MemberCall) -> Reply:
    usage = _recent_usage(call)
    views = (_view(ca_id, ca, usage) for ca_id, ca in _find_all(call).cas)
    rows = ([getattr(view, name) for name in _COLUMNS.values()] for view in views)
    return csv_reply(list(_COLUMNS), rows, f"{call.member.org.org_id}-ca-certificates.csv")


@endpoint(
    "GET",
    f"{CAS}/pem",
    function=MANAGE,
    roles=VIEWERS,
    operation_id="ca_bundle",
    summary="The CA certificates that a search finds, as one PEM file",
    query=SEARCH,
    answers={200: PEM_TEXT},
)
def get_bundle(call: MemberCall) -> Reply:
    certs = (read_registered(ca.der) for _, ca in _find_all(call).cas)
    return pem_reply(encode_pem(*certs), f"{call.member.org.org_id}-ca-certificates.pem")


@endpoint(
    "GET",
    f"{CAS}/{{id}}",
    function=MANAGE,
    roles=VIEWERS,
    operation_id="get_ca",
    summary="One CA certificate",
    answers={200: CAView},
    refusals=(errors.NotFound,),
)
def get(call: MemberCall) -> Reply:
    ca = manage.get_ca(call.context, call.member.org, call.id)
    return json_reply(_view(call.id, ca, _recent_usage(call)), version=ca.changed.version)


@endpoint(
    "GET",
    f"{CAS}/{{id}}/pem",
    function=MANAGE,
    roles=VIEWERS,
    operation_id="ca_pem",
    summary="A CA certificate as PEM",
    answers={200: PEM_TEXT},
    refusals=(errors.NotFound,),
)
def get_pem(call: MemberCall) -> Reply:
    ca = manage.get_ca(call.context, call.member.org, call.id)
    return pem_reply(encode_pem(read_registered(ca.der)), f"{call.id}.pem")


class ChangeCA(Body, frozen=True, kw_only=True):
    status: CAStatus | None = None
    comments: Comments | None = None


class CAEffect(View, frozen=True, kw_only=True):
    """What deleting, deactivating or activating a CA would do. At least so many connections: they are a sample."""

    connections_30d: int = msgspec.field(name="connections30d")
    last_used: datetime | None
    also_vouched_by: tuple[str, ...]  # ids of active CAs that vouch for every certificate that this CA vouches for
    last_active: bool  # no other CA is active, so that no device certificate is accepted without this one
    judged: Judged


def _reply_effect(call: MemberCall, change: Change) -> Reply:
    others = manage.list_also_vouched_by(call.context, call.member.org, call.id)
    use = _recent_usage(call).of_ca(call.id)
    return json_reply(
        CAEffect(
            connections_30d=use.count if use else 0,
            last_used=use.last if use else None,
            also_vouched_by=tuple(others),
            last_active=manage.is_last_active(call.context, call.member.org, call.id),
            judged=judge_change(call, change),
        )
    )


@endpoint(
    "PUT",
    f"{CAS}/{{id}}",
    function=MANAGE,
    roles=OPERATORS,
    operation_id="change_ca",
    summary="Activate, deactivate or describe a CA certificate; with dryrun=true, what that would do",
    body=ChangeCA,
    query={
        "dryrun": "true: only answer what the status in the body would do; without a status, inactive",
        "client": CLIENT,
    },
    if_match="required",
    answers={200: (CAView, CAEffect)},
    refusals=(errors.NotFound, errors.Stale),
)
def change(call: MemberCall) -> Reply:
    body = read_body(call.request, ChangeCA)
    if call.request.flag("dryrun"):
        status = body.status or CAStatus.INACTIVE
        return _reply_effect(call, with_status(call.id, active=status is CAStatus.ACTIVE))
    ca = manage.change_ca(
        call.context,
        call.member,
        call.id,
        status=body.status,
        comments=body.comments,
        expected_version=if_match(call.request),
    )
    return json_reply(_view(call.id, ca, _recent_usage(call)), version=ca.changed.version)


@endpoint(
    "DELETE",
    f"{CAS}/{{id}}",
    function=MANAGE,
    roles=OPERATORS,
    operation_id="delete_ca",
    summary="Delete a CA certificate; with dryrun=true, what that would do",
    query={"dryrun": "true: only answer what the deletion would do", "client": CLIENT},
    if_match="optional",
    answers={204: None, 200: CAEffect},
    refusals=(errors.NotFound, errors.Stale),
)
def delete(call: MemberCall) -> Reply:
    if call.request.flag("dryrun"):
        return _reply_effect(call, without(call.id))
    manage.delete_ca(call.context, call.member, call.id, expected_version=if_match(call.request, required=False))
    return NO_CONTENT
