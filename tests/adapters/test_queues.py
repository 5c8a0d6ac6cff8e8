"""What carries sightings behind the answer: in this process, through Amazon SQS, through Google Pub/Sub."""

import json
import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from functions.events.sightings import Recorder, pubsub_body, sqs_bodies
from shared.adapters.held_queue import BufferedQueue
from shared.adapters.pubsub_queue import PubSubQueue
from shared.adapters.sqs_queue import SqsQueue, _requests
from shared.composition import build
from shared.config import InProcess, Settings
from shared.config import PubSub as PubSubSetting
from shared.config import Sqs as SqsSetting
from shared.records import ConnectionEvent, ConnectionEventBatch
from shared.usecases.devices.usage import read_recent_usage, record_events, summarize
from shared.validation.policy import Presence
from tests import certs
from tests.certs import NOON
from tests.clouds import Aws, PubSub, aws_environment
from tests.emulators import free_port
from tests.events import recorded
from tests.harness import Service


def sighting(number: int = 0, org_id: str = "mtxpd0", **more: Any) -> ConnectionEvent:
    known: dict[str, Any] = {
        "org_id": org_id,
        "at": NOON + timedelta(milliseconds=number),
        "decision": "allow",
        "code": "allowed",
        "tls": True,
        "presence": Presence.VALID,
        "identity": f"d:thermo:{number}",
        "ca_id": "ca",
    }
    return ConnectionEvent(**{**known, **more})


def refusal(number: int, certificate: bytes = b"") -> ConnectionEvent:
    return sighting(
        number, decision="deny", code="untrusted_issuer", ca_id=None, certificate=certificate, client_id=f"d:{number}"
    )


class Collecting(BufferedQueue):
    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.handed: list[dict[str, int]] = []
        self.came = threading.Event()

    def _hand_on(self, held: Mapping[str, Sequence[ConnectionEvent]]) -> None:
        self.handed.append({org: len(some) for org, some in held.items()})
        self.came.set()


# ------------------------------------------------------------------------------------------------- what all share


def test_what_comes_in_a_moment_is_put_together_by_org() -> None:
    """So an org is written at most once for it, however many connected."""
    queue = Collecting(pause=3600)
    for number in range(100):
        queue.offer(sighting(number, "mtxpd0" if number % 2 else "other1"))
    queue.flush()
    queue.flush()
    queue.close()
    assert queue.handed == [{"mtxpd0": 50, "other1": 50}]


def test_a_full_queue_drops_and_never_waits() -> None:
    """Losing a sighting is fine; an answer that waits is not."""
    queue = Collecting(pause=3600, room=10)
    for number in range(25):
        queue.offer(sighting(number))
    assert queue.dropped == 15
    queue.close()
    assert queue.handed == [{"mtxpd0": 10}]


def test_a_thread_hands_on_without_anybodys_call() -> None:
    """The caller of offer is not the one who waits."""
    queue = Collecting(pause=0.01)
    queue.offer(sighting())
    assert queue.came.wait(30)
    queue.close()


def test_a_handover_that_fails_loses_a_sample_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """It is told in the log, and the queue goes on."""

    class Failing(Collecting):
        def _hand_on(self, held: Mapping[str, Sequence[ConnectionEvent]]) -> None:
            super()._hand_on(held)
            if len(self.handed) == 1:
                raise OSError("secret detail")

    queue = Failing(pause=3600)
    queue.offer(sighting())
    queue.flush()
    queue.offer(sighting())
    queue.close()
    assert len(queue.handed) == 2
    assert "sightings were lost" in caplog.text


# --------------------------------------------------------------------------------------------------------- batches


