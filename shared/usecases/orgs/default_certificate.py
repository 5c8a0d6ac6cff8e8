"""The platform's default server certificate: one for all orgs, which starts active in each."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.ports import KeySealer
from shared.records import DEFAULT, PLATFORM, DefaultCertificate
from shared.repository import default_ref
from shared.usecases.context import Context, made
from shared.usecases.orgs.organizations import ADMIN
from shared.usecases.servers.documents import sealed_key
from shared.validation.csr import COMMON_NAME_MAX, make_key
from shared.validation.names import messaging_host
from shared.validation.notices import Notice
from shared.validation.server_cert import (
    check_default_certificate,
    read_server_certificate,
)
from shared.x509.certificate import Certificate
from shared.x509.private_keys import PrivateKey

_DAYS: Final = 825  # of the one made here: clients refuse longer ones (CA/Browser Forum, baseline 6.3.2)


def set_default(
    context: Context,
    sealer: KeySealer,
    certificate: bytes,
    *,
    chain: bytes | None,
    private_key: bytes | None,
    passphrase: str | None,
) -> tuple[DefaultCertificate, list[Notice]]:
    """Replace the default certificate, for all orgs at once.

    Raises: Rejected (see `shared.validation.server_cert`); it must name `*.messaging.<platform domain>`."""
    server = read_server_certificate(certificate, chain=chain, private_key=private_key, passphrase=passphrase)
    warnings = check_default_certificate(
        server.leaf, server.chain, platform_domain=context.platform_domain, at=context.clock(), weak=context.weak_keys
    )
    return _stored(context, sealer, server.leaf, server.chain, server.private_key), warnings


def ensure_default(context: Context, sealer: KeySealer) -> bool:
    """Make a self-signed default certificate where there is none. Returns whether it was made."""
    if context.repository.get(default_ref()) is not None:
        return False
    key = make_key("P-256")
    _stored(context, sealer, _self_signed(context, key), (), key)
    return True


def _stored(
    context: Context, sealer: KeySealer, leaf: Certificate, chain: Sequence[Certificate], key: PrivateKey
) -> DefaultCertificate:
    record = DefaultCertificate(
        key=sealed_key(sealer, key, org_id=PLATFORM, certificate_id=DEFAULT),
        leaf=leaf.der,
        chain=tuple(cert.der for cert in chain),
        changed=made(context.clock(), ADMIN),
    )
    context.repository.change(default_ref(), lambda _: record)
    return record


def _self_signed(context: Context, key: PrivateKey) -> Certificate:
    host = messaging_host("*", context.platform_domain)
    short = host if len(host) <= COMMON_NAME_MAX else "MQTT Trust default"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, short)])
    begin = context.clock().replace(microsecond=0) - timedelta(hours=1)  # clocks differ
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Certificate.from_der(cert.public_bytes(Encoding.DER))
