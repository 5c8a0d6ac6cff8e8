"""Private key files: PKCS#8, PKCS#1, SEC1, traditional PEM encryption, PKCS#12 -> a private key.

The cost of opening a file is read from its ASN.1 before anything is decrypted. A cost that only shows after decryption
is never paid:

* An encrypted key (PKCS#8) holds a plain key, never another encrypted one, so its own parameters are the whole cost.
* A PKCS#12 file can hide encrypted keys in its encrypted parts. The key is therefore taken from the open part only,
  where every usual writer puts it (openssl, Java, Windows, NSS), and opened by itself. For the certificates, the parts
  are put into a new PKCS#12 file behind a throwaway key: OpenSSL opens the first key it meets and no other, so it pays
  for the parts, whose cost is visible, and for nothing inside them.
* Opened keys are bounded by size, and RSA numbers are checked before OpenSSL tests them for being prime, which takes
  minutes for large ones.

The integrity code of a PKCS#12 file (MacData) is not checked: it proves that the writer knew the passphrase, which
opening the file shows too, and the key is compared with the certificate anyway.

No error raised here carries the key, the passphrase, or a message of the library about them.
"""

import base64
import hashlib
import hmac
from typing import Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
    pkcs12,
)

from shared.errors import (
    ChainTooLong,
    KdfTooCostly,
    KeyMismatch,
    KeyUnsupported,
    NotACertificate,
    NotAKey,
    PassphraseRequired,
    PassphraseUnneeded,
    PassphraseWrong,
)
from shared.x509.certificate import Certificate
from shared.x509.certificate_files import (
    BUNDLE_MAX,
    CERTIFICATES_MAX,
    Content,
    Part,
    check_size,
    content_of,
    read_certificate,
)
from shared.x509.der import CONTEXT_0, INTEGER, OCTET_STRING, OID, SEQUENCE, Element, elements, encode
from shared.x509.pem import Block, blocks, is_pem
from shared.x509.public_keys import public_key_info

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

ROUNDS_MAX: Final = 1_000_000  # iterations of all key derivations in one file: under a second
SCRYPT_MAX: Final = 32 * 1024 * 1024  # bytes, 128·N·r·p of all scrypt in one file: RFC 7914, section 2
KEY_FILE_MAX: Final = 64 * 1024  # bytes
# An RSA-4096 key has 2,400 bytes, encrypted 2,500. A key of another kind is read before it is refused, and the time for
# reading it grows with the cube of its size: a DSA key of this size takes half a second, one of 5 KiB five.
KEY_MAX: Final = 2560  # bytes
RSA_MAX: Final = 4096  # bits
PASSPHRASE_MAX: Final = 1024  # characters

_ENCRYPTED_ANOTHER_WAY: Final = "openssl pkcs8 -topk8 -v2 aes-256-cbc"


# ------------------------------------------------------------------------------------------------------- files


def load_private_key(
    data: bytes, passphrase: str | None, *, limit: int = KEY_FILE_MAX, part: Part = "private_key"
) -> PrivateKey:
    """Return the only private key in *data*, a file of up to *limit* bytes: PEM with text around it, DER or PKCS#12.

    An empty passphrase counts as not given.

    Raises: TooLarge, NotAKey, PassphraseRequired, PassphraseWrong, PassphraseUnneeded (their part is `passphrase`),
    KdfTooCostly, KeyUnsupported (neither RSA up to 4096 bits nor elliptic curve)."""
    check_size(data, limit, part=part, hint="Save the key alone.")
    if looks_like_pkcs12(data):
        return _Pkcs12(data, part).key(passphrase or None)
    if not is_pem(data):
        return _open_der(data, passphrase or None, part)
    keys = [block for block in blocks(data) if block.is_private_key]
    if not keys:
        raise NotAKey(part=part)
    if len(keys) > 1:
        raise NotAKey(part=part, found=f"{len(keys)} private keys are in the file", hint="Save the one alone.")
    return _open_block(keys[0], passphrase or None, part)


def holds_private_key(data: bytes) -> bool:
    """Whether *data* holds a private key, encrypted or not. PKCS#12 does not count."""
    if is_pem(data):
        return any(block.is_private_key for block in blocks(data))
    return content_of(data) in (Content.KEY, Content.ENCRYPTED_KEY)


def looks_like_pkcs12(data: bytes) -> bool:
    """Whether *data* has the outer shape of a PKCS#12 file (PFX version 3, RFC 7292 section 4), which is always DER."""
    return content_of(data) is Content.PKCS12


