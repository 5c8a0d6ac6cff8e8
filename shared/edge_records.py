"""The stored records of what TLS edges serve, and of when they asked.

    OrgHosts            hosts/{orgId}           what the TLS edges serve for an organization, derived from others
    EdgeContact         edge/{orgId}/{edge}     when a TLS edge asked last; of platform keys in edge/platform

`HostsChanged` is a line of a feed (`shared.feed`).
"""

import datetime as dt

import msgspec

from shared.records import DEFAULT, FeedLine, OrgRecord, Record


class HostsChanged(FeedLine, frozen=True):
    """A line of the feed `hosts`: what is served for an organization changed. `OrgHosts` holds what is served now."""

    org_id: str


class OrgHosts(Record, frozen=True, kw_only=True):
    """What the TLS edges serve for an organization.

    The record is derived from the organization's other documents, so that a listing reads nothing else.

    Args:
        certificate_id: the active server certificate.
        hosts: each host -> the version of the active certificate, or "" where the platform's default serves the host.
        gone: former hosts.
        since: each host -> when the host appeared. A host of the version before has no entry, and is older than those.
        basis: a digest of what the record was derived from (`shared.usecases.edges.hosts`), so that a sweep finds a
            difference without reading certificates.
        is_published: whether the feed has a line for this state.
        incarnation: of the organization that the hosts belong to, or belonged to.
        former: hosts of earlier organizations of this id, which only platform edges may know.
    """

    certificate_id: str = DEFAULT
    activated_at: dt.datetime | None = None
    hosts: dict[str, str] = {}
    gone: tuple[str, ...] = ()
    since: dict[str, dt.datetime] = {}
    basis: str = ""
    is_published: bool = msgspec.field(default=False, name="told")
    changed_at: dt.datetime
    incarnation: str = ""
    former: tuple[str, ...] = ()


class EdgeContact(OrgRecord, frozen=True, kw_only=True):
    """When a TLS edge asked last (`shared.heartbeats`). *name*: what the edge calls itself, or empty."""

    key: str
    name: str = ""
    asked_at: dt.datetime

    @property
    def label(self) -> str:
        """The edge for people: a name that the edge chose is marked as such."""
        return edge_label(self.name) if self.name else self.key


def edge_label(name: str) -> str:
    """Return the name that an edge gave itself, so that it cannot be taken for a person or a key."""
    return f"edge:{name}"
