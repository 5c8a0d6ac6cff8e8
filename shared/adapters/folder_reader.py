"""ObjectReader on a folder of this machine: the local stand-in for a bucket.

A file's version is its size, time of change and number, so a file that was replaced is another version. Symbolic
links are not followed: a link could lead out of the folder, or into another org's.
"""

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

from shared.errors import StoreUnavailable
from shared.ports import FoundObject, UploadedObject


class FolderReader:
    """See `shared.ports.ObjectReader`. Keys are paths below *root*, with slashes."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, key: str) -> Path | None:
        """Where the object *key* lies; None where that is not below the root, or a link is on the way."""
        parts = key.split("/")
        if any(part in ("", ".", "..") or "\0" in part or os.sep in part for part in parts):
            return None
        folder = self._root
        for part in parts[:-1]:
            folder = folder / part
            if folder.is_symlink():
                return None
        return folder / parts[-1]

    def find(self, uploaded: UploadedObject) -> FoundObject | None:
        path = self.path(uploaded.key)
        try:
            facts = path.lstat() if path else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreUnavailable from error
        if facts is None or not stat.S_ISREG(facts.st_mode):
            return None
        version = _version(facts)
        if uploaded.version not in (None, version):
            return None
        at = datetime.fromtimestamp(facts.st_ctime, UTC)  # when it came here: cp -p and mv keep the time of change
        return FoundObject(uploaded.bucket, uploaded.key, version, None, facts.st_size, at)

    def read(self, found: FoundObject) -> bytes | None:
        path = self.path(found.key)
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)) if path else None
            if descriptor is None:
                return None
            with os.fdopen(descriptor, "rb") as file:
                return file.read(found.size) if _version(os.fstat(file.fileno())) == found.version else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailable from error

    def remove(self, found: FoundObject) -> None:
        path = self.path(found.key)
        if path is None or self.find(UploadedObject(found.bucket, found.key, found.version)) is None:
            return
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreUnavailable from error


def _version(facts: os.stat_result) -> str:
    return f"{facts.st_mtime_ns}-{facts.st_size}-{facts.st_ino}"
