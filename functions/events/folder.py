"""The upload bucket of a single machine: files put below TRUST_DATA/uploads are imported as onUpload imports objects.

    uploads/{orgId}/ca/<any name>  …/server/<any name>  …/csr/<id>

A file is imported when two scans in a row find it unchanged (size, time, inode), so that a file that is still being
written is left alone. A file that is renamed into place is complete from the start. Names that begin with a dot, or end
like an unfinished transfer (.part, .tmp, .crdownload, ~), are skipped. After the import

* a server certificate's bundle is deleted: it holds a private key, which is sealed in the store now;
* any other file is moved to uploads/.done/, under the same path;
* a refused file is moved to uploads/.refused/, with a .txt beside it that gives the reason and the remedy;
* a file that cannot be imported at the moment (the store, a rate limit) stays, and is tried again.
"""

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shared import log as logs
from shared.composition import App, folder_objects
from shared.errors import StoreUnavailable, TrustError
from shared.ports import UploadedObject
from shared.usecases.jobs.uploads import End, Outcome, on_upload

log = logging.getLogger(__name__)

FOLDER: Final = "uploads"
_BUCKET: Final = "folder"  # in place of a bucket's name
_PAUSE: Final = 1.0  # seconds between two scans
_DEPTH: Final = 8  # levels of folders that are scanned
_UNFINISHED: Final = (".part", ".partial", ".tmp", ".crdownload", ".swp", "~")
_README: Final = "Put files here as <orgId>/ca/…, <orgId>/server/… or <orgId>/csr/<id of the request>.\n"


class UploadWatcher:
    """Scans the folder repeatedly, in a thread of its own.

    Args:
        pause: seconds between two scans.
    """

    def __init__(self, app: App, *, pause: float = _PAUSE) -> None:
        self._app = app
        self._root = app.settings.data / FOLDER
        self._objects = folder_objects(self._root)
        self._pause = pause
        self._versions: dict[str, str] = {}  # key -> version, at the last scan
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Make the folder if it does not exist, and start to scan it."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        readme = self._root / ".readme"
        if not readme.exists():
            readme.write_text(_README)
        self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, after the file that is being imported. Safe to call twice."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._pause):
            try:
                self.scan()
            except Exception:
                log.exception("the upload folder could not be scanned; the next scan tries again")

    def scan(self) -> None:
        """Import every file that has not changed since the scan before."""
        before, self._versions = self._versions, {}
        for key in _files(self._root, "", _DEPTH):
            if self._stopping.is_set():
                return
            file = self._objects.find(UploadedObject(_BUCKET, key))
            if file is None or file.version is None:
                continue
            if before.get(key) == file.version:
                with logs.request(None):
                    self._import(UploadedObject(_BUCKET, key, file.version))
            self._versions[key] = file.version

    def _import(self, uploaded: UploadedObject) -> None:
        try:
            outcome = on_upload(self._app.context, self._app.sealer, self._objects, uploaded, bucket=_BUCKET)
        except StoreUnavailable:
            log.warning("an upload will be tried again: the store does not answer", exc_info=True)
            return
        except TrustError as error:  # too many at once
            log.warning("an upload will be tried again: %s", error.code)
            return
        except Exception as error:
            log.error("an upload could not be imported: %s", type(error).__name__, exc_info=True)
            outcome = Outcome(End.REFUSED, "Something went wrong here; the log says more.", "internal")
        log.info("an upload ended", extra={"end": str(outcome.end), "code": outcome.code})
        self._put_away(uploaded.key, outcome)

    def _put_away(self, key: str, outcome: Outcome) -> None:
        path = self._root / key
        target = self._root / (".done" if outcome.end is End.DONE else ".refused") / key
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.replace(target)
            target.chmod(0o600)  # it may hold a private key
            if outcome.end is not End.DONE:
                target.with_name(f"{target.name}.txt").write_text(f"{outcome.code or outcome.end}: {outcome.why}\n")
        except FileNotFoundError:
            return  # deleted: a server certificate's bundle after its import, or any file by its owner
        except OSError as error:
            log.error("an upload could not be moved away completely: %s", type(error).__name__)


def _files(root: Path, prefix: str, depth: int) -> Iterator[str]:
    """Return the keys of the regular files below *root*, sorted; without links and hidden names."""
    try:
        with os.scandir(root / prefix) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name.endswith(_UNFINISHED):
            continue
        if entry.is_dir(follow_symlinks=False):
            if depth:
                yield from _files(root, f"{prefix}{entry.name}/", depth - 1)
        elif entry.is_file(follow_symlinks=False):
            yield f"{prefix}{entry.name}"
