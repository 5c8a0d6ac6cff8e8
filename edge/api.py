"""A client of the functions: one key, connections kept open, nothing but Python's own library."""

import base64
import http.client
import ipaddress
import json
import re
import ssl
import threading
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_KEY: Final = re.compile(r"[^:\s]+:\S+")
_MOST_BYTES: Final = 8 * 1024 * 1024
_REFUSED: Final = object()


class Unavailable(Exception):
    """The functions did not answer, or not with what was asked for. They are asked again later."""


class WrongConfiguration(Exception):
    """What no waiting mends: a sentence for the operator."""


def read_key(path: Path) -> str:
    """The one line, key:token, of a key's file. Raises: WrongConfiguration."""
    try:
        line = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise WrongConfiguration(f"The key's file {path} cannot be read: {type(error).__name__}.") from error
    if not _KEY.fullmatch(line):
        raise WrongConfiguration(f"{path} must hold one line, key:token.")
    return line


class Api:
    """The functions at *url* (the base URL, without a path), asked with *key* (key:token).

    Safe in several threads: each has a connection of its own, kept open.

    Raises: WrongConfiguration for plain HTTP to another machine, because keys travel."""

    def __init__(self, url: str, key: str, *, timeout: float = 5, ca_file: Path | None = None) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise WrongConfiguration(f"{url!r} is no address of the functions; it takes https://host[:port].")
        if parts.scheme == "http" and not _loopback(parts.hostname):
            raise WrongConfiguration(f"{url!r} is refused: keys travel, so it takes https://.")
        self._host, self._port, self._base = parts.hostname, parts.port, parts.path.rstrip("/")
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._timeout = timeout
        self._headers = {
            "Authorization": "Basic " + base64.b64encode(key.encode()).decode(),
            "Accept": "application/json",
        }
        self._local = threading.local()
        self._opened: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close the connections of all threads; none of them may be asking."""
        while self._opened:
            self._opened.pop().close()

    def json(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, missing: Any = _REFUSED) -> Any:
        """The JSON of an answer; *missing*, where given, for 404. Raises: Unavailable."""
        status, data = self.ask(method, path, body)
        return missing if status == 404 and missing is not _REFUSED else _decoded(status, data)

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers if data is None else {**self._headers, "Content-Type": "application/json"}
        for last in (False, True):  # a kept connection may have been closed by the other side since
            connection, fresh = self._connection()
            try:
                connection.request(method, self._base + path, data, headers)
                answer = connection.getresponse()
                found = answer.read(_MOST_BYTES + 1)
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                if last or fresh:
                    raise Unavailable(f"the functions do not answer: {type(error).__name__}: {error}") from error
                continue
            if answer.will_close or len(found) > _MOST_BYTES:
                self._drop()
            if len(found) > _MOST_BYTES:
                raise Unavailable("the functions' answer is too long")
            return answer.status, found
        raise AssertionError("unreachable")

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        kept: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if kept is not None:
            return kept, False
        made: http.client.HTTPConnection
        if self._tls:
            made = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._tls)
        else:
            made = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        self._local.connection = made
        self._opened.append(made)
        return made, True

    def _drop(self) -> None:
        kept: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if kept is not None:
            kept.close()
            self._opened.remove(kept)
            self._local.connection = None


def _decoded(status: int, body: bytes) -> Any:
    if status not in (200, 204):
        raise Unavailable(f"the functions answer {status}: {_detail(body)}")
    try:
        return json.loads(body or b"{}")
    except ValueError as error:
        raise Unavailable("the functions' answer is no JSON") from error


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])[:300]
    except (ValueError, KeyError, TypeError):
        return "no problem document"


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
