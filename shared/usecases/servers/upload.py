"""uploadServerCert: store a messaging server certificate with its private key."""

from contextlib import suppress
from datetime import datetime

import msgspec

from shared.errors import NotFound, PrivateKeyMissing, UseFulfil
from shared.ports import KeySealer, ServerFiles
from shared.records import Org, ServerCertificate, Source
from shared.usecases.callers import Member
from shared.usecases.context import Context, make_entry, make_revision
from shared.usecases.organization import warn_of_sni
from shared.usecases.servers.chain import complete_chain
from shared.usecases.servers.documents import (
    AddedServerCertificate,
    ParsedServerCertificate,
    ServerCertificates,
    check_room,
    new_id,
    parse,
    seal_key,
)
from shared.usecases.servers.rules import check_for_org
from shared.validation.notices import Notice
from shared.validation.server_cert import CertificateWithKey, has_private_key, read_leaf


class UploadedServerCertificate(msgspec.Struct, frozen=True):
    """The stored certificate, whether the upload created the record, and warnings."""

    parsed: ParsedServerCertificate
    is_new: bool
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
) -> UploadedServerCertificate:
    """Check certificate, chain and key against each other and the organization, seal the key, and store all three.

    An upload of a certificate that is stored already returns the existing record; a chain that was not stored with it
    is stored now (docs/decisions/0134). Such an upload needs no room for one more certificate. An attempt counts before
    the key is opened (`ServerCertificates.count_attempt`).

    Raises: Rejected (see `shared.validation.server_cert`), UseFulfil, TooManyServerCertificates, RateLimited, TooBusy,
        StoreUnavailable, KeyWorkUnavailable.
    """
    at = context.clock()
    servers = ServerCertificates(context.of(member.org))
    if not private_key and not has_private_key(certificate):
        _point_to_request(servers, member.org, certificate, chain)
        raise PrivateKeyMissing(part="private_key")
    servers.count_attempt(at, context.rate_per_minute, needs_room=False)
    files = ServerFiles(certificate, chain, private_key, passphrase, at)
    server = context.key_work.read(files, org_id=member.org_id)
    existing = servers.find_by_leaf(member.org, server.leaf.key_hash, server.leaf.der)
    existing_id = existing[0] if existing is not None else None
    if existing_id is None:
        check_room(member.org)
    warnings = check_for_org(context, member.org, server.leaf, server.chain, at)
    while True:
        if existing_id is not None:
            with suppress(NotFound):  # the certificate was deleted meanwhile
                parsed, stored_warnings = complete_chain(context, member, existing_id, server.chain, at)
                return UploadedServerCertificate(parsed, False, stored_warnings)
        certificate_id = new_id()
        added = _add(servers, sealer, member, certificate_id, server, comments, at)
        if added.id == certificate_id:
            if added.sets_sni:
                warnings.append(warn_of_sni(context, member.org))
            return UploadedServerCertificate(parse(added.id, added.record), True, warnings)
        existing_id = added.id  # of an upload that was faster


def _add(
    servers: ServerCertificates,
    sealer: KeySealer,
    member: Member,
    certificate_id: str,
    server: CertificateWithKey,
    comments: str,
    at: datetime,
) -> AddedServerCertificate:
    """Seal the key and store the certificate, unless the organization has the certificate.

    Raises: OrgGone, TooManyServerCertificates, TooBusy, StoreUnavailable, KeysUnavailable.
    """
    record = ServerCertificate(
        source=Source.UPLOAD,
        key=seal_key(sealer, server.private_key, org_id=member.org_id, certificate_id=certificate_id),
        key_hash=server.leaf.key_hash,
        leaf=server.leaf.der,
        chain=tuple(issuer.der for issuer in server.chain),
        comments=comments,
        changed=make_revision(at, member.who),
    )
    activity = make_entry(at, member.who, "uploadServerCert", certificate=certificate_id)
    return servers.add(certificate_id, record, activity=activity)


def _point_to_request(servers: ServerCertificates, org: Org, certificate: bytes, chain: bytes | None) -> None:
    """Refuse a certificate without key whose key belongs to a waiting request of *org*.

    The caller should fulfil the request. Raises: UseFulfil, and whatever `read_leaf` raises.
    """
    leaf, _ = read_leaf(certificate, chain=chain)
    for certificate_id, record in servers.find_by_key(org, leaf.key_hash):
        if record.leaf is None:
            raise UseFulfil(field="privateKey", id=certificate_id)
