"""List, describe and delete the server certificates and certificate requests of an organization."""

import msgspec

from shared.errors import ActiveCertificate, NotFound
from shared.records import DEFAULT, Org, ServerCertificate
from shared.repository import org_ref, server_ref
from shared.usecases.callers import Member
from shared.usecases.context import Context, check_version, entry, touched
from shared.usecases.servers.documents import ParsedServerCertificate, place_of, shown


def list_servers(context: Context, org: Org, *, after: str, limit: int) -> list[ParsedServerCertificate]:
    """At most *limit* server certificates and requests behind *after*: the default first, then by id."""
    own = sorted(one for one in org.servers if after in ("", DEFAULT) or one > after)
    behind = own if after else [DEFAULT, *own]
    places = [place_of(org, one) for one in behind]  # all, so that a record that goes meanwhile ends no page early
    found = context.repository.read_batch(places)
    records = ((one, found.get(place)) for one, place in zip(behind, places, strict=True))
    return [shown(one, record) for one, record in records if record is not None][:limit]


def change_server(
    context: Context, member: Member, certificate_id: str, *, comments: str, seen: str | None
) -> ParsedServerCertificate:
    """Describe a server certificate or request. Raises: NotFound, Stale."""
    at = context.clock()
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

    place = server_ref(member.org_id, certificate_id)
    after = context.repository.change(place, alter, org_id=member.org_id)
    assert after is not None  # noqa: S101 - alter never removes
    return shown(certificate_id, after)


def delete_server(context: Context, member: Member, certificate_id: str, *, seen: str | None) -> None:
    """Remove a server certificate or request with its key: its line in the index first, then its body.

    The same call again finishes a deletion that was cut short in between.

    Raises: NotFound, ActiveCertificate, Stale."""
    at = context.clock()
    place = server_ref(member.org_id, certificate_id)
    record = context.repository.get(place)
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
        context.repository.change(org_ref(member.org_id), alter, org_id=member.org_id)
    except NotFound:
        # An id is told once its line stands: a body without a line is what a deletion left, this one or one before.
        if certificate_id == DEFAULT or context.repository.get(place) is None:
            raise
    context.repository.delete(place, activity_of=member.org_id)


def _must_be_own(org: Org, certificate_id: str) -> None:
    """Raises: NotFound; the default certificate is the platform's, not an org's to change."""
    if certificate_id not in org.servers:
        raise NotFound(what="server certificate of that id that is this organization's own")
