"""DocumentStore in a Firestore database in native mode.

    trust/{partition}/documents/{id}

    token     random, new at each write; it identifies a write whose response was lost
    body      JSON text (see shared.adapters.documents)
    expires   timestamp, if the document expires; the time-to-live field of the collection group `documents`

A document's version is its update time. Firestore changes the update time at each write, because each write has a new
token. A write names the expected update time as its precondition: one round trip, without a transaction or a lock.

Source: Cloud Firestore documentation ("Quotas and limits", "Data types", google.firestore.v1 Precondition).
"""

import re
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import grpc
from google.api_core import exceptions
from google.api_core.retry import Retry
from google.auth.exceptions import GoogleAuthError
from google.cloud import firestore
from google.cloud.firestore_v1.base_query import FieldFilter
from google.protobuf.timestamp_pb2 import Timestamp
from proto.datetime_helpers import DatetimeWithNanoseconds

from shared.adapters.documents import can_exist, check_key, encode, normalize_bookmark
from shared.adapters.retry_budget import RetryBudget
from shared.errors import StoreUnavailable
from shared.ports import Document, Key, Version, WriteConflict

T = TypeVar("T")
Snapshot = firestore.DocumentSnapshot[Any]

_ROOT: Final = "trust"
_DOCUMENTS: Final = "documents"
_LIST_FACTOR: Final = 5  # a list may take longer than a read: a page can have many megabytes, and no device waits
_VERSION: Final = re.compile(r"([0-9]{1,18})\.([0-9]{9})")
_CONFLICTS: Final = (exceptions.AlreadyExists, exceptions.FailedPrecondition, exceptions.NotFound)
_TRANSIENT: Final = (
    exceptions.Aborted,  # contention
    exceptions.Cancelled,
    exceptions.DeadlineExceeded,
    exceptions.InternalServerError,
    exceptions.ResourceExhausted,
    exceptions.ServiceUnavailable,
    exceptions.Unknown,
)
_CHANNEL: Final = {
    # By default, channels to one address share connections. A dead connection would outlive its client.
    "grpc.use_local_subchannel_pool": 1,
    # By default, gRPC waits up to two minutes between two attempts to connect.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1_000,
    "grpc.keepalive_time_ms": 30_000,
    "grpc.max_send_message_length": -1,
    "grpc.max_receive_message_length": -1,
}
_NEVER: Final = Retry(predicate=lambda _: False)  # with None, Google's client fails when a stream breaks off
_CLOSE_AFTER: Final = 30.0  # seconds: other threads may still have requests on a replaced client


class FirestoreClient(firestore.Client):
    """Google's client on a channel with the options of _CHANNEL, which Google's client does not accept."""

    def _firestore_api_helper(self, transport: Any, client_class: Any, client_module: Any) -> Any:
        if self._firestore_api_internal is None:
            options = [*_CHANNEL.items()]
            if self._emulator_host is not None:
                channel = grpc.insecure_channel(self._emulator_host, options=options)
            else:
                channel = transport.create_channel(self._target, credentials=self._credentials, options=options)
            self._transport = transport(host=self._target, channel=channel)
            self._firestore_api_internal = client_class(transport=self._transport, client_options=self._client_options)
        return self._firestore_api_internal


def connect(project: str, database: str) -> firestore.Client:
    """Create Google's client, with the default credentials or on an emulator (FIRESTORE_EMULATOR_HOST)."""
    return FirestoreClient(project=project, database=database)


