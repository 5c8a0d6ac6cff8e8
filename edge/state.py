"""What an edge serves, on its disk: enough to serve the same after a restart while the functions are away.

    crt-list.txt        HAProxy's list: one line a host
    certs/NAME.pem      what a host shows: chain and private key
    hosts.json          which version of which host that is, and how far edgeFeed was followed
    withdrawals.json    how far withdrawals were followed

The folder is its owner's alone (0700, files 0600); every file is replaced whole or not at all.
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
from edge.feed import Host, is_server_name

_STEM_MAX: Final = 240
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----\s.+?-----END CERTIFICATE-----", re.DOTALL)


class NotServable(Exception):
    """A certificate and key that a TLS server could not show."""


@dataclass(frozen=True)
class Served:
    """A host as it is on the disk. *fingerprint*: SHA-1 of the leaf, by which HAProxy names what it holds."""

    org: str
    version: str
    fingerprint: str
    reported: bool = False  # whether edgeFeed was told that this version is served


class State:
    """The folder at *path*, made where it is not there. One agent a folder.

    Raises: WrongConfiguration, where another agent holds it, or it is not writable."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.certificates = self.path / "certs"
        self.crt_list = self.path / "crt-list.txt"
        self.head = ""
        self.hosts: dict[str, Served] = {}
        self.wanted: dict[str, Host] = {}  # changes that were heard of and could not be applied yet
        self._last = "", ""  # what was checked last, and its fingerprint
        self._lock = self._take()
        self._read()

    def _take(self) -> IO[str]:
        try:
            self.certificates.mkdir(parents=True, exist_ok=True)
            for folder in (self.path, self.certificates):
                folder.chmod(0o700)
            lock = (self.path / "lock").open("w")
        except OSError as error:
            raise WrongConfiguration(f"{self.path} cannot be kept: {error}.") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise WrongConfiguration(f"Another agent keeps {self.path}.") from error
        return lock

    def _read(self) -> None:
        """Take up what is there. A host whose file is not the one that was noted stays served where it can be, and is
        fetched anew; so are all where nothing can be read of the index."""
        try:
            self._take_up(self.document("hosts.json"))
        except (AttributeError, TypeError):  # of another version, or somebody else's
            self.head, self.hosts, self.wanted = "", {}, {}
        if not self.hosts and not self.head:
            self._take_up_listed()
        for name, served in list(self.hosts.items()):
            found = self._leaf_of(name)
            if found == served.fingerprint:
                continue
            if found:  # the agent was killed between the file and the index
                self.hosts[name] = Served(served.org, "", found, reported=True)  # nobody knows which version it is
            else:
                del self.hosts[name]
            self.wanted.setdefault(name, Host(name, served.org, served.version))
        for unfinished in self.certificates.glob("*.new"):
            unfinished.unlink()
        self.save()

    def _take_up(self, kept: dict[str, Any]) -> None:
        self.head = str(kept.get("head", ""))
        self.wanted = {name: Host(**one) for name, one in kept.get("wanted", {}).items()}
        self.hosts = {name: Served(**one) for name, one in kept.get("hosts", {}).items()}

    def _take_up_listed(self) -> None:
        """Without an index, HAProxy's list still says what is served. edgeFeed, asked for everything, corrects it."""
        with suppress(OSError, ValueError):
            for line in self.crt_list.read_text(encoding="ascii").splitlines():
                name = line.rpartition(" ")[2]
                if is_server_name(name):
                    self.hosts[name] = Served("", "", "")

    def close(self) -> None:
        self._lock.close()

    def pem_path(self, name: str) -> Path:
        return self.certificates / f"{_stem(name)}.pem"

    def is_whole(self, name: str) -> bool:
        """Whether a host's file is what was put there."""
        return self._leaf_of(name) == self.hosts[name].fingerprint

    def _leaf_of(self, name: str) -> str | None:
        """SHA-1 of the leaf in a host's file; None where it cannot be served."""
        try:
            return checked(self.pem_path(name))
        except (OSError, NotServable):
            return None

    def pem(self, name: str) -> str:
        return self.pem_path(name).read_text(encoding="ascii")

    def line(self, name: str) -> str:
        """The host's line in HAProxy's list."""
        return f"{self.pem_path(name)} {name}"

    def prepare(self, name: str, pem: str) -> str:
        """Write a host's new file beside the old one. Returns the leaf's SHA-1. Raises: NotServable."""
        unfinished = self._unfinished(name)
        _write(unfinished, pem, flush=False)
        if pem == self._last[0]:  # the platform's own, for many hosts in a row
            return self._last[1]
        try:
            self._last = pem, checked(unfinished)
        except NotServable:
            unfinished.unlink()
            raise
        return self._last[1]

    def flush(self, names: Iterable[str]) -> None:
        """See that prepared files survive a lost power supply; for many at once the disk is waited for about once."""
        for name in names:
            descriptor = os.open(self._unfinished(name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def keep(self, host: Host, version: str, fingerprint: str) -> None:
        """The prepared and flushed file becomes the host's own; `save` makes the list follow."""
        os.replace(self._unfinished(host.server_name), self.pem_path(host.server_name))
        self.hosts[host.server_name] = Served(host.org, version, fingerprint)

    def discard(self, name: str) -> None:
        """Forget a prepared file."""
        self._unfinished(name).unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Forget a host; its file goes with the next `save`."""
        self.hosts.pop(name, None)

    def reported(self, name: str) -> None:
        self.hosts[name] = replace(self.hosts[name], reported=True)

    def save(self) -> None:
        """Write the list and the index; then drop the files of hosts that are gone."""
        lines = "".join(self.line(name) + "\n" for name in self.hosts)
        _replace(self.crt_list, lines)
        document = {
            "head": self.head,
            "hosts": {name: asdict(one) for name, one in self.hosts.items()},
            "wanted": {name: asdict(one) for name, one in self.wanted.items()},
        }
        self.keep_document("hosts.json", document)
        if len(self.hosts) != self._files:
            kept = {self.pem_path(name) for name in self.hosts}
            for file in self.certificates.glob("*.pem"):
                if file not in kept:
                    file.unlink()
            self._files = len(self.hosts)

    _files = -1

    def document(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder; empty where there is none, or none that can be read."""
        with suppress(OSError, ValueError):
            found = json.loads((self.path / name).read_bytes())
            if isinstance(found, dict):
                return found
        return {}

    def keep_document(self, name: str, body: dict[str, Any]) -> None:
        _replace(self.path / name, json.dumps(body))

    def _unfinished(self, name: str) -> Path:
        return self.certificates / f"{_stem(name)}.new"


def _stem(name: str) -> str:
    """A server name has up to 253 characters, a file's name with its ending 255."""
    return name if len(name) <= _STEM_MAX else f"{name[:160]}_{hashlib.sha256(name.encode()).hexdigest()}"


def checked(path: Path) -> str:
    """SHA-1 of the leaf in a file with chain and key, which must belong together. Raises: NotServable, OSError."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)
        leaf = _PEM.search(path.read_text(encoding="ascii"))
        if leaf is None:
            raise NotServable("there is no certificate in it")
        return hashlib.sha1(ssl.PEM_cert_to_DER_cert(leaf[0]), usedforsecurity=False).hexdigest()
    except (ssl.SSLError, ValueError) as error:
        raise NotServable(f"no chain with its key: {type(error).__name__}") from error


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + ".new")
    _write(unfinished, text)
    os.replace(unfinished, path)


def _write(path: Path, text: str, *, flush: bool = True) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        if flush:
            os.fsync(file.fileno())
