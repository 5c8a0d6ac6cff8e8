"""Emulators of the clouds' services: started once per test run and shared by its workers, stopped by the last one.

    def test_…(aws: Aws):            moto_server: S3, SQS, KMS
    def test_…(pubsub: PubSub):      the Pub/Sub emulator of the gcloud SDK

A missing emulator skips with one line that says what to install; with CI=true it fails instead, so that a green run
has really run them.
"""

import fcntl
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REGION = "eu-central-1"
_ACCOUNT = "123456789012"  # moto's own
_PATIENCE = 60.0  # seconds until an emulator answers


# ------------------------------------------------------------------------------------------- one per run, shared


@contextmanager
def shared_server(
    folder: Path, name: str, command: Callable[[int], Sequence[str]], ready: Callable[[int], bool], **env: str
) -> Iterator[int]:
    """The port of the server *name*: started by the first worker that asks, stopped when the last has left.

    Args:
        folder: the same for all workers of a run, and for no other run.
        command: the command line that serves on a port.
        ready: whether it answers there.
    """
    state = folder / f"{name}.json"
    with _locked(folder / f"{name}.lock"):
        known = json.loads(state.read_text()) if state.exists() else _start(folder, name, command, ready, env)
        known["users"] += 1
        state.write_text(json.dumps(known))
    try:
        yield known["port"]
    finally:
        with _locked(folder / f"{name}.lock"):
            known = json.loads(state.read_text())
            known["users"] -= 1
            state.write_text(json.dumps(known))
            if not known["users"]:
                state.unlink()
                _stop(known["pid"])


def _start(
    folder: Path, name: str, command: Callable[[int], Sequence[str]], ready: Callable[[int], bool], env: dict[str, str]
) -> dict[str, int]:
    port = free_port()
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(  # a group of its own: emulators are wrapper scripts with children
            command(port), stdout=log, stderr=log, env={**os.environ, **env}, start_new_session=True
        )
    deadline = time.monotonic() + _PATIENCE
    while not ready(port):
        if process.poll() is not None or time.monotonic() > deadline:
            _stop(process.pid)
            pytest.fail(f"{name} does not answer:\n" + (folder / f"{name}.log").read_text()[-2000:])
        time.sleep(0.05)
    process.returncode = 0  # handed over: the last worker stops it by its id, whoever started it
    return {"port": port, "pid": process.pid, "users": 0}


def _stop(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGTERM)
    except ProcessLookupError:
        return


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def missing(what: str) -> None:
    """Skip, or fail where everything is meant to run."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} (CI=true: nothing may be skipped)")
    pytest.skip(what)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


# ----------------------------------------------------------------------------------------------------------- AWS


@dataclass(frozen=True)
class Aws:
    """AWS as moto plays it. Names are new for each test, because one server serves them all."""

    endpoint: str

    def client(self, service: str) -> Any:
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def arn(self, service: str, name: str) -> str:
        return f"arn:aws:{service}:{REGION}:{_ACCOUNT}:{name}"

    def bucket(self, *, versioned: bool = True) -> str:
        s3, name = self.client("s3"), f"uploads-{secrets.token_hex(6)}"
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        if versioned:
            s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    def queue(self) -> tuple[str, str]:
        """A new queue: its name and URL."""
        name = f"queue-{secrets.token_hex(6)}"
        return name, str(self.client("sqs").create_queue(QueueName=name)["QueueUrl"])

    def drain(self, url: str) -> list[str]:
        """The bodies that wait in a queue; they are gone then."""
        sqs, bodies = self.client("sqs"), []
        while found := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            for one in found:
                bodies.append(one["Body"])
                sqs.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
        return bodies


@pytest.fixture(scope="session")
def moto_port(run_folder: Path) -> Iterator[int]:
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
        missing("AWS is played by moto_server: pip install 'moto[server]'")

    def command(port: int) -> Sequence[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]

    with shared_server(run_folder, "moto", command, listens) as port:
        yield port


@pytest.fixture
def aws(moto_port: int, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """AWS, and an environment in which the adapters' own clients find it."""
    found = Aws(f"http://127.0.0.1:{moto_port}")
    aws_environment(monkeypatch, found.endpoint)
    return found


def aws_environment(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """What a deployed function finds in its environment, with *endpoint* in AWS's place."""
    for name in ("AWS_PROFILE", "AWS_CA_BUNDLE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")


# -------------------------------------------------------------------------------------------------------- Google


@dataclass(frozen=True)
class PubSub:
    """The Pub/Sub emulator, with a topic and a subscription of this test's own."""

    host: str
    topic: str
    subscription: str

    def pull(self) -> list[tuple[str, bytes]]:
        """(message id, data) of what waits; it is gone then."""
        import google.cloud.pubsub_v1 as pubsub_v1

        with pubsub_v1.SubscriberClient() as subscriber:
            answer = subscriber.pull(request={"subscription": self.subscription, "max_messages": 100}, timeout=10)
            ids = [one.ack_id for one in answer.received_messages]
            if ids:
                subscriber.acknowledge(request={"subscription": self.subscription, "ack_ids": ids})
        return [(one.message.message_id, one.message.data) for one in answer.received_messages]


@pytest.fixture(scope="session")
def pubsub_port(run_folder: Path) -> Iterator[int]:
    gcloud = shutil.which("gcloud")
    if gcloud is None or shutil.which("java") is None:
        missing("Pub/Sub is played by its emulator: gcloud components install pubsub-emulator (and Java)")

    (run_folder / "pubsub").mkdir(exist_ok=True)

    def command(port: int) -> Sequence[str]:
        return [
            str(gcloud), "beta", "emulators", "pubsub", "start", "--project=trust",
            f"--host-port=127.0.0.1:{port}", f"--data-dir={run_folder / 'pubsub'}",
        ]  # fmt: skip

    with shared_server(run_folder, "pubsub", command, listens) as port:
        yield port


@pytest.fixture
def pubsub(pubsub_port: int, monkeypatch: pytest.MonkeyPatch) -> PubSub:
    import google.cloud.pubsub_v1 as pubsub_v1

    host = f"127.0.0.1:{pubsub_port}"
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", host)
    name = secrets.token_hex(6)
    found = PubSub(host, f"projects/trust/topics/t-{name}", f"projects/trust/subscriptions/s-{name}")
    publisher = pubsub_v1.PublisherClient()
    publisher.create_topic(request={"name": found.topic})
    publisher.stop()
    with pubsub_v1.SubscriberClient() as subscriber:
        subscriber.create_subscription(request={"name": found.subscription, "topic": found.topic})
    return found
