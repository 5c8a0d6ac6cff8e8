"""What connections leave in the store is bounded, whatever strangers send."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from shared.connection_records import (
    ConnectionEvent,
    ConnectionEventBatch,
    RefusalPages,
    ShownChain,
    ShownIndex,
    ShownKind,
    ShownLine,
)
from shared.org_repository import OrgRepository
from shared.records import Activity, ActivityKind, ActivityPage
from shared.refs import activity_partition, refusal_pages_ref, seen_partitions, shown_index_ref
from shared.usecases.context import make_entry
from shared.usecases.devices import refusals
from shared.usecases.devices.shown import (
    BATCH_MAX,
    CERTIFICATES_MAX,
    CHAIN_MAX,
    CHANGES_MAX,
    KIND_MAX,
    ShownCertificates,
    ShownMemory,
    add_lines,
)
from shared.usecases.devices.usage import add_batches, record_events, summarize
from shared.usecases.orgs.deletion import partitions_of
from shared.validation.policy import Presence
from tests.support import certs
from tests.support.certs import DAY, NOON
from tests.support.harness import Client, Service

ORG = "mtxpd0"
CAS = "/authentication/cacertificates"


@pytest.fixture
def repository(service: Service) -> OrgRepository:
    return OrgRepository(service.app.context.repository, ORG, "")


def event(number: int, **more: Any) -> ConnectionEvent:
    """Return the refusal of a stranger with a certificate of its own."""
    defaults: dict[str, Any] = {
        "org_id": ORG,
        "at": NOON + timedelta(milliseconds=number),
        "decision": "deny",
        "code": "untrusted_issuer",
        "tls": True,
        "presence": Presence.INVALID,
        "client_id": f"d:{ORG}:thermo:{number}",
        "fingerprint": f"{number:064x}",
        "chain": (number.to_bytes(4) * 2048,),
        "failing": {"subject": "x" * 5000, "fingerprintSha256": f"{number:064x}"},
    }
    return ConnectionEvent(**{**defaults, **more})


def stored(repository: OrgRepository) -> tuple[int, int]:
    """Return how many documents connections left, and their bytes."""
    partitions = [*seen_partitions(ORG), activity_partition(ORG, ActivityKind.REFUSAL)]
    bodies = [msgspec.json.encode(line["body"]) for line in repository.export_documents([], partitions)]
    return len(bodies), sum(map(len, bodies))


@pytest.mark.slow
@pytest.mark.stores("sqlite")
def test_a_day_of_refusals_is_bounded(repository: OrgRepository) -> None:
    """10,000 strangers with certificates of 8 KiB each leave the newest 2,000 refusals and 100 certificates."""
    memory = ShownMemory()
    for first in range(0, 10_000, 25):
        record_events(repository, ORG, [event(number) for number in range(first, first + 25)], memory)
    documents, size = stored(repository)
    entries = sum(len(page.entries) for _, page in repository.iterate(f"activity/{ORG}/refusal", ActivityPage))
    certificates = [shown for _, shown in repository.iterate(f"shown/{ORG}", ShownChain)]
    assert entries == refusals.ENTRIES_MAX
    assert len(certificates) == KIND_MAX[ShownKind.STRANGER]
    assert {shown.kind for shown in certificates} == {ShownKind.STRANGER}
    others = 4  # the usage, its numbers, the ring of refusals and the ring of certificates
    assert documents <= entries // 20 + len(certificates) + others
    assert size < 4 * 1024 * 1024
    ring = repository.get(refusal_pages_ref(ORG, "2026-06-01"))
    assert ring is not None
    assert ring.count == 10_000


def test_the_newest_refusals_stay(repository: OrgRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where each page has a single entry. A new day has a ring of its own."""
    monkeypatch.setattr(refusals, "PAGES_MAX", 5)
    for number in range(12):
        record_events(repository, ORG, [event(number)])
    record_events(repository, ORG, [event(99, at=NOON + DAY)])
    names = [
        entry.client_id
        for _, page in repository.iterate(f"activity/{ORG}/refusal", ActivityPage)
        for entry in page.entries
    ]
    assert names == [f"d:{ORG}:thermo:{number}" for number in (99, 11, 10, 9, 8, 7)]


