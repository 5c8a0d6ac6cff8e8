"""renewCSR: make a new certificate request on the stored key of a server certificate.

This module opens a private key: the key signs the new request and does not leave this module.
"""

from cryptography.hazmat.primitives.serialization import load_der_private_key

from shared.errors import NotFound
from shared.ports import KeySealer, SealBroken
from shared.usecases.callers import Member
from shared.usecases.context import Context
from shared.usecases.servers.documents import ParsedServerCertificate, ServerCertificates, parse
from shared.usecases.servers.requests import add_request
from shared.validation.csr import renew_csr
from shared.x509.private_keys import PrivateKey


def renew(context: Context, sealer: KeySealer, member: Member, certificate_id: str) -> ParsedServerCertificate:
    """Store a new request on the key of a server certificate. The server certificate does not change.

    Raises: NotFound, RequestNotFulfilled, TooManyServerCertificates, RateLimited, SealBroken, TooBusy,
        StoreUnavailable.
    """
    at = context.clock()
    servers = ServerCertificates(context.of(member.org))
    record = servers.find_record(certificate_id) if certificate_id in member.org.servers else None
    if record is None:  # an organization may not use the key of the default certificate either
        raise NotFound(what="server certificate of that id")
    parsed = parse(certificate_id, record)
    certificate = parsed.certificate
    servers.count_attempt(at, context.rate_per_minute)
    plain = sealer.open(record.key, org_id=member.org_id, certificate_id=certificate_id)
    # The numbers were checked before the key was sealed. A check holds Python's lock, for 0.4 s with RSA-4096.
    key = load_der_private_key(plain, None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(key, PrivateKey):
        raise SealBroken(f"{member.org_id}/{certificate_id} holds a key of another kind")
    csr = renew_csr(key, parsed.request or certificate)
    added = add_request(context, sealer, member, key, csr, comments=record.comments, what="renewCSR", at=at)
    return parse(added.id, added.record)
