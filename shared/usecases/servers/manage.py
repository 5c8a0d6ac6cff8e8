"""List, describe and delete the server certificates and certificate requests of an organization."""

import msgspec

from shared.errors import NotFound
from shared.records import Org
from shared.usecases.callers import Member
from shared.usecases.context import Context, check_version, make_entry, update_revision
from shared.usecases.servers.documents import ParsedServerCertificate, ServerCertificates, parse


def list_servers(context: Context, org: Org, *, after: str, limit: int) -> list[ParsedServerCertificate]:
    """Return at most *limit* server certificates and requests behind *after*: the default first, then by id.

    Raises: StoreUnavailable.
    """
    return ServerCertificates(context.of(org)).list(org, after=after, limit=limit)


def get_server(context: Context, org: Org, certificate_id: str) -> ParsedServerCertificate:
    """Return a server certificate or request of *org*, or the default certificate.

    Raises: NotFound, StoreUnavailable.
    """
    return ServerCertificates(context.of(org)).get(org, certificate_id)


def change_server(
    context: Context, member: Member, certificate_id: str, *, comments: str, expected_version: str | None
) -> ParsedServerCertificate:
    """Replace the comments of a server certificate or request.

    Args:
        expected_version: the version in If-Match; None overrides.

    Raises: NotFound, Stale, TooBusy, StoreUnavailable.
    """
    at = context.clock()
    if certificate_id not in member.org.servers:
        raise NotFound(what="server certificate of that id that is this organization's own")
    activity = make_entry(at, member.who, "describeServerCert", certificate=certificate_id)
    for attempt in ServerCertificates(context.of(member.org)).changing(certificate_id):
        with attempt as record:
            check_version(record.changed, expected_version)
            described = record
            if record.comments != comments:
                changed = update_revision(record.changed, at, member.who)
                described = msgspec.structs.replace(record, comments=comments, changed=changed)
                attempt.write(described, activity=activity)
    return parse(certificate_id, described)


def delete_server(context: Context, member: Member, certificate_id: str, *, expected_version: str | None) -> None:
    """Delete a server certificate or request with its private key.

    The same call again finishes a deletion that was cut short.

    Args:
        expected_version: the version in If-Match; None overrides.

    Raises: NotFound, ActiveCertificate, Stale, TooBusy, StoreUnavailable.
    """
    servers = ServerCertificates(context.of(member.org))
    record = servers.find_record(certificate_id)
    if record is not None:
        check_version(record.changed, expected_version)
    activity = make_entry(context.clock(), member.who, "deleteServerCert", certificate=certificate_id)
    servers.delete(certificate_id, activity=activity)
