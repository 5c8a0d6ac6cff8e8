"""edgeFeed: what a TLS edge serves. Versions are listed; a private key is handed out for one host at a time."""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from shared.errors import NotFound, TooManyHosts, WrongValue
from shared.feed import CursorExpired
from shared.ports import KeySealer
from shared.records import (
    DEFAULT,
    PLATFORM,
    Activity,
    ActivityKind,
    DefaultCertificate,
    Org,
    OrgHosts,
    Role,
    Sealed,
    ServerCertificate,
)
from shared.repository import (
    ORG_HOSTS,
    Batch,
    Ref,
    activity_id,
    default_ref,
    org_hosts_ref,
    org_ref,
    server_ref,
)
from shared.usecases.callers import Caller, Credentials, identified
from shared.usecases.context import Context, entry
from shared.usecases.edges.host_names import covered_hosts, hosts_of
from shared.usecases.edges.hosts import BY_DEFAULT, parsed, version_of
from shared.validation.names import ServerName
from shared.x509.certificate import Certificate

log = logging.getLogger(__name__)

HOSTS_MAX: Final = 500  # about so many in one page (an org's hosts stay together)
SERVED_MAX: Final = 500  # hosts in one report
EVERY_HOST_MAX: Final = 500  # in a list that is told whole
_SINCE: Final = r"(?P<number>[0-9]{1,16})\.(?P<default>[0-9a-f]{16}|-)(\.(?P<after>[a-z0-9]{6}))?"
_TOLD_EVERY: Final = 3600  # seconds between two activity entries of the same edge, host and version


def edge_caller(context: Context, credentials: Credentials, *also: Ref[Any]) -> tuple[Caller, Batch]:
    """The edge that *credentials* prove, and what stands at *also*, read in the same round trip.

    A suspended org's own edge is still answered: it has to hear that its hosts are gone.

    Raises: NotAuthenticated, Forbidden, StoreUnavailable."""
    found = context.repository.find([credentials.place, *also])
    caller = identified(credentials, found.get(credentials.place))
    caller.must_be((Role.EDGE,))
    return caller, found


# ----------------------------------------------------------------------------------------------- what is served


class Host(msgspec.Struct, frozen=True):
    """A host at its version. *certificate_id* is `default` where the platform's certificate serves it."""

    server_name: str
    org_id: str
    version: str
    certificate_id: str
    removed: bool = False


class Page(msgspec.Struct, frozen=True):
    """What changed, or a part of everything.

    Args:
        head: what to ask with next.
        more: whether there is more at this moment.
        full: whether these are pages of everything (*first*: beginning here), so that a host on none of them is gone.
    """

    head: str
    hosts: Sequence[Host]
    more: bool
    full: bool
    first: bool
    default_version: str | None


def changed_hosts(context: Context, credentials: Credentials, since: str) -> Page:
    """The hosts of the caller's orgs that changed after *since*, a `head` told before; all where it is empty.

    Everything is told again (`full`) where the edge has fallen too far behind, and where the platform's default
    certificate is another one: in both cases the list is read from what stands, not from the feed.

    Raises: WrongValue, NotAuthenticated, Forbidden, StoreUnavailable."""
    caller, found = edge_caller(context, credentials, default_ref())
    reading = _Reading(context, caller, found.get(default_ref()))
    if since in ("", "0"):
        return reading.everything()
    match = re.fullmatch(_SINCE, since)
    if match is None:
        raise WrongValue(field="since", found="since takes the head of an earlier answer, or nothing")
    if match["default"] != reading.default_mark:
        return reading.everything()
    number, after = int(match["number"]), match["after"]
    if after is not None:
        return reading.everything(number, after)
    try:
        return reading.changes(number)
    except CursorExpired:
        return reading.everything()


def every_host(context: Context, credentials: Credentials) -> list[Host]:
    """All that is served of the caller's orgs, for an edge that takes everything in one list.

    Raises: TooManyHosts, NotAuthenticated, Forbidden, StoreUnavailable."""
    caller, found = edge_caller(context, credentials, default_ref())
    reading = _Reading(context, caller, found.get(default_ref()))
    hosts: list[Host] = []
    for one in reading.all_hosts():
        hosts.append(one)
        if len(hosts) > EVERY_HOST_MAX:
            raise TooManyHosts(limit=EVERY_HOST_MAX)
    return hosts


