"""functions/hosts/aws.py converts Lambda's events to requests, and replies to the gateway's format."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from functions.hosts import aws, process
from functions.web.body import BODY_MAX
from shared import config
from shared.errors import StoreUnavailable
from tests.infra.lambdas import event
from tests.support import certs
from tests.support.harness import Client, Service

ROOT = Path(__file__).parents[2]
CONTEXT = SimpleNamespace(aws_request_id="4f6a2c1e-0000-4000-8000-000000000001")


@pytest.fixture(autouse=True)
def _app(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's App takes the place of the process's App."""
    monkeypatch.setattr(process, "_app", service.app)


def key(client: Client) -> tuple[str, str]:
    return client.key, client.token


def test_an_upload_and_its_verdict(operator: Client, broker: Client, service: Service) -> None:
    """A CA is registered by one function, and its device is allowed by another."""
    root = certs.ca()
    body = json.dumps({"certificate": root.pem})
    made = aws.upload_ca(event("POST", "/api/v0002/uploadCA", body, key=key(operator)), CONTEXT)
    assert made["statusCode"] == 201
    assert made["headers"]["etag"].startswith('"')
    question = {
        "serverName": service.host(),
        "clientId": "d:mtxpd0:thermo:42",
        "certificate": certs.leaf("d:thermo:42", root).pem,
    }
    path = "/api/v0002/authorization/verifyclient"
    answer = aws.verify_client(event("POST", path, json.dumps(question), key=key(broker)), CONTEXT)
    assert json.loads(answer["body"])["decision"] == "allow"


def test_a_file_in_a_form_arrives_in_base64(operator: Client) -> None:
    """The gateway encodes binary bodies in base64; they are decoded first."""
    from tests.support.harness import multipart

    content_type, body = multipart({"certificate": certs.ca().der})
    headers = {"Content-Type": content_type}
    made = aws.upload_ca(event("POST", "/uploadCA", body, headers=headers, key=key(operator)), CONTEXT)
    assert made["statusCode"] == 201


def test_text_is_answered_as_text_and_never_in_base64(operator: Client) -> None:
    """PEM and JSON pass through the gateway unchanged."""
    body = json.dumps({"certificate": certs.ca().pem})
    made = json.loads(aws.upload_ca(event("POST", "/uploadCA", body, key=key(operator)), CONTEXT)["body"])
    path = f"/api/v0002/authentication/cacertificates/{made['id']}/pem"
    pem = aws.manage_certificates(event("GET", path, key=key(operator)), CONTEXT)
    assert pem["isBase64Encoded"] is False
    assert pem["body"].startswith("-----BEGIN CERTIFICATE-----")


def test_binary_content_is_answered_in_base64() -> None:
    """Bytes would not survive as a JSON string."""
    from functions.web.message import Reply

    answer = aws.encode_reply(Reply(200, b"\xff\x00", "application/octet-stream"))
    assert answer["isBase64Encoded"] is True
    assert base64.b64decode(answer["body"]) == b"\xff\x00"


def test_an_answer_without_content_has_no_content_type(operator: Client) -> None:
    """204 (RFC 9110, section 15.3.5)."""
    body = json.dumps({"certificate": certs.ca().pem})
    made = json.loads(aws.upload_ca(event("POST", "/uploadCA", body, key=key(operator)), CONTEXT)["body"])
    path = f"/api/v0002/authentication/cacertificates/{made['id']}"
    headers = {"If-Match": "*"}
    gone = aws.manage_certificates(event("DELETE", path, headers=headers, key=key(operator)), CONTEXT)
    assert (gone["statusCode"], gone["body"]) == (204, "")
    assert "content-type" not in gone["headers"]


def test_the_query_is_decoded_once(operator: Client) -> None:
    """rawQueryString is as the client sent it: `%2B` is a plus, and `%252B` is `%2B`."""
    sent = event("GET", "/api/v0002/activity", query={"kind": "nothing+like%2Bit"}, key=key(operator))
    answer = aws.activity_log(sent, CONTEXT)
    assert answer["statusCode"] == 400


