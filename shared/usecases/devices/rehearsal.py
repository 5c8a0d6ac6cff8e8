"""Judge the certificates that clients presented again, on changed facts: what a change would do, before the change.

The judge is the one of verifyClient. The certificates are those of `shared.usecases.devices.shown`: at most 500, the
newest first. Devices that were not seen are not judged, so an answer states how many certificates were judged, and when
the oldest of them was seen.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from shared.connection_records import ShownChain
from shared.org_repository import OrgRepository
from shared.records import Org
from shared.usecases.cas.documents import CACertificates
from shared.usecases.context import Context
from shared.usecases.denials import DenyList, look_up_of
from shared.usecases.devices.org_facts import make_facts
from shared.usecases.devices.shown import ShownCertificates
from shared.validation.ca import NAME_DIGITS
from shared.validation.deny_list import DenyListEntry, questions
from shared.validation.facts import Anchor, Scope
from shared.validation.names import messaging_host
from shared.validation.presented import Presented
from shared.validation.verdict import Verdict, judge
from shared.x509.budget import REGISTERED_ELEMENTS_MAX, ElementCount

SECONDS_MAX: Final = 2.0  # of judging; certificates that were seen earlier are then left out
_IDENTITY_STEP: Final = 10  # without a client ID, this step says nothing about a change

Anchors = Sequence[Anchor]
Change = Callable[[Anchors], Anchors]
"""What a change makes of the registered CAs."""


class Rehearsal(msgspec.Struct, frozen=True):
    """What a change would do to the certificates that were seen.

    Args:
        certificates: how many were judged; *since*: when the oldest of them was seen.
        refused: how many pass now and would be refused; *codes*: why, with numbers.
        admitted: how many are refused now and would pass.
    """

    certificates: int
    since: datetime | None
    refused: int
    codes: Mapping[str, int]
    admitted: int


def rehearse(context: Context, org: Org, change: Change) -> Rehearsal:
    """Return what *change* would do to the clients of *org* that were seen. Raises: StoreUnavailable."""
    records = context.of(org)
    anchors = CACertificates(records).list_anchors()
    denied = _read_denied(records)
    deadline = time.monotonic() + SECONDS_MAX
    codes: Counter[str] = Counter()
    certificates = admitted = 0
    since: datetime | None = None
    for shown in ShownCertificates(records).newest_first():
        if time.monotonic() > deadline:
            break
        presented = _present(context, org, shown)
        before, after = (_judge(context, org, presented, each, denied) for each in (anchors, change(anchors)))
        certificates, since = certificates + 1, shown.at
        if _passes(before) and not _passes(after):
            codes[after.code] += 1
        admitted += _passes(after) and not _passes(before)
    return Rehearsal(certificates, since, codes.total(), dict(codes), admitted)


def _present(context: Context, org: Org, shown: ShownChain) -> Presented:
    leaf, *rest = shown.chain
    host = messaging_host(org.org_id, context.platform_domain)
    return Presented.read(server_name=host, certificate=leaf, chain=b"".join(rest))


def _judge(
    context: Context, org: Org, presented: Presented, anchors: Anchors, denied: Mapping[str, Sequence[DenyListEntry]]
) -> Verdict:
    asked = questions(presented)
    facts = make_facts(
        org,
        _of_names(anchors, asked.issuer_names),
        {look_up: denied[look_up] for look_up in asked.denials if look_up in denied},
        has_active_ca=any(anchor.active for anchor in anchors),
    )
    return judge(
        presented,
        Scope(org.org_id, incarnation=org.incarnation),
        facts,
        platform_domain=context.platform_domain,
        at=context.clock(),
        weak=context.weak_keys,
        explain=False,
    )


def _of_names(anchors: Anchors, names: Collection[str]) -> list[Anchor]:
    """Return the CAs that a verdict reads: those of the issuers' names, as many as one decision can read."""
    named = [anchor for anchor in anchors if anchor.certificate.subject.digest[:NAME_DIGITS] in names]
    count = ElementCount(REGISTERED_ELEMENTS_MAX, sum(len(anchor.certificate.der) for anchor in named))
    return [anchor for anchor in named if count.takes(anchor.certificate.der)]


def _passes(verdict: Verdict) -> bool:
    return verdict.failed_step is None or verdict.failed_step >= _IDENTITY_STEP


def _read_denied(records: OrgRepository) -> dict[str, list[DenyListEntry]]:
    """Return every entry of the deny list by its look-up id."""
    denied: dict[str, list[DenyListEntry]] = {}
    for denial in DenyList(records).iterate():
        entry = DenyListEntry(denial.created_at, denial.issuer_key_hash)
        denied.setdefault(look_up_of(denial.id), []).append(entry)
    return denied


# ---------------------------------------------------------------------------------------------------------- changes


def without(ca_id: str) -> Change:
    """Return the change that deletes a CA."""
    return lambda anchors: [anchor for anchor in anchors if anchor.id != ca_id]


def with_status(ca_id: str, *, active: bool) -> Change:
    """Return the change that activates or deactivates a CA."""
    return lambda anchors: [
        msgspec.structs.replace(anchor, active=active) if anchor.id == ca_id else anchor for anchor in anchors
    ]
