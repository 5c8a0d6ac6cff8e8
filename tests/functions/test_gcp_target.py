"""functions-framework's requests to ours (functions/gcp.py); the container's tests run the framework itself."""

import base64
import dataclasses

import flask
import pytest

from functions import gcp, process
from shared.errors import StoreUnavailable
from tests.harness import Client, Service

APP = flask.Flask(__name__)


def ask(target: str, method: str, path: str, client: Client, **headers: str) -> flask.Response:
    basic = base64.b64encode(f"{client.key}:{client.token}".encode()).decode()
    sent = {"Authorization": f"Basic {basic}", **headers}
    with APP.test_request_context(path, method=method, headers=sent, environ_base={"REMOTE_ADDR": "127.0.0.1"}):
        return gcp.target(target)(flask.request)  # type: ignore[no-any-return]


@pytest.mark.parametrize("behind_tls", [True, False])
def test_private_keys_are_handed_out_where_the_operator_says_that_tls_ends_before(
    service: Service, monkeypatch: pytest.MonkeyPatch, behind_tls: bool
) -> None:
    """Neither a header of the client's own nor the address of a sidecar says so."""
    settings = dataclasses.replace(service.app.settings, behind_tls=behind_tls)
    monkeypatch.setattr(process, "_app", dataclasses.replace(service.app, settings=settings))
    edge = service.client("edge")
    lies = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1"}
    told = ask("edgeFeed", "GET", f"/edge/v1/hosts/{service.host()}", edge, **lies)
    assert (told.status_code, b"PRIVATE KEY" in told.data) == ((200, True) if behind_tls else (403, False))


def test_a_failure_before_dispatch_is_told_in_the_brokers_words(
    broker: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The framework's own 500 would be EMQX's leave to ask the next authenticator, or to let in."""

    def no_app() -> None:
        raise StoreUnavailable

    monkeypatch.setattr(process, "app", no_app)
    told = ask("verifyClient", "POST", "/verifyClient/emqx", broker)
    assert (told.status_code, told.get_json()) == (200, {"result": "deny"})
