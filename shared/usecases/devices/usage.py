"""Which clients connected and which brokers called: the daily usage of an organization, counted from events."""

import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from shared.connection_records import (
    CAUse,
    ConnectionEvent,
    ConnectionEventBatch,
    KeyCalls,
    LastConnection,
    QueuedEvent,
    ShownChain,
    ShownKind,
    Usage,
)
from shared.errors import OrgGone
from shared.org_repository import OrgRepository
from shared.records import Activity, ActivityKind
from shared.refs import activity_id, usage_ref
from shared.repository import KEEP_USAGE, Repository
from shared.usecases.devices.calls import add_calls, count_calls
from shared.usecases.devices.refusals import add_refusals
from shared.usecases.devices.shown import ShownCertificates, ShownMemory
from shared.usecases.devices.traffic import add_traffic, count_traffic, merge_traffic
from shared.x509.fingerprints import fingerprint_of

log = logging.getLogger(__name__)

DAYS: Final = 30
_CLIENTS_MAX: Final = 500  # in the sample of a day
_CAS_MAX: Final = 1_000  # in a day: as many as an organization has at a time
_BATCH_CAS_MAX: Final = 200  # in one batch
_REFUSALS_MAX: Final = 20  # in one page
_SENTENCE_MAX: Final = 384  # characters of reason and advice each, in the list of refusals
_TEXT_MAX: Final = 256  # characters of each text of a refusal, which a client chooses
_BATCHES_MAX: Final = 128  # ids of batches remembered in a day


def record_events(
    repository: Repository, org_id: str, events: Sequence[QueuedEvent], memory: ShownMemory | None = None
) -> None:
    """Add *events*, all of *org_id*, to the usage of the day, the refusals, and the certificates that were presented.

    Raises: StoreUnavailable."""
    if events:
        add_batches(repository, org_id, [summarize(org_id, events, memory)])


def summarize(org_id: str, events: Sequence[QueuedEvent], memory: ShownMemory | None = None) -> ConnectionEventBatch:
    """Return *events* (at least one, all of *org_id*) as one batch of bounded size, about 200 KB at most.

    Events of an older incarnation than others are left out: that organization was deleted meanwhile.

    Args:
        memory: what the process sent before: the batch has other chains only.
    """
    incarnation = max(event.incarnation for event in events)
    events = [event for event in events if event.incarnation == incarnation]
    verdicts = [event for event in events if isinstance(event, ConnectionEvent)]
    cas: dict[str, CAUse] = {}
    clients: dict[str, LastConnection] = {}
    for event in verdicts:
        if event.ca_id is not None:
            _add_use(cas, event.ca_id, CAUse(1, event.at), _BATCH_CAS_MAX)
        if event.identity is not None:
            _add_client(clients, event.identity, LastConnection(event.tls, event.presence, event.at))
    denied = [event for event in verdicts if event.decision == "deny"]
    callers, has_more_callers = count_calls(events)
    return ConnectionEventBatch(
        id=secrets.token_hex(6),
        org_id=org_id,
        incarnation=incarnation,
        at=max(event.at for event in events),
        cas=cas,
        clients=clients,
        refusals=tuple(map(_short, _latest_refusals(denied))),
        refused=len(denied),
        traffic=count_traffic(events),
        chains=(memory or ShownMemory()).take_new(org_id, verdicts),
        callers=callers,
        has_more_callers=has_more_callers,
    )


def add_batches(repository: Repository, org_id: str, batches: Sequence[ConnectionEventBatch]) -> None:
    """Add *batches*, all of *org_id*: two writes for each of their days, and those for refusals and certificates.

    A batch that was added before is left out, so that a batch which a queue delivers twice counts once. The latest 128
    batches of a day are remembered. Numbers, refusals and certificates are written afterwards: a crash in between loses
    them, as a sample may.

    Each batch counts for its own incarnation. The batch of a deleted organization whose id was created again is
    dropped.

    Raises: StoreUnavailable."""
    by_incarnation: dict[str, list[ConnectionEventBatch]] = {}
    for batch in batches:
        by_incarnation.setdefault(batch.incarnation, []).append(batch)
    for incarnation, same in by_incarnation.items():
        try:
            _add_batches(OrgRepository(repository, org_id, incarnation), same)
        except OrgGone:
            log.info("connection events of a deleted organization were dropped", extra={"org": org_id})


