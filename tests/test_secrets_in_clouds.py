"""No data key, private key, passphrase or credential in the log at TRUST_LOG=DEBUG, on the adapters of both clouds.

Client libraries log whole requests and answers at DEBUG. A test calls the adapters with known secrets, with the log
configured as a host configures it, and then searches the log.
"""

import base64
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from shared import log
from shared.adapters.aws_kms_sealer import AwsKmsSealer
from shared.adapters.envelope import DataKey, EnvelopeSealer
from shared.adapters.gcp_kms_sealer import GcpKmsSealer
from shared.adapters.s3_reader import S3Reader
from shared.config import AwsKms
from shared.config import PubSub as PubSubSetting
from shared.config import Sqs as SqsSetting
from shared.ports import ObjectReader, UploadedObject
from tests.support import certs, gcs_server
from tests.support.clouds import Aws, PubSub
from tests.support.harness import Service, make_service
from tests.support.kms_server import KEY, serving
from tests.support.stores import Place

PASSPHRASE = "correct horse battery staple"
SESSION_TOKEN = "FwoGZXIvYXdzEBYaDEbUFExampleSessionTokenOfThisTest"
SECRET_ACCESS_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYOfThisTest"
SERVERS = "/authentication/servercertificates"


@dataclass
class Log:
    """The log of a host with TRUST_LOG=DEBUG, and the secrets that must not be in it."""

    stream: io.StringIO = field(default_factory=io.StringIO)
    secrets: dict[str, bytes] = field(default_factory=dict)

    def check(self) -> None:
        """Fail if the log is empty, or holds a secret in any form in which a library writes bytes."""
        text = self.stream.getvalue()
        assert '"logger":"trust.access"' in text or '"logger":"shared.here"' in text, "the log is not empty"
        found = [name for name, secret in self.secrets.items() if any(form in text for form in _forms(secret))]
        assert found == []

    def list_debug_loggers(self) -> set[str]:
        lines = self.stream.getvalue().splitlines()
        return {line.partition('"logger":"')[2].partition('"')[0] for line in lines if '"severity":"DEBUG"' in line}


def _forms(secret: bytes) -> list[str]:
    text = secret.decode("latin-1")
    return [
        *([text] if text.isascii() and text.isprintable() else []),
        base64.b64encode(secret).decode().rstrip("="),
        base64.urlsafe_b64encode(secret).decode().rstrip("="),
        secret.hex(),
        repr(secret)[2:-1],
        repr(secret)[2:-1].replace("\\", "\\\\"),  # within JSON
        "".join(chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in secret),  # protobuf's text format
    ]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """Configure the log as a host does, with TRUST_LOG=DEBUG."""
    written = Log()
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    monkeypatch.setattr(log.LINES, "write", written.stream.write)
    log.configure("DEBUG")
    logging.getLogger("shared.here").debug("this project's own lines are written")
    yield written
    for handler in list(root.handlers):
        root.removeHandler(handler)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)


