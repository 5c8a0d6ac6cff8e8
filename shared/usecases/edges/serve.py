"""edgeFeed: export the certificate chain and private key of a host to a TLS edge.

This is the only module that exports private keys. Only the API modules for TLS edges may import this module; a
contract in pyproject.toml lists them.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from shared.batch import Batch
from shared.errors import NotFound
from shared.ports import KeySealer
from shared.records import DEFAULT, PLATFORM, Activity, ActivityKind, DefaultCertificate, Org, Sealed, ServerCertificate
from shared.refs import Ref, activity_id, org_ref
from shared.usecases.callers import Caller, Credentials
from shared.usecases.context import Context
from shared.usecases.edges.callers import authenticate_edge
from shared.usecases.edges.hosts import load_leaf
from shared.usecases.servers.documents import ServerCertificates, host_version
from shared.usecases.servers.platform_default import PlatformDefault
from shared.validation.names import ServerName, messaging_host
from shared.validation.server_cert import hosts_covered
from shared.x509.certificate import Certificate

log = logging.getLogger(__name__)

_NOTE_SECONDS: Final = 3600  # between two activity entries of the same edge, host and version


class ExportedKey(msgspec.Struct, frozen=True):
    """A host's certificate chain and private key, as PEM."""

    server_name: str
    org_id: str
    version: str
    certificate_id: str
    certificate: str
    private_key: str

    def __repr__(self) -> str:
        """Return a text without the private key."""
        return f"ExportedKey({self.server_name}, {self.version})"


class _ServedHost(msgspec.Struct, frozen=True):
    """A host with the record of the certificate that serves it."""

    server_name: str
    org: Org
    certificate_id: str
    version: str
    record: ServerCertificate | DefaultCertificate


def export_key(context: Context, sealer: KeySealer, credentials: Credentials, server_name: str) -> ExportedKey:
    """Return chain and key of the certificate that serves *server_name*, an exact host name.

    Each export is logged. The activity list of the organization gets an entry once an hour for each edge, host and
    version.

    Raises: NotFound (unknown host, another organization's host, or a host that no certificate covers),
        NotAuthenticated, Forbidden, SealBroken, StoreUnavailable.
    """
    caller, documents = authenticate_edge(context, credentials, PlatformDefault.ref, *_org_refs(server_name))
    host = _find_served(context, caller, documents, server_name)
    if host is None:
        raise NotFound(what="host of that name")
    return _export(context, sealer, caller, host)


def export_keys(
    context: Context,
    sealer: KeySealer,
    credentials: Credentials,
    server_names: Sequence[str],
    *,
    unless: Callable[[Sequence[str]], bool],
) -> tuple[list[ExportedKey], bool]:
    """Return chain and key of each of *server_names*, as `export_key` does; a host that is not found is left out.

    Args:
        unless: takes `<host> <version>` for each host and returns whether the caller has these versions already. If
            so, no key is opened.

    Returns: the exported keys, and whether the caller had them already.

    Raises: NotAuthenticated, Forbidden, SealBroken, StoreUnavailable.
    """
    refs = [ref for server_name in server_names for ref in _org_refs(server_name)]
    caller, documents = authenticate_edge(context, credentials, PlatformDefault.ref, *refs)
    served = (_find_served(context, caller, documents, server_name) for server_name in server_names)
    hosts = [host for host in served if host is not None]
    if unless([f"{host.server_name} {host.version}" for host in hosts]):
        return [], True
    return [_export(context, sealer, caller, host) for host in hosts], False


def _org_refs(server_name: str) -> list[Ref[Any]]:
    """Return the ref of the organization that *server_name* names, in a list; empty for another kind of name."""
    name = ServerName.parse(server_name)
    return [org_ref(name.org_id)] if name else []


def _find_served(context: Context, caller: Caller, documents: Batch, server_name: str) -> _ServedHost | None:
    """Return the certificate that serves a host now, decided by the organization's own document."""
    name = ServerName.parse(server_name)
    org = documents.get(org_ref(name.org_id)) if name is not None else None
    if name is None or org is None or not caller.scope.may_ask_about(org.org_id, org.incarnation):
        return None
    host = messaging_host(org.org_id, name.domain)
    if org.suspended or org.deletion is not None or host not in org.hosts(context.platform_domain):
        return None
    active = org.activation.active
    if active != DEFAULT:
        own = ServerCertificates(context.of(org)).find_record(active)
        if own is not None and own.leaf is not None and hosts_covered(load_leaf(own.leaf), [host]):
            return _ServedHost(host, org, active, host_version(own), own)
    default = documents.get(PlatformDefault.ref)
    if default is not None and hosts_covered(load_leaf(default.leaf), [host]):
        return _ServedHost(host, org, DEFAULT, host_version(default), default)
    return None


def _export(context: Context, sealer: KeySealer, caller: Caller, host: _ServedHost) -> ExportedKey:
    """Open the private key of a host, log the export, and note it in the activity list."""
    owner = PLATFORM if host.certificate_id == DEFAULT else host.org.org_id
    key = _open_key(sealer, host.record.key, owner, host.certificate_id)
    log.info(
        "a private key was exported",
        extra={
            "org": host.org.org_id,
            "host": host.server_name,
            "certificate": host.certificate_id,
            "version": host.version,
            "edge": caller.who,
        },
    )
    _note(context, caller, host)
    chain = [load_leaf(host.record.leaf)] if host.record.leaf else []
    chain += map(Certificate.from_der, host.record.chain)
    pem = "".join(cert.pem for cert in chain)
    return ExportedKey(host.server_name, host.org.org_id, host.version, host.certificate_id, pem, key)


def _open_key(sealer: KeySealer, sealed: Sealed, org_id: str, certificate_id: str) -> str:
    """Return a private key as PKCS#8 in PEM.

    Raises: SealBroken, KeysUnavailable.
    """
    plain = sealer.open(sealed, org_id=org_id, certificate_id=certificate_id)
    # The numbers were checked before the key was sealed. A check holds Python's lock, for 0.4 s with RSA-4096.
    key = load_der_private_key(plain, None, unsafe_skip_rsa_key_validation=True)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _note(context: Context, caller: Caller, host: _ServedHost) -> None:
    """Add an entry to the organization's activity list.

    The entry's id consists of the hour and a digest of edge, host and version, so that repeated exports within an hour
    make one entry.
    """
    at = context.clock()
    hour = datetime.fromtimestamp(int(at.timestamp()) // _NOTE_SECONDS * _NOTE_SECONDS, at.tzinfo)
    about = sha256(f"{caller.who} {host.server_name} {host.version}".encode()).hexdigest()[:8]
    entry_id = f"{activity_id(hour).partition('-')[0]}-{about}"
    detail = {"host": host.server_name, "certificate": host.certificate_id, "version": host.version}
    activity = Activity(entry_id, at, ActivityKind.EDGE, caller.who, "keyHandedOut", detail=detail)
    context.of(host.org).try_append_once(host.org.org_id, activity)
