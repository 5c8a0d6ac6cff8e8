"""Webhook: a signed POST request as defined by Standard Webhooks 1.0, so that receivers can use an existing library.

    webhook-id         the same for all deliveries of one message
    webhook-timestamp  the time of this delivery, in seconds since 1970
    webhook-signature  v1,<base64 of HMAC-SHA256 over "id.timestamp.body">

Redirects are not followed: the message goes to the operator's URL only.
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

_TRANSIENT: Final = frozenset((408, 425, 429))  # and 5xx


class SignedWebhook:
    """A webhook of the operator, see `shared.ports.Webhook`.

    Args:
        url: an https URL, or http to this machine (checked by `shared.config`).
        secret: the key of the signature.
        seconds: the timeout of each network operation.
        waits: seconds before each further attempt.
        now: returns seconds since 1970.
        sleep: waits for seconds.
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
        """Store the arguments. No request is made."""
        self._url = urlsplit(url)
        self._secret = secret
        self._seconds = seconds
        self._waits = waits
        self._now = now
        self._sleep = sleep

    def send(self, message_id: str, body: bytes) -> None:
        """Deliver a message, with retries after network errors and statuses that may be temporary.

        Raises: WebhookFailed.
        """
        reason = ""
        for wait in (*self._waits, None):
            try:
                status = self._post(message_id, body)
            except (OSError, http.client.HTTPException) as error:
                reason = type(error).__name__
            else:
                if 200 <= status < 300:
                    return
                reason = f"it answered {status}"
                if status < 500 and status not in _TRANSIENT:
                    break
            if wait is not None:
                self._sleep(wait)
        log.error("the webhook did not accept a message: %s", reason, extra={"message_id": message_id})
        raise WebhookFailed(reason)

    def _post(self, message_id: str, body: bytes) -> int:
        """Make one delivery and return the status.

        Raises: OSError, HTTPException.
        """
        timestamp = str(int(self._now()))
        connection = self._open()
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
                    "webhook-timestamp": timestamp,
                    "webhook-signature": sign(self._secret, message_id, timestamp, body),
                },
            )
            return connection.getresponse().status
        finally:
            connection.close()

    def _open(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self._seconds, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=self._seconds)


def sign(secret: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """Return the value of webhook-signature."""
    mac = hmac.new(secret, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(mac).decode()}"
