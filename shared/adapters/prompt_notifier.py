"""Notifier without a thread: `notify` sends before it returns."""

import logging
from typing import Final

from shared.ports import Webhook, WebhookFailed

log: Final = logging.getLogger(__name__)


class PromptNotifier:
    """A notifier for a process that may be stopped after the response, see `shared.ports.Notifier`.

    Args:
        webhook: sends a message; the caller of `notify` waits for its retries, which must end within a few seconds.
    """

    def __init__(self, webhook: Webhook) -> None:
        """Store the arguments. No request is made."""
        self._webhook = webhook

    def notify(self, message_id: str, body: bytes) -> None:
        """Send a message; a failure is logged."""
        try:
            self._webhook.send(message_id, body)
        except WebhookFailed:  # edges read the same from their feed
            log.error("a notification was lost", extra={"message_id": message_id})

    def close(self) -> None:
        """Do nothing: no message is waiting."""
