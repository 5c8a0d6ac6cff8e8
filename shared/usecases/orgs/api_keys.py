"""API keys of organizations and of the platform."""

import re
import secrets
import string
from collections.abc import Collection, Iterator
from typing import Final

import msgspec

from shared.errors import WrongValue
from shared.records import ApiKey, Proof, Role
from shared.refs import api_key_partition, api_key_ref
from shared.usecases.callers import token_hash
from shared.usecases.context import Context
from shared.usecases.organization import get_organization
from shared.validation.verdict_by_name import NO_LISTENER

_LISTENER: Final = r"[A-Za-z0-9_.:/-]{1,64}"
_ALPHABET: Final = string.ascii_letters + string.digits


def create_key(
    context: Context,
    *,
    org_id: str | None,
    role: Role,
    orgs: Collection[str] = (),
    no_sni: bool = False,
    proof: Proof = Proof.CHAIN,
    listener: str = NO_LISTENER,
) -> tuple[ApiKey, str]:
    """Create an API key. Return the key and its token, which is not stored and cannot be read again.

    Args:
        org_id: None for a platform key: a broker or an edge, for all organizations or only for *orgs*.
        listener: the broker's listener whose names *proof* `broker` proves, as the broker names it.

    Raises: NotFound, WrongValue."""
    org = None if org_id is None else get_organization(context.repository, org_id)
    _check_kind(org_id, role, orgs, is_special=no_sni or proof is not Proof.CHAIN)
    _check_listener(proof, listener)
    incarnations = {name: get_organization(context.repository, name).incarnation for name in orgs}
    name = "".join(secrets.choice(_ALPHABET) for _ in range(10))
    token = secrets.token_urlsafe(32)  # 256 bits
    key = ApiKey(
        key=f"p-{name}" if org_id is None else f"a-{org_id}-{name}",
        role=role,
        token_hash=token_hash(token),
        org_id=org_id,
        orgs=tuple(sorted(orgs)),
        incarnations={name: incarnation for name, incarnation in incarnations.items() if incarnation},
        no_sni=no_sni,
        proof=proof,
        listener=listener if proof is Proof.BROKER else None,
        created_at=context.clock(),
    )
    records = context.repository if org is None else context.of(org)
    records.create(api_key_ref(org_id, key.key), key)
    return key, token


def _check_kind(org_id: str | None, role: Role, orgs: Collection[str], *, is_special: bool) -> None:
    """Refuse a combination of role and restrictions that a key cannot have. Raises: WrongValue."""
    if org_id is None:
        if role not in (Role.BROKER, Role.EDGE):
            raise WrongValue(field="role", found="A platform key is for a broker or an edge")
        if is_special:
            raise WrongValue(field="key", found="Only an org's own broker key can be marked no-sni or proof broker")
    elif orgs:
        raise WrongValue(field="orgs", found="An org's key is for that org alone")
    elif role is not Role.BROKER and is_special:
        raise WrongValue(field="role", found="Only a broker key can be marked no-sni or proof broker")


def _check_listener(proof: Proof, listener: str) -> None:
    """Refuse the name of a listener that a key cannot have. Raises: WrongValue."""
    if listener and proof is not Proof.BROKER:
        raise WrongValue(field="listener", found="Only a key with proof broker names a listener")
    if listener and not re.fullmatch(_LISTENER, listener):
        raise WrongValue(field="listener", found="A listener has 1 to 64 characters of A-Z a-z 0-9 - _ . : /")


def list_keys(context: Context, org_id: str | None) -> Iterator[ApiKey]:
    """Yield the keys of an organization, or of the platform, ordered by name. Raises: NotFound."""
    records = context.repository if org_id is None else context.of(get_organization(context.repository, org_id))
    return (key for _, key in records.iterate(api_key_partition(org_id), ApiKey))


def revoke_key(context: Context, name: str) -> ApiKey:
    """Refuse the key *name* from now on. Raises: NotFound."""
    org_id = None if name.startswith("p-") else name[2:8]
    records = context.repository if org_id is None else context.of(get_organization(context.repository, org_id))
    at = context.clock()
    for attempt in records.changing_existing(api_key_ref(org_id, name), f"key {name}"):
        with attempt as key:
            if key.revoked_at is None:
                key = msgspec.structs.replace(key, revoked_at=at)
                attempt.write(key)
    return key
