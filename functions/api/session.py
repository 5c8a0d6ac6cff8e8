"""Who is signed in, and where people sign in."""

from functions.call import VIEWERS, Call, MemberCall, endpoint, open_endpoint
from functions.registry import PREFIX
from functions.web.contract import View
from functions.web.message import Reply, json_reply
from shared.validation.names import messaging_host
from shared.version import VERSION


class SessionView(View, frozen=True, kw_only=True):
    """Who is signed in."""

    org: str
    role: str
    messaging_host: str
    key: str
    version: str  # of the service


@endpoint(
    "GET",
    PREFIX + "/session",
    function="activityLog",
    roles=VIEWERS,
    summary="Who is signed in",
    answers={200: SessionView},
)
def session(call: MemberCall) -> Reply:
    member = call.member
    view = SessionView(
        org=member.org_id,
        role=member.caller.role.value,
        messaging_host=messaging_host(member.org_id, call.context.platform_domain),
        key=member.who,
        version=VERSION,
    )
    return json_reply(view)


class SignInView(View, frozen=True, kw_only=True, omit_defaults=True):
    """The OIDC issuer to sign in with, where one is configured."""

    issuer: str | None = None
    client_id: str | None = None
    audience: str | None = None


@open_endpoint(
    "GET",
    "/signin",
    function="activityLog",
    summary="Where to sign in, if an OIDC issuer is configured",
    answers={200: SignInView},
)
def sign_in(call: Call) -> Reply:
    oidc = call.app.settings.oidc
    if oidc is None or oidc.client_id is None:
        return json_reply(SignInView())
    return json_reply(SignInView(issuer=oidc.issuer, client_id=oidc.client_id, audience=oidc.audience))
