"""The webhook: signed messages, retries after temporary failures, and no redirects."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from shared.adapters.webhook import SignedWebhook
from shared.composition import webhook
from shared.config import Settings, WrongSetting
from shared.ports import WebhookFailed
from tests.support.emulators import free_port

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TEXT_SECRET = "sixteen bytes of a secret"


@dataclass
class Receiver:
    url: str = ""
    statuses: list[int] = field(default_factory=list)  # of the next responses; later responses have 200
    requests: list[tuple[dict[str, str], bytes, str]] = field(default_factory=list)  # headers, body, path


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.requests.append(({name.lower(): value for name, value in self.headers.items()}, body, self.path))
            status = receiver.statuses.pop(0) if receiver.statuses else 200
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", receiver.url + "/elsewhere")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - the method of a request after a redirect

    server = HTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield receiver
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Sender:
    pauses: list[float] = field(default_factory=list)

    def create(self, url: str, secret: str = SECRET, **more: Any) -> SignedWebhook:
        endpoint = Settings.from_env({"TRUST_WEBHOOK": url, "TRUST_WEBHOOK_SECRET": secret}).webhook
        assert endpoint is not None
        return SignedWebhook(endpoint.url, endpoint.secret, sleep=self.pauses.append, **more)


@pytest.fixture
def sender() -> Sender:
    return Sender()


def test_a_receiver_can_verify_a_message_with_the_standard_library(receiver: Receiver, sender: Sender) -> None:
    """The Python library of Standard Webhooks accepts id, timestamp and signature."""
    body = json.dumps({"type": "certificates.ending", "data": {"ü": 1}}).encode()
    sender.create(f"{receiver.url}/hook?tenant=1").send("msg_1", body)
    [(headers, received, path)] = receiver.requests
    assert (received, path, headers["content-type"]) == (body, "/hook?tenant=1", "application/json")
    assert Webhook(SECRET).verify(received.decode(), headers) == json.loads(body)
    for changed in (body + b" ", b"{}"):
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(changed.decode(), headers)


def test_an_old_delivery_cannot_be_replayed(receiver: Receiver, sender: Sender) -> None:
    """The timestamp is signed, so a receiver can refuse a delivery that is minutes old."""
    sender.create(receiver.url, now=lambda: 1_600_000_000).send("msg_1", b"{}")
    headers = receiver.requests[0][0]
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(SECRET).verify("{}", headers)
    headers["webhook-timestamp"] = str(int(headers["webhook-timestamp"]) + 500_000_000)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify("{}", headers)


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_delivery_to_a_busy_receiver_is_repeated(status: int, receiver: Receiver, sender: Sender) -> None:
    """There are three attempts with the same id."""
    receiver.statuses = [status, status]
    sender.create(receiver.url).send("msg_1", b"{}")
    assert [headers["webhook-id"] for headers, _, _ in receiver.requests] == ["msg_1"] * 3
    assert sender.pauses == [1.0, 5.0]


@pytest.mark.parametrize(("status", "attempts"), [(500, 3), (400, 1), (401, 1), (404, 1), (301, 1), (307, 1)])
def test_a_refusal_of_the_receiver_is_an_error(status: int, attempts: int, receiver: Receiver, sender: Sender) -> None:
    """Redirects are not followed: the message goes to the operator's URL only."""
    receiver.statuses = [status] * 5
    with pytest.raises(WebhookFailed, match=str(status)):
        sender.create(receiver.url).send("msg_1", b"{}")
    assert [path for _, _, path in receiver.requests] == ["/"] * attempts


def test_an_unreachable_receiver_is_an_error(sender: Sender) -> None:
    """The error follows three attempts, and does not contain the URL or the secret."""
    with pytest.raises(WebhookFailed, match="ConnectionRefusedError"):
        sender.create(f"http://127.0.0.1:{free_port()}").send("msg_1", b"{}")


def test_a_receiver_without_a_trusted_certificate_receives_nothing(receiver: Receiver, sender: Sender) -> None:
    """TLS is verified. The receiver in this test does not support TLS at all."""
    with pytest.raises(WebhookFailed):
        sender.create(receiver.url.replace("http://", "https://")).send("msg_1", b"{}")
    assert receiver.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "ftp://example.com",
        "https://",
        "https://user:password@example.com/",
        "https://example.com/#x",
        "https://exa mple.com/",
        "https://example.com/\r\nX-Evil: 1",
        "https://example.com:99999/",
        "http://localhost.evil.example/",
        "https://[::1",
        "hook",
    ],
)
def test_an_unsafe_url_stops_the_start(url: str) -> None:
    """http is allowed for this machine only. Ambiguous URLs are refused."""
    with pytest.raises(WrongSetting, match="TRUST_WEBHOOK takes an https:// address"):
        Settings.from_env({"TRUST_WEBHOOK": url, "TRUST_WEBHOOK_SECRET": SECRET})


@pytest.mark.parametrize("secret", ["", "short", "whsec_no base64!", "whsec_c2hvcnQ="])
def test_an_invalid_secret_stops_the_start(secret: str) -> None:
    """The message does not quote the secret."""
    with pytest.raises(WrongSetting, match="TRUST_WEBHOOK_SECRET") as refusal:
        Settings.from_env({"TRUST_WEBHOOK": "https://example.com", "TRUST_WEBHOOK_SECRET": secret})
    assert not secret or secret not in str(refusal.value)


def test_the_repr_of_the_settings_contains_no_secret() -> None:
    """Settings may be logged."""
    settings = Settings.from_env({"TRUST_WEBHOOK": "https://example.com", "TRUST_WEBHOOK_SECRET": TEXT_SECRET + "\n"})
    assert TEXT_SECRET not in repr(settings)
    assert settings.webhook is not None
    assert settings.webhook.secret == TEXT_SECRET.encode(), "a line end from a secret manager is removed"
    assert webhook(settings) is not None
    assert webhook(Settings.from_env({})) is None


@pytest.mark.parametrize("bucket", ["s3://trust-uploads", "Trust", "a", "trust/uploads", "-trust", "trust uploads"])
def test_an_invalid_bucket_name_stops_the_start(bucket: str) -> None:
    """With a URL instead of a name, onUpload would ignore all events."""
    with pytest.raises(WrongSetting, match="TRUST_UPLOAD_BUCKET"):
        Settings.from_env({"TRUST_UPLOAD_BUCKET": bucket})
    assert Settings.from_env({"TRUST_UPLOAD_BUCKET": "trust-uploads.eu"}).upload_bucket == "trust-uploads.eu"
