"""onUpload: what is put into the upload bucket is imported as if its org had sent it.

    {orgId}/ca/<any name>      a CA certificate
    {orgId}/server/<any name>  one bundle: PEM chain with its key, or PKCS#12; gone from the bucket once imported
    {orgId}/csr/<id>           the signed certificate of a request; a suffix like .pem is left aside

The org is the first segment of the object's name, so who may write under that prefix is the bucket's to say. An event
is a claim: bucket, version and time come from the object store's own answer, and what an event may do is to point at
an object that is really there.

Done twice, done at once, or out of order, an upload ends the same way: each version of an object has one receipt, an
activity entry whose id follows from that version. A version that has its receipt is not read again, so that an event
that comes late does not bring back what was deleted meanwhile.
"""

import hashlib
import logging
import re
import unicodedata
from enum import StrEnum
from typing import Final

import msgspec

from shared.errors import (
    Misplaced,
    NotFound,
    OrgSuspended,
    RateLimited,
    StoreUnavailable,
    TooBusy,
    TooLarge,
    TrustError,
)
from shared.ports import FoundObject, KeySealer, ObjectReader, UploadedObject
from shared.records import Activity, ActivityKind, Role
from shared.repository import activity_id, org_ref
from shared.usecases.callers import Caller, Member
from shared.usecases.cas.upload import upload_ca
from shared.usecases.context import Context
from shared.usecases.servers.fulfill import fulfill_csr
from shared.usecases.servers.upload import upload_server_cert
from shared.validation.names import is_org_id
from shared.x509.certificate_files import BUNDLE_MAX

log = logging.getLogger(__name__)

WHO: Final = "upload"
OBJECT_MAX: Final = BUNDLE_MAX  # bytes; the rules of each kind may take less
_SHOWN: Final = 200  # characters of an object's name in a receipt
_KINDS: Final = ("ca", "server", "csr")
_REASON: Final = 400  # characters of a refusal's sentences in a receipt
_SUFFIX: Final = r"(?i)\.(pem|crt|cer|der|p7b|p7c)$"
_LATER: Final = (StoreUnavailable, RateLimited, TooBusy)  # not the upload's fault, and mended by time


class End(StrEnum):
    """How an upload ended."""

    DONE = "done"
    REFUSED = "refused"
    IGNORED = "ignored"  # not an upload of an org that is here, or gone; no receipt


class Outcome(msgspec.Struct, frozen=True):
    end: End
    why: str = ""
    code: str | None = None


class ForeignBucket(Exception):
    """An event that tells of another bucket than the configured one: forged, or wired wrongly."""


def on_upload(
    context: Context, sealer: KeySealer, objects: ObjectReader, uploaded: UploadedObject, *, bucket: str
) -> Outcome:
    """Import one uploaded object. A refusal is a receipt, and a normal return: trying again cannot help.

    Args:
        bucket: the only one that is believed.

    Raises: ForeignBucket, before anything is read; StoreUnavailable, RateLimited and TooBusy: try again later."""
    if uploaded.bucket != bucket:
        raise ForeignBucket
    org_id, _, rest = uploaded.key.partition("/")
    kind, _, name = rest.partition("/")
    if not is_org_id(org_id) or not _is_text(uploaded.key):
        return _ignored("an object that belongs to no organization", uploaded)
    org = context.repository.get(org_ref(org_id))
    if org is None:
        return _ignored("an object of an organization that is not here", uploaded)
    found = objects.find(uploaded)
    if found is None:
        return _ignored("an object that is gone, or was replaced by another", uploaded)
    if found.size == 0 and uploaded.key.endswith("/"):
        return _ignored("a folder", uploaded)  # what consoles make to show an empty prefix
    receipt_id = activity_id(found.stored_at, "\n".join((found.bucket, found.key, found.version or found.etag or "")))
    receipt = context.repository.told(org_id, receipt_id, ActivityKind.UPLOAD)
    if receipt is not None:  # delivered again
        return Outcome(End(receipt.result), receipt.detail.get("reason", ""), receipt.code)
    member = Member(Caller(WHO, Role.OPERATOR, org_id), org)
    try:
        if org.suspended:
            raise OrgSuspended
        detail = _taken(context, sealer, objects, member, found, kind, name)
    except _LATER:
        raise
    except _Gone:
        return _ignored("an object that is gone", uploaded)
    except TrustError as refusal:
        outcome = Outcome(End.REFUSED, str(refusal), refusal.code)
        detail = {"reason": printable(str(refusal), _REASON)}
        if refusal.field:
            detail["field"] = refusal.field
    else:
        outcome = Outcome(End.DONE)
    line = Activity(
        receipt_id,
        found.stored_at,
        ActivityKind.UPLOAD,
        WHO,
        "onUpload",
        str(outcome.end),
        outcome.code,
        {"object": printable(rest, _SHOWN), **detail},
    )
    context.repository.append_once(org_id, line)
    return outcome


def _is_text(key: str) -> bool:
    """Object stores' names are UTF-8; JSON can carry half of a character, which no object is named by."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Gone(Exception):
    """The object went while it was looked at."""


def _taken(
    context: Context, sealer: KeySealer, objects: ObjectReader, member: Member, found: FoundObject, kind: str, name: str
) -> dict[str, str]:
    """Import the object, and say what came of it. Raises: _Gone, TrustError."""
    if kind not in _KINDS or not name:
        raise Misplaced(place=printable(f"{kind}/{name}" if name else kind, _SHOWN), org=member.org_id)
    if found.size > OBJECT_MAX:
        raise TooLarge(
            size=f"{found.size:,} bytes", limit=f"{OBJECT_MAX:,} bytes", hint="Upload the certificate alone."
        )
    data = objects.read(found)
    if data is None:
        raise _Gone
    match kind:
        case "ca":
            detail = _ca(context, member, data)
        case "server":
            detail = _server(context, sealer, member, data)
        case _:
            detail = _csr(context, member, name, data)
    if kind == "server":
        objects.remove(found)  # it holds a private key, which is sealed here now
        detail["removed"] = "yes"
    return detail


def _ca(context: Context, member: Member, data: bytes) -> dict[str, str]:
    done = upload_ca(context, member, data)
    return _said(done.id, [one.code for one in done.warnings], created=done.created)


def _server(context: Context, sealer: KeySealer, member: Member, data: bytes) -> dict[str, str]:
    done = upload_server_cert(context, sealer, member, data)
    return _said(done.shown.id, [one.code for one in done.warnings], created=done.created)


def _csr(context: Context, member: Member, name: str, data: bytes) -> dict[str, str]:
    request_id = re.sub(_SUFFIX, "", name)
    if "/" in request_id:
        raise NotFound(what="certificate request of that id")
    shown, warnings = fulfill_csr(context, member, request_id, data)
    return _said(shown.id, [one.code for one in warnings], created=True)


def _said(certificate_id: str, warnings: list[str], *, created: bool) -> dict[str, str]:
    detail = {"certificate": certificate_id}
    if not created:
        detail["unchanged"] = "yes"
    if warnings:
        detail["warnings"] = ",".join(warnings)
    return detail


def printable(text: str, limit: int) -> str:
    """*text* for a list on a screen: no control, format or unassigned characters, which can make a name look like
    another one (Unicode TR 36, 3); at most *limit* characters."""
    shown = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(one)[0] == "C" else one for one in text)
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def _ignored(why: str, uploaded: UploadedObject) -> Outcome:
    mark = hashlib.sha256(uploaded.key.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    log.info("an upload was left alone: %s", why, extra={"object": mark})  # its name is a stranger's text
    return Outcome(End.IGNORED, why)
