"""uploadServerCert: keep a messaging server certificate with its private key."""

from functions import bodies
from functions.endpoint import Call, endpoint
from functions.http import Reply, file_bytes, reply
from functions.views import ServerView, server_view
from shared import errors
from shared.usecases.server_certificates import served_hosts
from shared.usecases.upload_server_cert import upload_server_cert as usecase


@endpoint(
    "Upload a messaging server certificate with its private key",
    {201: ServerView, 200: ServerView},
    body=bodies.UploadServerCert,
    refusals=(errors.TooManyServerCertificates, errors.RateLimited, errors.Rejected),
)
def upload_server_cert(call: Call) -> Reply:
    body = call.request.fields(bodies.UploadServerCert)
    done = usecase(
        call.tools,
        call.member,
        file_bytes(body.certificate, "certificate"),
        chain=file_bytes(body.chain, "chain") if body.chain else None,
        private_key=file_bytes(body.private_key, "privateKey") if body.private_key else None,
        passphrase=body.passphrase,
        comments=body.comments,
    )
    hosts = served_hosts(call.tools, call.member.org, done.shown.leaf)
    view = server_view(done.shown, call.member.org, hosts, done.warnings)
    return reply(view, status=201 if done.created else 200, version=done.shown.changed.version)
