"""manageCertificates: look at what is registered, describe it, deactivate it, delete it, renew it; preview the rest."""

from functions import bodies, views
from functions.web.contract import PAGING, PEM_TEXT, Call, endpoint
from functions.web.http import NO_CONTENT, Reply, file_bytes, if_match, page, pem_reply, reply
from shared import errors
from shared.usecases.cas import manage as cas
from shared.usecases.devices.usage import RecentUsage, read_recent_usage
from shared.usecases.servers import manage as servers
from shared.usecases.servers import preview as previews
from shared.usecases.servers.documents import ParsedServerCertificate
from shared.usecases.servers.renew import renew as renew_usecase
from shared.usecases.servers.rules import served_hosts
from shared.validation.server_cert import names_of

# -------------------------------------------------------------------------------------------- CA certificates


@endpoint("The org's CA certificates", {200: views.CAList}, query=PAGING)
def list_cas(call: Call) -> Reply:
    limit, after = page(call.request)
    found = cas.list_cas(call.context, call.member.org_id, after=after, limit=limit + 1)
    seen = _lately(call)
    results = tuple(views.ca_view(ca_id, ca, seen) for ca_id, ca in found[:limit])
    return reply(views.CAList(results=results, bookmark=results[-1].id if len(found) > limit else None))


@endpoint("One CA certificate", {200: views.CAView}, refusals=(errors.NotFound,))
def get_ca(call: Call) -> Reply:
    ca = cas.get_ca(call.context, call.member.org_id, call.id)
    return reply(views.ca_view(call.id, ca, _lately(call)), version=ca.changed.version)


@endpoint("A CA certificate as PEM", {200: PEM_TEXT}, refusals=(errors.NotFound,))
def ca_pem(call: Call) -> Reply:
    ca = cas.get_ca(call.context, call.member.org_id, call.id)
    return pem_reply(views.pem(ca.der), f"{call.id}.pem")


@endpoint(
    "Activate, deactivate or describe a CA certificate; with dryrun=true, what it would touch",
    {200: (views.CAView, views.CAEffect)},
    body=bodies.ChangeCA,
    query={"dryrun": "true: answer what deactivating would touch, as DELETE does"},
    if_match="required",
    refusals=(errors.NotFound, errors.Stale),
)
def change_ca(call: Call) -> Reply:
    body = call.request.fields(bodies.ChangeCA)
    if call.request.flag("dryrun"):
        return _effect(call)
    ca = cas.change_ca(
        call.context,
        call.member,
        call.id,
        status=body.status,
        comments=body.comments,
        expected_version=if_match(call.request),
    )
    return reply(views.ca_view(call.id, ca, _lately(call)), version=ca.changed.version)


@endpoint(
    "Delete a CA certificate; with dryrun=true, what that would touch",
    {204: None, 200: views.CAEffect},
    query={"dryrun": "true: only tell what it would touch"},
    if_match="optional",
    refusals=(errors.NotFound, errors.Stale),
)
def delete_ca(call: Call) -> Reply:
    if call.request.flag("dryrun"):
        return _effect(call)
    cas.delete_ca(call.context, call.member, call.id, expected_version=if_match(call.request, required=False))
    return NO_CONTENT


def _effect(call: Call) -> Reply:
    others = cas.list_also_vouched_by(call.context, call.member.org_id, call.id)
    use = _lately(call).of_ca(call.id)
    view = views.CAEffect(
        connections_30d=use.count if use else 0, last_used=use.last if use else None, also_vouched_by=tuple(others)
    )
    return reply(view)


def _lately(call: Call) -> RecentUsage:
    return read_recent_usage(call.context.repository, call.member.org_id, call.context.clock())


# ---------------------------------------------------------------------------------------- server certificates


