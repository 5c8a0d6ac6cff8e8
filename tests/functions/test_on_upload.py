"""onUpload's events: recorded ones of both clouds, real puts into S3, functions-framework's own CloudEvent path."""

import copy
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

import shared.composition
from functions.events.uploads import gcs_uploads, s3_uploads
from functions.hosts import aws_events, event_app, process
from functions.routes import EVENTS, ROUTES
from shared.errors import StoreUnavailable
from shared.ports import UploadedObject
from shared.records import Role
from shared.usecases.orgs.api_keys import create_key
from shared.usecases.orgs.default_certificate import ensure_default
from shared.usecases.orgs.organizations import create_org
from tests import certs, gcs_server
from tests.clouds import Aws
from tests.events import recorded
from tests.gcs_server import GcsServer
from tests.harness import Client

ROOT = certs.ca("Root")
NAME = "mtxpd0/ca/red flower +ü%2F.pem"
S3_OBJECT = UploadedObject(
    "amzn-s3-demo-bucket", NAME, "096fKKXTRTtl3on89fVO.nfljtsv6qko", "d41d8cd98f00b204e9800998ecf8427e"
)
EB_OBJECT = UploadedObject(
    "amzn-s3-demo-bucket", NAME, "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e", "b1946ac92492d2347c6235b4d2611184"
)


@pytest.mark.parametrize(
    ("name", "objects"),
    [
        ("s3_put", [S3_OBJECT]),
        ("s3_by_sqs", [S3_OBJECT]),
        ("s3_by_sns_and_sqs", [S3_OBJECT]),
        ("s3_by_sns", [S3_OBJECT]),
        ("s3_event_bridge", [EB_OBJECT]),
        ("s3_event_bridge_by_sqs", [EB_OBJECT]),
        ("s3_test", []),
        ("s3_removed", []),
    ],
)
def test_every_way_that_s3_tells_of_an_object_is_understood(name: str, objects: list[UploadedObject]) -> None:
    """Form-encoded names are decoded once; EventBridge's are as they are."""
    assert list(s3_uploads(recorded(name))) == objects


def test_cloud_storages_event_is_understood() -> None:
    """The object and its generation; names are as they are."""
    event = recorded("gcs_finalized")
    found = list(gcs_uploads(event["type"], event["source"], event["data"]))
    assert found == [UploadedObject("trust-uploads", NAME, "1743752582769318")]


@pytest.mark.parametrize(
    ("kind", "source", "change"),
    [
        ("google.cloud.storage.object.v1.deleted", None, {}),
        (None, "//storage.googleapis.com/projects/_/buckets/other", {}),
        (None, None, {"bucket": "other"}),
        (None, None, {"name": ""}),
        (None, None, {"name": 7}),
    ],
)
def test_an_event_that_contradicts_itself_tells_of_nothing(
    kind: str | None, source: str | None, change: dict[str, Any]
) -> None:
    """Its bucket stands in two places; both must say the same."""
    event = recorded("gcs_finalized")
    data = {**event["data"], **change}
    assert list(gcs_uploads(kind or event["type"], source or event["source"], data)) == []


