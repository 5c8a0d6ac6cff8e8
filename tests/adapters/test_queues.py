"""Queues of connection events: in this process, on Amazon SQS, on Google Pub/Sub; and recordSightings."""

import json
import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from functions.events.sightings import Recorder, parse_pubsub, parse_sqs
from shared.adapters.buffered_queue import BufferedQueue
from shared.adapters.pubsub_queue import PubSubQueue
from shared.adapters.sqs_queue import Message, SqsQueue, split_requests
from shared.composition import build
from shared.config import InProcess, Settings
from shared.config import PubSub as PubSubSetting
from shared.config import Sqs as SqsSetting
from shared.connection_records import CallFailure, ConnectionEvent, ConnectionEventBatch, FailedCalls, QueuedEvent
from shared.org_repository import OrgRepository
from shared.records import PLATFORM
from shared.usecases.devices.usage import read_calls, read_recent_usage, record_events, summarize
from shared.validation.policy import Presence
from tests.support import certs
from tests.support.certs import NOON
from tests.support.clouds import Aws, PubSub, aws_environment
from tests.support.emulators import free_port
from tests.support.events import load_event
from tests.support.harness import Service


def make_event(number: int = 0, org_id: str = "mtxpd0", **more: Any) -> ConnectionEvent:
    defaults: dict[str, Any] = {
        "org_id": org_id,
        "at": NOON + timedelta(milliseconds=number),
        "decision": "allow",
        "code": "allowed",
        "tls": True,
        "presence": Presence.VALID,
        "identity": f"d:thermo:{number}",
        "ca_id": "ca",
    }
    return ConnectionEvent(**{**defaults, **more})


def make_refusal(number: int, *chain: bytes) -> ConnectionEvent:
    return make_event(
        number,
        decision="deny",
        code="untrusted_issuer",
        ca_id=None,
        fingerprint=f"{number:064x}",
        chain=chain,
        client_id=f"d:{number}",
    )


class RecordingQueue(BufferedQueue):
    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.deliveries: list[dict[str, int]] = []
        self.delivered = threading.Event()

    def _deliver(self, events_by_org: Mapping[str, Sequence[QueuedEvent]]) -> None:
        self.deliveries.append({org_id: len(events) for org_id, events in events_by_org.items()})
        self.delivered.set()


# ------------------------------------------------------------------------------------------------- all queues


def test_events_are_grouped_by_organization() -> None:
    """An organization is written once for each delivery, however many devices connected."""
    queue = RecordingQueue(interval=3600)
    for number in range(100):
        queue.offer(make_event(number, "mtxpd0" if number % 2 else "other1"))
    queue.flush()
    queue.flush()
    queue.close()
    assert queue.deliveries == [{"mtxpd0": 50, "other1": 50}]


def test_a_full_queue_drops_events() -> None:
    """Events may be lost. A response never waits for the queue."""
    queue = RecordingQueue(interval=3600, capacity=10)
    for number in range(25):
        queue.offer(make_event(number))
    assert queue.dropped == 15
    queue.close()
    assert queue.deliveries == [{"mtxpd0": 10}]


def test_a_thread_delivers_events() -> None:
    """The caller of `offer` does not wait for the delivery."""
    queue = RecordingQueue(interval=0.01)
    queue.offer(make_event())
    assert queue.delivered.wait(30)
    queue.close()


def test_after_a_failed_delivery_the_queue_continues(caplog: pytest.LogCaptureFixture) -> None:
    """The loss is logged, and the next events are delivered."""

    class Failing(RecordingQueue):
        def _deliver(self, events_by_org: Mapping[str, Sequence[QueuedEvent]]) -> None:
            super()._deliver(events_by_org)
            if len(self.deliveries) == 1:
                raise OSError("secret detail")

    queue = Failing(interval=3600)
    queue.offer(make_event())
    queue.flush()
    queue.offer(make_event())
    queue.close()
    assert len(queue.deliveries) == 2
    assert "connection events were lost" in caplog.text


# --------------------------------------------------------------------------------------------------------- batches


def test_the_size_of_a_batch_is_bounded() -> None:
    """15,000 events, a third of them refusals with the largest certificates, fit a message of each queue (256 KiB)."""
    events = [make_event(n, identity="d:" + "t" * 36 + f":{n:036}") for n in range(5000)]
    events += [make_refusal(n, b"\x00" * 8192, b"\x00" * 8192) for n in range(5000)]
    events += [make_event(n, ca_id=f"{n:016x}-{n:032x}") for n in range(5000)]
    batch = summarize("mtxpd0", events)
    assert batch.cas["ca"].count == 5000
    assert len(batch.cas) == 200
    assert len(batch.clients) == 500
    assert len(batch.refusals) == 20
    assert len(batch.encode()) < 256 * 1024
    assert batch.refused == 5000
    assert [len(shown.chain) for shown in batch.chains] == [2] * 6
    assert not any(entry.chain or entry.certificate for entry in batch.refusals)


