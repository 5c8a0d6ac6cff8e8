"""preview: what a file would be accepted as. Nothing is stored. Here: as a messaging server certificate."""

from shared.errors import Conflict, Rejected
from shared.usecases.callers import Member
from shared.usecases.context import Context
from shared.usecases.organization import warn_of_sni
from shared.usecases.servers.documents import ServerCertificates
from shared.usecases.servers.rules import check_for_org
from shared.validation.notices import Acceptance
from shared.validation.server_cert import read_leaf
from shared.x509.certificate import Certificate
from shared.x509.certificate_files import BUNDLE_MAX, read_certificates


def preview_server(context: Context, member: Member, data: bytes) -> tuple[Certificate, Acceptance]:
    """Return the certificate of a file, and whether it would be accepted as a server certificate of the organization.

    The private key, which the file need not have, and the rate of uploads are not judged. The certificate for a waiting
    request is judged as the certificate of that request.

    Raises: NotACertificate, PrivateKeyGiven, CSRGiven, TooLarge, ChainTooLong, StoreUnavailable.
    """
    at = context.clock()
    try:
        leaf, chain = read_leaf(data, at=at)
    except Rejected as refusal:  # the file is no chain of a server certificate: show its first certificate
        return read_certificates(data, limit=BUNDLE_MAX)[0], Acceptance(refusal)
    try:
        ServerCertificates(context.of(member.org)).check_place(member.org, leaf)
        warnings = check_for_org(context, member.org, leaf, chain, at)
    except (Rejected, Conflict) as refusal:
        return leaf, Acceptance(refusal)
    if not member.org.requires_sni:
        warnings.append(warn_of_sni(context, member.org))
    return leaf, Acceptance(warnings=warnings)
