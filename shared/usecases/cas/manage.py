"""List, describe, deactivate and delete the registered CA certificates of an organization."""

import msgspec

from shared.errors import NotFound
from shared.records import CA, CAIndex, CAsOfOneName, CAStatus
from shared.repository import ca_index_ref, cas_ref
from shared.usecases.callers import Member
from shared.usecases.cas.upload import forget
from shared.usecases.context import Context, check_version, entry, touched
from shared.usecases.edges.withdrawals import WithdrawalKind, withdraw
from shared.x509.certificate import Certificate


def get_ca(context: Context, org_id: str, ca_id: str) -> CA:
    """Raises: NotFound."""
    named = context.repository.get(cas_ref(org_id, ca_id[:16]))
    return _of(named, ca_id)


def _of(named: CAsOfOneName | None, ca_id: str) -> CA:
    if named is None or ca_id not in named.cas:
        raise NotFound(what="CA certificate of that id")
    return named.cas[ca_id]


def list_cas(context: Context, org_id: str, *, after: str, limit: int) -> list[tuple[str, CA]]:
    """At most *limit* CA certificates whose ids come after *after*, ordered by id."""
    found: list[tuple[str, CA]] = []
    start = after[:16]
    if start and (first := context.repository.get(cas_ref(org_id, start))) is not None:
        found += sorted((ca_id, ca) for ca_id, ca in first.cas.items() if ca_id > after)
    while len(found) < limit:
        page = context.repository.list(f"ca/{org_id}", CAsOfOneName, after=start, limit=limit)
        if not page:
            break
        for _, named in page:
            found += sorted(named.cas.items(), key=lambda one: one[0])
        start = page[-1][0]
    return found[:limit]


def change_ca(
    context: Context, member: Member, ca_id: str, *, status: CAStatus | None, comments: str | None, seen: str | None
) -> CA:
    """Activate, deactivate or describe a CA. Deactivated, it vouches for nobody and no path may pass through it.

    Raises: NotFound, Stale."""
    at = context.clock()
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

    after = context.repository.change(cas_ref(org_id, ca_id[:16]), alter, org_id=org_id)
    ca = _of(after, ca_id)
    _tell_index(context, org_id, ca_id)
    if status is CAStatus.INACTIVE and ca.status is CAStatus.INACTIVE:  # also for who repeats a call that was cut short
        withdraw(context, org_id, WithdrawalKind.CA, ca_id)
    return ca


def _tell_index(context: Context, org_id: str, ca_id: str) -> None:
    """Make the index agree on whether the CA is active; it only words a refusal, and decides nothing."""

    def alter(before: CAIndex | None) -> CAIndex | None:
        named = context.repository.get(cas_ref(org_id, ca_id[:16]))
        if before is None or named is None or ca_id not in named.cas:
            return before
        active = named.cas[ca_id].status is CAStatus.ACTIVE
        if before.cas.get(ca_id) == active:
            return before
        return msgspec.structs.replace(before, cas={**before.cas, ca_id: active})

    context.repository.change(ca_index_ref(org_id), alter)


def also_vouched_by(context: Context, org_id: str, ca_id: str) -> list[str]:
    """Ids of other active CAs with the same name and key: devices of this one stay, without it. Raises: NotFound."""
    named = context.repository.get(cas_ref(org_id, ca_id[:16]))
    own = Certificate.from_der(_of(named, ca_id).der).key_hash
    others = named.cas.items() if named else ()
    return sorted(
        other
        for other, ca in others
        if other != ca_id
        and ca.status is CAStatus.ACTIVE
        and ca.denied_at is None
        and Certificate.from_der(ca.der).key_hash == own
    )


def delete_ca(context: Context, member: Member, ca_id: str, *, seen: str | None) -> None:
    """Remove a CA: its devices are refused at their next connection, and their sessions end.

    It is deactivated first, and goes last: a deletion that is cut short leaves it refused, and the same call again
    finishes it.

    Raises: NotFound, Stale."""
    at = context.clock()
    place = cas_ref(member.org_id, ca_id[:16])

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
        context.repository.change(place, deactivate, org_id=member.org_id)
        withdraw(context, member.org_id, WithdrawalKind.CA, ca_id)
        context.repository.change(place, alter, org_id=member.org_id)
    except NotFound:
        if not forget(context, member.org_id, ca_id):
            raise
        return  # it was gone, and its place in the index was not
    context.repository.change(place, remove_empty, org_id=member.org_id)
    forget(context, member.org_id, ca_id)
