"""The notifier with a thread."""

import threading

import pytest

from shared.adapters.background_notifier import BackgroundNotifier


def test_messages_are_sent_in_order_and_close_sends_the_rest() -> None:
    """`close` may be called twice."""
    messages: list[tuple[str, bytes]] = []
    notifier = BackgroundNotifier(lambda message_id, body: messages.append((message_id, body)))
    for number in range(3):
        notifier.notify(str(number), b"{}")
    notifier.close()
    notifier.close()
    assert messages == [("0", b"{}"), ("1", b"{}"), ("2", b"{}")]


def test_a_failed_delivery_does_not_stop_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    """The loss is logged without the error's text, and the next message is sent."""
    sent: list[str] = []

    def send(message_id: str, _: bytes) -> None:
        if message_id == "bad":
            raise OSError("to https://secret.example.com")
        sent.append(message_id)

    notifier = BackgroundNotifier(send)
    notifier.notify("bad", b"{}")
    notifier.notify("good", b"{}")
    notifier.close()
    assert sent == ["good"]
    assert "lost: OSError" in caplog.text
    assert "secret" not in caplog.text


def test_notify_does_not_wait_for_a_slow_receiver(caplog: pytest.LogCaptureFixture) -> None:
    """Messages that do not fit into the buffer are dropped and logged."""
    may_continue, has_begun = threading.Event(), threading.Event()

    def send(message_id: str, _: bytes) -> None:
        has_begun.set()
        may_continue.wait(30)

    notifier = BackgroundNotifier(send, capacity=2)
    notifier.notify("0", b"{}")
    has_begun.wait(30)
    for number in range(1, 5):
        notifier.notify(str(number), b"{}")
    assert caplog.text.count("was dropped") == 2
    may_continue.set()
    notifier.close()
