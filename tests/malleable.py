"""What the holder of a certificate can change in it without its issuer's key."""

import re
import subprocess
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from tests.certs import Issued
from tests.der import der, seq

_OPENSSL_CURVES = {"P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1"}


@cache
def order(curve: str) -> int:
    """The order of "P-256", "P-384" or "P-521", as openssl has it."""
    command = ["openssl", "ecparam", "-name", _OPENSSL_CURVES[curve], "-param_enc", "explicit", "-text", "-noout"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"^Order: *([0-9a-f:\s]+)", text, re.MULTILINE)
    assert found is not None, text
    return int(re.sub(r"[:\s]", "", found[1]), 16)


def twin(issued: Issued, curve: str = "P-256") -> Issued:
    """The same with its signature (r, s) written as (r, n - s), which holds as well. *curve*: of the issuer's key."""
    r, s = decode_dss_signature(issued.cert.signature)
    made = with_signature(issued.cert, b"\0" + encode_dss_signature(r, order(curve) - s))
    return Issued(x509.load_der_x509_certificate(made), issued.key)


def loosened(cert: x509.Certificate, bits: int = 1) -> bytes:
    """The same, DER, saying that the last *bits* bits of the signature do not count."""
    return with_signature(cert, bytes([bits]) + cert.signature)


def with_signature(cert: x509.Certificate, content: bytes) -> bytes:
    """The certificate with another signatureValue, its last element: *content* of the BIT STRING."""
    signed = cert.tbs_certificate_bytes
    whole = cert.public_bytes(Encoding.DER)
    begin = whole.index(signed)
    end = len(whole) - len(der(3, b"\0" + cert.signature))
    return seq(whole[begin:end], der(3, content))
