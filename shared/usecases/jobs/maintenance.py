"""Repair what a crash, or a store that did not answer, left in an organization.

Each change writes one document, and documents that belong together are written in an order in which a part is never
taken for the whole (docs/decisions/0002). What can be left is harmless, and is removed here.
"""

import logging
from datetime import datetime, timedelta
from typing import Final

from shared.records import Org
from shared.usecases.cas.documents import CACertificates
from shared.usecases.context import Context
from shared.usecases.denials import DenyList
from shared.usecases.orgs.deletion import partitions_of
from shared.usecases.servers.documents import ServerCertificates

log = logging.getLogger(__name__)

_ORPHAN_AGE: Final = timedelta(hours=1)  # an upload takes seconds


def sweep_org(context: Context, org: Org, *, at: datetime) -> int:
    """Repair what is left in *org*. Return how many bodies and lines of an index were removed or repaired.

    Safe to run at any time, and twice at once. Raises: TooBusy, StoreUnavailable."""
    records = context.of(org)
    older = sum(records.delete_older(partition) for partition in partitions_of(org.org_id)) if org.incarnation else 0
    if older:
        log.warning("documents of an earlier organization were removed", extra={"org": org.org_id, "count": older})
    cas = CACertificates(records)
    bodies = ServerCertificates(records).delete_orphans(created_before=at - _ORPHAN_AGE)
    lines = cas.repair_index()
    if lines:
        log.warning("the index of CAs was repaired", extra={"org": org.org_id, "count": lines})
    cas.delete_empty_documents()
    cas.refresh_flag()
    cas.refresh_every_mark()
    deny_list = DenyList(records)
    deny_list.delete_empty_documents()
    if deny_list.repair_count(at):
        log.warning("the counter of the deny list was repaired", extra={"org": org.org_id})
    return bodies + lines + older
