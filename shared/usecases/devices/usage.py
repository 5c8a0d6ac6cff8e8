"""Who connected: what sightings add to an org's days, and what the days tell (last use, the dry run's sample)."""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from shared.records import Activity, ActivityKind, CAUse, ConnectionEvent, ConnectionEventBatch, Seen, Usage
from shared.repository import KEEP_USAGE, Repository, activity_id, usage_ref

DAYS: Final = 30
_CLIENTS_MAX: Final = 500  # in a day's sample
_CAS_MAX: Final = 1_000  # in a day: as many as an org has at a time; one that replaces its CAs all day has more
_BATCH_CAS_MAX: Final = 200  # in one batch
_REFUSALS_MAX: Final = 20  # in one page
_LEAF_MAX: Final = 8 * 1024  # bytes of DER kept with a refusal
_LEAVES_MAX: Final = 96 * 1024  # bytes of DER in one batch: a queue's message holds 256 KiB (Amazon SQS)
_BATCHES_MAX: Final = 128  # remembered in a day


def record(repository: Repository, org_id: str, sightings: Sequence[ConnectionEvent]) -> None:
    """Add *sightings*, all of *org_id*, to the org's day and its list of refusals: at most one write for each.

    Raises: StoreUnavailable."""
    if sightings:
        add(repository, org_id, [summed(org_id, sightings)])


def summed(org_id: str, sightings: Sequence[ConnectionEvent]) -> ConnectionEventBatch:
    """*sightings* (at least one, all of *org_id*) as one batch, of at most some 200 KB however many there are."""
    cas: dict[str, CAUse] = {}
    clients: dict[str, Seen] = {}
    for one in sightings:
        if one.ca_id is not None:
            _count(cas, one.ca_id, CAUse(1, one.at), _BATCH_CAS_MAX)
        if one.identity is not None:
            _see(clients, one.identity, Seen(one.tls, one.shown, one.at))
    return ConnectionEventBatch(
        id=secrets.token_hex(6),
        org_id=org_id,
        at=max(one.at for one in sightings),
        cas=cas,
        clients=clients,
        refusals=tuple(_light(_newest(one for one in sightings if one.decision == "deny"))),
    )


def add(repository: Repository, org_id: str, batches: Sequence[ConnectionEventBatch]) -> None:
    """Add *batches*, all of *org_id*: one write for each day they are of, and one for their refusals.

    One that was added before is left out, so what a queue delivers twice counts once. (The last hundred or so are
    remembered. Refusals are written second: a crash in between loses them, which a sample may.)

    Raises: StoreUnavailable."""
    by_day: dict[str, dict[str, ConnectionEventBatch]] = {}
    for batch in batches:
        by_day.setdefault(_day(batch.at), {})[batch.id] = batch
    for day, of_day in by_day.items():
        fresh: list[ConnectionEventBatch] = []

        def alter(before: Usage | None, of_day: Mapping[str, ConnectionEventBatch] = of_day) -> Usage | None:
            nonlocal fresh
            usage = before or Usage()
            fresh = [one for one in of_day.values() if one.id not in usage.batches]
            return _added(usage, fresh) if fresh else before

        newest = max(one.at for one in of_day.values())
        repository.change(usage_ref(org_id, day), alter, expires=newest + KEEP_USAGE)
        refusals = _newest(refusal for one in fresh for refusal in one.refusals)
        repository.append(org_id, ActivityKind.REFUSAL, [_refusal(one) for one in refusals])


def _newest(refusals: Iterable[ConnectionEvent]) -> list[ConnectionEvent]:
    """At most so many, newest first; of what is the same again and again, the latest."""
    latest: dict[tuple[str, str | None, str | None], ConnectionEvent] = {}
    for one in refusals:
        key = (one.code, one.client_id, one.identity)
        if key not in latest or latest[key].at <= one.at:
            latest[key] = one
    return sorted(latest.values(), key=lambda one: one.at, reverse=True)[:_REFUSALS_MAX]


def _light(refusals: Iterable[ConnectionEvent]) -> Iterator[ConnectionEvent]:
    """The same, without leaves that are too long, or come when enough were kept."""
    room = _LEAVES_MAX
    for one in refusals:
        size = len(one.certificate or b"")
        kept = size <= min(room, _LEAF_MAX)
        room -= size if kept else 0
        yield one if kept else msgspec.structs.replace(one, certificate=None)


def _refusal(one: ConnectionEvent) -> Activity:
    return Activity(
        activity_id(one.at),
        one.at,
        ActivityKind.REFUSAL,
        who=one.identity or one.client_id or "unknown",
        what="connection",
        result="refused",
        code=one.code,
        client_id=one.client_id,
        server_name=one.server_name,
        certificate=one.certificate,
        failing=one.failing,
    )


def _added(day: Usage, batches: Sequence[ConnectionEventBatch]) -> Usage:
    cas, clients = dict(day.cas), dict(day.clients)
    for batch in batches:
        for ca_id, use in batch.cas.items():
            _count(cas, ca_id, use, _CAS_MAX)
        for identity, seen in batch.clients.items():
            _see(clients, identity, seen)
    ids = (*day.batches, *(one.id for one in batches))[-_BATCHES_MAX:]
    return Usage(cas, clients, ids)


def _count(cas: dict[str, CAUse], ca_id: str, use: CAUse, at_most: int) -> None:
    before = cas.get(ca_id)
    if before:
        cas[ca_id] = CAUse(before.count + use.count, max(before.last, use.last))
    elif len(cas) < at_most:
        cas[ca_id] = use


def _see(clients: dict[str, Seen], identity: str, seen: Seen) -> None:
    before = clients.get(identity)
    if before.at <= seen.at if before else len(clients) < _CLIENTS_MAX:
        clients[identity] = seen


class RecentUsage(msgspec.Struct, frozen=True):
    """An org's last 30 days."""

    days: Sequence[Usage]

    def of_ca(self, ca_id: str) -> CAUse | None:
        """Connections that this CA vouched for (at least so many: sightings are a sample), and the latest."""
        uses = [day.cas[ca_id] for day in self.days if ca_id in day.cas]
        return CAUse(sum(use.count for use in uses), max(use.last for use in uses)) if uses else None

    def clients(self) -> Mapping[str, Seen]:
        """Identity -> how that client showed itself last."""
        latest: dict[str, Seen] = {}
        for identity, seen in self._every_client():
            if identity not in latest or latest[identity].at < seen.at:
                latest[identity] = seen
        return latest

    def _every_client(self) -> Iterator[tuple[str, Seen]]:
        for day in self.days:
            yield from day.clients.items()


def lately(repository: Repository, org_id: str, at: datetime) -> RecentUsage:
    """The last 30 days of *org_id*, in one read."""
    places = [usage_ref(org_id, _day(at - timedelta(days=back))) for back in range(DAYS)]
    found = repository.read_batch(places)
    return RecentUsage([day for place in places if (day := found.get(place)) is not None])


def _day(at: datetime) -> str:
    return at.strftime("%Y-%m-%d")