@endpoint("The org's server certificates and requests, the default first", {200: views.ServerList}, query=PAGING)
def list_servers(call: Call) -> Reply:
    limit, after = page(call.request)
    found = servers.list_servers(call.context, call.member.org, after=after, limit=limit + 1)
    results = tuple(_view(call, one) for one in found[:limit])
    return reply(views.ServerList(results=results, bookmark=results[-1].id if len(found) > limit else None))


@endpoint("One server certificate or request", {200: views.ServerView}, refusals=(errors.NotFound,))
def get_server_cert(call: Call) -> Reply:
    one = servers.get_server(call.context, call.member.org, call.id)
    return reply(_view(call, one), version=one.changed.version)


@endpoint("A server certificate with its chain, as PEM", {200: PEM_TEXT}, refusals=(errors.NotFound,))
def server_pem(call: Call) -> Reply:
    one = servers.get_server(call.context, call.member.org, call.id)
    if one.leaf is None:
        raise errors.NotFound(what="certificate yet: it is a request")
    return pem_reply(views.as_pem(one.leaf, *one.chain), f"{call.id}.pem")


@endpoint("A certificate request as PEM", {200: PEM_TEXT}, refusals=(errors.NotFound,))
def server_csr(call: Call) -> Reply:
    text = servers.get_server(call.context, call.member.org, call.id).csr_pem
    if text is None:
        raise errors.NotFound(what="request: this certificate was uploaded with its key")
    return pem_reply(text, f"{call.id}.csr.pem")


@endpoint(
    "Describe a server certificate or request",
    {200: views.ServerView},
    body=bodies.ChangeServer,
    if_match="required",
    refusals=(errors.NotFound, errors.Stale),
)
def change_server(call: Call) -> Reply:
    body = call.request.fields(bodies.ChangeServer)
    seen = if_match(call.request)
    one = servers.change_server(call.context, call.member, call.id, comments=body.comments, expected_version=seen)
    return reply(_view(call, one), version=one.changed.version)


@endpoint(
    "Delete a server certificate or request, with its private key",
    {204: None},
    if_match="optional",
    refusals=(errors.NotFound, errors.ActiveCertificate, errors.Stale),
)
def delete_server(call: Call) -> Reply:
    servers.delete_server(call.context, call.member, call.id, expected_version=if_match(call.request, required=False))
    return NO_CONTENT


@endpoint(
    "A new certificate request on the key of a certificate, which stays as it is",
    {201: views.ServerView},
    refusals=(errors.NotFound, errors.RequestNotFulfilled, errors.TooManyServerCertificates, errors.RateLimited),
)
def renew(call: Call) -> Reply:
    one = renew_usecase(call.context, call.app.sealer, call.member, call.id)
    return reply(_view(call, one), status=201, version=one.changed.version)


def _view(call: Call, one: ParsedServerCertificate) -> views.ServerView:
    return views.server_view(one, call.member.org, served_hosts(call.context, call.member.org, one.leaf))


# ---------------------------------------------------------------------------------------------------- preview


@endpoint(
    "The fields of a certificate, and what it would be accepted as; nothing is saved",
    {200: views.PreviewView},
    body=bodies.Preview,
    refusals=(errors.Rejected,),
)
def preview(call: Call) -> Reply:
    body = call.request.fields(bodies.Preview)
    found = previews.preview(call.context, call.member, file_bytes(body.certificate, "certificate"))
    fields = views.certificate_view(found.cert)
    view = views.PreviewView(
        **{name: getattr(fields, name) for name in fields.__struct_fields__},
        names=tuple(names_of(found.cert)),
        self_signed=found.cert.is_self_signed,
        ca=_acceptance(found.ca),
        server=_acceptance(found.server),
    )
    return reply(view)


def _acceptance(one: previews.Acceptance) -> views.AcceptanceView:
    if one.refusal is None:
        return views.AcceptanceView(accepted=True, warnings=views.warned(one.warnings))
    return views.AcceptanceView(accepted=False, code=one.refusal.code, message=str(one.refusal))
