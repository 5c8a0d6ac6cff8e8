"""Tests of the DynamoDB store alone: incomplete batches, error codes, time to live."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from shared.adapters.dynamodb_store import DynamoDBClient, DynamoDBStore, get_session
from shared.adapters.retry_budget import RetryBudget
from shared.config import DynamoDB
from shared.errors import StoreUnavailable
from shared.ports import Key
from tests.adapters.faults import Time
from tests.support.stores import Place, open_store

KEYS = [Key("ca/mtxpd0", f"{n:03}") for n in range(250)]


class ScriptedClient:
    """A client whose responses to batches are scripted.

    Args:
        steps: for each request the number of keys that are processed, or an error. Later requests succeed.
    """

    def __init__(self, *steps: int | Exception) -> None:
        self.steps = list(steps)
        self.requests: list[list[str]] = []
        self.consistent: set[bool] = set()

    def batch_get_item(self, **request: Any) -> dict[str, Any]:
        [[table, batch]] = request["RequestItems"].items()
        keys = batch["Keys"]
        self.requests.append([key["sk"]["S"] for key in keys])
        self.consistent.add(batch["ConsistentRead"])
        step = self.steps.pop(0) if self.steps else len(keys)
        if isinstance(step, Exception):
            raise step
        rest = {table: {**batch, "Keys": keys[step:]}} if keys[step:] else {}
        return {"Responses": {table: [make_item(key) for key in keys[:step]]}, "UnprocessedKeys": rest}

    def fail(self, **request: Any) -> dict[str, Any]:
        raise NotImplementedError

    put_item = delete_item = query = fail

    def close(self) -> None:
        """Do nothing."""


def make_item(key: Mapping[str, Any]) -> dict[str, Any]:
    return {**key, "version": {"S": "v"}, "body": {"S": "{}"}}


def open_store_on(client: DynamoDBClient) -> tuple[DynamoDBStore, Time]:
    time = Time()
    return DynamoDBStore(
        "table", retry_budget=RetryBudget(clock=time, sleep=time.sleep), connect=lambda region, retry_budget: client
    ), time


def test_missing_keys_of_a_batch_are_requested_at_once() -> None:
    """A response has at most 16 MB. The rest needs no pause."""
    client = ScriptedClient(40, 30)
    store, time = open_store_on(client)
    assert {*store.get_many(KEYS[:100])} == {*KEYS[:100]}
    assert [len(keys) for keys in client.requests] == [100, 60, 30]
    assert time.now == 0


def test_an_unprocessed_batch_is_requested_after_a_pause() -> None:
    """DynamoDB is overloaded, and a request without a pause would not help."""
    client = ScriptedClient(40, 0, 0)
    store, time = open_store_on(client)
    assert {*store.get_many(KEYS[:100])} == {*KEYS[:100]}
    assert [len(keys) for keys in client.requests] == [100, 60, 60, 60]
    assert time.now > 0


def test_a_batch_that_is_never_processed_is_an_unavailable_store() -> None:
    """An incomplete result is never returned: a missing CA would mean a refusal."""
    client = ScriptedClient(40, *[0] * 1000)
    store, time = open_store_on(client)
    with pytest.raises(StoreUnavailable):
        store.get_many(KEYS[:100])
    assert time.now <= 1.8


def test_more_than_a_hundred_keys_are_requested_in_batches() -> None:
    """BatchGetItem accepts 100 keys."""
    client = ScriptedClient()
    store, _ = open_store_on(client)
    assert {*store.get_many(KEYS)} == {*KEYS}
    assert [len(keys) for keys in client.requests] == [100, 100, 50]
    assert sorted(key for keys in client.requests for key in keys) == [key.id for key in KEYS]


def test_reads_are_consistent() -> None:
    """A change takes effect at the next connection."""
    client = ScriptedClient(0)
    store, _ = open_store_on(client)
    store.get_many(KEYS)
    assert client.consistent == {True}


@pytest.mark.parametrize(
    ("code", "status", "attempts"),
    [
        ("ProvisionedThroughputExceededException", 400, 2),
        ("ThrottlingException", 400, 2),
        ("RequestLimitExceeded", 400, 2),
        ("InternalServerError", 500, 2),
        ("503", 503, 2),
        ("ResourceNotFoundException", 400, 1),
        ("AccessDeniedException", 400, 1),
        ("ExpiredTokenException", 400, 1),
    ],
)
def test_only_transient_errors_are_retried(code: str, status: int, attempts: int) -> None:
    """A retry after any other error cannot succeed."""
    failure = ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "BatchGetItem")
    client = ScriptedClient(failure)
    store, _ = open_store_on(client)
    if attempts == 1:
        with pytest.raises(StoreUnavailable) as caught:
            store.get_many(KEYS[:1])
        assert caught.value.__cause__ is failure
    else:
        assert {*store.get_many(KEYS[:1])} == {KEYS[0]}
    assert len(client.requests) == attempts


def test_without_credentials_the_store_is_unavailable() -> None:
    """The error is the same as for an outage."""
    store, _ = open_store_on(ScriptedClient(NoCredentialsError()))
    with pytest.raises(StoreUnavailable):
        store.get_many(KEYS[:1])


def test_an_invalid_request_is_not_an_outage() -> None:
    """A defect of the adapter must not look like a temporary failure."""
    store, _ = open_store_on(ScriptedClient(ClientError({"Error": {"Code": "ValidationException"}}, "BatchGetItem")))
    with pytest.raises(ClientError):
        store.get_many(KEYS[:1])


@pytest.mark.stores("dynamodb", "dynalite")
def test_the_expiry_is_seconds_in_the_time_to_live_attribute(place: Place) -> None:
    """DynamoDB requires seconds since 1970. A document without an expiry does not have the attribute."""
    assert isinstance(place, DynamoDB)
    store = open_store(place)
    key = Key("org", "mtxpd0")
    version = store.put(key, {}, expected=None, expires=datetime(2026, 6, 1, 12, tzinfo=UTC))
    client = get_session().client("dynamodb", region_name=place.region)
    address = {"TableName": place.table, "Key": {"pk": {"S": "org"}, "sk": {"S": "mtxpd0"}}}
    assert client.get_item(**address)["Item"]["expires"] == {"N": "1780315200"}
    store.put(key, {}, expected=version)
    assert "expires" not in client.get_item(**address)["Item"]
    client.close()
    store.close()


@pytest.mark.stores("dynamodb", "dynalite")
def test_a_missing_table_is_an_unavailable_store(place: Place) -> None:
    """For reads and writes."""
    assert isinstance(place, DynamoDB)
    store = DynamoDBStore("no-such-table", place.region, retry_budget=RetryBudget(60))
    with pytest.raises(StoreUnavailable):
        store.get_many([Key("org", "mtxpd0")])
    with pytest.raises(StoreUnavailable):
        store.put(Key("org", "mtxpd0"), {}, expected=None)
    store.close()
