"""`make run`: one process, a first start that explains itself, and no data lost at any stop."""

import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support import certs, server

pytestmark = pytest.mark.timeout(180)


def call(url: str, auth: str = "", body: Any = None, *, method: str = "GET", timeout: float = 30) -> tuple[int, Any]:
    """Send one HTTP request. Return (status, JSON)."""
    headers = {"Content-Type": "application/json"}
    if auth:
        headers["Authorization"] = "Basic " + base64.b64encode(auth.encode()).decode()
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or b"null")


def test_a_first_start_prints_keys_and_a_restart_keeps_all_data(tmp_path: Path) -> None:
    """Keys are printed once only. Ctrl-C ends with exit code 0. A restart serves the data of the run before."""
    first = server.start(tmp_path)
    api = f"{first.url}/api/v0002"
    status, ca = call(f"{api}/authentication/cacertificates", first.keys["operator"], _upload("Root"), method="POST")
    assert status == 201
    assert first.stop() == 0

    second = server.start(tmp_path)
    assert second.keys == {}
    api = f"{second.url}/api/v0002"
    status, listed = call(f"{api}/authentication/cacertificates", first.keys["operator"])
    assert status == 200
    assert [entry["id"] for entry in listed["results"]] == [ca["id"]]
    assert call(f"{second.url}/healthz") == (200, {"status": "ok"})
    assert second.stop(signal.SIGTERM) == 0


def test_master_key_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    """The key files have mode 600, in a folder of mode 700."""
    server.start(tmp_path).stop()
    folder = tmp_path / "keys"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in folder.iterdir()] == [0o600]


def test_a_wrong_setting_stops_the_start_with_a_sentence(tmp_path: Path) -> None:
    """The server does not start, and names the setting and its value."""
    with pytest.raises(AssertionError, match="TRUST_RATE_PER_MINUTE is 'many'"):
        server.start(tmp_path, log=tmp_path / "log", TRUST_RATE_PER_MINUTE="many")


def test_a_first_start_on_a_busy_port_creates_nothing(tmp_path: Path) -> None:
    """The start fails with a sentence that names the port; the keys of the first start are not lost by it."""
    data = tmp_path / "data"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(AssertionError, match=rf"Cannot listen on 127\.0\.0\.1:{port}: .* Set PORT"):
            server.start(data, log=tmp_path / "log", PORT=str(port))
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert not data.exists()
    later = server.start(data)
    assert set(later.keys) == {"operator", "broker"}
    assert later.stop() == 0


def test_ctrl_c_during_the_first_start_loses_no_key(tmp_path: Path) -> None:
    """No traceback; and either this start has shown the first keys, or the next one shows them."""
    data = tmp_path / "data"
    process = _starting(data)
    deadline = time.monotonic() + 60
    while not any(data.glob("keys/*")) and time.monotonic() < deadline:  # the first file that a start creates
        time.sleep(0.001)
    output, errors = _interrupt(process)
    assert "Traceback" not in errors
    assert "Stopped." in output
    printed = re.findall(r"^ +(?:operator|broker) +key \S+ +token \S+$", output, re.M)
    later = server.start(data)
    assert len(printed) + len(later.keys) == 2
    assert later.stop() == 0


def test_ctrl_c_while_the_modules_load_ends_without_a_traceback(tmp_path: Path) -> None:
    """The first start on a machine takes longest there: nothing is compiled yet."""
    process = _starting(tmp_path / "data", "-X", "importtime")
    assert process.stderr is not None
    while "uvicorn" not in process.stderr.readline():
        assert process.poll() is None
    output, errors = _interrupt(process)
    assert "Traceback" not in errors
    assert (output, process.returncode) == ("Stopped.\n", 130)
    assert not (tmp_path / "data").exists()


