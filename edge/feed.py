"""A client of edgeFeed: which hosts there are, what each shows, whose sessions must end."""

import re
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edge.api import Api, Unavailable

_SERVER_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


def is_server_name(text: str) -> bool:
    """Whether *text* may become a file's name and a word of a command."""
    return _SERVER_NAME.fullmatch(text) is not None and ".." not in text


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


class Feed:
    """edgeFeed as *api* reaches it. Every method raises Unavailable."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def hosts(self, since: str) -> Page:
        """What changed after *since*, an earlier page's head; all, where it is empty."""
        body = self._api.json("GET", f"/edge/v1/hosts?since={urllib.parse.quote(since, safe='')}")
        try:
            hosts = tuple(_host(one) for one in body["hosts"])
            return Page(str(body["head"]), hosts, bool(body["more"]), bool(body["full"]), bool(body["first"]))
        except (KeyError, TypeError, ValueError) as error:
            raise Unavailable(f"edgeFeed's list of hosts is not of the expected form: {error!r}") from error

    def material(self, server_name: str) -> Material | None:
        """What a host shows; None where there is no such host any more."""
        found = self._api.json("GET", f"/edge/v1/hosts/{urllib.parse.quote(server_name, safe='')}", missing=None)
        if found is None:
            return None
        try:
            return Material(str(found["version"]), str(found["certificate"]), str(found["privateKey"]))
        except (KeyError, TypeError) as error:
            raise Unavailable(f"edgeFeed's answer for {server_name} lacks a field") from error

    def withdrawals(self, since: str) -> Withdrawals:
        """Whose sessions must end, after *since*, an earlier head."""
        body = self._api.json("GET", f"/edge/v1/withdrawals?since={urllib.parse.quote(since, safe='')}")
        try:
            found = tuple(
                Withdrawal(str(one["org"]), str(one["kind"]), str(one.get("value") or ""))
                for one in body["withdrawals"]
            )
            return Withdrawals(str(body["head"]), found, bool(body["more"]), bool(body["missed"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Unavailable(f"edgeFeed's withdrawals are not of the expected form: {error!r}") from error

    def served(self, edge: str, hosts: Iterable[tuple[str, str]]) -> None:
        """Tell which version (second) each server name (first) is served at."""
        body = {"edge": edge, "hosts": [{"serverName": name, "version": version} for name, version in hosts]}
        self._api.json("POST", "/edge/v1/served", body)


def _host(one: Mapping[str, Any]) -> Host:
    name = str(one["serverName"])
    if not is_server_name(name):
        raise ValueError(f"{name!r} is no server name")
    return Host(
        name,
        str(one.get("org") or ""),
        str(one.get("version") or ""),
        str(one.get("certificateId") or ""),
        bool(one.get("removed", False)),
    )
