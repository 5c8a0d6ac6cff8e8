"""HTTP client of the functions, with one API key and persistent connections. Uses only the standard library."""

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
_BODY_MAX: Final = 8 * 1024 * 1024  # bytes of a response
_NO_DEFAULT: Final = object()


class Unavailable(Exception):
    """The functions did not answer, or answered with an error. A later request may succeed."""


class WrongConfiguration(Exception):
    """A configuration error. The message is a sentence for the operator."""


def read_key(path: Path) -> str:
    """Return the content of a key file, one line `key:token`.

    Raises: WrongConfiguration.
    """
    try:
        line = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise WrongConfiguration(f"The key's file {path} cannot be read: {type(error).__name__}.") from error
    if not _KEY.fullmatch(line):
        raise WrongConfiguration(f"{path} must hold one line, key:token.")
    return line


class ApiClient:
    """A client of the functions. Each thread has a persistent connection of its own.

    Args:
        url: the base URL of the functions, without a path.
        key: an API key, `key:token`.
        timeout: the timeout of each network operation, in seconds.
        ca_file: CA certificates (PEM) for the functions' server certificate; None for the system's.
    """

    def __init__(self, url: str, key: str, *, timeout: float = 5, ca_file: Path | None = None) -> None:
        """Check the URL. No request is made.

        Raises: WrongConfiguration, also for plain HTTP to another machine, because requests contain the API key and
        responses contain private keys.
        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise WrongConfiguration(f"{url!r} is no address of the functions; it takes https://host[:port].")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise WrongConfiguration(f"{url!r} is refused: keys travel, so it takes https://.")
        self._host, self._port, self._base = parts.hostname, parts.port, parts.path.rstrip("/")
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._timeout = timeout
        self._headers = {
            "Authorization": "Basic " + base64.b64encode(key.encode()).decode(),
            "Accept": "application/json",
        }
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close the connections of all threads. No request may be in progress."""
        while self._connections:
            self._connections.pop().close()

    def request_json(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, missing: Any = _NO_DEFAULT
    ) -> Any:
        """Make a request and return the decoded JSON of the response; for a 404, return *missing* if it is given.

        Raises: Unavailable.
        """
        status, data = self.request(method, path, body)
        return missing if status == 404 and missing is not _NO_DEFAULT else _decode(status, data)

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
        """Make a request with a JSON body, and return the status and the body of the response.

        Raises: Unavailable.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers if data is None else {**self._headers, "Content-Type": "application/json"}
        for is_last in (False, True):  # the server may have closed a persistent connection
            connection, is_new = self._get_connection()
            try:
                connection.request(method, self._base + path, data, headers)
                response = connection.getresponse()
                content = response.read(_BODY_MAX + 1)
            except (OSError, http.client.HTTPException) as error:
                self._drop_connection()
                if is_last or is_new:
                    raise Unavailable(f"the functions do not answer: {type(error).__name__}: {error}") from error
                continue
            if response.will_close or len(content) > _BODY_MAX:
                self._drop_connection()
            if len(content) > _BODY_MAX:
                raise Unavailable("the functions' response is too long")
            return response.status, content
        raise AssertionError("unreachable")

    def _get_connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """Return this thread's connection, and whether it is new."""
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is not None:
            return connection, False
        if self._tls:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._tls)
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        self._local.connection = connection
        self._connections.append(connection)
        return connection, True

    def _drop_connection(self) -> None:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._connections.remove(connection)
            self._local.connection = None


def _decode(status: int, body: bytes) -> Any:
    if status not in (200, 204):
        raise Unavailable(f"the functions answer {status}: {_read_detail(body)}")
    try:
        return json.loads(body or b"{}")
    except ValueError as error:
        raise Unavailable("the functions' response is not JSON") from error


def _read_detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])[:300]
    except (ValueError, KeyError, TypeError):
        return "no problem document"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
