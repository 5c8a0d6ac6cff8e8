"""A client of edgeFeed: which hosts there are, what each shows, whose sessions must end."""

import base64
import http.client
import ipaddress
import json
import re
import ssl
import threading
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

SERVER_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_KEY: Final = re.compile(r"[^:\s]+:\S+")
_MOST_BYTES: Final = 8 * 1024 * 1024


class FeedUnavailable(Exception):
    """edgeFeed did not answer, or not with what was asked for. It is asked again later."""


class WrongConfiguration(Exception):
    """What no waiting mends: a sentence for the operator."""


@dataclass(frozen=True)
class Host:
    """One server name at one version."""

    server_name: str
    org: str
    version: str
    certificate: str = ""  # its id; `default`: the platform's own, the same for all hosts at one version
    removed: bool = False


@dataclass(frozen=True)
class Page:
    """Hosts that changed, or a part of all (*full*, beginning with the *first*: once there is no *more*, a host on none
    of them is gone). *head* is what to ask with next."""

    head: str
    hosts: tuple[Host, ...]
    more: bool
    full: bool
    first: bool


@dataclass(frozen=True)
class Material:
    """What a host shows."""

    version: str
    certificate: str  # PEM, leaf first
    private_key: str = field(repr=False)


@dataclass(frozen=True)
class Withdrawal:
    """Whose sessions must end."""

    org: str
    kind: str
    value: str


@dataclass(frozen=True)
class Withdrawals:
    """*missed*: more was withdrawn than is told; every session must end."""

    head: str
    withdrawals: tuple[Withdrawal, ...]
    more: bool
    missed: bool


def read_key(path: Path) -> str:
    """The one line, key:token, of a key's file. Raises: WrongConfiguration."""
    try:
        line = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise WrongConfiguration(f"The key's file {path} cannot be read: {type(error).__name__}.") from error
    if not _KEY.fullmatch(line):
        raise WrongConfiguration(f"{path} must hold one line, key:token.")
    return line


class Feed:
    """edgeFeed at *url* (the base URL, without a path), asked with *key* (key:token).

    Safe in several threads: each has a connection of its own, kept open.

    Raises: WrongConfiguration for plain HTTP to another machine, because private keys travel."""

    def __init__(self, url: str, key: str, *, timeout: float = 5, ca_file: Path | None = None) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise WrongConfiguration(f"{url!r} is no address of the functions; it takes https://host[:port].")
        if parts.scheme == "http" and not _loopback(parts.hostname):
            raise WrongConfiguration(f"{url!r} is refused: private keys travel, so it takes https://.")
        self._host, self._port, self._base = parts.hostname, parts.port, parts.path.rstrip("/")
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._timeout = timeout
        self._headers = {
            "Authorization": "Basic " + base64.b64encode(key.encode()).decode(),
            "Accept": "application/json",
        }
        self._local = threading.local()

    def hosts(self, since: str) -> Page:
        """What changed after *since*, an earlier page's head; all, where it is empty. Raises: FeedUnavailable."""
        body = self._json("GET", f"/edge/v1/hosts?since={urllib.parse.quote(since, safe='')}")
        try:
            hosts = tuple(_host(one) for one in body["hosts"])
            return Page(str(body["head"]), hosts, bool(body["more"]), bool(body["full"]), bool(body["first"]))
        except (KeyError, TypeError, ValueError) as error:
            raise FeedUnavailable(f"edgeFeed's list of hosts is not of the expected form: {error!r}") from error

    def material(self, server_name: str) -> Material | None:
        """What a host shows; None where there is no such host any more. Raises: FeedUnavailable."""
        status, body = self._ask("GET", f"/edge/v1/hosts/{urllib.parse.quote(server_name, safe='')}")
        if status == 404:
            return None
        found = _decoded(status, body)
        try:
            return Material(str(found["version"]), str(found["certificate"]), str(found["privateKey"]))
        except (KeyError, TypeError) as error:
            raise FeedUnavailable(f"edgeFeed's answer for {server_name} lacks a field") from error

    def withdrawals(self, since: str) -> Withdrawals:
        """Whose sessions must end, after *since*, an earlier head. Raises: FeedUnavailable."""
        body = self._json("GET", f"/edge/v1/withdrawals?since={urllib.parse.quote(since, safe='')}")
        try:
            found = tuple(
                Withdrawal(str(one["org"]), str(one["kind"]), str(one.get("value") or ""))
                for one in body["withdrawals"]
            )
            return Withdrawals(str(body["head"]), found, bool(body["more"]), bool(body["missed"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FeedUnavailable(f"edgeFeed's withdrawals are not of the expected form: {error!r}") from error

    def served(self, edge: str, hosts: Iterable[tuple[str, str]]) -> None:
        """Tell which version (second) each server name (first) is served at. Raises: FeedUnavailable."""
        body = {"edge": edge, "hosts": [{"serverName": name, "version": version} for name, version in hosts]}
        self._json("POST", "/edge/v1/served", body)

    def _json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return _decoded(*self._ask(method, path, body))

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
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
                    raise FeedUnavailable(f"the functions do not answer: {type(error).__name__}: {error}") from error
                continue
            if answer.will_close or len(found) > _MOST_BYTES:
                self._drop()
            if len(found) > _MOST_BYTES:
                raise FeedUnavailable("the functions' answer is too long")
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
        return made, True

    def _drop(self) -> None:
        kept: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if kept is not None:
            kept.close()
            self._local.connection = None


def _decoded(status: int, body: bytes) -> Any:
    if status not in (200, 204):
        raise FeedUnavailable(f"edgeFeed answers {status}: {_detail(body)}")
    try:
        return json.loads(body or b"{}")
    except ValueError as error:
        raise FeedUnavailable("edgeFeed's answer is no JSON") from error


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])[:300]
    except (ValueError, KeyError, TypeError):
        return "no problem document"


def _host(one: Mapping[str, Any]) -> Host:
    name = str(one["serverName"])
    if not SERVER_NAME.fullmatch(name) or ".." in name:  # it becomes a file's name and a word of a command
        raise ValueError(f"{name!r} is no server name")
    return Host(
        name,
        str(one.get("org") or ""),
        str(one.get("version") or ""),
        str(one.get("certificateId") or ""),
        bool(one.get("removed", False)),
    )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


__all__: Sequence[str] = (
    "SERVER_NAME",
    "Feed",
    "FeedUnavailable",
    "Host",
    "Material",
    "Page",
    "Withdrawal",
    "Withdrawals",
    "WrongConfiguration",
    "read_key",
)
