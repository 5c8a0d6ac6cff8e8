"""ObjectReader on a folder of this machine: the local equivalent of a bucket.

A file's version consists of its modification time, size and inode number, so a replaced file has another version.
Symbolic links are not followed: a link could lead out of the folder, or into the folder of another organization.
"""

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

from shared.errors import StoreUnavailable
from shared.ports import FoundObject, UploadedObject


class FolderReader:
    """Uploads in a folder, see `shared.ports.ObjectReader`. Keys are paths below *root*, with slashes."""

    def __init__(self, root: Path) -> None:
        """Store the root. The folder is not read."""
        self._root = root

    def resolve(self, key: str) -> Path | None:
        """Return the path of the object *key*, or None if it leaves the root or contains a symbolic link."""
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
        """Return the uploaded version, or None if it does not exist."""
        path = self.resolve(uploaded.key)
        try:
            status = path.lstat() if path else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreUnavailable from error
        if status is None or not stat.S_ISREG(status.st_mode):
            return None
        version = _version(status)
        if uploaded.version not in (None, version):
            return None
        # The time of the last status change. `cp -p` and `mv` keep the modification time of the original file.
        stored_at = datetime.fromtimestamp(status.st_ctime, UTC)
        return FoundObject(uploaded.bucket, uploaded.key, version, None, status.st_size, stored_at)

    def read(self, stored: FoundObject) -> bytes | None:
        """Return at most `stored.size` bytes of that version, or None if it does not exist any more."""
        path = self.resolve(stored.key)
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)) if path else None
            if descriptor is None:
                return None
            with os.fdopen(descriptor, "rb") as file:
                is_same = _version(os.fstat(file.fileno())) == stored.version
                return file.read(stored.size) if is_same else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailable from error

    def remove(self, stored: FoundObject) -> None:
        """Delete that version if it still exists."""
        path = self.resolve(stored.key)
        if path is None or self.find(UploadedObject(stored.bucket, stored.key, stored.version)) is None:
            return
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreUnavailable from error


def _version(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"
