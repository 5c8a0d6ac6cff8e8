"""Signature algorithms of certificates: which are strong, and whether a signature verifies."""

from functools import lru_cache
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa

from shared.x509 import der

_FIELD: Final = "signatureAlgorithm"
_NULL: Final = bytes((der.NULL, 0))
_PSS: Final = "1.2.840.113549.1.1.10"
_MGF1: Final = "1.2.840.113549.1.1.8"

_MD5: Final = hashes.MD5()  # noqa: S303 -- to name it as weak, and to tell a forged signature from a weak one
_SHA1: Final = hashes.SHA1()  # noqa: S303 -- as above

_RSA: Final[dict[str, hashes.HashAlgorithm]] = {  # RFC 8017, A.2.4; 1.3.14.3.2.29 is an old number of SHA-1
    "1.2.840.113549.1.1.4": _MD5,
    "1.2.840.113549.1.1.5": _SHA1,
    "1.3.14.3.2.29": _SHA1,
    "1.2.840.113549.1.1.14": hashes.SHA224(),
    "1.2.840.113549.1.1.11": hashes.SHA256(),
    "1.2.840.113549.1.1.12": hashes.SHA384(),
    "1.2.840.113549.1.1.13": hashes.SHA512(),
    "2.16.840.1.101.3.4.3.13": hashes.SHA3_224(),
    "2.16.840.1.101.3.4.3.14": hashes.SHA3_256(),
    "2.16.840.1.101.3.4.3.15": hashes.SHA3_384(),
    "2.16.840.1.101.3.4.3.16": hashes.SHA3_512(),
}
_ECDSA: Final[dict[str, hashes.HashAlgorithm]] = {  # RFC 5758, 3.2
    "1.2.840.10045.4.1": _SHA1,
    "1.2.840.10045.4.3.1": hashes.SHA224(),
    "1.2.840.10045.4.3.2": hashes.SHA256(),
    "1.2.840.10045.4.3.3": hashes.SHA384(),
    "1.2.840.10045.4.3.4": hashes.SHA512(),
    "2.16.840.1.101.3.4.3.9": hashes.SHA3_224(),
    "2.16.840.1.101.3.4.3.10": hashes.SHA3_256(),
    "2.16.840.1.101.3.4.3.11": hashes.SHA3_384(),
    "2.16.840.1.101.3.4.3.12": hashes.SHA3_512(),
}
_BY_KEY_ALONE: Final[dict[str, type]] = {  # RFC 8410, 3; RFC 9881, 2: the algorithm has no parameters
    "1.3.101.112": ed25519.Ed25519PublicKey,
    "1.3.101.113": ed448.Ed448PublicKey,
    "2.16.840.1.101.3.4.3.17": mldsa.MLDSA44PublicKey,
    "2.16.840.1.101.3.4.3.18": mldsa.MLDSA65PublicKey,
    "2.16.840.1.101.3.4.3.19": mldsa.MLDSA87PublicKey,
}
_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {  # that RSASSA-PSS may name
    "1.2.840.113549.2.5": _MD5,
    "1.3.14.3.2.26": _SHA1,
    "2.16.840.1.101.3.4.2.4": hashes.SHA224(),
    "2.16.840.1.101.3.4.2.1": hashes.SHA256(),
    "2.16.840.1.101.3.4.2.2": hashes.SHA384(),
    "2.16.840.1.101.3.4.2.3": hashes.SHA512(),
    "2.16.840.1.101.3.4.2.7": hashes.SHA3_224(),
    "2.16.840.1.101.3.4.2.8": hashes.SHA3_256(),
    "2.16.840.1.101.3.4.2.9": hashes.SHA3_384(),
    "2.16.840.1.101.3.4.2.10": hashes.SHA3_512(),
}
_USUAL: Final = {"sha224", "sha256", "sha384", "sha512"}
_WEAK: Final = {"md5": "MD5", "sha1": "SHA-1"}
_OLD: Final = {  # RFC 3279, 2.2.1 and 2.2.2, and PKCS #1: signatures that nothing here verifies
    "1.2.840.113549.1.1.2": "MD2",
    "1.2.840.113549.1.1.3": "MD4",
    "1.2.840.10040.4.3": "SHA-1",
}


