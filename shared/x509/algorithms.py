"""Signature algorithms of certificates: which are strong, and whether a signature verifies."""

from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509.oid import SignatureAlgorithmOID

_STRONG_HASHES: Final = {
    *("sha224", "sha256", "sha384", "sha512", "sha512-224", "sha512-256"),
    *("sha3-224", "sha3-256", "sha3-384", "sha3-512"),
}
_EDWARDS: Final = {
    SignatureAlgorithmOID.ED25519: ed25519.Ed25519PublicKey,
    SignatureAlgorithmOID.ED448: ed448.Ed448PublicKey,
}
_OLD: Final = {  # RFC 3279, 2.2.1 and PKCS #1: cryptography has no hash for these
    "1.2.840.113549.1.1.2": "MD2",
    "1.2.840.113549.1.1.3": "MD4",
}
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


class SignatureAlgorithm(msgspec.Struct, frozen=True):
    """The algorithm of a certificate's signature.

    Args:
            key_type: the kind of key that signs so; None for an unknown algorithm.
        digest: the hash; None for Edwards curves, which name none.
        padding: the padding of RSA signatures.
        ecdsa: ECDSA with the hash.
        weakness: the weak or unknown algorithm for people ("SHA-1"), or None. For RSA-PSS the hash is what counts.
        is_ecdsa: the algorithm is ECDSA, with whatever hash.
    """

    key_type: Any
    digest: hashes.HashAlgorithm | None = None
    padding: Any = None
    ecdsa: ec.ECDSA | None = None
    weakness: str | None = None
    is_ecdsa: bool = False

    @property
    def is_pss(self) -> bool:
        """Whether this is RSA-PSS (RFC 8017, 8.1)."""
        return isinstance(self.padding, padding.PSS)

    def fits(self, key: object) -> bool:
        """Whether *key* is of the type that makes such signatures."""
        return self.key_type is not None and isinstance(key, self.key_type)

    def verify(self, key: object, signature: bytes, signed: bytes) -> bool:
        """Whether *key* made *signature* on *signed*.

        The type of *key* decides how to verify. The algorithm gives the hash and the padding."""
        try:
            match key:
                case rsa.RSAPublicKey():
                    key.verify(signature, signed, self.padding, self.digest)  # type: ignore[arg-type]
                case ec.EllipticCurvePublicKey():
                    key.verify(signature, signed, self.ecdsa)  # type: ignore[arg-type]
                case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
                    key.verify(signature, signed)
                case _:
                    return False
        except Exception:  # noqa: BLE001 -- InvalidSignature, or parameters that do not fit the key
            return False
        return True


def _rsa(digest: hashes.HashAlgorithm) -> SignatureAlgorithm:
    return SignatureAlgorithm(rsa.RSAPublicKey, digest, padding.PKCS1v15(), ec.ECDSA(digest))


def _ecdsa(digest: hashes.HashAlgorithm) -> SignatureAlgorithm:
    return SignatureAlgorithm(ec.EllipticCurvePublicKey, digest, None, ec.ECDSA(digest), is_ecdsa=True)


USUAL: Final[dict[bytes, SignatureAlgorithm]] = {
    bytes.fromhex("300d06092a864886f70d01010b0500"): _rsa(hashes.SHA256()),
    bytes.fromhex("300d06092a864886f70d01010c0500"): _rsa(hashes.SHA384()),
    bytes.fromhex("300d06092a864886f70d01010d0500"): _rsa(hashes.SHA512()),
    bytes.fromhex("300a06082a8648ce3d040302"): _ecdsa(hashes.SHA256()),
    bytes.fromhex("300a06082a8648ce3d040303"): _ecdsa(hashes.SHA384()),
    bytes.fromhex("300a06082a8648ce3d040304"): _ecdsa(hashes.SHA512()),
}
"""The algorithms of nearly all certificates, by their whole AlgorithmIdentifier (RFC 4055, 5; RFC 5758, 3.2)."""


def read_algorithm(identifier: bytes, cert: x509.Certificate) -> SignatureAlgorithm:
    """Return the algorithm that *cert* is signed with; *identifier* is its AlgorithmIdentifier as DER."""
    return USUAL.get(identifier) or _read_unusual(cert)


def _read_unusual(cert: x509.Certificate) -> SignatureAlgorithm:
    oid = cert.signature_algorithm_oid
    if oid in _EDWARDS:
        return SignatureAlgorithm(_EDWARDS[oid])
    digest, parameters = _hash_of(cert), _parameters_of(cert)
    if digest is None:
        return SignatureAlgorithm(None, weakness=_OLD.get(oid.dotted_string, f"algorithm {oid.dotted_string}"))
    weakness = None if digest.name in _STRONG_HASHES else digest.name.upper().replace("SHA1", "SHA-1")
    key_type: Any = None
    if isinstance(parameters, padding.PKCS1v15 | padding.PSS):
        key_type = rsa.RSAPublicKey
    elif oid in _ECDSA:
        key_type = ec.EllipticCurvePublicKey
    return SignatureAlgorithm(key_type, digest, parameters, ec.ECDSA(digest), weakness, oid in _ECDSA)


def _hash_of(cert: x509.Certificate) -> hashes.HashAlgorithm | None:
    try:
        return cert.signature_hash_algorithm
    except Exception:  # noqa: BLE001 -- unknown algorithm, unreadable parameters: not on the list of strong ones
        return None


def _parameters_of(cert: x509.Certificate) -> object:
    try:
        return cert.signature_algorithm_parameters
    except Exception:  # noqa: BLE001 -- as above; no signature verifies then
        return None
