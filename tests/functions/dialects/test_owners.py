"""Whose share of the workers a question takes: the organization of the key, or the one that the client names."""

import json

import pytest

from functions.registry import DIALECTS, dialect_at
from functions.web.message import build_request
from tests.support.harness import basic

ORG_KEY = basic("a-mtxpd0-0123456789", "token")
PLATFORM_KEY = basic("p-0123456789", "token")
HOST = "beta01.messaging.example.com"
CLIENT_ID = "d:beta01:thermo:42"
IOT_EVENT = {"protocolData": {"tls": {"serverName": HOST, "x509CertificatePem": "x"}, "mqtt": {"clientId": "d:c:d"}}}


def owner(dialect: str, body: object = b"", *, query: str = "", method: str = "POST", **headers: str) -> str:
    """Return the owner of a question with a platform key, unless another is in *headers*."""
    sent = {"authorization": PLATFORM_KEY, "content-type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return dialect_at(DIALECTS[dialect]).owner(build_request(method, "/verifyClient", query, sent, encoded))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_key_of_an_organization_names_the_owner_in_every_dialect(dialect: str) -> None:
    assert owner(dialect, {"serverName": HOST, "clientId": CLIENT_ID}, authorization=ORG_KEY, x_sni=HOST) == "mtxpd0"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"serverName":7}', b'{"clientId":[]}'])
def test_a_question_that_names_no_organization_has_the_owner_of_all_such_questions(dialect: str, body: bytes) -> None:
    assert owner(dialect, body) == ""
    assert owner(dialect, body, authorization="Basic ?") == ""
    assert owner(dialect, body, content_type="application/x-www-form-urlencoded") == ""


def test_with_a_platform_key_the_client_names_the_owner() -> None:
    """The server name first, as in a verdict (step 1)."""
    assert owner("", {"serverName": HOST, "clientId": "d:other1:thermo:42", "certificateDer": "x" * 90_000}) == "beta01"
    assert owner("", {"clientId": CLIENT_ID}) == "beta01"
    assert owner("", {"serverName": "mqtt.example.com", "clientId": CLIENT_ID}) == ""
    assert owner("emqx", {"serverName": HOST, "clientid": "x"}) == "beta01"
    assert owner("emqx", {"serverName": "undefined", "clientid": CLIENT_ID}) == "beta01"
    assert owner("emqx", query=f"clientid={CLIENT_ID}", method="GET") == "beta01"
    form = f"cert_pem=x&serverName={HOST}&clientid=d%3Aother1%3Athermo%3A42"
    assert owner("emqx", form.encode(), content_type="application/x-www-form-urlencoded") == "beta01"
    assert owner("nginx", x_sni=HOST, x_client_id="d:other1:thermo:42") == "beta01"
    assert owner("nginx", x_client_id=CLIENT_ID) == "beta01"
    assert owner("envoy", x_sni=HOST) == "beta01"
    assert owner("envoy", host=f"{HOST}:443") == "beta01"
    assert owner("aws-iot", IOT_EVENT) == "beta01"
