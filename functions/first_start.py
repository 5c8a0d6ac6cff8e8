"""What an empty store needs before anybody can use it: the default certificate, and a first organization to try."""

from dataclasses import dataclass, field

from shared.records import Org, Role
from shared.repository import org_place
from shared.usecases.default_certificate import ensure_default
from shared.usecases.orgs import create_key, create_org
from shared.usecases.tools import Tools

DEMO_ORG = "demo01"


@dataclass(frozen=True)
class Key:
    role: Role
    key: str
    token: str = field(repr=False)


def first_start(tools: Tools) -> list[Key]:
    """Make what is missing. Returns the keys of the first organization, where it was made just now."""
    ensure_default(tools)
    first: list[tuple[str, Org]] = tools.repository.list("org", Org, limit=1)
    if first or tools.repository.get(org_place(DEMO_ORG)) is not None:
        return []
    create_org(tools, DEMO_ORG)
    made = [create_key(tools, org_id=DEMO_ORG, role=role) for role in (Role.OPERATOR, Role.BROKER)]
    return [Key(key.role, key.key, token) for key, token in made]
