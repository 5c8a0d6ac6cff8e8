"""The notifier of a process that may be stopped after its response."""

import pytest

from shared.adapters.prompt_notifier import PromptNotifier
from shared.ports import WebhookFailed


class WebhookStub:
    def __init__(self, *, fails: bool = False) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self._fails = fails

    def send(self, message_id: str, body: bytes) -> None:
        if self._fails:
            raise WebhookFailed("it answered 500")
        self.messages.append((message_id, body))


def test_a_message_is_sent_before_the_response() -> None:
    """The process may be stopped as soon as `notify` returns."""
    webhook = WebhookStub()
    PromptNotifier(webhook).notify("1", b"{}")
    assert webhook.messages == [("1", b"{}")]


def test_a_failed_delivery_raises_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """The withdrawal is valid nevertheless. The log names the message."""
    notifier = PromptNotifier(WebhookStub(fails=True))
    notifier.notify("withdrawal-1", b"{}")
    notifier.close()
    assert [record.__dict__["message_id"] for record in caplog.records] == ["withdrawal-1"]