@pytest.mark.stores("sqlite")
def test_the_size_of_a_day_is_bounded(service: Service) -> None:
    """A document has at most 384 KiB. Beyond the limit of CAs, the counted CAs are still counted."""
    repository = service.app.context.repository
    for first in range(0, 4000, 200):
        events = [make_event(n, ca_id=f"{n:016x}-{n:032x}") for n in range(first, first + 200)]
        record_events(repository, "mtxpd0", [make_event(0, ca_id=f"{0:016x}-{0:032x}"), *events])
    day = read_recent_usage(OrgRepository(repository, "mtxpd0", ""), NOON).days[0]
    assert len(day.cas) == 1000
    assert day.cas[f"{0:016x}-{0:032x}"].count == 21


def test_a_batch_can_be_encoded_and_decoded() -> None:
    """The consumer receives the batch unchanged."""
    batch = summarize("mtxpd0", [make_event(1), make_refusal(2, b"\x00\xff")])
    assert ConnectionEventBatch.decode(batch.encode()) == batch


def test_the_certificates_in_a_buffer_are_bounded() -> None:
    """Strangers can send large certificates faster than these are delivered. Further events are kept without theirs."""
    queue = RecordingQueue(interval=3600)
    for number in range(2000):
        queue.offer(make_refusal(number, b"\x00" * 16_384))
    [events] = queue._drain().values()
    queue.close()
    assert len(events) == 2000
    assert (
        sum(len(der) for event in events if isinstance(event, ConnectionEvent) for der in event.chain)
        == 8 * 1024 * 1024
    )


def test_sqs_requests_are_within_the_limits() -> None:
    """A request has at most ten messages and 256 KiB."""
    for sizes in ([100] * 35, [100_000] * 7, [250_000, 10, 250_000], [1]):
        requests = list(split_requests([Message("x" * size, 1) for size in sizes]))
        assert [len(message.body) for request in requests for message in request] == sizes
        assert all(len(request) <= 10 for request in requests)
        assert all(sum(len(message.body) for message in request) <= 256 * 1024 for request in requests)


# ---------------------------------------------------------------------------------------------------- both clouds


def count(service: Service) -> tuple[int, int, int]:
    """Return the numbers of connections of the CA, of clients in the sample, and of refusals in the list."""
    recent = read_recent_usage(OrgRepository(service.app.context.repository, "mtxpd0", ""), service.clock())
    use = recent.of_ca("ca")
    refusals = service.client("viewer").get("/activity?kind=refusal").ok()["results"]
    return use.count if use else 0, len(recent.clients()), len(refusals)


def test_sqs_delivers_events_to_the_store(aws: Aws, service: Service) -> None:
    """From the process of verifyClient to recordSightings. A message that is delivered twice counts once."""
    _, url = aws.queue()
    queue = SqsQueue(url, summarize, interval=3600)
    for number in range(30):
        queue.offer(make_event(number))
    queue.offer(make_refusal(31, certs.leaf("d:thermo:31", certs.ca("Root")).der))
    queue.offer(make_event(1, "other1"))
    queue.close()
    bodies = aws.drain(url)
    assert len(bodies) == 2, "one message for each organization"
    template = load_event("s3_by_sqs")["Records"][0]
    event = {"Records": [{**template, "body": body} for body in bodies]}
    record = Recorder(sleep=lambda _: None).record
    assert record(service.app.context, parse_sqs(event)) == 2
    assert record(service.app.context, parse_sqs(event)) == 2
    assert count(service) == (30, 31, 1)


def test_pubsub_delivers_events_to_the_store(pubsub: PubSub, service: Service) -> None:
    """The same with the Pub/Sub emulator, and with the CloudEvent that a subscription makes of a message."""
    queue = PubSubQueue(pubsub.topic, summarize, interval=3600)
    for number in range(30):
        queue.offer(make_event(number))
    queue.close()
    [(_, data)] = pubsub.pull()
    event = load_event("pubsub_message")
    event["data"]["message"]["data"] = msgspec.to_builtins(data)  # base64
    record = Recorder(sleep=lambda _: None).record
    for _ in range(2):
        record(service.app.context, parse_pubsub(event["type"], event["data"]))
    assert count(service) == (30, 30, 0)


