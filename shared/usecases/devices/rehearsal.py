"""Judge the certificates that clients presented again, on changed facts: what a change would do, before the change.

The judge is the one of verifyClient, with the inputs of the connection: the server name and whether it counts, the
client ID, the chain, and whether the broker passes chains. The certificates are those of
`shared.usecases.devices.shown`: at most 500, the newest first. Devices that were not seen are not judged, so an answer
states how many certificates were judged, and when the oldest of them was seen.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec
from msgspec.structs import replace

from shared.connection_records import ShownChain
from shared.errors import NotFound
from shared.org_repository import OrgRepository
from shared.records import Denial, Org, OrgSettings
from shared.usecases.cas.documents import CACertificates, take_readable
from shared.usecases.context import Context
from shared.usecases.denials import DenyList, denial_id, entry_of, look_up_of
from shared.usecases.devices.org_facts import make_facts
from shared.usecases.devices.shown import ShownCertificates
from shared.validation.ca import NAME_DIGITS, ca_id
from shared.validation.deny_list import DenyListEntry, certificate_ids, find_denied_at, questions
from shared.validation.facts import Anchor, Scope
from shared.validation.names import messaging_host
from shared.validation.policy import Decision, Policy
from shared.validation.presented import ConnectingClient, Presented
from shared.validation.verdict import Verdict, judge
from shared.x509.certificate import Certificate
from shared.x509.moment import Moment

SECONDS_MAX: Final = 2.0  # of judging; certificates that were seen earlier are then left out
_IDENTITY_STEP: Final = 10  # where the client ID is not known, this step says nothing about a change

Denied = Mapping[str, Sequence[DenyListEntry]]
"""The entries of the deny list, by look-up id."""


class State(msgspec.Struct, frozen=True):
    """What the verdicts on the clients of an organization depend on."""

    org: Org
    anchors: Sequence[Anchor]
    denied: Denied


Change = Callable[[State], State]


class Rehearsal(msgspec.Struct, frozen=True):
    """What a change would do to the certificates that were seen.

    Args:
        certificates: how many were judged; *since*: when the oldest of them was seen.
        refused: how many pass now and would be refused; *codes*: why, with numbers.
        admitted: how many are refused now and would pass.
        verdict: on the certificate that was asked about, with the change; None where it was not among those judged.
    """

    certificates: int
    since: datetime | None
    refused: int
    codes: Mapping[str, int]
    admitted: int
    verdict: Verdict | None = None


def rehearse(context: Context, org: Org, change: Change, *, asked: str = "") -> Rehearsal:
    """Return what *change* would do to the clients of *org* that were seen.

    Args:
        asked: the SHA-256 of a certificate whose own verdict is returned as well.

    Raises: StoreUnavailable.
    """
    records = context.of(org)
    now = State(org, CACertificates(records).list_anchors(), _read_denied(records))
    then = change(now)
    deadline = time.monotonic() + SECONDS_MAX
    codes: Counter[str] = Counter()
    certificates = admitted = 0
    since: datetime | None = None
    verdict: Verdict | None = None
    for shown in ShownCertificates(records).newest_first():
        if time.monotonic() > deadline:
            break
        if shown.is_cut:  # the rest of the chain may hold the CA that decides
            continue
        presented = _present(context, org, shown)
        before, after = (_judge(context, shown, presented, state) for state in (now, then))
        has_passed, passes = (_passes(shown, verdict) for verdict in (before, after))
        certificates, since = certificates + 1, shown.at
        if has_passed and not passes:
            codes[after.code] += 1
        admitted += passes and not has_passed
        if shown.fingerprint == asked:
            verdict = after
    return Rehearsal(certificates, since, codes.total(), dict(codes), admitted, verdict)


def _present(context: Context, org: Org, shown: ShownChain) -> Presented:
    leaf, *rest = shown.chain
    host = shown.server_name if _is_way_known(shown) else messaging_host(org.org_id, context.platform_domain)
    client = ConnectingClient(
        server_name=host,
        client_id=shown.client_id,
        certificate=leaf,
        chain=b"".join(rest),
        leaf_only=shown.leaf_only,
    )
    return Presented.read(client)


def _is_way_known(shown: ShownChain) -> bool:
    """Return whether the record says how the client connected. Records of version 0.1.0 do not."""
    return shown.no_sni is not None


def _judge(context: Context, shown: ShownChain, presented: Presented, state: State) -> Verdict:
    org, denied, asked = state.org, state.denied, questions(presented.certificate_ids, presented.device)
    named = [
        anchor for anchor in state.anchors if anchor.certificate.subject.digest[:NAME_DIGITS] in asked.issuer_names
    ]
    anchors = take_readable(named, lambda anchor: anchor.certificate.der)
    facts = make_facts(
        org,
        anchors,
        {look_up: denied[look_up] for look_up in asked.denials if look_up in denied},
        has_active_ca=any(anchor.active for anchor in state.anchors),
        has_more_cas=len(anchors) < len(named),
    )
    return judge(
        presented,
        # Another scope that may ask about the organization differs in words only: events of others are not recorded.
        Scope(org.org_id, incarnation=org.incarnation, no_sni=bool(shown.no_sni)),
        facts,
        platform_domain=context.platform_domain,
        moment=Moment(context.clock()),
        weak=context.weak_keys,
        explain=False,
    )


def _passes(shown: ShownChain, verdict: Verdict) -> bool:
    if verdict.decision is not Decision.DENY:
        return True
    return not _is_way_known(shown) and (verdict.failed_step or 0) >= _IDENTITY_STEP


def _read_denied(records: OrgRepository) -> dict[str, list[DenyListEntry]]:
    """Return every entry of the deny list by its look-up id."""
    denied: dict[str, list[DenyListEntry]] = {}
    for denial in DenyList(records).iterate():
        denied.setdefault(look_up_of(denial.id), []).append(entry_of(denial))
    return denied


# ---------------------------------------------------------------------------------------------------------- changes


def without(deleted_id: str) -> Change:
    """Return the change that deletes a CA."""
    return lambda state: _with_anchors(state, [anchor for anchor in state.anchors if anchor.id != deleted_id])


def with_status(changed_id: str, *, active: bool) -> Change:
    """Return the change that activates or deactivates a CA."""
    return lambda state: replace(
        state,
        anchors=[replace(anchor, active=active) if anchor.id == changed_id else anchor for anchor in state.anchors],
    )


def with_ca(cert: Certificate) -> Change:
    """Return the change that registers a CA; a CA that is registered already stays as it is."""

    def add(state: State) -> State:
        if any(anchor.certificate.der == cert.der for anchor in state.anchors):
            return state
        anchors = [*state.anchors, Anchor(ca_id(cert), cert, True)]
        return _with_anchors(state, [*state.anchors, _mark(anchors[-1], anchors, state.denied)])

    return add


def _with_anchors(state: State, anchors: Sequence[Anchor]) -> State:
    """Return *state* with other CAs. An organization with a CA requires SNI."""
    return replace(state, org=replace(state.org, has_ca=bool(anchors)), anchors=anchors)


def with_policy(policy: Policy) -> Change:
    """Return the change of the connection security policy."""
    return lambda state: replace(state, org=replace(state.org, policy=policy))


def with_settings(settings: OrgSettings) -> Change:
    """Return the change of the settings."""
    return lambda state: replace(state, org=replace(state.org, settings=settings))


def without_denial(entry_id: str) -> Change:
    """Return the change that takes an entry off the deny list. The change raises: NotFound."""

    def lift(state: State) -> State:
        look_up = look_up_of(entry_id)
        entries = state.denied.get(look_up, ())
        remaining = [entry for entry in entries if denial_id(look_up, entry.issuer_key_hash) != entry_id]
        if len(remaining) == len(entries):
            raise NotFound(what="such entry on the deny list")
        return _with_entries(state, look_up, remaining)

    return lift


def with_denial(denial: Denial) -> Change:
    """Return the change that adds an entry to the deny list; an entry that is on the list already stays as it is."""

    def add(state: State) -> State:
        look_up = look_up_of(denial.id)
        entries = state.denied.get(look_up, ())
        if any(denial_id(look_up, entry.issuer_key_hash) == denial.id for entry in entries):
            return state
        return _with_entries(state, look_up, [*entries, entry_of(denial)])

    return add


def _with_entries(state: State, look_up: str, entries: Sequence[DenyListEntry]) -> State:
    """Return *state* with other entries of the deny list under *look_up*, and the marks of the CAs they may mean."""
    denied = {**state.denied, look_up: entries}
    anchors = [
        _mark(anchor, state.anchors, denied) if look_up in certificate_ids(anchor.certificate) else anchor
        for anchor in state.anchors
    ]
    return replace(state, anchors=anchors, denied=denied)


def _mark(anchor: Anchor, anchors: Sequence[Anchor], denied: Denied) -> Anchor:
    """Return *anchor* with the mark that the deny list requires, where *anchors* are registered."""
    cert = anchor.certificate
    entries = [entry for look_up in certificate_ids(cert) for entry in denied.get(look_up, ())]
    named = (ca.certificate for ca in anchors if ca.certificate.subject.digest == cert.issuer.digest)
    return replace(anchor, denied_at=find_denied_at(cert, entries, named))
