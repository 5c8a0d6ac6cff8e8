"""The fingerprints that one certificate can be presented under.

A fingerprint is a hash of all octets, but the signature covers only some of them. The holder of a certificate can
change some of the others without any private key. A list of denied fingerprints must hold against that:

* With ECDSA, where (r, s) is a signature, (r, n - s) is another, n being the order of the curve (SEC 1, 4.1.4 holds for
  both). Two certificates are then valid; `fingerprints_of` returns the fingerprints of both.

Nothing else can be changed: `certificate` takes one form only of the octets that are not signed (whole octets in the
signature, shortest lengths, the algorithm of the signed part), and RSA, Edwards and ML-DSA signatures have one form
that verifies (RFC 8017, 8.2.2; RFC 8032, 5.1.7; FIPS 204, 5.3).
"""

import hashlib
from typing import Final

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from shared.x509.der import BIT_STRING, SEQUENCE, encode, header

# Order of each curve whose keys are accepted (SEC 2, 2.4 to 2.6), by its bits
_ORDERS: Final = {
    256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    384: 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    521: 0x01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409,  # noqa: E501
}


def fingerprint_of(certificate: bytes) -> str:
    """Return SHA-256 of *certificate*, a DER, in hexadecimal."""
    return hashlib.sha256(certificate).hexdigest()


def fingerprints_of(certificate: bytes, *, ecdsa_signature: bytes | None) -> tuple[str, ...]:
    """Return the fingerprint of *certificate*, a DER, and the one with the other form of its signature, if it has one.

    Args:
        ecdsa_signature: the signature of the certificate; None where the algorithm is not ECDSA."""
    own = fingerprint_of(certificate)
    twin = _twin(certificate, ecdsa_signature) if ecdsa_signature is not None else None
    return (own,) if twin is None else (own, fingerprint_of(twin))


def _twin(certificate: bytes, signature: bytes) -> bytes | None:
    """Return the certificate with (r, n - s) for (r, s); None where its signature cannot verify under any curve."""
    try:
        r, s = decode_dss_signature(signature)
    except ValueError:
        return None
    # The curve follows from the key that signed, which is not known yet. A signature with both numbers so small that
    # a smaller curve is taken for it comes up once in 2^256.
    order = next((order for bits, order in _ORDERS.items() if max(r, s).bit_length() <= bits), 0)
    if not 0 < s < order:
        return None
    _, start, _ = header(certificate, 0)
    end = len(certificate) - len(encode(BIT_STRING, b"\0" + signature))
    return encode(SEQUENCE, certificate[start:end], encode(BIT_STRING, b"\0" + encode_dss_signature(r, order - s)))
