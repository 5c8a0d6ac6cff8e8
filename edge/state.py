"""The certificates that an edge serves, on its disk, so that a restart can serve them while the functions are away.

    crt-list.txt        HAProxy's certificate list: a line for each host
    certs/NAME.pem      a host's certificate chain and private key
    hosts.json          the version of each host, and the cursor in edgeFeed's hosts
    withdrawals.json    the cursor in edgeFeed's withdrawals

The folder is accessible to its owner only (mode 0700, files 0600). Every file is replaced atomically.
"""

import fcntl
import hashlib
import json
import os
import re
import ssl
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Final

from edge.api import WrongConfiguration
from edge.feed import HostVersion, is_server_name

_STEM_MAX: Final = 240
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----\s.+?-----END CERTIFICATE-----", re.DOTALL)


class NotServable(Exception):
    """A certificate and private key that a TLS server cannot use."""


@dataclass(frozen=True)
class StoredHost:
    """A host as it is on the disk. hosts.json has the same fields.

    Args:
        org: the orgId.
        version: the version of the certificate; empty if it is unknown.
        fingerprint: the SHA-1 fingerprint of the host's certificate, which HAProxy reports too.
        reported: whether this edge has reported the version to edgeFeed.
    """

    org: str
    version: str
    fingerprint: str
    reported: bool = False


