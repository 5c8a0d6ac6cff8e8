"""The connection security policy: what a device of each type must present; and its dry run."""

from datetime import datetime
from typing import Final

import msgspec

from functions.api.rehearsal_view import CLIENT, Judged, judge_change
from functions.call import OPERATORS, VIEWERS, MemberCall, endpoint
from functions.registry import PREFIX
from functions.web.body import Body, read_body
from functions.web.conditions import if_match
from functions.web.contract import View
from functions.web.message import Reply, json_reply
from shared import errors
from shared.records import Org
from shared.usecases.devices import policy as policies
from shared.usecases.devices.rehearsal import with_policy
from shared.validation.policy import Level, Policy, Rule, Unnamed

POLICY: Final = PREFIX + "/authorization/connectionpolicy"
FUNCTION: Final = "connectionPolicy"


class LevelRule(View, frozen=True, kw_only=True):
    device_type: str
    level: str


class PolicyView(View, frozen=True, kw_only=True):
    default: str
    rules: tuple[LevelRule, ...]
    unnamed_certificates: str
    updated_at: datetime
    updated_by: str
    version: str


def _reply(org: Org) -> Reply:
    policy, revision = org.policy, org.policy_changed
    view = PolicyView(
        default=policy.default.value,
        rules=tuple(LevelRule(device_type=rule.device_type, level=rule.level.value) for rule in policy.rules),
        unnamed_certificates=policy.unnamed_certificates.value,
        updated_at=revision.updated_at,
        updated_by=revision.updated_by,
        version=revision.version,
    )
    return json_reply(view, version=revision.version)


@endpoint(
    "GET",
    POLICY,
    function=FUNCTION,
    roles=VIEWERS,
    summary="The connection security policy",
    answers={200: PolicyView},
)
def get_policy(call: MemberCall) -> Reply:
    return _reply(call.member.org)


class PolicyRule(Body, frozen=True, kw_only=True):
    device_type: str
    level: Level


class PutPolicy(Body, frozen=True, kw_only=True):
    default: Level
    rules: tuple[PolicyRule, ...] = ()
    unnamed_certificates: Unnamed = Unnamed.DENY


def _policy(call: MemberCall) -> Policy:
    body = read_body(call.request, PutPolicy)
    rules = tuple(Rule(rule.device_type, rule.level) for rule in body.rules)
    return Policy(body.default, rules, body.unnamed_certificates)


@endpoint(
    "PUT",
    POLICY,
    function=FUNCTION,
    roles=OPERATORS,
    summary="Replace the connection security policy",
    body=PutPolicy,
    if_match="required",
    answers={200: PolicyView},
    refusals=(errors.InvalidPolicy, errors.Stale),
)
def put_policy(call: MemberCall) -> Reply:
    policy = _policy(call)
    return _reply(policies.put_policy(call.context, call.member, policy, expected_version=if_match(call.request)))


class LevelChange(View, frozen=True, kw_only=True):
    """A device type whose level would differ."""

    device_type: str
    from_: str = msgspec.field(name="from")
    to: str


class Sample(View, frozen=True, kw_only=True):
    """How many clients were seen in the last 30 days (of those that are kept), the oldest of them when."""

    identities: int
    since: datetime | None


class DryRunView(View, frozen=True, kw_only=True):
    changed: tuple[LevelChange, ...]
    sample: Sample
    refused: int
    refused_types: tuple[str, ...]
    judged: Judged


@endpoint(
    "POST",
    f"{POLICY}/dryrun",
    function=FUNCTION,
    roles=VIEWERS,
    summary="What a policy would change, and which of the clients seen lately it would refuse",
    body=PutPolicy,
    query={"client": CLIENT},
    answers={200: DryRunView},
    refusals=(errors.InvalidPolicy,),
)
def dry_run_policy(call: MemberCall) -> Reply:
    policy = _policy(call)
    result = policies.dry_run(call.context, call.member, policy)
    view = DryRunView(
        changed=tuple(
            LevelChange(device_type=name, from_=old.value, to=new.value) for name, old, new in result.changed
        ),
        sample=Sample(identities=result.identities, since=result.since),
        refused=result.refused,
        refused_types=tuple(result.refused_types),
        judged=judge_change(call, with_policy(policy)),
    )
    return json_reply(view)
