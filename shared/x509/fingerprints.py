"""The fingerprints that one certificate can be presented under.

A fingerprint is a hash of all octets, but the signature covers only some of them. The holder of a certificate can
change some of the others without any private key. A list of denied fingerprints must hold against that:

* With ECDSA, where (r, s) is a signature, (r, n - s) is another, n being the order of the curve (SEC 1, 4.1.4 holds for
  both). Two certificates are then valid; `find_twin` returns the other one.

Nothing else can be changed: `certificate` takes one form only of the octets that are not signed (whole octets in the
signature, shortest lengths, the algorithm of the signed part), and RSA, Edwards and ML-DSA signatures have one form
that verifies (RFC 8017, 8.2.2; RFC 8032, 5.1.7; FIPS 204, 5.3).
"""

import hashlib
from typing import Final

from shared.x509 import der

_FIELD: Final = "signatureValue"

# Order of each curve whose keys are accepted (SEC 2, 2.4 to 2.6), by its bits
_ORDERS: Final = {
    256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    384: 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    521: 0x01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409,  # noqa: E501
}


def fingerprint_of(certificate: bytes) -> str:
    """Return SHA-256 of *certificate*, a DER, in hexadecimal."""
    return hashlib.sha256(certificate).hexdigest()


def find_twin(certificate: bytes, signature: bytes) -> bytes | None:
    """Return *certificate*, a DER with the ECDSA signature (r, s), with (r, n - s) in its place.

    None where *signature*, the signature of *certificate*, cannot verify under any curve."""
    try:
        at, end = der.expect_whole(signature, der.SEQUENCE, _FIELD)
        start, stop = der.expect(signature, at, end, der.INTEGER, _FIELD)
        r = der.read_integer(signature, start, stop, _FIELD)
        s_start, s_stop = der.expect(signature, stop, end, der.INTEGER, _FIELD)
        s = der.read_integer(signature, s_start, s_stop, _FIELD)
    except der.NotDER:
        return None
    if s_stop != end or r < 0:
        return None
    # The curve follows from the key that signed, which is not known yet. A signature with both numbers so small that
    # a smaller curve is taken for it comes up once in 2^256.
    size = max(r, s).bit_length()
    order = next((order for bits, order in _ORDERS.items() if size <= bits), 0)
    if not 0 < s < order:
        return None
    _, begin, _ = der.header(certificate, 0)
    other_s = order - s
    octets = other_s.to_bytes(other_s.bit_length() // 8 + 1)
    other = der.encode(der.SEQUENCE, signature[at:stop], der.encode(der.INTEGER, octets))
    signed = certificate[begin : len(certificate) - len(der.encode(der.BIT_STRING, b"\0", signature))]
    return der.encode(der.SEQUENCE, signed, der.encode(der.BIT_STRING, b"\0", other))
