"""HAProxy's runtime API over its socket, with one connection for each command.

Every response is checked. HAProxy answers "Success!" only if the whole command succeeded. A command that is too long
has an empty response. A wrong private key is accepted at first ("Transaction created") and refused at the commit.

Source: HAProxy Management Guide, "Unix Socket commands".
"""

import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SESSION: Final = re.compile(r"^(0x[0-9a-f]+): proto=\S+ src=(\S+) fe=(\S+) ", re.MULTILINE)
_TRACKED: Final = re.compile(r"^0x[0-9a-f]+: key=(\S+) use=(\d+) ", re.MULTILINE)
_COUNTED: Final = re.compile(r"^0x[0-9a-f]+: key=(\S+) .*\bconn_cnt=(\d+)$", re.MULTILINE)
_LIST_LINE: Final = re.compile(r"^([^#\s]\S*):(\d+)(?: |$)", re.MULTILINE)
_FINGERPRINT: Final = re.compile(r"^SHA1 FingerPrint: ([0-9A-F]{40})$", re.MULTILINE)
_FILENAME: Final = re.compile(r"^Filename: (\S+)$", re.MULTILINE)
_ONGOING: Final = re.compile(r"ongoing transaction is about '([^']+)'")
_BATCH: Final = 100  # commands in one connection


class HAProxyUnavailable(Exception):
    """HAProxy does not answer on its runtime socket."""


class CommandRefused(Exception):
    """HAProxy refused a command. The message contains HAProxy's response."""


@dataclass(frozen=True)
class CertificateListLine:
    """A line of the certificate list (crt-list) in HAProxy's memory."""

    path: str
    number: int


