"""DocumentStore in one DynamoDB table: partition key `pk`, sort key `sk`, both strings.

    pk, sk    the key as it is; a sort key is ordered by its UTF-8 bytes
    version   random, new at each write: what conditions name, and how a write whose answer was lost is recognized
    body      JSON text (see shared.adapters.documents)
    expires   seconds since 1970, where the document expires; the table's time-to-live attribute

Every read is consistent.
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

from shared.adapters.documents import can_exist, check_key, encoded, position
from shared.adapters.patience import RetryBudget
from shared.errors import StoreUnavailable
from shared.ports import Document, Key, Version, WriteConflict

T = TypeVar("T")
Item = Mapping[str, Any]

_BATCH_MAX: Final = 100  # keys in one BatchGetItem
_CONNECTIONS: Final = 32
_CONFLICT: Final = "ConditionalCheckFailedException"
_OURS: Final = "ValidationException"  # a request that DynamoDB does not understand: a mistake in this module
_PASSING: Final = frozenset(
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


_MAKING: Final = threading.Lock()  # a session makes one client at a time; clients serve all threads


class Client(Protocol):
    """The part of boto3's DynamoDB client that is used here."""

    def batch_get_item(self, **request: Any) -> dict[str, Any]: ...
    def put_item(self, **request: Any) -> dict[str, Any]: ...
    def delete_item(self, **request: Any) -> dict[str, Any]: ...
    def query(self, **request: Any) -> dict[str, Any]: ...
    def close(self) -> None: ...


def connect(region: str | None, patience: RetryBudget) -> Client:
    """boto3's client: credentials from where it looks for them, one try for each call, within *patience*."""
    config = Config(
        retries={"total_max_attempts": 1},
        connect_timeout=patience.of_one_try * 0.4,
        read_timeout=patience.of_one_try * 0.6,
        max_pool_connections=_CONNECTIONS,
    )
    with _MAKING:
        client: Client = session().client("dynamodb", region_name=region, config=config)
    return client


@cache
def session() -> boto3.session.Session:
    """One for the process: it holds botocore's parsed description of DynamoDB, whose reading is what a client costs."""
    return boto3.session.Session()


class _Unprocessed(Exception):
    """DynamoDB took none of a batch."""


class _CutShort(Exception):
    """An answer that ended in its headers: HTTP takes it for a whole one without a body."""


