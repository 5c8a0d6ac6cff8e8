"""Who connected: what sightings add to an org's days, and what the days tell (last use, the dry run's sample)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec

from shared.records import Activity, ActivityKind, CAUse, Seen, Sighting, Usage
from shared.repository import KEEP_USAGE, Repository, activity_id, usage_place

DAYS: Final = 30
_CLIENTS_MAX: Final = 500  # in a day's sample
_REFUSALS_MAX: Final = 20  # in one page
_LEAF_MAX: Final = 8 * 1024  # bytes of DER kept with a refusal


def record(repository: Repository, org_id: str, sightings: Sequence[Sighting]) -> None:
    """Add *sightings*, all of *org_id*, to the org's day and its list of refusals: at most one write for each.

    Raises: StoreUnavailable."""
    if not sightings:
        return
    refusals = {(one.code, one.client_id, one.identity): one for one in sightings if one.decision == "deny"}
    newest = sorted(refusals.values(), key=lambda one: one.at)[-_REFUSALS_MAX:]
    repository.append(org_id, ActivityKind.REFUSAL, [_refusal(one) for one in reversed(newest)])
    at = max(one.at for one in sightings)
    repository.change(
        usage_place(org_id, _day(at)), lambda before: _added(before or Usage(), sightings), expires=at + KEEP_USAGE
    )


def _refusal(one: Sighting) -> Activity:
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
        certificate=one.certificate if one.certificate and len(one.certificate) <= _LEAF_MAX else None,
        failing=one.failing,
    )


def _added(day: Usage, sightings: Sequence[Sighting]) -> Usage:
    cas, clients = dict(day.cas), dict(day.clients)
    for one in sightings:
        if one.ca_id is not None:
            before = cas.get(one.ca_id)
            cas[one.ca_id] = CAUse((before.count if before else 0) + 1, max(one.at, before.last) if before else one.at)
        if one.identity is not None and (one.identity in clients or len(clients) < _CLIENTS_MAX):
            clients[one.identity] = Seen(one.tls, one.shown, one.at)
    return msgspec.structs.replace(day, cas=cas, clients=clients)


@dataclass(frozen=True)
class Lately:
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


def lately(repository: Repository, org_id: str, at: datetime) -> Lately:
    """The last 30 days of *org_id*, in one read."""
    places = [usage_place(org_id, _day(at - timedelta(days=back))) for back in range(DAYS)]
    found = repository.find(places)
    return Lately([day for place in places if (day := found.get(place)) is not None])


def _day(at: datetime) -> str:
    return at.strftime("%Y-%m-%d")
