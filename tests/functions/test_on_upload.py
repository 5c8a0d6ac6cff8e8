"""onUpload: recorded events of both clouds, real puts into S3, functions-framework's own CloudEvent path."""

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
from functions.events.uploads import parse_gcs, parse_s3
from functions.hosts import aws as aws_host
from functions.hosts import gcp, process
from functions.registry import FUNCTIONS, Trigger, every_route
from shared.errors import StoreUnavailable
from shared.ports import UploadedObject
from shared.records import Role
from shared.usecases.orgs.api_keys import create_key
from shared.usecases.orgs.default_certificate import ensure_default
from shared.usecases.orgs.organizations import create_org
from tests.support import certs, gcs_server
from tests.support.clouds import Aws
from tests.support.events import load_event
from tests.support.gcs_server import GcsServer
from tests.support.harness import Client

MAIN = Path(__file__).parents[2] / "main.py"
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
def test_every_form_of_an_s3_notification_is_understood(name: str, objects: list[UploadedObject]) -> None:
    """Form-encoded names are decoded once; EventBridge does not encode names."""
    assert list(parse_s3(load_event(name))) == objects


def test_an_event_of_cloud_storage_is_understood() -> None:
    """The event has the object and its generation; names are not encoded."""
    event = load_event("gcs_finalized")
    objects = list(parse_gcs(event["type"], event["source"], event["data"]))
    assert objects == [UploadedObject("trust-uploads", NAME, "1743752582769318")]


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
def test_an_event_that_contradicts_itself_is_skipped(
    kind: str | None, source: str | None, change: dict[str, Any]
) -> None:
    """Source and data name the bucket, and must agree."""
    event = load_event("gcs_finalized")
    data = {**event["data"], **change}
    assert list(parse_gcs(kind or event["type"], source or event["source"], data)) == []


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
def test_an_unknown_event_is_skipped_and_logged(event: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A second delivery would bring the same event."""
    assert list(parse_s3(event)) == []
    assert "names no object" in caplog.text


def test_the_depth_of_nested_events_is_bounded() -> None:
    """S3 in SNS in SQS is the deepest real case."""
    event: Any = load_event("s3_put")
    for _ in range(10):
        event = {"Type": "Notification", "Message": json.dumps(event)}
    assert list(parse_s3(event)) == []


def test_event_functions_are_not_on_the_public_router() -> None:
    """No route of the base URL leads to them."""
    called_by_events = {function.name for function in FUNCTIONS if function.trigger is not Trigger.HTTP}
    assert called_by_events == {"onUpload", "recordSightings", "expiryReport"}
    assert not called_by_events & {route.endpoint.function for route in every_route()}


# ------------------------------------------------------------------------------------------- a deployed function


@dataclass
class Deployed:
    """A process of the function: its settings come from the environment, and the first event builds its App."""

    operator: Client

    def cas(self) -> list[str]:
        cas = self.operator.get("/authentication/cacertificates").ok()["results"]
        return [ca["subject"] for ca in cas]

    def servers(self) -> list[str]:
        servers = self.operator.get("/authentication/servercertificates").ok()["results"]
        return [server["id"] for server in servers if server["id"] != "default"]

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
    monkeypatch.setattr(process, "_app", None)  # the test has an App of its own
    aws_host._objects.cache_clear()
    app = process.app()
    structs.force_setattr(app.context, "clock", lambda: certs.NOON)
    ensure_default(app.context, app.sealer)
    create_org(app.context, "mtxpd0")
    key, token = create_key(app.context, org_id="mtxpd0", role=Role.OPERATOR)
    yield Deployed(Client(app, key.key, token))
    app.close()
    aws_host._objects.cache_clear()
    root.handlers[:], root.level = handlers, level


class Context:
    aws_request_id = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"


@pytest.fixture
def bucket(aws: Aws, deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> str:
    """The upload bucket in S3, with versions."""
    name = aws.bucket()
    monkeypatch.setenv("TRUST_UPLOAD_BUCKET", name)
    app = process.app()
    structs.force_setattr(app.settings, "upload_bucket", name)
    return name


def sqs_event(*bodies: str) -> dict[str, Any]:
    """Return messages as Lambda's event source mapping passes them."""
    template = load_event("s3_by_sqs")["Records"][0]
    return {"Records": [{**template, "body": body} for body in bodies]}


@pytest.mark.parametrize("name", ["root.pem", "a b+c%20ü€😀 ..%2F.pem", "../../other1/ca/x.pem", "x" * 1000])
def test_s3_a_put_reaches_the_function_through_a_queue(name: str, aws: Aws, bucket: str, deployed: Deployed) -> None:
    """A real put, S3's own notification, SQS: the CA is registered for every file name; the test event is ignored."""
    queue, url = aws.queue()
    configuration = {"QueueArn": aws.arn("sqs", queue), "Events": ["s3:ObjectCreated:*"]}
    s3 = aws.client("s3")
    s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [configuration]}
    )
    s3.put_object(Bucket=bucket, Key=f"mtxpd0/ca/{name}", Body=ROOT.pem.encode())
    bodies = aws.drain(url)
    assert len(bodies) == 2, "the test event, and the put"
    aws_host.on_upload(sqs_event(*bodies), Context())
    aws_host.on_upload(sqs_event(*bodies), Context())
    assert deployed.cas() == ["CN=Root"]
    [receipt] = deployed.receipts()
    assert receipt["result"] == "done"


