"""activateServerCert: choose the server certificate that devices are shown, and see which one it is."""

from functions import bodies
from functions.views import ActivationView, ActiveView, warned
from functions.web.contract import Call, endpoint
from functions.web.http import Reply, if_match, reply
from shared import errors
from shared.usecases.servers import activate as usecase


@endpoint(
    "Choose the active server certificate; with dryrun=true, the preflight",
    {200: ActivationView},
    body=bodies.ActivateServerCert,
    query={"dryrun": "true: only tell what it would mean"},
    if_match="optional",
    refusals=(errors.NotFound, errors.RequestNotFulfilled, errors.Stale, errors.Rejected),
)
def activate_server_cert(call: Call) -> Reply:
    body = call.request.fields(bodies.ActivateServerCert)
    done = usecase.activate_server_cert(
        call.context,
        call.member,
        body.id,
        expected_version=if_match(call.request, required=False),
        dry_run=call.request.flag("dryrun"),
    )
    view = ActivationView(
        active=done.activation.active,
        previous=done.activation.previous,
        activated_at=done.activation.activated_at,
        version=done.version,
        hosts=tuple(done.hosts),
        not_after=done.not_after,
        chain_complete=done.chain_complete,
        warnings=warned(done.warnings),
    )
    return reply(view, version=done.version)


@endpoint("Which server certificate is active, and which one was before it", {200: ActiveView})
def active_server_cert(call: Call) -> Reply:
    activation, version = usecase.get_activation(call.member.org)
    view = ActiveView(
        active=activation.active,
        previous=activation.previous,
        activated_at=activation.activated_at,
        version=version,
    )
    return reply(view, version=version)
