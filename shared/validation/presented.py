"""What a client presented: server name, client ID and certificates, read as far as they can be read."""

from typing import Final

import msgspec

from shared import errors
from shared.text import printable
from shared.validation import identity
from shared.validation.deny_list import CertificateIds
from shared.validation.names import ClientId, DeviceName, ServerName
from shared.x509 import certificate_files
from shared.x509.budget import ELEMENTS_MAX, NAMES_MAX, SUBTREES_MAX, ElementCount, find_excess
from shared.x509.cache import read_intermediate
from shared.x509.certificate import Certificate
from shared.x509.once import once

CLIENT_ID_SHOWN_MAX: Final = 256  # characters, in the list of refusals
CERTIFICATES_MAX: Final = 10
CERTIFICATES_BYTES: Final = 64 * 1024  # as PEM or DER, together


UNREAD: Final = (
    f"a certificate sent after it has more than {NAMES_MAX} names or {SUBTREES_MAX} name constraints, or all have more "
    f"than {ELEMENTS_MAX:,} elements of DER"
)
"""What a refusal says of `Presented.unread`."""

FEWER_PARTS: Final = "Issue certificates with fewer names, constraints and extensions."
_FEWER: Final = "Let the device send only its certificate and the intermediate certificates above it."


class ConnectingClient(msgspec.Struct, frozen=True, array_like=True):
    """A connecting client as a broker describes it. Nothing of it is read yet.

    Args:
        server_name: the server name in TLS (RFC 6066, 3).
        client_id: the client ID in CONNECT.
        certificate: the leaf, PEM (others may follow it) or DER.
        chain: what the client sent after it, PEM or concatenated DER.
        leaf_only: the broker passes no certificate but the client's own.
    """

    server_name: str | None = None
    client_id: str | None = None
    certificate: bytes | None = None
    chain: bytes = b""
    tls: bool = True
    leaf_only: bool = False

    @property
    def client_id_text(self) -> str:
        """The client ID for people: printable, and cut."""
        return printable(self.client_id or "", CLIENT_ID_SHOWN_MAX)


class Presented(msgspec.Struct, frozen=True, dict=True):
    """What a client presented.

    *client_id* and *chain* hold the refusal where they cannot be read: a later step raises it. *unread* are
    certificates, as DER, that were sent after the leaf and have more parts than are read. A CA that an organization
    registered before there were such limits may be among them.
    """

    server_name: str | None
    client_id: ClientId | errors.ClientIdInvalid | None
    chain: tuple[Certificate, ...] | errors.CertificateMalformed  # leaf first; empty: no certificate
    tls: bool
    unread: tuple[bytes, ...] = ()
    leaf_only: bool = False  # the broker passes no certificate but the device's own

    @classmethod
    def read(cls, client: ConnectingClient) -> "Presented":
        """Read what *client* presented."""
        name: ClientId | errors.ClientIdInvalid | None = None
        if client.client_id:
            try:
                name = ClientId.parse(client.client_id)
            except errors.ClientIdInvalid as refusal:
                name = refusal
        certs: tuple[Certificate, ...] | errors.CertificateMalformed = ()
        unread: tuple[bytes, ...] = ()
        if client.certificate and client.tls:  # without TLS nothing proves that the client has the key
            try:
                certs, unread = read_presented(client.certificate, client.chain)
            except errors.CertificateMalformed as refusal:
                certs = refusal
        return cls(client.server_name or None, name, certs, client.tls, unread, client.leaf_only)

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """The certificates, leaf first; empty without any, or if they cannot be read."""
        return self.chain if isinstance(self.chain, tuple) else ()

    @once
    def identities(self) -> tuple[DeviceName, ...]:
        """The identities in the leaf."""
        return identity.candidates(self.certificates[0]) if self.certificates else ()

    @once
    def certificate_ids(self) -> tuple[CertificateIds, ...]:
        """What each certificate is looked up by, leaf first."""
        return tuple(map(CertificateIds.of, self.certificates))

    @once
    def server(self) -> ServerName | None:
        """The parts of the server name; None without one, or where it is no messaging host's."""
        return None if self.server_name is None else ServerName.parse(self.server_name)

    @property
    def device(self) -> DeviceName | None:
        """The device in question: the client ID's, or else the only one that the certificate names."""
        if isinstance(self.client_id, ClientId):
            return self.client_id.device
        return identity.single(self.identities)


def read_presented(leaf: bytes, more: bytes) -> tuple[tuple[Certificate, ...], tuple[bytes, ...]]:
    """Return the leaf and what follows it, and the DER of what follows it and has too many parts to be read.

    A key or signature of an unknown algorithm is readable: a later step refuses it as weak.

    Raises: CertificateMalformed."""
    size = len(leaf) + len(more)
    if size > CERTIFICATES_BYTES:
        raise errors.CertificateMalformed(
            found=f"{size:,} bytes were sent, at most {CERTIFICATES_BYTES:,} are read", hint=_FEWER
        )
    first, *rest = split_presented(leaf, more)
    if len(rest) >= CERTIFICATES_MAX:
        raise errors.CertificateMalformed(
            found=f"{len(rest) + 1} certificates were sent, at most {CERTIFICATES_MAX} are", hint=_FEWER
        )
    count = ElementCount(ELEMENTS_MAX, len(first) + sum(map(len, rest)))
    if not count.takes(first):
        raise errors.CertificateMalformed(found=f"it has more than {ELEMENTS_MAX:,} elements of DER", hint=FEWER_PARTS)
    certs, unread = [Certificate.from_der(first)], []
    if excess := find_excess(certs[0]):
        raise errors.CertificateMalformed(found=f"it has {excess}", hint=FEWER_PARTS)
    for der in rest:
        cert = read_intermediate(der) if count.takes(der) else None
        if cert is None or find_excess(cert):
            unread.append(der)
        else:
            certs.append(cert)
    return tuple(certs), tuple(unread)


def split_presented(leaf: bytes, more: bytes) -> list[bytes]:
    """Return the DER of each certificate in what was presented, the leaf first. Raises: CertificateMalformed."""
    return [der for data in (leaf, more) if data for der in _split(data)]


def _split(data: bytes) -> list[bytes]:
    try:
        return certificate_files.split(data)
    except errors.Rejected as error:
        raise errors.CertificateMalformed(
            found="there is no certificate in it, neither PEM nor DER", hint="Send the certificate as PEM or DER."
        ) from error
