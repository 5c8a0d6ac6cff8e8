"""Move sealed private keys to the newest master key, so that an old one can be retired."""

from collections.abc import Iterator

import msgspec

from shared.ports import SealBroken
from shared.records import DEFAULT, PLATFORM, DefaultCertificate, Record, Sealed, ServerCertificate
from shared.repository import Place, default_place, server_place
from shared.usecases.orgs import list_orgs
from shared.usecases.tools import Tools

Keyed = ServerCertificate | DefaultCertificate


def reseal(tools: Tools) -> tuple[int, int]:
    """Returns how many keys were sealed anew, and how many were current already. Safe to interrupt and repeat.

    Raises: SealBroken, naming the keys that do not open: their records stay as they are, all others are moved."""
    moved = current = 0
    broken: list[str] = []
    for place, org_id, certificate_id in _places(tools):
        changed = False

        def alter(before: Record | None, org_id: str = org_id, certificate_id: str = certificate_id) -> Record | None:
            nonlocal changed
            changed = isinstance(before, Keyed) and not tools.sealer.is_current(before.key)
            if not isinstance(before, Keyed) or not changed:
                return before
            return msgspec.structs.replace(before, key=_anew(tools, before.key, org_id, certificate_id))

        try:
            tools.repository.change(place, alter)
        except SealBroken as error:
            broken.append(f"{org_id}/{certificate_id} ({error})")
            continue
        moved, current = moved + changed, current + (not changed)
    if broken:
        raise SealBroken(
            f"{moved} sealed anew, {current} were current already; {len(broken)} do not open: {', '.join(broken)}"
        )
    return moved, current


def _anew(tools: Tools, sealed: Sealed, org_id: str, certificate_id: str) -> Sealed:
    secret = tools.sealer.open(sealed, org_id=org_id, certificate_id=certificate_id)
    return tools.sealer.seal(secret, org_id=org_id, certificate_id=certificate_id)


def _places(tools: Tools) -> Iterator[tuple[Place[Record], str, str]]:
    """Where a private key is kept, with what it is sealed for."""
    if tools.repository.get(default_place()) is not None:
        yield _any(default_place()), PLATFORM, DEFAULT
    for org in list_orgs(tools):
        for certificate_id in org.servers:
            yield _any(server_place(org.org_id, certificate_id)), org.org_id, certificate_id


def _any(place: Place[ServerCertificate] | Place[DefaultCertificate]) -> Place[Record]:
    return Place(place.key, place.kind)
