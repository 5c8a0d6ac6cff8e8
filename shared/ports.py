"""Interfaces to stores, key services, queues and other outside systems.

Use cases depend on these protocols. The adapters in `shared.adapters` implement them, and `shared.composition` chooses
the adapters.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from shared.connection_records import QueuedEvent
    from shared.records import Sealed
    from shared.validation.server_cert import CertificateWithKey
    from shared.x509.private_keys import PrivateKey

Version = str
"""A document's version: opaque, and new at each write. A document that is deleted and created again never has a version
that it had before."""

MAX_BODY_BYTES: Final = 384 * 1024
"""The largest body, as compact JSON in UTF-8. DynamoDB allows 400 KB including names and keys, Firestore 1 MiB. All
stores have the same limit, because each must be able to import the documents of another."""

MAX_KEY_BYTES: Final = 255
"""The largest partition and the largest id, in UTF-8."""


class Key(NamedTuple):
    """A document's key. The documents of a *partition* are ordered by *id*.

    The order is that of Unicode code points, which is also the order of UTF-8 bytes.

    Partition and id are text of 1 to MAX_KEY_BYTES bytes without control characters. The characters `/`, `.` and `..`
    have no special meaning. A read with any other key finds no document, and a write with any other key raises
    ValueError.
    """

    partition: str
    id: str


class Document(NamedTuple):
    """A version of a document. The text is a JSON object; all JSON values, also large integers, are kept unchanged."""

    key: Key
    version: Version
    text: bytes | str

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object, decoded again at each access."""
        body: dict[str, Any] = msgspec.json.decode(self.text)
        return body


class WriteConflict(Exception):  # not a TrustError: the repository reads the document again and repeats the change
    """The document is not at the version that the writer read."""


