"""uploadCA: register a CA certificate."""

from functions import bodies
from functions.views import CAView, ca_view
from functions.web.contract import Call, endpoint
from functions.web.http import Reply, file_bytes, reply
from shared import errors
from shared.usecases.cas import manage as usecase
from shared.usecases.devices.usage import read_recent_usage


@endpoint(
    "Register a CA certificate whose devices are trusted; it is active at once",
    {201: CAView, 200: CAView},
    body=bodies.UploadCA,
    refusals=(errors.TooManyCAs, errors.TooManyCAsOfOneName, errors.RateLimited, errors.Rejected),
)
def upload_ca(call: Call) -> Reply:
    body = call.request.fields(bodies.UploadCA)
    data = file_bytes(body.certificate, "certificate")
    done = usecase.upload_ca(call.context, call.member, data, comments=body.comments)
    seen = read_recent_usage(call.context.repository, call.member.org_id, call.context.clock())
    view = ca_view(done.id, done.ca, seen, done.warnings)
    return reply(view, status=201 if done.created else 200, version=done.ca.changed.version)
