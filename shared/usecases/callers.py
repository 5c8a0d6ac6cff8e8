"""Authentication of callers: API keys with their roles, and people who signed in at the OIDC issuer."""

import hashlib
import hmac
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, Final

import msgspec

from shared.batch import Batch
from shared.connection_records import CallFailure
from shared.errors import Forbidden, NotAuthenticated, OrgGone, OrgSuspended, RoleNotGranted, TokenRefused
from shared.ports import TokenVerifier
from shared.records import PLATFORM, ApiKey, Org, Proof, Role
from shared.refs import Ref, api_key_ref, org_ref
from shared.text import printable
from shared.usecases.context import Context
from shared.validation.facts import Scope
from shared.validation.names import is_org_id

_ORG_KEY: Final = re.compile(r"a-([a-z0-9]{6})-[A-Za-z0-9]{10}")
_PLATFORM_KEY: Final = r"p-[A-Za-z0-9]{10}"
MACHINES: Final = (Role.BROKER, Role.EDGE)
"""The roles of callers that are no persons."""

_SIGN_IN_ROLES: Final = (Role.VIEWER.value, Role.OPERATOR.value)  # brokers and edges are machines: they have keys
_PERSON: Final = "oidc:"  # before the subject of a sign-in token
_ROLE_MAX: Final = 32  # characters of a token's role in a refusal


class Credentials(msgspec.Struct, frozen=True, dict=True):
    """The API key and token that a caller sent with HTTP Basic (RFC 7617), not verified yet."""

    key: str
    token: str

    def __repr__(self) -> str:
        """Return a text without the token."""
        return f"Credentials({self.key})"

    @cached_property
    def org_id(self) -> str | None:
        """The organization that the key's name carries; None for a platform key, and for a malformed name."""
        match = _ORG_KEY.fullmatch(self.key)
        return match[1] if match else None

    @cached_property
    def token_hash(self) -> str:
        """The stored form of the token."""
        return token_hash(self.token)

    @property
    def refs(self) -> list[Ref[Any]]:
        """The records that `authenticate` needs: of an organization's key, the organization too.

        Raises: NotAuthenticated."""
        return [self.ref, *_org_refs(self.org_id)]

    @cached_property
    def ref(self) -> Ref[ApiKey]:
        """The key's record. Raises: NotAuthenticated, where the key's name is malformed."""
        if self.org_id is None and not re.fullmatch(_PLATFORM_KEY, self.key):
            raise NotAuthenticated
        return api_key_ref(self.org_id, self.key)


class BearerToken(msgspec.Struct, frozen=True):
    """The token of the OIDC issuer that a caller sent with the Bearer scheme (RFC 6750), not verified yet."""

    token: str

    def __repr__(self) -> str:
        """Return a text without the token."""
        return "BearerToken()"


class Caller(msgspec.Struct, frozen=True, dict=True):
    """An authenticated caller and its rights.

    Args:
        org_id: None for a platform key; *orgs* then has its organizations with their incarnations (empty: all).
        no_sni: whether the caller's broker cannot pass the server name.
        proof: what a verdict for this caller rests on.
        incarnation: of *org_id*.
        issued_at: when the issuer made the caller's sign-in token; None for a key, and for a token that does not say.
        listener: the broker's listener from which names are proven (`ApiKey`).
    """

    who: str
    role: Role
    org_id: str | None
    orgs: Mapping[str, str] = msgspec.field(default_factory=dict)
    no_sni: bool = False
    proof: Proof = Proof.CHAIN
    incarnation: str = ""
    issued_at: datetime | None = None
    listener: str | None = None

    @property
    def refs(self) -> list[Ref[Any]]:
        """The records that `authenticate` needs: the organization of a sign-in token."""
        return _org_refs(self.org_id)

    @cached_property
    def scope(self) -> Scope:
        """The organizations that the caller may ask about."""
        return Scope(self.org_id, self.orgs, self.no_sni, self.incarnation)

    def must_be(self, roles: Collection[Role]) -> None:
        """Refuse a caller that has none of *roles*. Raises: Forbidden."""
        if self.role not in roles:
            raise Forbidden(role=self.role.value, needed=" or ".join(sorted(role.value for role in roles)))


