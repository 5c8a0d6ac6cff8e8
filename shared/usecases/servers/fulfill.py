"""fulfillCSR: put the signed certificate in the place of its request."""

import msgspec
from cryptography import x509

from shared.errors import AlreadyFulfilled, NotFound
from shared.records import ServerCertificate
from shared.repository import server_ref
from shared.usecases.callers import Member
from shared.usecases.context import Context, entry, touched
from shared.usecases.servers.documents import ParsedServerCertificate, checked, shown
from shared.validation.csr import read_signed
from shared.validation.notices import Notice
from shared.x509.public_keys import public_key_info


def fulfill_csr(
    context: Context, member: Member, certificate_id: str, data: bytes
) -> tuple[ParsedServerCertificate, list[Notice]]:
    """Replace the request by its signed certificate: same id, the key that was made with it.

    The same certificate again is harmless.

    Raises: NotFound, KeyMismatch (the request stays), AlreadyFulfilled, Rejected (`shared.validation.server_cert`)."""
    at = context.clock()
    if certificate_id not in member.org.servers:
        raise NotFound(what="certificate request of that id")
    record = context.repository.get(server_ref(member.org_id, certificate_id))
    if record is None or record.csr is None:
        raise NotFound(what="certificate request of that id")
    leaf, chain = read_signed(data, public_key=_requested_key(record.csr))
    warnings = checked(context, member.org, leaf, chain, at)

    def alter(before: ServerCertificate | None) -> ServerCertificate:
        if before is None:
            raise NotFound(what="certificate request of that id")
        if before.leaf == leaf.der:
            return before
        if before.leaf is not None:
            raise AlreadyFulfilled
        return msgspec.structs.replace(
            before,
            leaf=leaf.der,
            chain=tuple(cert.der for cert in chain),
            changed=touched(before.changed, at, member.who),
            outbox=(entry(at, member.who, "fulfillCSR", certificate=certificate_id),),
        )

    after = context.repository.change(server_ref(member.org_id, certificate_id), alter, org_id=member.org_id)
    assert after is not None  # noqa: S101 - alter never removes
    return shown(certificate_id, after), warnings


def _requested_key(csr: bytes) -> bytes:
    """The SubjectPublicKeyInfo that was sent to be certified."""
    return public_key_info(x509.load_der_x509_csr(csr).public_key())