class _Reading:
    """One answer: the caller's view of what is served."""

    def __init__(self, context: Context, caller: Caller, default: DefaultCertificate | None) -> None:
        self._context = context
        self._caller = caller
        self._default = parsed(default.leaf) if default else None
        self._default_version = version_of(default) if default else None
        self.default_mark = self._default_version or "-"

    def changes(self, number: int) -> Page:
        """Raises: CursorExpired."""
        changes = self._context.host_changes.since(number, limit=HOSTS_MAX)
        mine = [one for one in dict.fromkeys(change.what.org_id for change in changes) if self._is_mine(one)]
        if not mine:
            head = changes[-1].number if changes else number
            return self._page(
                f"{head}.{self.default_mark}", {}, more=len(changes) == HOSTS_MAX, full=False, first=False
            )
        found = self._context.repository.find([org_hosts_ref(org_id) for org_id in mine])
        told: dict[str, list[Host]] = {}
        head, count, cut = number, 0, False
        for change in changes:
            org_id = change.what.org_id
            if org_id in mine and org_id not in told:
                hosts = list(self._hosts(org_id, found.get(org_hosts_ref(org_id)), removed=True))
                if told and count + len(hosts) > HOSTS_MAX:
                    cut = True
                    break
                told[org_id] = hosts
                count += len(hosts)
            head = change.number
        more = cut or len(changes) == HOSTS_MAX
        return self._page(f"{head}.{self.default_mark}", told, more=more, full=False, first=False)

    def everything(self, number: int | None = None, after: str = "") -> Page:
        """A page of everything. *number*: where the feed stood before the first page was read."""
        first = number is None
        if number is None:
            number = self._context.host_changes.end()  # before anything is read: what changes meanwhile is told again
        told: dict[str, list[Host]] = {}
        count = 0
        for org_id, served in self._stored(after):
            hosts = list(self._hosts(org_id, served, removed=False))
            if told and count + len(hosts) > HOSTS_MAX:
                head = f"{number}.{self.default_mark}.{after}"
                return self._page(head, told, more=True, full=True, first=first)
            told[org_id], after = hosts, org_id
            count += len(hosts)
        return self._page(f"{number}.{self.default_mark}", told, more=False, full=True, first=first)

    def all_hosts(self) -> Iterator[Host]:
        for org_id, served in self._stored(""):
            yield from self._hosts(org_id, served, removed=False)

    def _stored(self, after: str) -> Iterator[tuple[str, OrgHosts]]:
        """The caller's orgs behind *after*, ordered."""
        repository = self._context.repository
        mine = sorted([self._caller.org_id] if self._caller.org_id else self._caller.orgs)
        if mine:
            found = repository.find([org_hosts_ref(one) for one in mine if one > after])
            yield from (
                (one, served) for one in mine if one > after and (served := found.get(org_hosts_ref(one))) is not None
            )
            return
        while page := repository.list(ORG_HOSTS, OrgHosts, after=after, limit=200):
            yield from page
            after = page[-1][0]

    def _is_mine(self, org_id: str) -> bool:
        return self._caller.asker.may_ask_about(org_id)

    def _hosts(self, org_id: str, served: OrgHosts | None, *, removed: bool) -> Iterator[Host]:
        if served is None:
            return
        lacking = [host for host, version in served.hosts.items() if version == BY_DEFAULT]
        by_default = set(covered_hosts(self._default, lacking)) if self._default and lacking else set()
        for host, version in served.hosts.items():
            if version != BY_DEFAULT:
                yield Host(host, org_id, version, served.certificate_id)
            elif host in by_default and self._default_version:
                yield Host(host, org_id, self._default_version, DEFAULT)
            elif removed:
                yield Host(host, org_id, "", DEFAULT, removed=True)
        if removed:
            yield from (Host(host, org_id, "", DEFAULT, removed=True) for host in served.gone)

    def _page(self, head: str, told: dict[str, list[Host]], *, more: bool, full: bool, first: bool) -> Page:
        hosts = [host for hosts in told.values() for host in hosts]
        return Page(head, hosts, more, full, first, self._default_version)


