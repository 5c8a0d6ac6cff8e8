"""Short digests of what a decision compares, for the registers of TLS edges.

A decision compares more than certificates: an inactive CA is recognized by its subject and key, a denied serial number
by the issuer's key and the number. An edge registers these digests with each session, and a withdrawal carries the same
digests. So a renewed or cross-signed certificate of a withdrawn CA is recognized too. An edge compares digests as text.
"""

from hashlib import sha256
from itertools import zip_longest
from typing import Final

from shared.x509.certificate import DIGEST_DIGITS, CertificationPath

UNKNOWN: Final = ""  # takes the place of a digest that cannot be computed


def serial_digest(issuer_key_hash: str, serial_number: int) -> str:
    """Return the digest of a serial number and the key that signed it.

    The digest is the beginning of SHA-256 over SHA-256 of the issuer's SubjectPublicKeyInfo (32 octets) and the serial
    number in lower-case hexadecimal digits (ASCII).

    Args:
        issuer_key_hash: SHA-256 of the issuer's SubjectPublicKeyInfo in hexadecimal (`Certificate.key_hash`)."""
    return sha256(bytes.fromhex(issuer_key_hash) + f"{serial_number:x}".encode()).hexdigest()[:DIGEST_DIGITS]


def key_digests(path: CertificationPath) -> tuple[str, ...]:
    """Return the `Certificate.key_digest` of each certificate on *path*, the leaf's first."""
    return tuple(cert.key_digest for cert in path)


def serial_digests(path: CertificationPath) -> tuple[str, ...]:
    """Return the `serial_digest` of each certificate on *path*, the leaf's first.

    The issuer of an anchor is known only where the anchor is self-issued; otherwise the digest is UNKNOWN."""
    return tuple(
        serial_digest((issuer or cert).key_hash, cert.serial_number) if issuer or cert.is_self_issued else UNKNOWN
        for cert, issuer in zip_longest(path, path[1:])
    )
