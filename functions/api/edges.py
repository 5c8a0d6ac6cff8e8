"""The feed of TLS edges: the hosts to serve, their certificates and keys, and the sessions to end.

A reply may hold a private key or lead to one. So every reply is sent over TLS only, or to a client on this machine.
"""

from datetime import datetime
from typing import Annotated, Final

from msgspec import UNSET, Meta, UnsetType

from functions.call import EDGES, Call, open_endpoint
from functions.web.body import Body, read_body
from functions.web.contract import View
from functions.web.errors import InsecureTransport
from functions.web.message import Reply, json_reply
from shared import errors
from shared.records import Withdrawal
from shared.usecases.devices.recheck import SESSIONS_MAX, recheck
from shared.usecases.edges.listing import ListedHost, list_changed_hosts
from shared.usecases.edges.reports import report_refused, report_served
from shared.usecases.edges.serve import export_key
from shared.usecases.edges.withdrawals import read_withdrawals
from shared.validation.session import Session

FEED: Final = "/edge/v1"
FUNCTION: Final = "edgeFeed"
CLIENT_CERTIFICATE: Final = "requested"  # not required: verifyClient decides, and applications have no certificate


class HostView(View, frozen=True, kw_only=True):
    """A host at its version. *removed*: no longer served; *certificateId* is `default` for the platform's own."""

    server_name: str
    org: str
    version: str
    removed: bool
    client_certificate: str
    certificate_id: str


class HostsView(View, frozen=True, kw_only=True):
    """What changed since. *head*: to ask with next, at once where *more*. *full*: pages of everything, beginning with
    the *first*; once `more` is false, a host on none of them is gone."""

    head: str
    hosts: tuple[HostView, ...]
    more: bool
    full: bool
    first: bool
    default_version: str | None


@open_endpoint(
    "GET",
    f"{FEED}/hosts",
    function=FUNCTION,
    roles=EDGES,
    summary="The hosts that changed since, and their versions; all of them where nothing is given",
    query={"since": "the head of an earlier answer", "edge": "the name of the edge, as in `served`"},
    answers={200: HostsView},
    refusals=(InsecureTransport,),
)
def list_hosts(call: Call) -> Reply:
    query = call.request.query
    page = list_changed_hosts(
        call.context, call.private_credentials, query.get("since", ""), edge=query.get("edge", "")
    )
    view = HostsView(
        head=page.head,
        hosts=tuple(map(_host_view, page.hosts)),
        more=page.more,
        full=page.full,
        first=page.first,
        default_version=page.default_version,
    )
    return json_reply(view)


def _host_view(host: ListedHost) -> HostView:
    return HostView(
        server_name=host.server_name,
        org=host.org_id,
        version=host.version,
        removed=host.removed,
        client_certificate=CLIENT_CERTIFICATE,
        certificate_id=host.certificate_id,
    )


class HostKeyView(View, frozen=True, kw_only=True):
    """What an edge needs to serve a host. The only answer of this API that has a private key in it."""

    server_name: str
    org: str
    version: str
    certificate_id: str
    certificate: str  # PEM, leaf first
    private_key: str  # PEM, PKCS#8
    client_certificate: str

    def __repr__(self) -> str:
        """Leave out the private key."""
        return f"HostKeyView({self.server_name!r})"


@open_endpoint(
    "GET",
    f"{FEED}/hosts/{{serverName}}",
    function=FUNCTION,
    roles=EDGES,
    summary="One host's certificate chain and private key",
    answers={200: HostKeyView},
    refusals=(InsecureTransport, errors.NotFound),
)
def get_host(call: Call) -> Reply:
    credentials = call.exporting_credentials
    exported = export_key(call.context, call.app.sealer, credentials, call.request.params["serverName"])
    view = HostKeyView(
        server_name=exported.server_name,
        org=exported.org_id,
        version=exported.version,
        certificate_id=exported.certificate_id,
        certificate=exported.certificate,
        private_key=exported.private_key,
        client_certificate=CLIENT_CERTIFICATE,
    )
    return json_reply(view)


class ServedHost(Body, frozen=True, kw_only=True):
    server_name: Annotated[str, Meta(max_length=253)]
    version: Annotated[str, Meta(max_length=64)]


class Served(Body, frozen=True, kw_only=True):
    """*edge*: what the edge calls itself, shown in the activity list."""

    edge: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")]
    hosts: Annotated[tuple[ServedHost, ...], Meta(max_length=500)]


class ServedView(View, frozen=True, kw_only=True):
    """*stale*: hosts whose version is not the current version, or that are not the caller's."""

    taken: int
    stale: tuple[str, ...]


@open_endpoint(
    "POST",
    f"{FEED}/served",
    function=FUNCTION,
    roles=EDGES,
    summary="An edge says which versions it serves",
    body=Served,
    answers={200: ServedView},
    refusals=(InsecureTransport,),
    operation_id="served",
)
def report(call: Call) -> Reply:
    credentials = call.private_credentials
    body = read_body(call.request, Served)
    hosts = [(host.server_name, host.version) for host in body.hosts]
    result = report_served(call.context, credentials, body.edge, hosts)
    return json_reply(ServedView(taken=result.taken, stale=tuple(result.stale)))


class RefusedClients(Body, frozen=True, kw_only=True):
    org: Annotated[str, Meta(max_length=63)]
    code: Annotated[str, Meta(pattern=r"^[a-z_]{1,64}$")]
    count: Annotated[int, Meta(ge=1, le=1_000_000_000)]


