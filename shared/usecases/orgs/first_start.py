"""Prepare an empty store: the default server certificate, and a first organization with two API keys."""

from dataclasses import dataclass, field

from shared.ports import KeySealer
from shared.records import Role
from shared.usecases.context import Context
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.organization import OrgDocuments
from shared.usecases.orgs.api_keys import create_key
from shared.usecases.orgs.default_certificate import ensure_default
from shared.usecases.orgs.organizations import create_org

DEMO_ORG = "demo01"


@dataclass(frozen=True)
class FirstKey:
    """An API key with its token, to be shown once."""

    role: Role
    key: str
    token: str = field(repr=False)


def first_start(context: Context, sealer: KeySealer) -> list[FirstKey]:
    """Create what an empty store lacks and return the keys of the first organization.

    The list is empty where the store has an organization already, or had one: an operator who deleted every
    organization does not expect a new one with new keys."""
    ensure_default(context, sealer)
    has_orgs = bool(OrgDocuments(context.repository).list(after="", limit=1))  # tombstones among them
    if has_orgs or HostFeed(context).head().number:  # version 0.1.0 left no tombstones, but changes in the feed
        return []
    create_org(context, DEMO_ORG)
    keys = [create_key(context, org_id=DEMO_ORG, role=role) for role in (Role.OPERATOR, Role.BROKER)]
    return [FirstKey(key.role, key.key, token) for key, token in keys]
