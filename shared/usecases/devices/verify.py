"""verifyClient: one batched read, then the ten steps. Writes nothing on the way to the answer."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from shared.errors import UseRefused
from shared.ports import ConnectionEventQueue, TokenVerifier
from shared.records import CA, CAsOfOneName, CAStatus, ConnectionEvent, Denials, Org, Proof, Role
from shared.repository import Batch, Ref, ca_index_ref, cas_ref, denials_ref, org_ref
from shared.usecases.callers import BearerToken, Caller, Credentials, claimed, identified, proven
from shared.usecases.context import Context
from shared.validation.deny_list import Denied, Questions, questions
from shared.validation.names import DeviceName
from shared.validation.policy import Decision
from shared.validation.presented import Presented
from shared.validation.topics import TopicPrefix
from shared.validation.verdict import CHAIN_STEP, Anchor, OrgFacts, Scope, Verdict, find_org_id, judge
from shared.validation.verdict_by_name import BROKER, Named, judge_named
from shared.x509.cache import read_registered

_ANYBODY: Final = Scope(None)
_ASKERS: Final = (Role.BROKER,)
_EXPLAINERS: Final = (Role.BROKER, Role.VIEWER, Role.OPERATOR)


class Verifier(msgspec.Struct, frozen=True):
    """What a verdict works with.

    Args:
        tokens: verifies sign-in tokens; None accepts API keys only.
        events: takes the connection event of each verdict, asynchronously.
        count: counts decisions: organization id or None, code, decision.
        topic_prefix: the prefix of a device's topics.
    """

    context: Context
    tokens: TokenVerifier | None
    events: ConnectionEventQueue
    count: Callable[[str | None, str, str], None] = lambda org_id, code, decision: None
    topic_prefix: TopicPrefix = msgspec.field(default_factory=TopicPrefix)


def verify_client(
    verifier: Verifier, sent: Credentials | BearerToken | Caller, presented: Presented, *, explain: bool = False
) -> Verdict:
    """May this client connect?

    An allow costs one round trip to the store; a refusal may take a second, to say why.

    Args:
        sent: a key and its token, a sign-in token; or a caller whom the platform itself has identified.
        explain: a person asks, not a broker: viewers and operators may, and nothing is counted as a connection.

    Raises: NotAuthenticated, Forbidden, StoreUnavailable, IssuerUnavailable."""
    context = verifier.context
    claim = sent if isinstance(sent, Caller) else claimed(verifier.tokens, sent)
    # An org's key may ask about its own org only, so that one is read; a platform key's question names the org.
    org_id = claim.org_id or find_org_id(presented, _ANYBODY)
    asked = questions(presented)
    wanted = _Wanted.of(org_id, asked)
    found = context.repository.find([*claim.places, *wanted.places])
    caller = proven(claim, found)
    caller.must_be(_EXPLAINERS if explain else _ASKERS)
    facts = wanted.facts(found)
    at = context.clock()
    verdict = _judged(context, presented, caller.asker, facts, at, explain=explain)
    if facts and verdict.failed_step == CHAIN_STEP and not any(one.active for one in facts.anchors):
        index = context.repository.get(ca_index_ref(facts.org_id))
        has_active_ca = index is not None and any(index.cas.values())
        facts = replace(facts, has_active_ca=has_active_ca)
        verdict = _judged(context, presented, caller.asker, facts, at, explain=explain)
    if not explain:
        verifier.count(facts.org_id if facts else None, verdict.code, verdict.decision.value)
    if facts and not explain and caller.asker.may_ask_about(facts.org_id):
        verifier.events.offer(_sighting(presented, verdict, facts.org_id, at))
    return verdict


def verify_names(verifier: Verifier, credentials: Credentials, named: Named) -> Verdict:
    """May this client connect, of which the broker tells only names? In one round trip.

    Raises: NotAuthenticated, Forbidden, StoreUnavailable."""
    verdict = _named(verifier.context, credentials, named)
    verifier.count(verdict.org_id, verdict.code, verdict.decision.value)
    if verdict.org_id is not None:
        verifier.events.offer(_named_sighting(named, verdict, verdict.org_id, verifier.context.clock()))
    return verdict


Use = Callable[[str, DeviceName, str], bool]
"""Whether a device of an org may use something; given the org, the device, and the prefix of its topics."""


def verify_use(verifier: Verifier, credentials: Credentials, named: Named, may: Use) -> Verdict:
    """May this client, which is connected already, use a topic, a queue, a virtual host? Nothing is counted.

    A client whose certificate part passed may (`continue` as well: its token was asked when it connected), where *may*
    says so. In one round trip, so that a device that is denied now uses nothing more.

    Raises: NotAuthenticated, Forbidden, StoreUnavailable."""
    verdict = _named(verifier.context, credentials, named)
    if verdict.decision is Decision.DENY:
        return verdict
    device, org_id = verdict.identity, verdict.org_id
    if verdict.proof == BROKER and device is not None and org_id is not None:
        prefix = verifier.topic_prefix.of(org_id, device)
        if may(org_id, device, prefix):
            return replace(verdict, decision=Decision.ALLOW, code="allowed", reason=f"It is {device}'s to use.")
        refusal = UseRefused(device=str(device), prefix=prefix)
    else:  # an application, or a name that nothing proves: its rules stand elsewhere
        refusal = UseRefused(device="an unproven client", prefix="its own prefix")
    return replace(verdict, decision=Decision.DENY, code=refusal.code, reason=refusal.reason, mend=refusal.advice)


def _named(context: Context, credentials: Credentials, named: Named) -> Verdict:
    org_id = credentials.org_id
    wanted = _Wanted.of(org_id, Questions((), tuple(named.denials)))
    found = context.repository.find([credentials.place, *wanted.places])
    caller = identified(credentials, found.get(credentials.place))
    caller.must_be(_ASKERS)
    facts = wanted.facts(found)
    believed = caller.proof is Proof.BROKER
    return judge_named(named, facts, broker_proves=believed, platform_domain=context.platform_domain)


def _named_sighting(named: Named, verdict: Verdict, org_id: str, at: datetime) -> ConnectionEvent:
    client = named.client
    return ConnectionEvent(
        org_id=org_id,
        at=at,
        decision=verdict.decision.value,
        code=verdict.code,
        tls=True,
        shown=verdict.presence,
        client_id=getattr(client, "text", None),
        identity=str(verdict.identity) if verdict.identity else None,
    )


def _judged(
    context: Context, presented: Presented, asker: Scope, facts: OrgFacts | None, at: datetime, *, explain: bool
) -> Verdict:
    domain, weak = context.platform_domain, context.weak_keys
    return judge(presented, asker, facts, platform_domain=domain, at=at, weak=weak, explain=explain)


class _Wanted(msgspec.Struct, frozen=True):
    """Where the answers to a decision's questions lie."""

    org_id: str | None
    org: list[Ref[Org]]  # one, or none where no org is named
    cas: list[Ref[CAsOfOneName]]
    denials: dict[str, Ref[Denials]]

    @classmethod
    def of(cls, org_id: str | None, asked: Questions) -> "_Wanted":
        if org_id is None:
            return cls(None, [], [], {})
        return cls(
            org_id,
            [org_ref(org_id)],
            [cas_ref(org_id, name) for name in asked.issuer_names],
            {look_up: denials_ref(org_id, look_up) for look_up in asked.denials},
        )

    @property
    def places(self) -> list[Ref[Any]]:
        return [*self.org, *self.cas, *self.denials.values()]

    def facts(self, found: Batch) -> OrgFacts | None:
        org = found.get(self.org[0]) if self.org else None
        if org is None or self.org_id is None:
            return None
        cas_by_name = [cas for place in self.cas if (cas := found.get(place)) is not None]
        denials = [(look_up, entries) for look_up, place in self.denials.items() if (entries := found.get(place))]
        return OrgFacts(
            self.org_id,
            suspended=org.suspended,
            requires_sni=org.requires_sni,
            custom_domains=org.settings.domains,
            type_certificates=org.settings.type_certificates,
            policy=org.policy,
            anchors=[anchor for cas in cas_by_name for anchor in _anchors(cas)],
            denied={
                look_up: [Denied(one.created_at, one.issuer_key_hash) for one in entries.entries.values()]
                for look_up, entries in denials
            },
        )


def _anchors(cas: CAsOfOneName) -> list[Anchor]:
    return [_anchor(ca_id, ca) for ca_id, ca in cas.cas.items()]


def _anchor(ca_id: str, ca: CA) -> Anchor:
    active = ca.status is CAStatus.ACTIVE
    return Anchor(ca_id, read_registered(ca.der), active, ca.denied_at, None if active else ca.changed.updated_at)


def _sighting(presented: Presented, verdict: Verdict, org_id: str, at: datetime) -> ConnectionEvent:
    client, failing = presented.client_id, verdict.failing
    leaf = presented.certificates[0] if presented.certificates else None
    device = verdict.identity or presented.device
    return ConnectionEvent(
        org_id=org_id,
        at=at,
        decision=verdict.decision.value,
        code=verdict.code,
        tls=presented.tls,
        shown=verdict.presence,
        client_id=getattr(client, "text", None),
        server_name=presented.server_name and presented.server_name[:256],
        identity=str(device) if device else None,
        ca_id=verdict.ca.id if verdict.ca else None,
        certificate=leaf.der if leaf is not None and verdict.decision is Decision.DENY else None,
        failing={"subject": failing.subject_text, "fingerprintSha256": failing.fingerprint} if failing else None,
    )
