"""verifyClient: one batched read, then the ten steps of a verdict, or a remembered verdict on the same documents.

Nothing is written before the answer.
"""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from shared.batch import Batch
from shared.connection_records import ConnectionEvent, Form
from shared.errors import CAInactive, CertificateMalformed, UseRefused
from shared.org_repository import OrgRepository
from shared.ports import Key, TokenVerifier
from shared.records import CAsOfOneName, Denials, Proof, Role
from shared.refs import cas_partition, denials_partition, org_ref
from shared.usecases.callers import BearerToken, Caller, Credentials, admit_caller, read_claim
from shared.usecases.cas.documents import CACertificates, read_anchors
from shared.usecases.context import Context
from shared.usecases.daily import is_first_today
from shared.usecases.denials import entry_of
from shared.usecases.devices.memory import Remembered, VerdictMemory, is_worth_remembering
from shared.usecases.devices.org_facts import make_facts
from shared.validation.cures import find_cures
from shared.validation.deny_list import Questions, questions
from shared.validation.facts import OrgFacts, Scope
from shared.validation.names import DeviceName
from shared.validation.policy import Decision
from shared.validation.presented import ConnectingClient, Presented
from shared.validation.topics import TopicPrefix
from shared.validation.verdict import CHAIN_STEP, Verdict, find_org_id, judge
from shared.validation.verdict_by_name import BROKER, NamedClient, judge_named
from shared.x509.budget import Budget
from shared.x509.moment import Moment, seconds_of

log = logging.getLogger(__name__)

_EVERY_ORG: Final = Scope(None)
_BROKERS: Final = (Role.BROKER,)
MAY_EXPLAIN: Final = (Role.BROKER, Role.VIEWER, Role.OPERATOR)
_SERVER_NAME_MAX: Final = 256  # characters kept of a server name


class NotRemembered(Exception):  # not a TrustError: the caller asks again, without `Verifier.recalls_only`
    """No remembered verdict is the answer."""


class Verifier(msgspec.Struct, frozen=True):
    """The context of verdicts, and what only verdicts need.

    Args:
        tokens: verifies sign-in tokens; None accepts API keys only.
        count: counts decisions: organization id or None, code, decision.
        topic_prefix: the prefix of the topics of devices and gateways.
        dialect: the format in which the broker asks.
        check_time: raises at the time limit of a verdict.
        memory: the verdicts that are remembered.
        recalls_only: whether a question raises NotRemembered where its answer is not in the memory.
    """

    context: Context
    tokens: TokenVerifier | None
    count: Callable[[str | None, str, str], None] = lambda org_id, code, decision: None
    topic_prefix: TopicPrefix = msgspec.field(default_factory=TopicPrefix)
    dialect: str = ""
    check_time: Callable[[], None] = lambda: None
    memory: VerdictMemory = msgspec.field(default_factory=lambda: VerdictMemory(0))
    recalls_only: bool = False


# --------------------------------------------------------------------------------------- verdicts on a certificate


