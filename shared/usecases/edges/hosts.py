"""What the TLS edges serve: kept per org beside the org's own documents, and told in a numbered feed.

The org's document decides. After it was changed, `publish_hosts` makes `OrgHosts` agree with it and appends a line to
the feed, before the change is answered; whoever repeats a change that was cut short repeats that too, and `sweep_hosts`
finds what nobody repeated. The platform's default certificate is no part of it: a host that it serves says so, so that
a new default is one write and not one for each org (docs/decisions/0070).
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Final

import msgspec

from shared.records import DEFAULT, DefaultCertificate, HostsChanged, Org, OrgHosts, ServerCertificate
from shared.repository import ORG_HOSTS, org_hosts_ref, org_ref, server_ref
from shared.usecases.context import Context
from shared.usecases.edges.host_names import covered_hosts, hosts_of
from shared.x509.certificate import Certificate

BY_DEFAULT: Final = ""  # stands where a version stands, for a host that the platform's default serves
_GONE_MAX: Final = 100  # former hosts of an org that are still told as removed
_KEEP_CHANGES: Final = 20_000  # lines of the feed; an edge further behind reads the whole list
_KEEP_REMOVED: Final = timedelta(days=30)
_PAGE: Final = 200


def version_of(record: ServerCertificate | DefaultCertificate) -> str:
    """The version a host shows while this certificate serves it: the same where leaf and chain are the same."""
    digest = sha256(record.leaf or b"")
    for der in record.chain:
        digest.update(der)
    return digest.hexdigest()[:16]


@lru_cache(maxsize=2048)
def parsed(der: bytes) -> Certificate:
    """A stored certificate never changes."""
    return Certificate.from_der(der)


def publish_hosts(context: Context, org_id: str) -> None:
    """Tell the edges what is served for *org_id* now, if that differs from what they were told.

    The org is read within the compare-and-set, so of several at once the last to write has seen the last change.

    Raises: TooBusy, StoreUnavailable; it is safe to repeat."""
    at = context.clock()

    def alter(before: OrgHosts | None) -> OrgHosts | None:
        after = _as_it_stands(context, org_id, before, at)
        return before if before is not None and after is not None and _same(before, after) else after

    standing = context.repository.change(org_hosts_ref(org_id), alter)
    if standing is None or standing.told:
        return
    context.host_changes.append(HostsChanged(org_id))

    def mark(now: OrgHosts | None) -> OrgHosts | None:
        return msgspec.structs.replace(now, told=True) if now is not None and now == standing else now

    context.repository.change(org_hosts_ref(org_id), mark)


def _as_it_stands(context: Context, org_id: str, before: OrgHosts | None, at: datetime) -> OrgHosts | None:
    org = context.repository.get(org_ref(org_id))
    if org is None and before is None:
        return None
    hosts = _hosts(context, org) if org is not None else {}
    was = (*before.hosts, *before.gone) if before else ()
    return OrgHosts(
        certificate_id=org.activation.active if org else DEFAULT,
        activated_at=org.activation.activated_at if org else None,
        hosts=hosts,
        gone=tuple(one for one in dict.fromkeys(was) if one not in hosts)[:_GONE_MAX],
        basis=_basis(context, org),
        changed_at=at,
    )


def _same(one: OrgHosts, other: OrgHosts) -> bool:
    return msgspec.structs.replace(one, told=False, changed_at=other.changed_at) == other


def _hosts(context: Context, org: Org) -> dict[str, str]:
    """Each host of the org -> the version of the certificate of its own that covers it, or BY_DEFAULT."""
    if org.suspended:
        return {}
    hosts = hosts_of(org.org_id, context.platform_domain, org.settings)
    record = None
    if org.activation.active != DEFAULT:
        record = context.repository.get(server_ref(org.org_id, org.activation.active))
    if record is None or record.leaf is None:
        return dict.fromkeys(hosts, BY_DEFAULT)
    covered, version = set(covered_hosts(parsed(record.leaf), hosts)), version_of(record)
    return {host: version if host in covered else BY_DEFAULT for host in hosts}


def _basis(context: Context, org: Org | None) -> str:
    """Everything `_hosts` depends on. An active certificate never changes: its id stands for it."""
    if org is None:
        return ""
    parts = (context.platform_domain, org.activation.active, str(org.activation.activated_at), *org.settings.domains)
    return "suspended" if org.suspended else sha256("\n".join(parts).encode()).hexdigest()[:16]


# ---------------------------------------------------------------------------------------------------- the sweep


def sweep_hosts(context: Context) -> int:
    """Publish what a crash left out, and forget what is long gone. Returns how many orgs were told of late.

    Reads two documents an org, 200 orgs in a round trip; safe to run at any time, and twice at once."""
    late = list(_orgs_behind(context))
    for org_id in late:
        publish_hosts(context, org_id)
    _forget_removed(context)
    context.host_changes.trim(context.host_changes.end() - _KEEP_CHANGES)
    return len(late)


def _orgs_behind(context: Context) -> Iterator[str]:
    after = ""
    while page := context.repository.list("org", Org, after=after, limit=_PAGE):
        found = context.repository.find([org_hosts_ref(org_id) for org_id, _ in page])
        for org_id, org in page:
            told = found.get(org_hosts_ref(org_id))
            if told is None or not told.told or told.basis != _basis(context, org):
                yield org_id
        after = page[-1][0]
    after = ""
    while hosts := context.repository.list(ORG_HOSTS, OrgHosts, after=after, limit=_PAGE):
        orgs = context.repository.find([org_ref(org_id) for org_id, _ in hosts])
        for org_id, told in hosts:
            if orgs.get(org_ref(org_id)) is None and (told.hosts or not told.told):
                yield org_id
        after = hosts[-1][0]


def _forget_removed(context: Context) -> None:
    """An org removed long ago: an edge that has not asked since reads the whole list, where it is not."""
    before = context.clock() - _KEEP_REMOVED
    for org_id, told in context.repository.every(ORG_HOSTS, OrgHosts):
        if told.basis == "" and told.told and told.changed_at < before:

            def remove(now: OrgHosts | None, seen: OrgHosts = told) -> OrgHosts | None:
                return None if now == seen else now

            context.repository.change(org_hosts_ref(org_id), remove)
