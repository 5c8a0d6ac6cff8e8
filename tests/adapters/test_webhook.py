"""The webhook: signed so that a receiver can check it, tried again where that can help, and never led elsewhere."""

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
from tests.clouds import free_port

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TEXT_SECRET = "sixteen bytes of a secret"


@dataclass
class Receiver:
    url: str = ""
    answers: list[int] = field(default_factory=list)  # the next ones; 200 when they are used up
    came: list[tuple[dict[str, str], bytes, str]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    told = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.came.append(({k.lower(): v for k, v in self.headers.items()}, body, self.path))
            status = told.answers.pop(0) if told.answers else 200
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", told.url + "/elsewhere")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - a redirect that is followed would come as GET

    server = HTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Sender:
    slept: list[float] = field(default_factory=list)

    def to(self, url: str, secret: str = SECRET, **more: Any) -> SignedWebhook:
        chosen = Settings.from_env({"TRUST_WEBHOOK": url, "TRUST_WEBHOOK_SECRET": secret}).webhook
        assert chosen is not None
        return SignedWebhook(chosen.url, chosen.secret, sleep=self.slept.append, **more)


@pytest.fixture
def sender() -> Sender:
    return Sender()


def test_a_receiver_checks_it_with_a_library_it_has(receiver: Receiver, sender: Sender) -> None:
    """Standard Webhooks: id, timestamp and HMAC-SHA256, verified by their own Python library."""
    body = json.dumps({"type": "certificates.ending", "data": {"ü": 1}}).encode()
    sender.to(f"{receiver.url}/hook?tenant=1").tell("msg_1", body)
    [(headers, came, path)] = receiver.came
    assert (came, path, headers["content-type"]) == (body, "/hook?tenant=1", "application/json")
    assert Webhook(SECRET).verify(came.decode(), headers) == json.loads(body)
    for changed in (body + b" ", b"{}"):
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(changed.decode(), headers)


def test_an_old_delivery_cannot_be_played_again(receiver: Receiver, sender: Sender) -> None:
    """The time is signed too, so a receiver can refuse what is minutes old."""
    sender.to(receiver.url, now=lambda: 1_600_000_000).tell("msg_1", b"{}")
    headers = receiver.came[0][0]
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(SECRET).verify("{}", headers)
    headers["webhook-timestamp"] = str(int(headers["webhook-timestamp"]) + 500_000_000)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify("{}", headers)


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_receiver_that_is_busy_is_told_again(status: int, receiver: Receiver, sender: Sender) -> None:
    """Three tries in all, under one id."""
    receiver.answers = [status, status]
    sender.to(receiver.url).tell("msg_1", b"{}")
    assert [headers["webhook-id"] for headers, _, _ in receiver.came] == ["msg_1"] * 3
    assert sender.slept == [1.0, 5.0]


@pytest.mark.parametrize(("status", "tries"), [(500, 3), (400, 1), (401, 1), (404, 1), (301, 1), (307, 1)])
def test_a_receiver_that_refuses_is_reported(status: int, tries: int, receiver: Receiver, sender: Sender) -> None:
    """Redirects are not followed: the report goes where the operator said."""
    receiver.answers = [status] * 5
    with pytest.raises(WebhookFailed, match=str(status)):
        sender.to(receiver.url).tell("msg_1", b"{}")
    assert [path for _, _, path in receiver.came] == ["/"] * tries


def test_a_receiver_that_is_not_there_is_reported(sender: Sender) -> None:
    """After three tries, without an address or secret in the words."""
    with pytest.raises(WebhookFailed, match="ConnectionRefusedError"):
        sender.to(f"http://127.0.0.1:{free_port()}").tell("msg_1", b"{}")


def test_a_receiver_whose_certificate_is_not_trusted_gets_nothing(receiver: Receiver, sender: Sender) -> None:
    """https is checked: here a server answers that speaks no TLS at all."""
    with pytest.raises(WebhookFailed):
        sender.to(receiver.url.replace("http://", "https://")).tell("msg_1", b"{}")
    assert receiver.came == []


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
def test_an_address_that_is_not_safe_stops_the_start(url: str) -> None:
    """https only, but for this machine itself; and nothing that an HTTP library could read in two ways."""
    with pytest.raises(WrongSetting, match="TRUST_WEBHOOK takes an https:// address"):
        Settings.from_env({"TRUST_WEBHOOK": url, "TRUST_WEBHOOK_SECRET": SECRET})


@pytest.mark.parametrize("secret", ["", "short", "whsec_no base64!", "whsec_c2hvcnQ="])
def test_a_webhook_without_a_good_secret_stops_the_start(secret: str) -> None:
    """The sentence does not quote it."""
    with pytest.raises(WrongSetting, match="TRUST_WEBHOOK_SECRET") as refusal:
        Settings.from_env({"TRUST_WEBHOOK": "https://example.com", "TRUST_WEBHOOK_SECRET": secret})
    assert not secret or secret not in str(refusal.value)


def test_the_secret_is_in_no_repr() -> None:
    """Settings may stand in a log line."""
    found = Settings.from_env({"TRUST_WEBHOOK": "https://example.com", "TRUST_WEBHOOK_SECRET": TEXT_SECRET + "\n"})
    assert TEXT_SECRET not in repr(found)
    assert found.webhook is not None
    assert found.webhook.secret == TEXT_SECRET.encode(), "a line end that a secret manager added is none of it"
    assert webhook(found) is not None
    assert webhook(Settings.from_env({})) is None


@pytest.mark.parametrize("bucket", ["s3://trust-uploads", "Trust", "a", "trust/uploads", "-trust", "trust uploads"])
def test_a_bucket_that_is_no_name_stops_the_start(bucket: str) -> None:
    """An address in place of a name would make every event a foreign one."""
    with pytest.raises(WrongSetting, match="TRUST_UPLOAD_BUCKET"):
        Settings.from_env({"TRUST_UPLOAD_BUCKET": bucket})
    assert Settings.from_env({"TRUST_UPLOAD_BUCKET": "trust-uploads.eu"}).upload_bucket == "trust-uploads.eu"
