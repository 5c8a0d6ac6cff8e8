"""Complete the chain of a stored server certificate."""

from collections.abc import Sequence
from datetime import datetime

from shared.usecases.callers import Member
from shared.usecases.context import Context
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.servers.documents import ParsedServerCertificate, ServerCertificates, parse
from shared.validation.notices import Notice, chain_completed, chain_kept
from shared.validation.server_cert import warnings_for
from shared.x509.certificate import Certificate


def complete_chain(
    context: Context, member: Member, certificate_id: str, chain: Sequence[Certificate], at: datetime
) -> tuple[ParsedServerCertificate, list[Notice]]:
    """Store *chain* with a certificate whose stored chain has less, and publish the hosts that the certificate serves.

    Return the stored certificate, and warnings about its stored chain. A chain that adds nothing to the stored chain,
    or lacks a part of it that devices may need (`shared.validation.server_cert.lost_from_chain`), changes nothing. Such
    a call finishes a completion that was cut short, and otherwise writes nothing.

    Raises: NotFound, RequestNotFulfilled, TooBusy, StoreUnavailable.
    """
    servers = ServerCertificates(context.of(member.org))
    update = servers.complete_chain(certificate_id, chain, at=at, who=member.who)
    if update.record.has_later_chain:
        # Also if nothing changed: an earlier call may have been cut short. Equal hosts are not written again.
        HostFeed(context).publish(member.org_id)
    parsed = parse(certificate_id, update.record)
    warnings = warnings_for(parsed.certificate, parsed.chain)
    if update.is_completed:
        warnings.append(chain_completed(len(parsed.chain)))
    if update.lost:
        lost = update.lost[0]
        warnings.append(chain_kept(lost.subject_text, lost.issuer.text, lost.fingerprint))
    return parsed, warnings
