"""Register, list, describe, deactivate and delete the CA certificates of an organization."""

from collections.abc import Collection
from datetime import datetime

import msgspec

from shared.errors import Conflict, NotFound, Rejected, TooLarge
from shared.records import CA, CAStatus, Org
from shared.usecases.callers import Member
from shared.usecases.cas.documents import AddedCA, CACertificates, list_inactive_twins, list_replacing
from shared.usecases.context import Context, check_version, make_entry, make_revision, update_revision
from shared.usecases.edges.withdrawals import publish, publish_waiting
from shared.usecases.organization import warn_of_sni
from shared.validation.ca import ca_id as id_of
from shared.validation.ca import read_ca
from shared.validation.notices import Acceptance, Notice, reactivates
from shared.x509.certificate import Certificate


class UploadedCA(msgspec.Struct, frozen=True):
    """The result of `upload_ca`: the stored CA, whether the upload registered it, and warnings."""

    id: str
    ca: CA
    is_new: bool
    warnings: list[Notice] = msgspec.field(default_factory=list)


def upload_ca(
    context: Context,
    member: Member,
    data: bytes,
    *,
    comments: str = "",
    status: CAStatus = CAStatus.ACTIVE,
    may_reactivate: bool = True,
) -> UploadedCA:
    """Register the CA certificate in *data* (PEM or DER). An active CA counts at once.

    The same certificate again is not an error and changes nothing.

    Args:
        may_reactivate: whether the CA is active where a CA with its name and key is inactive. Otherwise it is stored
            inactive, for a person to decide.

    Raises: Rejected (see `shared.validation.ca.read_ca`), TooManyCAs, TooManyCAsOfOneName, RateLimited."""
    at = context.clock()
    cert = read_ca(data, at=at, weak=context.weak_keys)
    ca_id = id_of(cert)
    added = CACertificates(context.of(member.org)).add(
        ca_id,
        CA(der=cert.der, status=status, comments=comments, changed=make_revision(at, member.who)),
        rate_per_minute=context.ca_rate_per_minute,
        activity=make_entry(at, member.who, "uploadCA", certificate=ca_id),
        may_reactivate=may_reactivate,
    )
    if added.reactivates:
        context.notifier.notify(f"reactivates-{ca_id}", _encode_message(member.org_id, ca_id, added, at))
    return UploadedCA(ca_id, added.ca, added.is_new, _list_warnings(context, member.org, added))


def preview_ca(context: Context, member: Member, data: bytes) -> Acceptance:
    """Return whether `upload_ca` would accept *data* as an active CA. Only the rate of uploads is not judged.

    Raises: StoreUnavailable."""
    try:
        cert = read_ca(data, at=context.clock(), weak=context.weak_keys)
        ca_id = id_of(cert)
        same_name = CACertificates(context.of(member.org)).check_room(ca_id, cert)
    except (Rejected, Conflict, TooLarge) as refusal:
        return Acceptance(refusal)
    if ca_id in same_name:
        return Acceptance()
    ca = CA(der=cert.der, changed=make_revision(context.clock(), member.who))
    added = AddedCA(ca, True, not member.org.requires_sni, list_inactive_twins(same_name, cert))
    return Acceptance(warnings=_list_warnings(context, member.org, added))


def _list_warnings(context: Context, org: Org, added: AddedCA) -> list[Notice]:
    """Return the warnings about a CA that was registered, or would be."""
    warnings: list[Notice] = []
    if added.sets_sni:
        warnings.append(warn_of_sni(context, org))
    if added.reactivates:
        warnings.append(reactivates(added.reactivates, is_active=added.ca.status is CAStatus.ACTIVE))
    return warnings


def _encode_message(org_id: str, ca_id: str, added: AddedCA, at: datetime) -> bytes:
    """Return the body of the webhook message about a CA with the name and key of inactive CAs."""
    data = {
        "org": org_id,
        "certificate": ca_id,
        "status": added.ca.status.value,
        "reactivates": list(added.reactivates),
    }
    return msgspec.json.encode({"type": "ca.reactivates", "timestamp": at, "data": data})


