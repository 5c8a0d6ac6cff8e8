"""What an export may hold: for each partition the type of its records, and how ids and records belong together.

An import checks each document before it writes the first. A verified export was written by this project; so a document
that fails here comes from a file that is imported without its seal, or from a later version.
"""

from collections.abc import Callable
from datetime import date
from typing import Any, Final, NamedTuple

import msgspec

from shared.connection_records import RefusalPages, ShownChain, ShownIndex, Traffic, Usage
from shared.errors import TrustError
from shared.records import (
    PLATFORM,
    ActivityKind,
    ActivityPage,
    ApiKey,
    CAIndex,
    CAsOfOneName,
    DefaultCertificate,
    Denial,
    DenialKind,
    Denials,
    DenyCount,
    Org,
    Record,
    RecordWithOutbox,
    Role,
    ServerCertificate,
    from_body,
)
from shared.repository import WITHDRAWALS_MAX
from shared.usecases.denials import denial_id
from shared.usecases.jobs.export_file import ExportedDocument, ExportRefused
from shared.validation.ca import ca_id
from shared.validation.deny_list import fingerprint_id, identity_id, key_id
from shared.validation.names import DeviceName, is_org_id
from shared.x509.certificate import Certificate
from shared.x509.fingerprints import fingerprint_of

_HASH_BYTES: Final = 32  # of SHA-256


class CheckedDocument(NamedTuple):
    """A document whose record was checked.

    Args:
        org_id: the organization, or None for a document of the platform.
        document: as the export has it.
        record: the decoded record.
    """

    org_id: str | None
    document: ExportedDocument
    record: Record


class _Kind(NamedTuple):
    """The records of one partition.

    Args:
        record: their type.
        fits: returns whether a record belongs to the organization and to the rest of its key.
    """

    record: type[Record]
    fits: Callable[[str | None, str, Any], bool]


def check_document(number: int, document: ExportedDocument) -> CheckedDocument:
    """Return the checked *document* of the line *number*.

    Raises: ExportRefused, which names the line."""
    name, _, owner = document.partition.partition("/")
    owner, _, rest = owner.partition("/")
    if name in _BY_ORG_ID:
        owner = document.id
    org_id = owner or None
    if document.partition in (PLATFORM, f"key/{PLATFORM}"):
        org_id = None
    elif org_id is None or not is_org_id(org_id):
        raise ExportRefused(f"Line {number} belongs to no organization: {document.partition!r} is no such partition.")
    kind = _KINDS.get(name)
    if kind is None or (bool(rest) and rest not in [*ActivityKind]):
        raise ExportRefused(f"Line {number} is of a kind that this version does not know: {document.partition!r}.")
    try:
        record = from_body(kind.record, document.body)
        fits = kind.fits(org_id, document.id, record) and _fits_outbox(org_id, record)
    except (TrustError, msgspec.MsgspecError, ValueError, RecursionError):
        fits = False
    if not fits:
        raise ExportRefused(f"Line {number} is damaged: what it holds is not what its name says.")
    return CheckedDocument(org_id, document, record)


def _fits_outbox(org_id: str | None, record: Record) -> bool:
    """Return whether the withdrawals that wait in a document are about sessions of its own organization."""
    if not isinstance(record, RecordWithOutbox):
        return True
    return len(record.withdrawals) <= 2 * WITHDRAWALS_MAX and all(  # the last change may have added several
        withdrawal.org_id == org_id and withdrawal.incarnation == record.incarnation
        for withdrawal in record.withdrawals
    )


def _fits_org(org_id: str | None, _: str, org: Org) -> bool:
    return org.org_id == org_id


def _fits_cas(_: str | None, name: str, document: CAsOfOneName) -> bool:
    ids = {ca_id(Certificate.from_der(ca.der)) for ca in document.cas.values()}
    return ids == document.cas.keys() and all(key.startswith(f"{name}-") for key in ids)


def _fits_server(_: str | None, __: str, server: ServerCertificate) -> bool:
    return server.leaf is None or Certificate.from_der(server.leaf).key_hash == server.key_hash


def _fits_default(_: str | None, key: str, __: DefaultCertificate) -> bool:
    return key == "default"


def _fits_denials(_: str | None, look_up: str, document: Denials) -> bool:
    return all(
        key == denial.id == denial_id(look_up, denial.issuer_key_hash) and _finds(look_up, denial)
        for key, denial in document.entries.items()
    )


def _finds(look_up: str, denial: Denial) -> bool:
    """Return whether *look_up* is the look-up id of what *denial* names."""
    match denial.kind:
        case DenialKind.IDENTITY:
            device = DeviceName.parse(denial.value)
            return device is not None and look_up == identity_id(device) and denial.issuer_key_hash is None
        case DenialKind.FINGERPRINT:
            return look_up == fingerprint_id(denial.value) and denial.issuer_key_hash is None
        case DenialKind.KEY:
            return look_up == key_id(denial.value) and denial.issuer_key_hash is None
        case DenialKind.SERIAL:
            ca, _, serial = denial.value.partition(":")
            key_hash = bytes.fromhex(denial.issuer_key_hash or "")
            return len(key_hash) == _HASH_BYTES and bool(ca) and look_up.endswith(f"-{int(serial, 16):x}")


def _fits_key(org_id: str | None, name: str, key: ApiKey) -> bool:
    if key.key != name or key.org_id != org_id:
        return False
    if org_id is None:
        return name.startswith("p-") and key.role in (Role.BROKER, Role.EDGE)
    return name.startswith(f"a-{org_id}-") and not key.orgs


def _fits_day(_: str | None, day: str, __: Usage | Traffic | RefusalPages) -> bool:
    return date.fromisoformat(day).isoformat() == day


def _fits_shown(_: str | None, fingerprint: str, shown: ShownChain) -> bool:
    return shown.fingerprint == fingerprint and bool(shown.chain) and fingerprint_of(shown.chain[0]) == fingerprint


def _fits(_: str | None, __: str, ___: Record) -> bool:
    return True


_BY_ORG_ID: Final = ("org", "caindex")  # partitions of all organizations, whose ids are orgIds
_KINDS: Final[dict[str, _Kind]] = {
    "org": _Kind(Org, _fits_org),
    "caindex": _Kind(CAIndex, _fits),
    "ca": _Kind(CAsOfOneName, _fits_cas),
    "server": _Kind(ServerCertificate, _fits_server),
    PLATFORM: _Kind(DefaultCertificate, _fits_default),
    "deny": _Kind(Denials, _fits_denials),
    "denycount": _Kind(DenyCount, _fits),
    "key": _Kind(ApiKey, _fits_key),
    "usage": _Kind(Usage, _fits_day),
    "traffic": _Kind(Traffic, _fits_day),
    "refusals": _Kind(RefusalPages, _fits_day),
    "shown": _Kind(ShownChain, _fits_shown),
    "shownindex": _Kind(ShownIndex, _fits),
    "activity": _Kind(ActivityPage, _fits),
}