class SignatureAlgorithm(msgspec.Struct, frozen=True):
    """The algorithm of a certificate's signature.

    Args:
        key_type: the kind of key that signs so; None for an unknown algorithm.
        scheme: what `verify` of a key takes after signature and signed octets.
        weakness: the weak or unknown algorithm for people ("SHA-1"), or None. For RSA-PSS the hash is what counts.
        is_usual: the identifier is encoded as nearly all are, and OpenSSL would read nothing else in it.
    """

    key_type: Any
    scheme: tuple[Any, ...] = ()
    weakness: str | None = None
    is_usual: bool = False

    @property
    def is_ecdsa(self) -> bool:
        """Whether this is ECDSA, with whatever hash (RFC 5758, 3.2)."""
        return self.key_type is ec.EllipticCurvePublicKey

    @property
    def is_pss(self) -> bool:
        """Whether this is RSA-PSS (RFC 8017, 8.1)."""
        return bool(self.scheme) and isinstance(self.scheme[0], padding.PSS)

    def fits(self, key: object) -> bool:
        """Whether *key* is of the type that makes such signatures."""
        return self.key_type is not None and _is_of_type(type(key), self.key_type)  # type: ignore[arg-type]

    def verify(self, key: object, signature: bytes, signed: bytes) -> bool:
        """Whether *key* made *signature* on *signed* by this algorithm."""
        if not self.fits(key):
            return False
        try:
            key.verify(signature, signed, *self.scheme)  # type: ignore[attr-defined]
        except Exception:  # noqa: BLE001 -- InvalidSignature, or parameters that do not fit the key
            return False
        return True


@lru_cache(maxsize=64)
def _is_of_type(loaded: Any, key_type: Any) -> bool:
    """Whether *loaded*, the class of a key, is of *key_type*. Kept: asking an abstract class is slow."""
    return issubclass(loaded, key_type)


@lru_cache(maxsize=256)
def read_algorithm(identifier: bytes) -> SignatureAlgorithm:
    """Return the algorithm of an AlgorithmIdentifier (RFC 5280, 4.1.1.2), given as DER. Raises: NotDER."""
    at, end = der.expect_whole(identifier, der.SEQUENCE, _FIELD)
    start, stop = der.expect(identifier, at, end, der.OID, _FIELD)
    oid, parameters = der.read_oid(identifier[start:stop], _FIELD), identifier[stop:end]
    if parameters:
        _, _, parameters_end = der.element(identifier, stop, end, _FIELD)
        if parameters_end != end:
            raise der.NotDER("has something after its parameters", _FIELD)
    # RFC 4055, 5 wants NULL for RSA, RFC 5758, 3.2 no parameters for ECDSA. Tools write either for both.
    is_plain = parameters in (b"", _NULL)
    if oid in _RSA:
        digest = _RSA[oid]
        return _rated(rsa.RSAPublicKey, digest, (padding.PKCS1v15(), digest), is_plain=is_plain)
    if oid in _ECDSA:
        digest = _ECDSA[oid]
        return _rated(ec.EllipticCurvePublicKey, digest, (ec.ECDSA(digest),), is_plain=is_plain)
    if oid in _BY_KEY_ALONE:
        return SignatureAlgorithm(_BY_KEY_ALONE[oid], is_usual=not parameters)
    if oid == _PSS:
        return _read_pss(parameters)
    return SignatureAlgorithm(None, weakness=_OLD.get(oid, f"algorithm {oid}"))


def _rated(
    key_type: type, digest: hashes.HashAlgorithm, scheme: tuple[Any, ...], *, is_plain: bool
) -> SignatureAlgorithm:
    return SignatureAlgorithm(key_type, scheme, _WEAK.get(digest.name), is_plain and digest.name in _USUAL)


def _read_pss(parameters: bytes) -> SignatureAlgorithm:
    """Return RSASSA-PSS with its parameters (RFC 4055, 3.1). OpenSSL judges what is not read here.

    Raises: NotDER."""
    at, end = der.expect_whole(parameters, der.SEQUENCE, _FIELD)
    parts = {tag: parameters[a:b] for tag, a, b in der.children(parameters, at, end, 4, _FIELD)}
    digest = _read_hash(parts[0xA0]) if 0xA0 in parts else _SHA1
    mask_digest: hashes.HashAlgorithm | None = _SHA1
    if 0xA1 in parts:
        at, end = der.expect_whole(parts[0xA1], der.SEQUENCE, _FIELD)
        start, stop = der.expect(parts[0xA1], at, end, der.OID, _FIELD)
        is_mgf1 = der.read_oid(parts[0xA1][start:stop], _FIELD) == _MGF1
        mask_digest = _read_hash(parts[0xA1][stop:end]) if is_mgf1 else None
    salt = 20
    if 0xA2 in parts:
        start, stop = der.expect_whole(parts[0xA2], der.INTEGER, _FIELD)
        salt = der.read_integer(parts[0xA2], start, stop, _FIELD)
    if digest is None or mask_digest is None or salt < 0:
        return SignatureAlgorithm(None, weakness="RSA-PSS with unknown parameters")
    scheme = padding.PSS(padding.MGF1(mask_digest), salt), digest
    return SignatureAlgorithm(rsa.RSAPublicKey, scheme, _WEAK.get(digest.name))


def _read_hash(identifier: bytes) -> hashes.HashAlgorithm | None:
    """Return the hash of an AlgorithmIdentifier; None for another one. Raises: NotDER."""
    at, end = der.expect_whole(identifier, der.SEQUENCE, _FIELD)
    start, stop = der.expect(identifier, at, end, der.OID, _FIELD)
    return _HASHES.get(der.read_oid(identifier[start:stop], _FIELD))