def verify_client(
    verifier: Verifier, sent: Credentials | BearerToken | Caller, client: ConnectingClient, *, explain: bool = False
) -> Verdict:
    """Return whether a client may connect.

    An allow takes one round trip to the store, also where the verdict is remembered. A refusal may take a second, to
    name its reason.

    Args:
        sent: an API key and its token, a sign-in token, or a caller that the platform has authenticated itself.
        client: what the broker passed.
        explain: whether a person asks, not a broker. Viewers and operators may ask, and no connection is counted.

    Raises: NotAuthenticated, Forbidden, StoreUnavailable, IssuerUnavailable, NotRemembered."""
    context = verifier.context
    claim = sent if isinstance(sent, Caller) else read_claim(verifier.tokens, sent)
    digest, remembered = (b"", None) if explain else _recall(verifier, claim, client)
    if remembered is None:
        if verifier.recalls_only:
            raise NotRemembered
        presented = Presented.read(client)
        # An organization's key asks about that organization. With a platform key, the client names the organization.
        org_id = claim.org_id or find_org_id(presented, _EVERY_ORG)
        lookup = _Lookup(org_id, questions(presented.certificate_ids, presented.device))
    else:
        lookup = _Lookup(remembered.org_id, remembered.questions)
    keys = lookup.keys(claim)
    batch = context.repository.read_keys(keys)
    at = context.clock()
    if remembered is not None and isinstance(claim, Credentials):
        if remembered.holds(claim.token_hash, batch.versions(keys), seconds_of(at)):
            return _answer_again(verifier, claim, client, remembered, digest, at)
        if verifier.recalls_only:
            raise NotRemembered
        presented = Presented.read(client)
    caller = admit_caller(context, claim, batch, MAY_EXPLAIN if explain else _BROKERS, dialect=verifier.dialect)
    facts, moment = lookup.facts(batch), Moment(at)
    verdict = _judge(verifier, presented, caller, facts, moment, explain=explain)
    is_without_ca = facts and verdict.failed_step == CHAIN_STEP and not any(anchor.active for anchor in facts.anchors)
    if facts and is_without_ca:
        records = OrgRepository(context.repository, facts.org_id, facts.incarnation)
        if not CACertificates(records).has_active():
            facts = replace(facts, has_active_ca=False)
            verdict = _judge(verifier, presented, caller, facts, moment, explain=explain)
    if explain:
        return _with_cures(verifier, presented, caller, facts, moment, verdict)
    if digest and facts and isinstance(claim, Credentials) and is_worth_remembering(presented, verdict):
        remembered = Remembered.of(
            verdict,
            versions=batch.versions(keys),
            window=moment.window,
            token_hash=claim.token_hash,
            org_id=facts.org_id,
            device=presented.device,
            incarnation=facts.incarnation,
            no_sni=caller.no_sni,
        )
        verifier.memory.keep(digest, remembered)
    verifier.count(facts.org_id if facts else None, verdict.code, verdict.decision.value)
    if facts and caller.scope.may_ask_about(facts.org_id, facts.incarnation):
        known = _of_computed(caller, presented, verdict, facts)
        context.events.offer(_event(verifier, client, verdict, digest, at, **known))
    return verdict


def _answer_again(
    verifier: Verifier,
    claim: Credentials,
    client: ConnectingClient,
    remembered: Remembered,
    digest: bytes,
    at: datetime,
) -> Verdict:
    """Return a remembered verdict that holds, counted and with its connection event as a computed one."""
    verdict = remembered.verdict
    verifier.memory.note_answer()
    verifier.count(verdict.org_id, verdict.code, verdict.decision.value)
    known = _of_remembered(claim, client, remembered, verdict)
    verifier.context.events.offer(_event(verifier, client, verdict, digest, at, **known))
    return verdict


def _recall(
    verifier: Verifier, claim: Credentials | Caller, client: ConnectingClient
) -> tuple[bytes, Remembered | None]:
    """Return the digest of a question with an API key, and what is remembered of the question."""
    memory = verifier.memory
    if not memory.is_on or not isinstance(claim, Credentials) or not client.certificate:
        return b"", None
    digest = memory.digest(claim.key, verifier.dialect, client)
    org_id = claim.org_id
    if org_id is None:
        org_id = find_org_id(Presented.read(replace(client, certificate=None)), _EVERY_ORG)
    return digest, None if org_id is None else memory.find(org_id, digest)


def _with_cures(
    verifier: Verifier, presented: Presented, caller: Caller, facts: OrgFacts | None, moment: Moment, verdict: Verdict
) -> Verdict:
    """Return *verdict* with the single changes after which the client would pass."""
    if verdict.decision is not Decision.DENY or facts is None or verdict.org_id != facts.org_id:
        return verdict

    def judge_again(changed: Presented, then: OrgFacts) -> Verdict:
        return _judge(verifier, changed, caller, then, moment, explain=False)

    cures = find_cures(presented, facts, judge_again, platform_domain=verifier.context.platform_domain)
    return replace(verdict, cures=cures)


def _judge(
    verifier: Verifier, presented: Presented, caller: Caller, facts: OrgFacts | None, moment: Moment, *, explain: bool
) -> Verdict:
    return judge(
        presented,
        caller.scope,
        facts,
        platform_domain=verifier.context.platform_domain,
        moment=moment,
        weak=verifier.context.weak_keys,
        explain=explain,
        budget=Budget(verifier.check_time),
    )


