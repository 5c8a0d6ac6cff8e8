"""Repair what a crash, or a store that did not answer, left in an organization.

Each change writes one document, and documents that belong together are written in an order in which a part is never
taken for the whole (docs/decisions/0002). What can be left is harmless, and is removed here.
"""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from shared.org_repository import OrgRepository
from shared.records import Org, RecordWithOutbox
from shared.refs import Ref
from shared.usecases.cas.documents import CACertificates
from shared.usecases.context import Context
from shared.usecases.denials import DenyList
from shared.usecases.edges.withdrawals import publish
from shared.usecases.organization import Organization, iterate_organizations, iterate_tombstones
from shared.usecases.orgs.deletion import every_partition_of
from shared.usecases.servers.documents import ServerCertificates

log = logging.getLogger(__name__)

_ORPHAN_AGE: Final = timedelta(hours=1)  # an upload takes seconds


def sweep_org(context: Context, org: Org, *, at: datetime) -> int:
    """Repair what is left in *org*. Return how many bodies, lines of an index and withdrawals were left.

    Safe to run at any time, and twice at once. Raises: TooBusy, StoreUnavailable."""
    records = context.of(org)
    older = (
        sum(records.delete_older(partition) for partition in every_partition_of(org.org_id)) if org.incarnation else 0
    )
    if older:
        log.warning("documents of an earlier organization were removed", extra={"org": org.org_id, "count": older})
    cas = CACertificates(records)
    bodies = ServerCertificates(records).delete_orphans(created_before=at - _ORPHAN_AGE)
    lines = cas.repair_index()
    if lines:
        log.warning("the index of CAs was repaired", extra={"org": org.org_id, "count": lines})
    cas.refresh_every_mark()
    withdrawals = publish_left(context, org)
    cas.delete_empty_documents()
    cas.refresh_flag()
    deny_list = DenyList(records)
    deny_list.delete_empty_documents()
    if deny_list.repair_count(at):
        log.warning("the counter of the deny list was repaired", extra={"org": org.org_id})
    return bodies + lines + withdrawals + older


def publish_left(context: Context, org: Org) -> int:
    """Bring the withdrawals that an interrupted call left in the documents of *org* into the feed.

    The marks of the deny list come first, so that a device that connects again is refused.

    Return their number. Safe to run at any time, and twice at once. Raises: TooBusy, StoreUnavailable."""
    records, count = context.of(org), 0
    if next(_iterate_waiting(records), None) is None:
        return count
    CACertificates(records).refresh_every_mark()
    for ref, record in _iterate_waiting(records):
        publish(context, record.withdrawals)
        records.drop_published(ref)
        count += len(record.withdrawals)
    if count:
        log.warning("withdrawals were published late", extra={"org": org.org_id, "count": count})
    return count


def publish_all_left(context: Context) -> int:
    """Do `publish_left` for every organization, and for those whose deletion was cut short."""
    for tombstone in iterate_tombstones(context.repository):
        publish(context, tombstone.withdrawals)
    return sum(publish_left(context, org) for org in iterate_organizations(context.repository))


def _iterate_waiting(records: OrgRepository) -> Iterator[tuple[Ref[Any], RecordWithOutbox]]:
    """Yield the documents of an organization in which withdrawals wait."""
    organization = Organization(records)
    org = organization.find()
    documents: list[tuple[Ref[Any], RecordWithOutbox]] = [(organization.ref, org)] if org is not None else []
    documents += CACertificates(records).iterate_refs()
    documents += DenyList(records).iterate_refs()
    return ((ref, record) for ref, record in documents if record.withdrawals)