def test_a_crash_leaves_no_page_that_the_ring_does_not_know(
    service: Service, repository: OrgRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ring is written before the page. What the ring names and is missing does no harm."""
    monkeypatch.setattr(refusals, "PAGES_MAX", 2)

    def entry(number: int) -> Activity:
        return make_entry(NOON + timedelta(seconds=number), "x", "connection", kind=ActivityKind.REFUSAL)

    class Killed(Exception):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(repository, "append", die)
        with pytest.raises(Killed):
            refusals.add_refusals(repository, "2026-06-01", [entry(0)], count=1)
    for number in range(1, 5):
        refusals.add_refusals(repository, "2026-06-01", [entry(number)], count=1)
    pages = [name for name, _ in repository.iterate(f"activity/{ORG}/refusal", ActivityPage)]
    ring = repository.get(refusal_pages_ref(ORG, "2026-06-01"))
    assert ring == RefusalPages(dict.fromkeys(reversed(pages), 1), 5)


# ------------------------------------------------------------------------------------------------ the certificates


def line(kind: ShownKind, seconds: int, group: str = "") -> ShownLine:
    return ShownLine(kind, NOON + timedelta(seconds=seconds), group)


def shown(name: str, kind: ShownKind, seconds: int = 10_000, group: str = "", host: str = "own") -> ShownChain:
    at = NOON + timedelta(seconds=seconds)
    return ShownChain(fingerprint=name, kind=kind, group=group, at=at, chain=(b"der",), server_name=host)


def test_strangers_replace_strangers_only() -> None:
    """An organization's own devices keep their places."""
    own = {f"own{number}": line(ShownKind.ALLOWED, number, "ca/d:thermo") for number in range(400)}
    strangers = {f"stranger{number}": line(ShownKind.STRANGER, number) for number in range(100)}
    ring, new, dropped = add_lines({**own, **strangers}, [shown(f"new{n}", ShownKind.STRANGER) for n in range(6)])
    assert len(ring) == CERTIFICATES_MAX
    assert dropped == [f"stranger{number}" for number in range(6)]
    assert [each.fingerprint for each in new] == [f"new{n}" for n in range(6)]
    assert own.keys() <= ring.keys()


def test_allowed_devices_are_spread_over_cas_and_types() -> None:
    """A large group gives way to a new device of a small one."""
    large = {f"large{number}": line(ShownKind.ALLOWED, 1000 + number, "ca1/d:thermo") for number in range(390)}
    small = {f"small{number}": line(ShownKind.ALLOWED, number, "ca2/d:pump") for number in range(10)}
    ring, _, dropped = add_lines({**large, **small}, [shown("new", ShownKind.ALLOWED, group="ca3/d:valve")])
    assert dropped == ["large0"]
    assert len(ring) == KIND_MAX[ShownKind.ALLOWED]


def test_a_refused_device_of_the_organization_always_finds_a_place() -> None:
    full = {f"own{number}": line(ShownKind.ALLOWED, 1000 + number, "ca/d:thermo") for number in range(400)}
    full |= {f"stranger{number}": line(ShownKind.STRANGER, number) for number in range(100)}
    ring, _, dropped = add_lines(full, [shown("denied", ShownKind.REFUSED)])
    assert "denied" in ring
    assert dropped == ["stranger0"]


def test_a_certificate_is_renewed_once_a_day() -> None:
    lines, _, _ = add_lines({}, [shown("leaf", ShownKind.ALLOWED, 0, "ca/d:thermo")])
    again = shown("leaf", ShownKind.ALLOWED, 60, "ca/d:thermo")
    next_day = shown("leaf", ShownKind.ALLOWED, 86_400, "ca/d:thermo")
    assert add_lines(lines, [again]) == (lines, [], [])
    ring, new, dropped = add_lines(lines, [next_day])
    assert (ring["leaf"].at, new, dropped) == (next_day.at, [next_day], [])


def test_a_certificate_whose_client_connects_in_another_way_is_renewed_at_once() -> None:
    lines, _, _ = add_lines({}, [shown("leaf", ShownKind.ALLOWED, 0)])
    later, early = (shown("leaf", ShownKind.ALLOWED, seconds, host="other") for seconds in (60, -60))
    assert add_lines(lines, [later])[1] == [later]
    assert add_lines(lines, [early])[1] == []  # a queue delivers late


def test_a_client_that_alternates_is_stored_a_bounded_number_of_times_a_day() -> None:
    """Whatever alternates: the server name, or the outcome. A process sends no more, and the store writes no more."""
    kinds = (ShownKind.ALLOWED, ShownKind.REFUSED, ShownKind.STRANGER)
    memory = ShownMemory()
    lines: Mapping[str, ShownLine] = {}
    for day in range(2):
        sent = written = 0
        for number in range(300):
            at = NOON + DAY * day + timedelta(seconds=number)
            kind = kinds[number % 3]
            changing = event(
                1,
                at=at,
                server_name=f"host-{number}",
                decision="allow" if kind is ShownKind.ALLOWED else "deny",
                reached_ca=kind is not ShownKind.STRANGER,
            )
            chains = memory.take_new(ORG, [changing])
            sent += len(chains)
            lines, new, _ = add_lines(lines, [shown("leaf", kind, number + 86_400 * day, host=f"host-{number}")])
            written += len(new)
        assert CHANGES_MAX <= sent <= CHANGES_MAX + 2
        assert CHANGES_MAX <= written <= CHANGES_MAX + 2


def test_a_certificate_that_reached_a_ca_does_not_become_a_strangers() -> None:
    """What its client sends is kept up to date. The time is not, so the certificate leaves after 35 days."""
    lines, _, _ = add_lines({}, [shown("leaf", ShownKind.REFUSED, 0)])
    assert add_lines(lines, [shown("leaf", ShownKind.STRANGER, 86_400)]) == (lines, [], [])
    ring, [kept], _ = add_lines(lines, [shown("leaf", ShownKind.STRANGER, 86_400, host="other")])
    assert (ring["leaf"].kind, ring["leaf"].at) == (ShownKind.REFUSED, NOON)
    assert (kept.kind, kept.at, kept.server_name) == (ShownKind.REFUSED, NOON, "other")
    ring, new, _ = add_lines({"leaf": line(ShownKind.STRANGER, 0)}, [shown("leaf", ShownKind.REFUSED, 1)])
    assert ring["leaf"].kind is ShownKind.REFUSED
    assert len(new) == 1


def test_a_certificate_that_reaches_no_ca_any_more_is_kept_up_to_date_on_later_days() -> None:
    """The changes of a day count for that day alone, although the certificate keeps its time."""
    lines: Mapping[str, ShownLine] = {}
    for number in range(CHANGES_MAX + 5):
        lines, _, _ = add_lines(lines, [shown("leaf", ShownKind.ALLOWED, number, host=f"host-{number}")])
    for day in (2, 3):
        stored = 0
        for number in range(CHANGES_MAX + 5):
            changed = shown("leaf", ShownKind.STRANGER, 86_400 * day + number, host=f"host-{day}-{number}")
            lines, new, _ = add_lines(lines, [changed])
            stored += len(new)
        assert CHANGES_MAX <= stored <= CHANGES_MAX + 1
        assert (lines["leaf"].kind, lines["leaf"].at.date()) == (ShownKind.ALLOWED, NOON.date())


@pytest.mark.parametrize("late", [ShownKind.STRANGER, ShownKind.ALLOWED, ShownKind.REFUSED])
@pytest.mark.parametrize("first", [ShownKind.STRANGER, ShownKind.ALLOWED])
def test_a_message_that_arrives_late_replaces_no_later_connection(first: ShownKind, late: ShownKind) -> None:
    lines, _, _ = add_lines({}, [shown("leaf", first, 0, host="a")])
    lines, [last], _ = add_lines(lines, [shown("leaf", ShownKind.STRANGER, 100, host="last")])
    assert last.server_name == "last"
    assert add_lines(lines, [shown("leaf", late, 50, host="earlier")]) == (lines, [], [])


def test_a_certificate_that_reaches_no_ca_any_more_is_sent_once_a_day() -> None:
    """The index may have lost the certificate, which then is a stranger's."""
    memory = ShownMemory()
    sent = [
        len(memory.take_new(ORG, [event(1, at=NOON + DAY * day, decision=decision)]))
        for day, decision in ((0, "allow"), (0, "deny"), (1, "deny"), (1, "deny"), (2, "deny"), (2, "deny"))
    ]
    assert sent == [1, 0, 1, 0, 1, 0]


def test_of_the_connections_of_a_batch_the_last_counts() -> None:
    """The certificate keeps what an earlier connection of the batch proved: its path reached a CA."""
    allowed = event(1, decision="allow", ca_id="ca", identity="d:thermo:1", chain=(b"leaf", b"intermediate"))
    strange, other = event(1, chain=(b"leaf",)), event(1, chain=(b"leaf", b"other"))
    for events, kind, chain in (
        ([allowed, strange], ShownKind.ALLOWED, strange.chain),
        ([strange, allowed], ShownKind.ALLOWED, allowed.chain),
        ([allowed, strange, other], ShownKind.ALLOWED, other.chain),
        ([strange, other], ShownKind.STRANGER, other.chain),
    ):
        [sent] = ShownMemory().take_new(ORG, events)
        assert (sent.kind, sent.chain) == (kind, chain)
        assert sent.group == ("ca/d:thermo" if kind is ShownKind.ALLOWED else "")


def test_lines_of_expired_certificates_are_left_out() -> None:
    lines = {"old": line(ShownKind.ALLOWED, 0)}
    ring, _, _ = add_lines(lines, [shown("new", ShownKind.ALLOWED, 86_400 * 36)])
    assert set(ring) == {"new"}


def test_a_batch_has_six_new_chains_of_bounded_size() -> None:
    """Devices of the organization come first. What was sent today is not sent again."""
    memory = ShownMemory()
    events = [event(number) for number in range(20)]
    events += [event(100, reached_ca=True), event(101, chain=(b"x" * (CHAIN_MAX + 1),), reached_ca=True)]
    events += [event(102, decision="allow", ca_id="ca", identity="d:thermo:1", chain=(b"leaf", b"x" * CHAIN_MAX))]
    batch = summarize(ORG, events, memory)
    assert len(batch.chains) == BATCH_MAX
    assert [each.kind for each in batch.chains[:2]] == [ShownKind.REFUSED, ShownKind.ALLOWED]
    assert batch.chains[1].chain == (b"leaf",)
    assert batch.chains[1].group == "ca/d:thermo"
    assert all(sum(map(len, each.chain)) <= CHAIN_MAX for each in batch.chains)
    sent = {each.fingerprint for each in batch.chains}
    assert sent.isdisjoint(each.fingerprint for each in summarize(ORG, events, memory).chains)


def test_a_batch_of_version_0_1_0_is_recorded_with_its_certificates(service: Service, viewer: Client) -> None:
    """Functions of the version before may still fill the queue."""
    leaf = certs.leaf("d:thermo:1", certs.ca("Stranger"))
    refusal = event(1, fingerprint=None, chain=(), certificate=leaf.der, at=NOON)
    batch = ConnectionEventBatch(id="1", org_id=ORG, at=NOON, refusals=(refusal,))
    add_batches(service.app.context.repository, ORG, [batch])
    [entry] = viewer.get("/activity?kind=refusal").ok()["results"]
    assert (entry["certificate"], entry["fingerprintSha256"]) == (leaf.pem, leaf.fingerprint)


def test_a_refusal_of_version_0_1_0_still_has_its_certificate(service: Service, viewer: Client) -> None:
    leaf = certs.leaf("d:thermo:1", certs.ca("Stranger"))
    entry = make_entry(NOON, "d:thermo:1", "connection", kind=ActivityKind.REFUSAL)
    old = msgspec.structs.replace(entry, certificate=leaf.der)
    service.app.context.repository.append(ORG, ActivityKind.REFUSAL, [old])
    [listed] = viewer.get("/activity?kind=refusal").ok()["results"]
    assert listed["certificate"] == leaf.pem


def test_a_refusal_names_a_certificate_that_is_stored_once(
    service: Service, operator: Client, viewer: Client, broker: Client
) -> None:
    """A denied device connects again and again: each refusal names the certificate, which the store has once."""
    root = certs.ca("Root")
    operator.post(CAS, {"certificate": root.pem}).ok(201)
    leaf = certs.leaf("d:thermo:1", root)
    operator.post("/authorization/denylist", {"kind": "identity", "value": "d:thermo:1"}).ok(201)
    question = {"serverName": service.host(), "clientId": f"d:{ORG}:thermo:1", "certificate": leaf.pem}
    for _ in range(3):
        assert broker.post("/verifyClient", question).ok()["decision"] == "deny"
        service.flush()
    entries = viewer.get("/activity?kind=refusal").ok()["results"]
    assert {entry["fingerprintSha256"] for entry in entries} == {leaf.fingerprint}
    assert {entry["certificate"] for entry in entries} == {leaf.pem}
    [(name, chain)] = service.app.context.repository.iterate(f"shown/{ORG}", ShownChain)
    assert (name, chain.kind, chain.chain) == (leaf.fingerprint, ShownKind.REFUSED, (leaf.der,))


def test_the_kinds_of_presented_certificates(service: Service, operator: Client, broker: Client) -> None:
    """A stranger's path reached no CA of the organization, whatever issuer the certificate names."""
    root, forged = certs.ca("Root"), certs.ca("Root", private=certs.key("P-256", 4711))
    inactive = certs.ca("Inactive")
    operator.post(CAS, {"certificate": root.pem}).ok(201)
    ca = operator.post(CAS, {"certificate": inactive.pem}).ok(201)["id"]
    operator.put(f"{CAS}/{ca}", {"status": "inactive"}).ok()
    leaves = {
        ShownKind.ALLOWED: certs.leaf("d:thermo:1", root),
        ShownKind.REFUSED: certs.leaf("d:thermo:1", root, not_after=NOON - DAY),
        ShownKind.STRANGER: certs.leaf("d:thermo:1", forged),
        "inactive": certs.leaf("d:thermo:1", inactive),
    }
    for leaf in leaves.values():
        question = {"serverName": service.host(), "clientId": f"d:{ORG}:thermo:1", "certificate": leaf.pem}
        broker.post("/verifyClient", question).ok()
    service.flush()
    kinds = {name: chain.kind for name, chain in service.app.context.repository.iterate(f"shown/{ORG}", ShownChain)}
    expected = {leaf.fingerprint: kind for kind, leaf in leaves.items()} | {
        leaves["inactive"].fingerprint: ShownKind.REFUSED
    }
    assert kinds == expected


def test_the_index_holds_what_is_stored(repository: OrgRepository) -> None:
    owner = ShownCertificates(repository)
    owner.add([shown(f"{number:064x}", ShownKind.STRANGER, number) for number in range(150)])
    index = repository.get(shown_index_ref(ORG))
    assert isinstance(index, ShownIndex)
    assert set(index.lines) == {name for name, _ in repository.iterate(f"shown/{ORG}", ShownChain)}
    assert len(index.lines) == KIND_MAX[ShownKind.STRANGER]


def test_a_deletion_empties_these_partitions() -> None:
    assert set(seen_partitions(ORG)) <= set(partitions_of(ORG))