@pytest.mark.parametrize(
    "event",
    [
        None,
        [],
        "text",
        {},
        {"Records": [None, 7, {}]},
        {"Records": [{"eventSource": "aws:sqs", "body": "{"}]},
        {"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {"bucket": "x"}}]},
    ],
)
def test_what_is_no_event_is_left_alone_and_told_in_the_log(event: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A retry would bring the same again."""
    assert list(s3_uploads(event)) == []
    assert "does not tell of an object" in caplog.text


def test_events_wrapped_in_each_other_end_somewhere() -> None:
    """S3 in SNS in SQS is as deep as it gets."""
    event: Any = recorded("s3_put")
    for _ in range(10):
        event = {"Type": "Notification", "Message": json.dumps(event)}
    assert list(s3_uploads(event)) == []


def test_event_functions_are_not_on_the_public_router() -> None:
    """Nobody reaches them through the base URL."""
    assert {one.function for one in EVENTS} == {"onUpload", "recordSightings", "expiryReport"}
    assert not {one.function for one in EVENTS} & {one.function for one in ROUTES}


# ------------------------------------------------------------------------------------------- a deployed function


@dataclass
class Deployed:
    """A function's process: its settings come from the environment, and it is built at its first event."""

    operator: Client

    def cas(self) -> list[str]:
        found = self.operator.get("/authentication/cacertificates").ok()["results"]
        return [one["subject"] for one in found]

    def servers(self) -> list[str]:
        found = self.operator.get("/authentication/servercertificates").ok()["results"]
        return [one["id"] for one in found if one["id"] != "default"]

    def receipts(self) -> list[dict[str, Any]]:
        return list(self.operator.get("/activity?kind=upload").ok()["results"])


@pytest.fixture
def deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    monkeypatch.setenv("TRUST_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TRUST_DOMAIN", "example.com")
    monkeypatch.setenv("TRUST_LOG", "WARNING")
    monkeypatch.setenv("TRUST_UPLOAD_BUCKET", "trust-uploads")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(process, "_app", None)  # the process's App is made anew, and undone with the test
    aws_events._objects.cache_clear()
    app = event_app.app()
    structs.force_setattr(app.context, "clock", lambda: certs.NOON)
    ensure_default(app.context, app.sealer)
    create_org(app.context, "mtxpd0")
    key, token = create_key(app.context, org_id="mtxpd0", role=Role.OPERATOR)
    yield Deployed(Client(app, key.key, token))
    app.close()
    aws_events._objects.cache_clear()
    root.handlers[:], root.level = handlers, level


class Context:
    aws_request_id = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"


@pytest.fixture
def bucket(aws: Aws, deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> str:
    """The upload bucket in S3, with versions."""
    name = aws.bucket()
    monkeypatch.setenv("TRUST_UPLOAD_BUCKET", name)
    app = event_app.app()
    structs.force_setattr(app.settings, "upload_bucket", name)
    return name


def sqs_event(*bodies: str) -> dict[str, Any]:
    """What Lambda's event source mapping makes of messages."""
    template = recorded("s3_by_sqs")["Records"][0]
    return {"Records": [{**template, "body": body} for body in bodies]}


@pytest.mark.parametrize("name", ["root.pem", "a b+c%20ü€😀 ..%2F.pem", "../../other1/ca/x.pem", "x" * 1000])
def test_s3_a_put_reaches_the_function_through_a_queue(name: str, aws: Aws, bucket: str, deployed: Deployed) -> None:
    """A real put, S3's own notification, SQS: the CA is trusted, whatever its name; the test event does no harm."""
    queue, url = aws.queue()
    configuration = {"QueueArn": aws.arn("sqs", queue), "Events": ["s3:ObjectCreated:*"]}
    s3 = aws.client("s3")
    s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [configuration]}
    )
    s3.put_object(Bucket=bucket, Key=f"mtxpd0/ca/{name}", Body=ROOT.pem.encode())
    bodies = aws.drain(url)
    assert len(bodies) == 2, "the test event, and the put"
    aws_events.on_upload(sqs_event(*bodies), Context())
    aws_events.on_upload(sqs_event(*bodies), Context())
    assert deployed.cas() == ["CN=Root"]
    [receipt] = deployed.receipts()
    assert receipt["result"] == "done"


def test_s3_a_put_reaches_the_function_through_event_bridge(aws: Aws, bucket: str, deployed: Deployed) -> None:
    """The other way to wire it; names are not encoded there."""
    queue, url = aws.queue()
    events, s3 = aws.client("events"), aws.client("s3")
    pattern = {"source": ["aws.s3"], "detail": {"bucket": {"name": [bucket]}}}
    events.put_rule(Name=queue, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=queue, Targets=[{"Id": "1", "Arn": aws.arn("sqs", queue)}])
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}})
    s3.put_object(Bucket=bucket, Key="mtxpd0/ca/a b+c%2B.pem", Body=ROOT.pem.encode())
    for body in aws.drain(url):
        aws_events.on_upload(json.loads(body), Context())
    assert deployed.cas() == ["CN=Root"]


