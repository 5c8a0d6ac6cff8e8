"""The documents of the store: the key of each, and the type of its record.

`shared.records` describes the records. Feeds have keys of their own (`shared.feed`).
"""

import hashlib
import secrets
from datetime import datetime
from typing import Final, Generic, NamedTuple, TypeVar

from shared.connection_records import RefusalPages, ShownChain, ShownIndex, Traffic, Usage
from shared.edge_records import EdgeContact, OrgHosts
from shared.ports import Key
from shared.records import (
    PLATFORM,
    ActivityKind,
    ApiKey,
    CAIndex,
    CAsOfOneName,
    DefaultCertificate,
    DeliveredMessage,
    Denials,
    DenyCount,
    Org,
    Record,
    ReportRun,
    ServerCertificate,
)

R = TypeVar("R", bound=Record)

ORG_HOSTS: Final = "hosts"  # the partition of `OrgHosts`
_END_OF_TIME: Final = 1 << 63  # microseconds; activity ids count down from here, so that the newest sorts first


class Ref(NamedTuple, Generic[R]):
    """A reference to a document: its key, and the type of its record."""

    key: Key
    kind: type[R]


def org_ref(org_id: str) -> Ref[Org]:
    """Return the ref of an organization."""
    return Ref(Key("org", org_id), Org)


def cas_ref(org_id: str, name: str) -> Ref[CAsOfOneName]:
    """Return the ref of the CA certificates of one subject name.

    Args:
        org_id: the organization.
        name: the 16 hex digits with which the id of each of these CAs begins.
    """
    return Ref(Key(cas_partition(org_id), name), CAsOfOneName)


def cas_partition(org_id: str) -> str:
    """Return the partition of an organization's CA certificates."""
    return f"ca/{org_id}"


def ca_index_ref(org_id: str) -> Ref[CAIndex]:
    """Return the ref of the index of an organization's CA certificates."""
    return Ref(Key("caindex", org_id), CAIndex)


def server_ref(org_id: str, certificate_id: str) -> Ref[ServerCertificate]:
    """Return the ref of a server certificate or certificate request."""
    return Ref(Key(f"server/{org_id}", certificate_id), ServerCertificate)


def default_ref() -> Ref[DefaultCertificate]:
    """Return the ref of the platform's default server certificate."""
    return Ref(Key(PLATFORM, "default"), DefaultCertificate)


def denials_ref(org_id: str, look_up: str) -> Ref[Denials]:
    """Return the ref of the deny-list entries that *look_up* finds."""
    return Ref(Key(denials_partition(org_id), look_up), Denials)


def denials_partition(org_id: str) -> str:
    """Return the partition of an organization's deny-list entries."""
    return f"deny/{org_id}"


def deny_count_ref(org_id: str) -> Ref[DenyCount]:
    """Return the ref of the number of entries on an organization's deny list."""
    return Ref(Key(deny_count_partition(org_id), "count"), DenyCount)


def deny_count_partition(org_id: str) -> str:
    """Return the partition of `deny_count_ref`."""
    return f"denycount/{org_id}"


def api_key_ref(org_id: str | None, key: str) -> Ref[ApiKey]:
    """Return the ref of an API key; *org_id* None: a key of the platform."""
    return Ref(Key(api_key_partition(org_id), key), ApiKey)


def api_key_partition(org_id: str | None) -> str:
    """Return the partition of an organization's API keys; *org_id* None: of the platform's keys."""
    return f"key/{org_id or PLATFORM}"


def usage_ref(org_id: str, day: str) -> Ref[Usage]:
    """Return the ref of an organization's usage on *day* (YYYY-MM-DD)."""
    return Ref(Key(f"usage/{org_id}", day), Usage)


def traffic_ref(org_id: str, day: str) -> Ref[Traffic]:
    """Return the ref of the numbers of an organization's verdicts on *day* (YYYY-MM-DD)."""
    return Ref(Key(f"traffic/{org_id}", day), Traffic)


def refusal_pages_ref(org_id: str, day: str) -> Ref[RefusalPages]:
    """Return the ref of an organization's ring of refusals on *day* (YYYY-MM-DD)."""
    return Ref(Key(f"refusals/{org_id}", day), RefusalPages)


def shown_ref(org_id: str, fingerprint: str) -> Ref[ShownChain]:
    """Return the ref of a certificate that a client presented, by the SHA-256 of the leaf in hex."""
    return Ref(Key(f"shown/{org_id}", fingerprint), ShownChain)


def shown_index_ref(org_id: str) -> Ref[ShownIndex]:
    """Return the ref of the ring of these certificates."""
    return Ref(Key(f"shownindex/{org_id}", "index"), ShownIndex)


def seen_partitions(org_id: str) -> list[str]:
    """Return the partitions of what was recorded about an organization's connections."""
    return [f"usage/{org_id}", f"traffic/{org_id}", f"refusals/{org_id}", f"shown/{org_id}", f"shownindex/{org_id}"]


def report_run_ref() -> Ref[ReportRun]:
    """Return the ref of the progress of the day's expiry report."""
    return Ref(Key(PLATFORM, "expiry-report"), ReportRun)


def delivered_ref(day: str, message_id: str) -> Ref[DeliveredMessage]:
    """Return the ref of a webhook message that was delivered on *day* (YYYY-MM-DD)."""
    return Ref(Key(f"told/{day}", message_id), DeliveredMessage)


def org_hosts_ref(org_id: str) -> Ref[OrgHosts]:
    """Return the ref of the hosts that TLS edges serve for an organization."""
    return Ref(Key(ORG_HOSTS, org_id), OrgHosts)


def edge_partition(org_id: str | None) -> str:
    """Return the partition of the edges with keys of an organization; *org_id* None: of the platform."""
    return f"edge/{org_id or PLATFORM}"


def edge_contact_ref(org_id: str | None, key: str, name: str) -> Ref[EdgeContact]:
    """Return the ref of what is known of an edge: its key and the name that it gives itself, or an empty name."""
    return Ref(Key(edge_partition(org_id), f"{key}.{name}"), EdgeContact)


def activity_partition(org_id: str, kind: ActivityKind) -> str:
    """Return the partition of an organization's activity entries of one kind."""
    return f"activity/{org_id}/{kind}"


def activity_id(at: datetime, about: str | None = None) -> str:
    """Return an id that sorts before the ids of all earlier moments.

    Args:
        at: the time of the entry.
        about: makes the id the same at each call, so that `Repository.append_once` writes an entry about the same
            thing once.
    """
    tail = secrets.token_hex(4) if about is None else hashlib.sha256(about.encode()).hexdigest()[:16]
    return f"{activity_moment(at)}-{tail}"


def activity_moment(at: datetime) -> str:
    """Return the beginning of the ids of *at*. It sorts before them, and after the ids of all later moments."""
    micros = int(at.timestamp() * 1_000_000)
    return f"{_END_OF_TIME - micros:016x}"
