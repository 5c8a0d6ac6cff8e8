"""Weak keys, which an attacker can compute, and weak signatures, whose hash an attacker can collide."""

import hashlib
import math
import random
from collections.abc import Container
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.errors import WeakKey, WeakSignature
from shared.x509 import strength
from shared.x509.certificate import Certificate
from shared.x509.certificate_files import read_certificates
from shared.x509.public_keys import UnsupportedKey, describe_key, key_ids
from tests.support import certs
from tests.support.openssl import OpenSSL

RANDOM = random.Random(20260601)


def public(n: int, e: int = 65537) -> rsa.RSAPublicKey:
    return rsa.RSAPublicNumbers(e, n).public_key()


def good_modulus() -> int:
    key = certs.key("RSA-2048").public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    return key.public_numbers().n


def weakness(key: object, weak: Container[str] = frozenset()) -> str:
    """What a refusal says about a weak key; "" for a good key."""
    return strength.find_weakness(key) or strength.find_listed(key, weak) or ""


@pytest.mark.parametrize("kind", ["RSA-2048", "RSA-3072", "P-256", "P-384", "P-521", "Ed25519", "Ed448"])
def test_good_keys_pass(kind: str) -> None:
    assert weakness(certs.key(kind).public_key()) == ""
    strength.check_key(certs.ca(private=certs.key(kind)).certificate)


@pytest.mark.parametrize(
    ("kind", "text"),
    [("RSA-2048", "RSA 2048"), ("P-256", "P-256"), ("P-521", "P-521"), ("Ed25519", "Ed25519"), ("Ed448", "Ed448")],
)
def test_keys_have_names_for_people(kind: str, text: str) -> None:
    assert describe_key(certs.key(kind).public_key()) == text


@pytest.mark.parametrize("bits", [1024, 2047])
def test_short_rsa_is_weak(bits: int) -> None:
    assert weakness(public((1 << (bits - 1)) + 1)) == f"RSA {bits} bits"


def test_rsa_of_8192_bits_is_the_largest() -> None:
    """Verifying costs the square of the size, so a certificate could cost the service seconds."""
    odd = next(n for n in range((1 << 8191) + 1, 1 << 8192, 2) if math.gcd(n, strength._PRIMORIAL) == 1)
    assert weakness(public(odd)) == ""
    assert weakness(public((1 << 8192) + 1)) == "RSA 8193 bits"


def test_an_even_modulus_is_weak() -> None:
    assert "small factor" in weakness(public(good_modulus() - 1))


@pytest.mark.parametrize("factor", [3, 5, 167])
def test_a_modulus_with_a_small_factor_is_weak(factor: int) -> None:
    n = good_modulus()
    assert "small factor" in weakness(public(n - n % factor if (n - n % factor) % 2 else n - n % factor + factor))


@pytest.mark.parametrize("exponent", [3, 17, 65537, (1 << 255) + 1])
def test_odd_exponents_from_3_to_256_bits_pass(exponent: int) -> None:
    """CA/Browser Forum Baseline Requirements 6.1.6: odd, 3 or more; FIPS 186-5, A.1.1: below 2^256."""
    assert weakness(public(good_modulus(), exponent)) == ""


def test_other_exponents_are_weak() -> None:
    class Key(rsa.RSAPublicKey):  # cryptography itself makes no such key
        key_size = 2048

        def __init__(self, exponent: int) -> None:
            self.exponent = exponent

        def public_numbers(self) -> Any:
            class Numbers:
                n, e = good_modulus(), self.exponent

            return Numbers

        encrypt = public_bytes = recover_data_from_signature = verify = __eq__ = __copy__ = None  # type: ignore[assignment]
        __deepcopy__ = None  # type: ignore[assignment]

    assert weakness(Key(1)) == "RSA 2048 bits with exponent 1"
    assert weakness(Key(65536)) == "RSA 2048 bits with exponent 65536"
    assert weakness(Key((1 << 256) + 1)) == "RSA 2048 bits with an exponent of 257 bits"


@pytest.mark.parametrize(
    ("curve", "text"),
    [
        (ec.SECP256K1(), "secp256k1"),
        (ec.SECP192R1(), "P-192"),
        (ec.SECP224R1(), "P-224"),
        (ec.BrainpoolP256R1(), "brainpoolP256r1"),
    ],
)
def test_other_curves_are_weak_or_unsupported(curve: ec.EllipticCurve, text: str) -> None:
    assert weakness(ec.generate_private_key(curve).public_key()) == text


