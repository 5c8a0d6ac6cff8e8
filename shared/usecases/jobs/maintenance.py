"""Repair what a crash, or a store that did not answer, left in an organization.

Each change writes one document, and documents that belong together are written in an order in which a part is never
taken for the whole (docs/decisions/0002). What can be left is harmless, and is removed here.
"""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from shared.records import RecordWithOutbox
from shared.refs import Ref
from shared.usecases.cas.documents import CACertificates
from shared.usecases.context import Context
from shared.usecases.denials import DenyList
from shared.usecases.edges.withdrawals import publish
from shared.usecases.organization import Organization, iterate_organizations
from shared.usecases.servers.documents import ServerCertificates

log = logging.getLogger(__name__)

_ORPHAN_AGE: Final = timedelta(hours=1)  # an upload takes seconds


def sweep_org(context: Context, org_id: str, *, at: datetime) -> int:
    """Repair what is left in *org_id*. Return how many bodies, lines of an index and withdrawals were left.

    Safe to run at any time, and twice at once. Raises: TooBusy, StoreUnavailable."""
    cas = CACertificates(context.repository, org_id)
    bodies = ServerCertificates(context.repository, org_id).delete_orphans(created_before=at - _ORPHAN_AGE)
    lines = cas.repair_index()
    if lines:
        log.warning("the index of CAs was repaired", extra={"org": org_id, "count": lines})
    cas.refresh_every_mark()
    withdrawals = publish_left(context, org_id)
    cas.delete_empty_documents()
    cas.refresh_flag()
    deny_list = DenyList(context.repository, org_id)
    deny_list.delete_empty_documents()
    if deny_list.repair_count(at):
        log.warning("the counter of the deny list was repaired", extra={"org": org_id})
    return bodies + lines + withdrawals


def publish_left(context: Context, org_id: str) -> int:
    """Bring the withdrawals that an interrupted call left in the documents of *org_id* into the feed.

    The marks of the deny list come first, so that a device that connects again is refused.

    Return their number. Safe to run at any time, and twice at once. Raises: TooBusy, StoreUnavailable."""
    count = 0
    if next(_iterate_waiting(context, org_id), None) is None:
        return count
    CACertificates(context.repository, org_id).refresh_every_mark()
    for ref, record in _iterate_waiting(context, org_id):
        publish(context, record.withdrawals)
        context.repository.drop_published(ref)
        count += len(record.withdrawals)
    if count:
        log.warning("withdrawals were published late", extra={"org": org_id, "count": count})
    return count


def publish_all_left(context: Context) -> int:
    """Do `publish_left` for every organization."""
    return sum(publish_left(context, org.org_id) for org in iterate_organizations(context.repository))


def _iterate_waiting(context: Context, org_id: str) -> Iterator[tuple[Ref[Any], RecordWithOutbox]]:
    """Yield the documents of an organization in which withdrawals wait."""
    organization = Organization(context.repository, org_id)
    org = organization.find()
    documents: list[tuple[Ref[Any], RecordWithOutbox]] = [(organization.ref, org)] if org is not None else []
    documents += CACertificates(context.repository, org_id).iterate_refs()
    documents += DenyList(context.repository, org_id).iterate_refs()
    return ((ref, record) for ref, record in documents if record.withdrawals)
