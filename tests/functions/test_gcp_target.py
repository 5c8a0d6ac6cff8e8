"""functions-framework's requests to ours (functions/gcp.py); the container's tests run the framework itself."""

import asyncio
import dataclasses
import json
from typing import Any

import pytest

from functions import gcp, process
from shared.errors import StoreUnavailable
from tests.harness import Client, Service, basic


def ask(target: str, method: str, path: str, client: Client, **headers: str) -> tuple[int, bytes]:
    """One request over ASGI, as from a sidecar on this machine. Returns status and body."""
    sent: list[Any] = []
    given = {"Authorization": basic(client.key, client.token), **headers}

    async def run() -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 1),
        }
        answer = await gcp.target(target)(None)
        await answer(scope, receive, send)

    asyncio.run(run())
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize("behind_tls", [True, False])
def test_private_keys_are_handed_out_where_the_operator_says_that_tls_ends_before(
    service: Service, monkeypatch: pytest.MonkeyPatch, behind_tls: bool
) -> None:
    """Neither a header of the client's own nor the address of a sidecar says so."""
    settings = dataclasses.replace(service.app.settings, behind_tls=behind_tls)
    monkeypatch.setattr(process, "_app", dataclasses.replace(service.app, settings=settings))
    edge = service.client("edge")
    lies = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1"}
    status, body = ask("edgeFeed", "GET", f"/edge/v1/hosts/{service.host()}", edge, **lies)
    assert (status, b"PRIVATE KEY" in body) == ((200, True) if behind_tls else (403, False))


def test_a_failure_before_dispatch_is_told_in_the_brokers_words(
    broker: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The framework's own 500 would be EMQX's leave to ask the next authenticator, or to let in."""

    def no_app() -> None:
        raise StoreUnavailable

    monkeypatch.setattr(process, "built", lambda: None)
    monkeypatch.setattr(process, "app", no_app)
    status, body = ask("verifyClient", "POST", "/verifyClient/emqx", broker)
    assert (status, json.loads(body)) == (200, {"result": "deny"})
