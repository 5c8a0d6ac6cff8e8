"""Issue certificates for tests: valid by default, wrong only in what a test names.

    root = certs.ca("Root")
    leaf = certs.leaf("d:thermo:42", root)
    certs.leaf("d:thermo:42", root, not_after=NOON - DAY)

Keys are made once per kind and number and reused, because making RSA keys dominates the run time of the tests.
cryptography no longer signs with SHA-1 or MD5; tests make such certificates with openssl (`openssl.py`), which is also
how fleets make theirs.
"""

import datetime as dt
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.x509.certificate import Certificate

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

NOON: Final = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)  # the current time in tests of pure rules
DAY: Final = dt.timedelta(days=1)
YEAR: Final = dt.timedelta(days=365)
CLIENT_AUTH: Final = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH: Final = ExtendedKeyUsageOID.SERVER_AUTH

_CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
    "K-256": ec.SECP256K1(),
}
_ML_DSA: Final[dict[str, Any]] = {  # for certificates alone: nothing else takes such keys
    "ML-DSA-44": mldsa.MLDSA44PrivateKey,
    "ML-DSA-65": mldsa.MLDSA65PrivateKey,
    "ML-DSA-87": mldsa.MLDSA87PrivateKey,
}
_serials = itertools.count(1000)


@cache
def key(kind: str = "P-256", number: int = 0) -> PrivateKey:
    """Return key *number* of *kind*.

    Kinds: "P-256", "P-384", "P-521", "K-256", "RSA-2048" (any size), "Ed25519", "Ed448", "ML-DSA-44",
    "ML-DSA-65", "ML-DSA-87".
    """
    if kind in _ML_DSA:
        made: PrivateKey = _ML_DSA[kind].generate()
        return made
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "Ed448":
        return ed448.Ed448PrivateKey.generate()
    if kind in _CURVES:
        return ec.generate_private_key(_CURVES[kind])
    return rsa.generate_private_key(65537, int(kind.removeprefix("RSA-")))


@cache
def dsa_key() -> dsa.DSAPrivateKey:
    return dsa.generate_private_key(2048)


@dataclass(frozen=True)
class Issued:
    """A certificate with its private key."""

    cert: x509.Certificate
    key: PrivateKey

    @property
    def pem(self) -> str:
        return self.cert.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def der(self) -> bytes:
        return self.cert.public_bytes(serialization.Encoding.DER)

    @property
    def certificate(self) -> Certificate:
        """The certificate as the product's own model."""
        return Certificate.from_der(self.der)

    @property
    def key_pem(self) -> str:
        return key_pem(self.key)

    @property
    def fingerprint(self) -> str:
        return self.cert.fingerprint(hashes.SHA256()).hex()


def key_pem(private: PrivateKey, passphrase: str | None = None) -> str:
    """Return the key as PKCS#8 PEM, encrypted if a passphrase is given."""
    how: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    )
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how).decode()


def name(common_name: str | None, *, organization: str | None = None) -> x509.Name:
    pairs = [(NameOID.ORGANIZATION_NAME, organization), (NameOID.COMMON_NAME, common_name)]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs if value is not None])


def usage(**granted: bool) -> x509.KeyUsage:
    """Return a KeyUsage with only the named bits set: usage(key_cert_sign=True)."""
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{bit: granted.get(bit, False) for bit in every.split()})


