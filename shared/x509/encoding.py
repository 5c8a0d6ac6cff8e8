"""Certificates and public keys as DER.

`serialization` is imported where it is needed: it loads the formats of OpenSSH too, which is 4 ms of each cold start,
and a verdict mostly needs none of it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509


def certificate_der(cert: "x509.Certificate") -> bytes:
    """The certificate, written anew."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return cert.public_bytes(Encoding.DER)


def public_key_info(key: object) -> bytes:
    """SubjectPublicKeyInfo (RFC 5280, 4.1.2.7) in one encoding, whatever encoding a certificate used."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]
