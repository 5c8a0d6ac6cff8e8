"""DocumentStore in a Firestore database in native mode.

    trust/{partition}/documents/{id}

    token     random, new at each write: how a write whose answer was lost is recognized
    body      JSON text (see shared.adapters.documents)
    expires   a time, where the document expires; the time-to-live field of the collection group `documents`

A document's version is its update time, which Firestore moves forward at each change (with a new token, each write is
one), and which a write can name as its precondition: one round trip, no transaction, no lock.
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

from shared.adapters.documents import can_exist, check_key, encoded, position
from shared.adapters.patience import RetryBudget
from shared.errors import StoreUnavailable
from shared.ports import Document, Key, Version, WriteConflict

T = TypeVar("T")
Snapshot = firestore.DocumentSnapshot[Any]

_ROOT: Final = "trust"
_DOCUMENTS: Final = "documents"
_LISTING: Final = 5  # times as long as a look-up may take: a page can have many megabytes, and no device waits for it
_VERSION: Final = re.compile(r"([0-9]{1,18})\.([0-9]{9})")
_CONFLICTS: Final = (exceptions.AlreadyExists, exceptions.FailedPrecondition, exceptions.NotFound)
_PASSING: Final = (
    exceptions.Aborted,  # contention
    exceptions.Cancelled,
    exceptions.DeadlineExceeded,
    exceptions.InternalServerError,
    exceptions.ResourceExhausted,
    exceptions.ServiceUnavailable,
    exceptions.Unknown,
)
_CHANNEL: Final = {
    # gRPC shares connections between channels to one address. One that has gone silent would outlive its client.
    "grpc.use_local_subchannel_pool": 1,
    # After a store was away gRPC waits longer and longer, up to two minutes, before it tries to connect again.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1_000,
    "grpc.keepalive_time_ms": 30_000,
    "grpc.max_send_message_length": -1,
    "grpc.max_receive_message_length": -1,
}
_NEVER: Final = Retry(predicate=lambda _: False)  # None would be asked for its predicate, where a stream breaks off
_IN_FLIGHT: Final = 30.0  # seconds for which other threads may still be asking a client that was put away


class Client(firestore.Client):
    """Google's client, on a channel of our own (see _CHANNEL): Google's takes no options for it."""

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
    """Google's client: credentials from where it looks for them, or an emulator's (FIRESTORE_EMULATOR_HOST)."""
    return Client(project=project, database=database)


class FirestoreStore:
    """See `shared.ports.DocumentStore`."""

    def __init__(
        self,
        project: str,
        database: str = "(default)",
        *,
        patience: RetryBudget | None = None,
        connect: Callable[[str, str], firestore.Client] = connect,
    ) -> None:
        """Asks nothing yet: the client is made at the first call, and kept while it gets answers."""
        self._project = project
        self._database = database
        self._patience = patience or RetryBudget()
        self._connect = connect
        self._client: firestore.Client | None = None
        self._answered = False  # the client, since it was made
        self._put_away: list[tuple[float, firestore.Client]] = []  # since when
        self._lock = threading.Lock()

    def get_many(self, keys: Collection[Key]) -> dict[Key, Document]:
        wanted = {*filter(can_exist, keys)}
        if not wanted:
            return {}

        def attempt(client: firestore.Client) -> list[Snapshot]:
            references = [_reference(client, key) for key in wanted]
            return [*client.get_all(references, retry=None, timeout=self._patience.of_one_try)]

        by_path = {(_segment(key.partition), _segment(key.id)): key for key in wanted}
        found: dict[Key, Document] = {}
        for snapshot in self._ask(attempt):
            if snapshot.exists:
                _, partition, _, document_id = snapshot.reference._path  # no public way to the path's parts
                key = by_path[partition, document_id]
                found[key] = _document(key, snapshot)
        return found

    def put(
        self, key: Key, body: Mapping[str, Any], *, expected: Version | None, expires: datetime | None = None
    ) -> Version:
        check_key(key)
        token = secrets.token_hex(8)
        fields = {"token": token, "body": encoded(body).decode()}
        seen = _update_time(key, expected)
        timeout = self._patience.of_one_try

        def attempt(client: firestore.Client) -> Version:
            reference = _reference(client, key)
            try:
                if seen is None:
                    new = fields if expires is None else {**fields, "expires": expires}
                    done = reference.create(new, retry=None, timeout=timeout)
                else:
                    done = reference.update(
                        {**fields, "expires": firestore.DELETE_FIELD if expires is None else expires},
                        option=client.write_option(last_update_time=seen),
                        retry=None,
                        timeout=timeout,
                    )
            except _CONFLICTS as error:
                now = reference.get(retry=None, timeout=timeout)
                if now.get("token") != token:  # else an earlier try did it, and its answer was lost
                    raise WriteConflict(key) from error
                return _version(now.update_time)
            return _version(done.update_time)

        return self._ask(attempt)

    def delete(self, key: Key, *, expected: Version) -> None:
        check_key(key)
        seen = _update_time(key, expected)
        timeout = self._patience.of_one_try
        tries = 0

        def attempt(client: firestore.Client) -> None:
            nonlocal tries
            tries += 1
            reference = _reference(client, key)
            try:
                reference.delete(option=client.write_option(last_update_time=seen), retry=None, timeout=timeout)
            except _CONFLICTS as error:
                # It is gone, and the answer to an earlier try of this very call was lost: it was that one.
                if tries == 1 or reference.get(retry=None, timeout=timeout).exists:
                    raise WriteConflict(key) from error

        self._ask(attempt)

    def list(self, partition: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        if limit < 1 or not can_exist(Key(partition, "any")):
            return []

        def attempt(client: firestore.Client) -> list[Snapshot]:
            collection = client.collection(_ROOT, _segment(partition), _DOCUMENTS)
            query = collection.order_by("__name__").limit(limit)
            if after:
                behind = collection.document(_segment(position(after)))
                query = query.where(filter=FieldFilter("__name__", ">", behind))
            return [*query.stream(retry=_NEVER, timeout=self._patience.of_one_try * _LISTING)]

        return [_document(Key(partition, _text(snapshot.id)), snapshot) for snapshot in self._ask(attempt)]

    def close(self) -> None:
        with self._lock:
            clients = [client for _, client in self._put_away]
            if self._client is not None:
                clients.append(self._client)
            self._client, self._put_away = None, []
        for client in clients:
            _close(client)

    def _ask(self, attempt: Callable[[firestore.Client], T]) -> T:
        """Raises: StoreUnavailable, and what *attempt* raises that is not Firestore's or the network's."""

        def one_try() -> T:
            client = self._connected()
            try:
                answer = attempt(client)
            except exceptions.DeadlineExceeded:
                self._replace(client)
                raise
            self._answered = True
            return answer

        try:
            return self._patience.ask(one_try, lambda error: isinstance(error, _PASSING))
        except exceptions.InvalidArgument:  # a request that Firestore does not understand: a mistake in this module
            raise
        except (exceptions.GoogleAPIError, GoogleAuthError) as error:
            raise StoreUnavailable from error

    def _connected(self) -> firestore.Client:
        with self._lock:
            if self._client is None:
                self._client = self._connect(self._project, self._database)
                self._answered = False
            return self._client

    def _replace(self, silent: firestore.Client) -> None:
        """The next try gets a client of its own: all calls of one share a connection, which may be dead without
        knowing it (a firewall that drops, a machine that froze). One that has never answered is kept: it is the store
        that is away, and another connection would do no better."""
        now = time.monotonic()
        with self._lock:
            if silent is not self._client or not self._answered:
                return
            self._client = None
            over = [client for since, client in self._put_away if now - since > _IN_FLIGHT]
            self._put_away = [one for one in self._put_away if now - one[0] <= _IN_FLIGHT] + [(now, silent)]
        for client in over:
            _close(client)


def _close(client: firestore.Client) -> None:
    client._firestore_api.transport.close()  # the client's own close() leaves the gRPC channel open


def _reference(client: firestore.Client, key: Key) -> firestore.DocumentReference:
    return client.document(_ROOT, _segment(key.partition), _DOCUMENTS, _segment(key.id))


def _segment(name: str) -> str:
    """*name* as a segment of a path: without `/`, and never `.`, `..` or `__…__`, which Firestore reserves.

    One to one, and in the same order: `.` and `/` are neighbours in Unicode, so `.0` and `.1` sort just as they did."""
    return "=" + name.replace(".", ".0").replace("/", ".1")


def _text(segment: str) -> str:
    """The name that `_segment` was given."""
    return segment[1:].replace(".1", "/").replace(".0", ".")


def _version(update_time: datetime | None) -> Version:
    assert isinstance(update_time, DatetimeWithNanoseconds)  # noqa: S101 - what exists was written at some time
    stamp = update_time.timestamp_pb()
    return f"{stamp.seconds}.{stamp.nanos:09}"


def _update_time(key: Key, version: Version | None) -> Timestamp | None:
    """The update time that *version* stands for. Raises: WriteConflict, where it is no version of this store."""
    if version is None:
        return None
    parts = _VERSION.fullmatch(version)
    if parts is None:
        raise WriteConflict(key)
    return Timestamp(seconds=int(parts[1]), nanos=int(parts[2]))


def _document(key: Key, snapshot: Snapshot) -> Document:
    return Document(key, _version(snapshot.update_time), snapshot.get("body"))