def test_s3_a_bundle_is_imported_and_no_version_of_it_stays(aws: Aws, bucket: str, deployed: Deployed) -> None:
    """In a bucket with versions a plain delete would only hide the key."""
    issued, s3 = certs.server("mtxpd0.messaging.example.com", ROOT), aws.client("s3")
    key = "mtxpd0/server/prod.pem"
    told = s3.put_object(Bucket=bucket, Key=key, Body=(issued.key_pem + issued.pem).encode())
    aws_events.on_upload(s3_event(bucket, key, told["VersionId"]), Context())
    assert len(deployed.servers()) == 1
    versions = s3.list_object_versions(Bucket=bucket, Prefix="mtxpd0/")
    assert "Versions" not in versions
    assert "DeleteMarkers" not in versions


def test_s3_a_large_object_is_not_fetched(aws: Aws, bucket: str, deployed: Deployed) -> None:
    """Its size is asked first."""
    told = aws.client("s3").put_object(Bucket=bucket, Key="mtxpd0/ca/big", Body=b"x" * 1_000_000)
    aws_events.on_upload(s3_event(bucket, "mtxpd0/ca/big", told["VersionId"]), Context())
    assert [one["code"] for one in deployed.receipts()] == ["file_too_large"]


def s3_event(bucket: str, key: str, version: str) -> dict[str, Any]:
    event: dict[str, Any] = copy.deepcopy(recorded("s3_put"))
    found = event["Records"][0]["s3"]
    found["bucket"]["name"] = bucket
    found["object"] |= {"key": key, "versionId": version}
    del found["object"]["eTag"]
    return event


def test_s3_an_event_of_another_bucket_reads_nothing(
    aws: Aws, bucket: str, deployed: Deployed, caplog: pytest.LogCaptureFixture
) -> None:
    """Forged, or wired wrongly: told loudly, not tried again."""
    other = aws.bucket()
    told = aws.client("s3").put_object(Bucket=other, Key="mtxpd0/ca/x", Body=ROOT.pem.encode())
    aws_events.on_upload(s3_event(other, "mtxpd0/ca/x", told["VersionId"]), Context())
    assert not deployed.cas()
    assert not deployed.receipts()
    assert "another bucket" in caplog.text


