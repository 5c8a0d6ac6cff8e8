"""Messaging server certificates: upload, request, fulfil, activate, list, show, change, delete."""

from datetime import datetime
from typing import Annotated, Final

from msgspec import Meta

from functions.api.certificate_view import (
    Warned,
    encode_pem,
    warnings_view,
)
from functions.api.server_view import ServerView, server_view
from functions.call import OPERATORS, VIEWERS, MemberCall, endpoint
from functions.registry import PREFIX
from functions.web.body import Body, Comments, File, Short, file_bytes, read_body
from functions.web.conditions import PAGING, if_match, read_page
from functions.web.contract import PEM_TEXT, View
from functions.web.errors import MissingField
from functions.web.message import NO_CONTENT, Reply, json_reply, pem_reply
from shared import errors
from shared.usecases.servers import activate as activations
from shared.usecases.servers import manage, requests
from shared.usecases.servers.upload import upload_server_cert
from shared.validation.csr import KEY_ALGORITHMS

SERVERS: Final = PREFIX + "/authentication/servercertificates"
MANAGE: Final = "manageCertificates"


# --------------------------------------------------------------------------------------------------------- upload


class UploadServerCert(Body, frozen=True, kw_only=True):
    """*certificate*: the leaf, with its chain or not; or PKCS#12, which brings the key."""

    certificate: File
    chain: File | None = None
    private_key: File | None = None
    passphrase: Annotated[str, Meta(max_length=1024)] | None = None
    comments: Comments = ""

    def __repr__(self) -> str:
        """Leave out every field: two of them are secret."""
        return "UploadServerCert(…)"


@endpoint(
    "POST",
    SERVERS,
    alias=True,
    function="uploadServerCert",
    roles=OPERATORS,
    operation_id="upload_server_cert",
    summary="Upload a messaging server certificate with its private key",
    body=UploadServerCert,
    answers={201: ServerView, 200: ServerView},
    refusals=(errors.TooManyServerCertificates, errors.RateLimited, errors.Rejected),
)
def upload(call: MemberCall) -> Reply:
    body = read_body(call.request, UploadServerCert)
    uploaded = upload_server_cert(
        call.context,
        call.app.sealer,
        call.member,
        file_bytes(body.certificate, "certificate"),
        chain=file_bytes(body.chain, "chain") if body.chain else None,
        private_key=file_bytes(body.private_key, "privateKey") if body.private_key else None,
        passphrase=body.passphrase,
        comments=body.comments,
    )
    view = server_view(call, uploaded.parsed, uploaded.warnings)
    return json_reply(view, status=201 if uploaded.is_new else 200, version=view.version)


# ------------------------------------------------------------------------------------------------------- requests


class GenerateCSR(Body, frozen=True, kw_only=True):
    organization: Short | None = None
    organizational_unit: Short | None = None
    locality: Short | None = None
    state: Short | None = None
    country: Short | None = None
    email_address: Short | None = None
    common_name: Short | None = None
    key_algorithm: Annotated[str, Meta(description=f"One of {', '.join(KEY_ALGORITHMS)}")] = KEY_ALGORITHMS[0]
    comments: Comments = ""


@endpoint(
    "POST",
    f"{SERVERS}/csr",
    alias=True,
    function="generateCSR",
    roles=OPERATORS,
    summary="Make a key pair and a certificate request for one of the org's hosts",
    body=GenerateCSR,
    answers={201: ServerView},
    refusals=(errors.TooManyServerCertificates, errors.RateLimited, errors.InvalidSubject, errors.NotAHost),
)
def generate_csr(call: MemberCall) -> Reply:
    body = read_body(call.request, GenerateCSR)
    subject = requests.Subject(
        common_name=body.common_name,
        organization=body.organization,
        organizational_unit=body.organizational_unit,
        locality=body.locality,
        state=body.state,
        country=body.country,
        email_address=body.email_address,
    )
    request, warnings = requests.generate_csr(
        call.context, call.app.sealer, call.member, subject, algorithm=body.key_algorithm, comments=body.comments
    )
    return json_reply(server_view(call, request, warnings), status=201, version=request.changed.version)


class FulfillCSR(Body, frozen=True, kw_only=True):
    """*id* may stand in the path instead."""

    certificate: File
    id: Short | None = None


@endpoint(
    "PUT",
    f"{SERVERS}/{{id}}/certificate",
    alias=True,
    function="fulfillCSR",
    roles=OPERATORS,
    operation_id="fulfill_csr",
    summary="Replace a certificate request by the certificate a CA issued for it",
    body=FulfillCSR,
    answers={200: ServerView},
    refusals=(errors.NotFound, errors.AlreadyFulfilled, errors.Rejected),
)
def fulfill(call: MemberCall) -> Reply:
    body = read_body(call.request, FulfillCSR)
    certificate_id = call.request.params.get("id", body.id)
    if certificate_id is None:
        raise MissingField(field="id", name="id")
    if body.id not in (None, certificate_id):
        raise errors.WrongValue(field="id", found="The id in the body is not the one in the path")
    data = file_bytes(body.certificate, "certificate")
    server, warnings = requests.fulfill_csr(call.context, call.member, certificate_id, data)
    return json_reply(server_view(call, server, warnings), version=server.changed.version)


# ----------------------------------------------------------------------------------------------------- activation


class ActiveView(View, frozen=True, kw_only=True):
    """Which server certificate is shown to devices, and which one before it."""

    active: str
    previous: str | None
    activated_at: datetime | None
    version: str


