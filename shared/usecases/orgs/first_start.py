"""Prepare an empty store: the default server certificate, and a first organization with two API keys."""

from dataclasses import dataclass, field

from shared.ports import KeySealer
from shared.records import Org, Role
from shared.refs import org_ref
from shared.usecases.context import Context
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

    The list is empty where the store has an organization already."""
    ensure_default(context, sealer)
    first: list[tuple[str, Org]] = context.repository.list("org", Org, limit=1)
    if first or context.repository.get(org_ref(DEMO_ORG)) is not None:
        return []
    create_org(context, DEMO_ORG)
    keys = [create_key(context, org_id=DEMO_ORG, role=role) for role in (Role.OPERATOR, Role.BROKER)]
    return [FirstKey(key.role, key.key, token) for key, token in keys]
