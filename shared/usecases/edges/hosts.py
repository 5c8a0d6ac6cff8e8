"""The hosts that TLS edges serve: a document for each organization, and a numbered feed of changes.

    hosts/{orgId}    `OrgHosts`: each host with its version, derived from the organization and its active certificate
    feed/hosts       `HostsChanged`: the ids of organizations whose hosts changed

After a change of an organization, and before the change is answered, `HostFeed.publish` derives `OrgHosts` again and
appends a line to the feed. An interrupted call that is repeated publishes again; `HostFeed.sweep` publishes what no
call repeated. The platform's default certificate is not part of `OrgHosts`: a host that the default certificate serves
has the version BY_DEFAULT, so a new default certificate is one write for all organizations (docs/decisions/0070).
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Final

import msgspec

from shared.batch import Batch
from shared.edge_records import HostsChanged, OrgHosts
from shared.feed import Change, Position
from shared.org_repository import OrgRepository
from shared.records import DEFAULT, Org, ServerCertificate
from shared.refs import ORG_HOSTS, Ref, org_hosts_ref, org_ref
from shared.usecases.context import Context
from shared.usecases.organization import OrgDocuments
from shared.usecases.servers.documents import ServerCertificates, host_version
from shared.validation.server_cert import hosts_covered
from shared.x509.certificate import Certificate

BY_DEFAULT: Final = ""  # the version of a host that the platform's default certificate serves
_GONE_MAX: Final = 100  # former hosts of an organization that are still listed as removed
_KEEP_CHANGES: Final = 20_000  # lines of the feed; an edge further behind reads the whole list
_KEEP_REMOVED: Final = timedelta(days=30)
_PAGE: Final = 200


@lru_cache(maxsize=2048)
def load_leaf(der: bytes) -> Certificate:
    """Return a stored leaf certificate, parsed. A stored certificate never changes, so the result is cached."""
    return Certificate.from_der(der)


def _since(stored: OrgHosts | None, hosts: Iterable[str], at: datetime) -> dict[str, datetime]:
    """Return when each of *hosts* appeared: *at* where *stored* does not have the host."""
    if stored is None:
        return dict.fromkeys(hosts, at)
    appeared = {host: stored.since.get(host) if host in stored.hosts else at for host in hosts}
    return {host: time for host, time in appeared.items() if time is not None}


class HostFeed:
    """The owner of `OrgHosts` and of the feed of host changes."""

    def __init__(self, context: Context) -> None:
        self._repository = context.repository
        self._clock = context.clock
        self._platform_domain = context.platform_domain
        self._changes = context.host_changes

    # ------------------------------------------------------------------------------------------------- reading

    def ref(self, org_id: str) -> Ref[OrgHosts]:
        """Return the ref of an organization's hosts, for a batched read."""
        return org_hosts_ref(org_id)

    def find(self, org_ids: Sequence[str]) -> dict[str, OrgHosts]:
        """Return the hosts of organizations, by id, from one batched read.

        Raises: StoreUnavailable.
        """
        documents = self._repository.read_batch([self.ref(org_id) for org_id in org_ids])
        hosts = ((org_id, documents.get(self.ref(org_id))) for org_id in org_ids)
        return {org_id: org_hosts for org_id, org_hosts in hosts if org_hosts is not None}

    def list(self, *, after: str = "") -> Iterator[tuple[str, OrgHosts]]:
        """Return the hosts of every organization behind *after*, ordered by id, page by page.

        Raises: StoreUnavailable.
        """
        while page := self._repository.list(ORG_HOSTS, OrgHosts, after=after, limit=_PAGE):
            yield from page
            after = page[-1][0]

    def since(self, position: Position, *, limit: int) -> Sequence[Change[HostsChanged]]:
        """Return at most *limit* changes after *position*.

        Raises: CursorExpired, StoreUnavailable.
        """
        return self._changes.since(position.number, line_id=position.id, limit=limit)

    def head(self) -> Position:
        """Return the position of the latest change.

        Raises: StoreUnavailable.
        """
        return self._changes.head()

    # ---------------------------------------------------------------------------------------------- publishing

    def publish(self, org_id: str) -> None:
        """Derive the hosts of an organization again, and append a line to the feed if the hosts changed.

        Raises: TooBusy, StoreUnavailable. The call is safe to repeat.
        """
        self._publish(org_id, None, None)

    def publish_change(self, org: Org, documents: Batch) -> None:
        """Publish the hosts of *org* as `publish` does, with fewer reads.

        Args:
            org: the organization as the caller has just read or written it.
            documents: an earlier read of `ref` and of the active certificate's body, from *before* the organization was
                read or written.

        Raises: TooBusy, StoreUnavailable. The call is safe to repeat.
        """
        stored = documents.get(self.ref(org.org_id))
        if self._derive(org, stored, documents, self._clock()) is stored:
            self.publish(org.org_id)  # a decision not to write must rest on a read after the organization was written
        else:
            self._publish(org.org_id, org, documents)

    def _publish(self, org_id: str, org: Org | None, documents: Batch | None) -> None:
        """Publish the hosts of an organization, again if the organization changed meanwhile.

        The stored hosts are always read before the organization is. So the compare-and-set refuses a publication that
        read an older organization than a publication beside it did; the next attempt reads both again.
        """
        at = self._clock()
        is_outdated = True
        while is_outdated:
            for attempt in self._repository.changing(self.ref(org_id), first=documents):
                with attempt as stored:
                    org = org or OrgDocuments(self._repository).find(org_id)
                    published = self._derive(org, stored, documents, at)
                    if published is not None and published is not stored:
                        attempt.write(published)
                org = documents = None  # every later attempt reads again
            if published is None or published.is_published:
                return
            self._changes.append(HostsChanged(org_id))
            is_outdated = self._mark_published(org_id, published)

    def _mark_published(self, org_id: str, published: OrgHosts) -> bool:
        """Record that the feed has a line for *published*. Return whether *published* is outdated already.

        Another publication may have decided, before *published* was written, that the hosts need no change. So the
        organization is read once more.
        """
        for attempt in self._repository.changing(self.ref(org_id), also=[org_ref(org_id)]):
            with attempt as stored:
                is_last = stored == published  # else a later publication looks after its own hosts
                is_outdated = is_last and published.basis != self._basis(attempt.batch.get(org_ref(org_id)))
                if is_last and not is_outdated:
                    attempt.write(msgspec.structs.replace(published, is_published=True))
        return is_outdated

    def _derive(
        self, org: Org | None, stored: OrgHosts | None, documents: Batch | None, at: datetime
    ) -> OrgHosts | None:
        """Return the hosts to store; *stored* itself if nothing changed; None for an unknown organization."""
        if org is not None and org.deletion is not None:
            org = None  # a tombstone is no organization
        if org is None and stored is None:
            return None
        hosts = self._versions(org, documents) if org is not None else {}
        gone, former, incarnation = self._former(org, stored)
        derived = OrgHosts(
            certificate_id=org.activation.active if org is not None else DEFAULT,
            activated_at=org.activation.activated_at if org is not None else None,
            hosts=hosts,
            gone=tuple(host for host in gone if host not in hosts)[:_GONE_MAX],
            since=_since(stored, hosts, at),
            basis=self._basis(org),
            changed_at=at,
            incarnation=incarnation,
            former=former,
        )
        if stored is not None and msgspec.structs.replace(stored, is_published=False, changed_at=at) == derived:
            return stored
        return derived

    def _former(self, org: Org | None, stored: OrgHosts | None) -> tuple[tuple[str, ...], tuple[str, ...], str]:
        """Return the former hosts of *org*, those of earlier organizations of its id, and the incarnation.

        Only platform edges may know the hosts of an earlier organization.
        """
        if stored is None:
            return (), (), "" if org is None else org.incarnation
        hosts = tuple(dict.fromkeys((*stored.hosts, *stored.gone)))
        if org is None or org.incarnation == stored.incarnation:
            return hosts, stored.former, stored.incarnation
        return (), tuple(dict.fromkeys((*hosts, *stored.former)))[:_GONE_MAX], org.incarnation

    def _versions(self, org: Org, documents: Batch | None) -> dict[str, str]:
        """Return each host of *org* with its version.

        The version is that of the active certificate if the certificate covers the host, else BY_DEFAULT.
        """
        if org.suspended:
            return {}
        hosts = org.hosts(self._platform_domain)
        record = self._active_record(org, documents)
        if record is None or record.leaf is None:
            return dict.fromkeys(hosts, BY_DEFAULT)
        covered, version = set(hosts_covered(load_leaf(record.leaf), hosts)), host_version(record)
        return {host: version if host in covered else BY_DEFAULT for host in hosts}

    def _active_record(self, org: Org, documents: Batch | None) -> ServerCertificate | None:
        """Return the body of the active certificate, from *documents* if given; None for the default certificate."""
        active = org.activation.active
        if active == DEFAULT:
            return None
        servers = ServerCertificates(OrgRepository(self._repository, org.org_id, org.incarnation))
        if documents is None:
            return servers.find_record(active)
        record = documents.of(org.incarnation).get(servers.own_ref(active))
        line = org.servers.get(active)
        if record is not None and line is not None and line.version not in ("", host_version(record)):
            return servers.find_record(active)  # its chain was completed after *documents* were read
        return record

    def _basis(self, org: Org | None) -> str:
        """Return a digest of everything that `_versions` depends on.

        The id of the active certificate is enough, with its version where its chain was completed: the certificate of
        an id never changes otherwise.
        """
        if org is None or org.deletion is not None:
            return ""
        if org.suspended:
            return f"suspended {org.incarnation}".rstrip()
        activation = org.activation
        parts = (self._platform_domain, activation.active, str(activation.activated_at), *org.settings.domains)
        line = org.servers.get(activation.active)
        if line is not None and line.version:
            parts = (*parts, f"version {line.version}")
        if org.incarnation:
            parts = (*parts, org.incarnation)
        return sha256("\n".join(parts).encode()).hexdigest()[:16]

    # ------------------------------------------------------------------------------------------------ sweeping

    def sweep(self) -> int:
        """Publish what an interrupted call left unpublished, and delete what no edge needs.

        Return the number of organizations that were published. A sweep reads two documents of each organization, 200
        organizations in a round trip. A sweep is safe to run at any time, and twice at the same time.

        Raises: TooBusy, StoreUnavailable.
        """
        behind = list(self._list_behind())
        for org_id in behind:
            self.publish(org_id)
        self._forget_removed()
        self._changes.trim(self._changes.end() - _KEEP_CHANGES)
        return len(behind)

    def _list_behind(self) -> Iterator[str]:
        """Return the ids of organizations whose published hosts differ from what the organization says."""
        after = ""
        while orgs := OrgDocuments(self._repository).list(after=after, limit=_PAGE):
            published = self.find([org.org_id for org in orgs])
            for org in orgs:
                hosts = published.get(org.org_id)
                if hosts is None and org.deletion is not None:
                    continue  # deleted long ago: no edge has its hosts
                if hosts is None or not hosts.is_published or hosts.basis != self._basis(org):
                    yield org.org_id
            after = orgs[-1].org_id
        after = ""
        while page := self._repository.list(ORG_HOSTS, OrgHosts, after=after, limit=_PAGE):
            documents = self._repository.read_batch([org_ref(org_id) for org_id, _ in page])
            for org_id, hosts in page:
                if documents.get(org_ref(org_id)) is None and (hosts.hosts or not hosts.is_published):
                    yield org_id
            after = page[-1][0]

    def _forget_removed(self) -> None:
        """Delete the hosts of organizations that were deleted long ago.

        An edge that has not asked since then reads the whole list, which does not have these organizations.
        """
        before = self._clock() - _KEEP_REMOVED
        for org_id, hosts in self.list():
            if hosts.basis == "" and hosts.is_published and hosts.changed_at < before:
                for attempt in self._repository.changing(self.ref(org_id)):
                    with attempt as stored:
                        if stored == hosts:
                            attempt.delete()
