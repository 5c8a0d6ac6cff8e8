"""generateCSR: make a key pair here, and a request that a CA can sign; or renew: a new request on the same key."""

from datetime import datetime

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key

from shared.errors import NotAHost, NotFound, RequestNotFulfilled
from shared.ports import KeySealer
from shared.records import ServerCertificate, Source
from shared.repository import server_ref
from shared.usecases.callers import Member
from shared.usecases.context import Context, made
from shared.usecases.edges.host_names import hosts_of
from shared.usecases.servers.documents import (
    ParsedServerCertificate,
    add,
    check_room,
    get_added,
    get_server,
    new_id,
    sealed_key,
)
from shared.validation.csr import make_csr, make_key, renew_csr, subject_name
from shared.x509.private_keys import PrivateKey
from shared.x509.public_keys import key_hash


class Subject(msgspec.Struct, frozen=True):
    """Whom a request is for. *common_name* None is the org's messaging host."""

    common_name: str | None = None
    organization: str | None = None
    organizational_unit: str | None = None
    locality: str | None = None
    state: str | None = None
    country: str | None = None
    email_address: str | None = None


def generate_csr(
    context: Context, sealer: KeySealer, member: Member, subject: Subject, *, algorithm: str, comments: str = ""
) -> ParsedServerCertificate:
    """Make a key and a request for one of the org's hosts. The key is sealed and never shown.

    Raises: NotAHost, InvalidSubject, WrongValue (algorithm), TooManyServerCertificates, RateLimited."""
    at = context.clock()
    check_room(context, member.org, at)
    host = _host(context, member, subject.common_name)
    name = subject_name(  # before the key: making one takes long, and a mistyped country should not
        host=host,
        organization=subject.organization,
        organizational_unit=subject.organizational_unit,
        locality=subject.locality,
        state=subject.state,
        country=subject.country,
        email_address=subject.email_address,
    )
    key = make_key(algorithm)
    csr = make_csr(key, name, host=host)
    return _kept(context, sealer, member, key, csr, comments=comments, what="generateCSR", at=at)


def renew(context: Context, sealer: KeySealer, member: Member, certificate_id: str) -> ParsedServerCertificate:
    """A new request on the key of a certificate that is here; that certificate stays as it is.

    Raises: NotFound, RequestNotFulfilled, TooManyServerCertificates, RateLimited."""
    at = context.clock()
    check_room(context, member.org, at)
    old = get_server(context.repository, member.org, certificate_id)
    if old.leaf is None:
        raise RequestNotFulfilled
    key = opened_key(context, sealer, member.org_id, certificate_id)
    csr = renew_csr(key, old.request or old.leaf)
    return _kept(context, sealer, member, key, csr, comments=old.comments, what="renewCSR", at=at)


def opened_key(context: Context, sealer: KeySealer, org_id: str, certificate_id: str) -> PrivateKey:
    """The private key of a record, unsealed. Raises: NotFound, SealBroken."""
    record = context.repository.get(server_ref(org_id, certificate_id))
    if record is None:  # the default certificate's key, too, is not an org's to use
        raise NotFound(what="server certificate of that id")
    der = sealer.open(record.key, org_id=org_id, certificate_id=certificate_id)
    key = load_der_private_key(der, None)
    assert isinstance(key, PrivateKey)  # noqa: S101 - only such keys are kept
    return key


def _kept(
    context: Context,
    sealer: KeySealer,
    member: Member,
    key: PrivateKey,
    csr: x509.CertificateSigningRequest,
    *,
    comments: str,
    what: str,
    at: datetime,
) -> ParsedServerCertificate:
    certificate_id = new_id()
    record = ServerCertificate(
        source=Source.CSR,
        key=sealed_key(sealer, key, org_id=member.org_id, certificate_id=certificate_id),
        key_hash=key_hash(key.public_key()),
        csr=csr.public_bytes(Encoding.DER),
        comments=comments,
        changed=made(at, member.who),
    )
    add(context, member, certificate_id, record, what=what, at=at)
    return get_added(context.repository, member.org_id, certificate_id)


def _host(context: Context, member: Member, common_name: str | None) -> str:
    """The org's messaging host, or one of a listed custom domain. Raises: NotAHost."""
    hosts = hosts_of(member.org_id, context.platform_domain, member.org.settings)
    host = (common_name or hosts[0]).strip().lower()
    if host not in hosts:
        raise NotAHost(field="commonName", host=host[:253], hosts=" or ".join(hosts))
    return host
