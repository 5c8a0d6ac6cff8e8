"""generateCSR and fulfillCSR: make a key pair with a certificate request, and store the signed certificate."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from shared.errors import AlreadyFulfilled, FaultyCertificate, KeyMismatch, NotAHost, NotFound
from shared.ports import KeySealer
from shared.records import ServerCertificate, Source
from shared.usecases.callers import Member
from shared.usecases.context import Context, make_entry, make_revision, update_revision
from shared.usecases.organization import warn_of_sni
from shared.usecases.servers.chain import complete_chain
from shared.usecases.servers.documents import (
    AddedServerCertificate,
    ParsedServerCertificate,
    ServerCertificates,
    new_id,
    parse,
    seal_key,
)
from shared.usecases.servers.rules import check_for_org
from shared.validation.csr import check_algorithm, make_csr, read_signed, subject_name
from shared.validation.notices import Notice
from shared.x509.certificate import Certificate
from shared.x509.private_keys import PrivateKey
from shared.x509.public_keys import key_hash, public_key_info


class Subject(msgspec.Struct, frozen=True):
    """The subject of a request. *common_name* None means the organization's messaging host."""

    common_name: str | None = None
    organization: str | None = None
    organizational_unit: str | None = None
    locality: str | None = None
    state: str | None = None
    country: str | None = None
    email_address: str | None = None


def generate_csr(
    context: Context, sealer: KeySealer, member: Member, subject: Subject, *, algorithm: str, comments: str = ""
) -> tuple[ParsedServerCertificate, list[Notice]]:
    """Make a key pair and a request for one of the organization's hosts, and store the request with the sealed key.

    Return the request with warnings.

    An attempt counts before the key is made (`ServerCertificates.count_attempt`).

    Raises: NotAHost, InvalidSubject, WrongValue (algorithm), TooManyServerCertificates, RateLimited, TooBusy,
        StoreUnavailable, KeyWorkUnavailable.
    """
    at = context.clock()
    host = _check_host(context, member, subject.common_name)
    name = subject_name(  # before the key, which may take seconds: a wrong field is refused at once, and not counted
        host=host,
        organization=subject.organization,
        organizational_unit=subject.organizational_unit,
        locality=subject.locality,
        state=subject.state,
        country=subject.country,
        email_address=subject.email_address,
    )
    check_algorithm(algorithm)
    ServerCertificates(context.of(member.org)).count_attempt(at, context.rate_per_minute)
    key = context.key_work.make(algorithm, org_id=member.org_id)
    csr = make_csr(key, name, host=host)
    added = add_request(context, sealer, member, key, csr, comments=comments, what="generateCSR", at=at)
    return parse(added.id, added.record), [warn_of_sni(context, member.org)] if added.sets_sni else []


def add_request(
    context: Context,
    sealer: KeySealer,
    member: Member,
    key: PrivateKey,
    csr: x509.CertificateSigningRequest,
    *,
    comments: str,
    what: str,
    at: datetime,
) -> AddedServerCertificate:
    """Store a request with its sealed key, under a new id.

    Args:
        what: the action in the activity list.

    Raises: TooManyServerCertificates, TooBusy, StoreUnavailable.
    """
    certificate_id = new_id()
    record = ServerCertificate(
        source=Source.CSR,
        key=seal_key(sealer, key, org_id=member.org_id, certificate_id=certificate_id),
        key_hash=key_hash(key.public_key()),
        csr=csr.public_bytes(Encoding.DER),
        comments=comments,
        changed=make_revision(at, member.who),
    )
    activity = make_entry(at, member.who, what, certificate=certificate_id)
    return ServerCertificates(context.of(member.org)).add(certificate_id, record, activity=activity)


def fulfill_csr(
    context: Context, member: Member, certificate_id: str, data: bytes
) -> tuple[ParsedServerCertificate, list[Notice]]:
    """Store the certificate that a CA issued for a request, under the request's id. Return it with warnings.

    Repeating the call with the same certificate changes nothing but the chain, where more of the chain is sent.

    Args:
        data: the certificate with or without its chain: PEM, DER or PKCS#7.

    Raises: NotFound, KeyMismatch (the request stays), AlreadyFulfilled, Rejected (`shared.validation.server_cert`),
        TooBusy, StoreUnavailable.
    """
    at = context.clock()
    servers = ServerCertificates(context.of(member.org))
    request = servers.find_record(certificate_id) if certificate_id in member.org.servers else None
    if request is None or request.csr is None:
        raise NotFound(what="certificate request of that id")
    try:
        leaf, chain = read_signed(data, public_key=_read_requested_key(request.csr), at=at)
    except KeyMismatch as mismatch:
        raise _not_from_request(parse(certificate_id, request), mismatch.cert) from None
    warnings = check_for_org(context, member.org, leaf, chain, at)
    activity = make_entry(at, member.who, "fulfillCSR", certificate=certificate_id)
    for attempt in servers.changing(certificate_id, "certificate request of that id"):
        with attempt as record:
            fulfilled = _add_certificate(record, leaf, chain, at, member.who)
            if fulfilled is not record:
                attempt.write(fulfilled, activity=activity)
    if fulfilled is not record:
        return parse(certificate_id, fulfilled), warnings
    return complete_chain(context, member, certificate_id, chain, at)


def _add_certificate(
    record: ServerCertificate, leaf: Certificate, chain: Sequence[Certificate], at: datetime, who: str
) -> ServerCertificate:
    """Return *record* with the certificate; the same object if the record has the certificate already.

    Raises: AlreadyFulfilled.
    """
    if record.leaf == leaf.der:
        return record
    if record.leaf is not None:
        raise AlreadyFulfilled
    return msgspec.structs.replace(
        record,
        leaf=leaf.der,
        chain=tuple(issuer.der for issuer in chain),
        changed=update_revision(record.changed, at, who),
    )


def _not_from_request(request: ParsedServerCertificate, cert: FaultyCertificate | None) -> KeyMismatch:
    """Return the refusal of a certificate that is not of the key of *request*, which was made here."""
    return KeyMismatch(
        part="certificate",
        cert=cert,
        found="This certificate was not made from this request: its public key is another",
        hint=f"Upload the certificate that your CA returned for the request for {', '.join(request.names)}.",
    )


def _read_requested_key(csr: bytes) -> bytes:
    """Return the SubjectPublicKeyInfo of a request."""
    return public_key_info(x509.load_der_x509_csr(csr).public_key())


def _check_host(context: Context, member: Member, common_name: str | None) -> str:
    """Return *common_name* as a host of the organization: the messaging host, or a listed custom domain's host.

    Raises: NotAHost.
    """
    hosts = member.org.hosts(context.platform_domain)
    host = (common_name or hosts[0]).strip().lower()
    if host not in hosts:
        raise NotAHost(field="commonName", host=host[:253], hosts=" or ".join(hosts))
    return host
