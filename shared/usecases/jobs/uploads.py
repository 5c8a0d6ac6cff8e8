"""onUpload: import an object of the upload bucket as if its organization had sent it.

    {orgId}/ca/<any name>      a CA certificate
    {orgId}/server/<any name>  one bundle: a PEM chain with its key, or PKCS#12; removed from the bucket after import
    {orgId}/csr/<id>           the signed certificate of a request; a suffix like .pem is ignored

The organization is the first segment of the object's name, so the bucket's permissions decide who may write under that
prefix. An event is not trusted: it only names an object, and version, size and time are taken from the object store.

An upload ends the same way if its event is delivered twice, at once or out of order: each version of an object has one
receipt, an activity entry whose id follows from that version. A version that has a receipt is not read again, so that a
late event does not bring back what was deleted meanwhile.
"""

import hashlib
import logging
import re
import unicodedata
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec

from shared.errors import (
    Misplaced,
    NotFound,
    OrgGone,
    OrgSuspended,
    Overloaded,
    RateLimited,
    StoreUnavailable,
    TooBusy,
    TooLarge,
    TrustError,
)
from shared.ports import FoundObject, KeySealer, ObjectReader, UploadedObject
from shared.records import Activity, ActivityKind, Role
from shared.refs import activity_id
from shared.usecases.callers import Caller, Member
from shared.usecases.cas.manage import upload_ca
from shared.usecases.context import Context
from shared.usecases.organization import find_organization
from shared.usecases.servers.requests import fulfill_csr
from shared.usecases.servers.upload import upload_server_cert
from shared.validation.names import is_org_id
from shared.validation.notices import CHAIN_COMPLETED, Notice
from shared.x509.certificate_files import BUNDLE_MAX

log = logging.getLogger(__name__)

WHO: Final = "upload"
OBJECT_MAX: Final = BUNDLE_MAX  # bytes; the rules of each kind may accept less
_NAME_MAX: Final = 200  # characters of an object's name in a receipt
_REASON_MAX: Final = 400  # characters of a refusal's sentences in a receipt
_KINDS: Final = ("ca", "server", "csr")
_SUFFIX: Final = r"(?i)\.(pem|crt|cer|der|p7b|p7c)$"
_RETRY: Final = (
    StoreUnavailable,
    Overloaded,
    RateLimited,
    TooBusy,
)  # not the upload's fault: the event is delivered again


class End(StrEnum):
    """How an upload ended."""

    DONE = "done"
    REFUSED = "refused"
    IGNORED = "ignored"  # not an upload of an existing organization, or the object is gone; no receipt


class Outcome(msgspec.Struct, frozen=True):
    """The result of an event. *why* and *code* are the reason, if the upload was not imported."""

    end: End
    why: str = ""
    code: str | None = None


class ForeignBucket(Exception):
    """An event about another bucket than the configured one: forged, or a wiring mistake."""


class _Gone(Exception):
    """The object was deleted while it was imported."""


def on_upload(
    context: Context, sealer: KeySealer, objects: ObjectReader, uploaded: UploadedObject, *, bucket: str
) -> Outcome:
    """Import one uploaded object. A refusal is a receipt and a normal return: another delivery would not help.

    Args:
        bucket: the only bucket that is accepted.

    Raises: ForeignBucket, before anything is read; StoreUnavailable, Overloaded, RateLimited, TooBusy: deliver the
        event again."""
    if uploaded.bucket != bucket:
        raise ForeignBucket
    org_id, _, rest = uploaded.key.partition("/")
    if not is_org_id(org_id) or not _is_text(uploaded.key):
        return _ignore("an object that belongs to no organization", uploaded)
    org = find_organization(context.repository, org_id)
    if org is None:
        return _ignore("an object of an organization that is not here", uploaded)
    stored = objects.find(uploaded)
    if stored is None:
        return _ignore("an object that is gone, or was replaced by another", uploaded)
    if stored.size == 0 and uploaded.key.endswith("/"):
        return _ignore("a folder", uploaded)  # consoles create these to show an empty prefix
    if org.incarnation and stored.stored_at < org.created_at:
        return _ignore("an object that is older than its organization, whose id was in use before", uploaded)
    records = context.of(org)
    receipt_id = activity_id(
        stored.stored_at, "\n".join((stored.bucket, stored.key, stored.version or stored.etag or ""))
    )
    receipt = records.get_activity(org_id, receipt_id, ActivityKind.UPLOAD)
    if receipt is not None:  # the event was delivered before
        return Outcome(End(receipt.result), receipt.detail.get("reason", ""), receipt.code)
    try:
        if org.suspended:
            raise OrgSuspended
        detail = _import(context, sealer, objects, Member(Caller(WHO, Role.OPERATOR, org_id), org), stored, rest)
    except _RETRY:
        raise
    except _Gone:
        return _ignore("an object that is gone", uploaded)
    except OrgGone:
        return _ignore("an object of an organization that was deleted meanwhile", uploaded)
    except TrustError as refusal:
        outcome = Outcome(End.REFUSED, str(refusal), refusal.code)
        detail = {"reason": _sanitize(str(refusal), _REASON_MAX)}
        if refusal.field:
            detail["field"] = refusal.field
    else:
        outcome = Outcome(End.DONE)
    receipt = Activity(
        receipt_id,
        stored.stored_at,
        ActivityKind.UPLOAD,
        WHO,
        "onUpload",
        str(outcome.end),
        outcome.code,
        {"object": _sanitize(rest, _NAME_MAX), **detail},
    )
    records.append_once(org_id, receipt)
    return outcome


