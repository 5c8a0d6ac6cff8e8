"""activityLog: what happened; and who is signed in."""

from functions import views
from functions.web.contract import PAGING, Call, endpoint
from functions.web.http import Reply, page, reply
from shared import errors
from shared.records import ActivityKind
from shared.usecases.activity import list_activity as usecase
from shared.validation.names import messaging_host

_KINDS = ", ".join(kind.value for kind in ActivityKind)


@endpoint(
    "What happened, newest first",
    {200: views.ActivityList},
    query={**PAGING, "kind": f"one or more of {_KINDS}, with commas between; all where not given"},
)
def list_activity(call: Call) -> Reply:
    limit, after = page(call.request)
    repository = call.context.repository
    found = usecase(repository, call.member.org_id, _kinds(call), after=after, limit=limit + 1)
    results = tuple(map(views.activity_view, found[:limit]))
    return reply(views.ActivityList(results=results, bookmark=results[-1].id if len(found) > limit else None))


def _kinds(call: Call) -> list[ActivityKind]:
    names = call.request.query.get("kind", "").split(",")
    try:
        return [ActivityKind(name) for name in dict.fromkeys(names) if name] or list(ActivityKind)
    except ValueError:
        raise errors.WrongValue(field="kind", found=f"kind takes {_KINDS}") from None


@endpoint("Who is signed in", {200: views.SessionView})
def session(call: Call) -> Reply:
    member = call.member
    view = views.SessionView(
        org=member.org_id,
        role=member.caller.role.value,
        messaging_host=messaging_host(member.org_id, call.context.platform_domain),
        key=member.who,
    )
    return reply(view)


@endpoint("Where to sign in, if an OIDC issuer is configured", {200: views.SignInView})
def sign_in(call: Call) -> Reply:
    where = call.app.settings.oidc
    if where is None or where.client_id is None:
        return reply(views.SignInView())
    return reply(views.SignInView(issuer=where.issuer, client_id=where.client_id, audience=where.audience))
