"""manageCertificates: look at what is registered, describe it, deactivate it, delete it; preview what is not yet."""

from collections.abc import Callable, Sequence

import msgspec
from cryptography import x509

from shared.errors import ActiveCertificate, NotFound, Rejected, SeveralCertificates
from shared.records import CA, DEFAULT, CAIndex, CAsOfOneName, CAStatus, Org, ServerCertificate
from shared.repository import ca_index_place, cas_place, org_place, server_place
from shared.usecases.callers import Member
from shared.usecases.server_certificates import Shown, checked, place_of, shown
from shared.usecases.tools import Tools, entry, touched
from shared.usecases.upload_ca import forget
from shared.usecases.versions import check_version
from shared.usecases.withdrawals import WithdrawalKind, withdraw
from shared.validation.ca import check_ca
from shared.validation.notices import Notice
from shared.validation.pem import read_certificates
from shared.validation.server_cert import read_leaf
from shared.validation.verdict import key_hash

# -------------------------------------------------------------------------------------------- CA certificates


def get_ca(tools: Tools, org_id: str, ca_id: str) -> CA:
    """Raises: NotFound."""
    named = tools.repository.get(cas_place(org_id, ca_id[:16]))
    return _of(named, ca_id)


def _of(named: CAsOfOneName | None, ca_id: str) -> CA:
    if named is None or ca_id not in named.cas:
        raise NotFound(what="CA certificate of that id")
    return named.cas[ca_id]


def list_cas(tools: Tools, org_id: str, *, after: str, limit: int) -> list[tuple[str, CA]]:
    """At most *limit* CA certificates whose ids come after *after*, ordered by id."""
    found: list[tuple[str, CA]] = []
    start = after[:16]
    if start and (first := tools.repository.get(cas_place(org_id, start))) is not None:
        found += sorted((ca_id, ca) for ca_id, ca in first.cas.items() if ca_id > after)
    while len(found) < limit:
        page = tools.repository.list(f"ca/{org_id}", CAsOfOneName, after=start, limit=limit)
        if not page:
            break
        for _, named in page:
            found += sorted(named.cas.items(), key=lambda one: one[0])
        start = page[-1][0]
    return found[:limit]


def change_ca(
    tools: Tools, member: Member, ca_id: str, *, status: CAStatus | None, comments: str | None, seen: str | None
) -> CA:
    """Activate, deactivate or describe a CA. Deactivated, it vouches for nobody and no path may pass through it.

    Raises: NotFound, Stale."""
    at = tools.clock()
    org_id = member.org_id

    def alter(before: CAsOfOneName | None) -> CAsOfOneName:
        ca = _of(before, ca_id)
        assert before is not None  # noqa: S101 - _of has refused otherwise
        check_version(ca.changed, seen)
        wanted = msgspec.structs.replace(
            ca,
            status=ca.status if status is None else status,
            comments=ca.comments if comments is None else comments,
        )
        if wanted == ca:
            return before
        what = "describeCA" if wanted.status is ca.status else f"set {wanted.status.value}"
        after = msgspec.structs.replace(wanted, changed=touched(ca.changed, at, member.who))
        line = entry(at, member.who, what, certificate=ca_id)
        return CAsOfOneName(cas={**before.cas, ca_id: after}, outbox=(line,))

    after = tools.repository.change(cas_place(org_id, ca_id[:16]), alter, org_id=org_id)
    ca = _of(after, ca_id)
    _tell_index(tools, org_id, ca_id)
    if status is CAStatus.INACTIVE and ca.status is CAStatus.INACTIVE:  # also for who repeats a call that was cut short
        withdraw(tools, org_id, WithdrawalKind.CA, ca_id)
    return ca


def _tell_index(tools: Tools, org_id: str, ca_id: str) -> None:
    """Make the index agree on whether the CA is active; it only words a refusal, and decides nothing."""

    def alter(before: CAIndex | None) -> CAIndex | None:
        named = tools.repository.get(cas_place(org_id, ca_id[:16]))
        if before is None or named is None or ca_id not in named.cas:
            return before
        active = named.cas[ca_id].status is CAStatus.ACTIVE
        if before.cas.get(ca_id) == active:
            return before
        return msgspec.structs.replace(before, cas={**before.cas, ca_id: active})

    tools.repository.change(ca_index_place(org_id), alter)


def also_vouched_by(tools: Tools, org_id: str, ca_id: str) -> list[str]:
    """Ids of other active CAs with the same name and key: devices of this one stay, without it. Raises: NotFound."""
    named = tools.repository.get(cas_place(org_id, ca_id[:16]))
    own = key_hash(x509.load_der_x509_certificate(_of(named, ca_id).der))
    others = named.cas.items() if named else ()
    return sorted(
        other
        for other, ca in others
        if other != ca_id
        and ca.status is CAStatus.ACTIVE
        and ca.denied_at is None
        and key_hash(x509.load_der_x509_certificate(ca.der)) == own
    )