def get_ca(context: Context, org: Org, ca_id: str) -> CA:
    """Return a CA. Raises: NotFound."""
    return CACertificates(context.of(org)).get(ca_id)


def list_cas(context: Context, org: Org, *, after: str, limit: int) -> list[tuple[str, CA]]:
    """Return at most *limit* pairs (id, CA) whose ids come after *after*, ordered by id."""
    return CACertificates(context.of(org)).list_page(after=after, limit=limit)


def find_cas(context: Context, org: Org, ca_ids: Collection[str]) -> dict[str, CA]:
    """Return those of *ca_ids* that are registered, by id."""
    return CACertificates(context.of(org)).find_many(ca_ids)


def find_registered(context: Context, org: Org, cert: Certificate) -> tuple[str, CA] | None:
    """Return the id of *cert* and what is stored of it, if the certificate is registered as a CA."""
    ca_id = id_of(cert)
    ca = CACertificates(context.of(org)).find(ca_id)
    return (ca_id, ca) if ca else None


def list_also_vouched_by(context: Context, org: Org, ca_id: str) -> list[str]:
    """Return the ids of other active CAs that vouch for whatever this CA vouches for, so that its devices stay.

    They have its name and key, are valid, and have no limit that this CA does not have. Raises: NotFound."""
    same_name = CACertificates(context.of(org)).list_same_name(ca_id)
    if ca_id not in same_name:
        raise NotFound(what="CA certificate of that id")
    return list_replacing(same_name, ca_id, context.clock())


def is_last_active(context: Context, org: Org, ca_id: str) -> bool:
    """Return whether a CA is active and no other CA of the organization is."""
    return CACertificates(context.of(org)).list_active() == {ca_id}


def change_ca(
    context: Context,
    member: Member,
    ca_id: str,
    *,
    status: CAStatus | None,
    comments: str | None,
    expected_version: str | None,
) -> CA:
    """Activate, deactivate or describe a CA; None leaves a field as it is. No path may pass through an inactive CA.

    Raises: NotFound, Stale."""
    at = context.clock()
    cas = CACertificates(context.of(member.org))
    for attempt in cas.changing(ca_id):
        with attempt as stored:
            check_version(stored.changed, expected_version)
            ca = msgspec.structs.replace(
                stored,
                status=stored.status if status is None else status,
                comments=stored.comments if comments is None else comments,
            )
            if ca != stored:
                what = "describeCA" if ca.status is stored.status else f"set {ca.status.value}"
                ca = msgspec.structs.replace(ca, changed=update_revision(stored.changed, at, member.who))
                attempt.write(ca, at=at, activity=make_entry(at, member.who, what, certificate=ca_id))
    cas.refresh_index(ca_id)
    publish_waiting(context, attempt.document.waiting)
    return ca


def delete_ca(context: Context, member: Member, ca_id: str, *, expected_version: str | None) -> None:
    """Delete a CA: its devices are refused at their next connection, and their sessions end.

    The CA is deactivated first and deleted last. A deletion that is cut short leaves an inactive CA, and the same call
    again completes the deletion.

    Raises: NotFound, Stale."""
    at = context.clock()
    activity = make_entry(at, member.who, "deleteCA", certificate=ca_id)
    cas = CACertificates(context.of(member.org))
    try:
        for attempt in cas.changing(ca_id):
            with attempt as ca:
                check_version(ca.changed, expected_version)
                if ca.status is not CAStatus.INACTIVE:
                    attempt.write(msgspec.structs.replace(ca, status=CAStatus.INACTIVE), at=at)
        deactivated = attempt.document
        publish(context, deactivated.withdrawals)
        for attempt in cas.changing(ca_id, first=deactivated.batch):
            with attempt as ca:
                check_version(ca.changed, expected_version)
                attempt.delete(activity=activity)
    except NotFound:
        if not cas.refresh_index(ca_id):
            raise
    else:
        cas.refresh_index(ca_id)
