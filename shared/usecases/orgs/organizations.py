"""Organizations, API keys and the platform's default certificate: what the platform's own operator does."""

import secrets
import string
from collections.abc import Collection, Iterator
from typing import Any, Final

import msgspec

from shared.errors import Conflict, NotFound, WrongValue
from shared.records import (
    PLATFORM,
    ActivityKind,
    ApiKey,
    Org,
    Proof,
    Role,
)
from shared.repository import (
    activity_partition,
    api_key_ref,
    ca_index_ref,
    org_ref,
)
from shared.usecases.callers import token_hash
from shared.usecases.context import Context, entry, made
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.edges.withdrawals import WithdrawalKind, withdraw
from shared.usecases.servers.platform_default import PlatformDefault
from shared.validation.names import is_org_id

ADMIN: Final = "admin"
_ALPHABET: Final = string.ascii_letters + string.digits


class OrgExists(Conflict):
    code = "org_exists"
    says = "The organization {org} is here already."
    mend = "Choose another orgId."


def create_org(context: Context, org_id: str) -> Org:
    """A new organization, with the default server certificate active and certificates required.

    Raises: WrongValue, OrgExists."""
    if not is_org_id(org_id):
        raise WrongValue(field="org", found="An orgId has six characters of a-z and 0-9")
    at = context.clock()
    stamp = made(at, ADMIN)

    def alter(before: Org | None) -> Org:
        if before is not None:
            raise OrgExists(org=org_id)
        return Org(
            org_id=org_id,
            created_at=at,
            settings_changed=stamp,
            policy_changed=stamp,
            activation_changed=stamp,
            outbox=(entry(at, ADMIN, "createOrg", org=org_id),),
        )

    org = context.repository.change(org_ref(org_id), alter, org_id=org_id)
    assert org is not None  # noqa: S101 - alter never removes
    HostFeed(context).publish(org_id)
    return org


def list_orgs(context: Context) -> Iterator[Org]:
    return (org for _, org in context.repository.iterate("org", Org))


def get_org(context: Context, org_id: str) -> Org:
    """Raises: NotFound."""
    org = context.repository.get(org_ref(org_id))
    if org is None:
        raise NotFound(what=f"organization {org_id}")
    return org


def set_suspended(context: Context, org_id: str, suspended: bool) -> Org:
    """Suspend an org (its keys and devices are refused from now on), or let it go on. Raises: NotFound."""
    at = context.clock()

    def alter(before: Org | None) -> Org:
        if before is None:
            raise NotFound(what=f"organization {org_id}")
        if before.suspended == suspended:
            return before
        line = entry(at, ADMIN, "suspendOrg" if suspended else "resumeOrg", org=org_id)
        return msgspec.structs.replace(before, suspended=suspended, outbox=(line,))

    org = context.repository.change(org_ref(org_id), alter, org_id=org_id)
    assert org is not None  # noqa: S101 - alter never removes
    HostFeed(context).publish(org_id)
    if suspended:
        withdraw(context, org_id, WithdrawalKind.ORG, org_id)
    return org


def partitions_of(org_id: str) -> list[str]:
    """Where everything lies that belongs to an org, beside the org's own document."""
    return [
        f"key/{org_id}",
        f"ca/{org_id}",
        f"server/{org_id}",
        f"deny/{org_id}",
        f"usage/{org_id}",
        *(activity_partition(org_id, kind) for kind in ActivityKind),
    ]


def delete_org(context: Context, org_id: str) -> None:
    """Remove an org and all that is its own. It is suspended first: from then on nobody is let in, sessions end, and a
    deletion that is cut short can be repeated.

    Raises: NotFound."""
    set_suspended(context, org_id, True)
    context.repository.delete(org_ref(org_id))
    HostFeed(context).publish(org_id)
    for partition in partitions_of(org_id):
        context.repository.delete_partition(partition)
    context.repository.delete(ca_index_ref(org_id))


def create_key(
    context: Context,
    *,
    org_id: str | None,
    role: Role,
    orgs: Collection[str] = (),
    no_sni: bool = False,
    proof: Proof = Proof.CHAIN,
) -> tuple[ApiKey, str]:
    """A new API key and its token, which is told this once and not kept.

    Args:
        org_id: None for a platform key: broker or edge, for all orgs or only for *orgs*.

    Raises: NotFound, WrongValue."""
    if org_id is None:
        if role not in (Role.BROKER, Role.EDGE):
            raise WrongValue(field="role", found="A platform key is for a broker or an edge")
        if no_sni or proof is not Proof.CHAIN:
            raise WrongValue(field="key", found="Only an org's own broker key can be marked no-sni or proof broker")
        for one in orgs:
            get_org(context, one)
    else:
        get_org(context, org_id)
        if orgs:
            raise WrongValue(field="orgs", found="An org's key is for that org alone")
        if role is not Role.BROKER and (no_sni or proof is not Proof.CHAIN):
            raise WrongValue(field="role", found="Only a broker key can be marked no-sni or proof broker")
    name = "".join(secrets.choice(_ALPHABET) for _ in range(10))
    token = secrets.token_urlsafe(32)  # 256 bits
    key = ApiKey(
        key=f"p-{name}" if org_id is None else f"a-{org_id}-{name}",
        role=role,
        token_hash=token_hash(token),
        org_id=org_id,
        orgs=tuple(sorted(orgs)),
        no_sni=no_sni,
        proof=proof,
        created_at=context.clock(),
    )
    context.repository.create(api_key_ref(org_id, key.key), key)
    return key, token


def list_keys(context: Context, org_id: str | None) -> Iterator[ApiKey]:
    return (key for _, key in context.repository.iterate(f"key/{org_id or PLATFORM}", ApiKey))


def revoke_key(context: Context, key: str) -> ApiKey:
    """Refuse *key* from now on. Raises: NotFound."""
    org_id = None if key.startswith("p-") else key[2:8]
    at = context.clock()

    def alter(before: ApiKey | None) -> ApiKey:
        if before is None:
            raise NotFound(what=f"key {key}")
        return before if before.revoked_at else msgspec.structs.replace(before, revoked_at=at)

    revoked = context.repository.change(api_key_ref(org_id, key), alter)
    assert revoked is not None  # noqa: S101 - alter never removes
    return revoked


# ------------------------------------------------------------------------------------------- moving an org's data

_Line = dict[str, Any]


def export_lines(context: Context, org_id: str | None) -> Iterator[_Line]:
    """Every document of an org (or of the whole store), as JSON objects. Private keys stay sealed."""
    orgs = [get_org(context, org_id).org_id] if org_id else [org.org_id for org in list_orgs(context)]
    places = [org_ref(one).key for one in orgs] + [ca_index_ref(one).key for one in orgs]
    partitions = [partition for one in orgs for partition in partitions_of(one)]
    if org_id is None:
        places.append(PlatformDefault.ref.key)
        partitions.append(f"key/{PLATFORM}")
    yield from context.repository.export_documents(places, partitions)


def import_lines(context: Context, lines: Iterator[_Line]) -> tuple[int, int]:
    """Put documents back that `export_lines` gave. What is there already stays. Returns (written, left as they are)."""
    written = kept = 0
    for line in lines:
        if context.repository.import_document(line):
            written += 1
        else:
            kept += 1
    HostFeed(context).sweep()
    return written, kept