# --------------------------------------------------------------------------------------------- one host, with key


class ExportedKey(msgspec.Struct, frozen=True):
    """A host's certificate chain and private key, as PEM. The key is in no repr."""

    server_name: str
    org_id: str
    version: str
    certificate_id: str
    certificate: str
    private_key: str

    def __repr__(self) -> str:
        """Without the private key."""
        return f"ExportedKey({self.server_name}, {self.version})"


def export_key(context: Context, sealer: KeySealer, credentials: Credentials, server_name: str) -> ExportedKey:
    """Chain and key of the certificate that serves *server_name*, an exact host.

    Each hand-out is logged; the org's activity tells of it once an hour for each edge key and version.

    Raises: NotFound (no such host, another org's, or none covers it), NotAuthenticated, Forbidden, SealBroken."""
    caller, found = edge_caller(context, credentials, default_ref(), *_org_place(server_name))
    return _handed_out(context, sealer, caller, found, server_name)


def export_keys(
    context: Context,
    sealer: KeySealer,
    credentials: Credentials,
    server_names: Sequence[str],
    *,
    unless: Callable[[Sequence[str]], bool],
) -> tuple[list[ExportedKey], bool]:
    """As `export_key` for each of *server_names* that is served to the caller; the others are left out.

    Args:
        unless: given the versions, whether the caller has them already; then no key is opened.

    Returns what is handed out, and whether the caller had it already."""
    places = [place for name in server_names for place in _org_place(name)]
    caller, found = edge_caller(context, credentials, default_ref(), *places)
    served = [one for name in server_names if (one := _served(context, caller, found, name)) is not None]
    if unless([f"{name} {version}" for name, _, _, version, _ in served]):
        return [], True
    return [_opened(context, sealer, caller, one) for one in served], False


_Served = tuple[str, str, str, str, ServerCertificate | DefaultCertificate]  # host, org, certificate id, version


def _org_place(server_name: str) -> list[Ref[Org]]:
    name = ServerName.parse(server_name)
    return [org_ref(name.org_id)] if name else []


def _handed_out(context: Context, sealer: KeySealer, caller: Caller, found: Batch, server_name: str) -> ExportedKey:
    served = _served(context, caller, found, server_name)
    if served is None:
        raise NotFound(what="host of that name")
    return _opened(context, sealer, caller, served)


def _served(context: Context, caller: Caller, found: Batch, server_name: str) -> _Served | None:
    """Which certificate serves the host now, from the org's own document; None where none does."""
    name = ServerName.parse(server_name)
    if name is None or not caller.asker.may_ask_about(name.org_id):
        return None
    org = found.get(org_ref(name.org_id))
    host = f"{name.org_id}.messaging.{name.domain}"
    if org is None or org.suspended or host not in hosts_of(org.org_id, context.platform_domain, org.settings):
        return None
    active = org.activation.active
    if active != DEFAULT:
        own = context.repository.get(server_ref(org.org_id, active))
        if own is not None and own.leaf is not None and covered_hosts(parsed(own.leaf), [host]):
            return host, org.org_id, active, version_of(own), own
    default = found.get(default_ref())
    if default is not None and covered_hosts(parsed(default.leaf), [host]):
        return host, org.org_id, DEFAULT, version_of(default), default
    return None


def _opened(context: Context, sealer: KeySealer, caller: Caller, served: _Served) -> ExportedKey:
    host, org_id, certificate_id, version, record = served
    key = _key_pem(sealer, record.key, PLATFORM if certificate_id == DEFAULT else org_id, certificate_id)
    log.info(
        "a private key was handed out",
        extra={"org": org_id, "host": host, "certificate": certificate_id, "version": version, "edge": caller.who},
    )
    _note(context, caller, host, org_id, certificate_id, version)
    chain = [parsed(record.leaf)] if record.leaf else []
    chain += map(Certificate.from_der, record.chain)
    pem = "".join(cert.pem for cert in chain)
    return ExportedKey(host, org_id, version, certificate_id, pem, key)