def test_s3_one_failure_of_a_batch_is_delivered_again_with_all_and_harms_none(
    aws: Aws, bucket: str, deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are done all the same; the second delivery finds them done."""
    s3 = aws.client("s3")
    bodies = []
    for one in ("a", "b", "c"):
        pem = certs.ca(one).pem.encode()
        told = s3.put_object(Bucket=bucket, Key=f"mtxpd0/ca/{one}", Body=pem)
        bodies.append(json.dumps(s3_event(bucket, f"mtxpd0/ca/{one}", told["VersionId"])))
    reader = aws_events._objects()
    read = type(reader).read

    def fails_for_b(self: Any, found: Any) -> bytes | None:
        if found.key.endswith("b"):
            raise StoreUnavailable
        return read(self, found)

    with monkeypatch.context() as patched:
        patched.setattr(type(reader), "read", fails_for_b)
        with pytest.raises(StoreUnavailable):
            aws_events.on_upload(sqs_event(*bodies), Context())
    assert sorted(deployed.cas()) == ["CN=a", "CN=c"]
    aws_events.on_upload(sqs_event(*bodies), Context())
    assert sorted(deployed.cas()) == ["CN=a", "CN=b", "CN=c"]
    assert len(deployed.receipts()) == 3


def test_without_its_bucket_configured_no_event_is_believed(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function says which setting it needs."""
    structs.force_setattr(event_app.app().settings, "upload_bucket", None)
    with pytest.raises(Exception, match="TRUST_UPLOAD_BUCKET"):
        aws_events.on_upload(recorded("s3_put"), Context())


# ---------------------------------------------------------------------------------------------- functions-framework


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[GcsServer]:
    with gcs_server.serving() as server:
        monkeypatch.setattr(shared.composition, "gcs_objects", server.reader)
        yield server


@pytest.fixture
def framework(gcs: GcsServer, deployed: Deployed) -> Any:
    """The real functions-framework, loading the function as its container does."""
    import functions_framework

    source = Path(aws_events.__file__).with_name("gcp_events.py")
    create_app: Any = functions_framework.create_app
    return create_app("on_upload", str(source), "cloudevent").test_client()


def gcs_event(name: str, generation: str, **change: Any) -> dict[str, Any]:
    event: dict[str, Any] = copy.deepcopy(recorded("gcs_finalized"))
    event["data"] |= {"name": name, "generation": generation}
    return {**event, **change}


def structured(client: Any, event: dict[str, Any]) -> Any:
    """CloudEvents, HTTP protocol binding: structured mode."""
    return client.post("/", data=json.dumps(event), headers={"Content-Type": "application/cloudevents+json"})


def binary(client: Any, event: dict[str, Any]) -> Any:
    """CloudEvents, HTTP protocol binding: binary mode, which Eventarc sends."""
    names = ("id", "source", "type", "time", "specversion")
    headers = {f"ce-{name}": event[name] for name in names} | {"Content-Type": "application/json"}
    return client.post("/", data=json.dumps(event["data"]), headers=headers)


@pytest.mark.parametrize("send", [structured, binary])
def test_gcs_an_upload_reaches_the_function(send: Any, framework: Any, gcs: GcsServer, deployed: Deployed) -> None:
    """Through the framework's own CloudEvent path, in both of its forms."""
    event = gcs_event(NAME, gcs.put("trust-uploads", NAME, ROOT.pem.encode()))
    for _ in range(2):
        assert send(framework, event).status_code == 200
    assert deployed.cas() == ["CN=Root"]
    assert len(deployed.receipts()) == 1


def test_gcs_a_bundles_generation_is_deleted(framework: Any, gcs: GcsServer, deployed: Deployed) -> None:
    """That very generation: what was put in its place meanwhile is another upload."""
    issued, name = certs.server("mtxpd0.messaging.example.com", ROOT), "mtxpd0/server/prod.pem"
    first = gcs.put("trust-uploads", name, (issued.key_pem + issued.pem).encode())
    second = gcs.put("trust-uploads", name, b"another")
    assert binary(framework, gcs_event(name, first)).status_code == 200
    assert len(deployed.servers()) == 1
    assert [generation for _, _, generation in gcs.objects] == [second]


def test_gcs_a_store_that_does_not_answer_is_a_500_so_that_it_is_delivered_again(
    framework: Any, gcs: GcsServer, deployed: Deployed
) -> None:
    """Eventarc repeats what is not acknowledged."""
    event = gcs_event("mtxpd0/ca/x", gcs.put("trust-uploads", "mtxpd0/ca/x", ROOT.pem.encode()))
    gcs.fails_with = 503
    assert binary(framework, event).status_code == 500
    gcs.fails_with = None
    assert binary(framework, event).status_code == 200
    assert deployed.cas() == ["CN=Root"]


@pytest.mark.parametrize(
    "change",
    [
        {"source": "//storage.googleapis.com/projects/_/buckets/evil"},
        {"type": "google.cloud.storage.object.v1.deleted"},
        {"type": "google.cloud.pubsub.topic.v1.messagePublished"},
    ],
)
def test_gcs_a_public_post_that_pretends_to_be_an_event_reads_nothing(
    change: dict[str, str], framework: Any, gcs: GcsServer, deployed: Deployed
) -> None:
    """The invoker's identity is the platform's to check; what the event says is not believed all the same."""
    generation = gcs.put("evil", "mtxpd0/ca/x", ROOT.pem.encode())
    event = gcs_event("mtxpd0/ca/x", generation, **change)
    event["data"]["bucket"] = "evil"
    assert binary(framework, event).status_code == 200
    assert gcs.asked == []
    assert not deployed.cas()
    assert not deployed.receipts()


def test_a_plain_post_is_no_event(framework: Any, gcs: GcsServer) -> None:
    """Not even with the right JSON in it."""
    answer = framework.post("/", data=json.dumps(recorded("gcs_finalized")["data"]), content_type="application/json")
    assert answer.status_code == 400
    assert gcs.asked == []
