"""A process pauses Python's collector while it loads, and collects from its first answer on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_STATE = "print('collects' if gc.isenabled() else 'paused', 'frozen' if gc.get_freeze_count() else 'not frozen')"
_ASGI = """
import asyncio
from functions.hosts.target import Target

async def receive():
    return {"type": "http.request", "body": b"", "more_body": False}

async def send(message):
    pass

target = Target(%r)
scope = {"type": "http", "method": "GET", "path": %r, "raw_path": None, "query_string": b"", "headers": []}
asyncio.run(target(scope, receive, send))
"""
_AWS = """
from functions.hosts import aws

class Context:
    aws_request_id = "1"

http = {"method": "GET", "path": %r}
event = {"rawPath": http["path"], "rawQueryString": "", "headers": {}, "requestContext": {"http": http}}
getattr(aws, %r)(event, Context())
"""
_LOCAL = """
from functions import local
from functions.hosts import machine
make_banner = machine._banner

def banner(*values):
    %s
    return make_banner(*values)

machine._banner = banner
sys.exit(local.main())
"""


def run(code: str, folder: Path) -> "subprocess.Popen[str]":
    env = {**os.environ, "TRUST_DATA": str(folder), "PORT": "0", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", "import gc, sys\n" + code], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("first", "answer"),
    [
        ("import main", _ASGI % ("service", "/session")),
        ("import main", _ASGI % ("uploadCA", "/")),
        ("import functions.hosts.server", _ASGI % ("health", "/healthz")),
        ("import functions.hosts.server", _ASGI % ("console", "/console/")),
        ("import functions.hosts.aws", _AWS % ("/healthz", "health")),
        ("import functions.hosts.aws", _AWS % ("/", "upload_ca")),
    ],
    ids=["service", "one function", "health", "console", "health on AWS", "one function on AWS"],
)
def test_the_collector_pauses_until_the_first_answer(tmp_path: Path, first: str, answer: str) -> None:
    process = run(f"{first}\n{_STATE}\n{answer}\n{_STATE}\n", tmp_path)
    output, _ = process.communicate(timeout=60)
    assert output.splitlines() == ["paused not frozen", "collects frozen"]


def test_a_process_that_cannot_build_its_app_collects_too(tmp_path: Path) -> None:
    """It answers that it is unavailable, and tries again at the next request."""
    (tmp_path / "file").touch()
    process = run(f"import main\n{_ASGI % ('service', '/session')}\n{_STATE}\n", tmp_path / "file" / "data")
    output, _ = process.communicate(timeout=60)
    assert output.splitlines() == ["collects frozen"]


def test_the_local_server_collects_when_it_answers(tmp_path: Path) -> None:
    process = run(_LOCAL % _STATE, tmp_path)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "collects frozen\n"
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