class DocumentStore(Protocol):
    """A store of JSON documents, each changed by compare-and-set.

    Each method raises StoreUnavailable if the store does not answer. A write then did not happen, or may be repeated,
    because every writer names the version that it read. An adapter may repeat a write whose response was lost. It
    recognizes its own earlier write, unless another writer has replaced it since; then it raises WriteConflict.
    """

    def get_many(self, keys: Collection[Key]) -> dict[Key, Document]:
        """Return the documents that exist among *keys*, including all writes that completed before.

        Up to 100 keys (on DynamoDB also up to 16 MB) take one round trip. Each document is consistent. The documents
        together are not a snapshot: a concurrent change may be visible in one document and not yet in another.
        """
        ...

    def put(
        self, key: Key, body: Mapping[str, Any], *, expected: Version | None, expires: datetime | None = None
    ) -> Version:
        """Store *body* if the document is at version *expected*, and return the new version.

        Args:
            key: the document's key.
            body: a JSON object, which replaces the whole body.
            expected: the version that the writer read; None if the document must not exist.
            expires: the time after which the store may delete the document. The clouds delete it within a day or two.
                Until then, the document is readable. None removes an earlier expiry.

        Raises: WriteConflict, DocumentTooLarge, StoreUnavailable.
        """
        ...

    def delete(self, key: Key, *, expected: Version) -> None:
        """Delete the document if it is at version *expected*.

        Raises: WriteConflict, StoreUnavailable.
        """
        ...

    def list(self, partition: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        """Return at most *limit* documents of *partition*, ordered by id, with ids greater than *after*.

        Fewer than *limit* documents mean the end of the partition. A reader that continues after the last id sees each
        document that exists during the whole time exactly once. Pages are not a snapshot: a document that is written
        meanwhile may be missing, even if a later document is visible.
        """
        ...

    def close(self) -> None:
        """Release connections and files. May be called twice."""
        ...


@runtime_checkable
class ImmediateReads(Protocol):
    """A store in this process that can read without waiting for a lock, for the event loop.

    A slow disk delays such a read all the same.
    """

    def try_get_many(self, keys: Collection[Key]) -> dict[Key, Document] | None:
        """Return what `DocumentStore.get_many` returns, or None where that would wait for another user of the store.

        One thread calls this method.

        Raises: StoreUnavailable.
        """
        ...


class KeySealer(Protocol):
    """Envelope encryption of private keys. A sealed key opens only for its own organization and certificate."""

    def seal(self, secret: bytes, *, org_id: str, certificate_id: str) -> "Sealed":
        """Encrypt *secret* under a new data key, bound to *org_id* and *certificate_id*.

        Raises: KeysUnavailable.
        """
        ...

    def open(self, sealed: "Sealed", *, org_id: str, certificate_id: str) -> bytes:
        """Decrypt *sealed*.

        Raises: SealBroken, if it was sealed for another location, was changed, or its master key does not exist here;
        KeysUnavailable.
        """
        ...

    def is_current(self, sealed: "Sealed") -> bool:
        """Return whether *sealed* is under the current master key, which seals new secrets.

        Raises: KeysUnavailable.
        """
        ...

    def rotate(self) -> str:
        """Create a new master key, or a new version of it, and return its name. It seals all later secrets.

        Raises: RotationRefused, KeysUnavailable.
        """
        ...


class SealBroken(Exception):
    """A sealed key cannot be opened. The message contains nothing of the key."""


class ConnectionEventQueue(Protocol):
    """A queue of connection events, delivered asynchronously and best effort."""

    def offer(self, event: "QueuedEvent") -> None:
        """Add *event*, or drop it if the queue is full. Never raises, never waits."""
        ...

    def flush(self) -> None:
        """Deliver all events of the queue in the caller's thread."""
        ...

    def close(self) -> None:
        """Deliver all events of the queue and stop. May be called twice."""
        ...


class NoEvents:
    """A queue that drops every event, for a process that answers no calls."""

    def offer(self, event: "QueuedEvent") -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class UploadedObject(msgspec.Struct, frozen=True):
    """An object as named by an event of an object store. The event is not verified, see `ObjectReader.find`.

    Args:
        bucket: the bucket's name.
        key: the object's name.
        version: the object's version or generation, if the event names it.
        etag: the ETag of the content, if the event names it; selects the content in a bucket without versioning.
    """

    bucket: str
    key: str
    version: str | None = None
    etag: str | None = None


class FoundObject(msgspec.Struct, frozen=True):
    """One version of an object, as described by the object store.

    Args:
        bucket: the bucket's name.
        key: the object's name.
        version: the version or generation; None in a bucket without versioning.
        etag: the ETag of the content.
        size: bytes.
        stored_at: the time of the upload.
    """

    bucket: str
    key: str
    version: str | None
    etag: str | None
    size: int
    stored_at: datetime


class ObjectReader(Protocol):
    """Uploads in an object store. Each method raises StoreUnavailable if the store does not answer."""

    def find(self, uploaded: UploadedObject) -> FoundObject | None:
        """Return the uploaded version, or None if it was deleted or replaced."""
        ...

    def read(self, stored: FoundObject) -> bytes | None:
        """Return at most `stored.size` bytes of that version, or None if it does not exist any more."""
        ...

    def remove(self, stored: FoundObject) -> None:
        """Delete that version and no other. A missing version is not an error."""
        ...


class KeyWorker(Protocol):
    """The work with private keys that takes long: opening uploaded ones, and making new ones.

    The rules are `shared.validation.server_cert.read_server_certificate` and `shared.validation.csr.make_key`. An
    adapter decides where they run.
    """

    def read(self, files: "ServerFiles", *, org_id: str) -> "CertificateWithKey":
        """Return the certificate, chain and key in the files of an upload by an organization.

        Raises: Rejected (see the rule), KeyWorkUnavailable.
        """
        ...

    def make(self, algorithm: str, *, org_id: str) -> "PrivateKey":
        """Return a new private key of one of `shared.validation.csr.KEY_ALGORITHMS` for an organization.

        Raises: WrongValue, KeyWorkUnavailable.
        """
        ...


class ServerFiles(msgspec.Struct, frozen=True):
    """The files of an upload of a server certificate, and its time, as `read_server_certificate` takes them."""

    certificate: bytes
    chain: bytes | None = None
    private_key: bytes | None = None
    passphrase: str | None = None
    at: datetime | None = None

    def __repr__(self) -> str:
        """Leave out every field: two of them are secret."""
        return "ServerFiles(…)"


class InlineKeyWorker:
    """Key work in the calling thread, for a process that answers one request at a time.

    cryptography holds Python's lock while OpenSSL derives a key, for a second and more, and while it checks an RSA key,
    so every other thread of the process waits.
    """

    def read(self, files: ServerFiles, *, org_id: str) -> "CertificateWithKey":
        """Return the certificate, chain and key in *files*. Raises: Rejected."""
        from shared.validation.server_cert import read_server_certificate  # not at the top: verdicts do not need it

        return read_server_certificate(
            files.certificate,
            chain=files.chain,
            private_key=files.private_key,
            passphrase=files.passphrase,
            at=files.at,
        )

    def make(self, algorithm: str, *, org_id: str) -> "PrivateKey":
        """Return a new private key. Raises: WrongValue."""
        from shared.validation.csr import make_key

        return make_key(algorithm)


class Webhook(Protocol):
    """The webhook of the platform's operator."""

    def send(self, message_id: str, body: bytes) -> None:
        """Deliver *body* (JSON). The receiver must tolerate duplicates, which have the same *message_id*.

        Raises: WebhookFailed.
        """
        ...


class WebhookFailed(Exception):
    """A message was not delivered. The exception's text gives the reason, without the secret."""


class TokenClaims(msgspec.Struct, frozen=True):
    """The claims of a verified token. A claim with no value or several values is None.

    Args:
        subject: the `sub` claim, printable, at most 128 characters.
        org_id: the orgId.
        role: the role's name.
        issued_at: the time of the `iat` claim.
    """

    subject: str
    org_id: str | None
    role: str | None
    issued_at: datetime | None = None


class TokenVerifier(Protocol):
    """A verifier for tokens of the operator's OpenID Connect issuer."""

    def verify(self, token: str) -> TokenClaims:
        """Verify *token* and return its claims.

        Raises: TokenRefused, IssuerUnavailable.
        """
        ...

    def claimed_org(self, token: str) -> str | None:
        """Return the orgId that *token* claims, not verified, from the token alone. Never raises."""
        ...

    def origins(self) -> tuple[str, ...]:
        """Return the origins that a page connects to during the sign-in. Never raises."""
        ...


class Notifier(Protocol):
    """Urgent messages to the platform's operator."""

    def notify(self, message_id: str, body: bytes) -> None:
        """Accept *body* (JSON) for delivery. The receiver must tolerate duplicates, which have the same *message_id*.

        Delivery is asynchronous where the process continues after its response. Never raises.
        """
        ...

    def close(self) -> None:
        """Deliver waiting messages within a few seconds. May be called twice."""
        ...


class NoNotifier:
    """A notifier for a platform without a webhook."""

    def notify(self, message_id: str, body: bytes) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Background(Protocol):
    """Work that delays no answer."""

    def run(self, work: Callable[[], None]) -> None:
        """Accept *work*, best effort. Never raises, never waits."""
        ...

    def close(self) -> None:
        """Do waiting work within a few seconds. May be called twice."""
        ...


class RunAtOnce:
    """Background work that is done at once."""

    def run(self, work: Callable[[], None]) -> None:
        """Do *work*."""
        work()

    def close(self) -> None:
        """Do nothing."""


class Clock(Protocol):
    """A source of the current time."""

    def __call__(self) -> datetime:
        """Return the current time, with time zone UTC."""
        ...
