"""edgeFeed: list the hosts that a TLS edge serves, with their versions. No private key is in a list."""

import logging
import re
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from shared.edge_records import OrgHosts
from shared.errors import WrongValue
from shared.feed import CursorExpired, Position
from shared.records import DEFAULT, DefaultCertificate
from shared.usecases.callers import Caller, Credentials
from shared.usecases.context import Context
from shared.usecases.daily import is_first_today
from shared.usecases.edges.callers import authenticate_edge, note_contact
from shared.usecases.edges.hosts import BY_DEFAULT, HostFeed, load_leaf
from shared.usecases.servers.documents import host_version
from shared.usecases.servers.platform_default import PlatformDefault
from shared.validation.server_cert import hosts_covered

log = logging.getLogger(__name__)

HOSTS_MAX: Final = 500  # hosts in one page; the hosts of one organization are not split, so a page may have more
# Hosts in a list without pages. Envoy asks for the secret of each host twice a second, so 500 hosts with one listener
# are 1,000 requests a second.
EVERY_HOST_MAX: Final = 500
_NAMED_MAX: Final = 20  # hosts in one warning
_BEFORE_ALL: Final = datetime.min.replace(tzinfo=UTC)
# The position in the feed, the version of the default certificate, and the last organization of a page of all hosts.
# The id of a line has 12 digits and a version 16; a head of version 0.1.0 has no id.
_SINCE: Final = (
    r"(?P<number>[0-9]{1,16})(\.(?P<id>[0-9a-f]{12}))?\.(?P<default>[0-9a-f]{16}|-)(\.(?P<after>[a-z0-9-]{1,63}))?"
)


class ListedHost(msgspec.Struct, frozen=True):
    """A host at its version. *certificate_id* is `default` if the platform's default certificate serves the host."""

    server_name: str
    org_id: str
    version: str
    certificate_id: str
    removed: bool = False
    since: datetime | None = None  # when the host appeared; None for a host of the version before


class HostsPage(msgspec.Struct, frozen=True):
    """A page of changed hosts, or of all hosts.

    Args:
        head: the cursor for the next request.
        more: whether the next page has hosts already.
        full: whether this is a page of all hosts. A host on none of these pages is removed.
        first: whether this is the first page of all hosts.
        default_version: the version of the platform's default certificate.
    """

    head: str
    hosts: Sequence[ListedHost]
    more: bool
    full: bool
    first: bool
    default_version: str | None


def list_changed_hosts(context: Context, credentials: Credentials, since: str, *, edge: str = "") -> HostsPage:
    """Return the hosts of the caller's organizations that changed after *since*, the `head` of an earlier page.

    Args:
        edge: what the edge calls itself.

    All hosts are listed (`full`) if *since* is empty, if the edge is too far behind, and if the platform's default
    certificate changed.

    Raises: WrongValue, NotAuthenticated, Forbidden, StoreUnavailable.
    """
    caller, documents = authenticate_edge(context, credentials, PlatformDefault.ref)
    note_contact(context, caller, edge)
    listing = _Listing(context, caller, documents.get(PlatformDefault.ref))
    if since in ("", "0"):
        return listing.list_all()
    cursor = re.fullmatch(_SINCE, since)
    if cursor is None:
        raise WrongValue(field="since", found="since takes the head of an earlier answer, or nothing")
    if cursor["default"] != listing.default_mark:
        return listing.list_all()
    position, after = Position(int(cursor["number"]), cursor["id"] or ""), cursor["after"]
    if after is not None:
        return listing.continue_all(position, after)
    try:
        return listing.list_changes(position)
    except CursorExpired:
        return listing.list_all()


def list_every_host(
    context: Context, credentials: Credentials, org_ids: Collection[str] | None = None
) -> tuple[list[ListedHost], int]:
    """Return all hosts of the caller's organizations, for an edge that takes one list without pages.

    The list has at most EVERY_HOST_MAX hosts: those that appeared first. So a new host never takes the place of a host
    that the edge serves. A warning names what was left out, once a day and process.

    Args:
        org_ids: only hosts of these organizations; None for all of the caller's.

    Returns: the hosts, ordered by name, and the number of hosts that were left out.

    Raises: NotAuthenticated, Forbidden, StoreUnavailable.
    """
    caller, documents = authenticate_edge(context, credentials, PlatformDefault.ref)
    note_contact(context, caller, "")
    listing = _Listing(context, caller, documents.get(PlatformDefault.ref))
    hosts = listing.iterate_all() if org_ids is None else listing.iterate_some(org_ids)
    oldest_first = sorted(hosts, key=lambda host: (host.since or _BEFORE_ALL, host.server_name))
    listed, left_out = oldest_first[:EVERY_HOST_MAX], oldest_first[EVERY_HOST_MAX:]
    if left_out and is_first_today(f"left out {caller.who} {len(left_out)}", context.clock()):
        log.warning(
            "hosts do not fit an Envoy's list of listeners; divide the organizations among several Envoys",
            extra={
                "edge": caller.who,
                "listed": len(listed),
                "left_out": len(left_out),
                "hosts": [host.server_name for host in left_out[:_NAMED_MAX]],
            },
        )
    return sorted(listed, key=lambda host: host.server_name), len(left_out)


