"""Object readers: Amazon S3, Google Cloud Storage and a folder pass the same tests."""

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
from tests.support import gcs_server
from tests.support.clouds import Aws, aws_environment
from tests.support.emulators import free_port
from tests.support.gcs_server import GcsServer

KEY = "mtxpd0/ca/a b+c%20ü€😀..%2F.pem"


@dataclass
class Bucket:
    reader: ObjectReader
    put: Callable[[str, bytes], UploadedObject]  # returns the object that the event names
    down: Callable[[], None] | None = None

    def find(self, uploaded: UploadedObject) -> FoundObject:
        stored = self.reader.find(uploaded)
        assert stored is not None
        return stored


@pytest.fixture(params=["s3", "s3_without_versions", "gcs", "folder"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    bucket: Bucket = request.getfixturevalue(f"{request.param}_bucket")
    return bucket


def _s3(aws: Aws, monkeypatch: pytest.MonkeyPatch, *, versioned: bool) -> Bucket:
    name, s3 = aws.bucket(versioned=versioned), aws.client("s3")

    def put(key: str, data: bytes) -> UploadedObject:
        response = s3.put_object(Bucket=name, Key=key, Body=data)
        return UploadedObject(name, key, response.get("VersionId"), response["ETag"].strip('"'))

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
        new = path.with_name(".new")  # another inode number, as after a proper replacement
        new.write_bytes(data)
        new.replace(path)
        stored = reader.find(UploadedObject("folder", key))
        return UploadedObject("folder", key, stored.version if stored else None)

    return Bucket(reader, put)


def test_an_uploaded_object_can_be_read(bucket: Bucket) -> None:
    """With any characters in its name, and with unchanged content."""
    stored = bucket.find(bucket.put(KEY, b"\x00data\xff" * 1000))
    assert stored.size == 6000
    assert stored.stored_at.tzinfo is not None
    assert bucket.reader.read(stored) == b"\x00data\xff" * 1000


def test_only_the_version_of_the_event_is_read(bucket: Bucket) -> None:
    """The first event never imports the second content, which has an event of its own."""
    first = bucket.put(KEY, b"first")
    bucket.put(KEY, b"second")
    stored = bucket.reader.find(first)
    assert stored is None or bucket.reader.read(stored) == b"first"


def test_only_the_imported_version_is_removed(bucket: Bucket) -> None:
    """A later version is kept and imported by its own event."""
    first = bucket.put(KEY, b"first")
    stored = bucket.find(first)
    second = bucket.put(KEY, b"second")
    bucket.reader.remove(stored)
    assert bucket.reader.find(first) is None
    assert bucket.reader.read(bucket.find(second)) == b"second"


def test_a_removed_version_is_missing_and_may_be_removed_again(bucket: Bucket) -> None:
    """A second delivery of an event is not an error."""
    uploaded = bucket.put(KEY, b"x")
    stored = bucket.find(uploaded)
    bucket.reader.remove(stored)
    assert bucket.reader.find(uploaded) is None
    assert bucket.reader.read(stored) is None
    bucket.reader.remove(stored)


def test_at_most_the_given_size_is_read(bucket: Bucket) -> None:
    """The size is checked before the content is read, which bounds the memory."""
    stored = bucket.find(bucket.put(KEY, b"x" * 100_000))
    short = FoundObject(stored.bucket, stored.key, stored.version, stored.etag, 1000, stored.stored_at)
    assert len(bucket.reader.read(short) or b"") == 1000


@pytest.mark.parametrize("cloud", ["s3", "gcs"])
def test_an_unavailable_store_is_not_a_missing_object(cloud: str, request: pytest.FixtureRequest) -> None:
    """The event must be delivered again and must not be dropped."""
    bucket: Bucket = request.getfixturevalue(f"{cloud}_bucket")
    uploaded = bucket.put(KEY, b"x")
    assert bucket.down is not None
    bucket.down()
    with pytest.raises(StoreUnavailable):
        bucket.reader.find(uploaded)


def test_gcs_a_gzip_object_is_not_decompressed(gcs: GcsServer) -> None:
    """Some kilobytes could become gigabytes."""
    packed = gzip.compress(b"0" * 50_000_000)
    generation = gcs.put("uploads", "mtxpd0/ca/x", packed, encoding="gzip")
    reader = gcs.reader()
    stored = reader.find(UploadedObject("uploads", "mtxpd0/ca/x", generation))
    assert stored is not None
    assert reader.read(stored) == packed


@pytest.mark.parametrize("key", ["mtxpd0/ca/..", "../../b/other/o/x", "mtxpd0/ca/x?generation=1", "mtxpd0/ca/x#y"])
def test_gcs_no_object_name_changes_the_path(key: str, gcs: GcsServer) -> None:
    """An object's name is one segment of the request's path, with any characters."""
    generation = gcs.put("uploads", key, b"mine")
    stored = gcs.reader().find(UploadedObject("uploads", key, generation))
    assert stored is not None
    assert stored.size == 4


@pytest.mark.parametrize("key", ["../secret", "mtxpd0/../../secret", "/etc/passwd", "mtxpd0//ca", "a\0b", "", ".."])
def test_folder_no_key_leaves_the_folder(key: str, tmp_path: Path) -> None:
    """With `..`, an absolute path or NUL, no object is found."""
    (tmp_path / "uploads" / "mtxpd0").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    assert FolderReader(tmp_path / "uploads").find(UploadedObject("folder", key)) is None


def test_folder_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    """A link could lead to a file of another organization, or of the machine."""
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
