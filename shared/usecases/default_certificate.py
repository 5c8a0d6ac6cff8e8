"""The platform's default server certificate: one for all orgs, which starts active in each."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.records import DEFAULT, PLATFORM, DefaultCertificate
from shared.repository import default_place
from shared.usecases.orgs import ADMIN
from shared.usecases.server_certificates import sealed_key
from shared.usecases.tools import Tools, made
from shared.validation.csr import COMMON_NAME_MAX, make_key
from shared.validation.key_files import PrivateKey
from shared.validation.names import messaging_host
from shared.validation.notices import Notice
from shared.validation.server_cert import (
    check_default_certificate,
    read_server_certificate,
)

_DAYS: Final = 825  # of the one made here: clients refuse longer ones (CA/Browser Forum, baseline 6.3.2)


def set_default(
    tools: Tools, certificate: bytes, *, chain: bytes | None, private_key: bytes | None, passphrase: str | None
) -> tuple[DefaultCertificate, list[Notice]]:
    """Replace the default certificate, for all orgs at once.

    Raises: Rejected (see `shared.validation.server_cert`); it must name `*.messaging.<platform domain>`."""
    server = read_server_certificate(certificate, chain=chain, private_key=private_key, passphrase=passphrase)
    warnings = check_default_certificate(
        server.leaf, server.chain, platform_domain=tools.platform_domain, at=tools.clock(), weak=tools.weak_keys
    )
    return _stored(tools, server.leaf, server.chain, server.private_key), warnings


def ensure_default(tools: Tools) -> bool:
    """Make a self-signed default certificate where there is none. Returns whether it was made."""
    if tools.repository.get(default_place()) is not None:
        return False
    key = make_key("P-256")
    _stored(tools, _self_signed(tools, key), (), key)
    return True


def _stored(
    tools: Tools, leaf: x509.Certificate, chain: Sequence[x509.Certificate], key: PrivateKey
) -> DefaultCertificate:
    record = DefaultCertificate(
        key=sealed_key(tools, key, org_id=PLATFORM, certificate_id=DEFAULT),
        leaf=leaf.public_bytes(Encoding.DER),
        chain=tuple(one.public_bytes(Encoding.DER) for one in chain),
        changed=made(tools.clock(), ADMIN),
    )
    tools.repository.change(default_place(), lambda _: record)
    return record


def _self_signed(tools: Tools, key: PrivateKey) -> x509.Certificate:
    host = messaging_host("*", tools.platform_domain)
    short = host if len(host) <= COMMON_NAME_MAX else "MQTT Trust default"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, short)])
    begin = tools.clock().replace(microsecond=0) - timedelta(hours=1)  # clocks differ
    return (
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
