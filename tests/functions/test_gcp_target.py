"""functions-framework's requests to ours (functions/hosts/gcp.py); the container's tests run the framework itself."""

import asyncio
from pathlib import Path
from typing import Any

import functions_framework
import pytest
from msgspec import structs

from functions.hosts import process
from shared.errors import StoreUnavailable
from tests.harness import Client, Service, basic

MAIN = Path(__file__).parents[2] / "main.py"


def ask(target: str, method: str, path: str, client: Client, **headers: str) -> tuple[int, bytes]:
    """(status, body) by the framework's own application, as uvicorn would ask it for a client on this machine."""
    create_app: Any = functions_framework.create_app
    sent = {"authorization": basic(client.key, client.token), **headers}
    scope = {
        "type": "http",
        "method": method,
        "scheme": "https",  # what uvicorn makes of a header, where it believes who connects
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        "client": ("127.0.0.1", 1),
    }
    told: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        told.append(message)

    asyncio.run(create_app(target, str(MAIN))(scope, receive, send))
    return told[0]["status"], told[1]["body"]


@pytest.mark.parametrize("behind_tls", [True, False])
def test_private_keys_are_handed_out_where_the_operator_says_that_tls_ends_before(
    service: Service, monkeypatch: pytest.MonkeyPatch, behind_tls: bool
) -> None:
    """Neither a header of the client's own nor the address of a sidecar says so."""
    settings = structs.replace(service.app.settings, behind_tls=behind_tls)
    monkeypatch.setattr(process, "_app", structs.replace(service.app, settings=settings))
    edge = service.client("edge")
    lies = {"x-forwarded-proto": "https", "x-forwarded-for": "127.0.0.1"}
    status, body = ask("edgeFeed", "GET", f"/edge/v1/hosts/{service.host()}", edge, **lies)
    assert (status, b"PRIVATE KEY" in body) == ((200, True) if behind_tls else (403, False))


def test_a_failure_before_dispatch_is_told_in_the_brokers_words(
    broker: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The framework's own 500 would be EMQX's leave to ask the next authenticator, or to let in."""

    def no_app() -> None:
        raise StoreUnavailable

    monkeypatch.setattr(process, "_app", None)
    monkeypatch.setattr(process, "app", no_app)
    assert ask("verifyClient", "POST", "/verifyClient/emqx", broker) == (200, b'{"result":"deny"}')
