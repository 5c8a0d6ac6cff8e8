"""When a CA certificate is accepted: six rules, judged in this order.

1 one certificate in the file    x509.certificate_files.read_one_certificate
2 now is inside its validity     Certificate.check_dates
3 it is a CA                     here
4 key and signature are strong   x509.strength
5 it is cheap to compare         x509.budget.find_excess
6 its own signature verifies     Certificate.is_self_signed
"""

from collections.abc import Container
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from shared.errors import NotACA, SelfSignatureInvalid, TooComplex, WeakKey
from shared.x509 import extensions
from shared.x509.budget import find_excess
from shared.x509.certificate import Certificate
from shared.x509.certificate_files import read_one_certificate
from shared.x509.public_keys import describe_key
from shared.x509.strength import check_key, check_signature

_LIMITING_EXTENSIONS: Final = (
    extensions.NAME_CONSTRAINTS,
    extensions.POLICY_CONSTRAINTS,
    extensions.INHIBIT_ANY_POLICY,
    extensions.POLICY_MAPPINGS,
)

NAME_DIGITS: Final = 16  # hexadecimal digits of the canonical subject's SHA-256: a CA's id begins with them
FINGERPRINT_DIGITS: Final = 32  # hexadecimal digits of the certificate's SHA-256: the end of a CA's id


def read_ca(data: bytes, *, at: datetime, weak: Container[str] = frozenset()) -> Certificate:
    """Return the CA certificate in the file *data*, accepted by all rules.

    Raises: what read_one_certificate and check_ca raise."""
    cert = read_one_certificate(data)
    check_ca(cert, at=at, weak=weak)
    return cert


def check_ca(cert: Certificate, *, at: datetime, weak: Container[str] = frozenset()) -> None:
    """Refuse *cert* as a CA of an organization: rules 2 to 6, in their order.

    Args:
        at: the time that counts, aware.
        weak: the published keys, as strength.check_key takes them.

    Raises: CertificateExpired, CertificateNotYetValid, NotACA, WeakKey, WeakSignature, TooComplex,
    SelfSignatureInvalid."""
    cert.check_dates(at)
    _check_may_sign(cert)
    check_key(cert, weak=weak)
    _check_curve_is_named(cert)
    if not has_harmless_signature(cert):
        check_signature(cert)
    excess = find_excess(cert)
    if excess is not None:
        raise TooComplex(part="certificate", cert=cert, found=excess)
    if cert.is_self_issued and not cert.is_self_signed:
        raise SelfSignatureInvalid(cert=cert)


def ca_id(cert: Certificate) -> str:
    """Return the id of a CA: 16 hex digits of its canonical subject's SHA-256, "-", 32 of the certificate's SHA-256."""
    return f"{cert.subject.digest[:NAME_DIGITS]}-{cert.fingerprint[:FINGERPRINT_DIGITS]}"


def has_no_limits(cert: Certificate) -> bool:
    """Whether the CA *cert* limits neither path length nor names nor policies below it."""
    return cert.path_length is None and not any(oid in cert.extensions for oid in _LIMITING_EXTENSIONS)


def vouches_for_all_of(other: Certificate, own: Certificate) -> bool:
    """Whether every certificate below *own* is also valid below *other*: the same name and key, and no further limit.

    Limits are the path length, name constraints, the extended key usage, and a required policy. Dates are not compared.
    """
    if other.subject.canonical != own.subject.canonical or other.key_hash != own.key_hash:
        return False
    if not (other.is_ca and other.may_sign_certificates and other.is_for_clients):
        return False
    if other.path_length is not None and (own.path_length is None or other.path_length < own.path_length):
        return False
    return all(
        oid not in other.extensions or other.extensions[oid] == own.extensions.get(oid) for oid in _LIMITING_EXTENSIONS
    )


def has_harmless_signature(cert: Certificate) -> bool:
    """Whether *cert* is a root signed with SHA-1: no trust rests on the signature of a root."""
    return cert.is_self_issued and cert.signature_weakness == "SHA-1"


def _check_curve_is_named(cert: Certificate) -> None:
    """Refuse a key whose curve is written out (RFC 5480, 2.1.1): OpenSSL accepts no signature by such a key.

    Raises: WeakKey."""
    key = cert.public_key
    if isinstance(key, ec.EllipticCurvePublicKey) and cert.has_curve_parameters:
        raise WeakKey(found=f"{describe_key(key)} with its curve written out in place of its name", cert=cert)


def _check_may_sign(cert: Certificate) -> None:
    """Check for X.509 v3 with CA:TRUE, and for keyCertSign if there is a KeyUsage (RFC 5280, 4.2.1.9 and 4.2.1.3).

    BasicConstraints need not be critical, and KeyUsage may be missing: many fleets have roots that `openssl req -x509`
    made so.

    Raises: NotACA."""
    instead = (
        "Issue the certificate again with basicConstraints=CA:TRUE."
        if cert.is_self_issued
        else f"Add the CA certificate that signed it, {cert.issuer.text} (usually ca.pem or root.pem)."
    )
    if cert.version == 1 and not cert.extensions:
        raise NotACA(
            part="certificate", cert=cert, found="an X.509 version 1 certificate cannot say CA:TRUE", hint=instead
        )
    if not cert.has_basic_constraints:
        raise NotACA(part="certificate", cert=cert, found="it does not say CA:TRUE", hint=instead)
    if not cert.is_ca:
        raise NotACA(
            part="certificate", cert=cert, found="it says CA:FALSE, as device and server certificates do", hint=instead
        )
    if not cert.may_sign_certificates:
        raise NotACA(
            part="certificate",
            cert=cert,
            found="its key usage does not include keyCertSign",
            hint="Issue the certificate again with keyUsage=keyCertSign.",
        )
