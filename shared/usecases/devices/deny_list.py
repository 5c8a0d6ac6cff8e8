"""The deny list: clients that are refused whatever their chain proves (docs/rules.md, "Deny list").

A connecting client finds an entry by what it presents. A client often does not send its CA, so an entry that means a
registered CA also marks that CA (`shared.usecases.cas.documents`).
"""

import re
from datetime import datetime
from typing import Final

import msgspec

from shared.errors import InvalidDenial, NotFound
from shared.records import Denial, DenialKind, Org, Withdrawal
from shared.usecases.callers import Member
from shared.usecases.cas.documents import CACertificates
from shared.usecases.context import Context, make_entry
from shared.usecases.denials import DenyList, denial_id, look_up_of
from shared.usecases.edges.withdrawals import WithdrawalKind, make_withdrawal, publish_waiting
from shared.validation.deny_list import fingerprint_id, identity_id, issuer_serial_id, key_id
from shared.validation.names import DeviceName
from shared.x509.certificate import Certificate
from shared.x509.certificate_files import read_certificates
from shared.x509.digests import serial_digest

_FINGERPRINT: Final = r"[0-9a-f]{64}"
_SERIAL: Final = r"([0-9a-f]{16}-[0-9a-f]{32}):([0-9a-f]{1,42})"


def deny(
    context: Context,
    member: Member,
    *,
    kind: DenialKind | None = None,
    value: str | None = None,
    certificate: bytes | None = None,
    reason: str = "",
) -> tuple[Denial, bool]:
    """Put a certificate, a serial number or a device on the list. Return the entry, and whether the entry is new.

    Args:
        kind, value: `fingerprint` and SHA-256 in hex (colons allowed); `serial` and `<CA id>:<serial in hex>`;
            `identity` and `d:type:device`; `key` and SHA-256 of SubjectPublicKeyInfo in hex.
        certificate: in place of *value*, a certificate whose fingerprint goes on the list, or its public key.

    Raises: InvalidDenial, NotFound (no such CA), NotACertificate, TooManyDenials."""
    at = context.clock()
    cas = CACertificates(context.of(member.org))
    target = _parse_target(cas, kind, value, certificate)
    denial = _make_denial(at, member, target, reason)
    activity = make_entry(at, member.who, "deny", entry=denial.id)
    withdrawal = _withdraw(at, member.org_id, target)
    denial, is_new, waiting = DenyList(context.of(member.org)).add(
        target.look_up, denial, activity=activity, withdrawal=withdrawal
    )
    marked = cas.refresh_marks(cas.list_meant_by([denial]))
    for withdrawals in (waiting, *marked):  # last, so that a device that connects again at once is refused
        publish_waiting(context, withdrawals)
    return denial, is_new


def plan_denial(
    context: Context,
    member: Member,
    *,
    kind: DenialKind | None = None,
    value: str | None = None,
    certificate: bytes | None = None,
) -> Denial:
    """Return the entry that `deny` would put on the list. An entry of that id may be on the list already.

    Raises: InvalidDenial, NotFound (no such CA), NotACertificate, TooManyDenials, StoreUnavailable."""
    records = context.of(member.org)
    target = _parse_target(CACertificates(records), kind, value, certificate)
    denial = _make_denial(context.clock(), member, target, "")
    DenyList(records).check_room(target.look_up, denial.id)
    return denial


def lift(context: Context, member: Member, entry_id: str) -> None:
    """Take an entry off the list. The same call again completes a call that was cut short.

    Raises: NotFound."""
    cas = CACertificates(context.of(member.org))
    deny_list = DenyList(context.of(member.org))
    look_up = look_up_of(entry_id)
    activity = make_entry(context.clock(), member.who, "lift", entry=entry_id)
    removed, waiting = deny_list.remove(entry_id, activity=activity)
    cas.refresh_marks(cas.list_looked_up(look_up))
    publish_waiting(context, waiting)
    deny_list.delete_if_empty(look_up)
    if removed is None:
        raise NotFound(what="such entry on the deny list")


def list_denials(context: Context, org: Org, *, after: str, limit: int) -> list[Denial]:
    """Return at most *limit* entries whose ids come after *after*, ordered by id."""
    return DenyList(context.of(org)).list_page(after=after, limit=limit)


# ------------------------------------------------------------------------------------------ what a call names


class _Target(msgspec.Struct, frozen=True):
    """What a new entry refuses.

    Args:
        look_up: the id by which a verdict finds the entry.
        issuer_key_hash: of a serial number: identifies the CA among those of its name.
        serial_digest: of a serial number: finds the sessions over a certificate with that number.
        key_digest: of a key, where its certificate was given: finds the sessions over its subject and key.
    """

    look_up: str
    kind: DenialKind
    value: str
    issuer_key_hash: str | None = None
    serial_digest: str | None = None
    key_digest: str | None = None