@pytest.mark.parametrize(
    ("sent", "meant"),
    [("/a/x%20y", "/a/x%20y"), ("/a/x%2Fy", "/a/x/y"), ("/a/100%25", "/a/100%25"), ("/a/%C3%BC", "/a/%C3%BC")],
)
def test_a_path_that_the_gateway_decoded_is_not_decoded_again(sent: str, meant: str) -> None:
    """An HTTP API's rawPath is decoded, so a percent sign in a name stays one.

    An encoded slash has become a separator, and so finds no record rather than another record.
    """
    assert aws.request_of(event("GET", sent), CONTEXT).path == meant


def test_a_function_urls_path_is_as_it_was_sent() -> None:
    """Function URLs of Lambda pass rawPath encoded (domain …lambda-url….on.aws)."""
    sent = event("GET", "/")
    sent["rawPath"] = "/a/x%2Fy"
    sent["requestContext"]["domainName"] = "id.lambda-url.us-east-1.on.aws"
    assert aws.request_of(sent, CONTEXT).path == "/a/x%2Fy"


def test_a_stages_name_is_not_part_of_the_path() -> None:
    """The gateway prefixes the name of a stage other than $default."""
    sent = event("GET", "/prod/healthz")
    sent["requestContext"]["stage"] = "prod"
    assert aws.request_of(sent, CONTEXT).path == "/healthz"
    sent["rawPath"] = "/products"
    assert aws.request_of(sent, CONTEXT).path == "/products"


@pytest.mark.parametrize(
    ("path", "stage", "url", "page"),
    [
        ("/prod/uploadCA", "prod", None, "/prod/docs/errors/not_authenticated"),
        ("/uploadCA", "$default", None, "/docs/errors/not_authenticated"),
        ("/uploadCA", "prod", None, "/docs/errors/not_authenticated"),  # a custom domain that maps to the stage
        ("/prod/uploadCA", "prod", "https://t.example.com", "https://t.example.com/docs/errors/not_authenticated"),
    ],
)
def test_the_page_of_a_refusal_is_behind_the_stage(
    service: Service, monkeypatch: pytest.MonkeyPatch, path: str, stage: str, url: str | None, page: str
) -> None:
    """`type` is relative to the host of the call (RFC 9457, 3.1.1): a client finds the page. TRUST_URL overrides."""
    if url is not None:
        monkeypatch.setenv("TRUST_URL", url)
    config.base_url.cache_clear()
    sent = event("POST", path, "{}")
    sent["requestContext"]["stage"] = stage
    answer = aws.upload_ca(sent, CONTEXT)
    config.base_url.cache_clear()
    assert (answer["statusCode"], json.loads(answer["body"])["type"]) == (401, page)


def test_cookies_are_added_to_the_headers() -> None:
    """Payload format 2.0 has them in a field of their own; RFC 6265, section 5.4 joins them with a semicolon."""
    sent = {**event("GET", "/healthz"), "cookies": ["a=1", "b=2"]}
    assert aws.request_of(sent, CONTEXT).headers["cookie"] == "a=1; b=2"


def test_the_request_id_is_the_platforms() -> None:
    """A line of the log can be found by the id in Lambda's own log; a client cannot set the id."""
    sent = event("GET", "/healthz", headers={"X-Request-Id": "mine"})
    assert aws.request_of(sent, CONTEXT).headers["x-request-id"] == CONTEXT.aws_request_id


@pytest.mark.parametrize("body", ["x" * (2 * BODY_MAX), b"x" * (BODY_MAX + 1)], ids=["text", "base64"])
def test_a_body_beyond_the_limit_is_refused(operator: Client, body: Any) -> None:
    """413, as on every host."""
    assert aws.upload_ca(event("POST", "/uploadCA", body, key=key(operator)), CONTEXT)["statusCode"] == 413


def test_a_body_that_is_not_base64_as_announced_is_refused(operator: Client) -> None:
    """The answer is 400, not an exception."""
    sent = {**event("POST", "/uploadCA", "!!", key=key(operator)), "isBase64Encoded": True}
    answer = aws.upload_ca(sent, CONTEXT)
    assert (answer["statusCode"], json.loads(answer["body"])["code"]) == (400, "malformed_body")


