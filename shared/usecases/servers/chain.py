"""Complete the chain of a stored server certificate."""

from collections.abc import Sequence
from datetime import datetime

from shared.usecases.callers import Member
from shared.usecases.context import Context
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.servers.documents import ParsedServerCertificate, ServerCertificates, parse
from shared.x509.certificate import Certificate


def complete_chain(
    context: Context, member: Member, certificate_id: str, chain: Sequence[Certificate], at: datetime
) -> ParsedServerCertificate:
    """Store *chain* with a certificate whose stored chain has less, and publish the hosts that the certificate serves.

    A chain that is a part of the stored chain changes nothing. Such a call finishes a completion that was cut short,
    and otherwise writes nothing.

    Raises: NotFound, TooBusy, StoreUnavailable.
    """
    servers = ServerCertificates(context.of(member.org))
    record = servers.complete_chain(certificate_id, chain, at=at, who=member.who)
    if record.has_later_chain:
        # Also if nothing changed: an earlier call may have been cut short. Equal hosts are not written again.
        HostFeed(context).publish(member.org_id)
    return parse(certificate_id, record)
