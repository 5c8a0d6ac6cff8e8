"""Withdrawn means out: whose live sessions must end, told to the edges in a numbered feed and to the operator's broker.

A decision is in force at the next connection without this; it is about the connections that stand. `withdraw` is called
after the change it tells of was made and before it is answered, and again by whoever repeats the change; an edge bears
to hear of a thing twice. What the API cannot know is which sessions there are: an edge compares with what each verdict
told it (docs/decisions/0072).
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec

from shared.errors import WrongValue
from shared.feed import CursorExpired
from shared.records import Withdrawal
from shared.usecases.callers import Credentials
from shared.usecases.context import Context
from shared.usecases.edges.serve import edge_caller

PAGE: Final = 500
_KEEP: Final = 50_000  # lines of the feed; an edge further behind ends every session
_NUMBER: Final = r"[0-9]{1,16}"


class WithdrawalKind(StrEnum):
    """What is withdrawn. The first three are the deny list's kinds, with its values."""

    FINGERPRINT = "fingerprint"  # SHA-256 of a certificate, hex
    SERIAL = "serial"  # <CA id>:<serial number in hex>
    IDENTITY = "identity"  # d:type:device
    CA = "ca"  # a CA's id
    ORG = "org"  # the org's id


def withdraw(context: Context, org_id: str, kind: WithdrawalKind, value: str) -> None:
    """Tell the edges and the operator's broker to end the sessions of *value*.

    Raises: TooBusy, StoreUnavailable; it is safe to repeat."""
    told = Withdrawal(org_id=org_id, kind=kind.value, value=value, at=context.clock())
    number = context.withdrawals.append(told)
    context.notifier.notify(f"withdrawal-{number}-{int(told.at.timestamp())}", _message(number, told))


def _message(number: int, one: Withdrawal) -> bytes:
    return msgspec.json.encode(
        {
            "type": "sessions.withdrawn",
            "timestamp": one.at,
            "data": {"number": number, "org": one.org_id, "kind": one.kind, "value": one.value},
        }
    )


class Page(msgspec.Struct, frozen=True):
    """*missed*: more was withdrawn than is kept, so the edge must end every session it has."""

    head: str
    withdrawals: Sequence[Withdrawal]
    more: bool
    missed: bool


def withdrawn_since(context: Context, credentials: Credentials, since: str) -> Page:
    """What was withdrawn from the caller's orgs after *since*, a `head` told before; nothing where it is empty: an edge
    that begins has no session yet.

    Raises: WrongValue, NotAuthenticated, Forbidden, StoreUnavailable."""
    caller, _ = edge_caller(context, credentials)
    feed = context.withdrawals
    if since == "":
        return Page(str(feed.end()), (), more=False, missed=False)
    if not re.fullmatch(_NUMBER, since):
        raise WrongValue(field="since", found="since takes the head of an earlier answer, or nothing")
    try:
        changes = feed.since(int(since), limit=PAGE)
    except CursorExpired:
        return Page(str(feed.end()), (), more=False, missed=True)
    head = str(changes[-1].number) if changes else str(int(since))
    mine = [one.what for one in changes if caller.asker.may_ask_about(one.what.org_id)]
    return Page(head, mine, more=len(changes) == PAGE, missed=False)


def sweep_withdrawals(context: Context) -> None:
    """Forget what no edge can need any more."""
    context.withdrawals.trim(context.withdrawals.end() - _KEEP)
