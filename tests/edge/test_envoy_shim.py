"""The shim's answer to Envoy, from a verdict of the functions. tests/e2e/test_envoy.py runs both."""

from typing import Any

import pytest
from envoy.service.auth.v3 import external_auth_pb2 as messages
from google.rpc import code_pb2

from edge.api import Unavailable
from edge.envoy_shim import Authorization

IDENTITY = {"class": "d", "typeId": "thermo", "deviceId": "42"}
ALLOW = {"decision": "allow", "code": "allowed", "orgId": "alpha1", "identity": IDENTITY}


class Api:
    """Functions that answer with one verdict."""

    def __init__(self, verdict: Any) -> None:
        self.verdict = verdict
        self.asked: list[Any] = []

    def request_json(self, method: str, path: str, body: Any) -> Any:
        self.asked.append(body)
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


def check(verdict: Any) -> messages.CheckResponse:
    request = messages.CheckRequest()
    request.attributes.tls_session.sni = "alpha1.messaging.example.com"
    return Authorization(Api(verdict)).Check(request, None)  # type: ignore[arg-type]


def test_envoy_gets_the_organization_with_the_device() -> None:
    """As dynamic metadata, for access logs and for what Envoy sends to the broker before the first byte of MQTT."""
    response = check(ALLOW)
    assert response.status.code == code_pb2.OK
    assert dict(response.dynamic_metadata) == {"client_id": "d:alpha1:thermo:42", "org": "alpha1"}


def test_a_verdict_without_identity_names_no_client() -> None:
    assert not dict(check({**ALLOW, "identity": None}).dynamic_metadata)
    assert not dict(check({**ALLOW, "orgId": None}).dynamic_metadata)


@pytest.mark.parametrize(
    "verdict",
    [{**ALLOW, "decision": "continue"}, {**ALLOW, "decision": "deny"}, {}, [], "allow", Unavailable("away")],
    ids=str,
)
def test_everything_but_allow_is_a_refusal(verdict: Any) -> None:
    response = check(verdict)
    assert response.status.code == code_pb2.PERMISSION_DENIED
    assert not dict(response.dynamic_metadata)