def test_other_kinds_are_unsupported() -> None:
    assert weakness(certs.dsa_key().public_key()) == "DSA"
    assert weakness(x25519.X25519PrivateKey.generate().public_key()) == "A key of kind X25519"
    assert weakness(UnsupportedKey("1.2.643.7.1.1.1.1")) == "A key of algorithm 1.2.643.7.1.1.1.1"
    assert weakness(None)


# ------------------------------------------------------------------------------------- keys that attackers know


def roca_number(bits: int) -> int:
    """Return k*M + (65537^a mod M), as Infineon's RSALib made its primes for RSA 2048 (M: the first 126 primes)."""
    primes = [p for p in range(2, 702) if all(p % q for q in range(2, math.isqrt(p) + 1))]
    assert len(primes) == 126
    m = math.prod(primes)
    power = pow(65537, RANDOM.getrandbits(200), m)
    while (number := RANDOM.getrandbits(bits - m.bit_length()) * m + power).bit_length() < bits:
        pass
    return number


def test_roca_keys_are_weak() -> None:
    """CVE-2017-15361: their structure identifies them, and allows to factor them."""
    n = 0
    while n.bit_length() != 2048:
        n = roca_number(1024) * roca_number(1024)
    assert "ROCA" in weakness(public(n))


def test_good_keys_do_not_look_like_roca() -> None:
    for _ in range(3000):
        n = RANDOM.getrandbits(2048) | 1
        assert not strength._is_roca(n % strength._PRIMORIAL)


def close_primes(n: int) -> bool:
    return strength._has_close_primes(n, n % strength._RESIDUE)


def fermat_rounds(n: int, limit: int) -> int | None:
    """Return the round in which Fermat's method factors *n*, computed as textbooks do."""
    root = math.isqrt(n)
    if root * root == n:
        return 0
    for k in range(1, limit + 1):
        square = (root + k) ** 2 - n
        if math.isqrt(square) ** 2 == square:
            return k
    return None


def close_product(target: int) -> int:
    """Return a product of two odd numbers, of 2048 bits, which Fermat's method factors in about *target* rounds."""
    a = (7 << 1021) + RANDOM.getrandbits(1020)
    b = math.isqrt(2 * a * target)
    b += (a + b + 1) % 2
    return (a - b) * (a + b)


@pytest.mark.parametrize("target", [0, 1, 2, 10, 63, 64, 90, 99])
def test_the_sieve_finds_close_primes_as_the_textbook_method_does(target: int) -> None:
    """The sieve skips rounds, never results: the answer is the same as after all 100 rounds (CVE-2022-26320)."""
    for _ in range(20):
        n = close_product(target)
        assert close_primes(n) is (fermat_rounds(n, 100) is not None)


def test_the_hundredth_round_is_the_last() -> None:
    every_round = set()
    for target in (99, 100, 101):
        for _ in range(60):
            n = close_product(target)
            rounds = fermat_rounds(n, 103)
            every_round.add(rounds)
            assert close_primes(n) is (rounds is not None and rounds <= 100)
    assert {100, 101} <= every_round


def test_close_primes_are_weak() -> None:
    n = next(n for n in iter(lambda: close_product(5), 0) if math.gcd(n, strength._PRIMORIAL) == 1)
    assert "close primes" in weakness(public(n))
    assert close_primes(((1 << 1024) - 105) ** 2)


def test_a_key_on_debians_list_is_weak(openssl: OpenSSL) -> None:
    """CVE-2008-0166: openssl-blacklist has the last 20 digits of `openssl rsa -modulus | sha1sum`."""
    openssl("genrsa -out key.pem 2048")
    line = openssl("rsa -in key.pem -noout -modulus")
    openssl("rsa -in key.pem -pubout -outform DER -out key.der")
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    key = load_der_public_key(openssl.bytes("key.der"))
    listed = hashlib.sha1(line.encode()).hexdigest()[20:]
    assert weakness(key, weak={"00" * 10}) == ""
    assert weakness(key, weak={listed}) == "RSA 2048, a key that others know too,"