def load_pkcs12(
    data: bytes, passphrase: str | None, *, part: Part = "certificate"
) -> tuple[PrivateKey, Certificate, list[Certificate]]:
    """Return the private key of a PKCS#12 file, the certificate of that key, and the other certificates in the file.

    Without a passphrase the empty one is tried, with which some tools export.

    Raises: as load_private_key; NotACertificate, ChainTooLong, WeakKey, KeyMismatch where no certificate in the file is
    the key's."""
    check_size(data, BUNDLE_MAX, part=part, hint="Save the key, its certificate and chain alone.")
    file = _Pkcs12(data, part)
    key = file.key(passphrase or None)
    certificates = file.certificates(passphrase or None)
    own = public_key_info(key.public_key())
    leaf = next((cert for cert in certificates if cert.public_key_info == own), None)
    if leaf is None:
        raise KeyMismatch(part=part)
    return key, leaf, [cert for cert in certificates if cert is not leaf]


# ----------------------------------------------------------------------------------------------- keys in PEM, DER


def _open_block(block: Block, passphrase: str | None, part: Part) -> PrivateKey:
    if not block.der:
        raise NotAKey(part=part, found="The private key is cut off or damaged", hint="Copy it again, whole.")
    if "Proc-Type" in block.headers:
        return _open_traditional(block, passphrase, part)
    return _open_der(block.der, passphrase, part)


# OpenSSL's traditional encryption (RFC 1421, 4.6.1): cipher -> bytes of its initialization vector. The key is derived
# with one round of MD5, which costs nothing.
_TRADITIONAL_CIPHERS: Final = {"AES-128-CBC": 16, "AES-256-CBC": 16, "DES-EDE3-CBC": 8}
_TRADITIONAL_LABELS: Final = ("RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY")


def _open_traditional(block: Block, passphrase: str | None, part: Part) -> PrivateKey:
    cipher, _, vector = block.headers.get("DEK-Info", "").partition(",")
    try:
        fits = len(bytes.fromhex(vector)) == _TRADITIONAL_CIPHERS[cipher]
    except (KeyError, ValueError):
        fits = False
    if not fits or block.label not in _TRADITIONAL_LABELS:
        raise _unknown_encryption(part)
    _check_key_size(block.der, part)
    text = (
        f"-----BEGIN {block.label}-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: {cipher},{vector.strip()}\n\n"
        f"{base64.encodebytes(block.der).decode()}-----END {block.label}-----\n"
    )
    secret = _secret(passphrase)
    try:
        key = load_pem_private_key(text.encode(), secret, unsafe_skip_rsa_key_validation=True)
    except UnsupportedAlgorithm:
        raise _unknown_encryption(part) from None
    except Exception:  # noqa: BLE001 -- a wrong passphrase decrypts to noise, on which a parser may raise anything
        raise PassphraseWrong(part="passphrase") from None
    return _check_key(key, part)


def _open_der(data: bytes, passphrase: str | None, part: Part) -> PrivateKey:
    der = data if content_of(data) is not Content.OTHER else data.rstrip()
    match content_of(der):
        case Content.ENCRYPTED_KEY:
            algorithm = elements(der)[0].children[0]
            _check_cost(_cost(algorithm, part), part)
            return _open_encrypted(der, _secret(passphrase), part)
        case Content.KEY:
            if passphrase:
                raise PassphraseUnneeded(part="passphrase")
            return _open_plain(der, part)
        case _:
            raise NotAKey(part=part)


def _secret(passphrase: str | None) -> bytes:
    if passphrase is None:
        raise PassphraseRequired(part="passphrase")
    # No tool can encrypt with such a passphrase. A NUL would also end the passphrase early in C.
    if "\0" in passphrase or len(passphrase) > PASSPHRASE_MAX:
        raise PassphraseWrong(part="passphrase")
    return passphrase.encode("utf-8", "surrogatepass")


def _open_encrypted(der: bytes, secret: bytes, part: Part) -> PrivateKey:
    """An EncryptedPrivateKeyInfo (RFC 5958, section 3), whose cost has been checked."""
    _check_key_size(der, part)
    _check_readable(elements(der)[0].children[0], part)
    try:
        key = load_der_private_key(der, secret, unsafe_skip_rsa_key_validation=True)
    except UnsupportedAlgorithm:
        raise _unknown_encryption(part) from None
    except Exception:  # noqa: BLE001 -- as above
        raise PassphraseWrong(part="passphrase") from None
    return _check_key(key, part)


