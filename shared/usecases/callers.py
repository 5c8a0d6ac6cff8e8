"""Who is calling: API keys and their roles (docs/api.md, "Who is calling")."""

import hashlib
import hmac
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

from shared.errors import Forbidden, NotAuthenticated, OrgSuspended
from shared.records import ApiKey, Org, Proof, Role
from shared.repository import Place, api_key_place, org_place
from shared.usecases.tools import Tools
from shared.validation.verdict import Asker

_ORG_KEY: Final = re.compile(r"a-([a-z0-9]{6})-[A-Za-z0-9]{10}")
_PLATFORM_KEY: Final = re.compile(r"p-[A-Za-z0-9]{10}")


@dataclass(frozen=True)
class Credentials:
    """What a caller sent with HTTP Basic (RFC 7617): an API key and its token."""

    key: str
    token: str = field(repr=False)

    @property
    def org_id(self) -> str | None:
        """The org an org's key names; None for a platform key, and for what is no key."""
        found = _ORG_KEY.fullmatch(self.key)
        return found[1] if found else None

    @property
    def place(self) -> Place[ApiKey]:
        """Where the key's record lies. Raises: NotAuthenticated, where it is not of a key's form."""
        if self.org_id is None and not _PLATFORM_KEY.fullmatch(self.key):
            raise NotAuthenticated
        return api_key_place(self.org_id, self.key)


@dataclass(frozen=True)
class Caller:
    """A caller that is known, and what it may do."""

    who: str
    role: Role
    org_id: str | None  # None: a platform key
    orgs: Collection[str] = ()
    no_sni: bool = False
    proof: Proof = Proof.CHAIN

    @property
    def asker(self) -> Asker:
        return Asker(self.org_id, self.orgs, self.no_sni)

    def must_be(self, roles: Collection[Role]) -> None:
        """Raises: Forbidden."""
        if self.role not in roles:
            raise Forbidden(role=self.role.value, needed=" or ".join(sorted(role.value for role in roles)))


@dataclass(frozen=True)
class Member:
    """A caller with the organization it belongs to, as read in the same batch as its key."""

    caller: Caller
    org: Org

    @property
    def who(self) -> str:
        return self.caller.who

    @property
    def org_id(self) -> str:
        return self.org.org_id


def token_hash(token: str) -> str:
    """What is kept of a token. Tokens are 256 random bits, so a plain hash cannot be searched."""
    return hashlib.sha256(token.encode()).hexdigest()


def identified(credentials: Credentials, key: ApiKey | None) -> Caller:
    """The caller that *credentials* prove, against the key's record. Raises: NotAuthenticated."""
    known = key.token_hash if key else token_hash("")  # compare in any case: the answer takes as long without a key
    right = hmac.compare_digest(known, token_hash(credentials.token))
    if key is None or not right or key.revoked_at is not None:
        raise NotAuthenticated
    return Caller(key.key, key.role, key.org_id, key.orgs, key.no_sni, key.proof)


def admit(tools: Tools, credentials: Credentials, roles: Collection[Role]) -> Member:
    """The member of an org that *credentials* prove, in one read. Platform keys belong to none.

    Raises: NotAuthenticated, Forbidden, OrgSuspended, StoreUnavailable."""
    key_place = credentials.place
    org_id = credentials.org_id
    places: list[Place[Any]] = [key_place, org_place(org_id)] if org_id else [key_place]
    found = tools.repository.find(places)
    caller = identified(credentials, found.get(key_place))
    caller.must_be(roles)
    org = found.get(org_place(org_id)) if org_id else None
    if org is None:
        raise Forbidden(role=f"{caller.role.value} of the platform", needed="a key of the organization")
    if org.suspended:
        raise OrgSuspended
    return Member(caller, org)
