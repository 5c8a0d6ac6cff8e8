"""Repair what a crash, or a store that did not answer, left in an organization.

Each change writes one document, and documents that belong together are written in an order in which a part is never
taken for the whole (docs/decisions/0002). What can be left is harmless, and is removed here.
"""

import logging
from datetime import datetime, timedelta
from typing import Final

from shared.usecases.cas.documents import CACertificates
from shared.usecases.context import Context
from shared.usecases.denials import DenyList
from shared.usecases.servers.documents import ServerCertificates

log = logging.getLogger(__name__)

_ORPHAN_AGE: Final = timedelta(hours=1)  # an upload takes seconds


def sweep_org(context: Context, org_id: str, *, at: datetime) -> int:
    """Repair what is left in *org_id*. Return how many bodies and lines of an index were removed or repaired.

    Safe to run at any time, and twice at once. Raises: TooBusy, StoreUnavailable."""
    cas = CACertificates(context.repository, org_id)
    bodies = ServerCertificates(context.repository, org_id).delete_orphans(created_before=at - _ORPHAN_AGE)
    lines = cas.repair_index()
    if lines:
        log.warning("the index of CAs was repaired", extra={"org": org_id, "count": lines})
    cas.delete_empty_documents()
    cas.refresh_flag()
    cas.refresh_every_mark()
    deny_list = DenyList(context.repository, org_id)
    deny_list.delete_empty_documents()
    if deny_list.repair_count(at):
        log.warning("the counter of the deny list was repaired", extra={"org": org_id})
    return bodies + lines
