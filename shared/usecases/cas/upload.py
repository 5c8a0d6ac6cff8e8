"""uploadCA: register a CA certificate whose devices are trusted."""

from datetime import datetime
from typing import Final

import msgspec

from shared.errors import TooManyCAs, TooManyCAsOfOneName
from shared.records import CA, CAIndex, CAsOfOneName, Org
from shared.repository import ca_index_ref, cas_ref, org_ref
from shared.usecases.callers import Member
from shared.usecases.context import Context, count_in_window, entry, made
from shared.usecases.devices.deny_list import denied_since, refresh_marks
from shared.validation.ca import ca_id, read_ca
from shared.validation.names import messaging_host
from shared.validation.notices import Notice, devices_must_send_sni
from shared.x509.certificate import Certificate

CAS_MAX: Final = 1_000  # of an org
CAS_OF_ONE_NAME_MAX: Final = 10


class Uploaded(msgspec.Struct, frozen=True):
    id: str
    ca: CA
    created: bool
    warnings: list[Notice] = msgspec.field(default_factory=list)


def upload_ca(context: Context, member: Member, data: bytes, *, comments: str = "") -> Uploaded:
    """Register the CA certificate in *data* (PEM or DER); it is active at once.

    The same certificate again is not an error and changes nothing.

    Raises: Rejected (see `shared.validation.ca.read_ca`), TooManyCAs, TooManyCAsOfOneName, RateLimited."""
    at = context.clock()
    cert = read_ca(data, at=at, weak=context.weak_keys)
    upload = _Upload(context, member, cert, ca_id(cert), at, comments)
    upload.reserve()
    ca, created = upload.write()
    upload.keep_reserved()
    refresh_marks(context, member.org_id, [upload.id])
    warnings = upload.require_sni()
    return Uploaded(upload.id, ca, created, warnings)


class _Upload(msgspec.Struct, frozen=True):
    """One upload's steps. Each may have been done before by an upload that was cut short, or runs beside this one."""

    context: Context
    member: Member
    cert: Certificate
    id: str
    at: datetime
    comments: str

    def reserve(self) -> None:
        """Take a place in the org's index, so that the limit holds under any number of concurrent uploads."""

        def alter(before: CAIndex | None) -> CAIndex:
            index = before or CAIndex()
            if self.id in index.cas:
                return index
            if len(index.cas) >= CAS_MAX:
                raise TooManyCAs(limit=CAS_MAX)
            pace = count_in_window(index.pace, self.at, self.context.ca_rate_per_minute, "CA certificates")
            return CAIndex({**index.cas, self.id: True}, pace)

        self.context.repository.change(ca_index_ref(self.member.org_id), alter)

    def write(self) -> tuple[CA, bool]:
        """Put the CA beside those of its name. Returns it as it stands, and whether it is new."""
        created = False

        def alter(before: CAsOfOneName | None) -> CAsOfOneName:
            nonlocal created
            named = before or CAsOfOneName()
            created = self.id not in named.cas
            if not created:
                return named
            if len(named.cas) >= CAS_OF_ONE_NAME_MAX:
                raise TooManyCAsOfOneName(limit=CAS_OF_ONE_NAME_MAX, subject=self.cert.subject_text)
            ca = CA(
                der=self.cert.der,
                comments=self.comments,
                denied_at=denied_since(self.context, self.member.org_id, self.cert.der),  # from its first moment on
                changed=made(self.at, self.member.who),
            )
            line = entry(self.at, self.member.who, "uploadCA", certificate=self.id)
            return CAsOfOneName(cas={**named.cas, self.id: ca}, outbox=(line,))

        org_id = self.member.org_id
        try:
            after = self.context.repository.change(cas_ref(org_id, self.id[:16]), alter, org_id=org_id)
        except TooManyCAsOfOneName:
            forget(self.context, org_id, self.id)
            raise
        assert after is not None  # noqa: S101 - alter never removes
        return after.cas[self.id], created

    def keep_reserved(self) -> None:
        """A sweep, or a deletion of this CA, may have given its place back while it was not there yet."""

        def alter(before: CAIndex | None) -> CAIndex:
            index = before or CAIndex()
            if self.id in index.cas:
                return index
            return msgspec.structs.replace(index, cas={**index.cas, self.id: True})

        self.context.repository.change(ca_index_ref(self.member.org_id), alter)

    def require_sni(self) -> list[Notice]:
        """From its first CA on, an org's devices must say by SNI whose they are."""
        first = False

        def alter(before: Org | None) -> Org | None:
            nonlocal first
            first = before is not None and not before.requires_sni
            if before is None or before.has_ca:
                return before
            return msgspec.structs.replace(before, has_ca=True)

        org_id = self.member.org_id
        self.context.repository.change(org_ref(org_id), alter, org_id=org_id)
        return [devices_must_send_sni(messaging_host(org_id, self.context.platform_domain))] if first else []


def forget(context: Context, org_id: str, certificate_id: str) -> bool:
    """Give a CA's place in the index back, after it is gone; without any, devices need not send SNI for a CA's sake.

    Returns whether there was anything to do: what a deletion that was cut short leaves."""
    named = False

    def alter(before: CAIndex | None) -> CAIndex | None:
        nonlocal named
        named = before is not None and certificate_id in before.cas
        if before is None or not named:
            return before
        return msgspec.structs.replace(before, cas={k: v for k, v in before.cas.items() if k != certificate_id})

    context.repository.change(ca_index_ref(org_id), alter)
    if not _has_any(context, org_id):
        named |= agree_on_sni(context, org_id)
    return named


def agree_on_sni(context: Context, org_id: str) -> bool:
    """Make the org agree with its index of CAs on whether devices must send SNI. Returns whether it did not."""
    changed = False

    def flag(before: Org | None) -> Org | None:
        nonlocal changed
        has_ca = _has_any(context, org_id)
        if before is None or before.has_ca == has_ca:
            return before
        changed = True
        return msgspec.structs.replace(before, has_ca=has_ca)

    context.repository.change(org_ref(org_id), flag, org_id=org_id)
    # An upload that reserved its place in between saw the flag still set and left it: look again.
    context.repository.change(org_ref(org_id), flag, org_id=org_id)
    return changed


def _has_any(context: Context, org_id: str) -> bool:
    index = context.repository.get(ca_index_ref(org_id))
    return index is not None and bool(index.cas)
