"""What the use cases ask of the outside, in their own words. Adapters implement these; composition chooses them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from shared.records import Sealed, Sighting

Version = str
"""Opaque and new at each write: a document deleted and made again never has a version it had before."""


@dataclass(frozen=True, slots=True)
class Key:
    """Where a document lies. Within a *partition*, documents are ordered by *id* (Unicode code points)."""

    partition: str
    id: str


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON object at a version."""

    key: Key
    version: Version
    body: Mapping[str, Any]


class WriteConflict(Exception):  # not a refusal: the repository reads again and repeats the change
    """The document is not at the version the writer had read."""


class DocumentStore(Protocol):
    """Documents of JSON, changed one at a time by compare-and-set.

    Each method raises StoreUnavailable where the store does not answer; the write then did not happen, or is safe to
    repeat, because every writer names the version it saw.
    """

    def get_many(self, keys: Collection[Key]) -> dict[Key, Document]:
        """The documents that exist among *keys*, in one round trip, as they are after every write answered before."""
        ...

    def put(
        self, key: Key, body: Mapping[str, Any], *, expected: Version | None, expires: datetime | None = None
    ) -> Version:
        """Store *body* if the document is still at *expected* (None: does not exist yet); it goes after *expires*.

        Raises: WriteConflict, StoreUnavailable."""
        ...

    def delete(self, key: Key, *, expected: Version) -> None:
        """Remove the document if it is still at *expected*. Raises: WriteConflict, StoreUnavailable."""
        ...

    def list(self, partition: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        """At most *limit* documents of *partition* whose ids come after *after*, ordered by id."""
        ...

    def close(self) -> None:
        """Give back what the adapter holds. Safe to call twice."""
        ...


class KeySealer(Protocol):
    """Envelope encryption of private keys. A sealed key opens only for the org and certificate it was sealed for."""

    def seal(self, secret: bytes, *, org_id: str, certificate_id: str) -> "Sealed":
        """Encrypt *secret* under a fresh data key, bound to *org_id* and *certificate_id*."""
        ...

    def open(self, sealed: "Sealed", *, org_id: str, certificate_id: str) -> bytes:
        """Raises: SealBroken, where it was sealed for another place, was changed, or its master key is not here."""
        ...

    def is_current(self, sealed: "Sealed") -> bool:
        """Whether *sealed* is under the master key that seals new secrets."""
        ...

    def rotate(self) -> str:
        """Make a new master key (or a new version of it), which seals from now on. Returns its name."""
        ...


class SealBroken(Exception):
    """A sealed key does not open. Says nothing of its content."""


class SightingQueue(Protocol):
    """What is told behind the answer. Losing one is fine, waiting for one is not."""

    def offer(self, sighting: "Sighting") -> None:
        """Take *sighting*, or drop it where the queue is full. Never raises, never waits."""
        ...

    def flush(self) -> None:
        """Hand on what is held, in the caller's thread."""
        ...

    def close(self) -> None:
        """Hand on what is held, and stop. Safe to call twice."""
        ...


class Announcer(Protocol):
    """Tells the platform's operator what cannot wait, behind the answer."""

    def announce(self, message_id: str, body: bytes) -> None:
        """Take *body* (JSON) for delivery; the receiver may see a *message_id* twice. Never raises, never waits."""
        ...


class NoAnnouncer:
    """Where nobody is to be told."""

    def announce(self, message_id: str, body: bytes) -> None:
        pass


class Clock(Protocol):
    def __call__(self) -> datetime:
        """Now, aware, in UTC."""
        ...
