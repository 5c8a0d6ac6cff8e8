"""DocumentStore in one DynamoDB table: partition key `pk`, sort key `sk`, both strings.

    pk, sk    the document's key; DynamoDB orders a sort key by its UTF-8 bytes
    version   random, new at each write; conditions compare it, and it identifies a write whose response was lost
    body      JSON text (see shared.adapters.documents)
    expires   seconds since 1970, if the document expires; the table's time-to-live attribute

Every read is strongly consistent.

Source: Amazon DynamoDB API Reference (BatchGetItem, PutItem, DeleteItem, Query).
"""

import secrets
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final, Protocol, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from shared.adapters.documents import can_exist, check_key, encode, normalize_bookmark
from shared.adapters.retry_budget import RetryBudget
from shared.errors import StoreUnavailable
from shared.ports import Document, Key, Version, WriteConflict

T = TypeVar("T")
Item = Mapping[str, Any]

_BATCH_MAX: Final = 100  # keys in one BatchGetItem
_CONNECTIONS: Final = 32
_CONFLICT: Final = "ConditionalCheckFailedException"
_INVALID: Final = "ValidationException"  # an invalid request: a defect of this module, not an outage
_TRANSIENT: Final = frozenset(
    {
        "InternalServerError",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "ThrottlingException",
        "TransactionConflictException",
    }
)

_CREATING: Final = threading.Lock()  # a session may create one client at a time; a client serves all threads


class DynamoDBClient(Protocol):
    """The methods of boto3's DynamoDB client that this module uses."""

    def batch_get_item(self, **request: Any) -> dict[str, Any]: ...
    def put_item(self, **request: Any) -> dict[str, Any]: ...
    def delete_item(self, **request: Any) -> dict[str, Any]: ...
    def query(self, **request: Any) -> dict[str, Any]: ...
    def close(self) -> None: ...


def connect(region: str | None, retry_budget: RetryBudget) -> DynamoDBClient:
    """Create boto3's client, without retries of its own; one request takes at most one attempt of *retry_budget*.

    The client takes the credentials from boto3's usual places.
    """
    config = Config(
        retries={"total_max_attempts": 1},
        connect_timeout=retry_budget.attempt_seconds * 0.4,
        read_timeout=retry_budget.attempt_seconds * 0.6,
        max_pool_connections=_CONNECTIONS,
    )
    with _CREATING:
        client: DynamoDBClient = get_session().client("dynamodb", region_name=region, config=config)
    return client


@cache
def get_session() -> boto3.session.Session:
    """Return the session of the process.

    A session caches botocore's description of DynamoDB. Parsing the description is the main cost of a new client.
    """
    return boto3.session.Session()


class _Unprocessed(Exception):
    """A response without any item of the requested batch."""


class _CutShort(Exception):
    """A response that ended within its headers. HTTP treats it as a complete response with an empty body."""


