"""Private keys in PEM and DER: PKCS#8, PKCS#1, SEC1, traditional PEM encryption -> a private key.

* An encrypted key (PKCS#8) holds a plain key, never another encrypted one, so its own parameters are its whole cost
  (`key_costs`).
* Opened keys are bounded by size, and RSA numbers are checked before OpenSSL tests them for being prime, which takes
  minutes for large ones.

No error raised here carries the key, the passphrase, or a message of the library about them.
"""

import base64
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)

from shared.errors import KeyUnsupported, NotAKey, PassphraseRequired, PassphraseUnneeded, PassphraseWrong
from shared.x509.certificate_files import (
    Content,
    Part,
    content_of,
    convert_key_store,
    name_key_store,
)
from shared.x509.der import elements
from shared.x509.file_forms import java_key_store
from shared.x509.key_costs import check_cost, check_readable, cost_of, unknown_encryption
from shared.x509.pem import Block

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

# An RSA-4096 key has 2,400 bytes, encrypted 2,500. A key of another kind is read before it is refused, and the time for
# reading it grows with the cube of its size: a DSA key of this size takes half a second, one of 5 KiB five.
KEY_MAX: Final = 2560  # bytes
RSA_MAX: Final = 4096  # bits
PASSPHRASE_MAX: Final = 1024  # characters


def open_block(block: Block, passphrase: str | None, part: Part) -> PrivateKey:
    """Return the private key in a PEM block. Raises: as private_key_files.load_private_key."""
    if not block.der:
        raise NotAKey(part=part, found="The private key is cut off or damaged", hint="Copy it again, whole.")
    if "Proc-Type" in block.headers:
        return _open_traditional(block, passphrase, part)
    return open_der(block.der, passphrase, part)


# OpenSSL's traditional encryption (RFC 1421, 4.6.1): cipher -> bytes of its initialization vector. The key is derived
# with one round of MD5, so its cost need not be limited.
_TRADITIONAL_CIPHERS: Final = {"AES-128-CBC": 16, "AES-256-CBC": 16, "DES-EDE3-CBC": 8}
_TRADITIONAL_LABELS: Final = ("RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY")


def _open_traditional(block: Block, passphrase: str | None, part: Part) -> PrivateKey:
    cipher, _, vector = block.headers.get("DEK-Info", "").partition(",")
    try:
        is_known = len(bytes.fromhex(vector)) == _TRADITIONAL_CIPHERS[cipher]
    except (KeyError, ValueError):
        is_known = False
    if not is_known or block.label not in _TRADITIONAL_LABELS:
        raise unknown_encryption(part)
    _check_key_size(block.der, part)
    text = (
        f"-----BEGIN {block.label}-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: {cipher},{vector.strip()}\n\n"
        f"{base64.encodebytes(block.der).decode()}-----END {block.label}-----\n"
    )
    secret = encode_passphrase(passphrase)
    try:
        key = load_pem_private_key(text.encode(), secret, unsafe_skip_rsa_key_validation=True)
    except UnsupportedAlgorithm:
        raise unknown_encryption(part) from None
    except Exception:  # noqa: BLE001 -- a wrong passphrase decrypts to noise, on which a parser may raise anything
        raise PassphraseWrong(part="passphrase") from None
    return _check_key(key, part)


def open_der(data: bytes, passphrase: str | None, part: Part) -> PrivateKey:
    """Return the private key in DER, encrypted or not. Raises: as private_key_files.load_private_key."""
    der = data if content_of(data) is not Content.OTHER else data.rstrip()
    match content_of(der):
        case Content.ENCRYPTED_KEY:
            algorithm = elements(der)[0].children[0]
            check_cost(cost_of(algorithm, part), part)
            return open_encrypted(der, encode_passphrase(passphrase), part)
        case Content.KEY:
            if passphrase:
                raise PassphraseUnneeded(part="passphrase")
            return open_plain(der, part)
        case _ if kind := java_key_store(data):
            raise NotAKey(part=part, found=name_key_store(kind), hint=convert_key_store(kind))
        case _:
            raise NotAKey(part=part)


def encode_passphrase(passphrase: str | None) -> bytes:
    """Return *passphrase* as the octets that keys are derived from. Raises: PassphraseRequired, PassphraseWrong."""
    if passphrase is None:
        raise PassphraseRequired(part="passphrase")
    # No tool can encrypt with such a passphrase. A NUL would also end the passphrase early in C.
    if "\0" in passphrase or len(passphrase) > PASSPHRASE_MAX:
        raise PassphraseWrong(part="passphrase")
    return passphrase.encode("utf-8", "surrogatepass")


def open_encrypted(der: bytes, secret: bytes, part: Part) -> PrivateKey:
    """Return the key in an EncryptedPrivateKeyInfo (RFC 5958, section 3), whose cost has been checked.

    Raises: NotAKey, KeyUnsupported, PassphraseWrong."""
    _check_key_size(der, part)
    check_readable(elements(der)[0].children[0], part)
    try:
        key = load_der_private_key(der, secret, unsafe_skip_rsa_key_validation=True)
    except UnsupportedAlgorithm:
        raise unknown_encryption(part) from None
    except Exception:  # noqa: BLE001 -- as above
        raise PassphraseWrong(part="passphrase") from None
    return _check_key(key, part)


def open_plain(der: bytes, part: Part) -> PrivateKey:
    """Return the private key in DER that is not encrypted. Raises: NotAKey, KeyUnsupported."""
    _check_key_size(der, part)
    try:
        key = load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
    except UnsupportedAlgorithm:
        raise KeyUnsupported(part=part, key="A key of this kind or curve") from None
    except Exception:  # noqa: BLE001 -- the library's message could quote the key
        raise NotAKey(part=part, found="The private key cannot be read", hint="Export it again.") from None
    return _check_key(key, part)


def _check_key_size(der: bytes, part: Part) -> None:
    if len(der) > KEY_MAX:
        raise KeyUnsupported(part=part, key=f"A key of {len(der):,} bytes")


def _check_key(key: object, part: Part) -> PrivateKey:
    """Return *key*, whose numbers were not validated yet, if it is of a supported kind and its numbers fit together.

    Raises: KeyUnsupported, NotAKey."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key
    if not isinstance(key, rsa.RSAPrivateKey):
        raise KeyUnsupported(part=part, key=type(key).__name__.removesuffix("PrivateKey"))
    if key.key_size > RSA_MAX:
        raise KeyUnsupported(part=part, key=f"RSA {key.key_size}")
    try:
        numbers = key.private_numbers()
        primes = (numbers.p, numbers.q)
        # Two primes of half the length each (FIPS 186-5, A.1.3): without this, testing one of them may take minutes.
        is_balanced = max(prime.bit_length() for prime in primes) <= key.key_size // 2 + 64
        is_reduced = max(numbers.d, numbers.dmp1, numbers.dmq1, numbers.iqmp).bit_length() <= key.key_size
        if is_balanced and is_reduced and numbers.p * numbers.q == numbers.public_numbers.n:
            plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            validated = load_der_private_key(plain, None)
            if isinstance(validated, rsa.RSAPrivateKey):
                return validated
    except Exception:  # noqa: BLE001, S110 -- refused below, without the library's message
        pass
    raise NotAKey(part=part, found="The numbers of this RSA key do not fit together", hint="Make a new key.")
