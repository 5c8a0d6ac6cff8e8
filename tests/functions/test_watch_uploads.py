"""The upload folder of a single machine: `make run` imports its files as a deployment imports objects."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from functions.events.folder import UploadWatcher
from shared.errors import StoreUnavailable
from tests.support import certs
from tests.support.harness import Service

ROOT = certs.ca("Root")


@dataclass
class Folder:
    service: Service
    root: Path
    watcher: UploadWatcher

    def put(self, key: str, data: str | bytes) -> Path:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def scan(self, times: int = 2) -> None:
        for _ in range(times):
            self.watcher.scan()

    def files(self) -> list[str]:
        paths = (path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file() or path.is_symlink())
        return sorted(str(path) for path in paths if path.name != ".readme")

    def ids(self, what: str) -> list[str]:
        entries = self.service.client("viewer").get(f"/authentication/{what}certificates").ok()["results"]
        return [entry["id"] for entry in entries if entry["id"] != "default"]


@pytest.fixture
def folder(service: Service) -> Folder:
    root = service.app.settings.data / "uploads"
    root.mkdir()
    return Folder(service, root, UploadWatcher(service.app))


def test_a_ca_in_the_folder_is_registered_and_moved(folder: Folder) -> None:
    """The second scan imports the file, and moves it to .done."""
    folder.put("mtxpd0/ca/root.pem", ROOT.pem)
    folder.scan()
    assert len(folder.ids("ca")) == 1
    assert folder.files() == [".done/mtxpd0/ca/root.pem"]


def test_a_file_that_is_still_being_written_is_not_imported(folder: Folder) -> None:
    """Half a certificate would be refused. A file is imported if it did not change between two scans."""
    half = len(ROOT.pem) // 2
    path = folder.put("mtxpd0/ca/root.pem", ROOT.pem[:half])
    folder.scan(1)
    path.write_text(ROOT.pem)
    folder.scan(1)
    assert folder.ids("ca") == []
    folder.scan(1)
    assert len(folder.ids("ca")) == 1


@pytest.mark.parametrize("name", [".root.pem", "root.pem.part", "root.pem.tmp", "root.pem~"])
def test_an_unfinished_transfer_is_skipped(name: str, folder: Folder) -> None:
    """A complete file has its own name."""
    folder.put(f"mtxpd0/ca/{name}", ROOT.pem)
    folder.scan(3)
    assert folder.files() == [f"mtxpd0/ca/{name}"]
    assert folder.ids("ca") == []


def test_a_server_certificates_bundle_is_deleted_when_it_is_imported(folder: Folder) -> None:
    """The private key is sealed in the store, and no plain copy remains."""
    issued = certs.server(folder.service.host(), ROOT)
    folder.put("mtxpd0/server/prod.pem", issued.key_pem + issued.pem)
    folder.scan()
    assert len(folder.ids("server")) == 1
    assert folder.files() == []


def test_a_refused_file_has_its_reason_beside_it(folder: Folder) -> None:
    """The file may hold a private key, so only its owner can read it."""
    issued = certs.server(folder.service.host(), ROOT)
    folder.put("mtxpd0/server/prod.pem", certs.key_pem(issued.key, "secret") + issued.pem)
    folder.scan()
    refused = ".refused/mtxpd0/server/prod.pem"
    assert folder.files() == [refused, f"{refused}.txt"]
    assert (folder.root / f"{refused}.txt").read_text() == (
        "passphrase_required: This private key is encrypted. Enter the passphrase of the key.\n"
    )
    assert stat.S_IMODE((folder.root / refused).stat().st_mode) == 0o600
    folder.scan()
    assert folder.files() == [refused, f"{refused}.txt"], "and is not taken again"


@pytest.mark.parametrize("key", ["nobody/ca/x.pem", "x.pem", "ca/x.pem"])
def test_a_file_outside_an_organization_is_refused(key: str, folder: Folder) -> None:
    """Otherwise it would stay in the folder unnoticed."""
    folder.put(key, ROOT.pem)
    folder.scan()
    assert folder.files() == [f".refused/{key}", f".refused/{key}.txt"]


def test_a_long_file_name_does_not_block_other_files(folder: Folder) -> None:
    """A name may have 255 bytes; the name of the file with the reason would be longer."""
    long = "a" * 255
    folder.put(f"mtxpd0/ca/{long}", "no certificate")
    folder.put("mtxpd0/ca/root.pem", ROOT.pem)
    folder.scan()
    assert len(folder.ids("ca")) == 1
    assert folder.files() == [".done/mtxpd0/ca/root.pem", f".refused/mtxpd0/ca/{long}"]


def test_links_are_not_followed(folder: Folder, tmp_path: Path) -> None:
    """Links to files and to folders are skipped."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "root.pem").write_text(ROOT.pem)
    (folder.root / "mtxpd0").mkdir()
    (folder.root / "mtxpd0" / "ca").symlink_to(outside)
    (folder.root / "mtxpd0" / "root.pem").symlink_to(outside / "root.pem")
    folder.scan(3)
    assert folder.ids("ca") == []
    assert os.listdir(outside) == ["root.pem"]


def test_a_file_stays_while_the_store_is_down(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure of the service refuses no file."""

    def fails(*_: Any, **__: Any) -> None:
        raise StoreUnavailable

    folder.put("mtxpd0/ca/root.pem", ROOT.pem)
    with monkeypatch.context() as patched:
        patched.setattr(folder.service.store, "put", fails)
        folder.scan(3)
    assert folder.files() == ["mtxpd0/ca/root.pem"]
    folder.scan(1)
    assert folder.files() == [".done/mtxpd0/ca/root.pem"]


def test_a_start_after_a_crash_moves_an_imported_file(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file has its receipt and was not moved yet: it is moved, and not imported again."""
    folder.put("mtxpd0/ca/root.pem", ROOT.pem)
    never: Callable[..., None] = lambda *_: None  # noqa: E731
    with monkeypatch.context() as patched:
        patched.setattr(UploadWatcher, "_put_away", never)
        folder.scan()
    folder.service.client("operator").delete(f"/authentication/cacertificates/{folder.ids('ca')[0]}").ok(204)
    later = UploadWatcher(folder.service.app)
    later.scan()
    later.scan()
    assert folder.files() == [".done/mtxpd0/ca/root.pem"]
    assert folder.ids("ca") == []


def test_the_thread_scans_until_it_is_closed(service: Service) -> None:
    """`make run` starts the thread: it makes the folder, and imports a file in it."""
    watcher = UploadWatcher(service.app, pause=0.01)
    watcher.start()
    root = service.app.settings.data / "uploads"
    (root / "mtxpd0" / "ca").mkdir(parents=True)
    (root / "mtxpd0" / "ca" / "root.pem").write_text(ROOT.pem)
    done = root / ".done" / "mtxpd0" / "ca" / "root.pem"
    while not done.exists():  # the time limit of the test bounds the wait
        os.sched_yield()
    watcher.close()
    watcher.close()
    assert len(Folder(service, root, watcher).ids("ca")) == 1
