"""edgeFeed: take the reports of TLS edges: which versions they serve, and how many clients they refused."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from shared.connection_records import EdgeRefusals
from shared.edge_records import OrgHosts, edge_label
from shared.errors import NotFound
from shared.org_repository import OrgRepository
from shared.records import ActivityKind, DefaultCertificate
from shared.refs import org_ref
from shared.usecases.callers import Credentials
from shared.usecases.context import Context, make_entry
from shared.usecases.edges.callers import authenticate_edge
from shared.usecases.edges.hosts import BY_DEFAULT, HostFeed
from shared.usecases.servers.documents import ServerCertificates, host_version
from shared.usecases.servers.platform_default import PlatformDefault
from shared.validation.names import ServerName, is_org_id

SERVED_MAX: Final = 500  # hosts in one report
REFUSAL_CODES: Final = ("token_of_another", "user_name_missing")
"""Why an edge refuses a client by itself."""


class ReportResult(msgspec.Struct, frozen=True):
    """The result of a report: *taken* hosts are at the current version; the edge should ask again for *stale* hosts."""

    taken: int
    stale: Sequence[str]


def report_served(
    context: Context, credentials: Credentials, edge: str, hosts: Sequence[tuple[str, str]]
) -> ReportResult:
    """Record which version of each host an edge serves.

    The first report about an active certificate sets its `servedSince`. A host of another organization than the
    caller's is stale, as an unknown host is.

    Args:
        edge: the name that the edge gives itself. The activity list shows it as `edge:NAME`.
        hosts: host and version.

    Raises: NotAuthenticated, Forbidden, TooBusy, StoreUnavailable.
    """
    feed = HostFeed(context)
    names = {host: ServerName.parse(host) for host, _ in hosts}
    org_ids = sorted({name.org_id for name in names.values() if name is not None})
    caller, documents = authenticate_edge(
        context, credentials, PlatformDefault.ref, *(feed.ref(org_id) for org_id in org_ids)
    )
    default = documents.get(PlatformDefault.ref)
    default_version = host_version(default) if default else None
    stale: list[str] = []
    served: dict[str, tuple[OrgHosts, str]] = {}  # organization id -> what is published, and one host of the report
    is_default_served = False
    for host, version in hosts:
        name = names[host]
        published = documents.get(feed.ref(name.org_id)) if name is not None else None
        if name is not None and published is not None:
            is_own = caller.scope.may_ask_about(name.org_id, published.incarnation)
            published = published if is_own else None
        current = published.hosts.get(host.lower()) if published is not None else None
        if published is not None and name is not None and current == version and current:
            served.setdefault(name.org_id, (published, host))
        elif current == BY_DEFAULT and version == default_version:
            is_default_served = True
        else:
            stale.append(host)
    for org_id, (published, host) in served.items():
        _set_served_since(context, org_id, published, edge, host)
    if is_default_served and default is not None and default.served_since is None:
        _set_default_served_since(context, default)
    return ReportResult(len(hosts) - len(stale), stale)


def report_refused(context: Context, credentials: Credentials, refusals: Sequence[tuple[str, str, int]]) -> int:
    """Count clients that an edge refused by itself, after verifyClient let them pass. Return how many were counted.

    Left out are refusals of other organizations than the caller's, and codes that this version does not know: the edge
    may be of a later version, and must not repeat its report for ever.

    Args:
        refusals: organization, code and number. Several of one organization and code are added up.

    Raises: NotAuthenticated, Forbidden, StoreUnavailable.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for org_id, code, count in refusals:
        if is_org_id(org_id) and code in REFUSAL_CODES:
            counts[org_id, code] += count
    org_ids = sorted({org_id for org_id, _ in counts})
    caller, documents = authenticate_edge(context, credentials, *map(org_ref, org_ids))
    at, counted = context.clock(), 0
    for (org_id, code), count in counts.items():
        org = documents.get(org_ref(org_id))
        if org is None or org.deletion is not None or not caller.scope.may_ask_about(org_id, org.incarnation):
            continue
        event = EdgeRefusals(org_id=org_id, key=caller.who, code=code, count=count, at=at, incarnation=org.incarnation)
        context.events.offer(event)
        counted += count
    return counted


def _set_served_since(context: Context, org_id: str, published: OrgHosts, edge: str, host: str) -> None:
    """Set `served_since` of an organization's active certificate, unless it is set since the activation."""
    at, certificate_id = context.clock(), published.certificate_id
    activity = make_entry(at, edge_label(edge), "served", kind=ActivityKind.EDGE, certificate=certificate_id, host=host)
    try:
        records = OrgRepository(context.repository, org_id, published.incarnation)
        for attempt in ServerCertificates(records).changing(certificate_id):
            with attempt as record:
                if not is_served_since(record.served_since, published.activated_at):
                    attempt.write(msgspec.structs.replace(record, served_since=at), activity=activity)
    except NotFound:
        return  # the certificate was deleted after the report


def _set_default_served_since(context: Context, reported: DefaultCertificate) -> None:
    """Set `served_since` of the platform's default certificate, unless the certificate changed since the report."""
    at = context.clock()
    for attempt in PlatformDefault(context.repository).changing():
        with attempt as record:
            if record.leaf == reported.leaf and record.served_since is None:
                attempt.write(msgspec.structs.replace(record, served_since=at))


def is_served_since(served: datetime | None, activated: datetime | None) -> bool:
    """Return whether *served*, the time of an edge's report, belongs to this activation and not to an earlier one."""
    return served is not None and (activated is None or served >= activated)
