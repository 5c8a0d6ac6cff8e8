"""The stored server certificates and certificate requests of an organization, and their parsed form.

    server/{orgId}/{id}     the body: certificate or request, with the sealed private key
    org/{orgId} "servers"   the index: a line for each id, which makes the body visible

A body is written before its line and deleted after its line. So a line always has a body. A call that is cut short
leaves at most a body without a line; `delete_orphans` deletes such a body.
"""

import logging
import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shared.batch import Batch
from shared.errors import (
    ActiveCertificate,
    NotFound,
    RequestNotFulfilled,
    StoreUnavailable,
    TooBusy,
    TooManyServerCertificates,
    TrustError,
)
from shared.org_repository import OrgRepository
from shared.ports import KeySealer
from shared.records import (
    DEFAULT,
    Activity,
    DefaultCertificate,
    Org,
    Revision,
    Sealed,
    ServerCertificate,
    ServerIndexLine,
    Source,
)
from shared.refs import Ref, server_ref
from shared.repository import ExistingAttempt
from shared.usecases.context import count_in_window, make_entry, update_revision
from shared.usecases.organization import Organization
from shared.usecases.servers.platform_default import PlatformDefault
from shared.validation.csr import read_subject, requested_names
from shared.validation.server_cert import adds_to_chain, lost_from_chain, names_of
from shared.x509.certificate import Certificate
from shared.x509.private_keys import PrivateKey

log = logging.getLogger(__name__)

SERVERS_MAX: Final = 50  # server certificates and requests of an organization


class ParsedServerCertificate(msgspec.Struct, frozen=True):
    """A server certificate, a certificate request, or the platform's default certificate, without the private key."""

    id: str
    source: Source
    leaf: Certificate | None
    chain: tuple[Certificate, ...]
    request: x509.CertificateSigningRequest | None
    served_since: datetime | None
    comments: str
    changed: Revision

    @property
    def certificate(self) -> Certificate:
        """The certificate. Raises: RequestNotFulfilled, for a request without certificate."""
        if self.leaf is None:
            raise RequestNotFulfilled
        return self.leaf

    @property
    def public_key(self) -> object:
        """The public key of the certificate, or of the request if there is no certificate yet."""
        return self._request.public_key() if self.leaf is None else self.leaf.public_key

    @property
    def subject(self) -> str:
        """The subject, for people, of the certificate, or of the request if there is no certificate yet."""
        return read_subject(self._request).text if self.leaf is None else self.leaf.subject_text

    @property
    def names(self) -> list[str]:
        """The DNS names of the certificate, or of the request if there is no certificate yet."""
        return requested_names(self._request) if self.leaf is None else names_of(self.leaf)

    @property
    def csr_pem(self) -> str | None:
        """The request as PEM; None for an uploaded certificate."""
        return None if self.request is None else self.request.public_bytes(Encoding.PEM).decode()

    @property
    def _request(self) -> x509.CertificateSigningRequest:
        if self.request is not None:
            return self.request
        raise ValueError("a server certificate's record has neither a certificate nor a request")


def host_version(record: ServerCertificate | DefaultCertificate) -> str:
    """Return the version of a host that *record* serves: equal for equal leaf and chain."""
    digest = sha256(record.leaf or b"")
    for der in record.chain:
        digest.update(der)
    return digest.hexdigest()[:16]


def parse(certificate_id: str, record: ServerCertificate | DefaultCertificate) -> ParsedServerCertificate:
    """Return the parsed form of a stored record."""
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


def new_id() -> str:
    """Return an id for a new record. An id is used once."""
    return secrets.token_hex(16)


def seal_key(sealer: KeySealer, key: PrivateKey, *, org_id: str, certificate_id: str) -> Sealed:
    """Return *key* as PKCS#8, sealed for its organization and certificate.

    Raises: KeysUnavailable.
    """
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return sealer.seal(plain, org_id=org_id, certificate_id=certificate_id)


def check_room(org: Org) -> None:
    """Refuse one more server certificate or request where *org* has no room. Raises: TooManyServerCertificates."""
    if len(org.servers) >= SERVERS_MAX:
        raise TooManyServerCertificates(limit=SERVERS_MAX)