@pytest.mark.parametrize("kind", ["RSA-2048", "P-256", "Ed25519"])
def test_a_key_listed_by_its_hash_is_weak(kind: str) -> None:
    key = certs.key(kind).public_key()
    info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert "others know" in weakness(key, weak={hashlib.sha256(info).hexdigest()})


def test_a_list_may_be_any_container() -> None:
    class Everything:
        def __contains__(self, item: object) -> bool:
            return True

    assert "others know" in weakness(certs.key().public_key(), weak=Everything())
    assert key_ids(None) == ()
    assert strength.find_listed(None, Everything()) is None


@pytest.mark.parametrize(("kind", "weak"), [("K-256", ()), ("P-256", key_ids(certs.key("P-256").public_key()))])
def test_the_refusal_names_the_certificate(kind: str, weak: Container[str]) -> None:
    """For a weak key, and for a good key that is published."""
    cert = certs.ca(private=certs.key(kind)).certificate
    with pytest.raises(WeakKey) as refusal:
        strength.check_key(cert, weak=weak)
    assert refusal.value.cert is cert
    assert (
        refusal.value.reason
        == f"The key {weakness(cert.public_key, weak)} is weak, or of a kind that is not supported."
    )


# --------------------------------------------------------------------------------------------------------- signatures


def signed_with(algorithm: hashes.HashAlgorithm, *, pss: bool = False, kind: str = "RSA-2048") -> Certificate:
    key = certs.key(kind)
    builder = (
        x509.CertificateBuilder()
        .subject_name(certs.name("x"))
        .issuer_name(certs.name("x"))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(certs.NOON)
        .not_valid_after(certs.NOON + certs.DAY)
    )
    scheme = padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH) if pss else None
    cert = builder.sign(key, algorithm, rsa_padding=scheme)  # type: ignore[arg-type]
    return Certificate.from_der(cert.public_bytes(Encoding.DER))


@pytest.mark.parametrize(
    "algorithm",
    [hashes.SHA224(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512(), hashes.SHA3_256(), hashes.SHA3_512()],
    ids=lambda algorithm: str(algorithm.name),
)
def test_sha2_and_sha3_pass(algorithm: hashes.HashAlgorithm) -> None:
    strength.check_signature(signed_with(algorithm))
    strength.check_signature(signed_with(algorithm, kind="P-256"))


def test_pss_passes_with_a_good_hash() -> None:
    """RFC 4055: the hash is a parameter."""
    strength.check_signature(signed_with(hashes.SHA256(), pss=True))


@pytest.mark.parametrize("kind", ["Ed25519", "Ed448"])
def test_edwards_signatures_pass(kind: str) -> None:
    """RFC 8410: they name no hash."""
    strength.check_signature(certs.ca(private=certs.key(kind)).certificate)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("-sha1", "SHA-1"),
        ("-md5", "MD5"),
        ("-sha1 -sigopt rsa_padding_mode:pss", "SHA-1"),
    ],
)
def test_old_hashes_are_weak(openssl: OpenSSL, options: str, text: str) -> None:
    """RFC 6194 and RFC 6151."""
    openssl(f"req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 9 {options}", "-subj", "/CN=x")
    [cert] = read_certificates(openssl.bytes("c.pem"))
    with pytest.raises(WeakSignature) as refusal:
        strength.check_signature(cert)
    assert refusal.value.reason == f"The certificate is signed with {text}, which is not secure."
    assert refusal.value.cert is cert


@pytest.mark.parametrize(("last", "text"), [(2, "MD2"), (3, "MD4"), (99, "algorithm 1.2.840.113549.1.1.99")])
def test_unknown_algorithms_are_refused(last: int, text: str) -> None:
    """sha256WithRSAEncryption (1.2.840.113549.1.1.11) with another last number."""
    oid = bytes.fromhex("2a864886f70d0101")
    good = signed_with(hashes.SHA256()).der
    cert = Certificate.from_der(good.replace(oid + b"\x0b", oid + bytes([last])))
    with pytest.raises(WeakSignature) as refusal:
        strength.check_signature(cert)
    assert str(refusal.value.facts["found"]).startswith(text)


def test_a_key_that_is_no_key_is_described() -> None:
    assert describe_key(ed25519.Ed25519PrivateKey.generate()).startswith("A key of kind")
