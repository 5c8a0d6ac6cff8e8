"""generateCSR: make a key pair here and a request that a CA can sign."""

from functions import bodies
from functions.views import ServerView, server_view
from functions.web.contract import Call, endpoint
from functions.web.http import Reply, reply
from shared import errors
from shared.usecases.servers.requests import Subject
from shared.usecases.servers.requests import generate_csr as usecase


@endpoint(
    "Make a key pair and a certificate request for one of the org's hosts",
    {201: ServerView},
    body=bodies.GenerateCSR,
    refusals=(errors.TooManyServerCertificates, errors.RateLimited, errors.InvalidSubject, errors.NotAHost),
)
def generate_csr(call: Call) -> Reply:
    body = call.request.fields(bodies.GenerateCSR)
    subject = Subject(
        common_name=body.common_name,
        organization=body.organization,
        organizational_unit=body.organizational_unit,
        locality=body.locality,
        state=body.state,
        country=body.country,
        email_address=body.email_address,
    )
    made = usecase(
        call.context, call.app.sealer, call.member, subject, algorithm=body.key_algorithm, comments=body.comments
    )
    return reply(server_view(made, call.member.org, ()), status=201, version=made.changed.version)