class DynamoDBStore:
    """See `shared.ports.DocumentStore`. The table is there already: infra makes it."""

    def __init__(
        self,
        table: str,
        region: str | None = None,
        *,
        patience: RetryBudget | None = None,
        connect: Callable[[str | None, RetryBudget], Client] = connect,
    ) -> None:
        """Asks nothing yet: the client is made at the first call, and kept."""
        self._table = table
        self._region = region
        self._patience = patience or RetryBudget()
        self._connect = connect
        self._client: Client | None = None
        self._lock = threading.Lock()

    def get_many(self, keys: Collection[Key]) -> dict[Key, Document]:
        wanted = [_key(key) for key in {*keys} if can_exist(key)]
        items: list[Item] = []
        for start in range(0, len(wanted), _BATCH_MAX):
            items += self._batch(wanted[start : start + _BATCH_MAX])
        documents = map(_document, items)
        return {document.key: document for document in documents}

    def put(
        self, key: Key, body: Mapping[str, Any], *, expected: Version | None, expires: datetime | None = None
    ) -> Version:
        check_key(key)
        version = secrets.token_hex(8)
        item = {**_key(key), "version": {"S": version}, "body": {"S": encoded(body).decode()}}
        if expires is not None:
            item["expires"] = {"N": str(int(expires.timestamp()))}
        request = {"TableName": self._table, "Item": item, **_condition(expected)}

        def attempt(client: Client) -> None:
            try:
                client.put_item(**request)
            except ClientError as error:
                if _code(error) != _CONFLICT:
                    raise
                if self._version(client, key) != version:  # else an earlier try did it, and its answer was lost
                    raise WriteConflict(key) from error

        self._ask(attempt)
        return version

    def delete(self, key: Key, *, expected: Version) -> None:
        check_key(key)
        request = {"TableName": self._table, "Key": _key(key), **_condition(expected)}
        tries = 0

        def attempt(client: Client) -> None:
            nonlocal tries
            tries += 1
            try:
                client.delete_item(**request)
            except ClientError as error:
                if _code(error) != _CONFLICT:
                    raise
                # It is gone, and the answer to an earlier try of this very call was lost: it was that one.
                if tries == 1 or self._version(client, key) is not None:
                    raise WriteConflict(key) from error

        self._ask(attempt)

    def list(self, partition: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        if not can_exist(Key(partition, "any")):
            return []
        found: list[Document] = []
        behind = position(after)
        while len(found) < limit:
            answer = self._page(partition, behind, limit - len(found))
            found += map(_document, answer["Items"])
            if "LastEvaluatedKey" not in answer:
                break
            behind = answer["LastEvaluatedKey"]["sk"]["S"]  # 1 MB was reached before the limit
        return found

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _batch(self, keys: Sequence[Item]) -> Sequence[Item]:
        """The items at *keys*, at most 100. What DynamoDB leaves out of an answer is asked for again: at once where it
        was the answer's size (16 MB), after a pause where it took none."""
        request: Mapping[str, Any] = {self._table: {"Keys": keys, "ConsistentRead": True}}
        items: list[Item] = []

        def attempt(client: Client) -> None:
            nonlocal request
            while request:
                answer = _whole(client.batch_get_item(RequestItems=request), "Responses")
                came = answer["Responses"].get(self._table, [])
                items.extend(came)
                request = answer.get("UnprocessedKeys") or {}
                if request and not came:
                    raise _Unprocessed

        self._ask(attempt)
        return items

    def _page(self, partition: str, after: str, limit: int) -> dict[str, Any]:
        values = {":partition": {"S": partition}}
        condition = "pk = :partition"
        if after:  # an empty string is no value of a key
            values[":after"] = {"S": after}
            condition += " AND sk > :after"
        return self._ask(
            lambda client: _whole(
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

    def _version(self, client: Client, key: Key) -> Version | None:
        """The version at which *key* is now. Asked as a batch: GetItem's answer where there is none is `{}`, and so is
        one that was cut short."""
        request = {self._table: {"Keys": [_key(key)], "ConsistentRead": True}}
        answer = _whole(client.batch_get_item(RequestItems=request), "Responses")
        if answer.get("UnprocessedKeys"):
            raise _Unprocessed
        items = answer["Responses"].get(self._table, [])
        return str(items[0]["version"]["S"]) if items else None

    def _ask(self, attempt: Callable[[Client], T]) -> T:
        """Raises: StoreUnavailable, and what *attempt* raises that is not DynamoDB's or the network's."""
        try:
            client = self._connected()
            return self._patience.ask(lambda: attempt(client), _passes)
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and _code(error) == _OURS:
                raise
            raise StoreUnavailable from error

    def _connected(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = self._connect(self._region, self._patience)
            return self._client


def _whole(answer: dict[str, Any], part: str) -> dict[str, Any]:
    """*answer*, which has *part* whatever was found. Raises: _CutShort."""
    if part not in answer:
        raise _CutShort
    return answer


def _passes(error: Exception) -> bool:
    """Whether it is worth asking again."""
    if isinstance(error, ClientError):
        code, status = _code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return code in _PASSING or status >= 500 or code == str(status)  # the last: a refusal that was cut short
    # no connection, a timeout, a broken connection
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


def _key(key: Key) -> dict[str, Any]:
    return {"pk": {"S": key.partition}, "sk": {"S": key.id}}


def _document(item: Item) -> Document:
    return Document(Key(item["pk"]["S"], item["sk"]["S"]), item["version"]["S"], item["body"]["S"])
