"""When a CA certificate is accepted: five rules, judged in this order.

1 one certificate in the file    pem.read_one_ca
2 now is inside its validity     validity
3 it is a CA                     here
4 key and signature are strong   strength
5 its own signature verifies     here
"""

from collections.abc import Container
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtensionOID

from shared.errors import NotACA, SelfSignatureInvalid, WeakKey
from shared.x509 import distinguished_name, pem
from shared.x509.strength import check_key, check_signature, describe_key, signature_weakness
from shared.x509.validity import check_validity


def read_ca(data: bytes, *, at: datetime, weak: Container[str] = frozenset()) -> x509.Certificate:
    """The CA certificate in the file *data*, accepted by all rules.

    Raises: what pem.read_one_ca and check_ca raise."""
    cert = pem.read_one_ca(data)
    check_ca(cert, at=at, weak=weak)
    return cert


def check_ca(cert: x509.Certificate, *, at: datetime, weak: Container[str] = frozenset()) -> None:
    """Refuse *cert* as a CA of an organization: rules 2 to 5, in their order.

    Args:
        at: the time that counts, aware.
        weak: the published keys, as strength.check_key takes them.

    Raises: CertificateExpired, CertificateNotYetValid, NotACA, WeakKey, WeakSignature, SelfSignatureInvalid."""
    check_validity(cert, at=at)
    _check_may_sign(cert)
    check_key(cert.public_key(), weak=weak, cert=cert)
    _check_curve_is_named(cert)
    if not has_harmless_signature(cert):
        check_signature(cert)
    if is_self_issued(cert) and not is_signed_by(cert, cert):
        raise SelfSignatureInvalid(cert=cert)


def ca_id(cert: x509.Certificate) -> str:
    """The id of a CA: 16 hex digits of its canonical subject's SHA-256, "-", 32 of the certificate's SHA-256."""
    return f"{distinguished_name.digest(cert.subject)[:16]}-{cert.fingerprint(hashes.SHA256()).hex()[:32]}"


def is_self_issued(cert: x509.Certificate) -> bool:
    """Whether subject and issuer are the same name (RFC 5280, sections 3.2 and 7.1)."""
    return distinguished_name.canonical(cert.subject) == distinguished_name.canonical(cert.issuer)


def is_self_signed(cert: x509.Certificate) -> bool:
    """Whether *cert* is self-issued and its own key verifies it (RFC 5280, section 3.2)."""
    return is_self_issued(cert) and is_signed_by(cert, cert)


def has_harmless_signature(cert: x509.Certificate) -> bool:
    """Whether *cert* is a root signed with SHA-1: it is trusted for where it came from, not for that signature."""
    return is_self_issued(cert) and signature_weakness(cert) == "SHA-1"


def is_signed_by(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether *issuer*'s key verifies *cert*'s signature; names are not compared. False where anything is unsupported.

    Not `verify_directly_issued_by`: that refuses SHA-1, which roots may have, and compares names byte by byte."""
    try:
        match issuer.public_key():
            case rsa.RSAPublicKey() as key:
                padding, digest = cert.signature_algorithm_parameters, cert.signature_hash_algorithm
                key.verify(cert.signature, cert.tbs_certificate_bytes, padding, digest)  # type: ignore[arg-type]
            case ec.EllipticCurvePublicKey() as key:
                digest = cert.signature_hash_algorithm
                key.verify(cert.signature, cert.tbs_certificate_bytes, ec.ECDSA(digest))  # type: ignore[arg-type]
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey() as key:
                key.verify(cert.signature, cert.tbs_certificate_bytes)
            case _:
                return False
    except Exception:  # noqa: BLE001 - InvalidSignature, or parameters that do not fit the key: not signed by it
        return False
    return True


_VERSION: Final = 0xA0  # [0] EXPLICIT
_KEY_INFO: Final = 5  # of tbsCertificate's fields from serialNumber on (RFC 5280, 4.1)


def _check_curve_is_named(cert: x509.Certificate) -> None:
    """Its curve is named, not written out (RFC 5480, 2.1.1): OpenSSL lets nothing connect that such a key has signed.

    Raises: WeakKey."""
    key = cert.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return
    [signed] = pem.elements(cert.tbs_certificate_bytes)
    fields = [one for one in signed.children if one.tag != _VERSION]
    algorithm, _ = fields[_KEY_INFO].children
    _, parameters = algorithm.children
    if parameters.tag != pem.OID:
        raise WeakKey(found=f"{describe_key(key)} with its curve written out in place of its name", cert=cert)


def _check_may_sign(cert: x509.Certificate) -> None:
    """X.509 v3 with CA:TRUE, and keyCertSign where there is a KeyUsage (RFC 5280, 4.2.1.9 and 4.2.1.3).

    Whether BasicConstraints is critical does not matter, nor does a missing KeyUsage: `openssl req -x509` makes roots
    like that, and real fleets run on them."""
    issuer = distinguished_name.shown(cert.issuer)
    instead = "Reissue it with CA:TRUE." if is_self_issued(cert) else f"Choose its issuer, {issuer}."
    if cert.version is not x509.Version.v3:
        raise NotACA(field="certificate", cert=cert, found="an X.509 v1 certificate cannot be one", hint=instead)
    constraints = usage = None
    for extension in cert.extensions:
        if extension.oid == ExtensionOID.BASIC_CONSTRAINTS:
            constraints = extension.value
        elif extension.oid == ExtensionOID.KEY_USAGE:
            usage = extension.value
    if not isinstance(constraints, x509.BasicConstraints):
        raise NotACA(field="certificate", cert=cert, found="it does not say CA:TRUE", hint=instead)
    if not constraints.ca:
        raise NotACA(field="certificate", cert=cert, found="it says CA:FALSE", hint=instead)
    if isinstance(usage, x509.KeyUsage) and not usage.key_cert_sign:
        raise NotACA(
            field="certificate",
            cert=cert,
            found="its key usage does not include keyCertSign",
            hint="Reissue it with keyCertSign.",
        )