def test_s3_a_put_reaches_the_function_through_event_bridge(aws: Aws, bucket: str, deployed: Deployed) -> None:
    """EventBridge does not encode names."""
    queue, url = aws.queue()
    events, s3 = aws.client("events"), aws.client("s3")
    pattern = {"source": ["aws.s3"], "detail": {"bucket": {"name": [bucket]}}}
    events.put_rule(Name=queue, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=queue, Targets=[{"Id": "1", "Arn": aws.arn("sqs", queue)}])
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}})
    s3.put_object(Bucket=bucket, Key="mtxpd0/ca/a b+c%2B.pem", Body=ROOT.pem.encode())
    for body in aws.drain(url):
        aws_host.on_upload(json.loads(body), Context())
    assert deployed.cas() == ["CN=Root"]


def test_s3_a_bundle_is_imported_and_every_version_is_deleted(aws: Aws, bucket: str, deployed: Deployed) -> None:
    """In a bucket with versions, a delete without a version would only hide the private key."""
    issued, s3 = certs.server("mtxpd0.messaging.example.com", ROOT), aws.client("s3")
    key = "mtxpd0/server/prod.pem"
    stored = s3.put_object(Bucket=bucket, Key=key, Body=(issued.key_pem + issued.pem).encode())
    aws_host.on_upload(s3_event(bucket, key, stored["VersionId"]), Context())
    assert len(deployed.servers()) == 1
    versions = s3.list_object_versions(Bucket=bucket, Prefix="mtxpd0/")
    assert "Versions" not in versions
    assert "DeleteMarkers" not in versions


def test_s3_a_large_object_is_not_fetched(aws: Aws, bucket: str, deployed: Deployed) -> None:
    """The size is read first."""
    stored = aws.client("s3").put_object(Bucket=bucket, Key="mtxpd0/ca/big", Body=b"x" * 1_000_000)
    aws_host.on_upload(s3_event(bucket, "mtxpd0/ca/big", stored["VersionId"]), Context())
    assert [receipt["code"] for receipt in deployed.receipts()] == ["file_too_large"]


def s3_event(bucket: str, key: str, version: str) -> dict[str, Any]:
    event: dict[str, Any] = copy.deepcopy(load_event("s3_put"))
    record = event["Records"][0]["s3"]
    record["bucket"]["name"] = bucket
    record["object"] |= {"key": key, "versionId": version}
    del record["object"]["eTag"]
    return event


def test_s3_an_event_of_another_bucket_reads_nothing(
    aws: Aws, bucket: str, deployed: Deployed, caplog: pytest.LogCaptureFixture
) -> None:
    """The event is forged or the trigger is wrong: it is logged as an error, and not delivered again."""
    other = aws.bucket()
    stored = aws.client("s3").put_object(Bucket=other, Key="mtxpd0/ca/x", Body=ROOT.pem.encode())
    aws_host.on_upload(s3_event(other, "mtxpd0/ca/x", stored["VersionId"]), Context())
    assert not deployed.cas()
    assert not deployed.receipts()
    assert "another bucket" in caplog.text