def _event(
    verifier: Verifier, client: ConnectingClient, verdict: Verdict, way: bytes, at: datetime, **known: Any
) -> ConnectionEvent:
    """Return the event of a verdict; *known* are the fields of `_of_computed` or `_of_remembered`."""
    return ConnectionEvent(
        at=at,
        decision=verdict.decision.value,
        code=verdict.code,
        tls=client.tls,
        presence=verdict.presence,
        client_id=client.client_id_text or None,
        server_name=client.server_name[:_SERVER_NAME_MAX] if client.server_name else None,
        ca_id=verdict.ca.id if verdict.ca else None,
        leaf_only=client.leaf_only,
        dialect=verifier.dialect,
        way=way,
        **known,
    )


def _of_computed(caller: Caller, presented: Presented, verdict: Verdict, facts: OrgFacts) -> dict[str, Any]:
    """Return the fields of an event that a computed verdict knows."""
    failing = verdict.failing
    leaf = presented.certificates[0] if presented.certificates else None
    device = verdict.identity or presented.device
    return {
        "org_id": facts.org_id,
        "incarnation": facts.incarnation,
        "identity": str(device) if device else None,
        "fingerprint": leaf.fingerprint if leaf is not None else None,
        "chain": tuple(cert.der for cert in presented.certificates),
        "is_cut": bool(presented.unread),
        "no_sni": caller.no_sni,
        "reached_ca": bool(verdict.key_digests) or _reached_ca(verdict),
        "failing": {"subject": failing.subject_text, "fingerprintSha256": failing.fingerprint} if failing else None,
        "key": caller.who,
        "form": _form_of(presented),
        **_decision(verdict),
    }


def _of_remembered(
    claim: Credentials, client: ConnectingClient, remembered: Remembered, verdict: Verdict
) -> dict[str, Any]:
    """Return the same fields from a remembered verdict, with what was sent in place of certificates that were read."""
    device = verdict.identity or remembered.own.device
    return {
        "org_id": remembered.org_id,
        "incarnation": remembered.common.incarnation,
        "identity": str(device) if device else None,
        "fingerprint": verdict.certificates[0].fingerprints[0],
        "unread": (client.certificate or b"", client.chain),
        "no_sni": remembered.common.no_sni,
        "reached_ca": True,
        "key": claim.key,
        "form": Form.CHAIN if len(verdict.certificates) > 1 else Form.CERTIFICATE,
    }


def _form_of(presented: Presented) -> Form:
    if isinstance(presented.chain, CertificateMalformed):
        return Form.CERTIFICATE
    if not presented.chain:
        return Form.NOTHING
    return Form.CHAIN if len(presented.chain) + len(presented.unread) > 1 else Form.CERTIFICATE


def _decision(verdict: Verdict) -> dict[str, Any]:
    """Return a refusal as it was decided, for the list of refusals; nothing for another verdict."""
    if verdict.decision is not Decision.DENY:
        return {}
    return {"step": verdict.failed_step, "reason": verdict.reason, "mend": verdict.mend}


def _reached_ca(verdict: Verdict) -> bool:
    """Return whether a refusal is about a path to a CA of the organization, whose signatures were verified."""
    return verdict.code == CAInactive.code or (verdict.failed_step or 0) > CHAIN_STEP


# --------------------------------------------------------------------------------------------- verdicts by name


def verify_names(verifier: Verifier, credentials: Credentials, named: NamedClient) -> Verdict:
    """Return whether a client may connect of which the broker passes names only. Takes one round trip.

    Raises: NotAuthenticated, Forbidden, StoreUnavailable."""
    verdict, facts, caller = _verify_named(verifier, credentials, named)
    verifier.count(verdict.org_id, verdict.code, verdict.decision.value)
    if verdict.org_id is not None and facts is not None:
        event = _named_event(named, verdict, facts, verifier.context.clock())
        verifier.context.events.offer(replace(event, key=caller.who, dialect=verifier.dialect, form=Form.NAMES))
    return verdict


Use = Callable[[str, DeviceName, str], bool]
"""Whether a device may use a resource of the broker: given the organization, the device and its topic prefix."""


