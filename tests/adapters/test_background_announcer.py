"""The announcer: what is told behind the answer."""

import threading

import pytest

from shared.adapters.background_announcer import BackgroundNotifier


def test_messages_are_told_in_order_and_a_stop_tells_what_is_held() -> None:
    told: list[tuple[str, bytes]] = []
    announcer = BackgroundNotifier(lambda name, body: told.append((name, body)))
    for number in range(3):
        announcer.announce(str(number), b"{}")
    announcer.close()
    announcer.close()
    assert told == [("0", b"{}"), ("1", b"{}"), ("2", b"{}")]


def test_a_delivery_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The message is lost with a line in the log, which does not quote the error; the next one is told."""
    told: list[str] = []

    def tell(name: str, _: bytes) -> None:
        if name == "bad":
            raise OSError("to https://secret.example.com")
        told.append(name)

    announcer = BackgroundNotifier(tell)
    announcer.announce("bad", b"{}")
    announcer.announce("good", b"{}")
    announcer.close()
    assert told == ["good"]
    assert "lost: OSError" in caplog.text
    assert "secret" not in caplog.text


def test_announcing_never_waits_for_a_slow_receiver(caplog: pytest.LogCaptureFixture) -> None:
    """What does not fit is dropped, and said so."""
    go, begun = threading.Event(), threading.Event()

    def tell(name: str, _: bytes) -> None:
        begun.set()
        go.wait(30)

    announcer = BackgroundNotifier(tell, room=2)
    announcer.announce("0", b"{}")
    begun.wait(30)
    for number in range(1, 5):
        announcer.announce(str(number), b"{}")
    assert caplog.text.count("was dropped") == 2
    go.set()
    announcer.close()
