"""The devices that were seen lately."""

from collections.abc import Mapping
from datetime import datetime

from functions.api.certificate_view import CertificateView, certificate_view
from functions.call import VIEWERS, MemberCall, endpoint
from functions.registry import PREFIX
from functions.web.conditions import PAGING, read_choice, read_page, read_text
from functions.web.contract import View
from functions.web.message import Reply, json_reply
from shared.usecases.devices.seen import DeviceOrder, DeviceSearch, SeenDevice, SeenState, search_devices


class RefusalView(View, frozen=True, kw_only=True):
    """The latest recorded refusal of a device. *id*: of its entry in the activity list."""

    id: str
    at: datetime
    code: str


class SeenDeviceView(View, frozen=True, kw_only=True):
    """A device, as its connections of the last 30 days show it. *id*: its identity, or `certificate:` and the SHA-256
    fingerprint of a certificate that names no device. *lastSeen*, *status*: the latest connection, and its outcome.
    *lastRefusal*: the latest refusal of a client with the name; where its certificate led to no CA, it may have been
    another client, and *status* is without it. *caId*: the CA that accepted the certificate. *certificate*: null where
    only the identity is recorded."""

    id: str
    status: SeenState
    last_seen: datetime
    last_refusal: RefusalView | None
    ca_id: str | None
    certificate: CertificateView | None


class SeenDeviceList(View, frozen=True, kw_only=True):
    """A page of devices. *total*: how many were found, on all pages; *statuses*: how many have each status, whatever
    status was searched for. The records are samples: a device that connected may be absent."""

    results: tuple[SeenDeviceView, ...]
    bookmark: str | None
    total: int
    statuses: Mapping[str, int]


@endpoint(
    "GET",
    PREFIX + "/devices",
    function="activityLog",
    roles=VIEWERS,
    summary="The devices that were seen in the last 30 days, as far as connections are recorded",
    query={
        **PAGING,
        "q": "a part of the identity, the certificate's subject or fingerprint, or the last refusal's code",
        "status": f"only devices with this status: {', '.join(SeenState)}",
        "ca": "only devices whose certificate this CA accepted, by its id",
        "sort": f"{', '.join(DeviceOrder)}; with - before the name, the last comes first; -lastSeen if not given",
    },
    answers={200: SeenDeviceList},
)
def list_devices(call: MemberCall) -> Reply:
    request, page = call.request, read_page(call.request)
    sort = request.query.get("sort", "") or f"-{DeviceOrder.SEEN}"
    search = DeviceSearch(
        text=read_text(request, "q"),
        state=read_choice(request, "status", SeenState),
        ca_id=read_text(request, "ca") or None,
        order=read_choice(request, "sort", DeviceOrder, value=sort.removeprefix("-") or sort) or DeviceOrder.SEEN,
        descending=sort.startswith("-"),
    )
    found = search_devices(call.context, call.member.org, search, after=page.after, limit=page.look_ahead)
    results = tuple(map(_view, page.cut(found.devices)))
    statuses = {state.value: number for state, number in found.states.items()}
    bookmark = page.bookmark(found.devices, results)
    return json_reply(SeenDeviceList(results=results, bookmark=bookmark, total=found.total, statuses=statuses))


def _view(device: SeenDevice) -> SeenDeviceView:
    refusal = device.refusal
    return SeenDeviceView(
        id=device.id,
        status=device.state,
        last_seen=device.seen_at,
        last_refusal=RefusalView(id=refusal.id, at=refusal.at, code=refusal.code or "") if refusal else None,
        ca_id=device.ca_id,
        certificate=certificate_view(device.certificate) if device.certificate else None,
    )
