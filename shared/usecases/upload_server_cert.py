"""uploadServerCert: keep a messaging server certificate with its private key."""

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from shared.errors import UseFulfil
from shared.records import Org, ServerCertificate, Source
from shared.usecases.callers import Member
from shared.usecases.server_certificates import (
    Shown,
    add,
    check_room,
    checked,
    find_by_key,
    get_added,
    new_id,
    sealed_key,
)
from shared.usecases.tools import Tools, made
from shared.validation.notices import Notice
from shared.validation.server_cert import has_private_key, read_leaf, read_server_certificate
from shared.validation.verdict import key_hash


class Uploaded(msgspec.Struct, frozen=True):
    shown: Shown
    created: bool
    warnings: list[Notice]


def upload_server_cert(
    tools: Tools,
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
    at = tools.clock()
    if not private_key and not has_private_key(certificate):
        _point_to_request(tools, member.org, certificate, chain)
    server = read_server_certificate(certificate, chain=chain, private_key=private_key, passphrase=passphrase)
    warnings = checked(tools, member.org, server.leaf, server.chain, at)
    hashed = key_hash(server.leaf)

    def same(org: Org) -> str | None:
        return _of_leaf(tools, org, hashed, server.leaf)

    existing = same(member.org)
    if existing is not None:
        return Uploaded(get_added(tools.repository, member.org_id, existing), False, warnings)
    check_room(tools, member.org, at)
    certificate_id = new_id()
    record = ServerCertificate(
        source=Source.UPLOAD,
        key=sealed_key(tools, server.private_key, org_id=member.org_id, certificate_id=certificate_id),
        key_hash=hashed,
        leaf=server.leaf.public_bytes(Encoding.DER),
        chain=tuple(one.public_bytes(Encoding.DER) for one in server.chain),
        comments=comments,
        changed=made(at, member.who),
    )
    standing, more = add(tools, member, certificate_id, record, what="uploadServerCert", at=at, same=same)
    stands = get_added(tools.repository, member.org_id, standing)
    return Uploaded(stands, standing == certificate_id, [*warnings, *more])


def _of_leaf(tools: Tools, org: Org, hashed: str, leaf: x509.Certificate) -> str | None:
    """The id of the record that holds *leaf* already."""
    der = leaf.public_bytes(Encoding.DER)
    return next((one for one, record in find_by_key(tools.repository, org, hashed) if record.leaf == der), None)


def _point_to_request(tools: Tools, org: Org, certificate: bytes, chain: bytes | None) -> None:
    """A certificate without key may be the answer to a request whose key is here.

    Raises: UseFulfil; what `read_leaf` raises."""
    leaf, _ = read_leaf(certificate, chain=chain)
    for certificate_id, record in find_by_key(tools.repository, org, key_hash(leaf)):
        if record.leaf is None:
            raise UseFulfil(field="privateKey", id=certificate_id)