class Refused(Body, frozen=True, kw_only=True):
    """Clients that the edge refused by itself, after verifyClient let them pass, since its last report."""

    edge: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")]
    refused: Annotated[tuple[RefusedClients, ...], Meta(max_length=500)]


class RefusedView(View, frozen=True, kw_only=True):
    """*counted*: the clients of the caller's organizations, without codes that the functions do not know."""

    counted: int


@open_endpoint(
    "POST",
    f"{FEED}/refused",
    function=FUNCTION,
    roles=EDGES,
    summary="An edge says how many clients it refused by itself",
    body=Refused,
    answers={200: RefusedView},
    refusals=(InsecureTransport,),
    operation_id="refused",
)
def report_refusals(call: Call) -> Reply:
    credentials = call.private_credentials
    body = read_body(call.request, Refused)
    refusals = [(refused.org, refused.code, refused.count) for refused in body.refused]
    return json_reply(RefusedView(counted=report_refused(call.context, credentials, refusals)))


class WithdrawalView(View, frozen=True, kw_only=True):
    """Live sessions to end, or to ask about (`recheck`). *kind* and *value*: `org`; `ca` and its id; `identity` and
    `d:type:device`; `fingerprint` and SHA-256 of a certificate; `serial` and `<CA id>:<serial number in hex>`;
    `recheck` and `settings` or `policy`, for all sessions of the organization. *keyDigest*, *serialDigest*: of a CA and
    of a serial number, as in a verdict."""

    org: str
    kind: str
    value: str
    at: datetime
    id: str | UnsetType = UNSET
    key_digest: str | UnsetType = UNSET
    serial_digest: str | UnsetType = UNSET


class WithdrawalsView(View, frozen=True, kw_only=True):
    """*head*: to ask with next, at once where *more*. *missed*: the edge fell too far behind, or the store has another
    history, and the edge must end all."""

    head: str
    withdrawals: tuple[WithdrawalView, ...]
    more: bool
    missed: bool


@open_endpoint(
    "GET",
    f"{FEED}/withdrawals",
    function=FUNCTION,
    roles=EDGES,
    summary="Whose live sessions must end, since",
    query={
        "since": "the head of an earlier answer; nothing: only tell the head",
        "edge": "the name of an edge that knows `recheck`, as in `served`",
    },
    answers={200: WithdrawalsView},
    refusals=(InsecureTransport,),
)
def list_withdrawals(call: Call) -> Reply:
    query = call.request.query
    page = read_withdrawals(call.context, call.private_credentials, query.get("since", ""), edge=query.get("edge", ""))
    view = WithdrawalsView(
        head=page.head, withdrawals=tuple(map(_withdrawal_view, page.withdrawals)), more=page.more, missed=page.missed
    )
    return json_reply(view)


def _withdrawal_view(withdrawal: Withdrawal) -> WithdrawalView:
    return WithdrawalView(
        org=withdrawal.org_id,
        kind=withdrawal.kind,
        value=withdrawal.value,
        at=withdrawal.at,
        id=withdrawal.id or UNSET,
        key_digest=withdrawal.key_digest or UNSET,
        serial_digest=withdrawal.serial_digest or UNSET,
    )


Digest = Annotated[str, Meta(max_length=64)]


class LiveSession(Body, frozen=True, kw_only=True):
    """A live session, as its verdict described it. *session*: a text that the answer repeats. *fingerprints*: the first
    16 hex digits of each, the leaf's first. *complete*: the digests are those of the whole path. *basis*: of the
    verdict."""

    session: Annotated[str, Meta(max_length=64)]
    org: Annotated[str, Meta(max_length=63)]
    server_name: Annotated[str, Meta(max_length=256)] | None = None
    identity: Annotated[str, Meta(max_length=256)] | None = None
    ca: Annotated[str, Meta(max_length=64)] | None = None
    key_digests: Annotated[tuple[Digest, ...], Meta(max_length=32)] = ()
    serial_digests: Annotated[tuple[Digest, ...], Meta(max_length=32)] = ()
    fingerprints: Annotated[tuple[Digest, ...], Meta(max_length=64)] = ()
    complete: bool = True
    basis: Annotated[str, Meta(max_length=32)] = ""


class Recheck(Body, frozen=True, kw_only=True):
    sessions: Annotated[tuple[LiveSession, ...], Meta(max_length=SESSIONS_MAX)]


class RecheckView(View, frozen=True, kw_only=True):
    """*end*: the sessions whose clients would be refused now, and those that could not be judged."""

    end: tuple[str, ...]


@open_endpoint(
    "POST",
    f"{FEED}/recheck",
    function=FUNCTION,
    roles=EDGES,
    summary="An edge asks which of its live sessions must end",
    body=Recheck,
    answers={200: RecheckView},
    refusals=(InsecureTransport,),
    operation_id="recheck",
)
def recheck_sessions(call: Call) -> Reply:
    credentials = call.private_credentials
    body = read_body(call.request, Recheck)
    refused = recheck(call.context, credentials, list(map(_session, body.sessions)))
    pairs = zip(body.sessions, refused, strict=True)
    return json_reply(RecheckView(end=tuple(live.session for live, is_refused in pairs if is_refused)))


def _session(live: LiveSession) -> Session:
    return Session(
        org_id=live.org,
        server_name=live.server_name,
        identity=live.identity,
        ca_id=live.ca,
        key_digests=live.key_digests,
        serial_digests=live.serial_digests,
        fingerprints=live.fingerprints,
        complete=live.complete,
        basis=live.basis,
    )
