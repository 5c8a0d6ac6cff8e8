"""Renewal: a new certificate request on the key of a server certificate.

The only API module that signs with a stored private key; the key itself is never returned.
"""

from functions.api.server_view import ServerView, server_view
from functions.call import OPERATORS, MemberCall, endpoint
from functions.registry import PREFIX
from functions.web.message import Reply, json_reply
from shared import errors
from shared.usecases.servers.renew import renew as renew_certificate


@endpoint(
    "POST",
    PREFIX + "/authentication/servercertificates/{id}/renewal",
    function="manageCertificates",
    roles=OPERATORS,
    summary="A new certificate request on the key of a certificate, which stays as it is",
    answers={201: ServerView},
    refusals=(errors.NotFound, errors.RequestNotFulfilled, errors.TooManyServerCertificates, errors.RateLimited),
)
def renew(call: MemberCall) -> Reply:
    request = renew_certificate(call.context, call.app.sealer, call.member, call.id)
    return json_reply(server_view(call, request), status=201, version=request.changed.version)
