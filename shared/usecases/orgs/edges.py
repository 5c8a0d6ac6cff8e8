"""The TLS edges that serve an organization, and when each asked last."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from shared.records import Org, Role
from shared.usecases.callers import label_key, scope_of
from shared.usecases.context import Context
from shared.usecases.organization import iterate_organizations
from shared.usecases.orgs.api_keys import list_keys


class ListedEdge(msgspec.Struct, frozen=True):
    """An edge that may serve an organization.

    Args:
        label: what the edge calls itself, marked as an edge's own word; None where it gave no name.
        key: the name of the edge's key; of a platform key, a label.
        asked_at: when the edge asked last; None: not within the last month.
        silent: whether the edge asked before and has stopped.
        revoked: whether the key is revoked, so that the edge is refused.
    """

    label: str | None
    key: str
    asked_at: datetime | None
    silent: bool
    revoked: bool


def list_edges(context: Context, org: Org) -> Sequence[ListedEdge]:
    """Return the edges with a key that may serve *org*, the organization's own first.

    Silent edges are logged. A revoked key is listed as long as its edge asked within the last month.

    Raises: StoreUnavailable.
    """
    edges: list[ListedEdge] = []
    for owner in (org.org_id, None):
        context.heartbeats.warn_of_silent(owner)
        contacts = context.heartbeats.list_contacts(owner)
        for key in list_keys(context, owner):
            if key.role is Role.EDGE and scope_of(key).may_ask_about(org.org_id, org.incarnation):
                own = [contact for contact in contacts if contact.key == key.key]
                is_revoked = key.revoked_at is not None
                edges += [
                    ListedEdge(
                        contact.label if contact.name else None,
                        label_key(key.key),
                        contact.asked_at,
                        context.heartbeats.is_silent(contact),
                        is_revoked,
                    )
                    for contact in own
                ]
                if not own and not is_revoked:
                    edges.append(ListedEdge(None, label_key(key.key), None, silent=False, revoked=False))
    return edges


def warn_of_silent_edges(context: Context) -> int:
    """Log a WARNING about each edge that has stopped asking. Return their number.

    Raises: StoreUnavailable.
    """
    org_ids = [org.org_id for org in iterate_organizations(context.repository)]
    return sum(context.heartbeats.warn_of_silent(owner) for owner in (None, *org_ids))
