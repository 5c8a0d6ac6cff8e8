"""The local process deletes expired documents from time to time, not only at its start."""

import threading

import pytest

from functions.hosts.timer import Timer


def test_the_timer_works_again_and_again_and_survives_failures(caplog: pytest.LogCaptureFixture) -> None:
    enough, calls = threading.Event(), []

    def work() -> None:
        calls.append(1)
        if len(calls) == 3:
            enough.set()
        if len(calls) == 1:
            raise OSError("disk")

    timer = Timer(work, seconds=0.001)
    timer.start()
    assert enough.wait(30)
    timer.close()
    done = len(calls)
    timer.close()
    assert len(calls) == done
    assert "work of the timer failed: OSError" in caplog.text


def test_a_timer_that_was_not_started_can_be_closed() -> None:
    Timer(lambda: None).close()
