"""How many clients connected and were refused, by the hour."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from functions.call import VIEWERS, MemberCall, endpoint
from functions.registry import PREFIX
from functions.web.contract import View
from functions.web.message import Reply, Request, json_reply
from shared.connection_records import HourOfTraffic
from shared.errors import WrongValue
from shared.usecases.devices.calls import hour_of
from shared.usecases.devices.traffic import read_traffic

DAYS_MAX: Final = 30


class TrafficView(View, frozen=True, kw_only=True):
    """The number of clients in each hour since *start*, the hour of *at* the last. *allowed*: clients that may connect;
    *continued*: clients whose token the broker checks next; *denied*: refused clients, by code. A client that an edge
    refused by itself is in *denied*, and in *allowed* or *continued* as well. Lower bounds."""

    start: datetime
    at: datetime
    allowed: tuple[int, ...]
    continued: tuple[int, ...]
    denied: Mapping[str, tuple[int, ...]]


@endpoint(
    "GET",
    PREFIX + "/traffic",
    function="activityLog",
    roles=VIEWERS,
    summary="How many clients connected and were refused, by hour and code",
    query={"days": f"of how many days, today (UTC) among them; 1 to {DAYS_MAX}, {DAYS_MAX} where not given"},
    answers={200: TrafficView},
)
def get_traffic(call: MemberCall) -> Reply:
    at = call.context.clock().astimezone(UTC)
    days = _days(call.request)
    hours = read_traffic(call.context.of(call.member.org), at, days)
    start = at.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days - 1)
    length = (at - start) // timedelta(hours=1) + 1
    ordered = [hours.get(hour_of(start + timedelta(hours=number)), HourOfTraffic()) for number in range(length)]
    codes = sorted({code for hour in ordered for code in hour.denied})
    view = TrafficView(
        start=start,
        at=at,
        allowed=tuple(hour.allowed for hour in ordered),
        continued=tuple(hour.continued for hour in ordered),
        denied={code: tuple(hour.denied.get(code, 0) for hour in ordered) for code in codes},
    )
    return json_reply(view)


def _days(request: Request) -> int:
    """Return the query's number of days. Raises: WrongValue."""
    text = request.query.get("days", str(DAYS_MAX))
    if not re.fullmatch(r"[0-9]{1,2}", text) or not 1 <= int(text) <= DAYS_MAX:
        raise WrongValue(field="days", found=f"days is a number from 1 to {DAYS_MAX}")
    return int(text)
