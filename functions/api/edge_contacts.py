"""The TLS edges that serve an organization: for its viewers and operators."""

from datetime import datetime

from functions.call import VIEWERS, MemberCall, endpoint
from functions.registry import PREFIX
from functions.web.contract import View
from functions.web.message import Reply, json_reply
from shared.usecases.orgs.edges import ListedEdge
from shared.usecases.orgs.edges import list_edges as read_edges


class EdgeView(View, frozen=True, kw_only=True):
    """An edge with a key that may serve the organization. *edge*: what the edge calls itself, after `edge:`; null: it
    gives no name. *askedAt*: null: not within the last month. *silent*: it asked before, and has not for 60 s."""

    edge: str | None
    key: str
    asked_at: datetime | None
    silent: bool
    revoked: bool


class EdgeList(View, frozen=True, kw_only=True):
    results: tuple[EdgeView, ...]


@endpoint(
    "GET",
    PREFIX + "/edges",
    function="activityLog",
    roles=VIEWERS,
    summary="The TLS edges that serve the org, and when each asked last",
    answers={200: EdgeList},
)
def list_edges(call: MemberCall) -> Reply:
    return json_reply(EdgeList(results=tuple(map(_view, read_edges(call.context, call.member.org)))))


def _view(edge: ListedEdge) -> EdgeView:
    return EdgeView(edge=edge.label, key=edge.key, asked_at=edge.asked_at, silent=edge.silent, revoked=edge.revoked)
