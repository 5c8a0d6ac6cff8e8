"""The devices that were seen lately: what their connections left in the records of an organization.

Three records are read, all of bounded size: the certificates that clients presented (`shown`), the identities of the
last 30 days (`usage`), and the latest refusals. Each is a sample, so a device may be absent that connected. A client
whose certificate leads to no CA of the organization is a stranger and is left out: `Why refused?` shows it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from shared.connection_records import ShownChain, ShownKind
from shared.errors import CertificateMalformed, ClientIdInvalid, WrongValue
from shared.records import Activity, ActivityKind, Org
from shared.usecases.activity import list_activity
from shared.usecases.context import Context
from shared.usecases.devices.shown import ShownCertificates
from shared.usecases.devices.usage import read_recent_usage
from shared.validation import identity
from shared.validation.names import ClientId, DeviceName
from shared.validation.policy import Presence
from shared.x509.certificate import Certificate

_REFUSALS: Final = 1_000  # the latest, in which the refusals of devices are looked up
_LATER: Final = datetime.max.replace(tzinfo=UTC)


class SeenState(StrEnum):
    """The outcome of a device's latest connection."""

    ACCEPTED = "accepted"
    REFUSED = "refused"


class SeenDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A device, as its connections show it.

    Args:
        id: the identity, or `certificate:` and the fingerprint of a certificate that names no device.
        seen_at, state: the latest connection that is recorded, and its outcome.
        refusal: the latest that is recorded for the name. Anyone can send the name of a device: a refusal of a
            certificate that leads to no CA changes neither *seen_at* nor *state*.
        ca_id: of the CA that accepted the certificate.
        certificate: the leaf; None where only the identity is recorded.
    """

    id: str
    seen_at: datetime
    state: SeenState
    refusal: Activity | None = None
    ca_id: str | None = None
    certificate: Certificate | None = None


class DeviceOrder(StrEnum):
    """What a list of devices is sorted by."""

    IDENTITY = "id"
    SEEN = "lastSeen"
    EXPIRES = "notAfter"


class DeviceSearch(msgspec.Struct, frozen=True, kw_only=True):
    """Which devices are searched for, and in which order.

    Args:
        text: is part of the identity, of the certificate's subject or fingerprint, or of the last refusal's code.
        state, ca_id: that the devices have; None: any.
        order, descending: devices that compare equal are in the order of their ids.
    """

    text: str = ""
    state: SeenState | None = None
    ca_id: str | None = None
    order: DeviceOrder = DeviceOrder.SEEN
    descending: bool = True


class FoundDevices(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a search.

    Args:
        devices: a page.
        total: how many were found, on all pages.
        states: of the devices with the text and the CA, whatever their state: how many have each state.
    """

    devices: Sequence[SeenDevice]
    total: int
    states: Mapping[SeenState, int]


def search_devices(context: Context, org: Org, search: DeviceSearch, *, after: str = "", limit: int) -> FoundDevices:
    """Search the devices of *org* that were seen in the last 30 days.

    Args:
        after: the id of the device that the page before ended with; "" for the first page.

    Raises: WrongValue, where no device of the result has the id *after*; StoreUnavailable.
    """
    with_text = [device for device in list_devices(context, org) if _matches(device, search)]
    found = [device for device in with_text if search.state in (None, device.state)]
    found.sort(key=lambda device: device.id)
    found.sort(key=_KEYS[search.order], reverse=search.descending)
    first = 0
    if after:
        first = next((at + 1 for at, device in enumerate(found) if device.id == after), 0)
        if not first:
            raise WrongValue(
                field="bookmark",
                found="The list has changed since this bookmark was made. Read the list from its start",
            )
    states = {state: sum(device.state is state for device in with_text) for state in SeenState}
    return FoundDevices(devices=found[first : first + limit], total=len(found), states=states)