def test_a_batch_is_bounded_however_much_was_seen() -> None:
    """Ten thousand connections and refusals with the largest leaves fit a message of every queue (256 KiB)."""
    many = [sighting(n, identity="d:" + "t" * 36 + f":{n:036}") for n in range(5000)]
    many += [refusal(n, b"\x00" * 8192) for n in range(5000)]
    many += [sighting(n, ca_id=f"{n:016x}-{n:032x}") for n in range(5000)]
    batch = summarize("mtxpd0", many)
    assert batch.cas["ca"].count == 5000
    assert len(batch.cas) == 200
    assert len(batch.clients) == 500
    assert len(batch.refusals) == 20
    assert len(batch.encode()) < 256 * 1024
    assert any(one.certificate for one in batch.refusals)
    assert not all(one.certificate for one in batch.refusals)


@pytest.mark.stores("sqlite")
def test_a_day_of_ever_new_cas_stays_of_bounded_size(service: Service) -> None:
    """A document holds 384 KiB; beyond, nothing of the day would be written any more. Who is counted already goes on
    being counted."""
    repository = service.app.context.repository
    for first in range(0, 4000, 200):
        many = [sighting(n, ca_id=f"{n:016x}-{n:032x}") for n in range(first, first + 200)]
        record_events(repository, "mtxpd0", [sighting(0, ca_id=f"{0:016x}-{0:032x}"), *many])
    day = read_recent_usage(repository, "mtxpd0", NOON).days[0]
    assert len(day.cas) == 1000
    assert day.cas[f"{0:016x}-{0:032x}"].count == 21


def test_a_batch_survives_its_journey() -> None:
    """What was sent is what arrives."""
    batch = summarize("mtxpd0", [sighting(1), refusal(2, b"\x00\xff")])
    assert ConnectionEventBatch.decode(batch.encode()) == batch


def test_requests_stay_within_what_sqs_takes() -> None:
    """Ten messages, 256 KiB together."""
    for sizes in ([100] * 35, [100_000] * 7, [250_000, 10, 250_000], [1]):
        requests = list(_requests([("x" * size, 1) for size in sizes]))
        assert [len(body) for one in requests for body, _ in one] == sizes
        assert all(len(one) <= 10 and sum(len(body) for body, _ in one) <= 256 * 1024 for one in requests)


# ---------------------------------------------------------------------------------------------------- both clouds


def counted(service: Service) -> tuple[int, int, int]:
    """Connections of the CA, clients in the sample, refusals in the list."""
    seen = read_recent_usage(service.app.context.repository, "mtxpd0", service.clock())
    use = seen.of_ca("ca")
    refusals = service.client("viewer").get("/activity?kind=refusal").ok()["results"]
    return use.count if use else 0, len(seen.clients()), len(refusals)


def test_sqs_carries_sightings_to_the_store(aws: Aws, service: Service) -> None:
    """From the answer's process to recordSightings; what is delivered twice counts once."""
    _, url = aws.queue()
    queue = SqsQueue(url, summarize, pause=3600)
    for number in range(30):
        queue.offer(sighting(number))
    queue.offer(refusal(31, certs.leaf("d:thermo:31", certs.ca("Root")).der))
    queue.offer(sighting(1, "other1"))
    queue.close()
    bodies = aws.drain(url)
    assert len(bodies) == 2, "one message for each org"
    template = recorded("s3_by_sqs")["Records"][0]
    event = {"Records": [{**template, "body": body} for body in bodies]}
    record = Recorder(sleep=lambda _: None)
    assert record(service.app.context, sqs_bodies(event)) == 2
    assert record(service.app.context, sqs_bodies(event)) == 2
    assert counted(service) == (30, 31, 1)


def test_pubsub_carries_sightings_to_the_store(pubsub: PubSub, service: Service) -> None:
    """The same through the Pub/Sub emulator, and the CloudEvent that a subscription makes of a message."""
    queue = PubSubQueue(pubsub.topic, summarize, pause=3600)
    for number in range(30):
        queue.offer(sighting(number))
    queue.close()
    [(_, data)] = pubsub.pull()
    event = recorded("pubsub_message")
    event["data"]["message"]["data"] = msgspec.to_builtins(data)  # base64
    record = Recorder(sleep=lambda _: None)
    for _ in range(2):
        record(service.app.context, pubsub_body(event["type"], event["data"]))
    assert counted(service) == (30, 30, 0)


