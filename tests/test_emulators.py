"""The emulators that tests use: started, or named as missing, and stopped at the end of the run."""

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.emulators import EmulatorMissing, Emulators


@pytest.mark.parametrize(
    ("name", "sentence"), [("firestore", "Java 11 or newer on the PATH"), ("dynalite", "Node.js 20 or newer")]
)
def test_a_missing_emulator_says_what_to_install(
    name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence is the reason of the skip, or of the failure in CI."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmulatorMissing, match=sentence):
        Emulators(tmp_path, run=1).address(name)


def test_an_emulator_ends_with_the_run_that_started_it(tmp_path: Path) -> None:
    """No emulator keeps running after its run has ended, for whatever reason the run ended."""
    run = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        host, port = Emulators(tmp_path, run.pid).address("moto").split(":")
        socket.create_connection((host, int(port))).close()
    finally:
        run.kill()
        run.communicate()
    with contextlib.suppress(ConnectionRefusedError, ConnectionResetError):
        while True:  # until the port refuses connections
            socket.create_connection((host, int(port))).close()