def _open_plain(der: bytes, part: Part) -> PrivateKey:
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
        balanced = max(prime.bit_length() for prime in primes) <= key.key_size // 2 + 64
        reduced = max(numbers.d, numbers.dmp1, numbers.dmq1, numbers.iqmp).bit_length() <= key.key_size
        if balanced and reduced and numbers.p * numbers.q == numbers.public_numbers.n:
            plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            validated = load_der_private_key(plain, None)
            if isinstance(validated, rsa.RSAPrivateKey):
                return validated
    except Exception:  # noqa: BLE001, S110 -- refused below, without the library's message
        pass
    raise NotAKey(part=part, found="The numbers of this RSA key do not fit together", hint="Make a new key.")


# ------------------------------------------------------------------------------------------------------- costs


class _Cost(msgspec.Struct, frozen=True):
    """What it costs to open something: *rounds* of a hash, *memory* of scrypt in bytes."""

    rounds: int = 0
    memory: int = 0

    def __add__(self, other: "_Cost") -> "_Cost":
        return _Cost(self.rounds + other.rounds, self.memory + other.memory)


_PKCS5: Final = bytes.fromhex("2a864886f70d0105")  # 1.2.840.113549.1.5, RFC 8018
_PKCS12_PBE: Final = bytes.fromhex("2a864886f70d010c01")  # 1.2.840.113549.1.12.1, RFC 7292 appendix C
_PBKDF2: Final = _PKCS5 + b"\x0c"
_PBES2: Final = _PKCS5 + b"\x0d"
_PBMAC1: Final = _PKCS5 + b"\x0e"  # RFC 9579
_SCRYPT: Final = bytes.fromhex("2b06010401da47040b")  # 1.3.6.1.4.1.11591.4.11, RFC 7914 section 7


def _cost(algorithm: Element, part: Part) -> _Cost:
    """Return the cost of an encryption's, or PBMAC1's, AlgorithmIdentifier (RFC 8018 appendix A; RFC 7292 appendix C).

    Raises: NotAKey for an unknown algorithm, whose cost is unknown too."""
    try:
        oid, parameters = algorithm.children
        values = parameters.children
        if oid.content in (_PBES2, _PBMAC1):
            return _cost(values[0], part)
        if oid.content == _SCRYPT:
            n, r, p = map(_positive, values[1:4])
            return _Cost(memory=128 * n * r * p)
        if (oid.content == _PBKDF2 or oid.content[:-1] == _PKCS12_PBE) and values[0].tag == OCTET_STRING:
            return _Cost(rounds=_positive(values[1]))
    except (ValueError, IndexError):
        pass
    raise _unknown_encryption(part)


# The algorithms with which cryptography decrypts a key, as object identifiers. For all others it raises the same error
# as for a wrong passphrase.
_PBES1_READ: Final = (_PKCS12_PBE + b"\x03", _PKCS12_PBE + b"\x06")  # 3DES; RC2 with 40 bits
_CIPHERS_READ: Final = (
    bytes.fromhex("2a864886f70d0307"),  # des-EDE3-CBC, RFC 8018 appendix B.2.2
    *(bytes.fromhex("6086480165030401") + mode for mode in (b"\x02", b"\x16", b"\x2a")),  # AES-128, 192, 256 in CBC
)
_PRFS_READ: Final = tuple(bytes.fromhex("2a864886f70d02") + bytes([arc]) for arc in range(7, 12))  # HMAC, SHA-1 to -512


def _check_readable(algorithm: Element, part: Part) -> None:
    """Refuse *algorithm* where no passphrase could open a key encrypted with it. Raises: NotAKey."""
    try:
        oid, parameters = algorithm.children
        if oid.content in _PBES1_READ:
            return
        derivation, cipher = parameters.children
        kind, values = derivation.children
        prfs = [value.children[0].content for value in values.children if value.tag == SEQUENCE]
        is_known = oid.content == _PBES2 and kind.content in (_PBKDF2, _SCRYPT)
        if is_known and cipher.children[0].content in _CIPHERS_READ and all(prf in _PRFS_READ for prf in prfs):
            return
    except (ValueError, IndexError):
        pass
    raise _unknown_encryption(part)


def _positive(number: Element) -> int:
    value = int.from_bytes(number.content, signed=True)
    if number.tag != INTEGER or value < 1:
        raise ValueError("not a positive INTEGER")
    return value


def _check_cost(cost: _Cost, part: Part) -> None:
    if cost.rounds > ROUNDS_MAX:
        raise KdfTooCostly(part=part, found=f"{_format_number(cost.rounds)} rounds", limit=f"{ROUNDS_MAX:,}")
    if cost.memory > SCRYPT_MAX:
        memory = f"{_format_number(-(-cost.memory // 2**20))} MiB of memory"
        raise KdfTooCostly(part=part, found=memory, limit=f"{SCRYPT_MAX // 2**20} MiB")


