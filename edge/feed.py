"""Client of edgeFeed: hosts, their certificates and keys, and withdrawals."""

import re
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edge.api import ApiClient, Unavailable

RECHECK_MAX: Final = 500  # sessions in one question
RECHECK_BYTES: Final = 200_000  # of one question; a body has at most 256 KiB
_SERVER_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


def is_server_name(text: str) -> bool:
    """Return whether *text* is safe as a file name and as a word of a HAProxy command."""
    return _SERVER_NAME.fullmatch(text) is not None and ".." not in text


@dataclass(frozen=True)
class HostVersion:
    """A version of a host.

    Args:
        server_name: the host's name.
        org: the orgId.
        version: the version of the served certificate.
        certificate: the certificate's id; `default` is the platform's certificate, which many hosts share.
        removed: whether the host does not exist any more.
    """

    server_name: str
    org: str
    version: str
    certificate: str = ""
    removed: bool = False


@dataclass(frozen=True)
class HostPage:
    """A page of hosts: either the changed hosts, or a part of the list of all hosts.

    Args:
        head: the cursor of the next request.
        hosts: the hosts of this page.
        more: whether there is another page.
        full: whether the page is a part of the list of all hosts. Hosts that are on none of its pages are removed.
        first: whether the page is the first of that list.
    """

    head: str
    hosts: tuple[HostVersion, ...]
    more: bool
    full: bool
    first: bool


@dataclass(frozen=True)
class KeyMaterial:
    """A host's certificate chain and private key.

    Args:
        version: the version of the certificate.
        certificate: the chain as PEM, the host's certificate first.
        private_key: the private key as PEM.
    """

    version: str
    certificate: str
    private_key: str = field(repr=False)


@dataclass(frozen=True)
class WithdrawalEntry:
    """A withdrawal: the sessions that depend on the withdrawn object must end.

    Args:
        org: the orgId.
        kind: "org", "identity", "ca", "fingerprint" or "serial"; later versions of edgeFeed may add kinds.
        value: the withdrawn object; empty for an organization.
        key_digest: the digest of the subject and the key of the withdrawn certificate; empty if unknown.
        serial_digest: the digest of the issuer's key and the serial number; empty if unknown.
    """

    org: str
    kind: str
    value: str
    key_digest: str = ""
    serial_digest: str = ""


@dataclass(frozen=True)
class WithdrawalPage:
    """A page of withdrawals.

    Args:
        head: the cursor of the next request.
        withdrawals: the withdrawals of this page.
        more: whether there is another page.
        missed: whether withdrawals are missing before this page: edgeFeed has deleted them, or has another history.
    """

    head: str
    withdrawals: tuple[WithdrawalEntry, ...]
    more: bool
    missed: bool


class FeedClient:
    """A client of edgeFeed. Every method raises Unavailable."""

    def __init__(self, api: ApiClient) -> None:
        """Store the client of the functions."""
        self._api = api

    def list_hosts(self, since: str, edge: str) -> HostPage:
        """Return the hosts that changed after *since*, the head of an earlier page; if it is empty, all hosts.

        Args:
            edge: the name of this edge.
        """
        body = self._api.request_json("GET", f"/edge/v1/hosts?{urllib.parse.urlencode({'since': since, 'edge': edge})}")
        try:
            hosts = tuple(_decode_host(item) for item in body["hosts"])
            return HostPage(str(body["head"]), hosts, bool(body["more"]), bool(body["full"]), bool(body["first"]))
        except (KeyError, TypeError, ValueError) as error:
            raise Unavailable(f"edgeFeed's list of hosts is not of the expected form: {error!r}") from error

    def get_key_material(self, server_name: str) -> KeyMaterial | None:
        """Return a host's certificate and key, or None if the host does not exist any more."""
        path = f"/edge/v1/hosts/{urllib.parse.quote(server_name, safe='')}"
        body = self._api.request_json("GET", path, missing=None)
        if body is None:
            return None
        try:
            return KeyMaterial(str(body["version"]), str(body["certificate"]), str(body["privateKey"]))
        except (KeyError, TypeError) as error:
            raise Unavailable(f"edgeFeed's response for {server_name} lacks a field") from error

    def list_withdrawals(self, since: str, edge: str) -> WithdrawalPage:
        """Return the withdrawals after *since*, the head of an earlier page. *edge*: the name of this edge."""
        query = urllib.parse.urlencode({"since": since, "edge": edge})
        body = self._api.request_json("GET", f"/edge/v1/withdrawals?{query}")
        try:
            entries = tuple(
                WithdrawalEntry(
                    str(item["org"]),
                    str(item["kind"]),
                    str(item.get("value") or ""),
                    str(item.get("keyDigest") or ""),
                    str(item.get("serialDigest") or ""),
                )
                for item in body["withdrawals"]
            )
            return WithdrawalPage(str(body["head"]), entries, bool(body["more"]), bool(body["missed"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Unavailable(f"edgeFeed's withdrawals are not of the expected form: {error!r}") from error

    def recheck(self, sessions: Sequence[Mapping[str, Any]]) -> frozenset[str] | None:
        """Return which of *sessions* would be refused now, or None if edgeFeed is of a version without this question.

        Args:
            sessions: at most RECHECK_MAX, each in the form of `POST /edge/v1/recheck` (docs/api.md).
        """
        body = self._api.request_json("POST", "/edge/v1/recheck", {"sessions": sessions}, missing=None)
        if body is None:
            return None
        try:
            return frozenset(map(str, body["end"]))
        except (KeyError, TypeError) as error:
            raise Unavailable("edgeFeed's answer about sessions is not of the expected form") from error

    def report_refused(self, edge: str, refusals: Iterable[tuple[str, str, int]]) -> None:
        """Report how many clients this edge refused by itself. Functions of an earlier version take no such report.

        Args:
            edge: the name of this edge.
            refusals: organization, code and number.
        """
        counts = [{"org": org, "code": code, "count": count} for org, code, count in refusals]
        self._api.request_json("POST", "/edge/v1/refused", {"edge": edge, "refused": counts}, missing=None)

    def report_served(self, edge: str, hosts: Iterable[tuple[str, str]]) -> None:
        """Report the served versions of hosts.

        Args:
            edge: the name of this edge.
            hosts: pairs of a server name and the version that this edge serves.
        """
        body = {"edge": edge, "hosts": [{"serverName": name, "version": version} for name, version in hosts]}
        self._api.request_json("POST", "/edge/v1/served", body)


def _decode_host(item: Mapping[str, Any]) -> HostVersion:
    name = str(item["serverName"])
    if not is_server_name(name):
        raise ValueError(f"{name!r} is not a server name")
    return HostVersion(
        name,
        str(item.get("org") or ""),
        str(item.get("version") or ""),
        str(item.get("certificateId") or ""),
        bool(item.get("removed", False)),
    )
