"""What is DynamoDB's alone: batches answered in part, its error codes, its time to live."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from shared.adapters.dynamodb_store import Client, DynamoDBStore, session
from shared.adapters.patience import RetryBudget
from shared.config import DynamoDB
from shared.errors import StoreUnavailable
from shared.ports import Key
from tests.adapters.faults import Time
from tests.stores import Place, open_store

KEYS = [Key("ca/mtxpd0", f"{n:03}") for n in range(250)]


class Answering:
    """A client whose batches are answered by a list of steps: each takes the keys asked for and says how many are
    processed, or is an error."""

    def __init__(self, *steps: int | Exception) -> None:
        self.steps = list(steps)
        self.asked: list[list[str]] = []
        self.consistent: set[bool] = set()

    def batch_get_item(self, **request: Any) -> dict[str, Any]:
        [[table, batch]] = request["RequestItems"].items()
        keys = batch["Keys"]
        self.asked.append([key["sk"]["S"] for key in keys])
        self.consistent.add(batch["ConsistentRead"])
        step = self.steps.pop(0) if self.steps else len(keys)
        if isinstance(step, Exception):
            raise step
        rest = {table: {**batch, "Keys": keys[step:]}} if keys[step:] else {}
        return {"Responses": {table: [item(key) for key in keys[:step]]}, "UnprocessedKeys": rest}

    def other(self, **request: Any) -> dict[str, Any]:
        raise NotImplementedError

    get_item = put_item = delete_item = query = other

    def close(self) -> None:
        """Nothing is held."""


def item(key: Mapping[str, Any]) -> dict[str, Any]:
    return {**key, "version": {"S": "v"}, "body": {"S": "{}"}}


def store_of(client: Client) -> tuple[DynamoDBStore, Time]:
    time = Time()
    return DynamoDBStore(
        "table", patience=RetryBudget(clock=time, sleep=time.sleep), connect=lambda region, patience: client
    ), time


def test_keys_that_were_left_out_are_asked_for_again_at_once() -> None:
    """An answer holds 16 MB: what did not fit is no reason to wait."""
    client = Answering(40, 30)
    store, time = store_of(client)
    assert {*store.get_many(KEYS[:100])} == {*KEYS[:100]}
    assert [len(keys) for keys in client.asked] == [100, 60, 30]
    assert time.now == 0


def test_a_batch_of_which_nothing_was_processed_is_asked_for_again_after_a_pause() -> None:
    """DynamoDB is busy: asking at once would keep it so."""
    client = Answering(40, 0, 0)
    store, time = store_of(client)
    assert {*store.get_many(KEYS[:100])} == {*KEYS[:100]}
    assert [len(keys) for keys in client.asked] == [100, 60, 60, 60]
    assert time.now > 0


def test_a_batch_of_which_nothing_is_ever_processed_is_given_up() -> None:
    """Half an answer is none: a CA that is not there would be a refusal."""
    client = Answering(40, *[0] * 1000)
    store, time = store_of(client)
    with pytest.raises(StoreUnavailable):
        store.get_many(KEYS[:100])
    assert time.now <= 1.8


def test_more_than_a_hundred_keys_are_asked_for_by_the_hundred() -> None:
    client = Answering()
    store, _ = store_of(client)
    assert {*store.get_many(KEYS)} == {*KEYS}
    assert [len(keys) for keys in client.asked] == [100, 100, 50]
    assert sorted(key for keys in client.asked for key in keys) == [key.id for key in KEYS]


def test_reads_are_consistent() -> None:
    """A change is in force at the next connection."""
    client = Answering(0)
    store, _ = store_of(client)
    store.get_many(KEYS)
    assert client.consistent == {True}


@pytest.mark.parametrize(
    ("code", "status", "tries"),
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
def test_only_what_can_pass_is_tried_again(code: str, status: int, tries: int) -> None:
    failure = ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "BatchGetItem")
    client = Answering(failure)
    store, _ = store_of(client)
    if tries == 1:
        with pytest.raises(StoreUnavailable) as caught:
            store.get_many(KEYS[:1])
        assert caught.value.__cause__ is failure
    else:
        assert {*store.get_many(KEYS[:1])} == {KEYS[0]}
    assert len(client.asked) == tries


def test_without_credentials_the_store_is_unavailable() -> None:
    store, _ = store_of(Answering(NoCredentialsError()))
    with pytest.raises(StoreUnavailable):
        store.get_many(KEYS[:1])


def test_a_question_that_dynamodb_does_not_understand_is_a_mistake_of_ours() -> None:
    """It must not look like an outage that passes."""
    store, _ = store_of(Answering(ClientError({"Error": {"Code": "ValidationException"}}, "BatchGetItem")))
    with pytest.raises(ClientError):
        store.get_many(KEYS[:1])


@pytest.mark.stores("dynamodb", "dynalite")
def test_expiry_is_seconds_in_the_attribute_that_time_to_live_reads(place: Place) -> None:
    """DynamoDB takes a number of seconds and nothing else; what has no expiry has no such attribute."""
    assert isinstance(place, DynamoDB)
    store = open_store(place)
    key = Key("org", "mtxpd0")
    version = store.put(key, {}, expected=None, expires=datetime(2026, 6, 1, 12, tzinfo=UTC))
    client = session().client("dynamodb", region_name=place.region)
    address = {"TableName": place.table, "Key": {"pk": {"S": "org"}, "sk": {"S": "mtxpd0"}}}
    assert client.get_item(**address)["Item"]["expires"] == {"N": "1780315200"}
    store.put(key, {}, expected=version)
    assert "expires" not in client.get_item(**address)["Item"]
    client.close()
    store.close()


@pytest.mark.stores("dynamodb", "dynalite")
def test_a_table_that_is_not_there_is_an_unavailable_store(place: Place) -> None:
    assert isinstance(place, DynamoDB)
    store = DynamoDBStore("no-such-table", place.region, patience=RetryBudget(60))
    with pytest.raises(StoreUnavailable):
        store.get_many([Key("org", "mtxpd0")])
    with pytest.raises(StoreUnavailable):
        store.put(Key("org", "mtxpd0"), {}, expected=None)
    store.close()
