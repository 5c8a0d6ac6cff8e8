"""Who is calling: API keys and their roles, and people who signed in at the OIDC issuer."""

import hashlib
import hmac
import re
from collections.abc import Collection
from functools import cached_property
from typing import Any, Final

import msgspec

from shared.errors import Forbidden, NotAuthenticated, OrgSuspended, RoleNotGranted
from shared.ports import TokenVerifier
from shared.records import ApiKey, Org, Proof, Role
from shared.repository import Batch, Ref, api_key_ref, org_ref
from shared.usecases.context import Context
from shared.validation.names import is_org_id
from shared.validation.verdict import Scope

_ORG_KEY: Final = re.compile(r"a-([a-z0-9]{6})-[A-Za-z0-9]{10}")
_PLATFORM_KEY: Final = r"p-[A-Za-z0-9]{10}"
_SIGN_IN_ROLES: Final = (Role.VIEWER.value, Role.OPERATOR.value)  # brokers and edges are machines: they have keys


class Credentials(msgspec.Struct, frozen=True, dict=True):
    """What a caller sent with HTTP Basic (RFC 7617): an API key and its token."""

    key: str
    token: str

    def __repr__(self) -> str:
        """Without the token."""
        return f"Credentials({self.key})"

    @cached_property
    def org_id(self) -> str | None:
        """The org an org's key names; None for a platform key, and for what is no key."""
        found = _ORG_KEY.fullmatch(self.key)
        return found[1] if found else None

    @property
    def places(self) -> list[Ref[Any]]:
        """What is to be read to prove them. Raises: NotAuthenticated."""
        return [self.place]

    @cached_property
    def place(self) -> Ref[ApiKey]:
        """Where the key's record lies. Raises: NotAuthenticated, where it is not of a key's form."""
        if self.org_id is None and not re.fullmatch(_PLATFORM_KEY, self.key):
            raise NotAuthenticated
        return api_key_ref(self.org_id, self.key)


class BearerToken(msgspec.Struct, frozen=True):
    """What a caller sent with the Bearer scheme (RFC 6750): a token of the OIDC issuer, not believed yet."""

    token: str

    def __repr__(self) -> str:
        """Without the token."""
        return "BearerToken()"


class Caller(msgspec.Struct, frozen=True, dict=True):
    """A caller that is known, and what it may do."""

    who: str
    role: Role
    org_id: str | None  # None: a platform key
    orgs: Collection[str] = ()
    no_sni: bool = False
    proof: Proof = Proof.CHAIN

    @property
    def places(self) -> list[Ref[Any]]:
        """Nothing more is to be read to prove it."""
        return []

    @cached_property
    def asker(self) -> Scope:
        return Scope(self.org_id, self.orgs, self.no_sni)

    def must_be(self, roles: Collection[Role]) -> None:
        """Raises: Forbidden."""
        if self.role not in roles:
            raise Forbidden(role=self.role.value, needed=" or ".join(sorted(role.value for role in roles)))


class Member(msgspec.Struct, frozen=True):
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


def claimed(tokens: TokenVerifier | None, sent: Credentials | BearerToken) -> Credentials | Caller:
    """Who *sent* claims to be, with the org to read: a token is believed by its signature here and now, an API key by
    its record, which `proven` looks at.

    Raises: NotAuthenticated, RoleNotGranted, IssuerUnavailable."""
    if isinstance(sent, Credentials):
        return sent
    if tokens is None:
        raise NotAuthenticated
    claims = tokens.verify(sent.token)
    if claims.org_id is None or not is_org_id(claims.org_id):
        raise RoleNotGranted(found="no organization, or several")
    if claims.role not in _SIGN_IN_ROLES:
        raise RoleNotGranted(found=f"the role {_short(claims.role)}" if claims.role else "no role, or several")
    return Caller(f"oidc:{claims.subject}", Role(claims.role), claims.org_id)


def _short(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text[:32])


def proven(claim: Credentials | Caller, found: Batch) -> Caller:
    """The caller that *claim* is, by what its `places` held. Raises: NotAuthenticated."""
    return claim if isinstance(claim, Caller) else identified(claim, found.get(claim.place))


def admit(
    context: Context, tokens: TokenVerifier | None, sent: Credentials | BearerToken, roles: Collection[Role]
) -> Member:
    """The member of an org that *sent* proves, in one read. Platform keys belong to none.

    Raises: NotAuthenticated, Forbidden, OrgSuspended, StoreUnavailable, IssuerUnavailable."""
    claim = claimed(tokens, sent)
    org_id = claim.org_id
    places: list[Ref[Any]] = [*claim.places, org_ref(org_id)] if org_id else claim.places
    found = context.repository.read_batch(places)
    caller = proven(claim, found)
    caller.must_be(roles)
    org = found.get(org_ref(org_id)) if org_id else None
    if org is None and isinstance(sent, BearerToken):
        raise RoleNotGranted(found="an organization that is not here")
    if org is None:
        raise Forbidden(role=f"{caller.role.value} of the platform", needed="a key of the organization")
    if org.suspended:
        raise OrgSuspended
    return Member(caller, org)
