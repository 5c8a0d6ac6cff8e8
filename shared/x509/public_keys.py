"""Public keys: their kinds, their names for people, and the identifiers under which other lists know them.

`serialization` is imported where it is needed: importing it takes 4 ms of a cold start, because it brings the formats
of OpenSSH, and most verdicts encode no key.
"""

import hashlib
from typing import Any, Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, rsa

from shared.x509 import der
from shared.x509.der import NotDER

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
"""The kinds of key that can sign here, or be certified."""

MLDSAPublicKey = mldsa.MLDSA44PublicKey | mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey
"""Keys of ML-DSA (FIPS 204; RFC 9881), which CAs and devices may have."""

KEY_FIELD: Final = "public key"

# How a SubjectPublicKeyInfo begins: RSA but not for PSS alone (RFC 4055, 1.2), with the length in two octets
_RSA_ENCRYPTION: Final = bytes.fromhex("300d06092a864886f70d0101010500")
_RSA_AT: Final = 4
# ... a named curve (RFC 5480, 2.1.1) and a point that is not compressed; the octets of the whole
_NAMED_CURVES: Final[dict[bytes, tuple[ec.EllipticCurve, int]]] = {
    bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"): (ec.SECP256R1(), 91),
    bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004"): (ec.SECP384R1(), 120),
    bytes.fromhex("30819b301006072a8648ce3d020106052b810400230381860004"): (ec.SECP521R1(), 158),
}
# ... a key that is octets (RFC 8410, 4; RFC 9881, 4)
_RAW_KEYS: Final[dict[bytes, Any]] = {
    bytes.fromhex("302a300506032b6570032100"): ed25519.Ed25519PublicKey,
    bytes.fromhex("3043300506032b6571033a00"): ed448.Ed448PublicKey,
    bytes.fromhex("30820532300b06096086480165030403110382052100"): mldsa.MLDSA44PublicKey,
    bytes.fromhex("308207b2300b0609608648016503040312038207a100"): mldsa.MLDSA65PublicKey,
    bytes.fromhex("30820a32300b060960864801650304031303820a2100"): mldsa.MLDSA87PublicKey,
}
_USUAL: Final = (*_NAMED_CURVES, *_RAW_KEYS)

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


def read_key(info: bytes) -> object:
    """Return the key of *info*, a SubjectPublicKeyInfo (RFC 5280, 4.1.2.7), or `UnsupportedKey`.

    Raises: NotDER, with KEY_FIELD."""
    try:
        if info.startswith(_RSA_ENCRYPTION, _RSA_AT):
            n, e = _read_rsa_numbers(info)
            return _load_rsa(info, n, e)
        for prefix, (curve, size) in _NAMED_CURVES.items():
            if info.startswith(prefix) and len(info) == size:
                return ec.EllipticCurvePublicKey.from_encoded_point(curve, info[len(prefix) - 1 :])
        for prefix, kind in _RAW_KEYS.items():
            if info.startswith(prefix):
                return kind.from_public_bytes(info[len(prefix) :])
        return _load(info)
    except UnsupportedAlgorithm:
        start, stop = der.expect(info, der.header(info, der.header(info, 0)[1])[1], len(info), der.OID, KEY_FIELD)
        return UnsupportedKey(der.read_oid(info[start:stop], KEY_FIELD))
    except NotDER:
        raise
    except ValueError as error:
        raise NotDER("is not a key that can be loaded", KEY_FIELD) from error


def is_usual(info: bytes) -> bool:
    """Whether *info*, a SubjectPublicKeyInfo, is encoded as nearly all keys of its kind are.

    OpenSSL refuses other encodings that cryptography loads: a curve that is written out."""
    return info.startswith(_RSA_ENCRYPTION, _RSA_AT) or info.startswith(_USUAL)


def _load(info: bytes) -> object:
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    return load_der_public_key(info)


def _load_rsa(info: bytes, n: int, e: int) -> object:
    try:
        return rsa.RSAPublicNumbers(e, n).public_key()
    except ValueError:  # an even or tiny exponent: a later rule names the weakness
        return _load(info)


def _read_rsa_numbers(info: bytes) -> tuple[int, int]:
    """Return modulus and exponent of an RSA key (RFC 8017, A.1.1). Raises: NotDER.

    OpenSSL took a negative modulus for a positive number until version 3, and refuses the key since version 4."""
    start, end = der.expect_whole(info, der.SEQUENCE, KEY_FIELD)
    bits, stop = der.expect(info, start + len(_RSA_ENCRYPTION), end, der.BIT_STRING, KEY_FIELD)
    if stop != end or bits == end or info[bits]:
        raise NotDER("is not whole octets", KEY_FIELD)
    at, stop = der.expect(info, bits + 1, end, der.SEQUENCE, KEY_FIELD)
    n, n_end = der.expect(info, at, stop, der.INTEGER, KEY_FIELD)
    e, e_end = der.expect(info, n_end, stop, der.INTEGER, KEY_FIELD)
    if not e_end == stop == end:
        raise NotDER("has octets after its end", KEY_FIELD)
    modulus, exponent = der.read_integer(info, n, n_end, KEY_FIELD), der.read_integer(info, e, e_end, KEY_FIELD)
    if modulus < 0 or exponent < 0:
        raise NotDER(
            "has an RSA number that is written as a negative number (the zero octet in front is missing)", KEY_FIELD
        )
    return modulus, exponent


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
        case mldsa.MLDSA44PublicKey():
            return "ML-DSA-44"
        case mldsa.MLDSA65PublicKey():
            return "ML-DSA-65"
        case mldsa.MLDSA87PublicKey():
            return "ML-DSA-87"
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
    if not isinstance(key, PublicKey | MLDSAPublicKey):
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