def _format_number(number: int) -> str:
    return f"{number:,}" if number < 10**18 else "more than 10^18"


def _unknown_encryption(part: Part) -> NotAKey:
    return NotAKey(
        part=part,
        found="The key is encrypted in a way that is not read here",
        hint=f"Encrypt it another way: {_ENCRYPTED_ANOTHER_WAY}",
    )


# ------------------------------------------------------------------------------------------ PKCS#12 (RFC 7292)

_DATA: Final = bytes.fromhex("2a864886f70d010701")  # 1.2.840.113549.1.7.1, RFC 5652 section 4
_ENCRYPTED_DATA: Final = bytes.fromhex("2a864886f70d010706")  # 1.2.840.113549.1.7.6, RFC 5652 section 8
_BAG: Final = bytes.fromhex("2a864886f70d010c0a01")  # 1.2.840.113549.1.12.10.1, RFC 7292 section 4.2
_KEY_BAG: Final = _BAG + b"\x01"
_SHROUDED_KEY_BAG: Final = _BAG + b"\x02"
_SHA256: Final = bytes.fromhex("608648016503040201")  # 2.16.840.1.101.3.4.2.1


class _Pkcs12:
    """A PKCS#12 file: its structure and its cost are read, its contents are not opened."""

    def __init__(self, data: bytes, part: Part) -> None:
        """Raises: NotAKey, KdfTooCostly."""
        self._part = part
        self._safes: list[Element] = []  # ContentInfo each
        self._plain: list[Element] = []  # PrivateKeyInfo
        self._shrouded: list[Element] = []  # EncryptedPrivateKeyInfo
        self._encrypted_safes = 0
        cost = _Cost()
        try:
            # PFX ::= SEQUENCE { version, authSafe ContentInfo, macData OPTIONAL } (section 4)
            _, outer, *mac = elements(data)[0].children
            kind, content = outer.children
            if kind.content != _DATA:
                raise self._unreadable()  # pkcs7-signedData: integrity by public key, which no tool uses
            [safes] = elements(_octets(content))
            for safe in safes.children:
                cost += self._read_safe(safe)
                self._safes.append(safe)
            self._has_mac = bool(mac)
            for mac_data in mac:
                cost += self._mac_cost(mac_data)
            for key in self._shrouded:
                cost += _cost(key.children[0], part)
        except (ValueError, IndexError):
            raise self._unreadable() from None
        _check_cost(cost, part)

    def _read_safe(self, safe: Element) -> _Cost:
        """Find the keys in one ContentInfo of the AuthenticatedSafe (section 4.1). Return its own cost."""
        kind, content = safe.children
        if kind.content == _ENCRYPTED_DATA:
            # EncryptedData ::= SEQUENCE { version, EncryptedContentInfo { type, algorithm, [0] content } }
            [encrypted] = content.children
            _, algorithm, _ = encrypted.children[1].children
            self._encrypted_safes += 1
            return _cost(algorithm, self._part)
        if kind.content != _DATA:
            raise self._unreadable()  # pkcs7-envelopedData: privacy by public key
        [bags] = elements(_octets(content))
        for bag in bags.children:
            bag_kind, value = bag.children[:2]
            if bag_kind.content == _KEY_BAG:
                self._plain += value.children
            elif bag_kind.content == _SHROUDED_KEY_BAG:
                self._shrouded += value.children
        return _Cost()

    def _mac_cost(self, mac_data: Element) -> _Cost:
        """Return the cost of MacData, which is not paid here but counts as part of what the file asks for.

        MacData ::= SEQUENCE { DigestInfo { algorithm, digest }, macSalt, iterations DEFAULT 1 } (section 4)."""
        digest_info, _, *iterations = mac_data.children
        algorithm = digest_info.children[0]
        if algorithm.children[0].content == _PBMAC1:
            return _cost(algorithm, self._part)
        return _Cost(rounds=sum(map(_positive, iterations)))

    def _unreadable(self) -> NotAKey:
        return NotAKey(
            part=self._part,
            found="This PKCS#12 file cannot be read",
            hint="Export it again: openssl pkcs12 -export",
        )

    def key(self, passphrase: str | None) -> PrivateKey:
        """Raises: as load_private_key."""
        if passphrase and not (self._shrouded or self._encrypted_safes or self._has_mac):
            raise PassphraseUnneeded(part="passphrase")
        match self._plain, self._shrouded:
            case [plain], []:
                return _open_plain(plain.whole, self._part)
            case [], [shrouded]:
                if content_of(shrouded.whole) is not Content.ENCRYPTED_KEY:
                    raise self._unreadable()
                # cryptography takes no empty passphrase here. One NUL derives the same keys: HMAC pads its key with
                # NULs (RFC 2104, section 2), and RFC 7292 B.2 repeats the passphrase, NUL-ended, over a whole block.
                secret = _secret(passphrase) if passphrase else b"\0"
                try:
                    return _open_encrypted(shrouded.whole, secret, self._part)
                except PassphraseWrong:
                    raise self._refusal(passphrase) from None
            case [], []:
                raise NotAKey(
                    part=self._part,
                    found="No private key found in the open part of this PKCS#12 file",
                    hint="Export it again with its key: openssl pkcs12 -export",
                )
            case _:
                raise NotAKey(
                    part=self._part,
                    found=f"{len(self._plain) + len(self._shrouded)} private keys are in this PKCS#12 file",
                    hint="Export the server's alone.",
                )

    def certificates(self, passphrase: str | None) -> list[Certificate]:
        """Return all certificates in the file.

        Raises: PassphraseRequired, PassphraseWrong, NotACertificate, ChainTooLong, WeakKey."""
        secret = _secret(passphrase) if passphrase else b""
        try:
            _, own, others = pkcs12.load_key_and_certificates(self._behind_a_throwaway_key(secret), secret)
            certificates = [*([own] if own else []), *others]
        except Exception:  # noqa: BLE001 -- the library's message is not for users
            if self._encrypted_safes:
                raise self._refusal(passphrase) from None
            raise NotACertificate(
                part=self._part,
                found="The certificates in this PKCS#12 file cannot be read",
                hint="Export it again: openssl pkcs12 -export",
            ) from None
        if not certificates:
            raise NotACertificate(part=self._part, found="No certificate found in this PKCS#12 file")
        if len(certificates) > CERTIFICATES_MAX:
            raise ChainTooLong(part=self._part, n=len(certificates), limit=CERTIFICATES_MAX)
        return [read_certificate(cert.public_bytes(Encoding.DER), part=self._part) for cert in certificates]

    def _refusal(self, passphrase: str | None) -> PassphraseWrong | PassphraseRequired:
        return PassphraseWrong(part="passphrase") if passphrase else PassphraseRequired(part="passphrase")

    def _behind_a_throwaway_key(self, secret: bytes) -> bytes:
        """Return a PKCS#12 file of the same parts, with a plain key before them."""
        own = ed25519.Ed25519PrivateKey.generate()
        plain = own.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        bag = encode(SEQUENCE, encode(OID, _KEY_BAG), encode(CONTEXT_0, plain))
        safes = encode(SEQUENCE, _data(encode(SEQUENCE, bag)), *(safe.whole for safe in self._safes))
        # Without MacData OpenSSL reads an empty passphrase as no passphrase, which derives other keys in the older
        # schemes (RFC 7292, B.1).
        mac = b"" if secret else _mac_of_empty_passphrase(safes)
        return encode(SEQUENCE, encode(INTEGER, b"\3"), _data(safes), mac)


