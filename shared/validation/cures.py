"""Cures of a refusal, each proven: one change is made, the judge runs again, and the client passes.

A cure adds no trust in anything that the client sent. Whether a change is wanted, a person decides.
"""

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from shared.validation.facts import OrgFacts
from shared.validation.names import ClientId, messaging_host
from shared.validation.policy import Decision, Level, Rule
from shared.validation.presented import Presented
from shared.validation.verdict import Action, Cure, Verdict

_CAS_MAX: Final = 5  # inactive CAs that are tried


Judge = Callable[[Presented, OrgFacts], Verdict]


def find_cures(presented: Presented, facts: OrgFacts, judge: Judge, *, platform_domain: str) -> tuple[Cure, ...]:
    """Return the single changes after which *judge* lets the client pass."""
    cures = []
    for action, value, changed, then in _candidates(presented, facts, platform_domain):
        decision = judge(changed, then).decision
        if decision is not Decision.DENY:
            cures.append(Cure(action, value, decision))
    return tuple(cures)


def _candidates(
    presented: Presented, facts: OrgFacts, platform_domain: str
) -> Iterator[tuple[Action, str, Presented, OrgFacts]]:
    change = msgspec.structs.replace
    for ca in [anchor for anchor in facts.anchors if not anchor.active][:_CAS_MAX]:
        anchors = [change(anchor, active=True) if anchor.id == ca.id else anchor for anchor in facts.anchors]
        yield Action.ACTIVATE_CA, ca.id, presented, change(facts, anchors=anchors, has_active_ca=None)
    for device in [name for name in presented.identities if not name.is_type][:1]:
        client = ClientId.parse(f"{device.client_class.value}:{facts.org_id}:{device.type_id}:{device.device_id}")
        if client != presented.client_id:
            yield Action.CLIENT_ID, client.text, change(presented, client_id=client), facts
    host = messaging_host(facts.org_id, platform_domain)
    if presented.server_name != host:
        yield Action.SERVER_NAME, host, change(presented, server_name=host), facts
    if not facts.type_certificates:
        yield Action.TYPE_CERTIFICATES, "on", presented, change(facts, type_certificates=True)
    if presented.device is not None and presented.chain == ():
        level = Level.CERTIFICATE_OR_TOKEN
        rules = [rule for rule in facts.policy.rules if rule.device_type != presented.device.type_id]
        policy = change(facts.policy, rules=(*rules, Rule(presented.device.type_id, level)))
        yield Action.SECURITY_LEVEL, level.value, presented, change(facts, policy=policy)
    if facts.denied or any(anchor.denied_at for anchor in facts.anchors):
        anchors = [change(anchor, denied_at=None) for anchor in facts.anchors]
        yield Action.LIFT_DENIAL, "", presented, change(facts, denied={}, anchors=anchors)
