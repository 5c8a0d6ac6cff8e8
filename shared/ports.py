"""What the use cases ask of the outside, in their own words. Adapters implement these; composition chooses them."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from shared.records import ConnectionEvent, Sealed

Version = str
"""Opaque and new at each write: a document deleted and made again never has a version it had before."""


MAX_BODY_BYTES: Final = 384 * 1024
"""A document's body as compact JSON in UTF-8. DynamoDB takes 400 KB with all names and keys, Firestore 1 MiB; one limit
for all stores, because what one holds another must be able to import."""

MAX_KEY_BYTES: Final = 255
"""Of a partition, and of an id, in UTF-8."""


class Key(NamedTuple):
    """Where a document lies. Within a *partition*, documents are ordered by *id* (Unicode code points, which is the
    order of its UTF-8 bytes).

    Both are text of 1 to MAX_KEY_BYTES bytes without control characters; `/`, `.` and `..` mean nothing in them. No
    document is ever found at a key of another form, and to write there is a ValueError."""

    partition: str
    id: str


class Document(NamedTuple):
    """A JSON object, as text, at a version. Every JSON type comes back as it went in, whole numbers of any size too."""

    key: Key
    version: Version
    text: bytes | str

    @property
    def body(self) -> dict[str, Any]:
        """The object; a new one at each call."""
        body: dict[str, Any] = msgspec.json.decode(self.text)
        return body


class WriteConflict(Exception):  # not a refusal: the repository reads again and repeats the change
    """The document is not at the version the writer had read."""


class DocumentStore(Protocol):
    """Documents of JSON, changed one at a time by compare-and-set.

    Each method raises StoreUnavailable where the store does not answer; the write then did not happen, or is safe to
    repeat, because every writer names the version it saw. A write that the adapter repeats because its answer was lost
    is recognized as its own, unless another writer has written over it since: then it is a WriteConflict.
    """

    def get_many(self, keys: Collection[Key]) -> dict[Key, Document]:
        """The documents that exist among *keys*, each as it is after every write answered before.

        In one round trip for up to 100 keys (and 16 MB, on DynamoDB). Each document is whole; together they are no
        snapshot: a write that is under way may show in one and not yet in another."""
        ...

    def put(
        self, key: Key, body: Mapping[str, Any], *, expected: Version | None, expires: datetime | None = None
    ) -> Version:
        """Store *body* if the document is still at *expected* (None: does not exist yet).

        Some time after *expires* (a day or two, in the clouds) the store removes the document by itself; until then it
        is there like any other. Without *expires* it stays, even if it had one before.

        Raises: WriteConflict, DocumentTooLarge, StoreUnavailable."""
        ...

    def delete(self, key: Key, *, expected: Version) -> None:
        """Remove the document if it is still at *expected*. Raises: WriteConflict, StoreUnavailable."""
        ...

    def list(self, partition: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        """At most *limit* documents of *partition* whose ids come after *after*, ordered by id.

        Fewer than *limit* means that the end was reached. Whoever pages on from the last id sees every document that
        was there all the while once; no snapshot: one that is written meanwhile may be missed, also where a later one
        is seen."""
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


class ConnectionEventQueue(Protocol):
    """What is told behind the answer. Losing one is fine, waiting for one is not."""

    def offer(self, sighting: "ConnectionEvent") -> None:
        """Take *sighting*, or drop it where the queue is full. Never raises, never waits."""
        ...

    def flush(self) -> None:
        """Hand on what is held, in the caller's thread."""
        ...

    def close(self) -> None:
        """Hand on what is held, and stop. Safe to call twice."""
        ...


class UploadedObject(msgspec.Struct, frozen=True):
    """What an event says was put into an object store: a claim, until `ObjectReader.find` has looked.

    Args:
        version: the object's version or generation, where the event names it.
        etag: of its content, where the event names it: the next best thing in a bucket without versions.
    """

    bucket: str
    key: str
    version: str | None = None
    etag: str | None = None


class FoundObject(msgspec.Struct, frozen=True):
    """One version of an object, as its store describes it."""

    bucket: str
    key: str
    version: str | None
    etag: str | None
    size: int  # bytes
    stored_at: datetime


class ObjectReader(Protocol):
    """Uploads in an object store. Each method raises StoreUnavailable where the store does not answer."""

    def find(self, uploaded: UploadedObject) -> FoundObject | None:
        """That very version; None where it is gone, or another one has taken its place."""
        ...

    def read(self, found: FoundObject) -> bytes | None:
        """At most `found.size` bytes of that very version; None where it is gone by now."""
        ...

    def remove(self, found: FoundObject) -> None:
        """Delete that very version and no other. Nothing there is fine."""
        ...


class Webhook(Protocol):
    """Tells the platform's operator."""

    def tell(self, message_id: str, body: bytes) -> None:
        """Deliver *body* (JSON); the receiver may see a *message_id* more than once.

        Raises: WebhookFailed."""
        ...


class WebhookFailed(Exception):
    """What was told did not arrive. Says why, without the secret."""


class TokenClaims(msgspec.Struct, frozen=True):
    """What a sign-in token says, once it is believed. Org and role are None where it names not exactly one."""

    subject: str
    org_id: str | None
    role: str | None


class TokenVerifier(Protocol):
    """Tokens of the OIDC issuer that an operator configured."""

    def verify(self, token: str) -> TokenClaims:
        """What *token* says. Raises: TokenRefused, IssuerUnavailable."""
        ...

    def origins(self) -> tuple[str, ...]:
        """Where a page must be allowed to ask, to sign in: origins of the issuer. Never raises."""
        ...


class Notifier(Protocol):
    """Tells the platform's operator what cannot wait."""

    def announce(self, message_id: str, body: bytes) -> None:
        """Take *body* (JSON) for delivery, behind the answer where the process outlives it; the receiver may see a
        *message_id* twice. Never raises."""
        ...

    def close(self) -> None:
        """Deliver what is held, as far as a few seconds allow. Safe to call twice."""
        ...


class NoNotifier:
    """Where nobody is to be told."""

    def announce(self, message_id: str, body: bytes) -> None:
        pass

    def close(self) -> None:
        pass


class Clock(Protocol):
    def __call__(self) -> datetime:
        """Now, aware, in UTC."""
        ...