def verify_use(verifier: Verifier, credentials: Credentials, named: NamedClient, may_use: Use) -> Verdict:
    """Return whether a connected client may use a topic, a queue or a virtual host. No connection is counted.

    A client may where *may_use* says so and its certificate part still passes (`continue` included: the broker checked
    its token when it connected). One round trip, so that a device that was denied meanwhile uses nothing more.

    Raises: NotAuthenticated, Forbidden, StoreUnavailable."""
    verdict, facts, caller = _verify_named(verifier, credentials, named)
    if facts is not None:
        counter = verifier.context.call_counter
        counter.note_answered(facts.org_id, caller.who, dialect=verifier.dialect, incarnation=facts.incarnation)
    if verdict.decision is Decision.DENY:
        return verdict
    device, org_id = verdict.identity, verdict.org_id
    if verdict.proof == BROKER and device is not None and org_id is not None:
        prefix = verifier.topic_prefix.of(org_id, device)
        if may_use(org_id, device, prefix):
            return replace(verdict, decision=Decision.ALLOW, code="allowed", reason=f"It is {device}'s to use.")
        refusal = UseRefused(device=str(device), prefix=prefix)
    else:  # an application, or a name without proof: the service does not know its topics
        refusal = UseRefused(device="an unproven client", prefix="its own prefix")
    return replace(verdict, decision=Decision.DENY, code=refusal.code, reason=refusal.reason, mend=refusal.advice)


def _verify_named(
    verifier: Verifier, credentials: Credentials, named: NamedClient
) -> tuple[Verdict, OrgFacts | None, Caller]:
    """Return the verdict, what is known of the organization, and the broker."""
    if verifier.recalls_only:  # a verdict by name computes nothing that is worth remembering
        raise NotRemembered
    context = verifier.context
    lookup = _Lookup(credentials.org_id, Questions((), tuple(named.denials)))
    batch = context.repository.read_keys(lookup.keys(credentials))
    caller = admit_caller(context, credentials, batch, _BROKERS, dialect=verifier.dialect)
    is_proven = caller.proof is Proof.BROKER and named.is_from(caller.listener)
    if is_proven and named.may_be_typed and caller.listener is None:
        _warn_of_unnamed_listener(caller.who, context.clock())
    facts = lookup.facts(batch)
    return judge_named(named, facts, is_proven=is_proven, platform_domain=context.platform_domain), facts, caller


def _warn_of_unnamed_listener(key: str, at: datetime) -> None:
    """Log a warning about a key of the version before, which works on, once a day and process."""
    if is_first_today(f"listener of {key}", at):
        log.warning(
            "a broker's key names no listener, so a client of any listener can type a device's name; make a key with "
            "--proof broker --listener NAME, and revoke this key",
            extra={"key": key},
        )


def _named_event(named: NamedClient, verdict: Verdict, facts: OrgFacts, at: datetime) -> ConnectionEvent:
    return ConnectionEvent(
        org_id=facts.org_id,
        incarnation=facts.incarnation,
        at=at,
        decision=verdict.decision.value,
        code=verdict.code,
        tls=True,
        presence=verdict.presence,
        client_id=getattr(named.client, "text", None),
        identity=str(verdict.identity) if verdict.identity else None,
        **_decision(verdict),
    )


# ---------------------------------------------------------------------------------------------- what is looked up


class _Lookup(msgspec.Struct, frozen=True):
    """The records that a verdict on a client of one organization needs.

    Args:
        org_id: None where the question names no organization.
        questions: the CAs and the entries of the deny list to look up.
    """

    org_id: str | None
    questions: Questions

    def keys(self, claim: Credentials | Caller) -> dict[Key, None]:
        """Return the keys of these records and of those that `authenticate` needs for *claim*, always in this order."""
        keys = {ref.key: None for ref in claim.refs}
        if self.org_id is not None:
            keys[org_ref(self.org_id).key] = None
            cas, denials = cas_partition(self.org_id), denials_partition(self.org_id)
            keys.update({Key(cas, name): None for name in self.questions.issuer_names})
            keys.update({Key(denials, look_up): None for look_up in self.questions.denials})
        return keys

    def facts(self, batch: Batch) -> OrgFacts | None:
        """Return what *batch*, which asked for `keys`, holds of the organization; None where it does not exist.

        Documents of another incarnation, which an earlier organization of the id left, do not count."""
        if self.org_id is None:
            return None
        org = batch.get(org_ref(self.org_id))
        if org is None or org.deletion is not None:
            return None
        batch = batch.of(org.incarnation)
        documents = batch.existing(cas_partition(self.org_id), CAsOfOneName)
        anchors, has_more_cas = read_anchors(
            [documents[name] for name in self.questions.issuer_names if name in documents]
        )
        denied = {
            look_up: list(map(entry_of, document.entries.values()))
            for look_up, document in batch.existing(denials_partition(self.org_id), Denials).items()
            if document.entries
        }
        return make_facts(org, anchors, denied, has_more_cas=has_more_cas)