def _make_denial(at: datetime, member: Member, target: _Target, reason: str) -> Denial:
    return Denial(
        id=denial_id(target.look_up, target.issuer_key_hash),
        kind=target.kind,
        value=target.value,
        reason=reason,
        issuer_key_hash=target.issuer_key_hash,
        key_digest=target.key_digest,
        created_at=at,
        created_by=member.who,
    )


def _withdraw(at: datetime, org_id: str, target: _Target) -> Withdrawal:
    """Return the withdrawal of the sessions that *target* may concern.

    Edges find the sessions over a key by its subject and key together. Of a key without its certificate the subject is
    not known, so every session of the organization ends, and each device is judged again when it connects."""
    if target.kind is not DenialKind.KEY:
        kind = WithdrawalKind(target.kind.value)
        return make_withdrawal(at, org_id, kind, target.value, serial_digest=target.serial_digest)
    if target.key_digest is None:
        return make_withdrawal(at, org_id, WithdrawalKind.ORG, org_id)
    return make_withdrawal(at, org_id, WithdrawalKind.CA, target.value, key_digest=target.key_digest)


def _parse_target(
    cas: CACertificates, kind: DenialKind | None, value: str | None, certificate: bytes | None
) -> _Target:
    if certificate is not None:
        return _parse_certificate(certificate, kind, value)
    if kind is None or value is None:
        raise InvalidDenial(found="Neither a certificate nor kind and value were sent", hint="Send one of the two.")
    match kind:
        case DenialKind.FINGERPRINT:
            return _parse_fingerprint(value)
        case DenialKind.SERIAL:
            return _parse_serial(cas, value)
        case DenialKind.IDENTITY:
            return _parse_identity(value)
        case DenialKind.KEY:
            return _Target(key_id(_parse_sha256(value)), DenialKind.KEY, _parse_sha256(value))


def _parse_certificate(data: bytes, kind: DenialKind | None, value: str | None) -> _Target:
    if value is not None or kind not in (None, DenialKind.FINGERPRINT, DenialKind.KEY):
        raise InvalidDenial(found="Both a certificate and a value were sent", hint="Send one of the two.")
    cert, *more = dict.fromkeys(read_certificates(data))
    if more:  # the first certificate of a chain may be the CA of a whole fleet
        raise InvalidDenial(
            field="certificate",
            found=f"{len(more) + 1} certificates are in the file",
            hint="Send the one that is meant, alone.",
        )
    if kind is DenialKind.KEY:
        return _Target(key_id(cert.key_hash), DenialKind.KEY, cert.key_hash, key_digest=cert.key_digest)
    return _Target(fingerprint_id(cert.fingerprint), DenialKind.FINGERPRINT, cert.fingerprint)


def _parse_fingerprint(value: str) -> _Target:
    digits = _parse_sha256(value)
    return _Target(fingerprint_id(digits), DenialKind.FINGERPRINT, digits)


def _parse_sha256(value: str) -> str:
    digits = value.replace(":", "").replace(" ", "").lower()
    if not re.fullmatch(_FINGERPRINT, digits):
        raise InvalidDenial(
            field="value", found="This is not a SHA-256 fingerprint", hint="It has 64 hex digits; colons do not matter."
        )
    return digits


def _parse_identity(value: str) -> _Target:
    device = DeviceName.parse(value)
    if device is None or device.is_type:
        raise InvalidDenial(
            field="value", found="This is not a device's identity", hint="Write d:type:device, or g:type:device."
        )
    return _Target(identity_id(device), DenialKind.IDENTITY, str(device))


def _parse_serial(cas: CACertificates, value: str) -> _Target:
    match = re.fullmatch(_SERIAL, value.lower())
    if match is None:
        raise InvalidDenial(
            field="value",
            found="This is not a serial number of a CA",
            hint="Write the id of the CA that issued it, a colon, and the serial number in hex.",
        )
    issuer_id, serial = match[1], int(match[2], 16)
    ca = cas.find(issuer_id)
    if ca is None:
        raise NotFound(what="CA certificate of that id", field="value")
    issuer = Certificate.from_der(ca.der)
    look_up = issuer_serial_id(issuer.subject.digest, f"{serial:x}")
    key_hash = issuer.key_hash
    digest = serial_digest(key_hash, serial)
    return _Target(look_up, DenialKind.SERIAL, f"{issuer_id}:{serial:x}", key_hash, digest)
