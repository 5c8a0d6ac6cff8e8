"""Move sealed private keys to the newest master key, so that an old one can be retired."""

from collections.abc import Iterator

import msgspec

from shared.ports import KeySealer, SealBroken
from shared.records import DEFAULT, PLATFORM, DefaultCertificate, Record, Sealed, ServerCertificate
from shared.repository import Ref, default_ref, server_ref
from shared.usecases.context import Context
from shared.usecases.orgs.organizations import list_orgs

Keyed = ServerCertificate | DefaultCertificate


def reseal(context: Context, sealer: KeySealer) -> tuple[int, int]:
    """Returns how many keys were sealed anew, and how many were current already. Safe to interrupt and repeat.

    Raises: SealBroken, naming the keys that do not open: their records stay as they are, all others are moved."""
    moved = current = 0
    broken: list[str] = []
    for place, org_id, certificate_id in _places(context):
        changed = False

        def alter(before: Record | None, org_id: str = org_id, certificate_id: str = certificate_id) -> Record | None:
            nonlocal changed
            changed = isinstance(before, Keyed) and not sealer.is_current(before.key)
            if not isinstance(before, Keyed) or not changed:
                return before
            return msgspec.structs.replace(before, key=_anew(sealer, before.key, org_id, certificate_id))

        try:
            context.repository.change(place, alter)
        except SealBroken as error:
            broken.append(f"{org_id}/{certificate_id} ({error})")
            continue
        moved, current = moved + changed, current + (not changed)
    if broken:
        raise SealBroken(
            f"{moved} sealed anew, {current} were current already; {len(broken)} do not open: {', '.join(broken)}"
        )
    return moved, current


def _anew(sealer: KeySealer, sealed: Sealed, org_id: str, certificate_id: str) -> Sealed:
    secret = sealer.open(sealed, org_id=org_id, certificate_id=certificate_id)
    return sealer.seal(secret, org_id=org_id, certificate_id=certificate_id)


def _places(context: Context) -> Iterator[tuple[Ref[Record], str, str]]:
    """Where a private key is kept, with what it is sealed for."""
    if context.repository.get(default_ref()) is not None:
        yield _any(default_ref()), PLATFORM, DEFAULT
    for org in list_orgs(context):
        for certificate_id in org.servers:
            yield _any(server_ref(org.org_id, certificate_id)), org.org_id, certificate_id


def _any(place: Ref[ServerCertificate] | Ref[DefaultCertificate]) -> Ref[Record]:
    return Ref(place.key, place.kind)