class Member(msgspec.Struct, frozen=True):
    """A caller with its organization, read in the same batch as the caller's key."""

    caller: Caller
    org: Org

    @property
    def who(self) -> str:
        return self.caller.who

    @property
    def org_id(self) -> str:
        return self.org.org_id


def token_hash(token: str) -> str:
    """Return the stored form of a token.

    A token has 256 random bits, so a hash without salt is safe."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_claim(tokens: TokenVerifier | None, sent: Credentials | BearerToken) -> Credentials | Caller:
    """Return who *sent* claims to be, which names the organization to read.

    The signature of a sign-in token authenticates its caller at once. An API key stays a claim until `authenticate` has
    its record.

    Raises: NotAuthenticated, RoleNotGranted, IssuerUnavailable."""
    if isinstance(sent, Credentials):
        return sent
    if tokens is None:
        raise NotAuthenticated
    claims = tokens.verify(sent.token)
    if claims.org_id is None or not is_org_id(claims.org_id):
        raise RoleNotGranted(found="no organization, or several")
    if claims.role not in _SIGN_IN_ROLES:
        raise RoleNotGranted(
            found=f"the role {printable(claims.role, _ROLE_MAX)}" if claims.role else "no role, or several"
        )
    return Caller(f"{_PERSON}{claims.subject}", Role(claims.role), claims.org_id, issued_at=claims.issued_at)


def label_key(name: str) -> str:
    """Return what an organization sees of the name of an API key.

    Of a platform key the organization sees a label: the key serves other organizations, and a caller with the name
    could make the log of the platform report refused calls."""
    if not re.fullmatch(_PLATFORM_KEY, name):
        return name
    return f"platform:{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def scope_of(key: ApiKey) -> Scope:
    """Return the organizations that a caller with *key* may ask about."""
    return Scope(key.org_id, _orgs_of(key), key.no_sni, key.incarnation)


def _orgs_of(key: ApiKey) -> Mapping[str, str]:
    return {org_id: key.incarnations.get(org_id, "") for org_id in key.orgs}


def authenticate(claim: Credentials | Caller, batch: Batch) -> Caller:
    """Return the caller of *claim*; *batch* holds the records at `claim.refs`.

    The key of an organization counts for the incarnation that it was made for, also while that one is being deleted.

    Raises: NotAuthenticated, TokenRefused."""
    org = batch.get(org_ref(claim.org_id)) if claim.org_id is not None else None
    if isinstance(claim, Caller):
        return _bind_token(claim, org)
    key = batch.get(claim.ref)
    expected = key.token_hash if key else token_hash("")  # compared in any case: the answer takes as long without a key
    is_equal = hmac.compare_digest(expected, claim.token_hash)
    if key is None or not is_equal or key.revoked_at is not None:
        raise NotAuthenticated
    if claim.org_id is not None and not _has_key(org, key):
        raise NotAuthenticated
    orgs = _orgs_of(key)
    return Caller(
        key.key,
        key.role,
        key.org_id,
        orgs,
        key.no_sni,
        key.proof,
        incarnation=key.incarnation,
        listener=key.listener,
    )


def admit_caller(
    context: Context, claim: Credentials | Caller, batch: Batch, roles: Collection[Role], *, dialect: str = ""
) -> Caller:
    """Return the caller of *claim* if the caller has one of *roles*; *batch* holds the records at `claim.refs`.

    A refused call with a key that exists is counted (`Context.call_counter`), where the called function is for brokers
    or edges alone.

    Args:
        dialect: the format in which a broker asks.

    Raises: NotAuthenticated, TokenRefused, Forbidden."""
    try:
        caller = authenticate(claim, batch)
    except NotAuthenticated:
        if isinstance(claim, Credentials):
            _note_refused_key(context, claim, batch, roles, dialect)
        raise
    try:
        caller.must_be(roles)
    except Forbidden:
        if not caller.who.startswith(_PERSON):
            _note(context, caller.org_id, caller.who, CallFailure.ROLE, roles, dialect, caller.incarnation)
        raise
    return caller


def _note_refused_key(
    context: Context, claim: Credentials, batch: Batch, roles: Collection[Role], dialect: str
) -> None:
    """Count a refused call with a key of an organization that exists, or of the platform."""
    key = batch.get(claim.ref)
    org = batch.get(org_ref(claim.org_id)) if claim.org_id is not None else None
    if key is None or (claim.org_id is not None and not _has_key(org, key)):
        return
    is_token = hmac.compare_digest(key.token_hash, claim.token_hash)
    # Organizations see refused calls with a platform key that has the right token only. See `CallCounter`.
    is_revoked = key.revoked_at is not None and (is_token or key.org_id is not None)
    failure = CallFailure.REVOKED if is_revoked else CallFailure.TOKEN
    _note(context, key.org_id, key.key, failure, roles, dialect, key.incarnation)


def _note(
    context: Context,
    org_id: str | None,
    key: str,
    failure: CallFailure,
    roles: Collection[Role],
    dialect: str,
    incarnation: str,
) -> None:
    if set(roles) <= set(MACHINES):
        needed = next(role for role in MACHINES if role in roles)
        context.call_counter.note_refused(
            org_id or PLATFORM, key, failure, needed=needed, dialect=dialect, incarnation=incarnation
        )


def _has_key(org: Org | None, key: ApiKey) -> bool:
    """Return whether *org* is the organization that *key* was made for, and not deleted completely."""
    is_same = org is not None and org.incarnation == key.incarnation
    return org is not None and is_same and (org.deletion is None or org.deletion.ended_at is None)


def _bind_token(caller: Caller, org: Org | None) -> Caller:
    """Return the caller of a sign-in token, for the incarnation of *org*.

    A token names an id. A token that was made before the id was created again means the organization before.

    Raises: TokenRefused."""
    if org is None:
        return caller
    if org.incarnation and (caller.issued_at is None or caller.issued_at < org.created_at):
        raise TokenRefused(found="it is older than the organization")
    return msgspec.structs.replace(caller, incarnation=org.incarnation)


def _org_refs(org_id: str | None) -> list[Ref[Any]]:
    return [] if org_id is None else [org_ref(org_id)]


def identify(
    context: Context, tokens: TokenVerifier | None, sent: Credentials | BearerToken, roles: Collection[Role]
) -> Caller:
    """Return the caller that *sent* authenticates, for work that must not begin before. Takes one read for an API key.

    Raises: NotAuthenticated, Forbidden, RoleNotGranted, StoreUnavailable, IssuerUnavailable."""
    claim = read_claim(tokens, sent)
    return admit_caller(context, claim, context.repository.read_batch(claim.refs), roles)


def admit(
    context: Context, tokens: TokenVerifier | None, sent: Credentials | BearerToken, roles: Collection[Role]
) -> Member:
    """Return the member of an organization that *sent* authenticates, in one read. Platform keys are refused.

    Raises: NotAuthenticated, Forbidden, OrgGone, OrgSuspended, StoreUnavailable, IssuerUnavailable."""
    claim = read_claim(tokens, sent)
    batch = context.repository.read_batch(claim.refs)
    caller = admit_caller(context, claim, batch, roles)
    org = batch.get(org_ref(claim.org_id)) if claim.org_id is not None else None
    if (org is None or org.deletion is not None) and isinstance(sent, BearerToken):
        raise RoleNotGranted(found="an organization that is not here")
    if org is None:
        raise Forbidden(role=f"{caller.role.value} of the platform", needed="a key of the organization")
    if org.deletion is not None:
        raise OrgGone(org=org.org_id)
    if org.suspended:
        raise OrgSuspended
    return Member(caller, org)
