"""Delete organizations.

A deletion leaves a tombstone in place of the organization's document: at once, and before anything else is deleted. A
tombstone refuses every call and every device. Tombstones are kept, so that an id which is created again gets a later
incarnation (`shared.org_repository`).
"""

from datetime import datetime, timedelta
from typing import Final

import msgspec

from shared.errors import OrgGone
from shared.ports import Key
from shared.records import ActivityKind, Deletion, Org
from shared.refs import (
    activity_partition,
    api_key_partition,
    ca_index_ref,
    deny_count_partition,
    edge_partition,
    org_ref,
    seen_partitions,
)
from shared.usecases.context import Context
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.edges.withdrawals import WithdrawalKind, make_withdrawal, publish
from shared.usecases.organization import OrgDocuments, get_organization, iterate_tombstones

_LATE_CALLS: Final = timedelta(days=7)  # a sweep looks for what calls wrote that were in progress during a deletion


def keys_of(org_id: str) -> list[Key]:
    """Return the keys of an organization's documents in partitions that all organizations share.

    The hosts of the TLS edges are not among them: they are derived from the other documents."""
    return [org_ref(org_id).key, ca_index_ref(org_id).key]


def every_partition_of(org_id: str) -> list[str]:
    """Return the partitions that belong to an organization as a whole."""
    return [*partitions_of(org_id), edge_partition(org_id)]


def partitions_of(org_id: str) -> list[str]:
    """Return the partitions of an organization that an export holds: all but the one with the times of its edges."""
    return [
        api_key_partition(org_id),
        f"ca/{org_id}",
        f"server/{org_id}",
        f"deny/{org_id}",
        deny_count_partition(org_id),
        *seen_partitions(org_id),
        *(activity_partition(org_id, kind) for kind in ActivityKind),
    ]


def delete_org(context: Context, org_id: str) -> Org:
    """Delete an organization and all that belongs to it. Return its tombstone.

    A deletion that is cut short at any point is completed by the same call again, or by `sweep_tombstone`. For a
    deleted organization the call deletes what calls wrote that were in progress during its deletion.

    Raises: NotFound, TooBusy, StoreUnavailable."""
    tombstone = _bury(context, org_id)
    if tombstone is None:
        get_organization(context.repository, org_id)  # raises NotFound
        raise OrgGone(org=org_id)
    return complete_deletion(context, tombstone)


def _bury(context: Context, org_id: str) -> Org | None:
    """Replace an organization by a tombstone, and return the tombstone; None: there is no such organization."""
    for attempt in OrgDocuments(context.repository).changing(org_id):
        with attempt as org:
            tombstone = org
            if org is not None and org.deletion is None:
                at = context.clock()
                withdrawal = make_withdrawal(at, org_id, WithdrawalKind.ORG, org_id)
                tombstone = Org(
                    org_id=org_id,
                    incarnation=org.incarnation,
                    created_at=org.created_at,
                    suspended=True,  # what version 0.1.0 understands
                    deletion=Deletion(began_at=max(at, org.created_at)),
                    settings_changed=org.settings_changed,
                    policy_changed=org.policy_changed,
                    activation_changed=org.activation_changed,
                    withdrawals=(msgspec.structs.replace(withdrawal, incarnation=org.incarnation),),
                )
                attempt.replace(tombstone)
            elif org is not None:
                tombstone = msgspec.structs.replace(org, withdrawals=attempt.withdrawals)
    return tombstone


def complete_deletion(context: Context, tombstone: Org) -> Org:
    """Delete what is left of a deleted organization, and return the tombstone as it is then.

    Only documents of the tombstone's incarnation and of older ones are deleted: the id may have been created again by
    a concurrent caller.

    Raises: OrgGone, TooBusy, StoreUnavailable."""
    org_id, deletion = tombstone.org_id, tombstone.deletion
    if deletion is None:
        raise OrgGone(org=org_id)
    if tombstone.is_deleting:
        HostFeed(context).publish(org_id)
        publish(context, tombstone.withdrawals)
    records = context.of(tombstone)
    for partition in every_partition_of(org_id):
        records.delete_partition(partition)
    index_ref = ca_index_ref(org_id)
    for index in context.repository.changing(index_ref):
        with index as stored:
            if stored is not None and stored.incarnation <= tombstone.incarnation:
                index.delete()
    for attempt in OrgDocuments(context.repository).changing(org_id):
        with attempt as org:
            if org is not None and org.is_deleting and org.incarnation == tombstone.incarnation:
                ended = Deletion(began_at=deletion.began_at, ended_at=max(context.clock(), deletion.began_at))
                tombstone = msgspec.structs.replace(org, deletion=ended, withdrawals=())
                attempt.replace(tombstone)
    return tombstone


def sweep_deleted_orgs(context: Context) -> int:
    """Complete every deletion that was cut short, and delete what late calls wrote. Return how many were cut short.

    Raises: TooBusy, StoreUnavailable."""
    unfinished, late_before = 0, context.clock() - _LATE_CALLS
    for tombstone in iterate_tombstones(context.repository):
        unfinished += tombstone.is_deleting
        if (
            tombstone.deletion is None
            or tombstone.deletion.ended_at is None
            or tombstone.deletion.ended_at > late_before
        ):
            complete_deletion(context, tombstone)
    return unfinished


def quarantine_end(context: Context, tombstone: Org) -> datetime | None:
    """Return from when on the id of a deleted organization may be created again; None: its deletion is not complete."""
    deletion = tombstone.deletion
    return None if deletion is None or deletion.ended_at is None else deletion.ended_at + context.org_quarantine