def _starting(data: Path, *options: str) -> "subprocess.Popen[str]":
    """Return the process of a first start, which is not ready yet."""
    return subprocess.Popen(
        [sys.executable, *options, "-m", "functions.local"],
        cwd=server.ROOT,
        env={**os.environ, "TRUST_DATA": str(data), "PORT": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _interrupt(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Send Ctrl-C. Return what the process wrote to standard output and standard error."""
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=60)


def test_the_command_for_more_keys_works_as_it_is_printed(tmp_path: Path) -> None:
    """In a shell that activated no virtual environment, in the folder that the server was started in."""
    running = server.start(tmp_path)
    assert running.stop() == 0
    command = re.search(r"^More organizations and keys: (.*)$", running.banner, re.M)
    assert command is not None
    environment = {"PATH": "/usr/bin:/bin", "TRUST_DATA": str(tmp_path)}
    done = subprocess.run(
        ["sh", "-c", command[1]], cwd=server.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "key create --org mtxpd0" in done.stdout


def test_a_body_that_is_too_large_is_answered(tmp_path: Path) -> None:
    """A body of 1 MiB is answered with 413; the connection is not reset."""
    running = server.start(tmp_path)
    try:
        url = f"{running.url}/api/v0002/authentication/cacertificates"
        status, problem = call(url, running.keys["operator"], b"x" * (1 << 20), method="POST")
        assert (status, problem["code"]) == (413, "file_too_large")
    finally:
        running.stop()


@pytest.mark.slow
def test_kill_9_loses_no_answered_write(tmp_path: Path) -> None:
    """Every answered upload survives kill -9 in the middle of writes, and every stored entry is complete."""
    answered: dict[str, str] = {}
    keys: dict[str, str] = {}
    serial = iter(range(10_000))
    for round_ in range(4):
        running = server.start(tmp_path, TRUST_RATE_PER_MINUTE="100000")
        keys = keys or running.keys
        api = f"{running.url}/api/v0002"
        _check_nothing_lost(api, keys["operator"], answered)
        enough = threading.Event()

        def write(
            api: str = f"{api}/authentication",
            auth: str = keys["operator"],
            enough: threading.Event = enough,
            round_: int = round_,
        ) -> None:
            while True:
                try:
                    upload = _upload(f"Root {round_} {next(serial)}")
                    status, created = call(f"{api}/cacertificates", auth, upload, method="POST")
                    assert status == 201, created
                    answered[created["id"]] = "ca"
                    request = {"keyAlgorithm": "P-256"}
                    status, created = call(f"{api}/servercertificates/csr", auth, request, method="POST")
                    if status == 201:  # an org has room for 50
                        answered[created["id"]] = "csr"
                    if len(answered) >= 16 * (round_ + 1):
                        enough.set()
                except (OSError, ValueError, http.client.HTTPException):  # a reply that was cut short
                    return  # killed

        writers = [threading.Thread(target=write) for _ in range(4)]
        for writer in writers:
            writer.start()
        assert enough.wait(60)
        running.stop(signal.SIGKILL)
        for writer in writers:
            writer.join()
    last = server.start(tmp_path)
    _check_nothing_lost(f"{last.url}/api/v0002", keys["operator"], answered)
    assert last.stop() == 0


def _check_nothing_lost(api: str, auth: str, answered: dict[str, str]) -> None:
    for what in ("cacertificates", "servercertificates"):
        stored, bookmark = set(), ""
        while bookmark is not None:
            status, page = call(f"{api}/authentication/{what}?limit=200&bookmark={bookmark}", auth)
            assert status == 200, page
            stored |= {entry["id"] for entry in page["results"]}
            bookmark = page["bookmark"]
        expected = {id_ for id_, kind in answered.items() if (kind == "csr") == (what == "servercertificates")}
        assert expected <= stored
        for id_ in stored - {"default"}:
            assert call(f"{api}/authentication/{what}/{id_}", auth)[0] == 200


def _upload(name: str) -> dict[str, str]:
    # The server uses the machine's clock.
    return {"certificate": certs.ca(name).pem}