@pytest.fixture
def credentials(aws: Aws, monkeypatch: pytest.MonkeyPatch, written: Log) -> None:
    """Temporary credentials, as a function has on AWS."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION_TOKEN)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
    written.secrets |= {"session token": SESSION_TOKEN.encode(), "secret access key": SECRET_ACCESS_KEY.encode()}


def watch(sealer: EnvelopeSealer, monkeypatch: pytest.MonkeyPatch, written: Log) -> None:
    """Add each data key of *sealer* to the secrets."""
    new, unwrap = sealer._new_data_key, sealer._unwrap

    def new_data_key(location: Any) -> DataKey:
        key = new(location)
        written.secrets[f"data key {len(written.secrets)}"] = key.plain
        return key

    def unwrapped(*arguments: Any) -> bytes:
        plain = unwrap(*arguments)
        written.secrets[f"unwrapped data key {len(written.secrets)}"] = plain
        return plain

    monkeypatch.setattr(sealer, "_new_data_key", new_data_key)
    monkeypatch.setattr(sealer, "_unwrap", unwrapped)


def use(service: Service, written: Log) -> None:
    """Upload, request, renew, activate and export keys; ask for a verdict; deliver the queue."""
    operator, edge = service.client("operator"), service.client("edge")
    own = certs.server(service.host(), private=certs.key("P-256", 31))
    pem = certs.key_pem(own.key)
    written.secrets |= {
        "token": operator.token.encode(),
        "edge's token": edge.token.encode(),
        "passphrase": PASSPHRASE.encode(),
        "private key": base64.b64decode("".join(pem.splitlines()[1:-1]))[36:68],
        "private key, a line of PEM": max(pem.splitlines()[1:-1], key=len).encode(),
    }
    upload = {"certificate": own.pem, "privateKey": certs.key_pem(own.key, PASSPHRASE), "passphrase": PASSPHRASE}
    uploaded = operator.post(SERVERS, upload).ok(201)["id"]
    operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)
    operator.post(f"{SERVERS}/{uploaded}/renewal", {}).ok(201)
    operator.put(f"{SERVERS}/active", {"id": uploaded}).ok()
    exported = edge.get(f"//edge/v1/hosts/{service.host()}").ok()
    assert "BEGIN PRIVATE KEY" in exported["privateKey"]
    service.client("broker").post("/verifyClient", {"serverName": service.host(), "tls": True}).ok()
    service.flush()


def test_aws_at_debug(
    aws: Aws, credentials: None, written: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS KMS, SQS and S3. botocore logs the answer of GenerateDataKey and the headers of each request at DEBUG."""
    kms, (_, queue) = aws.client("kms"), aws.queue()
    key = AwsKms(kms.create_key()["KeyMetadata"]["KeyId"])
    service = make_service(tmp_path / "data", keys=key, queue=SqsSetting(queue))
    try:
        sealer = service.app.sealer
        assert isinstance(sealer, AwsKmsSealer)
        watch(sealer, monkeypatch, written)
        use(service, written)
    finally:
        service.app.close()
    bucket, body = aws.bucket(), b"-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n"
    aws.client("s3").put_object(Bucket=bucket, Key="mtxpd0/server/a.pem", Body=body)
    read(S3Reader(), UploadedObject(bucket, "mtxpd0/server/a.pem"), body, written)
    assert sum("data key" in name for name in written.secrets) >= 4
    written.check()


def test_google_cloud_at_debug(pubsub: PubSub, written: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cloud KMS, Pub/Sub and Cloud Storage."""
    with serving() as server:
        sealer = GcpKmsSealer(KEY, connect=server.client)
        watch(sealer, monkeypatch, written)
        monkeypatch.setattr("shared.composition._create_sealer", lambda settings: sealer)
        service = make_service(tmp_path / "data", queue=PubSubSetting(pubsub.topic))
        try:
            use(service, written)
        finally:
            service.app.close()
    body = b"-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n"
    with gcs_server.serving() as gcs:
        generation = gcs.put("uploads", "mtxpd0/server/a.pem", body)
        read(gcs.reader(), UploadedObject("uploads", "mtxpd0/server/a.pem", generation), body, written)
    assert sum("data key" in name for name in written.secrets) >= 4
    written.check()


def read(reader: ObjectReader, uploaded: UploadedObject, body: bytes, written: Log) -> None:
    """Read an upload that holds a private key."""
    found = reader.find(uploaded)
    assert found is not None
    assert reader.read(found) == body
    written.secrets["uploaded key"] = body.splitlines()[1]


def test_each_store_at_debug(place: Place, written: Log, tmp_path: Path) -> None:
    """SQLite, Firestore and DynamoDB."""
    service = make_service(tmp_path / "data", store=place)
    try:
        use(service, written)
    finally:
        service.app.close()
    written.check()


def test_loggers_of_other_packages_are_never_below_warning(written: Log) -> None:
    """Also a logger whose package sets its level: TRUST_LOG is about this project's lines."""
    loud = logging.getLogger("botocore.parsers")
    loud.setLevel(logging.DEBUG)
    try:
        loud.debug("a plaintext data key")
        loud.warning("a warning")
    finally:
        loud.setLevel(logging.NOTSET)
    for name in ("urllib3.connectionpool", "grpc", "uvicorn.error", "functions_framework", "google.auth", ""):
        logging.getLogger(name).info("an answer")
    for name in ("shared.adapters.s3_reader", "functions.web.problem", "trust.access"):
        logging.getLogger(name).debug("our line")
    text = written.stream.getvalue()
    assert "a warning" in text
    assert "data key" not in text
    assert "an answer" not in text
    assert written.list_debug_loggers() >= {"shared.adapters.s3_reader", "functions.web.problem", "trust.access"}


def test_a_level_above_warning_holds_for_every_logger(written: Log) -> None:
    log.configure("ERROR")
    for name in ("botocore", "shared.repository"):
        logging.getLogger(name).warning("a warning")
        logging.getLogger(name).error("an error")
    text = written.stream.getvalue()
    assert "a warning" not in text
    assert text.count("an error") == 2
