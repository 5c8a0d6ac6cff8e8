"""Create, suspend and delete organizations."""

from collections.abc import Iterator
from typing import Final

import msgspec

from shared.errors import Conflict, WrongValue
from shared.ports import Key
from shared.records import ActivityKind, Org
from shared.refs import activity_partition, deny_count_partition
from shared.usecases.cas.documents import CACertificates
from shared.usecases.context import Context, make_entry, make_revision
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.edges.withdrawals import WithdrawalKind, make_withdrawal, publish_waiting
from shared.usecases.organization import Organization, iterate_organizations
from shared.validation.names import is_org_id

ADMIN: Final = "admin"


class OrgExists(Conflict):
    """The orgId of a new organization is taken."""

    code = "org_exists"
    says = "The organization {org} is here already."
    mend = "Choose another orgId."


def create_org(context: Context, org_id: str) -> Org:
    """Create an organization. The default server certificate is active in it, and certificates are required.

    Raises: WrongValue, OrgExists."""
    if not is_org_id(org_id):
        raise WrongValue(field="org", found="An orgId has six characters of a-z and 0-9")
    at = context.clock()
    stamp = make_revision(at, ADMIN)
    org = Org(
        org_id=org_id,
        created_at=at,
        settings_changed=stamp,
        policy_changed=stamp,
        activation_changed=stamp,
        outbox=(make_entry(at, ADMIN, "createOrg", org=org_id),),
    )
    if not Organization(context.repository, org_id).create(org):
        raise OrgExists(org=org_id)
    HostFeed(context).publish(org_id)
    return org


def list_orgs(context: Context) -> Iterator[Org]:
    """Yield every organization, ordered by id."""
    return iterate_organizations(context.repository)


def get_org(context: Context, org_id: str) -> Org:
    """Return an organization. Raises: NotFound."""
    return Organization(context.repository, org_id).get()


def set_suspended(context: Context, org_id: str, suspended: bool) -> Org:
    """Suspend an organization, or resume it. The keys and devices of a suspended organization are refused.

    Raises: NotFound."""
    at = context.clock()
    activity = make_entry(at, ADMIN, "suspendOrg" if suspended else "resumeOrg", org=org_id)
    for attempt in Organization(context.repository, org_id).changing(what=f"organization {org_id}"):
        with attempt as org:
            if org.suspended != suspended:
                org = msgspec.structs.replace(org, suspended=suspended)
                withdrawal = make_withdrawal(at, org_id, WithdrawalKind.ORG, org_id)
                attempt.write(org, activity=activity, withdrawals=[withdrawal] if suspended else [])
    HostFeed(context).publish(org_id)
    publish_waiting(context, attempt.waiting)
    return org


def keys_of(context: Context, org_id: str) -> list[Key]:
    """Return the keys of an organization's documents in partitions that all organizations share.

    The hosts of the TLS edges are not among them: they are derived from the other documents."""
    return [Organization(context.repository, org_id).ref.key, CACertificates(context.repository, org_id).index_ref.key]


def partitions_of(org_id: str) -> list[str]:
    """Return the partitions that belong to an organization as a whole."""
    return [
        f"key/{org_id}",
        f"ca/{org_id}",
        f"server/{org_id}",
        f"deny/{org_id}",
        deny_count_partition(org_id),
        f"usage/{org_id}",
        *(activity_partition(org_id, kind) for kind in ActivityKind),
    ]


def delete_org(context: Context, org_id: str) -> None:
    """Delete an organization and all that belongs to it.

    The organization is suspended first: its clients are refused from then on, its sessions end, and a deletion that is
    cut short can be repeated.

    Raises: NotFound."""
    set_suspended(context, org_id, True)
    Organization(context.repository, org_id).delete()
    HostFeed(context).publish(org_id)
    for partition in partitions_of(org_id):
        context.repository.delete_partition(partition)
    context.repository.delete(CACertificates(context.repository, org_id).index_ref)
