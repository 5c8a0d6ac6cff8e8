"""The emulators that tests run on: found or named, and gone with the run."""

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.emulators import Emulators, Missing


@pytest.mark.parametrize(
    ("name", "sentence"), [("firestore", "Java 11 or newer on the PATH"), ("dynalite", "Node.js 20 or newer")]
)
def test_an_emulator_that_is_not_here_says_what_brings_it(
    name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the one line of the skip, or of the failure in CI."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match=sentence):
        Emulators(tmp_path, run=1).address(name)


def test_an_emulator_ends_with_the_run_that_started_it(tmp_path: Path) -> None:
    """However the run ended: nothing stays behind on the machine."""
    run = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        host, port = Emulators(tmp_path, run.pid).address("moto").split(":")
        socket.create_connection((host, int(port))).close()
    finally:
        run.kill()
        run.communicate()
    with contextlib.suppress(ConnectionRefusedError, ConnectionResetError):
        while True:  # until it refuses
            socket.create_connection((host, int(port))).close()
