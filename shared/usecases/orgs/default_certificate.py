"""The platform's default server certificate: one for all organizations, active in each new organization."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.ports import KeySealer
from shared.records import DEFAULT, PLATFORM, DefaultCertificate
from shared.usecases.context import Context, make_revision
from shared.usecases.orgs.organizations import ADMIN
from shared.usecases.servers.documents import seal_key
from shared.usecases.servers.platform_default import PlatformDefault
from shared.validation.csr import COMMON_NAME_MAX, make_key
from shared.validation.names import messaging_host
from shared.validation.notices import Notice
from shared.validation.server_cert import check_default_certificate, read_server_certificate
from shared.x509.certificate import Certificate
from shared.x509.private_keys import PrivateKey

_DAYS: Final = 825  # validity of a generated certificate: clients refuse more (CA/Browser Forum BR, section 6.3.2)


def set_default(
    context: Context,
    sealer: KeySealer,
    certificate: bytes,
    *,
    chain: bytes | None,
    private_key: bytes | None,
    passphrase: str | None,
) -> tuple[DefaultCertificate, list[Notice]]:
    """Replace the default certificate of all organizations. Return the stored certificate and warnings.

    The certificate must name `*.messaging.<platform domain>`.

    Raises: Rejected (see `shared.validation.server_cert`), TooBusy, StoreUnavailable.
    """
    at = context.clock()
    server = read_server_certificate(certificate, chain=chain, private_key=private_key, passphrase=passphrase, at=at)
    warnings = check_default_certificate(
        server.leaf, server.chain, platform_domain=context.platform_domain, at=at, weak=context.weak_keys
    )
    record = _seal(context, sealer, server.leaf, server.chain, server.private_key)
    PlatformDefault(context.repository).replace(record)
    return record, warnings


def ensure_default(context: Context, sealer: KeySealer) -> bool:
    """Make a self-signed default certificate unless a default certificate exists. Return whether one was made.

    Raises: StoreUnavailable.
    """
    default = PlatformDefault(context.repository)
    if default.get() is not None:
        return False
    key = make_key("P-256")
    return default.create(_seal(context, sealer, _make_self_signed(context, key), (), key))


def _seal(
    context: Context, sealer: KeySealer, leaf: Certificate, chain: Sequence[Certificate], key: PrivateKey
) -> DefaultCertificate:
    """Return the record of a default certificate, with its private key sealed."""
    return DefaultCertificate(
        key=seal_key(sealer, key, org_id=PLATFORM, certificate_id=DEFAULT),
        leaf=leaf.der,
        chain=tuple(issuer.der for issuer in chain),
        changed=make_revision(context.clock(), ADMIN),
    )


def _make_self_signed(context: Context, key: PrivateKey) -> Certificate:
    host = messaging_host("*", context.platform_domain)
    common_name = host if len(host) <= COMMON_NAME_MAX else "MQTT Trust default"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    not_before = context.clock().replace(microsecond=0) - timedelta(hours=1)  # the clocks of clients differ
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_before + timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Certificate.from_der(cert.public_bytes(Encoding.DER))