class AddedServerCertificate(msgspec.Struct, frozen=True):
    """The result of `ServerCertificates.add`.

    Args:
        id: of the new record, or of the existing record with the same certificate.
        record: the stored record of that id.
        sets_sni: whether devices must send SNI from now on because of this record.
    """

    id: str
    record: ServerCertificate
    sets_sni: bool = False


class ChainUpdate(msgspec.Struct, frozen=True):
    """The result of `ServerCertificates.complete_chain`.

    Args:
        record: the stored record.
        is_completed: whether this call replaced the chain.
        lost: the stored certificates for whose sake the chain was not replaced.
    """

    record: ServerCertificate
    is_completed: bool
    lost: Sequence[Certificate]


class ServerCertificates:
    """The owner of the server certificates and certificate requests of one organization."""

    def __init__(self, repository: OrgRepository) -> None:
        self._repository = repository
        self._org_id = repository.org_id
        self._organization = Organization(repository)

    # ------------------------------------------------------------------------------------------------- reading

    def ref(self, certificate_id: str) -> Ref[Any]:
        """Return the ref of a body, for a batched read. The id `default` is the platform's default certificate."""
        return PlatformDefault.ref if certificate_id == DEFAULT else self.own_ref(certificate_id)

    def own_ref(self, certificate_id: str) -> Ref[ServerCertificate]:
        """Return the ref of a body of the organization's own."""
        return server_ref(self._org_id, certificate_id)

    def pick(self, documents: Batch, org: Org, certificate_id: str) -> ParsedServerCertificate:
        """Return a record of *documents*, which were read with `ref`.

        Raises: NotFound, also if the index of *org* does not list the id.
        """
        self.check_listed(org, certificate_id)
        record = documents.get(self.ref(certificate_id))
        if record is None:
            raise NotFound(what="server certificate of that id")
        return parse(certificate_id, record)

    def get(self, org: Org, certificate_id: str) -> ParsedServerCertificate:
        """Return a server certificate or request of *org*, or the default certificate.

        Raises: NotFound, StoreUnavailable.
        """
        return self.pick(self._repository.read_batch([self.ref(certificate_id)]), org, certificate_id)

    def check_listed(self, org: Org, certificate_id: str) -> None:
        """Refuse an id that the index of *org* does not list. The default certificate belongs to every organization.

        Raises: NotFound.
        """
        if certificate_id != DEFAULT and certificate_id not in org.servers:
            raise NotFound(what="server certificate of that id")

    def find_record(self, certificate_id: str) -> ServerCertificate | None:
        """Return the body of an id, whether the index lists the id or not.

        Raises: StoreUnavailable.
        """
        return self._repository.get(self.own_ref(certificate_id))

    def find_records(self, certificate_ids: Iterable[str]) -> Sequence[tuple[str, ServerCertificate]]:
        """Return the ids and bodies of those of *certificate_ids* that have a body, from one batched read.

        Raises: StoreUnavailable.
        """
        refs = {certificate_id: self.own_ref(certificate_id) for certificate_id in certificate_ids}
        if not refs:
            return []
        documents = self._repository.read_batch(refs.values())
        records = ((certificate_id, documents.get(ref)) for certificate_id, ref in refs.items())
        return [(certificate_id, record) for certificate_id, record in records if record is not None]

    def list(self, org: Org, *, after: str, limit: int) -> list[ParsedServerCertificate]:
        """Return at most *limit* server certificates and requests behind *after*: the default first, then by id.

        Raises: StoreUnavailable.
        """
        own = sorted(own_id for own_id in org.servers if after in ("", DEFAULT) or own_id > after)
        ids = own if after else [DEFAULT, *own]
        # All bodies are read: a body that is deleted meanwhile must not end the page early.
        documents = self._repository.read_batch([self.ref(certificate_id) for certificate_id in ids])
        records = ((certificate_id, documents.get(self.ref(certificate_id))) for certificate_id in ids)
        return [parse(certificate_id, record) for certificate_id, record in records if record is not None][:limit]

    def find_by_key(self, org: Org, key_hash: str) -> Sequence[tuple[str, ServerCertificate]]:
        """Return the ids and bodies of the server certificates and requests with one public key.

        Raises: StoreUnavailable.
        """
        return self.find_records(own_id for own_id, line in org.servers.items() if line.key_hash == key_hash)

    def find_by_leaf(self, org: Org, key_hash: str, leaf: bytes) -> tuple[str, ServerCertificate] | None:
        """Return the id and body of the server certificate whose DER is *leaf*.

        Two records have one leaf after a renewal that was fulfilled with the same certificate. Of these records the
        active record is returned.

        Raises: StoreUnavailable.
        """
        same_leaf = [(own_id, record) for own_id, record in self.find_by_key(org, key_hash) if record.leaf == leaf]
        return max(same_leaf, key=lambda pair: pair[0] == org.activation.active, default=None)

    def check_place(self, org: Org, leaf: Certificate) -> None:
        """Refuse *leaf* where *org* has no room. A stored certificate, and the certificate for a request, need no room.

        Raises: TooManyServerCertificates, StoreUnavailable.
        """
        same_key = self.find_by_key(org, leaf.key_hash)
        if not any(record.leaf in (None, leaf.der) for _, record in same_key):
            check_room(org)

    # ------------------------------------------------------------------------------------------------ changing

    def count_attempt(self, at: datetime, per_minute: int, *, needs_room: bool = True) -> None:
        """Count one more server certificate or request in this minute, before its key is opened, made or used.

        Use cases call this method before the costly work, so that an attempt that fails counts too, and so that no
        number of callers at the same time gets more.

        Args:
            needs_room: whether the attempt is refused in an organization without room. The certificate of an upload is
                not known yet: an upload of a stored certificate needs no room.

        Raises: NotFound (no such organization), TooManyServerCertificates, RateLimited, TooBusy, StoreUnavailable.
        """
        for attempt in self._organization.changing():
            with attempt as org:
                if needs_room:
                    check_room(org)
                what = "server certificates and requests, failed attempts included,"
                window = count_in_window(org.rate_window, at, per_minute, what)
                attempt.write(msgspec.structs.replace(org, rate_window=window))

    def add(self, certificate_id: str, record: ServerCertificate, *, activity: Activity) -> AddedServerCertificate:
        """Store *record*: the body first, then the line in the index.

        A certificate that the organization has already is not stored again: the result names the existing record.

        Raises: OrgGone, TooManyServerCertificates, TooBusy, StoreUnavailable.
        """
        self._repository.create(self.own_ref(certificate_id), record)
        try:
            added = self._add_line(certificate_id, record, activity)
        except (StoreUnavailable, TooBusy):
            raise  # the line may be written: a body without a line does no harm, a line without a body does
        except TrustError:
            self._delete_body(certificate_id)
            raise
        if added.id != certificate_id:
            self._delete_body(certificate_id)
        return added

    def changing(
        self, certificate_id: str, what: str = "server certificate of that id"
    ) -> Iterator[ExistingAttempt[ServerCertificate]]:
        """Change a body by compare-and-set. See `Repository.changing_existing`.

        Args:
            what: names the body in the refusal.

        Raises: NotFound, TooBusy, StoreUnavailable, and whatever the block raises.
        """
        return self._repository.changing_existing(self.own_ref(certificate_id), what, activity_of=self._org_id)

    def complete_chain(
        self, certificate_id: str, chain: Sequence[Certificate], *, at: datetime, who: str
    ) -> ChainUpdate:
        """Replace the chain of a stored certificate by *chain*: the body first, then the line.

        A chain that adds nothing to the stored chain, or lacks a part of it that devices may need, changes nothing.
        Such a call finishes a change that was cut short between the two, and otherwise writes nothing.

        Raises: NotFound, TooBusy, StoreUnavailable.
        """
        activity = make_entry(at, who, "completeChain", certificate=certificate_id)
        is_completed = False
        for attempt in self.changing(certificate_id):
            with attempt as record:
                stored = tuple(map(Certificate.from_der, record.chain))
                adds = adds_to_chain(chain, stored, at)
                lost = lost_from_chain(chain, stored, at) if adds else ()
                if adds and not lost:
                    record = msgspec.structs.replace(
                        record,
                        chain=tuple(issuer.der for issuer in chain),
                        has_later_chain=True,
                        changed=update_revision(record.changed, at, who),
                    )
                    attempt.write(record, activity=activity)
                    is_completed = True  # and stays: the store may report a conflict for an attempt that was written
        if record.has_later_chain:
            self._write_version(certificate_id, host_version(record))
        return ChainUpdate(record, is_completed and not lost, lost)

    def delete(self, certificate_id: str, *, activity: Activity) -> None:
        """Delete a server certificate or request: the line in the index first, then the body.

        The same call again finishes a deletion that was cut short between the two.

        Raises: NotFound, ActiveCertificate, TooBusy, StoreUnavailable.
        """
        is_listed = False
        for attempt in self._organization.changing():
            with attempt as org:
                is_listed = certificate_id in org.servers
                if is_listed:
                    attempt.write(_without(org, certificate_id), activity=activity)
        # A body without a line is the rest of a deletion: clients learn an id only after the line is written.
        if not is_listed and self.find_record(certificate_id) is None:
            raise NotFound(what="server certificate of that id that is this organization's own")
        self._delete_body(certificate_id)

    def delete_orphans(self, *, created_before: datetime) -> int:
        """Delete bodies without a line that were created before *created_before*. Return the number of deleted bodies.

        *created_before* must be far enough in the past that no upload between body and line is that old.

        Raises: TooBusy, StoreUnavailable.
        """
        old = [
            certificate_id
            for certificate_id, record in self._repository.iterate(f"server/{self._org_id}", ServerCertificate)
            if record.changed.created_at < created_before
        ]
        org = self._organization.find() if old else None  # after the bodies: the index is no older
        orphans = [certificate_id for certificate_id in old if org is not None and certificate_id not in org.servers]
        for certificate_id in orphans:
            self._delete_body(certificate_id)
            log.warning("a body that no index names was removed", extra={"org": self._org_id, "id": certificate_id})
        return len(orphans)

    def _add_line(self, certificate_id: str, record: ServerCertificate, activity: Activity) -> AddedServerCertificate:
        """Write the line of *record* into the index, unless the index lists the same certificate."""
        added = AddedServerCertificate(certificate_id, record)
        for attempt in self._organization.changing():
            with attempt as org:
                if certificate_id in org.servers:
                    continue  # an earlier attempt wrote the line although the store reported a conflict
                existing = self.find_by_leaf(org, record.key_hash, record.leaf) if record.leaf is not None else None
                if existing is not None:
                    added = AddedServerCertificate(*existing)
                    continue
                added = AddedServerCertificate(certificate_id, record, sets_sni=not org.requires_sni)
                check_room(org)
                servers = {**org.servers, certificate_id: ServerIndexLine(record.key_hash)}
                attempt.write(msgspec.structs.replace(org, servers=servers), activity=activity)
        return added

    def _write_version(self, certificate_id: str, version: str) -> None:
        """Write the version of a certificate's hosts into its line, unless the line has that version."""
        for attempt in self._organization.changing():
            with attempt as org:
                line = org.servers.get(certificate_id)
                if line is not None and line.version != version:
                    line = msgspec.structs.replace(line, version=version)
                    attempt.write(msgspec.structs.replace(org, servers={**org.servers, certificate_id: line}))

    def _delete_body(self, certificate_id: str) -> None:
        self._repository.delete(self.own_ref(certificate_id), activity_of=self._org_id)


def _without(org: Org, certificate_id: str) -> Org:
    """Return *org* without the line of *certificate_id*.

    Raises: ActiveCertificate.
    """
    activation = org.activation
    if activation.active == certificate_id:
        raise ActiveCertificate
    if activation.previous == certificate_id:
        activation = msgspec.structs.replace(activation, previous=None)
    servers = {own_id: line for own_id, line in org.servers.items() if own_id != certificate_id}
    return msgspec.structs.replace(org, servers=servers, activation=activation)
