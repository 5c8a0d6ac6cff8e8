"""Create, suspend and restore organizations.

The id of a deleted organization can be created again when every document of the organization is deleted and the
quarantine is over (`shared.usecases.orgs.deletion`). The new organization has a later incarnation
(`shared.org_repository`). The first organization of an id has none: version 0.1.0, which does not know the field, may
then write its documents too.
"""

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from shared.errors import Conflict, WrongValue
from shared.records import ApiKey, Org
from shared.refs import Ref, api_key_partition, ca_index_ref, org_hosts_ref
from shared.text import format_time
from shared.usecases.context import Context, make_entry, make_revision
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.edges.withdrawals import WithdrawalKind, make_withdrawal, publish_waiting
from shared.usecases.organization import (
    Organization,
    OrgDocuments,
    get_organization,
    iterate_organizations,
    iterate_tombstones,
)
from shared.usecases.orgs.deletion import every_partition_of, quarantine_end
from shared.validation.names import is_org_id

ADMIN: Final = "admin"


class OrgExists(Conflict):
    """The orgId of a new organization is taken."""

    code = "org_exists"
    says = "The organization {org} is here already."
    mend = "Choose another orgId."


class OrgDeleting(Conflict):
    """The orgId of a new organization is that of an organization whose deletion is not complete."""

    code = "org_deleting"
    says = "The organization {org} is being deleted."
    mend = "Repeat `org delete {org}`, or run `sweep`; both complete the deletion."


class OrgInQuarantine(Conflict):
    """The orgId of a new organization was in use a short time ago."""

    code = "org_in_quarantine"
    says = "The organization {org} was deleted; its orgId may be used again from {until} on."
    mend = "Choose another orgId. With --now you may use it at once: copies of old keys and tokens may still be around."


def create_org(context: Context, org_id: str, *, now: bool = False) -> Org:
    """Create an organization. The default server certificate is active in it, and certificates are required.

    Args:
        now: whether the id of a deleted organization may be used before its quarantine is over.

    Raises: WrongValue, OrgExists, OrgDeleting, OrgInQuarantine."""
    if not is_org_id(org_id):
        raise WrongValue(field="org", found="An orgId has six characters of a-z and 0-9")
    has_traces = _has_traces(context, org_id)
    for attempt in OrgDocuments(context.repository).changing(org_id):
        with attempt as before:
            org = _make_org(context, org_id, before, has_traces=has_traces, now=now)
            attempt.replace(org)
    for entry in org.outbox:
        context.of(org).try_append_once(org_id, entry)
    HostFeed(context).publish(org_id)
    return org


def _make_org(context: Context, org_id: str, before: Org | None, *, has_traces: bool, now: bool) -> Org:
    """Return the new organization, which replaces the tombstone *before*.

    Raises: OrgExists, OrgDeleting, OrgInQuarantine."""
    at = context.clock()
    if before is not None:
        if before.deletion is None:
            raise OrgExists(org=org_id)
        if before.deletion.ended_at is None:
            raise OrgDeleting(org=org_id)
        until = quarantine_end(context, before)
        if context.org_quarantine and until is not None and at < until and not now:
            raise OrgInQuarantine(org=org_id, until=format_time(until))
        # A clock may be set back. No incarnation may be older than the one before.
        at = max(at, before.deletion.ended_at + timedelta(microseconds=1))
    stamp = make_revision(at, ADMIN)
    return Org(
        org_id=org_id,
        created_at=at,
        incarnation=_new_incarnation(at) if before is not None or has_traces else "",
        settings_changed=stamp,
        policy_changed=stamp,
        activation_changed=stamp,
        outbox=(make_entry(at, ADMIN, "createOrg", org=org_id),),
    )


def _new_incarnation(at: datetime) -> str:
    """Return an incarnation that sorts behind those of earlier times: microseconds in hex, and a random part."""
    microseconds = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return f"{microseconds:014x}-{secrets.token_hex(4)}"


def _has_traces(context: Context, org_id: str) -> bool:
    """Return whether anything is left of an organization that version 0.1.0, which made no tombstones, deleted."""
    repository = context.repository
    refs: list[Ref[Any]] = [org_hosts_ref(org_id), ca_index_ref(org_id)]
    batch = repository.read_batch(refs)
    if any(batch.document(ref) is not None for ref in refs):
        return True
    if any(repository.has_documents(partition) for partition in every_partition_of(org_id)):
        return True
    platform_keys = repository.iterate(api_key_partition(None), ApiKey)
    return any(org_id in key.orgs for _, key in platform_keys)


def list_orgs(context: Context) -> Iterator[Org]:
    """Yield every organization, ordered by id."""
    return iterate_organizations(context.repository)


def list_deleted_orgs(context: Context) -> Iterator[Org]:
    """Yield the tombstone of every deleted organization, ordered by id."""
    return iterate_tombstones(context.repository)


def get_org(context: Context, org_id: str) -> Org:
    """Return an organization. Raises: NotFound."""
    return get_organization(context.repository, org_id)


def set_suspended(context: Context, org_id: str, suspended: bool) -> Org:
    """Suspend an organization, or resume it. The keys and devices of a suspended organization are refused.

    Raises: NotFound."""
    at = context.clock()
    activity = make_entry(at, ADMIN, "suspendOrg" if suspended else "resumeOrg", org=org_id)
    for attempt in Organization(context.of(get_org(context, org_id))).changing():
        with attempt as org:
            if org.suspended != suspended:
                org = msgspec.structs.replace(org, suspended=suspended)
                withdrawal = make_withdrawal(at, org_id, WithdrawalKind.ORG, org_id)
                attempt.write(org, activity=activity, withdrawals=[withdrawal] if suspended else [])
    HostFeed(context).publish(org_id)
    publish_waiting(context, attempt.waiting)
    return org


def restore_org(context: Context, org: Org) -> bool:
    """Create an exported organization, also in place of its own tombstone.

    Return False, and change nothing, where the id belongs to another organization, or did after that one.

    Raises: TooBusy, StoreUnavailable."""
    for attempt in OrgDocuments(context.repository).changing(org.org_id):
        with attempt as before:
            is_restored = before is None or (
                before.deletion is not None
                and before.deletion.ended_at is not None
                and (before.incarnation, before.created_at) == (org.incarnation, org.created_at)
            )
            if is_restored:
                attempt.replace(org)
    return is_restored
