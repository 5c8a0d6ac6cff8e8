"""The deny list: who is refused whatever the chain says (docs/rules.md, "Deny list").

An entry is one document, found by what a connecting client shows. A CA is often not sent by the client, so an entry
that means a registered CA is also marked on that CA's record; `refresh_marks` makes the marks agree with the entries.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final

import msgspec

from shared.errors import InvalidDenial, NotFound
from shared.records import CA, CAsOfOneName, Denial, DenialKind, Denials
from shared.repository import Ref, cas_ref, denials_ref
from shared.usecases.callers import Member
from shared.usecases.context import Context, entry
from shared.usecases.edges.withdrawals import WithdrawalKind, withdraw
from shared.validation.deny_list import certificate_ids, fingerprint_id, identity_id, issuer_serial_id
from shared.validation.names import DeviceName
from shared.x509.certificate import Certificate
from shared.x509.certificate_files import read_certificates

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
    """Put a certificate, a serial number or a device on the list. Returns the entry, and whether it is new.

    Args:
        kind, value: `fingerprint` and SHA-256 in hex (colons allowed); `serial` and `<CA id>:<serial in hex>`;
            `identity` and `d:type:device`.
        certificate: instead, a certificate whose fingerprint is meant.

    Raises: InvalidDenial, NotFound (no such CA), NotACertificate."""
    at = context.clock()
    if certificate is not None:
        wanted = _by_certificate(certificate, kind, value)
    elif kind is None or value is None:
        raise InvalidDenial(found="Neither a certificate nor kind and value were sent", hint="Send one of the two.")
    elif kind is DenialKind.FINGERPRINT:
        wanted = _by_fingerprint(value)
    elif kind is DenialKind.SERIAL:
        wanted = _by_serial(context, member.org_id, value)
    else:
        wanted = _by_identity(value)
    look_up, kind, value, issuer_key = wanted
    denial_id = look_up if issuer_key is None else f"{look_up}-{issuer_key[:16]}"
    new = False

    def alter(before: Denials | None) -> Denials:
        nonlocal new
        entries = before.entries if before else {}
        new = denial_id not in entries
        if before is not None and not new:
            return before
        denial = Denial(
            id=denial_id,
            kind=kind,
            value=value,
            reason=reason,
            issuer_key_hash=issuer_key,
            created_at=at,
            created_by=member.who,
        )
        line = entry(at, member.who, "deny", entry=denial_id)
        return Denials(entries={**entries, denial_id: denial}, outbox=(line,))

    after = context.repository.change(denials_ref(member.org_id, look_up), alter, org_id=member.org_id)
    assert after is not None  # noqa: S101 - alter never removes
    meant = _registered(context, member.org_id, after.entries[denial_id])
    refresh_marks(context, member.org_id, meant)
    withdraw(context, member.org_id, WithdrawalKind(kind.value), value)  # again with a repeated call: harmless
    if kind is DenialKind.FINGERPRINT:  # a CA that is registered in its other form: sessions rest on its own id
        for ca_id in meant:
            if not ca_id.endswith(value[:32]):
                withdraw(context, member.org_id, WithdrawalKind.CA, ca_id)
    return after.entries[denial_id], new


def lift(context: Context, member: Member, denial_id: str) -> None:
    """Take an entry off the list; the same call again finishes one that was cut short. Raises: NotFound."""
    at = context.clock()
    look_up = denial_id.rpartition("-")[0] if denial_id.startswith("s-") else denial_id
    lifted: Denial | None = None

    def alter(before: Denials | None) -> Denials | None:
        nonlocal lifted
        if before is None or denial_id not in before.entries:
            if lifted is not None:  # it was there a moment ago: this call took it off, or another beside it
                return before
            raise NotFound(what="such entry on the deny list")
        lifted = before.entries[denial_id]
        line = entry(at, member.who, "lift", entry=denial_id)
        return Denials(entries={k: v for k, v in before.entries.items() if k != denial_id}, outbox=(line,))

    def remove_empty(before: Denials | None) -> Denials | None:
        return None if before is None or not before.entries else before

    place = denials_ref(member.org_id, look_up)
    try:
        context.repository.change(place, alter, org_id=member.org_id)
    except NotFound:
        refresh_every_mark(context, member.org_id)
        raise
    context.repository.change(place, remove_empty, org_id=member.org_id)
    assert lifted is not None  # noqa: S101 - alter has refused otherwise
    refresh_marks(context, member.org_id, _registered(context, member.org_id, lifted))


def listed(context: Context, org_id: str, *, after: str, limit: int) -> list[Denial]:
    """At most *limit* entries whose ids come after *after*, ordered by id."""
    found: list[Denial] = []
    start = after.rpartition("-")[0] if after.startswith("s-") else after  # a serial's document may hold several
    first = context.repository.get(denials_ref(org_id, start)) if start else None
    if first is not None:
        found += [one for one in first.entries.values() if one.id > after]
    while len(found) < limit:
        page = context.repository.list(f"deny/{org_id}", Denials, after=start, limit=limit)
        if not page:
            break
        found += [one for _, document in page for one in document.entries.values() if one.id > after]
        start = page[-1][0]
    return sorted(found, key=lambda one: one.id)[:limit]


# --------------------------------------------------------------------------------------- what an entry means

_Wanted = tuple[str, DenialKind, str, str | None]  # look-up id, kind, value, issuing CA's key hash


def _by_certificate(data: bytes, kind: DenialKind | None, value: str | None) -> _Wanted:
    if value is not None or kind not in (None, DenialKind.FINGERPRINT):
        raise InvalidDenial(found="Both a certificate and a value were sent", hint="Send one of the two.")
    cert, *more = dict.fromkeys(read_certificates(data))
    if more:  # a chain's first may be the CA of a whole fleet
        raise InvalidDenial(
            field="certificate",
            found=f"{len(more) + 1} certificates are in the file",
            hint="Send the one that is meant, alone.",
        )
    return fingerprint_id(cert.fingerprint), DenialKind.FINGERPRINT, cert.fingerprint, None


def _by_fingerprint(value: str) -> _Wanted:
    plain = value.replace(":", "").replace(" ", "").lower()
    if not re.fullmatch(_FINGERPRINT, plain):
        raise InvalidDenial(
            field="value", found="This is not a SHA-256 fingerprint", hint="It has 64 hex digits; colons do not matter."
        )
    return fingerprint_id(plain), DenialKind.FINGERPRINT, plain, None


def _by_identity(value: str) -> _Wanted:
    device = DeviceName.parse(value)
    if device is None or device.is_type:
        raise InvalidDenial(
            field="value", found="This is not a device's identity", hint="Write d:type:device, or g:type:device."
        )
    return identity_id(device), DenialKind.IDENTITY, str(device), None


def _by_serial(context: Context, org_id: str, value: str) -> _Wanted:
    found = re.fullmatch(_SERIAL, value.lower())
    if found is None:
        raise InvalidDenial(
            field="value",
            found="This is not a serial number of a CA",
            hint="Write the id of the CA that issued it, a colon, and the serial number in hex.",
        )
    issuer_id, serial = found[1], int(found[2], 16)
    issuer = _ca(context, org_id, issuer_id)
    if issuer is None:
        raise NotFound(what="CA certificate of that id", field="value")
    look_up = issuer_serial_id(issuer.subject.digest, serial)
    return look_up, DenialKind.SERIAL, f"{issuer_id}:{serial:x}", issuer.key_hash


# ---------------------------------------------------------------------------------- marks on registered CAs


def _registered(context: Context, org_id: str, denial: Denial) -> list[str]:
    """Ids of registered CAs that *denial* may mean."""
    return [] if denial.kind is DenialKind.IDENTITY else _meant(context, org_id, [denial], marked=False)


def refresh_marks(context: Context, org_id: str, ids: Iterable[str]) -> None:
    """Make the marks on these registered CAs agree with the deny list.

    Called after a CA was registered and after an entry changed: whichever of the two comes second sees the other."""
    for certificate_id in ids:

        def alter(before: CAsOfOneName | None, certificate_id: str = certificate_id) -> CAsOfOneName | None:
            if before is None or certificate_id not in before.cas:
                return before
            ca = before.cas[certificate_id]
            since = denied_since(context, org_id, ca.der)
            if since == ca.denied_at:
                return before
            marked = msgspec.structs.replace(ca, denied_at=since)
            return msgspec.structs.replace(before, cas={**before.cas, certificate_id: marked})

        context.repository.change(cas_ref(org_id, certificate_id[:16]), alter, org_id=org_id)


def refresh_every_mark(context: Context, org_id: str) -> None:
    """`refresh_marks` for all CAs that bear a mark, or that an entry may mean: where a call that changed an entry was
    cut short before it came to them."""
    every = context.repository.every(f"deny/{org_id}", Denials)
    denials = [one for _, document in every for one in document.entries.values()]
    refresh_marks(context, org_id, _meant(context, org_id, denials, marked=True))


def _meant(context: Context, org_id: str, denials: Sequence[Denial], *, marked: bool) -> list[str]:
    """Ids of registered CAs that one of *denials* may mean, and, where asked for, of those that bear a mark."""
    values = {kind: {one.value for one in denials if one.kind is kind} for kind in DenialKind}
    serials = {int(value.partition(":")[2], 16) for value in values[DenialKind.SERIAL]}
    meant = []
    for _, named in context.repository.every(f"ca/{org_id}", CAsOfOneName):
        for ca_id, ca in named.cas.items():
            cert = Certificate.from_der(ca.der)
            is_denied = not values[DenialKind.FINGERPRINT].isdisjoint(cert.fingerprints)
            if is_denied or cert.serial_number in serials or (marked and ca.denied_at):
                meant.append(ca_id)
    return meant


def denied_since(context: Context, org_id: str, der: bytes) -> datetime | None:
    """When the first entry that means the CA certificate *der* was made; None where none does."""
    cert = Certificate.from_der(der)
    places: list[Ref[Denials]] = [denials_ref(org_id, look_up) for look_up in certificate_ids(cert)]
    found = context.repository.find(places)
    entries = [one for place in places for one in (found.get(place) or Denials()).entries.values()]
    issuers = list(_issuer_keys(context, org_id, cert)) if any(one.issuer_key_hash for one in entries) else []
    since = [one.created_at for one in entries if one.issuer_key_hash is None or one.issuer_key_hash in issuers]
    return min(since, default=None)


def _issuer_keys(context: Context, org_id: str, cert: Certificate) -> Iterator[str]:
    """Key hashes of registered CAs that did sign *cert*."""
    named = context.repository.get(cas_ref(org_id, cert.issuer.digest[:16]))
    for ca in named.cas.values() if named else ():
        issuer = Certificate.from_der(ca.der)
        if cert.is_signed_by(issuer):
            yield issuer.key_hash


def _ca(context: Context, org_id: str, certificate_id: str) -> Certificate | None:
    named = context.repository.get(cas_ref(org_id, certificate_id[:16]))
    ca: CA | None = named.cas.get(certificate_id) if named else None
    return None if ca is None else Certificate.from_der(ca.der)
