"""uploadServerCert: keep a messaging server certificate with its private key."""

from functions import bodies
from functions.views import ServerView, server_view
from functions.web.contract import Call, endpoint
from functions.web.http import Reply, file_bytes, reply
from shared import errors
from shared.usecases.servers.rules import served_hosts
from shared.usecases.servers.upload import upload_server_cert as usecase


@endpoint(
    "Upload a messaging server certificate with its private key",
    {201: ServerView, 200: ServerView},
    body=bodies.UploadServerCert,
    refusals=(errors.TooManyServerCertificates, errors.RateLimited, errors.Rejected),
)
def upload_server_cert(call: Call) -> Reply:
    body = call.request.fields(bodies.UploadServerCert)
    done = usecase(
        call.context,
        call.app.sealer,
        call.member,
        file_bytes(body.certificate, "certificate"),
        chain=file_bytes(body.chain, "chain") if body.chain else None,
        private_key=file_bytes(body.private_key, "privateKey") if body.private_key else None,
        passphrase=body.passphrase,
        comments=body.comments,
    )
    hosts = served_hosts(call.context, call.member.org, done.parsed.leaf)
    view = server_view(done.parsed, call.member.org, hosts, done.warnings)
    return reply(view, status=201 if done.is_created else 200, version=done.parsed.changed.version)
