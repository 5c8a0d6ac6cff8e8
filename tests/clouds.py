"""The clouds as tests see them: AWS as moto plays it, and Pub/Sub's emulator, each with names of the test's own."""

import os
import secrets
from dataclasses import dataclass
from typing import Any

import pytest

from tests.emulators import Emulators, Missing

REGION = "eu-central-1"
_ACCOUNT = "123456789012"  # moto's own


def address(emulators: Emulators, name: str) -> str:
    """host:port of an emulator. Without it the test is skipped; with CI=true it fails: a green run has run it."""
    try:
        return emulators.address(name)
    except Missing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


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


@pytest.fixture
def aws(emulators: Emulators, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """AWS, and an environment in which the adapters' own clients find it."""
    found = Aws(f"http://{address(emulators, 'moto')}")
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


@pytest.fixture
def pubsub(emulators: Emulators, monkeypatch: pytest.MonkeyPatch) -> PubSub:
    import google.cloud.pubsub_v1 as pubsub_v1

    host = address(emulators, "pubsub")
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", host)
    name = secrets.token_hex(6)
    found = PubSub(host, f"projects/trust/topics/t-{name}", f"projects/trust/subscriptions/s-{name}")
    publisher = pubsub_v1.PublisherClient()
    publisher.create_topic(request={"name": found.topic})
    publisher.stop()
    with pubsub_v1.SubscriberClient() as subscriber:
        subscriber.create_subscription(request={"name": found.subscription, "topic": found.topic})
    return found
