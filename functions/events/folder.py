"""The upload bucket of a single machine: files put below TRUST_DATA/uploads are taken as onUpload takes objects.

    uploads/{orgId}/ca/<any name>  …/server/<any name>  …/csr/<id>

A file is taken when two looks in a row find it the same (size, time, number): then nobody writes to it any more. A file
that is renamed into place is whole from the start. Names that begin with a dot, or end like a transfer that goes on
(.part, .tmp, .crdownload, ~), are left alone. Afterwards

* a server certificate's bundle is deleted: it holds a private key, which is sealed in the store now;
* any other goes to uploads/.done/, under the same path;
* a refused one goes to uploads/.refused/, with a .txt beside it that says why and how to mend it;
* one that could not be taken for the moment (the store, a rate limit) stays, and is tried again.
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
_BUCKET: Final = "folder"  # stands where a bucket's name stands
_PAUSE: Final = 1.0  # seconds between two looks
_DEPTH: Final = 8  # folders below each other that are looked into
_UNFINISHED: Final = (".part", ".partial", ".tmp", ".crdownload", ".swp", "~")
_README: Final = "Put files here as <orgId>/ca/…, <orgId>/server/… or <orgId>/csr/<id of the request>.\n"


class UploadWatcher:
    """Looks at the folder, again and again, in a thread of its own.

    Args:
        pause: seconds between two looks.
    """

    def __init__(self, app: App, *, pause: float = _PAUSE) -> None:
        self._app = app
        self._root = app.settings.data / FOLDER
        self._objects = folder_objects(self._root)
        self._pause = pause
        self._seen: dict[str, str] = {}  # key -> version, at the last look
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Make the folder, where it is not there, and look at it from now on."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        readme = self._root / ".readme"
        if not readme.exists():
            readme.write_text(_README)
        self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, after the file that is being taken. Safe to call twice."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._pause):
            try:
                self.look()
            except Exception:
                log.exception("the upload folder could not be looked at; the next look tries again")

    def look(self) -> None:
        """Take every file that is as it was at the look before."""
        before, self._seen = self._seen, {}
        for key in _files(self._root, "", _DEPTH):
            if self._stopping.is_set():
                return
            found = self._objects.find(UploadedObject(_BUCKET, key))
            if found is None or found.version is None:
                continue
            if before.get(key) == found.version:
                with logs.request(None):
                    self._take(UploadedObject(_BUCKET, key, found.version))
            self._seen[key] = found.version

    def _take(self, uploaded: UploadedObject) -> None:
        try:
            outcome = on_upload(self._app.context, self._app.sealer, self._objects, uploaded, bucket=_BUCKET)
        except StoreUnavailable:
            log.warning("an upload will be tried again: the store does not answer", exc_info=True)
            return
        except TrustError as error:  # too many at once
            log.warning("an upload will be tried again: %s", error.code)
            return
        except Exception as error:
            log.error("an upload could not be taken: %s", type(error).__name__, exc_info=True)
            outcome = Outcome(End.REFUSED, "Something went wrong here; the log says more.", "internal")
        log.info("an upload ended", extra={"end": str(outcome.end), "code": outcome.code})
        self._put_away(uploaded.key, outcome)

    def _put_away(self, key: str, outcome: Outcome) -> None:
        path = self._root / key
        kept = self._root / (".done" if outcome.end is End.DONE else ".refused") / key
        try:
            kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.replace(kept)
            kept.chmod(0o600)  # it may hold a private key
            if outcome.end is not End.DONE:
                kept.with_name(f"{kept.name}.txt").write_text(f"{outcome.code or outcome.end}: {outcome.why}\n")
        except FileNotFoundError:
            return  # deleted: a server certificate's bundle, or by whoever put it there
        except OSError as error:
            log.error("an upload could not be put away whole: %s", type(error).__name__)


def _files(root: Path, prefix: str, depth: int) -> Iterator[str]:
    """The keys of the regular files below *root*, sorted; links and hidden names left out."""
    try:
        with os.scandir(root / prefix) as entries:
            found = sorted(entries, key=lambda one: one.name)
    except FileNotFoundError:
        return
    for one in found:
        if one.name.startswith(".") or one.name.endswith(_UNFINISHED):
            continue
        if one.is_dir(follow_symlinks=False):
            if depth:
                yield from _files(root, f"{prefix}{one.name}/", depth - 1)
        elif one.is_file(follow_symlinks=False):
            yield f"{prefix}{one.name}"
