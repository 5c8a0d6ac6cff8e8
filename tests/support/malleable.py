"""Change a certificate as its holder can, without the issuer's key."""

import re
import subprocess
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.certs import Issued
from tests.support.der import der, seq

_OPENSSL_CURVES = {"P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1"}


@cache
def order(curve: str) -> int:
    """Return the order of the group of "P-256", "P-384" or "P-521", read from openssl."""
    command = ["openssl", "ecparam", "-name", _OPENSSL_CURVES[curve], "-param_enc", "explicit", "-text", "-noout"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    match = re.search(r"^Order: *([0-9a-f:\s]+)", text, re.MULTILINE)
    assert match is not None, text
    return int(re.sub(r"[:\s]", "", match[1]), 16)


def twin(issued: Issued, curve: str = "P-256") -> Issued:
    """Return the certificate with its ECDSA signature (r, s) replaced by (r, n - s), which verifies as well.

    *curve* is the curve of the issuer's key.
    """
    r, s = decode_dss_signature(issued.cert.signature)
    made = with_signature(issued.cert, b"\0" + encode_dss_signature(r, order(curve) - s))
    return Issued(x509.load_der_x509_certificate(made), issued.key)


def with_unused_bits(cert: x509.Certificate, bits: int = 1) -> bytes:
    """Return the certificate as DER, with *bits* unused bits in the BIT STRING of the signature (X.690, 8.6)."""
    return with_signature(cert, bytes([bits]) + cert.signature)


def with_signature(cert: x509.Certificate, content: bytes) -> bytes:
    """Return the certificate as DER with another signatureValue; *content* is the content of its BIT STRING."""
    signed = cert.tbs_certificate_bytes
    whole = cert.public_bytes(Encoding.DER)
    begin = whole.index(signed)
    end = len(whole) - len(der(3, b"\0" + cert.signature))
    return seq(whole[begin:end], der(3, content))