def delete_ca(tools: Tools, member: Member, ca_id: str, *, seen: str | None) -> None:
    """Remove a CA: its devices are refused at their next connection, and their sessions end.

    It is deactivated first, and goes last: a deletion that is cut short leaves it refused, and the same call again
    finishes it.

    Raises: NotFound, Stale."""
    at = tools.clock()
    place = cas_place(member.org_id, ca_id[:16])

    def deactivate(before: CAsOfOneName | None) -> CAsOfOneName:
        ca = _of(before, ca_id)
        assert before is not None  # noqa: S101 - _of has refused otherwise
        check_version(ca.changed, seen)
        if ca.status is CAStatus.INACTIVE:
            return before
        inactive = msgspec.structs.replace(ca, status=CAStatus.INACTIVE)
        return msgspec.structs.replace(before, cas={**before.cas, ca_id: inactive})

    def alter(before: CAsOfOneName | None) -> CAsOfOneName:
        ca = _of(before, ca_id)
        assert before is not None  # noqa: S101 - _of has refused otherwise
        check_version(ca.changed, seen)
        line = entry(at, member.who, "deleteCA", certificate=ca_id)
        return CAsOfOneName(cas={k: v for k, v in before.cas.items() if k != ca_id}, outbox=(line,))

    def remove_empty(before: CAsOfOneName | None) -> CAsOfOneName | None:
        return None if before is None or not before.cas else before

    try:
        tools.repository.change(place, deactivate, org_id=member.org_id)
        withdraw(tools, member.org_id, WithdrawalKind.CA, ca_id)
        tools.repository.change(place, alter, org_id=member.org_id)
    except NotFound:
        if not forget(tools, member.org_id, ca_id):
            raise
        return  # it was gone, and its place in the index was not
    tools.repository.change(place, remove_empty, org_id=member.org_id)
    forget(tools, member.org_id, ca_id)


# ---------------------------------------------------------------------------------------- server certificates


def list_servers(tools: Tools, org: Org, *, after: str, limit: int) -> list[Shown]:
    """At most *limit* server certificates and requests behind *after*: the default first, then by id."""
    own = sorted(one for one in org.servers if after in ("", DEFAULT) or one > after)
    behind = own if after else [DEFAULT, *own]
    places = [place_of(org, one) for one in behind]  # all, so that a record that goes meanwhile ends no page early
    found = tools.repository.find(places)
    records = ((one, found.get(place)) for one, place in zip(behind, places, strict=True))
    return [shown(one, record) for one, record in records if record is not None][:limit]


def change_server(tools: Tools, member: Member, certificate_id: str, *, comments: str, seen: str | None) -> Shown:
    """Describe a server certificate or request. Raises: NotFound, Stale."""
    at = tools.clock()
    _must_be_own(member.org, certificate_id)

    def alter(before: ServerCertificate | None) -> ServerCertificate:
        if before is None:
            raise NotFound(what="server certificate of that id")
        check_version(before.changed, seen)
        if before.comments == comments:
            return before
        line = entry(at, member.who, "describeServerCert", certificate=certificate_id)
        stamp = touched(before.changed, at, member.who)
        return msgspec.structs.replace(before, comments=comments, changed=stamp, outbox=(line,))

    place = server_place(member.org_id, certificate_id)
    after = tools.repository.change(place, alter, org_id=member.org_id)
    assert after is not None  # noqa: S101 - alter never removes
    return shown(certificate_id, after)


def delete_server(tools: Tools, member: Member, certificate_id: str, *, seen: str | None) -> None:
    """Remove a server certificate or request with its key: its line in the index first, then its body.

    The same call again finishes a deletion that was cut short in between.

    Raises: NotFound, ActiveCertificate, Stale."""
    at = tools.clock()
    place = server_place(member.org_id, certificate_id)
    record = tools.repository.get(place)
    if record is not None:
        check_version(record.changed, seen)

    def alter(before: Org | None) -> Org:
        if before is None:
            raise NotFound(what="such organization")
        _must_be_own(before, certificate_id)
        if before.activation.active == certificate_id:
            raise ActiveCertificate
        activation = before.activation
        if activation.previous == certificate_id:
            activation = msgspec.structs.replace(activation, previous=None)
        return msgspec.structs.replace(
            before,
            servers={k: v for k, v in before.servers.items() if k != certificate_id},
            activation=activation,
            outbox=(entry(at, member.who, "deleteServerCert", certificate=certificate_id),),
        )

    try:
        tools.repository.change(org_place(member.org_id), alter, org_id=member.org_id)
    except NotFound:
        # An id is told once its line stands: a body without a line is what a deletion left, this one or one before.
        if certificate_id == DEFAULT or tools.repository.get(place) is None:
            raise
    tools.repository.discard(place, org_id=member.org_id)


def _must_be_own(org: Org, certificate_id: str) -> None:
    """Raises: NotFound; the default certificate is the platform's, not an org's to change."""
    if certificate_id not in org.servers:
        raise NotFound(what="server certificate of that id that is this organization's own")


# ---------------------------------------------------------------------------------------------------- preview


class Acceptance(msgspec.Struct, frozen=True):
    """Whether a certificate would be accepted; *refusal* says why not."""

    refusal: Rejected | None = None
    warnings: Sequence[Notice] = msgspec.field(default_factory=list)


class Preview(msgspec.Struct, frozen=True):
    cert: x509.Certificate
    ca: Acceptance
    server: Acceptance


def preview(tools: Tools, member: Member, data: bytes) -> Preview:
    """The fields of a certificate that nobody has saved, and what it would be accepted as.

    Raises: NotACertificate, PrivateKeyGiven, CSRGiven, TooLarge, ChainTooLong."""
    at = tools.clock()
    certs = read_certificates(data)
    leaf, broken = certs[0], None
    chain: tuple[x509.Certificate, ...] = ()
    try:
        leaf, chain = read_leaf(data)
    except Rejected as error:  # no server's chain; several CAs in one file are no such thing either
        broken = error

    def as_ca() -> list[Notice]:
        if len(certs) > 1:
            raise SeveralCertificates(n=len(certs))
        check_ca(leaf, at=at, weak=tools.weak_keys)
        return []

    def as_server() -> list[Notice]:
        if broken is not None:
            raise broken
        return checked(tools, member.org, leaf, chain, at)

    return Preview(leaf, _acceptance(as_ca), _acceptance(as_server))


def _acceptance(check: Callable[[], list[Notice]]) -> Acceptance:
    try:
        return Acceptance(warnings=check())
    except Rejected as refusal:
        return Acceptance(refusal)
