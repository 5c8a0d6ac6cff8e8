"""What a crash, or a store that went away, left behind in an org: taken away, or made to agree again.

Every change is one document, and what hangs together is written in an order in which a part is never taken for the
whole (docs/decisions/0002). What can be left is harmless, and this removes it.
"""

import logging
from datetime import datetime, timedelta
from typing import Final

import msgspec

from shared.records import CAIndex, CAsOfOneName, CAStatus, Denials, ServerCertificate
from shared.repository import Repository, ca_index_ref, cas_ref, denials_ref, org_ref, server_ref
from shared.usecases.cas.upload import agree_on_sni
from shared.usecases.context import Context
from shared.usecases.devices.deny_list import refresh_every_mark

log = logging.getLogger(__name__)

_ORPHAN_AGE: Final = timedelta(hours=1)  # an upload takes seconds


def sweep_org(context: Context, org_id: str, *, at: datetime) -> int:
    """Mend what is left in *org_id*; safe to run at any time, and twice at once. Returns how many bodies and lines
    were removed or mended.

    Raises: TooBusy, StoreUnavailable."""
    swept = _bodies(context.repository, org_id, at) + _ca_index(context.repository, org_id)
    _empty(context.repository, org_id)
    agree_on_sni(context, org_id)
    refresh_every_mark(context, org_id)
    return swept


def _bodies(repository: Repository, org_id: str, at: datetime) -> int:
    """Remove bodies that an upload wrote and never put into the index, or a deletion took out of it. An id is used
    once, so what is not in the index an hour after it was made never will be."""
    old = [
        certificate_id
        for certificate_id, record in repository.iterate(f"server/{org_id}", ServerCertificate)
        if record.changed.created_at < at - _ORPHAN_AGE
    ]
    org = repository.get(org_ref(org_id)) if old else None  # read after the bodies: the index is never older
    orphans = [one for one in old if org is not None and one not in org.servers]
    for certificate_id in orphans:
        repository.delete(server_ref(org_id, certificate_id), activity_of=org_id)
        log.warning("a body that no index names was removed", extra={"org": org_id, "id": certificate_id})
    return len(orphans)


def _ca_index(repository: Repository, org_id: str) -> int:
    """Make the index name the CAs that are there, and no others. One that is being uploaded meanwhile puts itself
    there again, after it was written (`upload_ca`)."""
    mended = 0

    def agree(before: CAIndex | None) -> CAIndex | None:
        nonlocal mended
        index, there = before or CAIndex(), _cas(repository, org_id)
        mended = len(index.cas.items() ^ there.items())
        return before if index.cas == there else msgspec.structs.replace(index, cas=there)

    def add(before: CAIndex | None) -> CAIndex | None:
        index, there = before or CAIndex(), _cas(repository, org_id)
        return before if there.keys() <= index.cas.keys() else msgspec.structs.replace(index, cas=there | index.cas)

    repository.change(ca_index_ref(org_id), agree)
    if mended:  # one that came after the look, and found its place still taken, is seen by a second
        repository.change(ca_index_ref(org_id), add)
        log.warning("the index of CAs was mended", extra={"org": org_id, "count": mended})
    return mended


def _cas(repository: Repository, org_id: str) -> dict[str, bool]:
    """id -> whether it is active."""
    every = repository.iterate(f"ca/{org_id}", CAsOfOneName)
    return {ca_id: ca.status is CAStatus.ACTIVE for _, named in every for ca_id, ca in named.cas.items()}


def _empty(repository: Repository, org_id: str) -> None:
    """Remove documents from which the last thing was taken."""
    for name, named in repository.iterate(f"ca/{org_id}", CAsOfOneName):
        if not named.cas:
            repository.change(cas_ref(org_id, name), _none_where_empty, org_id=org_id)
    for what, denials in repository.iterate(f"deny/{org_id}", Denials):
        if not denials.entries:
            repository.change(denials_ref(org_id, what), _none_where_no_entries, org_id=org_id)


def _none_where_empty(before: CAsOfOneName | None) -> CAsOfOneName | None:
    return before if before is None or before.cas else None


def _none_where_no_entries(before: Denials | None) -> Denials | None:
    return before if before is None or before.entries else None
