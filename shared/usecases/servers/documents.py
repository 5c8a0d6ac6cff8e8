"""What the use cases of server certificates share: reading them whole, adding them to an org, their hosts."""

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shared.errors import NotFound, StoreUnavailable, TooBusy, TooManyServerCertificates, TrustError
from shared.ports import KeySealer
from shared.records import (
    DEFAULT,
    DefaultCertificate,
    Listed,
    Org,
    Revision,
    Sealed,
    ServerCertificate,
    Source,
)
from shared.repository import Ref, Repository, default_ref, org_ref, server_ref
from shared.usecases.callers import Member
from shared.usecases.context import Context, count_in_window, entry
from shared.usecases.edges.host_names import hosts_of
from shared.validation.csr import requested_names
from shared.validation.names import messaging_host
from shared.validation.notices import Notice, devices_must_send_sni
from shared.validation.server_cert import check_server_certificate, hosts_covered
from shared.x509.certificate import Certificate
from shared.x509.private_keys import PrivateKey

SERVERS_MAX = 50  # server certificates and requests of an org


class ParsedServerCertificate(msgspec.Struct, frozen=True):
    """A server certificate, a request, or the platform's default, parsed; never its key."""

    id: str
    source: Source
    leaf: Certificate | None
    chain: tuple[Certificate, ...]
    request: x509.CertificateSigningRequest | None
    served_since: datetime | None
    comments: str
    changed: Revision

    @property
    def public_key(self) -> object:
        return self._request.public_key() if self.leaf is None else self.leaf.public_key

    @property
    def request_subject(self) -> x509.Name:
        return self._request.subject

    @property
    def requested_names(self) -> list[str]:
        """The hosts a request asks for."""
        return requested_names(self._request)

    @property
    def csr_pem(self) -> str | None:
        return None if self.request is None else self.request.public_bytes(Encoding.PEM).decode()

    @property
    def _request(self) -> x509.CertificateSigningRequest:
        assert self.request is not None  # noqa: S101 - a record without leaf has a request
        return self.request


def shown(certificate_id: str, record: ServerCertificate | DefaultCertificate) -> ParsedServerCertificate:
    """A record, parsed."""
    leaf = None if record.leaf is None else Certificate.from_der(record.leaf)
    chain = tuple(map(Certificate.from_der, record.chain))
    if isinstance(record, DefaultCertificate):
        return ParsedServerCertificate(
            certificate_id, Source.DEFAULT, leaf, chain, None, record.served_since, "", record.changed
        )
    request = None if record.csr is None else x509.load_der_x509_csr(record.csr)
    return ParsedServerCertificate(
        certificate_id, record.source, leaf, chain, request, record.served_since, record.comments, record.changed
    )


def place_of(org: Org, certificate_id: str) -> Ref[Any]:
    """Where the record lies. Raises: NotFound, where the org has none of that id."""
    if certificate_id == DEFAULT:
        return default_ref()
    if certificate_id not in org.servers:
        raise NotFound(what="server certificate of that id")
    return server_ref(org.org_id, certificate_id)


def get_server(repository: Repository, org: Org, certificate_id: str) -> ParsedServerCertificate:
    """Raises: NotFound."""
    return shown(certificate_id, _found(repository, place_of(org, certificate_id)))


def get_added(repository: Repository, org_id: str, certificate_id: str) -> ParsedServerCertificate:
    """One that `add` told of: the org's index may have changed since the org was read. Raises: NotFound."""
    return shown(certificate_id, _found(repository, server_ref(org_id, certificate_id)))


def _found(repository: Repository, place: Ref[Any]) -> Any:
    record = repository.get(place)
    if record is None:
        raise NotFound(what="server certificate of that id")
    return record


def served_hosts(context: Context, org: Org, leaf: Certificate | None) -> list[str]:
    """The org's hosts that *leaf* covers."""
    return list(hosts_covered(leaf, hosts_of(org.org_id, context.platform_domain, org.settings))) if leaf else []


def checked(context: Context, org: Org, leaf: Certificate, chain: Sequence[Certificate], at: datetime) -> list[Notice]:
    """`check_server_certificate` with what is known of the org."""
    return check_server_certificate(
        leaf,
        chain,
        host=messaging_host(org.org_id, context.platform_domain),
        custom_domains=org.settings.domains,
        platform_domain=context.platform_domain,
        org_id=org.org_id,
        at=at,
        weak=context.weak_keys,
    )


def new_id() -> str:
    return secrets.token_hex(16)


def sealed_key(sealer: KeySealer, key: PrivateKey, *, org_id: str, certificate_id: str) -> Sealed:
    """A private key, sealed for its place."""
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return sealer.seal(plain, org_id=org_id, certificate_id=certificate_id)


def check_room(context: Context, org: Org, at: datetime) -> None:
    """Refuse early what `add` would refuse late, before a key is made or opened.

    Raises: TooManyServerCertificates, RateLimited."""
    _with_room(context, org, at)


def _with_room(context: Context, org: Org, at: datetime) -> Org:
    if len(org.servers) >= SERVERS_MAX:
        raise TooManyServerCertificates(limit=SERVERS_MAX)
    pace = count_in_window(org.pace, at, context.rate_per_minute, "server certificates and requests")
    return msgspec.structs.replace(org, pace=pace)


def add(
    context: Context,
    member: Member,
    certificate_id: str,
    record: ServerCertificate,
    *,
    what: str,
    at: datetime,
    same: Callable[[Org], str | None] = lambda _: None,
) -> tuple[str, list[Notice]]:
    """Store *record*: its body first, then its line in the org's index, by which it comes to be.

    Args:
        same: finds, in the org as it stands at the moment of writing, the id of a record that is the same thing;
            then nothing is added.

    Returns the id of the record that stands, and warnings. Raises: TooManyServerCertificates, RateLimited."""
    org_id = member.org_id
    context.repository.create(server_ref(org_id, certificate_id), record)
    standing, first = certificate_id, False

    def alter(before: Org | None) -> Org:
        nonlocal standing, first
        if before is None:
            raise NotFound(what="such organization")
        if certificate_id in before.servers:  # written by a call before this one, whose answer was lost
            return before
        if (existing := same(before)) is not None:
            standing, first = existing, False
            return before
        org = _with_room(context, before, at)
        standing, first = certificate_id, not before.requires_sni
        servers = {**org.servers, certificate_id: Listed(record.key_hash)}
        return msgspec.structs.replace(
            org, servers=servers, outbox=(entry(at, member.who, what, certificate=certificate_id),)
        )

    try:
        context.repository.change(org_ref(org_id), alter, org_id=org_id)
    except (StoreUnavailable, TooBusy):
        raise  # the index may have been written: a body that no index names does no harm, the other way round does
    except TrustError:
        context.repository.discard(server_ref(org_id, certificate_id))
        raise
    if standing != certificate_id:
        context.repository.discard(server_ref(org_id, certificate_id))
    host = messaging_host(org_id, context.platform_domain)
    return standing, [devices_must_send_sni(host)] if first and record.leaf is not None else []


def find_by_key(repository: Repository, org: Org, key_hash: str) -> list[tuple[str, ServerCertificate]]:
    """The org's server certificates and requests of one key."""
    ids = [one for one, listed in org.servers.items() if listed.key_hash == key_hash]
    found = repository.find([server_ref(org.org_id, one) for one in ids])
    records = ((one, found.get(server_ref(org.org_id, one))) for one in ids)
    return [(one, record) for one, record in records if record is not None]
