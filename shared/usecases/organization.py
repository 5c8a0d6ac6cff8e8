"""The document of one organization, and the only way to change it.

A deleted organization leaves a tombstone in its place (`Org.deletion`). A tombstone is no organization: only
`OrgDocuments` and `iterate_tombstones` return tombstones.
"""

from collections.abc import Collection, Iterator
from typing import Any, Final

from shared.batch import Batch
from shared.errors import NotFound, OrgGone
from shared.org_repository import OrgRepository
from shared.records import Org
from shared.refs import Ref, org_ref
from shared.repository import Attempt, ExistingAttempt, Repository
from shared.usecases.context import Context
from shared.validation.names import messaging_host
from shared.validation.notices import Notice, devices_must_send_sni

_PAGE: Final = 200


class Organization:
    """The document of one organization: settings, policy, activation, and the index of its server certificates."""

    def __init__(self, repository: OrgRepository) -> None:
        self._repository = repository
        self.org_id = repository.org_id
        self.ref: Ref[Org] = org_ref(self.org_id)

    def find(self) -> Org | None:
        """Return the organization, or None where it was deleted, also if its id was created again."""
        return self._repository.get(self.ref)

    def changing(
        self, *, also: Collection[Ref[Any]] = (), first: Batch | None = None
    ) -> Iterator[ExistingAttempt[Org]]:
        """Change the organization; its activity list takes the entries. See `Repository.changing`.

        Raises: OrgGone, TooBusy, StoreUnavailable, and whatever the block raises."""
        gone = OrgGone(org=self.org_id)
        return self._repository.changing_existing(self.ref, gone, also=also, first=first, activity_of=self.org_id)


def warn_of_sni(context: Context, org: Org) -> Notice:
    """Return the warning that the devices of *org* must send SNI from now on."""
    return devices_must_send_sni(messaging_host(org.org_id, context.platform_domain))


class OrgDocuments:
    """The documents of all organizations, tombstones among them."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def find(self, org_id: str) -> Org | None:
        """Return the organization or the tombstone of an id, or None for an id that was never created."""
        return self._repository.get(org_ref(org_id))

    def changing(self, org_id: str) -> Iterator[Attempt[Org]]:
        """Create or replace the organization or tombstone of an id. See `Repository.changing`.

        The block calls `Attempt.replace`: what waits in the outbox of an organization is not its successor's."""
        return self._repository.changing(org_ref(org_id))

    def list(self, *, after: str, limit: int) -> list[Org]:
        """Return at most *limit* organizations and tombstones whose ids come after *after*, ordered by id."""
        return [org for _, org in self._repository.list("org", Org, after=after, limit=limit)]

    def iterate(self) -> Iterator[Org]:
        """Yield every organization and tombstone, ordered by id."""
        return (org for _, org in self._repository.iterate("org", Org))


def find_organization(repository: Repository, org_id: str) -> Org | None:
    """Return the organization of an id, or None if it does not exist."""
    org = OrgDocuments(repository).find(org_id)
    return org if org is not None and org.deletion is None else None


def get_organization(repository: Repository, org_id: str) -> Org:
    """Return the organization of an id. Raises: NotFound."""
    org = find_organization(repository, org_id)
    if org is None:
        raise NotFound(what=f"organization {org_id}")
    return org


def iterate_organizations(repository: Repository) -> Iterator[Org]:
    """Yield every organization, ordered by id."""
    return (org for org in OrgDocuments(repository).iterate() if org.deletion is None)


def iterate_tombstones(repository: Repository) -> Iterator[Org]:
    """Yield the tombstone of every deleted organization, ordered by id."""
    return (org for org in OrgDocuments(repository).iterate() if org.deletion is not None)