class State:
    """The folder of an edge, locked for one agent.

    Attributes:
        head: the cursor in edgeFeed's hosts.
        hosts: the served hosts, by server name.
        pending: changes that edgeFeed has reported and that are not applied yet, by server name.
    """

    def __init__(self, path: Path) -> None:
        """Create or read the folder at *path*.

        Raises: WrongConfiguration, if another agent uses the folder, or it is not writable.
        """
        self.path = path.absolute()
        self.certificates = self.path / "certs"
        self.crt_list = self.path / "crt-list.txt"
        self.head = ""
        self.hosts: dict[str, StoredHost] = {}
        self.pending: dict[str, HostVersion] = {}
        self._last_checked = "", ""  # the content of the last checked file, and its fingerprint
        self._saved_names: set[str] | None = None  # the hosts whose files may be in the folder; None: unknown
        self._lock = self._acquire()
        self._load()

    def _acquire(self) -> IO[str]:
        try:
            self.certificates.mkdir(parents=True, exist_ok=True)
            for folder in (self.path, self.certificates):
                folder.chmod(0o700)
            lock = (self.path / "lock").open("w")
        except OSError as error:
            raise WrongConfiguration(f"{self.path} cannot be written: {error}.") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise WrongConfiguration(f"Another agent uses {self.path}.") from error
        return lock

    def _load(self) -> None:
        """Read the folder.

        A host whose file differs from the index is served if possible, and its key material is requested again. Without
        a readable index, all hosts are requested again.
        """
        try:
            self._load_index(self.read_document("hosts.json"))
        except (AttributeError, TypeError):  # an index of another version, or another file
            self.head, self.hosts, self.pending = "", {}, {}
        if not self.hosts and not self.head:
            self._load_crt_list()
        for name, host in list(self.hosts.items()):
            fingerprint = self._read_fingerprint(name)
            if fingerprint == host.fingerprint:
                continue
            if fingerprint:  # the agent was killed after it wrote the file and before it wrote the index
                self.hosts[name] = StoredHost(host.org, "", fingerprint, reported=True)  # of an unknown version
            else:
                del self.hosts[name]
            self.pending.setdefault(name, HostVersion(name, host.org, host.version))
        for prepared in self.certificates.glob("*.new"):
            prepared.unlink()
        self.save()

    def _load_index(self, index: dict[str, Any]) -> None:
        self.head = str(index.get("head", ""))
        self.pending = {name: HostVersion(**fields) for name, fields in index.get("wanted", {}).items()}
        self.hosts = {name: StoredHost(**fields) for name, fields in index.get("hosts", {}).items()}

    def _load_crt_list(self) -> None:
        """Read the names of the served hosts from HAProxy's list. The next synchronization corrects them."""
        with suppress(OSError, ValueError):
            for line in self.crt_list.read_text(encoding="ascii").splitlines():
                name = line.rpartition(" ")[2]
                if is_server_name(name):
                    self.hosts[name] = StoredHost("", "", "")

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()

    def pem_path(self, name: str) -> Path:
        """Return the path of a host's file."""
        return self.certificates / f"{_stem(name)}.pem"

    def is_unchanged(self, name: str) -> bool:
        """Return whether a host's file is the file that the agent wrote."""
        return self._read_fingerprint(name) == self.hosts[name].fingerprint

    def _read_fingerprint(self, name: str) -> str | None:
        """Return the SHA-1 fingerprint of the certificate in a host's file, or None if the file cannot be served."""
        try:
            return check_pem(self.pem_path(name))
        except (OSError, NotServable):
            return None

    def read_pem(self, name: str) -> str:
        """Return the content of a host's file."""
        return self.pem_path(name).read_text(encoding="ascii")

    def format_line(self, name: str) -> str:
        """Return the host's line in HAProxy's certificate list."""
        return f"{self.pem_path(name)} {name}"

    def prepare(self, name: str, pem: str) -> str:
        """Write a host's new file beside the current file, and return the certificate's SHA-1 fingerprint.

        Raises: NotServable, OSError.
        """
        path = self._prepared_path(name)
        _write(path, pem, flush=False)
        if pem == self._last_checked[0]:  # many hosts in a row may use the platform's certificate
            return self._last_checked[1]
        try:
            self._last_checked = pem, check_pem(path)
        except NotServable:
            path.unlink()
            raise
        return self._last_checked[1]

    def flush(self, names: Iterable[str]) -> None:
        """Write prepared files to the disk, so that they survive a power failure.

        Flushing many files together is faster than flushing each file after its write.
        """
        for name in names:
            descriptor = os.open(self._prepared_path(name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def commit(self, host: HostVersion, version: str, fingerprint: str) -> None:
        """Replace the host's file by its prepared and flushed file. `save` updates the list and the index."""
        os.replace(self._prepared_path(host.server_name), self.pem_path(host.server_name))
        self.hosts[host.server_name] = StoredHost(host.org, version, fingerprint)

    def discard(self, name: str) -> None:
        """Delete a prepared file."""
        self._prepared_path(name).unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Remove a host. The next `save` deletes its file."""
        self.hosts.pop(name, None)

    def mark_reported(self, name: str) -> None:
        """Note that the host's version was reported to edgeFeed."""
        self.hosts[name] = replace(self.hosts[name], reported=True)

    def save(self) -> None:
        """Write the certificate list and the index, then delete the files of removed hosts."""
        lines = "".join(self.format_line(name) + "\n" for name in self.hosts)
        _replace(self.crt_list, lines)
        index = {
            "head": self.head,
            "hosts": {name: asdict(host) for name, host in self.hosts.items()},
            "wanted": {name: asdict(host) for name, host in self.pending.items()},
        }
        self.write_document("hosts.json", index)
        if self.hosts.keys() != self._saved_names:
            current = {self.pem_path(name) for name in self.hosts}
            for file in self.certificates.glob("*.pem"):
                if file not in current:
                    file.unlink()
            self._saved_names = set(self.hosts)

    def read_document(self, name: str) -> dict[str, Any]:
        """Return the JSON object in a file of the folder; an empty object if the file is missing or invalid."""
        with suppress(OSError, ValueError):
            document = json.loads((self.path / name).read_bytes())
            if isinstance(document, dict):
                return document
        return {}

    def write_document(self, name: str, document: dict[str, Any]) -> None:
        """Write a JSON object to a file of the folder."""
        _replace(self.path / name, json.dumps(document))

    def _prepared_path(self, name: str) -> Path:
        return self.certificates / f"{_stem(name)}.new"


def _stem(name: str) -> str:
    """Return the file name of a host, without its ending.

    A server name may have 253 characters. A file name with its ending may have 255, so a long name is shortened.
    """
    return name if len(name) <= _STEM_MAX else f"{name[:160]}_{hashlib.sha256(name.encode()).hexdigest()}"


def check_pem(path: Path) -> str:
    """Check that a file contains a certificate chain and its private key, and return the certificate's SHA-1.

    Raises: NotServable, OSError.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)
        leaf = _PEM.search(path.read_text(encoding="ascii"))
        if leaf is None:
            raise NotServable("it contains no certificate")
        return hashlib.sha1(ssl.PEM_cert_to_DER_cert(leaf[0]), usedforsecurity=False).hexdigest()
    except (ssl.SSLError, ValueError) as error:
        raise NotServable(f"not a chain with its private key: {type(error).__name__}") from error


def _replace(path: Path, text: str) -> None:
    new_path = path.with_name(path.name + ".new")
    _write(new_path, text)
    os.replace(new_path, path)


def _write(path: Path, text: str, *, flush: bool = True) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        if flush:
            os.fsync(file.fileno())
