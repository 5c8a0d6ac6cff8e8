"""The fingerprints that one certificate can be shown under.

A fingerprint is a hash of all bytes, but the signature signs only some of them, and some of the rest can be changed by
whoever holds the certificate, without anybody's private key. A list of denied fingerprints must not be evaded so:

* With ECDSA, where (r, s) is a signature, (r, n - s) is one too, n being the order of the curve (SEC 1, 4.1.4 holds for
  both). Of such a certificate there are two, both valid; `of` tells both fingerprints.
* signatureValue is a BIT STRING, and says how many bits of its last octet do not count. A signature is whole octets
  (RFC 3279, 2.2; RFC 8410, 6), so that number is 0 and any other is refused, as OpenSSL does; cryptography reads over
  it. `has_unused_bits` tells.

Nothing else can be changed: cryptography takes DER only, the algorithm stands in the signed part as well, and RSA and
Edwards signatures have one form (RFC 8017, 8.2.2; RFC 8032, 5.1.7).
"""

import hashlib
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.x509.oid import SignatureAlgorithmOID

_ECDSA: Final = {
    SignatureAlgorithmOID.ECDSA_WITH_SHA1,
    SignatureAlgorithmOID.ECDSA_WITH_SHA224,
    SignatureAlgorithmOID.ECDSA_WITH_SHA256,
    SignatureAlgorithmOID.ECDSA_WITH_SHA384,
    SignatureAlgorithmOID.ECDSA_WITH_SHA512,
    SignatureAlgorithmOID.ECDSA_WITH_SHA3_224,
    SignatureAlgorithmOID.ECDSA_WITH_SHA3_256,
    SignatureAlgorithmOID.ECDSA_WITH_SHA3_384,
    SignatureAlgorithmOID.ECDSA_WITH_SHA3_512,
}
# Order of each curve whose keys are accepted (SEC 2, 2.4 to 2.6), by its bits
_ORDERS: Final = {
    256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    384: 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    521: 0x01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409,  # noqa: E501
}
_SEQUENCE: Final = 0x30
_BIT_STRING: Final = 0x03
_LONG: Final = 0x80  # a length of 128 or more follows in octets of its own


def of(cert: x509.Certificate, der: bytes) -> tuple[str, ...]:
    """SHA-256, hex, of *der*, and of the same certificate with the other form of its signature, where it has one.

    *der*: the bytes of *cert*."""
    own = hashlib.sha256(der).hexdigest()
    twin = _twin(cert, der) if cert.signature_algorithm_oid in _ECDSA else None
    return (own,) if twin is None else (own, hashlib.sha256(twin).hexdigest())


def has_unused_bits(cert: x509.Certificate, der: bytes) -> bool:
    """Whether signatureValue, the last element of *der*, says that not all bits of its last octet count."""
    return der[len(der) - len(cert.signature) - 1] != 0


def _twin(cert: x509.Certificate, der: bytes) -> bytes | None:
    """The certificate with (r, n - s) for (r, s); None where its signature is none that could hold."""
    try:
        r, s = decode_dss_signature(cert.signature)
    except ValueError:
        return None
    # Which curve it is follows from the key that signed, not known yet. A signature with both numbers so small that
    # a smaller curve is taken for it comes up once in 2^256.
    order = next((one for bits, one in _ORDERS.items() if max(r, s).bit_length() <= bits), 0)
    if not 0 < s < order:
        return None
    other = encode_dss_signature(r, order - s)
    begin = 2 if der[1] < _LONG else 2 + (der[1] & ~_LONG)
    end = len(der) - len(_element(_BIT_STRING, b"\0" + cert.signature))
    return _element(_SEQUENCE, der[begin:end] + _element(_BIT_STRING, b"\0" + other))


def _element(tag: int, content: bytes) -> bytes:
    """DER (X.690, 8.1.3)."""
    size = len(content)
    if size < _LONG:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, _LONG | len(octets))) + octets + content