class RuntimeApi:
    """A client of HAProxy's runtime API.

    Args:
        path: the path of the Unix socket.
        timeout: the timeout of each socket operation, in seconds.
    """

    def __init__(self, path: Path, *, timeout: float = 30) -> None:
        """Store the arguments. No connection is made."""
        self._path = path
        self._timeout = timeout

    def run(self, command: str, payload: str = "") -> str:
        """Run a command and return HAProxy's response.

        Raises: HAProxyUnavailable.
        """
        text = command
        if payload:  # HAProxy reads a payload up to the first empty line
            text += " <<\n" + "\n".join(line for line in payload.splitlines() if line.strip()) + "\n"
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(self._timeout)
                connection.connect(str(self._path))
                connection.sendall(text.encode() + b"\n")
                response = bytearray()
                while part := connection.recv(1 << 16):
                    response += part
        except OSError as error:
            raise HAProxyUnavailable(f"HAProxy's socket {self._path}: {type(error).__name__}: {error}") from error
        return response.decode(errors="replace").strip()

    def get_process_id(self) -> int:
        """Return the process id of HAProxy.

        Raises: HAProxyUnavailable.
        """
        info = dict(line.split(": ", 1) for line in self.run("show info").splitlines() if ": " in line)
        try:
            return int(info["Pid"])
        except (KeyError, ValueError) as error:
            raise HAProxyUnavailable("HAProxy's socket does not report a process id") from error

    # ------------------------------------------------------------------------------------------- certificates

    def read_fingerprints(self, paths: Sequence[str]) -> dict[str, str]:
        """Return SHA-1 fingerprints (40 hex digits) of the certificates in use, by path. Unknown paths are left out.

        Raises: HAProxyUnavailable.
        """
        fingerprints: dict[str, str] = {}
        for start in range(0, len(paths), _BATCH):
            response = self.run(";".join(f"show ssl cert {path}" for path in paths[start : start + _BATCH]))
            names = [*_FILENAME.finditer(response)]
            ends = [name.start() for name in names[1:]] + [len(response)]
            for name, end in zip(names, ends, strict=False):  # without any known certificate, names is empty
                if fingerprint := _FINGERPRINT.search(response, name.end(), end):
                    fingerprints[name[1]] = fingerprint[1].lower()
        return fingerprints

    def has_certificate(self, path: str) -> bool:
        """Return whether HAProxy has a certificate of that path, also an empty one.

        Raises: HAProxyUnavailable.
        """
        return f"Filename: {path}" in self.run(f"show ssl cert {path}").splitlines()

    def put_certificate(self, path: str, pem: str) -> None:
        """Add or replace a certificate. After a refusal, the old certificate is still in use.

        Args:
            path: the certificate's path, which is its name in HAProxy.
            pem: the chain and the private key.

        Raises: HAProxyUnavailable, CommandRefused.
        """
        if not self.has_certificate(path):
            self._expect(self.run(f"new ssl cert {path}"), "New empty certificate store")
        try:
            self._replace(path, pem)
        except CommandRefused as refusal:
            self.run(f"abort ssl cert {path}")
            ongoing = _ONGOING.search(str(refusal))
            if ongoing is None:
                raise
            self.run(f"abort ssl cert {ongoing[1]}")  # the transaction of an agent that was stopped before the commit
            self._replace(path, pem)

    def _replace(self, path: str, pem: str) -> None:
        self._expect(self.run(f"set ssl cert {path}", pem), "Transaction created", "Transaction updated")
        self._expect(self.run(f"commit ssl cert {path}"), "Success!")

    def remove_certificate(self, path: str) -> None:
        """Remove a certificate that no line of the list names.

        Raises: HAProxyUnavailable, CommandRefused.
        """
        if self.has_certificate(path):
            self._expect(self.run(f"del ssl cert {path}"), "deleted")

    def list_lines(self, crt_list: str) -> list[CertificateListLine]:
        """Return the certificate list in HAProxy's memory.

        Raises: HAProxyUnavailable, CommandRefused.
        """
        response = self.run(f"show ssl crt-list -n {crt_list}")
        if not response.startswith(f"# {crt_list}"):
            raise CommandRefused(f"HAProxy has no certificate list {crt_list}: {response[:300]}")
        return [CertificateListLine(match[1], int(match[2])) for match in _LIST_LINE.finditer(response)]

    def add_line(self, crt_list: str, line: str) -> None:
        """Add a line to the certificate list, so that HAProxy serves the certificate.

        Raises: HAProxyUnavailable, CommandRefused.
        """
        self._expect(self.run(f"add ssl crt-list {crt_list}", line), "Success!")

    def remove_lines(self, crt_list: str, path: str) -> None:
        """Remove all lines of a certificate from the list, so that HAProxy does not serve the certificate any more.

        Raises: HAProxyUnavailable, CommandRefused.
        """
        response = self.run(f"del ssl crt-list {crt_list} {path}")  # HAProxy refuses this if there are several lines
        if "deleted in crtlist" in response:
            return
        for line in self.list_lines(crt_list):
            if line.path == path:
                self._expect(self.run(f"del ssl crt-list {crt_list} {path}:{line.number}"), "deleted in crtlist")

    # ---------------------------------------------------------------------------------------------- heartbeat

    def set_number(self, table: str, key: str, number: int) -> bool:
        """Write *number* (32 bits) into the entry *key* of *table*. Return False if HAProxy has no such table.

        Raises: HAProxyUnavailable.
        """
        return self.run(f"set table {table} key {key} data.gpt0 {number}") == ""

    # ----------------------------------------------------------------------------------------------- sessions

    def list_registered(self, table: str) -> list[str]:
        """Return the keys of *table* that a live session tracks.

        Raises: HAProxyUnavailable, CommandRefused.
        """
        response = self.run(f"show table {table}")
        if not response.startswith(f"# table: {table},"):
            raise CommandRefused(f"HAProxy has no table {table}: {response[:300]}")
        return [match[1] for match in _TRACKED.finditer(response) if match[2] != "0"]

    def read_counts(self, table: str) -> dict[str, int] | None:
        """Return the number of connections of each entry of *table*, or None if HAProxy has no such table.

        Raises: HAProxyUnavailable.
        """
        response = self.run(f"show table {table}")
        if not response.startswith(f"# table: {table},"):
            return None
        return {match[1]: int(match[2]) for match in _COUNTED.finditer(response)}

    def list_sessions(self, frontend: str) -> Iterator[tuple[str, str]]:
        """Yield the client's address (`address:port`) and the name of each session of *frontend*.

        Raises: HAProxyUnavailable.
        """
        for name, source, session_frontend in _SESSION.findall(self.run("show sess")):
            if session_frontend == frontend:
                yield source, name

    def end_session(self, name: str) -> None:
        """End a session. A missing session is not an error.

        Raises: HAProxyUnavailable.
        """
        self.run(f"shutdown session {name}")

    @staticmethod
    def _expect(response: str, *words: str) -> None:
        if not any(word in response for word in words):
            empty = "HAProxy's response is empty; is the command longer than tune.bufsize?"
            raise CommandRefused(response[:1000] or empty)
