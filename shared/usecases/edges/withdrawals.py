"""Withdrawals: the sessions that edges and the operator's broker must end.

A decision applies to the next connection at once. A withdrawal is about connections that are open already. `withdraw`
is called after a change was stored and before the change is answered, and again when an interrupted call is repeated;
readers must tolerate duplicates. The API does not know which sessions exist: an edge compares a withdrawal with the
verdicts of its sessions (docs/decisions/0072).
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec

from shared.errors import WrongValue
from shared.feed import CursorExpired
from shared.records import Org, Withdrawal
from shared.usecases.callers import Credentials
from shared.usecases.context import Context
from shared.usecases.edges.callers import authenticate_edge

PAGE: Final = 500
_KEEP: Final = 50_000  # lines of the feed; an edge further behind ends every session
_NUMBER: Final = r"[0-9]{1,16}"


class WithdrawalKind(StrEnum):
    """What is withdrawn. The first three are the kinds of the deny list, with its values."""

    FINGERPRINT = "fingerprint"  # SHA-256 of a certificate, hex
    SERIAL = "serial"  # <CA id>:<serial number in hex>
    IDENTITY = "identity"  # d:type:device
    CA = "ca"  # the id of a CA certificate
    ORG = "org"  # the id of the organization


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


def withdraw(context: Context, org: Org, kind: WithdrawalKind, value: str) -> None:
    """Make the edges and the operator's broker end the sessions of *value* in *org*.

    Raises: TooBusy, StoreUnavailable. The call is safe to repeat.
    """
    withdrawal = Withdrawal(
        org_id=org.org_id, incarnation=org.incarnation, kind=kind.value, value=value, at=context.clock()
    )
    number = context.withdrawals.append(withdrawal)
    context.notifier.notify(
        f"withdrawal-{number}-{int(withdrawal.at.timestamp())}", _encode_message(number, withdrawal)
    )


def read_withdrawals(context: Context, credentials: Credentials, since: str) -> WithdrawalsPage:
    """Return the withdrawals of the caller's organizations after *since*, the `head` of an earlier page.

    An empty *since* returns the head alone: an edge that starts has no sessions to end.

    Raises: WrongValue, NotAuthenticated, Forbidden, StoreUnavailable.
    """
    caller, _ = authenticate_edge(context, credentials)
    feed = context.withdrawals
    if since == "":
        return WithdrawalsPage(str(feed.end()), (), more=False, missed=False)
    if not re.fullmatch(_NUMBER, since):
        raise WrongValue(field="since", found="since takes the head of an earlier answer, or nothing")
    try:
        changes = feed.since(int(since), limit=PAGE)
    except CursorExpired:
        return WithdrawalsPage(str(feed.end()), (), more=False, missed=True)
    head = str(changes[-1].number) if changes else str(int(since))
    scope = caller.scope
    withdrawals = [
        change.what for change in changes if scope.may_ask_about(change.what.org_id, change.what.incarnation)
    ]
    return WithdrawalsPage(head, withdrawals, more=len(changes) == PAGE, missed=False)


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