class FirestoreStore:
    """A document store in Firestore, see `shared.ports.DocumentStore`.

    Args:
        project: the Google Cloud project's id.
        database: the database's id.
        retry_budget: the time limit of one request; a list may take five times as long.
        connect: creates a client; called before the first request, and after the connection died.
    """

    def __init__(
        self,
        project: str,
        database: str = "(default)",
        *,
        retry_budget: RetryBudget | None = None,
        connect: Callable[[str, str], firestore.Client] = connect,
    ) -> None:
        """Store the arguments. No request is made."""
        self._project = project
        self._database = database
        self._retry_budget = retry_budget or RetryBudget()
        self._connect = connect
        self._client: firestore.Client | None = None
        self._has_responded = False  # whether the current client ever received a response
        self._replaced: list[tuple[float, firestore.Client]] = []  # with the time of replacement
        self._lock = threading.Lock()

    def get_many(self, keys: Collection[Key]) -> dict[Key, Document]:
        """Return the documents that exist among *keys*, with one request."""
        by_path = {(_encode_segment(key.partition), _encode_segment(key.id)): key for key in keys if can_exist(key)}
        if not by_path:
            return {}

        def attempt(client: firestore.Client, _: int) -> list[Snapshot]:
            references = [_reference(client, key) for key in by_path.values()]
            return [*client.get_all(references, retry=None, timeout=self._retry_budget.attempt_seconds)]

        documents: dict[Key, Document] = {}
        for snapshot in self._run(attempt):
            if snapshot.exists:
                _, partition, _, document_id = snapshot.reference._path  # the client has no public equivalent
                key = by_path[partition, document_id]
                documents[key] = _document(key, snapshot)
        return documents

    def put(
        self, key: Key, body: Mapping[str, Any], *, expected: Version | None, expires: datetime | None = None
    ) -> Version:
        """Store *body* if the document is at version *expected*, and return the new version."""
        check_key(key)
        token = secrets.token_hex(8)
        fields = {"token": token, "body": encode(body).decode()}
        expected_time = _parse_version(key, expected)
        timeout = self._retry_budget.attempt_seconds

        def attempt(client: firestore.Client, _: int) -> Version:
            reference = _reference(client, key)
            try:
                if expected_time is None:
                    new = fields if expires is None else {**fields, "expires": expires}
                    result = reference.create(new, retry=None, timeout=timeout)
                else:
                    result = reference.update(
                        {**fields, "expires": firestore.DELETE_FIELD if expires is None else expires},
                        option=client.write_option(last_update_time=expected_time),
                        retry=None,
                        timeout=timeout,
                    )
            except _CONFLICTS as error:
                current = reference.get(retry=None, timeout=timeout)
                # With this token, an earlier attempt succeeded and its response was lost.
                if current.get("token") != token:
                    raise WriteConflict(key) from error
                return _version(current.update_time)
            return _version(result.update_time)

        return self._run(attempt)

    def delete(self, key: Key, *, expected: Version) -> None:
        """Delete the document if it is at version *expected*."""
        check_key(key)
        expected_time = _parse_version(key, expected)
        timeout = self._retry_budget.attempt_seconds

        def attempt(client: firestore.Client, number: int) -> None:
            reference = _reference(client, key)
            try:
                reference.delete(
                    option=client.write_option(last_update_time=expected_time), retry=None, timeout=timeout
                )
            except _CONFLICTS as error:
                # If the document is missing, an earlier attempt succeeded and its response was lost.
                if number == 1 or reference.get(retry=None, timeout=timeout).exists:
                    raise WriteConflict(key) from error

        self._run(attempt)

    def list(self, partition: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        """Return at most *limit* documents of *partition*, ordered by id, with ids greater than *after*."""
        if limit < 1 or not can_exist(Key(partition, "any")):
            return []

        def attempt(client: firestore.Client, _: int) -> list[Snapshot]:
            collection = client.collection(_ROOT, _encode_segment(partition), _DOCUMENTS)
            query = collection.order_by("__name__").limit(limit)
            if after:
                bookmark = collection.document(_encode_segment(normalize_bookmark(after)))
                query = query.where(filter=FieldFilter("__name__", ">", bookmark))
            return [*query.stream(retry=_NEVER, timeout=self._retry_budget.attempt_seconds * _LIST_FACTOR)]

        return [_document(Key(partition, _decode_segment(snapshot.id)), snapshot) for snapshot in self._run(attempt)]

    def close(self) -> None:
        """Close all clients. May be called twice."""
        with self._lock:
            clients = [client for _, client in self._replaced]
            if self._client is not None:
                clients.append(self._client)
            self._client, self._replaced = None, []
        for client in clients:
            _close(client)

    def _run(self, attempt: Callable[[firestore.Client, int], T]) -> T:
        """Return the result of *attempt*, which is called with a client and the number of the attempt.

        Raises: StoreUnavailable, for errors of Firestore and of the network; every other error of *attempt*.
        """

        def run_once(number: int) -> T:
            client = self._get_client()
            try:
                result = attempt(client, number)
            except exceptions.DeadlineExceeded:
                self._replace(client)
                raise
            self._has_responded = True
            return result

        try:
            return self._retry_budget.run(run_once, lambda error: isinstance(error, _TRANSIENT))
        except exceptions.InvalidArgument:  # an invalid request: a defect of this module, not an outage
            raise
        except (exceptions.GoogleAPIError, GoogleAuthError) as error:
            raise StoreUnavailable from error

    def _get_client(self) -> firestore.Client:
        with self._lock:
            if self._client is None:
                self._client = self._connect(self._project, self._database)
                self._has_responded = False
            return self._client

    def _replace(self, client: firestore.Client) -> None:
        """Replace *client* after a timeout, if the client has received responses before.

        All requests of a client share a connection. The connection may be dead without an error, for example behind a
        firewall that drops packets. If the client never received a response, Firestore itself is probably unavailable,
        and a new connection would not help.
        """
        now = time.monotonic()
        with self._lock:
            if client is not self._client or not self._has_responded:
                return
            self._client = None
            self._replaced.append((now, client))
            expired = [client for replaced_at, client in self._replaced if now - replaced_at > _CLOSE_AFTER]
            self._replaced = [entry for entry in self._replaced if now - entry[0] <= _CLOSE_AFTER]
        for client in expired:
            _close(client)


def _close(client: firestore.Client) -> None:
    client._firestore_api.transport.close()  # the client's own close() leaves the gRPC channel open


def _reference(client: firestore.Client, key: Key) -> firestore.DocumentReference:
    return client.document(_ROOT, _encode_segment(key.partition), _DOCUMENTS, _encode_segment(key.id))


def _encode_segment(name: str) -> str:
    """Encode *name* as a segment of a path: without `/`, and never `.`, `..` or `__…__`, which Firestore reserves.

    The encoding is injective and keeps the order of names: `.` and `/` are adjacent in Unicode, and so are `.0` and
    `.1` in the order of segments.
    """
    return "=" + name.replace(".", ".0").replace("/", ".1")


def _decode_segment(segment: str) -> str:
    return segment[1:].replace(".1", "/").replace(".0", ".")


def _version(update_time: datetime | None) -> Version:
    assert isinstance(update_time, DatetimeWithNanoseconds)  # noqa: S101 - every existing document has an update time
    timestamp = update_time.timestamp_pb()
    return f"{timestamp.seconds}.{timestamp.nanos:09}"


def _parse_version(key: Key, version: Version | None) -> Timestamp | None:
    """Return the update time of *version*, the opposite of `_version`.

    Raises: WriteConflict, if *version* is a version of another kind of store.
    """
    if version is None:
        return None
    parts = _VERSION.fullmatch(version)
    if parts is None:
        raise WriteConflict(key)
    return Timestamp(seconds=int(parts[1]), nanos=int(parts[2]))


def _document(key: Key, snapshot: Snapshot) -> Document:
    return Document(key, _version(snapshot.update_time), snapshot.get("body"))
