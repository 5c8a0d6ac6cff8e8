"""Empty stores, one for each test. `@pytest.mark.stores("sqlite", ...)` names the stores that a test runs on."""

import secrets
from pathlib import Path

import pytest

from shared.adapters.dynamodb_store import DynamoDBStore, get_session
from shared.adapters.firestore_store import FirestoreStore
from shared.adapters.retry_budget import RetryBudget
from shared.adapters.sqlite_store import SQLiteStore
from shared.config import DynamoDB, Firestore, SQLite
from shared.ports import DocumentStore
from tests.support.emulators import Emulators

EVERY_STORE = ("sqlite", "firestore", "dynamodb")  # the stores that tests of the service run on
TWICE_DYNAMODB = (*EVERY_STORE, "dynalite")  # moto and dynalite are independent implementations

Place = SQLite | Firestore | DynamoDB

_REGION = "eu-central-1"
_RETRY_SECONDS = 60.0  # seconds: the machine that runs the tests may be busy, and no device waits for an answer


def new_place(kind: str, folder: Path, emulators: Emulators, patch: pytest.MonkeyPatch) -> Place:
    """Create an empty place for one test's documents; *patch* points the vendors' clients at the emulator."""
    name = f"t{secrets.token_hex(8)}"
    match kind:
        case "sqlite":
            return SQLite(folder / "trust.db")
        case "firestore":
            patch.setenv("FIRESTORE_EMULATOR_HOST", emulators.address("firestore"))
            return Firestore(name, retry_budget=_RETRY_SECONDS)
        case "dynamodb" | "dynalite":
            address = emulators.address("moto" if kind == "dynamodb" else "dynalite")
            patch.setenv("AWS_ENDPOINT_URL_DYNAMODB", f"http://{address}")
            patch.setenv("AWS_ACCESS_KEY_ID", "test")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
            create_table(name)
            return DynamoDB(name, _REGION, retry_budget=_RETRY_SECONDS)
    raise ValueError(kind)


def open_store(place: Place) -> DocumentStore:
    """Open a new adapter on *place*, with connections of its own."""
    match place:
        case SQLite(path):
            return SQLiteStore(path)
        case Firestore(project, database, seconds):
            return FirestoreStore(project, database, retry_budget=RetryBudget(seconds))
        case DynamoDB(table, region, seconds):
            return DynamoDBStore(table, region, retry_budget=RetryBudget(seconds))


def create_table(name: str) -> None:
    """Create the table that dynamodb_store.py describes."""
    client = get_session().client("dynamodb", region_name=_REGION)
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
    )
    client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 300})  # seconds
    client.close()