class DynamoDBStore:
    """A document store in DynamoDB, see `shared.ports.DocumentStore`. The table must exist.

    Args:
        table: the table's name.
        region: the AWS region; None for boto3's default.
        retry_budget: the time limit of one request.
        connect: creates the client; called once, before the first request.
    """

    def __init__(
        self,
        table: str,
        region: str | None = None,
        *,
        retry_budget: RetryBudget | None = None,
        connect: Callable[[str | None, RetryBudget], DynamoDBClient] = connect,
    ) -> None:
        """Store the arguments. No request is made."""
        self._table = table
        self._region = region
        self._retry_budget = retry_budget or RetryBudget()
        self._connect = connect
        self._client: DynamoDBClient | None = None
        self._lock = threading.Lock()

    def get_many(self, keys: Collection[Key]) -> dict[Key, Document]:
        """Return the documents that exist among *keys*, with one request for up to 100 keys."""
        item_keys = [_item_key(key) for key in {*keys} if can_exist(key)]
        items: list[Item] = []
        for start in range(0, len(item_keys), _BATCH_MAX):
            items += self._read_batch(item_keys[start : start + _BATCH_MAX])
        documents = map(_document, items)
        return {document.key: document for document in documents}

    def put(
        self, key: Key, body: Mapping[str, Any], *, expected: Version | None, expires: datetime | None = None
    ) -> Version:
        """Store *body* if the document is at version *expected*, and return the new version."""
        check_key(key)
        version = secrets.token_hex(8)
        item = {**_item_key(key), "version": {"S": version}, "body": {"S": encode(body).decode()}}
        if expires is not None:
            item["expires"] = {"N": str(int(expires.timestamp()))}
        request = {"TableName": self._table, "Item": item, **_condition(expected)}

        def attempt(client: DynamoDBClient, _: int) -> None:
            try:
                client.put_item(**request)
            except ClientError as error:
                if _code(error) != _CONFLICT:
                    raise
                # With this version, an earlier attempt succeeded and its response was lost.
                if self._get_version(client, key) != version:
                    raise WriteConflict(key) from error

        self._run(attempt)
        return version

    def delete(self, key: Key, *, expected: Version) -> None:
        """Delete the document if it is at version *expected*."""
        check_key(key)
        request = {"TableName": self._table, "Key": _item_key(key), **_condition(expected)}

        def attempt(client: DynamoDBClient, number: int) -> None:
            try:
                client.delete_item(**request)
            except ClientError as error:
                if _code(error) != _CONFLICT:
                    raise
                # If the document is missing, an earlier attempt succeeded and its response was lost.
                if number == 1 or self._get_version(client, key) is not None:
                    raise WriteConflict(key) from error

        self._run(attempt)

    def list(self, partition: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        """Return at most *limit* documents of *partition*, ordered by id, with ids greater than *after*."""
        if not can_exist(Key(partition, "any")):
            return []
        documents: list[Document] = []
        last_id = normalize_bookmark(after)
        while len(documents) < limit:
            response = self._query(partition, last_id, limit - len(documents))
            documents += map(_document, response["Items"])
            if "LastEvaluatedKey" not in response:
                break
            last_id = response["LastEvaluatedKey"]["sk"]["S"]  # a response has at most 1 MB
        return documents

    def close(self) -> None:
        """Close the client. May be called twice."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _read_batch(self, item_keys: Sequence[Item]) -> Sequence[Item]:
        batch = _BatchRead(self._table, item_keys)
        return self._run(lambda client, _: batch.read(client))

    def _query(self, partition: str, after: str, limit: int) -> dict[str, Any]:
        values = {":partition": {"S": partition}}
        condition = "pk = :partition"
        if after:  # DynamoDB refuses an empty string as value of a key
            values[":after"] = {"S": after}
            condition += " AND sk > :after"
        return self._run(
            lambda client, _: _check_complete(
                client.query(
                    TableName=self._table,
                    KeyConditionExpression=condition,
                    ExpressionAttributeValues=values,
                    ConsistentRead=True,
                    Limit=limit,
                ),
                "Items",
            )
        )

    def _get_version(self, client: DynamoDBClient, key: Key) -> Version | None:
        """Return the current version of *key*, or None if the document does not exist.

        The request is a batch: GetItem's response for a missing item is `{}`, like a response that was cut short.
        """
        request = {self._table: {"Keys": [_item_key(key)], "ConsistentRead": True}}
        response = _check_complete(client.batch_get_item(RequestItems=request), "Responses")
        if response.get("UnprocessedKeys"):
            raise _Unprocessed
        items = response["Responses"].get(self._table, [])
        return str(items[0]["version"]["S"]) if items else None

    def _run(self, attempt: Callable[[DynamoDBClient, int], T]) -> T:
        """Return the result of *attempt*, which is called with the client and the number of the attempt.

        Raises: StoreUnavailable, for errors of DynamoDB and of the network; every other error of *attempt*.
        """
        try:
            client = self._get_client()
            return self._retry_budget.run(lambda number: attempt(client, number), _is_transient)
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and _code(error) == _INVALID:
                raise
            raise StoreUnavailable from error

    def _get_client(self) -> DynamoDBClient:
        with self._lock:
            if self._client is None:
                self._client = self._connect(self._region, self._retry_budget)
            return self._client


class _BatchRead:
    """A BatchGetItem of at most 100 keys that continues after incomplete responses.

    DynamoDB may leave keys out of a response. If the response was too large (16 MB), the rest is requested at once. If
    the response has no item, DynamoDB is overloaded, and the rest is requested by the next attempt, after a pause.
    """

    def __init__(self, table: str, item_keys: Sequence[Item]) -> None:
        self._table = table
        self._pending: Mapping[str, Any] = {table: {"Keys": item_keys, "ConsistentRead": True}}
        self._items: list[Item] = []

    def read(self, client: DynamoDBClient) -> Sequence[Item]:
        """Request the keys that are still missing, and return all items.

        Raises: _Unprocessed, _CutShort, ClientError, BotoCoreError.
        """
        while self._pending:
            response = _check_complete(client.batch_get_item(RequestItems=self._pending), "Responses")
            items = response["Responses"].get(self._table, [])
            self._items.extend(items)
            self._pending = response.get("UnprocessedKeys") or {}
            if self._pending and not items:
                raise _Unprocessed
        return self._items


def _check_complete(response: dict[str, Any], field: str) -> dict[str, Any]:
    """Return *response*, which always has *field* if it is complete.

    Raises: _CutShort.
    """
    if field not in response:
        raise _CutShort
    return response


def _is_transient(error: Exception) -> bool:
    if isinstance(error, ClientError):
        code, status = _code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        is_cut_short = code == str(status)  # botocore's code for an error response without a body
        return code in _TRANSIENT or status >= 500 or is_cut_short
    # HTTPClientError: no connection, a timeout, or a broken connection
    return isinstance(error, HTTPClientError | _Unprocessed | _CutShort)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _condition(expected: Version | None) -> dict[str, Any]:
    if expected is None:
        return {"ConditionExpression": "attribute_not_exists(pk)"}
    return {
        "ConditionExpression": "#version = :expected",
        "ExpressionAttributeNames": {"#version": "version"},
        "ExpressionAttributeValues": {":expected": {"S": expected}},
    }


def _item_key(key: Key) -> dict[str, Any]:
    return {"pk": {"S": key.partition}, "sk": {"S": key.id}}


def _document(item: Item) -> Document:
    return Document(Key(item["pk"]["S"], item["sk"]["S"]), item["version"]["S"], item["body"]["S"])
