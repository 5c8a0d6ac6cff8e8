"""Withdrawals: the sessions that edges and the operator's broker must end, or must have judged again.

A decision applies to the next connection at once. A withdrawal is about connections that are open already. It is stored
in the changed document, by the same write, so that no crash loses it. `publish_waiting` brings it into the feed after
the change was stored and before the change is answered; a repeated call and a sweep bring what waits. Readers must
tolerate duplicates. The API does not know which sessions exist: an edge compares a withdrawal with the verdicts of its
sessions (docs/decisions/0072, 0112).
"""

import re
from collections.abc import Collection, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from shared.errors import WrongValue
from shared.feed import CursorExpired, Position, new_line_id
from shared.records import Withdrawal
from shared.repository import Waiting
from shared.usecases.callers import Credentials
from shared.usecases.context import Context
from shared.usecases.edges.callers import authenticate_edge, note_contact

PAGE: Final = 500
_KEEP: Final = 50_000  # lines of the feed; an edge further behind ends every session
_SINCE: Final = r"(?P<number>[0-9]{1,16})(\.(?P<id>[0-9a-f]{12}))?"


class WithdrawalKind(StrEnum):
    """What is withdrawn. The first three are the kinds of the deny list, with its values.

    An agent of version 0.1.0 ends every session of the organization for a kind that it does not know. So RECHECK is
    for agents that give their name, which that version does not."""

    FINGERPRINT = "fingerprint"  # SHA-256 of a certificate, hex
    SERIAL = "serial"  # <CA id>:<serial number in hex>
    IDENTITY = "identity"  # d:type:device
    CA = "ca"  # the id of a CA certificate
    ORG = "org"  # the id of the organization
    RECHECK = "recheck"  # "settings" or "policy": all sessions of the organization are judged again


class WithdrawalsPage(msgspec.Struct, frozen=True):
    """A page of withdrawals.

    Args:
        head: the cursor for the next request.
        more: whether the next page has withdrawals already.
        missed: whether withdrawals were deleted before the edge read them. The edge must end all its sessions.
    """

    head: str
    withdrawals: Sequence[Withdrawal]
    more: bool
    missed: bool


def make_withdrawal(
    at: datetime,
    org_id: str,
    kind: WithdrawalKind,
    value: str,
    *,
    key_digest: str | None = None,
    serial_digest: str | None = None,
) -> Withdrawal:
    """Return a withdrawal of the sessions of *value*, to be stored with the change (`Attempt.write`).

    Args:
        key_digest: of a CA: finds the sessions over any certificate with its subject and key.
        serial_digest: of a serial number: finds the sessions over a certificate with it, an intermediate included.
    """
    return Withdrawal(
        id=new_line_id(),
        org_id=org_id,
        kind=kind.value,
        value=value,
        at=at,
        key_digest=key_digest,
        serial_digest=serial_digest,
    )


def publish(context: Context, waiting: Collection[Withdrawal]) -> None:
    """Bring the withdrawals of a document into the feed. The next write of the document removes them there.

    Raises: TooBusy, StoreUnavailable. The call is safe to repeat.
    """
    for withdrawal in waiting:
        if not context.repository.is_published(withdrawal):
            number = context.withdrawals.append(withdrawal)
            context.repository.note_published(withdrawal)
            context.notifier.notify(f"withdrawal-{withdrawal.id}", _encode_message(number, withdrawal))


def publish_waiting(context: Context, waiting: Waiting) -> None:
    """Bring the withdrawals that wait in a document into the feed, and remove them from the document.

    Raises: TooBusy, StoreUnavailable. The call is safe to repeat.
    """
    if waiting.withdrawals:
        publish(context, waiting.withdrawals)
        waiting.repository.drop_published(waiting.ref, first=waiting.batch)


def read_withdrawals(context: Context, credentials: Credentials, since: str, *, edge: str = "") -> WithdrawalsPage:
    """Return the withdrawals of the caller's organizations after *since*, the `head` of an earlier page.

    An empty *since* returns the head alone: an edge that starts has no sessions to end.

    Args:
        edge: what the edge calls itself. Only an edge that gives a name knows the kind RECHECK.

    Raises: WrongValue, NotAuthenticated, Forbidden, StoreUnavailable.
    """
    caller, _ = authenticate_edge(context, credentials)
    note_contact(context, caller, edge)
    feed = context.withdrawals
    if since == "":
        return WithdrawalsPage(str(feed.head()), (), more=False, missed=False)
    cursor = re.fullmatch(_SINCE, since)
    if cursor is None:
        raise WrongValue(field="since", found="since takes the head of an earlier answer, or nothing")
    position = Position(int(cursor["number"]), cursor["id"] or "")
    try:
        changes = feed.since(position.number, line_id=position.id, limit=PAGE)
    except CursorExpired:
        return WithdrawalsPage(str(feed.head()), (), more=False, missed=True)
    head = changes[-1].position if changes else position
    withdrawals = [
        change.what
        for change in changes
        if caller.scope.may_ask_about(change.what.org_id, change.what.incarnation)
        and (edge or change.what.kind != WithdrawalKind.RECHECK)
    ]
    return WithdrawalsPage(str(head), withdrawals, more=len(changes) == PAGE, missed=False)


def sweep_withdrawals(context: Context) -> None:
    """Delete withdrawals that no edge needs any more.

    Raises: TooBusy, StoreUnavailable.
    """
    context.withdrawals.trim(context.withdrawals.end() - _KEEP)


def _encode_message(number: int, withdrawal: Withdrawal) -> bytes:
    """Return the body of the webhook message."""
    return msgspec.json.encode(
        {
            "type": "sessions.withdrawn",
            "timestamp": withdrawal.at,
            "data": {
                "number": number,
                "org": withdrawal.org_id,
                "kind": withdrawal.kind,
                "value": withdrawal.value,
            },
        }
    )