def _add_batches(repository: OrgRepository, batches: Sequence[ConnectionEventBatch]) -> None:
    """Add *batches*, all of one organization. Raises: OrgGone, StoreUnavailable."""
    org_id = repository.org_id
    by_day: dict[str, dict[str, ConnectionEventBatch]] = {}
    for batch in batches:
        by_day.setdefault(_day_of(batch.at), {})[batch.id] = batch
    for day, batches_of_day in by_day.items():
        expires = max(batch.at for batch in batches_of_day.values()) + KEEP_USAGE
        for attempt in repository.changing(usage_ref(org_id, day), expires=expires):
            with attempt as stored:
                usage = stored or Usage()
                new = [batch for batch in batches_of_day.values() if batch.id not in usage.batches]
                if new:
                    attempt.write(_add(usage, new))
        add_traffic(repository, merge_traffic(batch.traffic for batch in new))
        refusals = _latest_refusals(refusal for batch in new for refusal in batch.refusals)
        count = sum(max(batch.refused, len(batch.refusals)) for batch in new)
        add_refusals(repository, day, [_activity_of(refusal) for refusal in refusals], count=count)
        chains = [shown for batch in new for shown in (*batch.chains, *_chains_of_before(batch))]
        ShownCertificates(repository).add(chains)


def _latest_refusals(refusals: Iterable[ConnectionEvent]) -> list[ConnectionEvent]:
    """Return the newest refusals, newest first; of repetitions (same code, client and identity) the latest only."""
    latest: dict[tuple[str, str | None, str | None], ConnectionEvent] = {}
    for refusal in refusals:
        key = (refusal.code, refusal.client_id, refusal.identity)
        if key not in latest or latest[key].at <= refusal.at:
            latest[key] = refusal
    return sorted(latest.values(), key=lambda refusal: refusal.at, reverse=True)[:_REFUSALS_MAX]


def _short(refusal: ConnectionEvent) -> ConnectionEvent:
    """Return *refusal* without its certificates, which the batch has apart, and with texts of bounded size."""
    failing = {name: text[:_TEXT_MAX] for name, text in refusal.failing.items()} if refusal.failing else None
    client_id = refusal.client_id[:_TEXT_MAX] if refusal.client_id else None
    return msgspec.structs.replace(
        refusal,
        client_id=client_id,
        certificate=None,
        chain=(),
        way=b"",
        failing=failing,
        reason=refusal.reason[:_SENTENCE_MAX],
        mend=refusal.mend[:_SENTENCE_MAX],
    )


def _chains_of_before(batch: ConnectionEventBatch) -> Iterator[ShownChain]:
    """Yield the certificates in the refusals of a *batch* of version 0.1.0, which has no chains of its own."""
    for refusal in batch.refusals:
        if refusal.certificate is not None:
            fingerprint = fingerprint_of(refusal.certificate)
            yield ShownChain(
                fingerprint=fingerprint, kind=ShownKind.STRANGER, at=refusal.at, chain=(refusal.certificate,)
            )


def _activity_of(refusal: ConnectionEvent) -> Activity:
    return Activity(
        activity_id(refusal.at),
        refusal.at,
        ActivityKind.REFUSAL,
        who=refusal.identity or refusal.client_id or "unknown",
        what="connection",
        result="refused",
        code=refusal.code,
        client_id=refusal.client_id,
        server_name=refusal.server_name,
        fingerprint=refusal.fingerprint or (fingerprint_of(refusal.certificate) if refusal.certificate else None),
        failing=refusal.failing,
        step=refusal.step,
        reason=refusal.reason,
        mend=refusal.mend,
        asked_by=refusal.key,
        dialect=refusal.dialect,
        passed=refusal.form,
    )


