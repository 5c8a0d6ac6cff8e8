"""The document of one organization, and the only way to change it."""

from collections.abc import Collection, Iterator
from typing import Any

from shared.errors import NotFound
from shared.records import Org
from shared.refs import Ref, org_ref
from shared.repository import Batch, ExistingAttempt, Repository


class Organization:
    """The document of one organization: settings, policy, activation, and the index of its server certificates."""

    def __init__(self, repository: Repository, org_id: str) -> None:
        self._repository = repository
        self.org_id = org_id
        self.ref: Ref[Org] = org_ref(org_id)

    def find(self) -> Org | None:
        """Return the organization, or None if it does not exist."""
        return self._repository.get(self.ref)

    def get(self) -> Org:
        """Return the organization. Raises: NotFound."""
        org = self.find()
        if org is None:
            raise NotFound(what=f"organization {self.org_id}")
        return org

    def changing(
        self, *, also: Collection[Ref[Any]] = (), first: Batch | None = None, what: str = "such organization"
    ) -> Iterator[ExistingAttempt[Org]]:
        """Change the organization; its activity list takes the entries. See `Repository.changing`.

        Args:
            what: names the organization in the refusal.

        Raises: NotFound, TooBusy, StoreUnavailable, and whatever the block raises."""
        return self._repository.changing_existing(self.ref, what, also=also, first=first, activity_of=self.org_id)

    def create(self, org: Org) -> bool:
        """Create the document. Return False, and change nothing, where the organization exists already."""
        for attempt in self._repository.changing(self.ref, activity_of=self.org_id):
            with attempt as existing:
                if existing is None:
                    attempt.write(org)
        return existing is None

    def delete(self) -> None:
        """Delete the document. A missing document is not an error."""
        self._repository.delete(self.ref)


def iterate_organizations(repository: Repository) -> Iterator[Org]:
    """Yield every organization, ordered by id."""
    return (org for _, org in repository.iterate("org", Org))


def list_organizations(repository: Repository, *, after: str, limit: int) -> list[Org]:
    """Return at most *limit* organizations whose ids come after *after*, ordered by id."""
    return [org for _, org in repository.list("org", Org, after=after, limit=limit)]
