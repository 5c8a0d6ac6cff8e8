"""Webhook: a signed POST, as Standard Webhooks describes it, so that receivers verify it with a library they have.

    webhook-id         the same for each delivery of one message
    webhook-timestamp  Unix seconds of this delivery
    webhook-signature  v1,<base64 of HMAC-SHA256 over "id.timestamp.body">

Redirects are not followed: the signed report goes where the operator said, and nowhere else.
"""

import base64
import hashlib
import hmac
import http.client
import logging
import ssl
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from shared.ports import WebhookFailed

log = logging.getLogger(__name__)

_LATER: Final = frozenset((408, 425, 429))  # and 5xx: worth another try


class SignedWebhook:
    """See `shared.ports.Webhook`.

    Args:
        url: https, or http to this machine itself (`shared.config` sees to that).
        seconds: for each step of one delivery.
        waits: seconds before each further try.
    """

    def __init__(
        self,
        url: str,
        secret: bytes,
        *,
        seconds: float = 10.0,
        waits: tuple[float, ...] = (1.0, 5.0),
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = urlsplit(url)
        self._secret = secret
        self._seconds = seconds
        self._waits = waits
        self._now = now
        self._sleep = sleep

    def tell(self, message_id: str, body: bytes) -> None:
        why = ""
        for wait in (*self._waits, None):
            try:
                status = self._post(message_id, body)
            except (OSError, http.client.HTTPException) as error:
                why = type(error).__name__
            else:
                if 200 <= status < 300:
                    return
                why = f"it answered {status}"
                if status < 500 and status not in _LATER:
                    break
            if wait is not None:
                self._sleep(wait)
        log.error("the webhook did not take a message: %s", why, extra={"webhook_message": message_id})
        raise WebhookFailed(why)

    def _post(self, message_id: str, body: bytes) -> int:
        """One delivery. Returns the status."""
        at = str(int(self._now()))
        connection = self._connection()
        path = self._url.path or "/"
        try:
            connection.request(
                "POST",
                f"{path}?{self._url.query}" if self._url.query else path,
                body,
                {
                    "Content-Type": "application/json",
                    "User-Agent": "mqtt-trust",
                    "webhook-id": message_id,
                    "webhook-timestamp": at,
                    "webhook-signature": signature(self._secret, message_id, at, body),
                },
            )
            return connection.getresponse().status
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self._seconds, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=self._seconds)


def signature(secret: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """The value of webhook-signature."""
    signed = hmac.new(secret, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"
