"""reseal: seal every stored private key under the newest master key, so that an old master key can be retired.

This module opens private keys: it seals them again at once, and no key leaves this module.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from shared.errors import NotFound
from shared.ports import KeySealer, SealBroken
from shared.records import DEFAULT, PLATFORM, Sealed
from shared.repository import ExistingAttempt
from shared.usecases.context import Context
from shared.usecases.organization import iterate_organizations
from shared.usecases.servers.documents import ServerCertificates
from shared.usecases.servers.platform_default import PlatformDefault

Attempts = Iterator[ExistingAttempt[Any]]  # of a ServerCertificate or of the DefaultCertificate: both have a `key`


def reseal(context: Context, sealer: KeySealer) -> tuple[int, int]:
    """Seal every private key again that an older master key sealed.

    Return the number of keys that were sealed again, and of keys that were current already. The call is safe to
    interrupt and to repeat.

    Raises: SealBroken, which names the keys that cannot be opened: their records do not change, all others do;
        TooBusy, StoreUnavailable.
    """
    moved = current = 0
    broken: list[str] = []
    for org_id, certificate_id, attempts in _list_keys(context):
        try:
            is_moved = _reseal(sealer, attempts, org_id, certificate_id)
        except SealBroken as error:
            broken.append(f"{org_id}/{certificate_id} ({error})")
        except NotFound:
            continue  # deleted meanwhile
        else:
            moved, current = moved + is_moved, current + (not is_moved)
    if broken:
        raise SealBroken(
            f"{moved} sealed anew, {current} were current already; {len(broken)} do not open: {', '.join(broken)}"
        )
    return moved, current


def _list_keys(context: Context) -> Iterator[tuple[str, str, Attempts]]:
    """Return the organization and certificate of each private key, with the attempts at changing its record."""
    default = PlatformDefault(context.repository)
    if default.get() is not None:
        yield PLATFORM, DEFAULT, default.changing()
    for org in iterate_organizations(context.repository):
        servers = ServerCertificates(context.of(org))
        for certificate_id in org.servers:
            yield org.org_id, certificate_id, servers.changing(certificate_id)


def _reseal(sealer: KeySealer, attempts: Attempts, org_id: str, certificate_id: str) -> bool:
    """Return whether a private key was sealed again.

    Raises: SealBroken, TooBusy, StoreUnavailable.
    """
    is_moved = False
    for attempt in attempts:
        with attempt as record:
            is_moved = not sealer.is_current(record.key)
            if is_moved:
                key = _seal_again(sealer, record.key, org_id, certificate_id)
                attempt.write(msgspec.structs.replace(record, key=key))
    return is_moved


def _seal_again(sealer: KeySealer, sealed: Sealed, org_id: str, certificate_id: str) -> Sealed:
    secret = sealer.open(sealed, org_id=org_id, certificate_id=certificate_id)
    return sealer.seal(secret, org_id=org_id, certificate_id=certificate_id)
