"""Reads an organization back over a connection of its own, and compares it with what callers were told."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from shared.feed import Feed
from shared.ports import KeySealer, SealBroken
from shared.records import (
    DEFAULT,
    ActivityKind,
    ActivityPage,
    CAIndex,
    CAsOfOneName,
    Denials,
    Org,
    Outboxed,
    ServerCertificate,
    Withdrawal,
)
from shared.repository import (
    Repository,
    activity_partition,
    ca_index_ref,
    default_ref,
    org_hosts_ref,
    org_ref,
)
from tests.faults.load import ABSENT, Change, History, Thing

_SETTLED = 3.0  # seconds after an unanswered call, within which its change is made or is not


@dataclass
class Findings:
    """What is not as it must be.

    Args:
        lost: acknowledged changes that are not there.
        halves: things of which a part is missing.
        leftovers: what a call that was cut short may leave, and a sweep must mend: bodies that no index names, places
            taken in the index for nothing.
    """

    lost: list[str] = field(default_factory=list)
    halves: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)


def check(repository: Repository, sealer: KeySealer, org_id: str, history: History) -> Findings:
    """Whether all that *history* was told stands, and nothing stands by half. Of what *history* does not tell nothing
    is expected but that it is whole."""
    found = Findings()
    org = repository.get(org_ref(org_id))
    if org is None:
        found.lost.append("the organization")
        return found
    servers = dict(repository.iterate(f"server/{org_id}", ServerCertificate))
    names = dict(repository.iterate(f"ca/{org_id}", CAsOfOneName))
    denials = dict(repository.iterate(f"deny/{org_id}", Denials))
    index = repository.get(ca_index_ref(org_id)) or CAIndex()
    cas = {ca_id: ca.status.value for one in names.values() for ca_id, ca in one.cas.items()}

    _servers_whole(found, repository, sealer, org, servers)
    _cas_whole(found, org, cas, index)
    for thing in history.things:
        if thing.kind == "ca":
            now = cas.get(str(thing.id), ABSENT)
        elif thing.kind == "denial":
            now = _denial(denials, thing)
        else:
            now = _server(org, servers, thing)
        if now not in thing.may_be:
            found.lost.append(f"{thing.kind} {thing.id} was told to be {' or '.join(thing.may_be)}, and is {now}")
    _last_of(found, "activation", org.activation.active, history.activations)
    rules = org.policy.rules
    _last_of(found, "policy", rules[0].device_type if rules else "", history.policies)
    _activity(found, repository, org_id, [org, *servers.values(), *names.values(), *denials.values()], history)
    _edges(found, repository, org, history)
    return found


def _servers_whole(
    found: Findings, repository: Repository, sealer: KeySealer, org: Org, servers: dict[str, ServerCertificate]
) -> None:
    """Each line of the index has its body, each body its key, each key its certificate; exactly one is active."""
    for one in org.servers:
        record = servers.get(one)
        if record is None:
            found.halves.append(f"the index names the server certificate {one}, which has no body")
            continue
        if why := _broken(sealer, org.org_id, one, record):
            found.halves.append(f"server certificate {one}: {why}")
    found.leftovers += [f"server certificate {one}" for one in servers if one not in org.servers]
    active = org.activation.active
    if active == DEFAULT:
        whole = repository.get(default_ref()) is not None
    else:
        whole = active in org.servers and active in servers and servers[active].leaf is not None
    if not whole:
        found.halves.append(f"the active certificate {active} is not there")
    previous = org.activation.previous
    if previous not in (None, DEFAULT, *org.servers):
        found.halves.append(f"the previous certificate {previous} is not there")


def _broken(sealer: KeySealer, org_id: str, certificate_id: str, record: ServerCertificate) -> str:
    """Why a server certificate, or a request, is not whole; empty where it is."""
    try:
        key = load_der_private_key(sealer.open(record.key, org_id=org_id, certificate_id=certificate_id), None)
    except SealBroken as error:
        return f"its key does not open: {error}"
    own = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if record.leaf is not None:
        public = x509.load_der_x509_certificate(record.leaf).public_key()
    elif record.csr is not None:
        public = x509.load_der_x509_csr(record.csr).public_key()
    else:
        return "it has neither certificate nor request"
    return "" if public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == own else "its key is another's"


def _cas_whole(found: Findings, org: Org, cas: dict[str, str], index: CAIndex) -> None:
    """The index may name a CA too many, never one too few; and whether SNI is needed agrees with what is there."""
    found.halves += [f"the index misses the CA {one}" for one in cas if one not in index.cas]
    found.leftovers += [f"a place in the index for the CA {one}" for one in index.cas if one not in cas]
    if cas and not org.has_ca:
        found.leftovers.append("there are CAs, and devices need not send SNI")
    if not cas and org.has_ca:
        found.leftovers.append("there is no CA, and devices must send SNI")


def _server(org: Org, servers: dict[str, ServerCertificate], thing: Thing) -> str:
    ids = [thing.id] if thing.id else [one for one, record in servers.items() if record.leaf == thing.leaf]
    for one in ids:
        if one in org.servers and one in servers:
            return "csr" if servers[one].leaf is None else "certificate"
    return ABSENT


def _denial(denials: dict[str, Denials], thing: Thing) -> str:
    if thing.id is None:
        return ABSENT
    return "denied" if any(thing.id in one.entries for one in denials.values()) else ABSENT


def _last_of(found: Findings, what: str, now: str, history: list[Change]) -> None:
    """What stands must be a change that no acknowledged one certainly came after."""
    if not history:
        return
    latest = max(one.began for one in history if one.acknowledged)
    fits = [
        one
        for one in history
        if one.value == now and (one.ended if one.acknowledged else one.ended + _SETTLED) >= latest
    ]
    if not fits:
        found.lost.append(f"the {what} is {now or 'as at first'}, which an acknowledged one came after")


def _activity(
    found: Findings, repository: Repository, org_id: str, documents: list[Outboxed], history: History
) -> None:
    """Every acknowledged change is told in the activity list, or waits in a document to be copied there."""
    told = set(_told(repository, org_id, documents))
    for what, about in history.entries:
        if (what, about) not in told:
            found.lost.append(f"the activity list does not tell {what} of {about}")


def _edges(found: Findings, repository: Repository, org: Org, history: History) -> None:
    """The edges were told of every acknowledged withdrawal, and of the certificate that is active now."""
    feed = Feed(repository, "withdrawals", Withdrawal)
    told, page = set(), feed.since(0)
    while page:
        told |= {(one.what.kind, one.what.value) for one in page if one.what.org_id == org.org_id}
        page = feed.since(page[-1].number)
    found.lost += [
        f"the edges were not told to end the sessions of {one}" for one in history.withdrawn if one not in told
    ]
    hosts = repository.get(org_hosts_ref(org.org_id))
    if hosts is None or not hosts.is_published or hosts.certificate_id != org.activation.active:
        sure = history.activations and all(one.acknowledged for one in history.activations)
        (found.lost if sure else found.leftovers).append("the edges were not told of what is active")


def _told(repository: Repository, org_id: str, documents: list[Outboxed]) -> Iterator[tuple[str, str]]:
    pages = (page for _, page in repository.iterate(activity_partition(org_id, ActivityKind.CHANGE), ActivityPage))
    entries = [entry for page in pages for entry in page.entries]
    for entry in [*entries, *(entry for one in documents for entry in one.outbox)]:
        yield entry.what, entry.detail.get("certificate", "")