def test_a_failure_before_dispatch_is_answered_in_the_brokers_dialect(
    broker: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the gateway's own 500, EMQX would ask its next authenticator, or admit the client."""

    def no_app() -> None:
        raise StoreUnavailable

    monkeypatch.setattr(process, "app", no_app)
    answer = aws.verify_client(event("POST", "/verifyClient/emqx", "{}", key=key(broker)), CONTEXT)
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, {"result": "deny"})
    native = aws.verify_client(event("POST", "/verifyClient", "{}", key=key(broker)), CONTEXT)
    assert (native["statusCode"], json.loads(native["body"])["code"]) == (200, "unavailable")


def test_aws_iot_invokes_the_function_itself(operator: Client, service: Service) -> None:
    """A custom authorizer's event does not pass a gateway; the permission to invoke is the caller's authentication."""
    root = certs.ca()
    aws.upload_ca(event("POST", "/uploadCA", json.dumps({"certificate": root.pem}), key=key(operator)), CONTEXT)
    context = SimpleNamespace(invoked_function_arn="arn:aws:lambda:eu-central-1:123456789012:function:verifyClient")
    data = {
        "tls": {"serverName": service.host(), "x509CertificatePem": certs.leaf("d:thermo:42", root).pem},
        "mqtt": {"clientId": "d:mtxpd0:thermo:42"},
    }
    answer = aws.verify_client({"protocolData": data}, context)
    assert answer["isAuthenticated"] is True
    assert "arn:aws:iot:eu-central-1:123456789012:client/d:mtxpd0:thermo:42" in json.dumps(answer["policyDocuments"])
    stranger = {**data, "mqtt": {"clientId": "d:mtxpd0:thermo:43"}}
    assert aws.verify_client({"protocolData": stranger}, context)["isAuthenticated"] is False


def test_an_edge_may_fetch_keys_through_the_gateway(service: Service) -> None:
    """An HTTP API is reachable over TLS only."""
    edge = service.client("edge")
    answer = aws.edge_feed(event("GET", f"/edge/v1/hosts/{service.host()}", key=key(edge)), CONTEXT)
    assert (answer["statusCode"], answer["headers"]["cache-control"]) == (200, "no-store")
    assert json.loads(answer["body"])["privateKey"].startswith("-----BEGIN PRIVATE KEY-----")


def test_another_functions_address_is_not_found(operator: Client) -> None:
    """A function that is deployed alone answers its own routes only."""
    answer = aws.upload_ca(event("GET", "/api/v0002/activity", key=key(operator)), CONTEXT)
    assert answer["statusCode"] == 404


def test_another_function_has_no_dialects(operator: Client) -> None:
    """A function that is deployed alone lacks verifyClient's modules, so the address is not found, like any other."""
    answer = aws.upload_ca(event("POST", "/verifyClient/emqx", "{}", key=key(operator)), CONTEXT)
    assert (answer["statusCode"], json.loads(answer["body"])["code"]) == (404, "not_found")


_HEALTH = """
import json, sys
from functions.hosts import aws
class Context: aws_request_id = "1"
print([aws.health(event, Context())["statusCode"] for event in json.load(sys.stdin)])
"""


def ask_health(**settings: str) -> subprocess.CompletedProcess[str]:
    """Ask the function health for its own and for an unknown address, in a process of its own."""
    events = [event("GET", "/healthz"), event("GET", "/nowhere")]
    environment = {"PYTHONPATH": str(ROOT), **settings}
    return subprocess.run(
        [sys.executable, "-c", _HEALTH], input=json.dumps(events), env=environment, capture_output=True, text=True
    )


def test_health_writes_the_access_log_as_every_function() -> None:
    """It builds no App, and every unknown address of the gateway leads to it."""
    done = ask_health()
    assert done.stdout == "[200, 404]\n", done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["logger"], line["status"], line["request_id"]) for line in lines] == [
        ("trust.access", 200, "1"),
        ("trust.access", 404, "1"),
    ]


def test_health_respects_the_level_of_the_log_and_refuses_a_wrong_setting() -> None:
    """As every function: an invalid setting is a 500 with a problem document."""
    assert ask_health(TRUST_LOG="WARNING").stderr == ""
    assert ask_health(TRUST_STORE="nonsense").stdout == "[500, 500]\n"
