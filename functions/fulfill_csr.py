"""fulfillCSR: put the signed certificate in the place of its request."""

from functions import bodies
from functions.views import ServerView, server_view
from functions.web.contract import Call, endpoint
from functions.web.http import Reply, file_bytes, reply
from shared import errors
from shared.usecases.servers.requests import fulfill_csr as usecase
from shared.usecases.servers.rules import served_hosts


@endpoint(
    "Replace a certificate request by the certificate a CA issued for it",
    {200: ServerView},
    body=bodies.FulfillCSR,
    refusals=(errors.NotFound, errors.AlreadyFulfilled, errors.Rejected),
)
def fulfill_csr(call: Call) -> Reply:
    body = call.request.fields(bodies.FulfillCSR)
    certificate_id = call.request.params.get("id", body.id)
    if certificate_id is None:
        raise errors.MissingField(field="id", name="id")
    if body.id not in (None, certificate_id):
        raise errors.WrongValue(field="id", found="The id in the body is not the one in the path")
    data = file_bytes(body.certificate, "certificate")
    shown, warnings = usecase(call.context, call.member, certificate_id, data)
    hosts = served_hosts(call.context, call.member.org, shown.leaf)
    return reply(server_view(shown, call.member.org, hosts, warnings), version=shown.changed.version)
