"""Public keys: their kinds, their names for people, and the identifiers under which other lists know them.

`serialization` is imported where it is needed: importing it takes 4 ms of a cold start, because it brings the formats
of OpenSSH, and most verdicts encode no key.
"""

import hashlib
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

from shared.x509 import der

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
"""The kinds of key that can sign here, or be certified."""

_NIST_NAMES: Final = {
    "secp192r1": "P-192",
    "secp224r1": "P-224",
    "secp256r1": "P-256",
    "secp384r1": "P-384",
    "secp521r1": "P-521",
}


class UnsupportedKey(msgspec.Struct, frozen=True):
    """A public key of an algorithm that cryptography cannot load. *algorithm*: its object identifier."""

    algorithm: str


def describe_key(key: object) -> str:
    """Return the kind of any key for people: "RSA 2048", "P-256", "Ed25519", ..."""
    match key:
        case rsa.RSAPublicKey():
            return f"RSA {key.key_size}"
        case ec.EllipticCurvePublicKey():
            return _NIST_NAMES.get(key.curve.name, key.curve.name)
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
        case ed448.Ed448PublicKey():
            return "Ed448"
        case dsa.DSAPublicKey():
            return "DSA"
        case UnsupportedKey():
            return f"A key of algorithm {key.algorithm}"
    return f"A key of kind {type(key).__name__.removesuffix('PublicKey')}"


def public_key_info(key: object) -> bytes:
    """Return the SubjectPublicKeyInfo (RFC 5280, 4.1.2.7) of *key* in one encoding, whatever a certificate used."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]


def key_hash(key: object) -> str:
    """Return SHA-256 of the SubjectPublicKeyInfo of *key* in hexadecimal."""
    return hashlib.sha256(public_key_info(key)).hexdigest()


def key_ids(key: object) -> tuple[str, ...]:
    """Return the identifiers under which lists of weak keys hold *key*, in lower-case hexadecimal.

    These are SHA-256 of the SubjectPublicKeyInfo and, for RSA, the last 20 digits of SHA-1 of "Modulus=<HEX>\\n", the
    form of Debian's openssl-blacklist (CVE-2008-0166)."""
    if not isinstance(key, PublicKey):
        return ()
    ids: tuple[str, ...] = (key_hash(key),)
    if isinstance(key, rsa.RSAPublicKey):
        line = f"Modulus={key.public_numbers().n:X}\n".encode()
        ids += (hashlib.sha1(line, usedforsecurity=False).hexdigest()[-20:],)
    return ids


def has_curve_parameters(info: bytes) -> bool:
    """Whether *info*, the SubjectPublicKeyInfo of an elliptic-curve key, writes out its curve in place of naming it.

    RFC 5480, 2.1.1 forbids that. cryptography reads such a key, OpenSSL refuses it."""
    _, at, _ = der.header(info, 0)
    _, oid, _ = der.header(info, at)  # AlgorithmIdentifier
    _, _, parameters = der.header(info, oid)
    return info[parameters] != der.OID
