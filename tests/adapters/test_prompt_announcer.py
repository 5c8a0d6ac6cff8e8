"""The announcer of a process that may be frozen with its answer."""

import pytest

from shared.adapters.prompt_announcer import PromptNotifier
from shared.ports import WebhookFailed


class Hook:
    def __init__(self, *, fails: bool = False) -> None:
        self.told: list[tuple[str, bytes]] = []
        self._fails = fails

    def tell(self, message_id: str, body: bytes) -> None:
        if self._fails:
            raise WebhookFailed("it answered 500")
        self.told.append((message_id, body))


def test_a_message_is_delivered_before_the_answer() -> None:
    hook = Hook()
    PromptNotifier(hook).announce("1", b"{}")
    assert hook.told == [("1", b"{}")]


def test_a_delivery_that_fails_is_no_reason_to_fail(caplog: pytest.LogCaptureFixture) -> None:
    """What was withdrawn is withdrawn; the log names what was not told."""
    announcer = PromptNotifier(Hook(fails=True))
    announcer.announce("withdrawal-1", b"{}")
    announcer.close()
    assert [record.__dict__["announced"] for record in caplog.records] == ["withdrawal-1"]