def _key_pem(sealer: KeySealer, sealed: Sealed, org_id: str, certificate_id: str) -> str:
    der = sealer.open(sealed, org_id=org_id, certificate_id=certificate_id)
    key = load_der_private_key(der, password=None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _note(context: Context, caller: Caller, host: str, org_id: str, certificate_id: str, version: str) -> None:
    """Tell the org, once an hour: the entry's id is made of the hour and of what is told, so that it stands once."""
    at = context.clock()
    hour = datetime.fromtimestamp(int(at.timestamp()) // _TOLD_EVERY * _TOLD_EVERY, at.tzinfo)
    what = sha256(f"{caller.who} {host} {version}".encode()).hexdigest()[:8]
    entry_id = f"{activity_id(hour).partition('-')[0]}-{what}"
    detail = {"host": host, "certificate": certificate_id, "version": version}
    line = Activity(entry_id, at, ActivityKind.EDGE, caller.who, "keyHandedOut", detail=detail)
    context.repository.note_once(org_id, line)


# -------------------------------------------------------------------------------------------- what an edge serves


class Report(msgspec.Struct, frozen=True):
    """*taken*: hosts whose version is the one that stands; *stale*: the others, which the edge should ask for again."""

    taken: int
    stale: Sequence[str]


def report_served(context: Context, credentials: Credentials, edge: str, hosts: Sequence[tuple[str, str]]) -> Report:
    """An edge says which version of each host it serves; the first to say so of an active certificate dates its
    `servedSince`. Hosts that are not the caller's are stale to it, as unknown ones are.

    Raises: NotAuthenticated, Forbidden, StoreUnavailable."""
    names = {host: ServerName.parse(host) for host, _ in hosts}
    orgs = sorted({name.org_id for name in names.values() if name is not None})
    places = [org_hosts_ref(one) for one in orgs]
    caller, found = edge_caller(context, credentials, default_ref(), *places)
    default = found.get(default_ref())
    default_version = version_of(default) if default else None
    stale: list[str] = []
    own: dict[tuple[str, str], tuple[OrgHosts, str]] = {}
    by_default = False
    for host, version in hosts:
        name = names[host]
        known = found.get(org_hosts_ref(name.org_id)) if name and caller.asker.may_ask_about(name.org_id) else None
        wanted = known.hosts.get(host.lower()) if known else None
        if known is not None and name is not None and wanted == version and wanted:
            own.setdefault((name.org_id, known.certificate_id), (known, host))
        elif wanted == BY_DEFAULT and version == default_version:
            by_default = True
        else:
            stale.append(host)
    for (org_id, certificate_id), (known, host) in own.items():
        _served_by(context, org_id, certificate_id, known, edge, host)
    if by_default and default is not None and default.served_since is None:
        _default_served(context, default)
    return Report(len(hosts) - len(stale), stale)


def _served_by(context: Context, org_id: str, certificate_id: str, known: OrgHosts, edge: str, host: str) -> None:
    at = context.clock()

    def alter(before: ServerCertificate | None) -> ServerCertificate | None:
        if before is None or is_served_since(before.served_since, known.activated_at):
            return before
        line = entry(at, edge, "served", kind=ActivityKind.EDGE, certificate=certificate_id, host=host)
        return msgspec.structs.replace(before, served_since=at, outbox=(line,))

    context.repository.change(server_ref(org_id, certificate_id), alter, org_id=org_id)


def _default_served(context: Context, seen: DefaultCertificate) -> None:
    at = context.clock()

    def alter(before: DefaultCertificate | None) -> DefaultCertificate | None:
        if before is None or before.leaf != seen.leaf or before.served_since is not None:
            return before
        return msgspec.structs.replace(before, served_since=at)

    context.repository.change(default_ref(), alter)


def is_served_since(served: datetime | None, activated: datetime | None) -> bool:
    """Whether *served*, an edge's word, is about this activation and not about an earlier one."""
    return served is not None and (activated is None or served >= activated)