def test_sqs_that_does_not_answer_costs_a_sample(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody's answer fails for it."""
    aws_environment(monkeypatch, f"http://127.0.0.1:{free_port()}")
    queue = SqsQueue("http://127.0.0.1/queue", summarize, pause=3600)
    queue.offer(sighting())
    queue.close()
    assert "sightings were lost" in caplog.text


@pytest.mark.parametrize(
    ("setting", "kind"),
    [
        (SqsSetting("https://sqs.eu-central-1.amazonaws.com/123456789012/q"), SqsQueue),
        (PubSubSetting("projects/p/topics/t"), PubSubQueue),
    ],
)
def test_the_setting_chooses_the_queue_and_nothing_is_asked_before_the_first_sighting(
    setting: Any, kind: type[BufferedQueue], tmp_path: Path
) -> None:
    """A function that never decides loads no queue's client."""
    settings = Settings.from_env({"TRUST_DATA": str(tmp_path)})
    assert settings.queue == InProcess()
    app = build(replace(settings, queue=setting))
    assert isinstance(app.queue, kind)
    app.close()
    assert getattr(app.queue, "_client", "none") is None


# -------------------------------------------------------------------------------------------------- the other end


def test_a_message_that_holds_no_sightings_is_dropped(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """It would come again and again; those beside it are recorded."""
    good = summarize("mtxpd0", [sighting()]).encode()
    stray = summarize("mtxpd0", [msgspec.structs.replace(refusal(1), org_id="other1")]).encode()
    hostile = summarize("../x", [sighting(org_id="../x")]).encode()
    bodies: list[bytes | str] = [b"", "{", "[]", '{"id": 1}', b"\xff", stray, hostile, "[" * 100_000, good]
    assert Recorder(sleep=lambda _: None)(service.app.context, bodies) == 1
    assert counted(service)[0] == 1
    assert caplog.text.count("a message was dropped") == 8


@pytest.mark.parametrize("event", [None, {}, {"Records": [None, {"eventSource": "aws:sqs", "body": 7}]}])
def test_what_is_no_sqs_event_holds_no_messages(event: Any) -> None:
    """And is no error."""
    assert list(sqs_bodies(event)) == []


@pytest.mark.parametrize("data", [None, {}, {"message": {}}, {"message": {"data": "no base64!"}}])
def test_what_is_no_pubsub_message_is_dropped(data: Any, service: Service) -> None:
    """And is no error."""
    event = recorded("pubsub_message")
    assert Recorder()(service.app.context, pubsub_body(event["type"], data)) == 0


def test_an_org_is_written_at_most_once_a_second_by_a_process(service: Service) -> None:
    """Messages of one invocation are one write; between two invocations the recorder waits, and nobody for it."""
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))
        now[0] += seconds

    record = Recorder(now=lambda: now[0], sleep=sleep)
    record(service.app.context, [summarize("mtxpd0", [sighting(n)]).encode() for n in range(10)])
    before = service.store.calls["put"]
    now[0] += 0.25
    record(service.app.context, [summarize("mtxpd0", [sighting(n)]).encode() for n in range(10)])
    assert service.store.calls["put"] == before + 1
    assert slept == [0.75]
    now[0] += 5
    record(service.app.context, [summarize("mtxpd0", [sighting()]).encode()])
    assert slept == [0.75]


def test_lambda_records_what_the_queue_carries(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deployed entry point."""
    from functions.hosts import aws_events

    monkeypatch.setattr(aws_events, "app", lambda: service.app)
    template = recorded("s3_by_sqs")["Records"][0]
    body = summarize("mtxpd0", [sighting()]).encode().decode()
    aws_events.record_sightings({"Records": [{**template, "body": body}]}, object())
    assert counted(service)[0] == 1
    assert json.loads(body)["org_id"] == "mtxpd0"
