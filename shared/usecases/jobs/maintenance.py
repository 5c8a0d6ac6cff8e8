"""Mend what a crash, or a store that did not answer, left in an organization.

Each change writes one document, and documents that belong together are written in an order in which a part is never
taken for the whole (docs/decisions/0002). What can be left is harmless, and is removed here.
"""

import logging
from datetime import datetime, timedelta
from typing import Final

from shared.records import ServerCertificate
from shared.repository import Repository, server_ref
from shared.usecases.cas.documents import CACertificates
from shared.usecases.context import Context
from shared.usecases.denials import DenyList
from shared.usecases.organization import Organization

log = logging.getLogger(__name__)

_ORPHAN_AGE: Final = timedelta(hours=1)  # an upload takes seconds


def sweep_org(context: Context, org_id: str, *, at: datetime) -> int:
    """Mend what is left in *org_id*. Return how many bodies and lines of an index were removed or mended.

    Safe to run at any time, and twice at once. Raises: TooBusy, StoreUnavailable."""
    cas = CACertificates(context.repository, org_id)
    bodies = _delete_orphans(context.repository, org_id, at)
    lines = cas.mend_index()
    if lines:
        log.warning("the index of CAs was mended", extra={"org": org_id, "count": lines})
    cas.delete_empty_documents()
    DenyList(context.repository, org_id).delete_empty_documents()
    cas.refresh_flag()
    cas.refresh_every_mark()
    return bodies + lines


def _delete_orphans(repository: Repository, org_id: str, at: datetime) -> int:
    """Delete bodies of server certificates that the index does not name. Return how many were deleted.

    An upload writes the body before the index, and a deletion removes it from the index first. An id is used once, so
    a body that the index does not name an hour after its creation will never be named."""
    old = [
        certificate_id
        for certificate_id, record in repository.iterate(f"server/{org_id}", ServerCertificate)
        if record.changed.created_at < at - _ORPHAN_AGE
    ]
    org = Organization(repository, org_id).find() if old else None  # read after the bodies: never older than them
    orphans = [certificate_id for certificate_id in old if org is not None and certificate_id not in org.servers]
    for certificate_id in orphans:
        repository.delete(server_ref(org_id, certificate_id), activity_of=org_id)
        log.warning("a body that no index names was removed", extra={"org": org_id, "id": certificate_id})
    return len(orphans)
