"""Search the CA certificates of an organization, for people: by text and state, in an order, page by page.

A search reads all CAs of the organization, 1,000 at most. `CACertificates.list_page` reads one page only.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import msgspec

from shared.connection_records import CAUse
from shared.errors import WrongValue
from shared.records import CA, CAStatus, Org
from shared.usecases.cas.documents import CACertificates
from shared.usecases.context import Context
from shared.x509.cache import read_registered
from shared.x509.certificate import Certificate, whole_second

EXPIRING: Final = timedelta(days=30)
_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_HEX: Final = re.compile(r"[0-9a-f]{4,}")


class CAState(StrEnum):
    """What a person wants to know of a CA at a glance. A CA has several states."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    EXPIRING = "expiring"  # within 30 days
    EXPIRED = "expired"
    NOT_YET_VALID = "notYetValid"
    DENIED = "denied"


class Order(StrEnum):
    """What a list of CAs is sorted by."""

    SUBJECT = "subject"
    EXPIRES = "notAfter"
    ADDED = "createdAt"
    USED = "lastUsed"
    CONNECTIONS = "connections30d"


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """Which CAs are searched for, and in which order.

    Args:
        text: is part of the subject, of the issuer or of the description, in any case; or part of the SHA-256
            fingerprint; or is the serial number. Empty: every CA.
        state: one that the CAs have; None: any.
        order, descending: CAs that compare equal are in the order of their ids.
    """

    text: str = ""
    state: CAState | None = None
    order: Order = Order.SUBJECT
    descending: bool = False


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a search.

    Args:
        cas: a page of pairs (id, CA).
        total: how many CAs were found, on all pages.
        states: of the CAs with the text, whatever their state: how many have each state.
    """

    cas: Sequence[tuple[str, CA]]
    total: int
    states: Mapping[CAState, int]


def find_states(ca: CA, at: datetime) -> frozenset[CAState]:
    """Return the states of *ca* at *at*. The second notAfter is within the validity (RFC 5280, 4.1.2.5)."""
    cert, second = read_registered(ca.der), whole_second(at)
    states = {CAState.ACTIVE if ca.status is CAStatus.ACTIVE else CAState.INACTIVE}
    if second > cert.not_after:
        states.add(CAState.EXPIRED)
    elif second < cert.not_before:
        states.add(CAState.NOT_YET_VALID)
    elif cert.not_after - second < EXPIRING:
        states.add(CAState.EXPIRING)
    if ca.denied_at is not None:
        states.add(CAState.DENIED)
    return frozenset(states)


def search_cas(
    context: Context,
    org: Org,
    search: Search,
    uses: Mapping[str, CAUse],
    *,
    after: str = "",
    limit: int | None = None,
) -> Found:
    """Search the CAs of *org*.

    Args:
        uses: of each CA that was used in the last 30 days, by id.
        after: the id of the CA that the page before ended with; "" for the first page.
        limit: how many CAs the page has at most; None: no limit.

    Raises: WrongValue, where no CA of the result has the id *after*; StoreUnavailable.
    """
    at = context.clock()
    matches = _make_test(search.text)
    with_text = [
        (ca_id, ca, find_states(ca, at))
        for ca_id, ca in CACertificates(context.of(org)).iterate()
        if matches(ca, read_registered(ca.der))
    ]
    found = [(ca_id, ca) for ca_id, ca, states in with_text if search.state is None or search.state in states]
    found.sort(key=lambda item: item[0])
    found.sort(key=_key_of(search.order, uses), reverse=search.descending)
    first = _position_after(found, after)
    return Found(
        cas=found[first : None if limit is None else first + limit],
        total=len(found),
        states=Counter(state for _, _, states in with_text for state in states),
    )


def _make_test(text: str) -> Callable[[CA, Certificate], bool]:
    """Return a function that decides whether a CA has *text*."""
    folded = text.strip().casefold()
    digits = re.sub(r"[\s:]", "", folded)
    serial = digits.lstrip("0") or digits  # OpenSSL writes a serial number in pairs: 0A:1B
    is_hex = _HEX.fullmatch(digits) is not None

    def matches(ca: CA, cert: Certificate) -> bool:
        texts = (cert.subject_text, cert.issuer.text, ca.comments)
        return (
            any(folded in part.casefold() for part in texts)
            or (is_hex and digits in cert.fingerprint)
            or serial == f"{cert.serial_number:x}"
        )

    return matches


def _key_of(order: Order, uses: Mapping[str, CAUse]) -> Callable[[tuple[str, CA]], Any]:
    match order:
        case Order.SUBJECT:
            return lambda item: read_registered(item[1].der).subject_text.casefold()
        case Order.EXPIRES:
            return lambda item: read_registered(item[1].der).not_after
        case Order.ADDED:
            return lambda item: item[1].changed.created_at
        case Order.USED:
            return lambda item: use.last if (use := uses.get(item[0])) else _NEVER
        case Order.CONNECTIONS:
            return lambda item: use.count if (use := uses.get(item[0])) else 0


def _position_after(found: Sequence[tuple[str, CA]], after: str) -> int:
    if not after:
        return 0
    for position, (ca_id, _) in enumerate(found):
        if ca_id == after:
            return position + 1
    raise WrongValue(
        field="bookmark", found="The list has changed since this bookmark was made. Read the list from its start"
    )
