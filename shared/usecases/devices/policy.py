"""The connection security policy of an organization, and its dry run."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import msgspec

from shared.records import Org
from shared.usecases.callers import Member
from shared.usecases.context import Context, check_version, make_entry, update_revision
from shared.usecases.devices.usage import read_recent_usage
from shared.usecases.edges.withdrawals import WithdrawalKind, make_withdrawal, publish_waiting
from shared.usecases.organization import Organization
from shared.validation.names import DeviceName
from shared.validation.policy import Decision, Level, Policy, changed_types, check_policy, is_stricter, outcome_for


def put_policy(context: Context, member: Member, policy: Policy, *, expected_version: str | None) -> Org:
    """Replace the policy. Live sessions that the new policy would refuse end.

    Raises: InvalidPolicy, Stale."""
    check_policy(policy)
    at = context.clock()
    activity = make_entry(
        at,
        member.who,
        "connectionPolicy",
        default=policy.default.value,
        rules=str(len(policy.rules)),
        unnamed=policy.unnamed_certificates.value,
    )
    for attempt in Organization(context.of(member.org)).changing():
        with attempt as org:
            check_version(org.policy_changed, expected_version)
            if org.policy != policy:
                stamp = update_revision(org.policy_changed, at, member.who)
                withdrawal = make_withdrawal(at, member.org_id, WithdrawalKind.RECHECK, "policy")
                withdrawals = [withdrawal] if is_stricter(org.policy, policy) else []
                org = msgspec.structs.replace(org, policy=policy, policy_changed=stamp)
                attempt.write(org, activity=activity, withdrawals=withdrawals)
    publish_waiting(context, attempt.waiting)
    return org


class DryRun(msgspec.Struct, frozen=True):
    """What a policy would change.

    Args:
        changed: (device type, level now, level then).
        identities: how many clients the sample of the last 30 days holds; *since*: when the oldest connected.
        refused: how many of these clients may connect now and would be refused then; *refused_types*: their types.
    """

    changed: Sequence[tuple[str, Level, Level]]
    identities: int
    since: datetime | None
    refused: int
    refused_types: Sequence[str]


def dry_run(context: Context, member: Member, policy: Policy) -> DryRun:
    """Return what *policy* would change for the clients of the last 30 days. Raises: InvalidPolicy."""
    check_policy(policy)
    current = member.org.policy
    usage = read_recent_usage(context.of(member.org), context.clock())
    clients = [
        (device, connection)
        for identity, connection in usage.clients().items()
        if (device := DeviceName.parse(identity)) is not None
    ]
    refused: Counter[str] = Counter()
    for device, connection in clients:
        before, after = (
            outcome_for(rules, device.type_id, tls=connection.tls, presence=connection.presence)
            for rules in (current, policy)
        )
        if after is Decision.DENY and before is not Decision.DENY:
            refused[device.type_id] += 1
    return DryRun(
        changed=changed_types(current, policy, [device.type_id for device, _ in clients]),
        identities=len(clients),
        since=min((connection.at for _, connection in clients), default=None),
        refused=refused.total(),
        refused_types=sorted(refused),
    )