def list_devices(context: Context, org: Org) -> Iterable[SeenDevice]:
    """Return the devices of *org* that were seen in the last 30 days. Raises: StoreUnavailable."""
    records, devices, proven = context.of(org), dict[str, SeenDevice](), set[str]()
    for shown in ShownCertificates(records).newest_first():
        if shown.kind is not ShownKind.STRANGER:
            proven.add(shown.fingerprint)
            _add_shown(devices, org.org_id, shown)
    for name, connection in read_recent_usage(records, context.clock()).clients().items():
        if connection.presence is not Presence.VALID:
            continue
        known = devices.get(name)
        if known is None:
            devices[name] = SeenDevice(id=name, seen_at=connection.at, state=SeenState.ACCEPTED)
        elif known.seen_at < connection.at:
            devices[name] = replace(known, seen_at=connection.at, state=SeenState.ACCEPTED)
    for refusal in list_activity(records, [ActivityKind.REFUSAL], after="", limit=_REFUSALS).entries:
        for device_id in _ids_of(org.org_id, refusal):
            known = devices.get(device_id)
            if known is None:
                continue
            if known.refusal is None:  # the newest comes first
                devices[device_id] = _with_refusal(known, refusal, is_proven=refusal.fingerprint in proven)
            break
    return devices.values()


def _with_refusal(device: SeenDevice, refusal: Activity, *, is_proven: bool) -> SeenDevice:
    if not is_proven or refusal.at < device.seen_at:
        return replace(device, refusal=refusal)
    return replace(device, refusal=refusal, seen_at=refusal.at, state=SeenState.REFUSED)


def _add_shown(devices: dict[str, SeenDevice], org_id: str, shown: ShownChain) -> None:
    try:
        cert = Certificate.from_der(shown.chain[0])
    except CertificateMalformed:
        return
    device_id = _identify(org_id, shown.client_id, cert) or _id_of(shown.fingerprint)
    if device_id in devices:  # a newer certificate of the device
        return
    is_accepted = shown.kind is ShownKind.ALLOWED
    devices[device_id] = SeenDevice(
        id=device_id,
        seen_at=shown.at,
        state=SeenState.ACCEPTED if is_accepted else SeenState.REFUSED,
        ca_id=(shown.group.partition("/")[0] or None) if is_accepted else None,
        certificate=cert,
    )


def _id_of(fingerprint: str) -> str:
    return f"certificate:{fingerprint}"


def _identify(org_id: str, client_id: str | None, cert: Certificate) -> str | None:
    """Return the identity of a client: as its client ID says, or as its certificate names one device."""
    device = _device_in(org_id, client_id)
    if device is None:
        device = identity.single(identity.candidates(cert))
    return str(device) if device else None


def _device_in(org_id: str, client_id: str | None) -> DeviceName | None:
    try:
        name = ClientId.parse(client_id or "")
    except ClientIdInvalid:
        return None
    return name.device if name.org_id == org_id else None


def _ids_of(org_id: str, refusal: Activity) -> Iterator[str]:
    """Yield the ids that the device of a refusal may have."""
    device = _device_in(org_id, refusal.client_id)
    if device is not None:
        yield str(device)
    yield refusal.who
    if refusal.fingerprint:
        yield _id_of(refusal.fingerprint)


def _matches(device: SeenDevice, search: DeviceSearch) -> bool:
    if search.ca_id is not None and device.ca_id != search.ca_id:
        return False
    text = search.text.strip().casefold()
    cert, refusal = device.certificate, device.refusal
    texts = (
        device.id,
        cert.subject_text if cert else "",
        refusal.code or "" if refusal else "",
        refusal.client_id or "" if refusal else "",
    )
    digits = text.replace(":", "").replace(" ", "")
    return any(text in part.casefold() for part in texts) or (
        cert is not None and len(digits) >= 4 and digits in cert.fingerprint
    )


def _expiry_of(device: SeenDevice) -> datetime:
    return device.certificate.not_after if device.certificate else _LATER


_KEYS: Final[dict[DeviceOrder, Callable[[SeenDevice], Any]]] = {
    DeviceOrder.IDENTITY: lambda device: device.id.casefold(),
    DeviceOrder.SEEN: lambda device: device.seen_at,
    DeviceOrder.EXPIRES: _expiry_of,
}
