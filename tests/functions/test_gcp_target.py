"""functions-framework's targets (functions/hosts/gcp.py, main.py); the container's tests run the framework itself."""

import asyncio
import importlib.util
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import functions_framework
import pytest
from msgspec import structs

from functions.hosts import process
from functions.registry import FUNCTIONS
from shared.errors import StoreUnavailable
from tests.support.harness import Client, Service, basic

MAIN = Path(__file__).parents[2] / "main.py"


def ask(target: str, method: str, path: str, client: Client, **headers: str) -> tuple[int, bytes]:
    """Return (status, body) of the framework's own application, for a client on this machine."""
    create_app: Any = functions_framework.create_app
    sent = {"authorization": basic(client.key, client.token), **headers}
    scope = {
        "type": "http",
        "method": method,
        "scheme": "https",  # as uvicorn sets it from a header of a trusted proxy
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        "client": ("127.0.0.1", 1),
    }
    messages: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        messages.append(message)

    asyncio.run(create_app(target, str(MAIN))(scope, receive, send))
    return messages[0]["status"], messages[1]["body"]


def load_main() -> Any:
    """Load main.py as functions-framework does."""
    spec = importlib.util.spec_from_file_location("main", MAIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_main_has_every_target_and_no_other() -> None:
    """Each function of the registry, and the service with all of them, is an attribute that the framework can call."""
    main = load_main()
    for function in FUNCTIONS:
        assert isinstance(getattr(main, function.name), types.FunctionType)
    assert isinstance(main.service, types.FunctionType)
    for unknown in ("verify_client", "Settings", "nothing"):
        assert not hasattr(main, unknown)


def test_main_imports_no_module_of_a_function() -> None:
    """A target loads its own modules when the framework asks for it. The collector alone is paused before."""
    code = "import main, sys; print([name for name in sys.modules if name.startswith('functions')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=MAIN.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(["functions", "functions.hosts", "functions.hosts.collector"])


@pytest.mark.parametrize("behind_tls", [True, False])
def test_private_keys_are_exported_if_the_operator_says_that_tls_ends_in_front(
    service: Service, monkeypatch: pytest.MonkeyPatch, behind_tls: bool
) -> None:
    """A header of the client or the address of a sidecar is no evidence of TLS."""
    settings = structs.replace(service.app.settings, behind_tls=behind_tls)
    monkeypatch.setattr(process, "_app", structs.replace(service.app, settings=settings))
    edge = service.client("edge")
    lies = {"x-forwarded-proto": "https", "x-forwarded-for": "127.0.0.1"}
    status, body = ask("edgeFeed", "GET", f"/edge/v1/hosts/{service.host()}", edge, **lies)
    assert (status, b"PRIVATE KEY" in body) == ((200, True) if behind_tls else (403, False))


def test_a_failure_before_dispatch_is_answered_in_the_brokers_dialect(
    broker: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the framework's own 500, EMQX would ask its next authenticator, or admit the client."""

    def no_app() -> None:
        raise StoreUnavailable

    monkeypatch.setattr(process, "_app", None)
    monkeypatch.setattr(process, "app", no_app)
    assert ask("verifyClient", "POST", "/verifyClient/emqx", broker) == (200, b'{"result":"deny"}')