def _octets(explicit: Element) -> bytes:
    """Return the octets of `[0] EXPLICIT OCTET STRING`, in its only DER form (X.690, 10.2). Raises: ValueError."""
    [octets] = explicit.children
    if octets.tag != OCTET_STRING:
        raise ValueError("not an OCTET STRING")
    return octets.content


def _data(content: bytes) -> bytes:
    """Return *content* as ContentInfo of type data (RFC 5652, section 4)."""
    return encode(SEQUENCE, encode(OID, _DATA), encode(CONTEXT_0, encode(OCTET_STRING, content)))


def _mac_of_empty_passphrase(content: bytes) -> bytes:
    """Return MacData for the empty passphrase: HMAC-SHA-256, one iteration (RFC 7292, section 4 and appendix B.2).

    The key is SHA-256 of the diversifier 3, the salt and the passphrase with its two NULs, each repeated to 64 bytes.
    """
    salt = b"no salt."
    key = hashlib.sha256(b"\3" * 64 + salt * 8 + bytes(64)).digest()
    algorithm = encode(SEQUENCE, encode(OID, _SHA256), b"\5\0")
    digest = encode(OCTET_STRING, hmac.digest(key, content, "sha256"))
    return encode(SEQUENCE, encode(SEQUENCE, algorithm, digest), encode(OCTET_STRING, salt))
