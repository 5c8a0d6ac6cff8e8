"""The strength of public keys and signatures.

Keys: RSA of 2048 to 8192 bits, P-256, P-384, P-521, Ed25519, Ed448, ML-DSA, except those that an attacker can compute
(ROCA, two close primes, a small factor, a published key). Signatures: SHA-2 and SHA-3, Ed25519, Ed448, ML-DSA.

These checks run at each connection of a device, so the two tests on RSA numbers are sieves: a few microseconds for RSA
2048.
"""

import math
from collections.abc import Container
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa

from shared.errors import WeakKey, WeakSignature
from shared.x509.public_keys import MLDSAPublicKey, describe_key, key_ids

if TYPE_CHECKING:
    from shared.x509.certificate import Certificate

RSA_BITS_MIN: Final = 2048
RSA_BITS_MAX: Final = 8192
# Odd and 3 or more (CA/Browser Forum Baseline Requirements, 6.1.6). The requirements only recommend 65537 and more.
# Devices with e = 3 exist. The attacks on e = 3 need a verifier that does not check the whole padding; OpenSSL checks
# it. FIPS 186-5, A.1.1 sets the upper bound of 2^256. OpenSSL accepts 64 bits if the modulus has more than 3072.
EXPONENT_MIN: Final = 3
EXPONENT_BITS_MAX: Final = 256
FERMAT_ROUNDS: Final = 100  # as Let's Encrypt does; every known key with this flaw is factored within a few rounds

_CURVES: Final = {"secp256r1", "secp384r1", "secp521r1"}


def check_key(cert: "Certificate", *, weak: Container[str] = frozenset()) -> None:
    """Refuse a key that is weak, too large to verify in time, of an unsupported kind, or on the list *weak*.

    *weak* holds identifiers as `public_keys.key_ids` makes them.

    Raises: WeakKey (fact `found`)."""
    weakness = cert.weakness or find_listed(cert.public_key, weak)
    if weakness is not None:
        raise WeakKey(found=weakness, cert=cert)


def check_signature(cert: "Certificate") -> None:
    """Refuse a signature that is not on SHA-224 to SHA-512, SHA-3, Ed25519 or Ed448, without verifying it.

    Raises: WeakSignature (fact `found`)."""
    if cert.signature_weakness is not None:
        raise WeakSignature(found=cert.signature_weakness, cert=cert)


def find_weakness(key: object) -> str | None:
    """Return what is weak about *key* itself, in words ("RSA 1024 bits"), or None. The answer never changes."""
    match key:
        case rsa.RSAPublicKey():
            return _rsa_weakness(key)
        case ec.EllipticCurvePublicKey() if key.curve.name in _CURVES:
            return None
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            return None
    return None if isinstance(key, MLDSAPublicKey) else describe_key(key)


def find_listed(key: object, weak: Container[str]) -> str | None:
    """Return what to say about *key* if the list *weak* has it, else None."""
    if weak and any(key_id in weak for key_id in key_ids(key)):
        return f"{describe_key(key)}, a key that others know too,"
    return None


def verification_cost(key: object) -> int:
    """Return what verifying with *key*, a key without weakness, costs.

    The unit is one verification with RSA-2048 and the usual exponent: 20 µs where it was measured
    (docs/decisions/0096). Rounded up."""
    match key:
        case rsa.RSAPublicKey():
            # as many squarings as the exponent has bits, each with the square of the modulus's size
            exponent = max(key.public_numbers().e.bit_length(), 17)
            return -(-(key.key_size**2) * exponent // (2048**2 * 17))
        case ec.EllipticCurvePublicKey():
            return 4 if key.curve.name == "secp256r1" else 24
        case ed25519.Ed25519PublicKey():
            return 5
        case mldsa.MLDSA44PublicKey():
            return 6
        case mldsa.MLDSA65PublicKey():
            return 9
        case mldsa.MLDSA87PublicKey():
            return 13
    return 10  # Ed448


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


# The primes 2 to 167, whose product divides the M of every ROCA key from 512 bits on. A good modulus has none of them
# as a factor.
_PRIMES: Final = [p for p in range(2, 168) if all(p % q for q in range(2, p))]
_PRIMORIAL: Final = math.prod(_PRIMES)


def _powers_of_65537(prime: int) -> frozenset[int]:
    powers, power = set(), 1
    while power not in powers:  # the powers return to 1
        powers.add(power)
        power = power * 65537 % prime
    return frozenset(powers)


# For each prime that rules out something: the residues that a ROCA modulus can have
_ROCA_RESIDUES: Final = [(p, powers) for p in _PRIMES if p > 2 and len(powers := _powers_of_65537(p)) < p - 1]


def _is_roca(residue: int) -> bool:
    """Whether a modulus has the fingerprint of Infineon's faulty RSALib (CVE-2017-15361).

    The primes of such a key are k*M + (65537^a mod M), M being a product of small primes, so modulo each small prime
    the modulus is a power of 65537 (Nemec et al., "The Return of Coppersmith's Attack", CCS 2017, section 2). A good
    key has this fingerprint by chance once in 2^28.

    Args:
        residue: the modulus, modulo a multiple of the product of the primes to 167."""
    return all(residue % prime in residues for prime, residues in _ROCA_RESIDUES)


def _sieve(modulus: int) -> list[int]:
    """Return a bit mask for each residue r of n: bit k is set where k*k - n can be a square modulo *modulus*.

    Each mask has at least FERMAT_ROUNDS + *modulus* bits."""
    squares = {k * k % modulus for k in range(modulus)}
    first = [0] * modulus
    for k in range(modulus):
        for square in squares:
            first[(k * k - square) % modulus] |= 1 << k
    repeat = sum(1 << shift for shift in range(0, FERMAT_ROUNDS + modulus, modulus))  # the pattern repeats
    return [repeat * bits for bits in first]


_SIEVES: Final = [(modulus, _sieve(modulus)) for modulus in (64, 9, 25, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)]
_SIEVES_PRODUCT: Final = math.prod(modulus for modulus, _ in _SIEVES)
_RESIDUE: Final = math.lcm(_PRIMORIAL, _SIEVES_PRODUCT)  # a modulus is divided by this once
_ROUNDS_MASK: Final = (1 << FERMAT_ROUNDS) - 1


def _has_close_primes(n: int, residue: int) -> bool:
    """Whether Fermat's method factors *n* within 100 rounds: n = a^2 - b^2 for one of the first a above its root.

    All rounds are sieved at once: for each small modulus, a bit mask holds the rounds in which a^2 - n can be a square
    at all. The rounds in every mask, mostly none, are computed in full.

    Args:
        residue: *n* modulo `_RESIDUE`."""
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