def test_s3_a_failure_does_not_affect_the_rest_of_the_batch(
    aws: Aws, bucket: str, deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other objects are imported, and the second delivery skips them."""
    s3 = aws.client("s3")
    bodies = []
    for name in ("a", "b", "c"):
        pem = certs.ca(name).pem.encode()
        stored = s3.put_object(Bucket=bucket, Key=f"mtxpd0/ca/{name}", Body=pem)
        bodies.append(json.dumps(s3_event(bucket, f"mtxpd0/ca/{name}", stored["VersionId"])))
    reader = aws_host._objects()
    read = type(reader).read

    def fails_for_b(self: Any, uploaded: Any) -> bytes | None:
        if uploaded.key.endswith("b"):
            raise StoreUnavailable
        return read(self, uploaded)

    with monkeypatch.context() as patched:
        patched.setattr(type(reader), "read", fails_for_b)
        with pytest.raises(StoreUnavailable):
            aws_host.on_upload(sqs_event(*bodies), Context())
    assert sorted(deployed.cas()) == ["CN=a", "CN=c"]
    aws_host.on_upload(sqs_event(*bodies), Context())
    assert sorted(deployed.cas()) == ["CN=a", "CN=b", "CN=c"]
    assert len(deployed.receipts()) == 3


def test_without_a_configured_bucket_every_event_is_refused(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the missing setting."""
    structs.force_setattr(process.app().settings, "upload_bucket", None)
    with pytest.raises(Exception, match="TRUST_UPLOAD_BUCKET"):
        aws_host.on_upload(load_event("s3_put"), Context())


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

    gcp._objects.cache_clear()
    create_app: Any = functions_framework.create_app
    return create_app("onUpload", str(MAIN), "cloudevent").test_client()


def gcs_event(name: str, generation: str, **change: Any) -> dict[str, Any]:
    event: dict[str, Any] = copy.deepcopy(load_event("gcs_finalized"))
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
    """The framework accepts both forms of a CloudEvent."""
    event = gcs_event(NAME, gcs.put("trust-uploads", NAME, ROOT.pem.encode()))
    for _ in range(2):
        assert send(framework, event).status_code == 200
    assert deployed.cas() == ["CN=Root"]
    assert len(deployed.receipts()) == 1


def test_gcs_only_the_imported_generation_is_deleted(framework: Any, gcs: GcsServer, deployed: Deployed) -> None:
    """A newer generation is another upload."""
    issued, name = certs.server("mtxpd0.messaging.example.com", ROOT), "mtxpd0/server/prod.pem"
    first = gcs.put("trust-uploads", name, (issued.key_pem + issued.pem).encode())
    second = gcs.put("trust-uploads", name, b"another")
    assert binary(framework, gcs_event(name, first)).status_code == 200
    assert len(deployed.servers()) == 1
    assert [generation for _, _, generation in gcs.objects] == [second]


def test_gcs_an_event_is_answered_with_500_while_the_store_is_down(
    framework: Any, gcs: GcsServer, deployed: Deployed
) -> None:
    """Eventarc delivers an event again that was not acknowledged."""
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
def test_gcs_a_forged_event_reads_nothing(
    change: dict[str, str], framework: Any, gcs: GcsServer, deployed: Deployed
) -> None:
    """The platform checks the invoker's identity. The function checks the content of the event as well."""
    generation = gcs.put("evil", "mtxpd0/ca/x", ROOT.pem.encode())
    event = gcs_event("mtxpd0/ca/x", generation, **change)
    event["data"]["bucket"] = "evil"
    assert binary(framework, event).status_code == 200
    assert gcs.asked == []
    assert not deployed.cas()
    assert not deployed.receipts()


def test_a_plain_post_is_refused(framework: Any, gcs: GcsServer) -> None:
    """A POST with the right JSON is no CloudEvent."""
    answer = framework.post("/", data=json.dumps(load_event("gcs_finalized")["data"]), content_type="application/json")
    assert answer.status_code == 400
    assert gcs.asked == []
