"""The modules that each function loads in a fresh interpreter, on each store; they decide the time of a cold start."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from functions.registry import Trigger
from infra.table import BY_NAME, FUNCTIONS

# None of these modules has a place in an HTTP function on Lambda, on any store.
NEVER = frozenset(
    (
        *("flask", "werkzeug", "functions_framework", "gunicorn", "grpc", "google", "uvicorn", "starlette", "uvloop"),
        *("httptools", "click", "python_multipart", "requests", "moto"),
    )
)
BOTO = frozenset(("boto3", "botocore"))
HTTP = [function for function in FUNCTIONS if function.trigger is Trigger.HTTP]

# Import the handler as Lambda's runtime does, then call it until it answers. The first call builds the App.
# Modules that site-packages' .pth files load at the start belong to the test machine, not to the function.
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
    # Under load the first call can end at the deadline of a verdict, while the store's client is still being imported.
    status = handle(event, Context())["statusCode"]
    while status != 401:
        assert status == 200, status
        status = handle(event, Context())["statusCode"]
print(json.dumps([imported, sorted(set(sys.modules) - before)]))
"""

STORES = {
    "sqlite": ("sqlite_store", {}),
    "dynamodb": ("dynamodb_store", {"TRUST_STORE": "dynamodb://documents?region=us-east-1"}),
}


def load(handler: str, data: Path, settings: dict[str, str], *, call: bool) -> tuple[set[str], set[str]]:
    """Return the top-level modules after the import of *handler*, and after its first call."""
    own = {"TRUST_DATA": str(data), "TRUST_KEYS": f"local:{data}/keys", "PYTHONPATH": str(Path(__file__).parents[2])}
    environment = {**own, **settings}
    command = [sys.executable, "-c", _BOOT, handler, "call" if call else "import"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported, called = json.loads(done.stdout)
    return {name.partition(".")[0] for name in imported}, {name.partition(".")[0] for name in called}


@pytest.mark.parametrize("function", HTTP, ids=lambda function: function.name)
def test_importing_a_handler_loads_no_store_and_no_framework(function: object, tmp_path: Path) -> None:
    """Before the first call no store's client, web framework, server or form parser is loaded."""
    imported, _ = load(function.lambda_handler, tmp_path, {}, call=False)  # type: ignore[attr-defined]
    assert imported.isdisjoint(NEVER | BOTO | {"sqlite3"})


@pytest.mark.parametrize("name", ["console", "uploadCA"])
def test_importing_a_handler_loads_the_modules_of_its_function(name: str, tmp_path: Path) -> None:
    """They are loaded while Lambda initializes the process, and not by the first request."""
    function = BY_NAME[name]
    environment = {"TRUST_DATA": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", _BOOT, function.lambda_handler, "import"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    imported, _ = json.loads(done.stdout)
    assert set(function.function.modules) <= set(imported)


@pytest.mark.parametrize("store", STORES)
def test_verify_client_loads_the_client_of_its_own_store_only(store: str, tmp_path: Path) -> None:
    """After the first call sqlite3 is loaded for SQLite and boto3 for DynamoDB, and not the other."""
    _, settings = STORES[store]
    imported, called = load("functions/hosts/aws.verify_client", tmp_path, settings, call=True)
    assert imported.isdisjoint(NEVER | BOTO | {"sqlite3"})
    assert called.isdisjoint(NEVER)
    assert ("sqlite3" in called) == (store == "sqlite")
    if store == "sqlite":
        assert called.isdisjoint(BOTO)


def test_a_handler_loads_its_own_functions_modules_only(tmp_path: Path) -> None:
    """Modules of other functions are not loaded."""
    data = tmp_path / "data"
    environment = {"TRUST_DATA": str(data), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", _BOOT, "functions/hosts/aws.verify_client", "call"],
        env=environment,
        capture_output=True,
        text=True,
    )
    _, called = json.loads(done.stdout)
    assert [name for name in called if name.startswith(("functions.api.", "functions.events."))] == []
    dialects = {"functions.dialects.dialect", "functions.dialects.failing", "functions.dialects.native"}
    assert {name for name in called if name.startswith("functions.dialects.")} == dialects