def _add(usage: Usage, batches: Sequence[ConnectionEventBatch]) -> Usage:
    cas, clients, callers = dict(usage.cas), dict(usage.clients), dict(usage.callers)
    has_more_callers = usage.has_more_callers
    for batch in batches:
        for ca_id, use in batch.cas.items():
            _add_use(cas, ca_id, use, _CAS_MAX)
        for identity, connection in batch.clients.items():
            _add_client(clients, identity, connection)
        has_more_callers |= add_calls(callers, batch.callers) or batch.has_more_callers
    ids = (*usage.batches, *(batch.id for batch in batches))[-_BATCHES_MAX:]
    return Usage(cas, clients, ids, callers, has_more_callers)


def _add_use(cas: dict[str, CAUse], ca_id: str, use: CAUse, limit: int) -> None:
    before = cas.get(ca_id)
    if before:
        cas[ca_id] = CAUse(before.count + use.count, max(before.last, use.last))
    elif len(cas) < limit:
        cas[ca_id] = use


def _add_client(clients: dict[str, LastConnection], identity: str, connection: LastConnection) -> None:
    before = clients.get(identity)
    if before.at <= connection.at if before else len(clients) < _CLIENTS_MAX:
        clients[identity] = connection


class RecentUsage(msgspec.Struct, frozen=True):
    """The last 30 days of an organization."""

    days: Sequence[Usage]

    def of_ca(self, ca_id: str) -> CAUse | None:
        """Return how many connections rested on this CA, and when the latest did.

        Connection events are a sample, so the count is a lower bound."""
        uses = [day.cas[ca_id] for day in self.days if ca_id in day.cas]
        return CAUse(sum(use.count for use in uses), max(use.last for use in uses)) if uses else None

    def by_ca(self) -> Mapping[str, CAUse]:
        """Return the same of each CA that was used, by id."""
        uses = {ca_id: self.of_ca(ca_id) for day in self.days for ca_id in day.cas}
        return {ca_id: use for ca_id, use in uses.items() if use}

    def clients(self) -> Mapping[str, LastConnection]:
        """Return the latest connection of each identity."""
        latest: dict[str, LastConnection] = {}
        for day in self.days:
            for identity, connection in day.clients.items():
                if identity not in latest or latest[identity].at < connection.at:
                    latest[identity] = connection
        return latest


class RecentCalls(msgspec.Struct, frozen=True):
    """The calls with the API keys of some days.

    Args:
        by_key: the calls with each key.
        is_complete: False: on one of the days more keys called than a day counts (`KEYS_MAX`).
    """

    by_key: dict[str, KeyCalls]
    is_complete: bool


def read_calls(repository: Repository, org_id: str, at: datetime, days: int) -> RecentCalls:
    """Return the calls with each key of *org_id* within the last *days*, in one read.

    Args:
        org_id: an organization, or PLATFORM for the refused calls of platform keys.

    Raises: StoreUnavailable.
    """
    refs = [usage_ref(org_id, _day_of(at - timedelta(days=back))) for back in range(days)]
    batch = repository.read_batch(refs)
    by_day = [usage for ref in refs if (usage := batch.get(ref)) is not None]
    by_key: dict[str, KeyCalls] = {}
    for usage in by_day:
        add_calls(by_key, usage.callers, keys_max=None)
    return RecentCalls(by_key, not any(usage.has_more_callers for usage in by_day))


def read_recent_usage(repository: OrgRepository, at: datetime) -> RecentUsage:
    """Return the last 30 days of an organization, in one read."""
    refs = [usage_ref(repository.org_id, _day_of(at - timedelta(days=back))) for back in range(DAYS)]
    batch = repository.read_batch(refs)
    return RecentUsage([usage for ref in refs if (usage := batch.get(ref)) is not None])


def _day_of(at: datetime) -> str:
    return at.strftime("%Y-%m-%d")
