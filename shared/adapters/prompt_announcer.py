"""Notifier where no thread outlives an answer: a message is delivered before `announce` returns."""

import logging
from typing import Final

from shared.ports import Webhook, WebhookFailed

log: Final = logging.getLogger(__name__)


class PromptNotifier:
    """See `shared.ports.Notifier`; the caller waits as long as *webhook* tries, which is to be a few seconds."""

    def __init__(self, webhook: Webhook) -> None:
        self._webhook = webhook

    def announce(self, message_id: str, body: bytes) -> None:
        try:
            self._webhook.tell(message_id, body)
        except WebhookFailed:  # the edges' feed has it all the same
            log.error("a message to the operator was lost", extra={"announced": message_id})

    def close(self) -> None:
        """Nothing is held."""
