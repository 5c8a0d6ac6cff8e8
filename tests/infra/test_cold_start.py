"""What people wait for at a cold start: the modules that each function loads in a fresh interpreter, on each store."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from functions.registry import Trigger
from infra.table import FUNCTIONS

# Nothing of these has a place in an HTTP function on Lambda, whatever the store.
NEVER = frozenset(
    (
        *("flask", "werkzeug", "functions_framework", "gunicorn", "grpc", "google", "uvicorn", "starlette", "uvloop"),
        *("httptools", "click", "python_multipart", "requests", "moto"),
    )
)
BOTO = frozenset(("boto3", "botocore"))
HTTP = [one for one in FUNCTIONS if one.trigger is Trigger.HTTP]

# Imports the handler as Lambda's runtime does, then makes a call of verifyClient, which builds the App.
# Modules that .pth files of site-packages load at the interpreter's start belong to the test machine, not the function.
_BOOT = """
import importlib, json, sys
before = set(sys.modules)
module, _, name = sys.argv[1].rpartition(".")
handle = getattr(importlib.import_module(module.replace("/", ".")), name)
imported = sorted(set(sys.modules) - before)
if sys.argv[2] == "call":
    class Context: aws_request_id = "1"
    http = {"method": "POST", "path": "/verifyClient"}
    event = {"rawPath": "/verifyClient", "rawQueryString": "", "headers": {}, "requestContext": {"http": http}}
    assert handle(event, Context())["statusCode"] == 401
print(json.dumps([imported, sorted(set(sys.modules) - before)]))
"""

STORES = {
    "sqlite": ("sqlite_store", {}),
    "dynamodb": ("dynamodb_store", {"TRUST_STORE": "dynamodb://documents?region=us-east-1"}),
}


def loaded(handler: str, data: Path, settings: dict[str, str], *, call: bool) -> tuple[set[str], set[str]]:
    """Top-level modules after the import of *handler*, and after its first call."""
    environment = {"TRUST_DATA": str(data), "PYTHONPATH": str(Path(__file__).parents[2]), **settings}
    command = [sys.executable, "-c", _BOOT, handler, "call" if call else "import"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported, called = json.loads(done.stdout)
    return {one.partition(".")[0] for one in imported}, {one.partition(".")[0] for one in called}


@pytest.mark.parametrize("function", HTTP, ids=lambda one: one.name)
def test_importing_a_handler_loads_no_store_and_no_framework(function: object, tmp_path: Path) -> None:
    """Before the first call: no client of any store, no web framework, no server, no form parser."""
    imported, _ = loaded(function.lambda_handler, tmp_path, {}, call=False)  # type: ignore[attr-defined]
    assert imported.isdisjoint(NEVER | BOTO | {"sqlite3"})


@pytest.mark.parametrize("store", STORES)
def test_verify_client_loads_the_client_of_its_own_store_alone(store: str, tmp_path: Path) -> None:
    """After the first call: sqlite3 where SQLite is the store, boto3 where DynamoDB is, and never the other's."""
    _, settings = STORES[store]
    imported, called = loaded("functions/hosts/aws.verify_client", tmp_path, settings, call=True)
    assert imported.isdisjoint(NEVER | BOTO | {"sqlite3"})
    assert called.isdisjoint(NEVER)
    assert ("sqlite3" in called) == (store == "sqlite")
    if store == "sqlite":
        assert called.isdisjoint(BOTO)


def test_a_handler_loads_its_own_functions_module_alone(tmp_path: Path) -> None:
    """Other functions' modules stay on the disk until their own process asks for them."""
    data = tmp_path / "data"
    environment = {"TRUST_DATA": str(data), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", _BOOT, "functions/hosts/aws.verify_client", "call"],
        env=environment,
        capture_output=True,
        text=True,
    )
    _, called = json.loads(done.stdout)
    others = {name for name in called if name.startswith(("functions.api.", "functions.events."))}
    assert others.isdisjoint(called)
