"""uploadServerCert: keep a messaging server certificate with its private key."""

import msgspec

from shared.errors import UseFulfil
from shared.ports import KeySealer
from shared.records import Org, ServerCertificate, Source
from shared.usecases.callers import Member
from shared.usecases.context import Context, made
from shared.usecases.servers.documents import (
    ParsedServerCertificate,
    add,
    check_room,
    checked,
    find_by_key,
    get_added,
    new_id,
    sealed_key,
)
from shared.validation.notices import Notice
from shared.validation.server_cert import has_private_key, read_leaf, read_server_certificate
from shared.x509.certificate import Certificate


class Uploaded(msgspec.Struct, frozen=True):
    shown: ParsedServerCertificate
    created: bool
    warnings: list[Notice]


def upload_server_cert(
    context: Context,
    sealer: KeySealer,
    member: Member,
    certificate: bytes,
    *,
    chain: bytes | None = None,
    private_key: bytes | None = None,
    passphrase: str | None = None,
    comments: str = "",
) -> Uploaded:
    """Check certificate, chain and key against each other and the org, seal the key, and keep them.

    The same leaf again is the same record.

    Raises: Rejected (see `shared.validation.server_cert`), UseFulfil, TooManyServerCertificates, RateLimited."""
    at = context.clock()
    if not private_key and not has_private_key(certificate):
        _point_to_request(context, member.org, certificate, chain)
    server = read_server_certificate(certificate, chain=chain, private_key=private_key, passphrase=passphrase)
    warnings = checked(context, member.org, server.leaf, server.chain, at)
    hashed = server.leaf.key_hash

    def same(org: Org) -> str | None:
        return _of_leaf(context, org, hashed, server.leaf)

    existing = same(member.org)
    if existing is not None:
        return Uploaded(get_added(context.repository, member.org_id, existing), False, warnings)
    check_room(context, member.org, at)
    certificate_id = new_id()
    record = ServerCertificate(
        source=Source.UPLOAD,
        key=sealed_key(sealer, server.private_key, org_id=member.org_id, certificate_id=certificate_id),
        key_hash=hashed,
        leaf=server.leaf.der,
        chain=tuple(cert.der for cert in server.chain),
        comments=comments,
        changed=made(at, member.who),
    )
    standing, more = add(context, member, certificate_id, record, what="uploadServerCert", at=at, same=same)
    stands = get_added(context.repository, member.org_id, standing)
    return Uploaded(stands, standing == certificate_id, [*warnings, *more])


def _of_leaf(context: Context, org: Org, hashed: str, leaf: Certificate) -> str | None:
    """The id of the record that holds *leaf* already."""
    return next((one for one, record in find_by_key(context.repository, org, hashed) if record.leaf == leaf.der), None)


def _point_to_request(context: Context, org: Org, certificate: bytes, chain: bytes | None) -> None:
    """A certificate without key may be the answer to a request whose key is here.

    Raises: UseFulfil; what `read_leaf` raises."""
    leaf, _ = read_leaf(certificate, chain=chain)
    for certificate_id, record in find_by_key(context.repository, org, leaf.key_hash):
        if record.leaf is None:
            raise UseFulfil(field="privateKey", id=certificate_id)
