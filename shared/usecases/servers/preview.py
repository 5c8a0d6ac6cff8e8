"""preview: show the fields of a certificate, and what the certificate would be accepted as. Nothing is stored."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from shared.errors import Rejected, SeveralCertificates
from shared.usecases.callers import Member
from shared.usecases.context import Context
from shared.usecases.servers.rules import check_for_org
from shared.validation.ca import check_ca
from shared.validation.notices import Notice
from shared.validation.server_cert import read_leaf
from shared.x509.certificate import Certificate
from shared.x509.certificate_files import read_certificates


class Acceptance(msgspec.Struct, frozen=True):
    """Whether a certificate would be accepted; *refusal* is the reason if not."""

    refusal: Rejected | None = None
    warnings: Sequence[Notice] = msgspec.field(default_factory=list)


class PreviewResult(msgspec.Struct, frozen=True):
    """A certificate, and whether it would be accepted as a CA certificate and as a server certificate."""

    cert: Certificate
    ca: Acceptance
    server: Acceptance


def preview(context: Context, member: Member, data: bytes) -> PreviewResult:
    """Return the fields of an uploaded certificate, and what the certificate would be accepted as.

    Raises: NotACertificate, PrivateKeyGiven, CSRGiven, TooLarge, ChainTooLong.
    """
    at = context.clock()
    certs = read_certificates(data)
    try:
        leaf, chain = read_leaf(data)
    except Rejected as refusal:  # the file is no chain of a server certificate: show its first certificate
        return PreviewResult(certs[0], _judge_ca(context, certs[0], len(certs), at), Acceptance(refusal))
    return PreviewResult(
        leaf, _judge_ca(context, leaf, len(certs), at), _judge_server(context, member, leaf, chain, at)
    )


def _judge_ca(context: Context, cert: Certificate, count: int, at: datetime) -> Acceptance:
    """Return whether a file of *count* certificates would be accepted as the CA certificate *cert*."""
    if count > 1:
        return Acceptance(SeveralCertificates(n=count))
    try:
        check_ca(cert, at=at, weak=context.weak_keys)
    except Rejected as refusal:
        return Acceptance(refusal)
    return Acceptance()


def _judge_server(
    context: Context, member: Member, leaf: Certificate, chain: Sequence[Certificate], at: datetime
) -> Acceptance:
    """Return whether *leaf* would be accepted as a server certificate of the organization."""
    try:
        return Acceptance(warnings=check_for_org(context, member.org, leaf, chain, at))
    except Rejected as refusal:
        return Acceptance(refusal)
