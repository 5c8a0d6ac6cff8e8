"""The clouds in tests: AWS as moto emulates it, and the Pub/Sub emulator. Every test gets resource names of its own."""

import secrets
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.emulators import EmulatorMissing, Emulators
from tests.support.missing import skip_or_fail

REGION = "eu-central-1"
_ACCOUNT = "123456789012"  # moto's account


def address(emulators: Emulators, name: str) -> str:
    """Return host:port of an emulator.

    Skip the test if the emulator is missing; fail the test if CI=true, so that a green CI run has run every test.
    """
    try:
        return emulators.address(name)
    except EmulatorMissing as missing:
        skip_or_fail(str(missing))


@dataclass(frozen=True)
class Aws:
    """AWS as moto emulates it. Names are new for each test, because all tests share one server."""

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
        """Create a queue. Return its name and URL."""
        name = f"queue-{secrets.token_hex(6)}"
        return name, str(self.client("sqs").create_queue(QueueName=name)["QueueUrl"])

    def drain(self, url: str) -> list[str]:
        """Receive and delete all messages of a queue. Return their bodies."""
        sqs, bodies = self.client("sqs"), []
        while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            for message in messages:
                bodies.append(message["Body"])
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return bodies


@pytest.fixture
def aws(emulators: Emulators, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """AWS, and an environment that points the adapters' own clients at it."""
    cloud = Aws(f"http://{address(emulators, 'moto')}")
    aws_environment(monkeypatch, cloud.endpoint)
    return cloud


def aws_environment(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Set the environment variables of a deployed function, with *endpoint* in place of AWS."""
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
    """The Pub/Sub emulator, with a topic and a subscription for one test."""

    host: str
    topic: str
    subscription: str

    def pull(self) -> list[tuple[str, bytes]]:
        """Pull and acknowledge the waiting messages. Return (message id, data) of each."""
        import google.cloud.pubsub_v1 as pubsub_v1

        with pubsub_v1.SubscriberClient() as subscriber:
            answer = subscriber.pull(request={"subscription": self.subscription, "max_messages": 100}, timeout=10)
            ids = [message.ack_id for message in answer.received_messages]
            if ids:
                subscriber.acknowledge(request={"subscription": self.subscription, "ack_ids": ids})
        return [(received.message.message_id, received.message.data) for received in answer.received_messages]


@pytest.fixture
def pubsub(emulators: Emulators, monkeypatch: pytest.MonkeyPatch) -> PubSub:
    import google.cloud.pubsub_v1 as pubsub_v1

    host = address(emulators, "pubsub")
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", host)
    name = secrets.token_hex(6)
    pubsub_ = PubSub(host, f"projects/trust/topics/t-{name}", f"projects/trust/subscriptions/s-{name}")
    publisher = pubsub_v1.PublisherClient()
    publisher.create_topic(request={"name": pubsub_.topic})
    publisher.stop()
    with pubsub_v1.SubscriberClient() as subscriber:
        subscriber.create_subscription(request={"name": pubsub_.subscription, "topic": pubsub_.topic})
    return pubsub_
