"""Is a key, or a signature, strong enough to be believed?

Keys: RSA of 2048 to 8192 bits, P-256, P-384, P-521, Ed25519, Ed448; and none that anybody can compute (ROCA, two close
primes, a small factor, a published key). Signatures: SHA-2 and SHA-3, Ed25519, Ed448.

These run at each connection of a device, so the two tests on numbers are sieves: a few microseconds for RSA 2048.
"""

import hashlib
import math
from collections.abc import Container
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import SignatureAlgorithmOID

from shared.errors import WeakKey, WeakSignature
from shared.x509.encoding import public_key_info

RSA_BITS_MIN: Final = 2048
RSA_BITS_MAX: Final = 8192
# Odd and 3 or more (CA/Browser Forum Baseline Requirements, 6.1.6). They only recommend 65537 and more, and devices
# with e = 3 are in the field; the attacks on e = 3 need a careless verifier, which OpenSSL is not. Below 2^256 says
# FIPS 186-5, A.1.1; OpenSSL itself stops at 64 bits where the modulus has more than 3072.
EXPONENT_MIN: Final = 3
EXPONENT_BITS_MAX: Final = 256
FERMAT_ROUNDS: Final = 100  # as Let's Encrypt does; every key found with this flaw fell within a few rounds

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey

_CURVES: Final = {"secp256r1", "secp384r1", "secp521r1"}
_NIST_NAMES: Final = {
    "secp192r1": "P-192",
    "secp224r1": "P-224",
    "secp256r1": "P-256",
    "secp384r1": "P-384",
    "secp521r1": "P-521",
}
_SHA2: Final = {"sha224", "sha256", "sha384", "sha512", "sha512-224", "sha512-256"}
_SHA3: Final = {"sha3-224", "sha3-256", "sha3-384", "sha3-512"}
_HASHES: Final = _SHA2 | _SHA3
_EDWARDS: Final = {SignatureAlgorithmOID.ED25519, SignatureAlgorithmOID.ED448}
_OLD_SIGNATURES: Final = {  # RFC 3279, 2.2.1 and PKCS #1: cryptography has no hash for these
    "1.2.840.113549.1.1.2": "MD2",
    "1.2.840.113549.1.1.3": "MD4",
}


# ------------------------------------------------------------------------------------------------------------- keys


def check_key(key: object, *, weak: Container[str] = frozenset(), cert: x509.Certificate | None = None) -> None:
    """Refuse a public key that is weak, too large to verify in time, of an unsupported kind, or on the list *weak*.

    *weak* holds identifiers as `key_ids` makes them; *cert* is the certificate to name in the refusal.

    Raises: WeakKey (fact `found`)."""
    found = weakness(key) or listed(key, weak)
    if found is not None:
        raise WeakKey(found=found, cert=cert)


def weakness(key: object) -> str | None:
    """What is wrong with *key* itself, in words ("RSA 1024 bits"), or None. It never changes, so it can be kept."""
    match key:
        case rsa.RSAPublicKey():
            return _rsa_weakness(key)
        case ec.EllipticCurvePublicKey() if key.curve.name in _CURVES:
            return None
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            return None
    return describe_key(key)


def listed(key: object, weak: Container[str]) -> str | None:
    """What to say of *key* if the list *weak* has it, else None."""
    if weak and any(one in weak for one in key_ids(key)):
        return f"{describe_key(key)}, a key that others know too,"
    return None


