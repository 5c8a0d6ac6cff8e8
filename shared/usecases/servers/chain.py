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

    A chain that is a part of the stored chain changes nothing.

    Raises: NotFound, TooBusy, StoreUnavailable.
    """
    servers = ServerCertificates(context.of(member.org))
    record = servers.complete_chain(certificate_id, chain, at=at, who=member.who)
    if chain:
        HostFeed(context).publish(member.org_id)  # also where the certificate was activated meanwhile
    return parse(certificate_id, record)