@endpoint(
    "GET",
    f"{SERVERS}/active",
    function="activateServerCert",
    roles=VIEWERS,
    operation_id="active_server_cert",
    summary="Which server certificate is active, and which one was before it",
    answers={200: ActiveView},
)
def get_active(call: MemberCall) -> Reply:
    activation, version = activations.get_activation(call.member.org)
    view = ActiveView(
        active=activation.active,
        previous=activation.previous,
        activated_at=activation.activated_at,
        version=version,
    )
    return json_reply(view, version=version)


class ActivateServerCert(Body, frozen=True, kw_only=True):
    """*id*: a server certificate's, or `default` for the platform's."""

    id: Short


class ActivationView(ActiveView, frozen=True, kw_only=True):
    """The answer to an activation, or to its preflight."""

    hosts: tuple[str, ...]  # the hosts where devices are shown the certificate
    not_after: datetime
    chain_complete: bool
    warnings: tuple[Warned, ...]


@endpoint(
    "PUT",
    f"{SERVERS}/active",
    alias=True,
    function="activateServerCert",
    roles=OPERATORS,
    operation_id="activate_server_cert",
    summary="Choose the active server certificate; with dryrun=true, the preflight",
    body=ActivateServerCert,
    query={"dryrun": "true: only tell what it would mean"},
    if_match="optional",
    answers={200: ActivationView},
    refusals=(errors.NotFound, errors.RequestNotFulfilled, errors.Stale, errors.Rejected),
)
def activate(call: MemberCall) -> Reply:
    body = read_body(call.request, ActivateServerCert)
    activated = activations.activate_server_cert(
        call.context,
        call.member,
        body.id,
        expected_version=if_match(call.request, required=False),
        dry_run=call.request.flag("dryrun"),
    )
    view = ActivationView(
        active=activated.activation.active,
        previous=activated.activation.previous,
        activated_at=activated.activation.activated_at,
        version=activated.version,
        hosts=tuple(activated.hosts),
        not_after=activated.not_after,
        chain_complete=activated.is_chain_complete,
        warnings=warnings_view(activated.warnings),
    )
    return json_reply(view, version=activated.version)


# --------------------------------------------------------------------------------------- list, show, change, delete


class ServerList(View, frozen=True, kw_only=True):
    results: tuple[ServerView, ...]
    bookmark: str | None


@endpoint(
    "GET",
    SERVERS,
    function=MANAGE,
    roles=VIEWERS,
    summary="The org's server certificates and requests, the default first",
    query=PAGING,
    answers={200: ServerList},
)
def list_servers(call: MemberCall) -> Reply:
    page = read_page(call.request)
    servers = manage.list_servers(call.context, call.member.org, after=page.after, limit=page.look_ahead)
    results = tuple(server_view(call, server) for server in page.cut(servers))
    return json_reply(ServerList(results=results, bookmark=page.bookmark(servers, results)))


@endpoint(
    "GET",
    f"{SERVERS}/{{id}}",
    function=MANAGE,
    roles=VIEWERS,
    operation_id="get_server_cert",
    summary="One server certificate or request",
    answers={200: ServerView},
    refusals=(errors.NotFound,),
)
def get(call: MemberCall) -> Reply:
    server = manage.get_server(call.context, call.member.org, call.id)
    return json_reply(server_view(call, server), version=server.changed.version)


@endpoint(
    "GET",
    f"{SERVERS}/{{id}}/pem",
    function=MANAGE,
    roles=VIEWERS,
    operation_id="server_pem",
    summary="A server certificate with its chain, as PEM",
    answers={200: PEM_TEXT},
    refusals=(errors.NotFound,),
)
def get_pem(call: MemberCall) -> Reply:
    server = manage.get_server(call.context, call.member.org, call.id)
    if server.leaf is None:
        raise errors.NotFound(what="certificate yet: it is a request")
    return pem_reply(encode_pem(server.leaf, *server.chain), f"{call.id}.pem")


@endpoint(
    "GET",
    f"{SERVERS}/{{id}}/csr",
    function=MANAGE,
    roles=VIEWERS,
    operation_id="server_csr",
    summary="A certificate request as PEM",
    answers={200: PEM_TEXT},
    refusals=(errors.NotFound,),
)
def get_csr(call: MemberCall) -> Reply:
    text = manage.get_server(call.context, call.member.org, call.id).csr_pem
    if text is None:
        raise errors.NotFound(what="request: this certificate was uploaded with its key")
    return pem_reply(text, f"{call.id}.csr.pem")


class ChangeServer(Body, frozen=True, kw_only=True):
    comments: Comments


@endpoint(
    "PUT",
    f"{SERVERS}/{{id}}",
    function=MANAGE,
    roles=OPERATORS,
    operation_id="change_server",
    summary="Describe a server certificate or request",
    body=ChangeServer,
    if_match="required",
    answers={200: ServerView},
    refusals=(errors.NotFound, errors.Stale),
)
def change(call: MemberCall) -> Reply:
    body = read_body(call.request, ChangeServer)
    version = if_match(call.request)
    server = manage.change_server(call.context, call.member, call.id, comments=body.comments, expected_version=version)
    return json_reply(server_view(call, server), version=server.changed.version)


@endpoint(
    "DELETE",
    f"{SERVERS}/{{id}}",
    function=MANAGE,
    roles=OPERATORS,
    operation_id="delete_server",
    summary="Delete a server certificate or request, with its private key",
    if_match="optional",
    answers={204: None},
    refusals=(errors.NotFound, errors.ActiveCertificate, errors.Stale),
)
def delete(call: MemberCall) -> Reply:
    manage.delete_server(call.context, call.member, call.id, expected_version=if_match(call.request, required=False))
    return NO_CONTENT
