"""The preview of a certificate: its fields, what it would be accepted as, and what registering it as a CA would do."""

from datetime import datetime
from typing import Final

from msgspec import UNSET, UnsetType

from functions.api.certificate_view import CertificateView, Warned, certificate_fields, warnings_view
from functions.api.rehearsal_view import CLIENT, Judged, judge_change
from functions.call import VIEWERS, MemberCall, endpoint
from functions.registry import PREFIX
from functions.web.body import Body, File, file_bytes, read_body
from functions.web.contract import View
from functions.web.message import Reply, json_reply
from shared import errors
from shared.usecases.cas.manage import find_registered, preview_ca
from shared.usecases.devices.rehearsal import with_ca
from shared.usecases.servers.preview import preview_server
from shared.validation.notices import Acceptance
from shared.validation.server_cert import names_of

FUNCTION: Final = "manageCertificates"


class Preview(Body, frozen=True, kw_only=True):
    certificate: File


class AcceptanceView(View, frozen=True, kw_only=True):
    """Whether a certificate would be accepted, and why not."""

    accepted: bool
    code: str | None = None
    message: str | None = None
    warnings: tuple[Warned, ...] = ()


class RegisteredView(View, frozen=True, kw_only=True):
    """A CA certificate that is registered already."""

    id: str
    created_at: datetime


class PreviewView(CertificateView, frozen=True, kw_only=True):
    """The fields of a certificate that is not stored."""

    names: tuple[str, ...]
    self_signed: bool
    ca: AcceptanceView
    server: AcceptanceView
    registered: RegisteredView | None  # as a CA of the organization
    judged: Judged | UnsetType = UNSET  # with effect=true: what registering the certificate as a CA would do


@endpoint(
    "POST",
    PREFIX + "/authentication/preview",
    function=FUNCTION,
    roles=VIEWERS,
    summary="The fields of a certificate, and what it would be accepted as; nothing is saved",
    body=Preview,
    query={"effect": "true: also what registering the certificate as a CA would do", "client": CLIENT},
    answers={200: PreviewView},
    refusals=(errors.Rejected,),
)
def preview(call: MemberCall) -> Reply:
    body = read_body(call.request, Preview)
    data = file_bytes(body.certificate, "certificate")
    cert, server = preview_server(call.context, call.member, data)
    ca = preview_ca(call.context, call.member, data)
    known = find_registered(call.context, call.member.org, cert)
    has_effect = call.request.flag("effect") and ca.refusal is None
    view = PreviewView(
        names=tuple(names_of(cert)),
        self_signed=cert.is_self_signed,
        ca=_acceptance(ca),
        server=_acceptance(server),
        registered=RegisteredView(id=known[0], created_at=known[1].changed.created_at) if known else None,
        judged=judge_change(call, with_ca(cert)) if has_effect else UNSET,
        **certificate_fields(cert),
    )
    return json_reply(view)


def _acceptance(acceptance: Acceptance) -> AcceptanceView:
    if acceptance.refusal is None:
        return AcceptanceView(accepted=True, warnings=warnings_view(acceptance.warnings))
    return AcceptanceView(accepted=False, code=acceptance.refusal.code, message=str(acceptance.refusal))
