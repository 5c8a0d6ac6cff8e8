"""HAProxy's runtime API over its socket: one command a connection, each answer looked at.

HAProxy says "Success!" only at the end of what worked; a command that is too long gives an empty answer, and a bad key
still says "Transaction created". So every step here is believed only after its own word.
"""

import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SESSION: Final = re.compile(r"^(0x[0-9a-f]+): proto=\S+ src=(\S+) fe=(\S+) ", re.MULTILINE)
_TRACKED: Final = re.compile(r"^0x[0-9a-f]+: key=(\S+) use=(\d+) ", re.MULTILINE)
_LINE: Final = re.compile(r"^([^#\s]\S*):(\d+)(?: |$)", re.MULTILINE)
_FINGERPRINT: Final = re.compile(r"^SHA1 FingerPrint: ([0-9A-F]{40})$", re.MULTILINE)
_FILENAME: Final = re.compile(r"^Filename: (\S+)$", re.MULTILINE)
_ONGOING: Final = re.compile(r"ongoing transaction is about '([^']+)'")
_BATCH: Final = 100  # commands a connection


class HAProxyAway(Exception):
    """HAProxy does not answer on its runtime socket."""


class Refused(Exception):
    """HAProxy did not do what it was told. The text says what it answered."""


@dataclass(frozen=True)
class Line:
    """A line of the certificate list in HAProxy's memory."""

    path: str
    number: int


class Runtime:
    """HAProxy's runtime API at the socket *path*."""

    def __init__(self, path: Path, *, timeout: float = 30) -> None:
        self._path = path
        self._timeout = timeout

    def command(self, words: str, payload: str = "") -> str:
        """One command's answer. Raises: HAProxyAway."""
        text = words
        if payload:  # ends at the first empty line
            text += " <<\n" + "\n".join(line for line in payload.splitlines() if line.strip()) + "\n"
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(self._timeout)
                connection.connect(str(self._path))
                connection.sendall(text.encode() + b"\n")
                answer = bytearray()
                while part := connection.recv(1 << 16):
                    answer += part
        except OSError as error:
            raise HAProxyAway(f"HAProxy's socket {self._path}: {type(error).__name__}: {error}") from error
        return answer.decode(errors="replace").strip()

    def process(self) -> int:
        """The id of the process that answers. Raises: HAProxyAway."""
        found = dict(line.split(": ", 1) for line in self.command("show info").splitlines() if ": " in line)
        try:
            return int(found["Pid"])
        except (KeyError, ValueError) as error:
            raise HAProxyAway("HAProxy's socket does not say which process answers") from error

    # ------------------------------------------------------------------------------------------- certificates

    def fingerprints(self, paths: Sequence[str]) -> dict[str, str]:
        """Path -> SHA-1 of the leaf in use (40 hex digits), of those that HAProxy has. Raises: HAProxyAway."""
        found: dict[str, str] = {}
        for start in range(0, len(paths), _BATCH):
            answer = self.command(";".join(f"show ssl cert {path}" for path in paths[start : start + _BATCH]))
            starts = [*_FILENAME.finditer(answer)]
            ends = [one.start() for one in starts[1:]] + [len(answer)]
            for name, end in zip(starts, ends, strict=False):  # no start at all where it has none of them
                if fingerprint := _FINGERPRINT.search(answer, name.end(), end):
                    found[name[1]] = fingerprint[1].lower()
        return found

    def has_certificate(self, path: str) -> bool:
        """Whether HAProxy knows a certificate of that name, filled or not. Raises: HAProxyAway."""
        return f"Filename: {path}" in self.command(f"show ssl cert {path}").splitlines()

    def put_certificate(self, path: str, pem: str) -> None:
        """Replace a certificate (chain and key in *pem*), or add it; what is refused leaves the old one in use.

        Raises: HAProxyAway, Refused."""
        if not self.has_certificate(path):
            self._expect(self.command(f"new ssl cert {path}"), "New empty certificate store")
        try:
            self._replace(path, pem)
        except Refused as refusal:
            self.command(f"abort ssl cert {path}")
            other = _ONGOING.search(str(refusal))
            if other is None:
                raise
            self.command(f"abort ssl cert {other[1]}")  # left by an agent that was stopped between the two steps
            self._replace(path, pem)

    def _replace(self, path: str, pem: str) -> None:
        self._expect(self.command(f"set ssl cert {path}", pem), "Transaction created", "Transaction updated")
        self._expect(self.command(f"commit ssl cert {path}"), "Success!")

    def remove_certificate(self, path: str) -> None:
        """Forget a certificate that no line names. Raises: HAProxyAway, Refused."""
        if self.has_certificate(path):
            self._expect(self.command(f"del ssl cert {path}"), "deleted")

    def lines(self, crt_list: str) -> list[Line]:
        """The certificate list in memory. Raises: HAProxyAway, Refused."""
        answer = self.command(f"show ssl crt-list -n {crt_list}")
        if not answer.startswith(f"# {crt_list}"):
            raise Refused(f"HAProxy knows no certificate list {crt_list}: {answer[:300]}")
        return [Line(one[1], int(one[2])) for one in _LINE.finditer(answer)]

    def add_line(self, crt_list: str, line: str) -> None:
        """Let a certificate be shown. Raises: HAProxyAway, Refused."""
        self._expect(self.command(f"add ssl crt-list {crt_list}", line), "Success!")

    def remove_lines(self, crt_list: str, path: str) -> None:
        """Let a certificate be shown no more. Raises: HAProxyAway, Refused."""
        answer = self.command(f"del ssl crt-list {crt_list} {path}")  # works where it has one line
        if "deleted in crtlist" in answer:
            return
        for line in self.lines(crt_list):
            if line.path == path:
                self._expect(self.command(f"del ssl crt-list {crt_list} {path}:{line.number}"), "deleted in crtlist")

    # ----------------------------------------------------------------------------------------------- sessions

    def registered(self, table: str) -> list[str]:
        """The keys of the register of sessions that a living session holds. Raises: HAProxyAway, Refused."""
        answer = self.command(f"show table {table}")
        if not answer.startswith(f"# table: {table},"):
            raise Refused(f"HAProxy has no table {table}: {answer[:300]}")
        return [one[1] for one in _TRACKED.finditer(answer) if one[2] != "0"]

    def sessions(self, frontend: str) -> Iterator[tuple[str, str]]:
        """(address:port of the client, session's name) of those in *frontend*. Raises: HAProxyAway."""
        for name, source, where in _SESSION.findall(self.command("show sess")):
            if where == frontend:
                yield source, name

    def end_session(self, name: str) -> None:
        """One that has ended by itself is fine. Raises: HAProxyAway."""
        self.command(f"shutdown session {name}")

    @staticmethod
    def _expect(answer: str, *words: str) -> None:
        if not any(word in answer for word in words):
            raise Refused(answer[:1000] or "HAProxy answered nothing: is the command longer than tune.bufsize?")