def certificate(
    subject: x509.Name,
    *,
    signer: Issued | None,
    private: PrivateKey,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    not_before: dt.datetime = NOON - YEAR,
    not_after: dt.datetime = NOON + YEAR,
    serial: int | None = None,
    issuer: x509.Name | None = None,
    signing_key: PrivateKey | None = None,
) -> Issued:
    """Issue a certificate.

    Args:
        signer: the issuer; None for a self-signed certificate.
        extensions: pairs (value, critical).
        issuer: the issuer name, if it is to differ from the signer's subject.
        signing_key: the key that signs, if it is to differ from the signer's.
    """
    by = signing_key or (signer.key if signer else private)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or (signer.cert.subject if signer else subject))
        .public_key(private.public_key())
        .serial_number(next(_serials) if serial is None else serial)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    has_digest = isinstance(by, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return Issued(builder.sign(by, hashes.SHA256() if has_digest else None), private)


def ca(
    common_name: str | x509.Name = "Root",
    signer: Issued | None = None,
    *,
    private: PrivateKey | None = None,
    is_ca: bool | None = True,
    path_length: int | None = None,
    critical: bool = True,
    key_usage: x509.KeyUsage | None = None,
    more: Sequence[tuple[x509.ExtensionType, bool]] = (),
    not_before: dt.datetime = NOON - 10 * YEAR,
    not_after: dt.datetime = NOON + 10 * YEAR,
    serial: int | None = None,
) -> Issued:
    """Issue a CA certificate: a root, or signed by *signer*. *is_ca* None omits BasicConstraints."""
    subject = name(common_name) if isinstance(common_name, str) else common_name
    extensions = list(more)
    if is_ca is not None:
        extensions.insert(0, (x509.BasicConstraints(is_ca, path_length), critical))
    if key_usage is not None:
        extensions.append((key_usage, True))
    return certificate(
        subject,
        signer=signer,
        private=private or key("P-256", hash(subject) & 0xFFFF),
        extensions=extensions,
        not_before=not_before,
        not_after=not_after,
        serial=serial,
    )


def leaf(
    common_name: str | x509.Name | None,
    signer: Issued,
    *,
    private: PrivateKey | None = None,
    emails: Sequence[str] = (),
    dns: Sequence[str] = (),
    uris: Sequence[str] = (),
    extended_key_usage: Sequence[x509.ObjectIdentifier] = (),
    key_usage: x509.KeyUsage | None = None,
    more: Sequence[tuple[x509.ExtensionType, bool]] = (),
    not_before: dt.datetime = NOON - YEAR,
    not_after: dt.datetime = NOON + YEAR,
    serial: int | None = None,
    signing_key: PrivateKey | None = None,
) -> Issued:
    """Issue a certificate for a device (or a server)."""
    subject = common_name if isinstance(common_name, x509.Name) else name(common_name)
    san: list[x509.GeneralName] = [
        *map(x509.RFC822Name, emails),
        *map(x509.DNSName, dns),
        *map(x509.UniformResourceIdentifier, uris),
    ]
    extensions = list(more)
    if san:
        extensions.append((x509.SubjectAlternativeName(san), False))
    if extended_key_usage:
        extensions.append((x509.ExtendedKeyUsage(extended_key_usage), False))
    if key_usage is not None:
        extensions.append((key_usage, True))
    return certificate(
        subject,
        signer=signer,
        private=private or key("P-256", 99),
        extensions=extensions,
        not_before=not_before,
        not_after=not_after,
        serial=serial,
        signing_key=signing_key,
    )


def server(
    host: str,
    signer: Issued | None = None,
    *,
    private: PrivateKey | None = None,
    dns: Sequence[str] | None = None,
    extended_key_usage: Sequence[x509.ObjectIdentifier] = (SERVER_AUTH,),
    not_before: dt.datetime = NOON - DAY,
    not_after: dt.datetime = NOON + YEAR,
) -> Issued:
    """Issue a messaging server's certificate for *host*; self-signed if *signer* is None."""
    own = private or key("P-256", 98)
    names = [host] if dns is None else list(dns)
    extensions: list[tuple[x509.ExtensionType, bool]] = []
    if names:
        extensions.append((x509.SubjectAlternativeName([x509.DNSName(dns_name) for dns_name in names]), False))
    if extended_key_usage:
        extensions.append((x509.ExtendedKeyUsage(extended_key_usage), False))
    return certificate(
        name(host), signer=signer, private=own, extensions=extensions, not_before=not_before, not_after=not_after
    )


def bundle(*issued: Issued) -> str:
    """Return the PEM certificates, concatenated."""
    return "".join(item.pem for item in issued)
