"""`make demo` runs to its end and cleans up."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from demo.__main__ import find_missing_packages
from demo.processes import Missing, Process, is_listening, until
from demo.stack import ROOT, Functions
from tests.support.missing import skip_or_fail


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_demo_completes_within_a_minute() -> None:
    """Each step prints what happened; a step that fails ends the demo with exit code 1."""
    if packages := find_missing_packages():
        skip_or_fail(str(Missing("the demo", " ".join(sorted(packages)))))
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "demo"], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - started < 60
    for words in ("untrusted_issuer", "identity_mismatch", "certificate_missing", "still publishing", "was ended"):
        assert words in done.stdout


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Return a short temporary folder: HAProxy accepts no socket path longer than 97 characters."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        yield Path(folder)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(short_path: Path, how: signal.Signals) -> None:
    """No folder and no started process remains."""
    if packages := find_missing_packages():
        skip_or_fail(str(Missing("the demo", " ".join(sorted(packages)))))
    demo = Process(
        "demo",
        [sys.executable, "-m", "demo"],
        short_path / "log",
        env={**os.environ, "TMPDIR": str(short_path)},
        cwd=ROOT,
    )
    try:
        demo.wait_for("the demo's devices", lambda: "Who gets in" in demo.tail(), 60)
        port = re.search(r"127\.0\.0\.1:(\d+); mosquitto", demo.tail())
        assert port
        assert is_listening(int(port[1]))
        assert demo.stop(how, 30) == 128 + how
    finally:
        demo.stop()
    assert not is_listening(int(port[1]))
    assert [file.name for file in short_path.iterdir()] == ["log"]
    assert not [process for process in Path("/proc").glob("[0-9]*") if is_started_from(short_path, process)]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_demo_that_is_kept_has_three_broken_devices_to_explain(short_path: Path) -> None:
    """The console answers, and each device is refused for a cause of its own, again and again."""
    if packages := find_missing_packages():
        skip_or_fail(str(Missing("the demo", " ".join(sorted(packages)))))
    env = {**os.environ, "TMPDIR": str(short_path), "KEEP": "1"}
    demo = Process("demo", [sys.executable, "-m", "demo"], short_path / "log", env=env, cwd=ROOT)
    try:
        demo.wait_for("the broken devices", lambda: "Press Ctrl+C" in demo.tail(), 90)
        found = re.search(
            r"http://127\.0\.0\.1:(\d+)/console/.*API key (a-acme01-\S+), token (\S+)\n", demo.tail(), re.S
        )
        assert found
        functions = Functions(short_path, port=int(found[1]))
        key = f"{found[2]}:{found[3]}"

        def causes() -> set[tuple[str, str]]:
            page = functions.call(key, "GET", "/activity?kind=refusal&limit=200")
            return {(entry["clientId"].rpartition(":")[2], entry["code"]) for entry in page["results"]}

        expected = {("1", "untrusted_issuer"), ("2", "certificate_expired"), ("03", "identity_mismatch")}
        until("the refusals", lambda: expected <= causes(), 30)
        devices = functions.call(key, "GET", "/devices?status=accepted")["results"]
        assert {"d:thermo:7", "d:thermo:8"} <= {device["id"] for device in devices}
        assert demo.stop(signal.SIGINT, 30) == 128 + signal.SIGINT
    finally:
        demo.stop()
    assert [file.name for file in short_path.iterdir()] == ["log"]


def is_started_from(folder: Path, process: Path) -> bool:
    with suppress(OSError):
        return str(folder).encode() in (process / "environ").read_bytes()
    return False
