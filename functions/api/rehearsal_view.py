"""What a change would do to the clients that were seen, as replies show it."""

from datetime import datetime
from typing import Final

from msgspec import UNSET, UnsetType

from functions.call import MemberCall
from functions.web.contract import View
from shared.usecases.devices.rehearsal import Change, rehearse

CLIENT: Final = "the SHA-256 of a certificate that a client presented: the answer has the verdict on it, too"
"""What the query parameter `client` of a dry run means."""


class JudgedClient(View, frozen=True, kw_only=True):
    """The verdict on one client, with the change."""

    decision: str
    code: str
    reason: str
    mend: str


class Judged(View, frozen=True, kw_only=True):
    """The certificates that clients presented in the last 30 days, judged with the change: 500 at most, the newest.
    Each is judged as its client connected last. A certificate whose chain is too long to be stored is left out.

    *refused* pass now and would be refused, with *codes* as the reasons; *admitted* are refused now and would pass.
    *client*: the verdict on the certificate that was asked about, if it is among those judged."""

    certificates: int
    since: datetime | None
    refused: int
    codes: dict[str, int]
    admitted: int
    client: JudgedClient | UnsetType = UNSET


def judge_change(call: MemberCall, change: Change) -> Judged:
    """Return what *change* would do to the clients of the caller's organization.

    The query parameter `client` may name one of their certificates, by its SHA-256.

    Raises: StoreUnavailable.
    """
    rehearsal = rehearse(call.context, call.member.org, change, asked=call.request.query.get("client", "").lower())
    verdict = rehearsal.verdict
    return Judged(
        certificates=rehearsal.certificates,
        since=rehearsal.since,
        refused=rehearsal.refused,
        codes=dict(rehearsal.codes),
        admitted=rehearsal.admitted,
        client=UNSET
        if verdict is None
        else JudgedClient(decision=verdict.decision.value, code=verdict.code, reason=verdict.reason, mend=verdict.mend),
    )