class _Listing:
    """The hosts that one caller may see, for one answer."""

    def __init__(self, context: Context, caller: Caller, default: DefaultCertificate | None) -> None:
        self._feed = HostFeed(context)
        self._caller = caller
        self._default = load_leaf(default.leaf) if default else None
        self._default_version = host_version(default) if default else None
        self.default_mark = self._default_version or "-"

    def list_changes(self, position: Position) -> HostsPage:
        """Return a page of the hosts that changed after *position* in the feed.

        Raises: CursorExpired.
        """
        changes = self._feed.since(position, limit=HOSTS_MAX)
        changed_ids = dict.fromkeys(change.what.org_id for change in changes)
        own_ids = [org_id for org_id in changed_ids if self._caller.scope.may_ask_about(org_id, None)]
        published = self._feed.find(own_ids) if own_ids else {}
        hosts: list[ListedHost] = []
        listed: set[str] = set()
        head, is_cut = position, False
        for change in changes:
            org_id = change.what.org_id
            if org_id in own_ids and org_id not in listed:
                of_org = list(self._list_org(org_id, published.get(org_id), with_removed=True))
                if listed and len(hosts) + len(of_org) > HOSTS_MAX:
                    is_cut = True
                    break
                hosts += of_org
                listed.add(org_id)
            head = change.position
        more = is_cut or len(changes) == HOSTS_MAX
        return self._page(f"{head}.{self.default_mark}", hosts, more=more, full=False, first=False)

    def list_all(self) -> HostsPage:
        """Return the first page of all hosts."""
        position = self._feed.head()  # before the hosts are read: a later change is listed again by the next request
        return self._page_of_all(position, "", first=True)

    def continue_all(self, position: Position, after: str) -> HostsPage:
        """Return the next page of all hosts.

        Args:
            position: the end of the feed before the first page was read.
            after: the last organization of the page before.
        """
        return self._page_of_all(position, after, first=False)

    def iterate_all(self) -> Iterator[ListedHost]:
        """Return all hosts without pages."""
        for org_id, published in self._list_published(""):
            yield from self._list_org(org_id, published, with_removed=False)

    def iterate_some(self, org_ids: Collection[str]) -> Iterator[ListedHost]:
        """Return all hosts of those of *org_ids* that the caller may ask about."""
        own_ids = [org_id for org_id in sorted(org_ids) if self._caller.scope.may_ask_about(org_id, None)]
        for org_id, published in self._feed.find(own_ids).items() if own_ids else ():
            yield from self._list_org(org_id, published, with_removed=False)

    def _page_of_all(self, position: Position, after: str, *, first: bool) -> HostsPage:
        hosts: list[ListedHost] = []
        is_empty = True
        for org_id, published in self._list_published(after):
            of_org = list(self._list_org(org_id, published, with_removed=False))
            if not is_empty and len(hosts) + len(of_org) > HOSTS_MAX:
                return self._page(f"{position}.{self.default_mark}.{after}", hosts, more=True, full=True, first=first)
            hosts += of_org
            after, is_empty = org_id, False
        return self._page(f"{position}.{self.default_mark}", hosts, more=False, full=True, first=first)

    def _list_published(self, after: str) -> Iterator[tuple[str, OrgHosts]]:
        """Return the published hosts of the caller's organizations behind *after*, ordered by organization."""
        own_ids = sorted([self._caller.org_id] if self._caller.org_id else self._caller.orgs)
        if not own_ids:  # a platform key for all organizations
            yield from self._feed.list(after=after)
            return
        published = self._feed.find([org_id for org_id in own_ids if org_id > after])
        yield from published.items()

    def _list_org(self, org_id: str, published: OrgHosts | None, *, with_removed: bool) -> Iterator[ListedHost]:
        """Return the hosts of one organization that a certificate covers, and, if asked for, the removed hosts."""
        if published is None:
            return
        if not self._caller.scope.may_ask_about(org_id, published.incarnation):  # the id was created again
            former = published.former if with_removed and self._caller.org_id is None else ()
            yield from (ListedHost(host, org_id, "", DEFAULT, removed=True) for host in former)
            return
        uncovered = [host for host, version in published.hosts.items() if version == BY_DEFAULT]
        by_default = set(hosts_covered(self._default, uncovered)) if self._default and uncovered else set()
        for host, version in published.hosts.items():
            if version != BY_DEFAULT:
                yield ListedHost(host, org_id, version, published.certificate_id, since=published.since.get(host))
            elif host in by_default and self._default_version:
                yield ListedHost(host, org_id, self._default_version, DEFAULT, since=published.since.get(host))
            elif with_removed:
                yield ListedHost(host, org_id, "", DEFAULT, removed=True)
        if with_removed:
            former = published.former if self._caller.org_id is None else ()
            gone = dict.fromkeys((*published.gone, *(host for host in former if host not in published.hosts)))
            yield from (ListedHost(host, org_id, "", DEFAULT, removed=True) for host in gone)

    def _page(self, head: str, hosts: Sequence[ListedHost], *, more: bool, full: bool, first: bool) -> HostsPage:
        return HostsPage(head, hosts, more, full, first, self._default_version)
