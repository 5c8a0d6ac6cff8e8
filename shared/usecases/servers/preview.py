"""Show the fields of a certificate before anything is stored, and what the certificate would be accepted as."""

from collections.abc import Callable, Sequence

import msgspec

from shared.errors import Rejected, SeveralCertificates
from shared.usecases.callers import Member
from shared.usecases.context import Context
from shared.usecases.servers.documents import checked
from shared.validation.ca import check_ca
from shared.validation.notices import Notice
from shared.validation.server_cert import read_leaf
from shared.x509.certificate import Certificate
from shared.x509.certificate_files import read_certificates


class Acceptance(msgspec.Struct, frozen=True):
    """Whether a certificate would be accepted; *refusal* says why not."""

    refusal: Rejected | None = None
    warnings: Sequence[Notice] = msgspec.field(default_factory=list)


class Preview(msgspec.Struct, frozen=True):
    cert: Certificate
    ca: Acceptance
    server: Acceptance


def preview(context: Context, member: Member, data: bytes) -> Preview:
    """The fields of a certificate that nobody has saved, and what it would be accepted as.

    Raises: NotACertificate, PrivateKeyGiven, CSRGiven, TooLarge, ChainTooLong."""
    at = context.clock()
    certs = read_certificates(data)
    leaf, broken = certs[0], None
    chain: tuple[Certificate, ...] = ()
    try:
        leaf, chain = read_leaf(data)
    except Rejected as error:  # no server's chain; several CAs in one file are no such thing either
        broken = error

    def as_ca() -> list[Notice]:
        if len(certs) > 1:
            raise SeveralCertificates(n=len(certs))
        check_ca(leaf, at=at, weak=context.weak_keys)
        return []

    def as_server() -> list[Notice]:
        if broken is not None:
            raise broken
        return checked(context, member.org, leaf, chain, at)

    return Preview(leaf, _acceptance(as_ca), _acceptance(as_server))


def _acceptance(check: Callable[[], list[Notice]]) -> Acceptance:
    try:
        return Acceptance(warnings=check())
    except Rejected as refusal:
        return Acceptance(refusal)