def verification_cost(key: object) -> int:
    """What a signature check with *key*, a key without weakness, costs, in units of one with RSA-2048 and the usual
    exponent (20 µs where it was measured; docs/decisions/0096). Rounded up."""
    match key:
        case rsa.RSAPublicKey():
            # squarings as many as the exponent has bits, each with the square of the modulus's size
            exponent = max(key.public_numbers().e.bit_length(), 17)
            return -(-(key.key_size**2) * exponent // (2048**2 * 17))
        case ec.EllipticCurvePublicKey():
            return 4 if key.curve.name == "secp256r1" else 24
        case ed25519.Ed25519PublicKey():
            return 5
    return 10  # Ed448


def key_ids(key: object) -> tuple[str, ...]:
    """The names under which lists of weak keys know *key*, in lower-case hexadecimal.

    SHA-256 of its SubjectPublicKeyInfo; for RSA also the last 20 digits of SHA-1 of "Modulus=<HEX>\\n", the form of
    Debian's openssl-blacklist (CVE-2008-0166)."""
    if not isinstance(key, PublicKey):
        return ()
    info = public_key_info(key)
    ids: tuple[str, ...] = (hashlib.sha256(info).hexdigest(),)
    if isinstance(key, rsa.RSAPublicKey):
        line = f"Modulus={key.public_numbers().n:X}\n".encode()
        ids += (hashlib.sha1(line, usedforsecurity=False).hexdigest()[-20:],)
    return ids


def describe_key(key: object) -> str:
    """ "RSA 2048", "P-256", "Ed25519", … for people. Takes anything at all; an object identifier names an algorithm."""
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
        case x509.ObjectIdentifier():
            return f"A key of algorithm {key.dotted_string}"
    return f"A key of kind {type(key).__name__.removesuffix('PublicKey')}"


def _rsa_weakness(key: rsa.RSAPublicKey) -> str | None:
    bits = key.key_size
    if not RSA_BITS_MIN <= bits <= RSA_BITS_MAX:
        return f"RSA {bits} bits"
    numbers = key.public_numbers()
    n, e = numbers.n, numbers.e
    if e.bit_length() > EXPONENT_BITS_MAX:
        return f"RSA {bits} bits with an exponent of {e.bit_length()} bits"
    if e < EXPONENT_MIN or e % 2 == 0:
        return f"RSA {bits} bits with exponent {e}"
    residue = n % _RESIDUE
    if math.gcd(residue, _PRIMORIAL) != 1:
        return f"RSA {bits} bits with a small factor"
    if _is_roca(residue):
        return f"RSA {bits} bits from a faulty chip (ROCA, CVE-2017-15361)"
    if _has_close_primes(n, residue):
        return f"RSA {bits} bits with two close primes (Fermat, CVE-2022-26320)"
    return None


# The primes 2 to 167, whose product divides the M of every ROCA key from 512 bits on. A modulus has none as a factor.
_PRIMES: Final = [p for p in range(2, 168) if all(p % q for q in range(2, p))]
_PRIMORIAL: Final = math.prod(_PRIMES)


def _powers_of_65537(prime: int) -> frozenset[int]:
    found, power = set(), 1
    while power not in found:  # from 1 they come round to 1 again
        found.add(power)
        power = power * 65537 % prime
    return frozenset(found)


# For each prime where it says something: the residues that a ROCA modulus can have
_ROCA_RESIDUES: Final = [(p, powers) for p in _PRIMES if p > 2 and len(powers := _powers_of_65537(p)) < p - 1]


def _is_roca(residue: int) -> bool:
    """Whether a modulus has the fingerprint of Infineon's faulty RSALib (CVE-2017-15361).

    Its primes are k*M + (65537^a mod M), M a product of small primes, so modulo each of those the modulus is a power
    of 65537 (Nemec et al., "The Return of Coppersmith's Attack", CCS 2017, section 2). A good key looks so by chance
    once in 2^28. *residue* is the modulus modulo a multiple of the product of the primes to 167."""
    return all(residue % prime in residues for prime, residues in _ROCA_RESIDUES)


def _sieve(modulus: int) -> list[int]:
    """Per residue r of n: the bits k, to rounds + modulus at least, where k*k - n can be a square modulo *modulus*."""
    squares = {k * k % modulus for k in range(modulus)}
    first = [0] * modulus
    for k in range(modulus):
        for square in squares:
            first[(k * k - square) % modulus] |= 1 << k
    again = sum(1 << shift for shift in range(0, FERMAT_ROUNDS + modulus, modulus))  # the pattern repeats
    return [again * bits for bits in first]


_SIEVES: Final = [(modulus, _sieve(modulus)) for modulus in (64, 9, 25, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)]
_SIEVES_PRODUCT: Final = math.prod(modulus for modulus, _ in _SIEVES)
_RESIDUE: Final = math.lcm(_PRIMORIAL, _SIEVES_PRODUCT)  # a modulus is divided by this once
_ROUNDS_MASK: Final = (1 << FERMAT_ROUNDS) - 1


def _has_close_primes(n: int, residue: int) -> bool:
    """Whether Fermat's method factors *n* within 100 rounds: n = a^2 - b^2 for one of the first a above its root.

    The rounds are done at once: per small modulus, a bit mask tells in which of them a^2 - n can be a square at all.
    What is left of the masks together (mostly nothing) is tried in full. *residue* is n modulo `_RESIDUE`."""
    root = math.isqrt(n)
    if root * root == n:
        return True
    start = root + 1
    start_residue, n_residue = start % _SIEVES_PRODUCT, residue % _SIEVES_PRODUCT
    rounds = _ROUNDS_MASK
    for modulus, masks in _SIEVES:
        rounds &= masks[n_residue % modulus] >> (start_residue % modulus)
        if not rounds:
            return False
    while rounds:
        lowest = rounds & -rounds
        a = start + lowest.bit_length() - 1
        square = a * a - n
        if math.isqrt(square) ** 2 == square:
            return True
        rounds ^= lowest
    return False


# ------------------------------------------------------------------------------------------------------- signatures


def check_signature(cert: x509.Certificate) -> None:
    """Refuse a certificate whose signature is not on SHA-224 to SHA-512, SHA-3, Ed25519 or Ed448.

    The signature itself is not verified here. Whatever the certificate is, nothing else is raised.

    Raises: WeakSignature (fact `found`)."""
    found = signature_weakness(cert)
    if found is not None:
        raise WeakSignature(found=found, cert=cert)


def signature_weakness(cert: x509.Certificate) -> str | None:
    """The weak or unknown algorithm *cert* is signed with ("SHA-1"), or None. For RSA-PSS the hash is what counts."""
    oid = cert.signature_algorithm_oid
    try:
        algorithm = cert.signature_hash_algorithm
    except Exception:  # noqa: BLE001 -- unknown algorithm, unreadable parameters: whatever it is, it is not on the list
        algorithm = None
    if algorithm is None:
        if oid in _EDWARDS:
            return None
        return _OLD_SIGNATURES.get(oid.dotted_string, f"algorithm {oid.dotted_string}")
    if algorithm.name in _HASHES:
        return None
    return algorithm.name.upper().replace("SHA1", "SHA-1")
