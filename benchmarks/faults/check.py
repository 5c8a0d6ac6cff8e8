"""Read an organization back over a separate connection, and compare it with the answers that callers received."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from benchmarks.faults.load import ABSENT, History, SharedChange, Thing
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
    RecordWithOutbox,
    ServerCertificate,
    Withdrawal,
)
from shared.refs import activity_partition, ca_index_ref, default_ref, org_hosts_ref, org_ref
from shared.repository import Repository

_SETTLED = 3.0  # seconds after which an unanswered change is certainly made or not made


@dataclass
class Findings:
    """Differences from the expected state.

    Args:
        lost: acknowledged changes that are missing.
        halves: entries of which a part is missing.
        leftovers: remains of an interrupted call that a sweep must remove: bodies that no index names, index entries
            without a body.
    """

    lost: list[str] = field(default_factory=list)
    halves: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)


def check(repository: Repository, sealer: KeySealer, org_id: str, history: History) -> Findings:
    """Check that all acknowledged changes of *history* are stored, and that every stored entry is complete."""
    findings = Findings()
    org = repository.get(org_ref(org_id))
    if org is None:
        findings.lost.append("the organization")
        return findings
    servers = dict(repository.iterate(f"server/{org_id}", ServerCertificate))
    names = dict(repository.iterate(f"ca/{org_id}", CAsOfOneName))
    denials = dict(repository.iterate(f"deny/{org_id}", Denials))
    index = repository.get(ca_index_ref(org_id)) or CAIndex()
    cas = {ca_id: ca.status.value for named in names.values() for ca_id, ca in named.cas.items()}

    _check_servers(findings, repository, sealer, org, servers)
    _check_cas(findings, org, cas, index)
    for thing in history.things:
        if thing.kind == "ca":
            now = cas.get(str(thing.id), ABSENT)
        elif thing.kind == "denial":
            now = _denial_state(denials, thing)
        else:
            now = _server_state(org, servers, thing)
        if now not in thing.may_be:
            findings.lost.append(
                f"{thing.kind} {thing.id} was acknowledged as {' or '.join(thing.may_be)}, and is {now}"
            )
    _check_latest(findings, "activation", org.activation.active, history.activations)
    rules = org.policy.rules
    _check_latest(findings, "policy", rules[0].device_type if rules else "", history.policies)
    _check_activity(findings, repository, org_id, [org, *servers.values(), *names.values(), *denials.values()], history)
    _check_edges(findings, repository, org, history)
    return findings


def _check_servers(
    findings: Findings, repository: Repository, sealer: KeySealer, org: Org, servers: dict[str, ServerCertificate]
) -> None:
    """Check that each index entry has a body, each body a key, each key its certificate, and that one is active."""
    for id_ in org.servers:
        record = servers.get(id_)
        if record is None:
            findings.halves.append(f"the index names the server certificate {id_}, which has no body")
            continue
        if why := _find_defect(sealer, org.org_id, id_, record):
            findings.halves.append(f"server certificate {id_}: {why}")
    findings.leftovers += [f"server certificate {id_}" for id_ in servers if id_ not in org.servers]
    active = org.activation.active
    if active == DEFAULT:
        whole = repository.get(default_ref()) is not None
    else:
        whole = active in org.servers and active in servers and servers[active].leaf is not None
    if not whole:
        findings.halves.append(f"the active certificate {active} is not there")
    previous = org.activation.previous
    if previous not in (None, DEFAULT, *org.servers):
        findings.halves.append(f"the previous certificate {previous} is not there")


def _find_defect(sealer: KeySealer, org_id: str, certificate_id: str, record: ServerCertificate) -> str:
    """Return why a server certificate or a request is incomplete; empty if it is complete."""
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


def _check_cas(findings: Findings, org: Org, cas: dict[str, str], index: CAIndex) -> None:
    """Check the index: it may name a CA too many, never one too few; and whether SNI is required fits the CAs."""
    findings.halves += [f"the index misses the CA {id_}" for id_ in cas if id_ not in index.cas]
    findings.leftovers += [f"a place in the index for the CA {id_}" for id_ in index.cas if id_ not in cas]
    if cas and not org.has_ca:
        findings.leftovers.append("there are CAs, and devices need not send SNI")
    if not cas and org.has_ca:
        findings.leftovers.append("there is no CA, and devices must send SNI")


def _server_state(org: Org, servers: dict[str, ServerCertificate], thing: Thing) -> str:
    ids = [thing.id] if thing.id else [id_ for id_, record in servers.items() if record.leaf == thing.leaf]
    for id_ in ids:
        if id_ in org.servers and id_ in servers:
            return "csr" if servers[id_].leaf is None else "certificate"
    return ABSENT


def _denial_state(denials: dict[str, Denials], thing: Thing) -> str:
    if thing.id is None:
        return ABSENT
    return "denied" if any(thing.id in document.entries for document in denials.values()) else ABSENT


def _check_latest(findings: Findings, what: str, now: str, history: list[SharedChange]) -> None:
    """Check that the current value was set by a change that no acknowledged change certainly followed."""
    if not history:
        return
    latest = max(change.began for change in history if change.acknowledged)
    fits = [
        change
        for change in history
        if change.value == now and (change.ended if change.acknowledged else change.ended + _SETTLED) >= latest
    ]
    if not fits:
        findings.lost.append(f"the {what} is {now or 'as at first'}, which an acknowledged change came after")


def _check_activity(
    findings: Findings, repository: Repository, org_id: str, documents: list[RecordWithOutbox], history: History
) -> None:
    """Check that every acknowledged change is in the activity list, or in a document's outbox."""
    listed = set(_list_activity(repository, org_id, documents))
    for what, about in history.entries:
        if (what, about) not in listed:
            findings.lost.append(f"the activity list misses {what} of {about}")


def _check_edges(findings: Findings, repository: Repository, org: Org, history: History) -> None:
    """Check the feeds of the edges: every acknowledged withdrawal, and the certificate that is active now."""
    feed = Feed(repository, "withdrawals", Withdrawal)
    withdrawn, page = set(), feed.since(0)
    while page:
        withdrawn |= {(event.what.kind, event.what.value) for event in page if event.what.org_id == org.org_id}
        page = feed.since(page[-1].number)
    findings.lost += [
        f"the feed of withdrawals misses {entry}" for entry in history.withdrawn if entry not in withdrawn
    ]
    hosts = repository.get(org_hosts_ref(org.org_id))
    if hosts is None or not hosts.is_published or hosts.certificate_id != org.activation.active:
        sure = history.activations and all(change.acknowledged for change in history.activations)
        (findings.lost if sure else findings.leftovers).append("the feed of hosts misses the active certificate")


def _list_activity(repository: Repository, org_id: str, documents: list[RecordWithOutbox]) -> Iterator[tuple[str, str]]:
    pages = (page for _, page in repository.iterate(activity_partition(org_id, ActivityKind.CHANGE), ActivityPage))
    entries = [entry for page in pages for entry in page.entries]
    for entry in [*entries, *(entry for document in documents for entry in document.outbox)]:
        yield entry.what, entry.detail.get("certificate", "")
