"""Uploads in Amazon S3, Google Cloud Storage and a folder. One suite for all."""

import gzip
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.adapters.folder_reader import FolderReader
from shared.adapters.s3_reader import S3Reader
from shared.errors import StoreUnavailable
from shared.ports import FoundObject, ObjectReader, UploadedObject
from tests import gcs_server
from tests.clouds import Aws, aws_environment, free_port
from tests.gcs_server import GcsServer

KEY = "mtxpd0/ca/a b+c%20ü€😀..%2F.pem"


@dataclass
class Bucket:
    reader: ObjectReader
    put: Callable[[str, bytes], UploadedObject]  # what the event then says
    down: Callable[[], None] | None = None

    def found(self, uploaded: UploadedObject) -> FoundObject:
        found = self.reader.find(uploaded)
        assert found is not None
        return found


@pytest.fixture(params=["s3", "s3_without_versions", "gcs", "folder"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    found: Bucket = request.getfixturevalue(f"{request.param}_bucket")
    return found


def _s3(aws: Aws, monkeypatch: pytest.MonkeyPatch, *, versioned: bool) -> Bucket:
    name, s3 = aws.bucket(versioned=versioned), aws.client("s3")

    def put(key: str, data: bytes) -> UploadedObject:
        told = s3.put_object(Bucket=name, Key=key, Body=data)
        return UploadedObject(name, key, told.get("VersionId"), told["ETag"].strip('"'))

    def down() -> None:
        aws_environment(monkeypatch, f"http://127.0.0.1:{free_port()}")

    return Bucket(S3Reader(), put, down)


@pytest.fixture
def s3_bucket(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    return _s3(aws, monkeypatch, versioned=True)


@pytest.fixture
def s3_without_versions_bucket(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    return _s3(aws, monkeypatch, versioned=False)


@pytest.fixture
def gcs() -> Iterator[GcsServer]:
    with gcs_server.serving() as server:
        yield server


@pytest.fixture
def gcs_bucket(gcs: GcsServer) -> Bucket:
    def put(key: str, data: bytes) -> UploadedObject:
        return UploadedObject("uploads", key, gcs.put("uploads", key, data))

    def down() -> None:
        gcs.fails_with = 503

    return Bucket(gcs.reader(), put, down)


@pytest.fixture
def folder_bucket(tmp_path: Path) -> Bucket:
    reader = FolderReader(tmp_path)

    def put(key: str, data: bytes) -> UploadedObject:
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(".new")  # a file of its own number, as whoever replaces a file should make
        new.write_bytes(data)
        new.replace(path)
        found = reader.find(UploadedObject("folder", key))
        return UploadedObject("folder", key, found.version if found else None)

    return Bucket(reader, put)


def test_what_was_put_is_read(bucket: Bucket) -> None:
    """Whatever its name is made of, byte for byte."""
    found = bucket.found(bucket.put(KEY, b"\x00data\xff" * 1000))
    assert found.size == 6000
    assert found.stored_at.tzinfo is not None
    assert bucket.reader.read(found) == b"\x00data\xff" * 1000


def test_only_the_version_of_the_event_is_read(bucket: Bucket) -> None:
    """An object that was replaced has an event of its own: the first event never brings the second content."""
    first = bucket.put(KEY, b"first")
    bucket.put(KEY, b"second")
    found = bucket.reader.find(first)
    assert found is None or bucket.reader.read(found) == b"first"


def test_only_the_version_that_was_imported_is_removed(bucket: Bucket) -> None:
    """What was put in its place meanwhile stays, and is imported by its own event."""
    first = bucket.put(KEY, b"first")
    found = bucket.found(first)
    second = bucket.put(KEY, b"second")
    bucket.reader.remove(found)
    assert bucket.reader.find(first) is None
    assert bucket.reader.read(bucket.found(second)) == b"second"


def test_what_is_gone_is_not_found_and_may_be_removed_again(bucket: Bucket) -> None:
    """A second delivery of an event finds the work done, and no error."""
    uploaded = bucket.put(KEY, b"x")
    found = bucket.found(uploaded)
    bucket.reader.remove(found)
    assert bucket.reader.find(uploaded) is None
    assert bucket.reader.read(found) is None
    bucket.reader.remove(found)


def test_no_more_is_read_than_was_announced(bucket: Bucket) -> None:
    """The size is judged before anything is read, so more than that is never in memory."""
    found = bucket.found(bucket.put(KEY, b"x" * 100_000))
    short = FoundObject(found.bucket, found.key, found.version, found.etag, 1000, found.stored_at)
    assert len(bucket.reader.read(short) or b"") == 1000


@pytest.mark.parametrize("cloud", ["s3", "gcs"])
def test_a_store_that_does_not_answer_is_no_missing_object(cloud: str, request: pytest.FixtureRequest) -> None:
    """The event must be delivered again, not dropped."""
    bucket: Bucket = request.getfixturevalue(f"{cloud}_bucket")
    uploaded = bucket.put(KEY, b"x")
    assert bucket.down is not None
    bucket.down()
    with pytest.raises(StoreUnavailable):
        bucket.reader.find(uploaded)


def test_gcs_an_object_marked_as_gzip_is_not_unpacked(gcs: GcsServer) -> None:
    """Some kilobytes would become gigabytes on their way."""
    packed = gzip.compress(b"0" * 5_000_000)
    generation = gcs.put("uploads", "mtxpd0/ca/x", packed, encoding="gzip")
    reader = gcs.reader()
    found = reader.find(UploadedObject("uploads", "mtxpd0/ca/x", generation))
    assert found is not None
    assert reader.read(found) == packed


@pytest.mark.parametrize("key", ["mtxpd0/ca/..", "../../b/other/o/x", "mtxpd0/ca/x?generation=1", "mtxpd0/ca/x#y"])
def test_gcs_no_name_leads_to_another_address(key: str, gcs: GcsServer) -> None:
    """An object's name is one segment of the API's path, whatever it says."""
    generation = gcs.put("uploads", key, b"mine")
    found = gcs.reader().find(UploadedObject("uploads", key, generation))
    assert found is not None
    assert found.size == 4


@pytest.mark.parametrize("key", ["../secret", "mtxpd0/../../secret", "/etc/passwd", "mtxpd0//ca", "a\0b", "", ".."])
def test_folder_no_name_leads_out_of_the_folder(key: str, tmp_path: Path) -> None:
    """`..`, an absolute path and NUL find nothing."""
    (tmp_path / "uploads" / "mtxpd0").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    assert FolderReader(tmp_path / "uploads").find(UploadedObject("folder", key)) is None


def test_folder_links_are_not_followed(tmp_path: Path) -> None:
    """A link could show another org's file, or the machine's."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key.pem").write_text("secret")
    root = tmp_path / "uploads"
    (root / "mtxpd0" / "ca").mkdir(parents=True)
    (root / "mtxpd0" / "ca" / "file").symlink_to(secret / "key.pem")
    (root / "mtxpd0" / "server").symlink_to(secret)
    reader = FolderReader(root)
    assert reader.find(UploadedObject("folder", "mtxpd0/ca/file")) is None
    assert reader.find(UploadedObject("folder", "mtxpd0/server/key.pem")) is None
    assert sorted(os.listdir(secret)) == ["key.pem"]