def test_an_unavailable_sqs_raises_no_error(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Events are lost, and responses are not affected."""
    aws_environment(monkeypatch, f"http://127.0.0.1:{free_port()}")
    queue = SqsQueue("http://127.0.0.1/queue", summarize, interval=3600)
    queue.offer(make_event())
    queue.close()
    assert "connection events were lost" in caplog.text


@pytest.mark.parametrize(
    ("setting", "kind"),
    [
        (SqsSetting("https://sqs.eu-central-1.amazonaws.com/123456789012/q"), SqsQueue),
        (PubSubSetting("projects/p/topics/t"), PubSubQueue),
    ],
)
def test_the_setting_chooses_the_queue_and_its_client_is_created_at_the_first_event(
    setting: Any, kind: type[BufferedQueue], tmp_path: Path
) -> None:
    """A function that makes no decision loads no client library of a queue."""
    settings = Settings.from_env({"TRUST_DATA": str(tmp_path)})
    assert settings.queue == InProcess()
    app = build(replace(settings, queue=setting))
    assert isinstance(app.queue, kind)
    app.close()
    assert getattr(app.queue, "_client", "none") is None


# -------------------------------------------------------------------------------------------------- recordSightings


def test_an_invalid_message_is_dropped(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise it would be delivered again and again. The other messages are recorded."""
    good = summarize("mtxpd0", [make_event()]).encode()
    stray = summarize("mtxpd0", [msgspec.structs.replace(make_refusal(1), org_id="other1")]).encode()
    hostile = summarize("../x", [make_event(org_id="../x")]).encode()
    bodies: list[bytes | str] = [b"", "{", "[]", '{"id": 1}', b"\xff", stray, hostile, "[" * 100_000, good]
    assert Recorder(sleep=lambda _: None).record(service.app.context, bodies) == 1
    assert count(service)[0] == 1
    assert caplog.text.count("a message was dropped") == 8


@pytest.mark.parametrize("cloud", ["aws", "google"])
def test_refused_calls_of_platform_keys_reach_the_store(cloud: str, service: Service) -> None:
    """Their events belong to the platform and to no organization."""
    failed = FailedCalls(org_id=PLATFORM, key="p-A", failure=CallFailure.REVOKED, count=2, since=NOON, at=NOON)
    body = summarize(PLATFORM, [failed]).encode()
    if cloud == "aws":
        bodies: Any = parse_sqs({"Records": [{**load_event("s3_by_sqs")["Records"][0], "body": body.decode()}]})
    else:
        event = load_event("pubsub_message")
        event["data"]["message"]["data"] = msgspec.to_builtins(body)  # base64
        bodies = parse_pubsub(event["type"], event["data"])
    assert Recorder().record(service.app.context, bodies) == 1
    calls = read_calls(service.app.context.repository, PLATFORM, NOON, 1).by_key
    assert calls["p-A"].hours["2026-06-01T12"].failed["key_revoked"].count == 2


@pytest.mark.parametrize("event", [None, {}, {"Records": [None, {"eventSource": "aws:sqs", "body": 7}]}])
def test_an_invalid_sqs_event_contains_no_messages(event: Any) -> None:
    """An error would make the cloud deliver the event again."""
    assert list(parse_sqs(event)) == []


@pytest.mark.parametrize("data", [None, {}, {"message": {}}, {"message": {"data": "no base64!"}}])
def test_an_invalid_pubsub_message_is_dropped(data: Any, service: Service) -> None:
    """An error would make the cloud deliver the event again."""
    event = load_event("pubsub_message")
    assert Recorder().record(service.app.context, parse_pubsub(event["type"], data)) == 0


def test_a_process_writes_an_organization_at_most_once_a_second(service: Service) -> None:
    """The messages of one invocation are one write of each document. Between two invocations the recorder waits."""
    now, pauses = [100.0], []

    def sleep(seconds: float) -> None:
        pauses.append(round(seconds, 3))
        now[0] += seconds

    record = Recorder(now=lambda: now[0], sleep=sleep).record
    record(service.app.context, [summarize("mtxpd0", [make_event(n)]).encode() for n in range(10)])
    before = service.store.calls["put"]
    now[0] += 0.25
    record(service.app.context, [summarize("mtxpd0", [make_event(n)]).encode() for n in range(10)])
    assert service.store.calls["put"] == before + 2, "the usage of the day and its numbers"
    assert pauses == [0.75]
    now[0] += 5
    record(service.app.context, [summarize("mtxpd0", [make_event()]).encode()])
    assert pauses == [0.75]


def test_lambda_records_the_events_of_a_message(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deployed entry point accepts a recorded event."""
    from functions.hosts import aws, process

    monkeypatch.setattr(process, "_app", service.app)
    template = load_event("s3_by_sqs")["Records"][0]
    body = summarize("mtxpd0", [make_event()]).encode().decode()
    aws.record_sightings({"Records": [{**template, "body": body}]}, object())
    assert count(service)[0] == 1
    assert json.loads(body)["org_id"] == "mtxpd0"
