"""edgeFeed: which hosts a TLS edge serves, with which certificate and key; and what the edges say they serve.

Every answer may lead to a private key, so all of them are given over TLS or to this very machine only.
"""

from functions import bodies, views
from functions.web.contract import Call, endpoint
from functions.web.http import Reply, reply
from shared import errors
from shared.usecases.callers import Credentials
from shared.usecases.edges.listing import ListedHost, changed_hosts
from shared.usecases.edges.reports import report_served
from shared.usecases.edges.serve import export_key
from shared.usecases.edges.withdrawals import withdrawn_since

CLIENT_CERTIFICATE = "requested"  # of every client, required of none: verifyClient decides, applications have none


def edge_credentials(call: Call) -> Credentials:
    """Raises: InsecureTransport, NotAuthenticated (where there are none)."""
    if not call.request.is_private:
        raise errors.InsecureTransport
    return call.request.credentials


@endpoint(
    "The hosts that changed since, and their versions; all of them where nothing is given",
    {200: views.HostsView},
    query={"since": "the head of an earlier answer"},
    refusals=(errors.InsecureTransport,),
)
def list_hosts(call: Call) -> Reply:
    credentials = edge_credentials(call)
    page = changed_hosts(call.context, credentials, call.request.query.get("since", ""))
    view = views.HostsView(
        head=page.head,
        hosts=tuple(map(_host, page.hosts)),
        more=page.more,
        full=page.full,
        first=page.first,
        default_version=page.default_version,
    )
    return reply(view)


def _host(one: ListedHost) -> views.HostView:
    return views.HostView(
        server_name=one.server_name,
        org=one.org_id,
        version=one.version,
        removed=one.removed,
        client_certificate=CLIENT_CERTIFICATE,
        certificate_id=one.certificate_id,
    )


@endpoint(
    "One host's certificate chain and private key",
    {200: views.HostKeyView},
    refusals=(errors.InsecureTransport, errors.NotFound),
)
def get_host(call: Call) -> Reply:
    credentials = edge_credentials(call)
    one = export_key(call.context, call.app.sealer, credentials, call.request.params["serverName"])
    view = views.HostKeyView(
        server_name=one.server_name,
        org=one.org_id,
        version=one.version,
        certificate_id=one.certificate_id,
        certificate=one.certificate,
        private_key=one.private_key,
        client_certificate=CLIENT_CERTIFICATE,
    )
    return reply(view)


@endpoint(
    "An edge says which versions it serves",
    {200: views.ServedView},
    body=bodies.Served,
    refusals=(errors.InsecureTransport,),
)
def served(call: Call) -> Reply:
    credentials = edge_credentials(call)
    body = call.request.fields(bodies.Served)
    hosts = [(one.server_name, one.version) for one in body.hosts]
    report = report_served(call.context, credentials, body.edge, hosts)
    return reply(views.ServedView(taken=report.taken, stale=tuple(report.stale)))


@endpoint(
    "Whose live sessions must end, since",
    {200: views.WithdrawalsView},
    query={"since": "the head of an earlier answer; nothing: only tell the head"},
    refusals=(errors.InsecureTransport,),
)
def list_withdrawals(call: Call) -> Reply:
    credentials = edge_credentials(call)
    page = withdrawn_since(call.context, credentials, call.request.query.get("since", ""))
    view = views.WithdrawalsView(
        head=page.head,
        withdrawals=tuple(
            views.WithdrawalView(org=one.org_id, kind=one.kind, value=one.value, at=one.at) for one in page.withdrawals
        ),
        more=page.more,
        missed=page.missed,
    )
    return reply(view)