def _is_text(key: str) -> bool:
    """Return whether *key* can be encoded. Object names are UTF-8, but JSON can carry a lone surrogate."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def _import(
    context: Context, sealer: KeySealer, objects: ObjectReader, member: Member, stored: FoundObject, path: str
) -> dict[str, str]:
    """Import the object at *path* of the organization's prefix. Return the detail of the receipt.

    Raises: _Gone, TrustError."""
    kind, _, name = path.partition("/")
    if kind not in _KINDS or not name:
        raise Misplaced(place=_sanitize(f"{kind}/{name}" if name else kind, _NAME_MAX), org=member.org_id)
    if stored.size > OBJECT_MAX:
        raise TooLarge(
            size=f"{stored.size:,} bytes", limit=f"{OBJECT_MAX:,} bytes", hint="Upload the certificate alone."
        )
    data = objects.read(stored)
    if data is None:
        raise _Gone
    match kind:
        case "ca":
            return _import_ca(context, member, data)
        case "server":
            detail = _import_server(context, sealer, member, data)
            objects.remove(stored)  # the object holds a private key, which is sealed now
            return {**detail, "removed": "yes"}
        case _:
            return _fulfill_request(context, member, name, data)


def _import_ca(context: Context, member: Member, data: bytes) -> dict[str, str]:
    result = upload_ca(context, member, data, may_reactivate=False)
    return _detail(result.id, result.warnings, is_changed=result.is_new)


def _import_server(context: Context, sealer: KeySealer, member: Member, data: bytes) -> dict[str, str]:
    result = upload_server_cert(context, sealer, member, data)
    has_new_chain = any(warning.code == CHAIN_COMPLETED for warning in result.warnings)
    return _detail(result.parsed.id, result.warnings, is_changed=result.is_new or has_new_chain)


def _fulfill_request(context: Context, member: Member, name: str, data: bytes) -> dict[str, str]:
    request_id = re.sub(_SUFFIX, "", name)
    if "/" in request_id:
        raise NotFound(what="certificate request of that id")
    server, warnings = fulfill_csr(context, member, request_id, data)
    return _detail(server.id, warnings, is_changed=True)


def _detail(certificate_id: str, warnings: Sequence[Notice], *, is_changed: bool) -> dict[str, str]:
    detail = {"certificate": certificate_id}
    if not is_changed:
        detail["unchanged"] = "yes"
    if warnings:
        detail["warnings"] = ",".join(warning.code for warning in warnings)
    return detail


def _sanitize(text: str, limit: int) -> str:
    """Return at most *limit* characters of *text* for display.

    Control, format and unassigned characters, which can make a name look like another name (Unicode TR 36, 3), are
    replaced."""
    replaced = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character)[0] == "C" else character for character in text
    )
    return replaced if len(replaced) <= limit else f"{replaced[: limit - 1]}…"


def _ignore(why: str, uploaded: UploadedObject) -> Outcome:
    mark = hashlib.sha256(uploaded.key.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    log.info("an upload was left alone: %s", why, extra={"object": mark})  # not the name, which anyone may choose
    return Outcome(End.IGNORED, why)
