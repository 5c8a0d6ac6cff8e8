"""Private key files: PKCS#8, PKCS#1, SEC1, traditional PEM encryption, PKCS#12 -> a private key.

What a file costs to open is read from its ASN.1 before anything is decrypted; what can only be seen after decryption
is never paid for:

* An encrypted key (PKCS#8) holds a plain key, never another encrypted one, so its own parameters are all there is.
* A PKCS#12 file can hide encrypted keys in its encrypted parts. The key is therefore taken from the open part only,
  where every usual writer puts it (openssl, Java, Windows, NSS), and opened by itself. For the certificates the parts
  are put into a new PKCS#12 file behind a throwaway key: OpenSSL opens the first key it meets and no other, so it pays
  for the parts, whose price is visible, and for nothing inside them.
* Opened keys are bounded by size, and RSA numbers are looked at before OpenSSL tests them for being prime, which
  takes minutes for large ones.

The integrity code of a PKCS#12 file (MacData) is not checked: it proves that the writer knew the passphrase, which
opening the file shows too, and the key is compared with the certificate anyway.

Nothing raised here carries key, passphrase, or a word of the library's about them.
"""

import base64
import hashlib
import hmac
from typing import Final

import msgspec
from cryptography import x509
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
from shared.x509 import pem
from shared.x509.encoding import public_key_info
from shared.x509.pem import OCTET_STRING, OID, SEQUENCE, Block, Content, Element, elements

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

ROUNDS_MAX: Final = 1_000_000  # iterations of all key derivations in one file: under a second
SCRYPT_MAX: Final = 32 * 1024 * 1024  # bytes, 128·N·r·p of all scrypt in one file: RFC 7914, section 2
KEY_FILE_MAX: Final = 64 * 1024  # bytes
PKCS12_MAX: Final = 256 * 1024  # bytes
# An RSA-4096 key has 2,400 bytes, encrypted 2,500. Keys of other kinds, which are read before they are refused, take
# time that grows with the cube of their size: a DSA key of this size half a second, one of 5 KiB five.
KEY_MAX: Final = 2560  # bytes
RSA_MAX: Final = 4096  # bits
CERTIFICATES_MAX: Final = 20
PASSPHRASE_MAX: Final = 1024  # characters

_ENCRYPTED_ANOTHER_WAY: Final = "openssl pkcs8 -topk8 -v2 aes-256-cbc"


# ------------------------------------------------------------------------------------------------------- files


def load_private_key(
    data: bytes, passphrase: str | None, *, limit: int = KEY_FILE_MAX, field: str = "privateKey"
) -> PrivateKey:
    """The one private key in *data*, a file of up to *limit* bytes: PEM with anything around it, DER or PKCS#12.

    An empty passphrase is none.

    Raises: TooLarge, NotAKey, PassphraseRequired, PassphraseWrong, PassphraseUnneeded (their field is `passphrase`),
    KdfTooCostly, KeyUnsupported (neither RSA up to 4096 bits nor elliptic curve)."""
    pem.check_size(data, limit, field=field, hint="Save the key alone.")
    if looks_like_pkcs12(data):
        return _Pkcs12(data, field).key(passphrase or None)
    if not pem.is_pem(data):
        return _open_der(data, passphrase or None, field)
    found = [block for block in pem.blocks(data) if block.is_private_key]
    if not found:
        raise NotAKey(field=field)
    if len(found) > 1:
        raise NotAKey(field=field, found=f"{len(found)} private keys are in the file", hint="Save the one alone.")
    return _open_block(found[0], passphrase or None, field)


def holds_private_key(data: bytes) -> bool:
    """Whether a private key is in *data*, encrypted or not, PKCS#12 aside."""
    if pem.is_pem(data):
        return any(block.is_private_key for block in pem.blocks(data))
    return pem.content_of(data) in (Content.KEY, Content.ENCRYPTED_KEY)


def looks_like_pkcs12(data: bytes) -> bool:
    """Whether *data* has the outer shape of a PKCS#12 file (PFX version 3, RFC 7292 section 4), which is always DER."""
    return pem.content_of(data) is Content.PKCS12


def load_pkcs12(
    data: bytes, passphrase: str | None, *, field: str = "certificate"
) -> tuple[PrivateKey, x509.Certificate, list[x509.Certificate]]:
    """The private key of a PKCS#12 file, the certificate of that key, and the other certificates in it.

    Without a passphrase the empty one is tried, with which some context export.

    Raises: as load_private_key; NotACertificate, ChainTooLong, WeakKey, KeyMismatch where no certificate in the file is
    the key's."""
    pem.check_size(data, PKCS12_MAX, field=field, hint="Save the key, its certificate and chain alone.")
    file = _Pkcs12(data, field)
    key = file.key(passphrase or None)
    certificates = file.certificates(passphrase or None)
    own = public_bytes(key)
    leaf = next((one for one in certificates if public_bytes(one) == own), None)
    if leaf is None:
        raise KeyMismatch(field=field)
    return key, leaf, [one for one in certificates if one is not leaf]


def public_bytes(of: PrivateKey | x509.Certificate) -> bytes:
    """The SubjectPublicKeyInfo (RFC 5280, 4.1.2.7) of a private key or certificate: equal where the key is the same."""
    return public_key_info(of.public_key())


# ----------------------------------------------------------------------------------------------- keys in PEM, DER


def _open_block(block: Block, passphrase: str | None, field: str) -> PrivateKey:
    if not block.der:
        raise NotAKey(field=field, found="The private key is cut off or damaged", hint="Copy it again, whole.")
    if "Proc-Type" in block.headers:
        return _open_traditional(block, passphrase, field)
    return _open_der(block.der, passphrase, field)


# OpenSSL's traditional encryption (RFC 1421, 4.6.1): cipher -> bytes of its initialization vector. The key is derived
# with one round of MD5, so it costs nothing.
_TRADITIONAL_CIPHERS: Final = {"AES-128-CBC": 16, "AES-256-CBC": 16, "DES-EDE3-CBC": 8}
_TRADITIONAL_LABELS: Final = ("RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY")


def _open_traditional(block: Block, passphrase: str | None, field: str) -> PrivateKey:
    cipher, _, vector = block.headers.get("DEK-Info", "").partition(",")
    try:
        fits = len(bytes.fromhex(vector)) == _TRADITIONAL_CIPHERS[cipher]
    except (KeyError, ValueError):
        fits = False
    if not fits or block.label not in _TRADITIONAL_LABELS:
        raise _unknown_encryption(field)
    _check_key_size(block.der, field)
    text = (
        f"-----BEGIN {block.label}-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: {cipher},{vector.strip()}\n\n"
        f"{base64.encodebytes(block.der).decode()}-----END {block.label}-----\n"
    )
    secret = _secret(passphrase)
    try:
        key = load_pem_private_key(text.encode(), secret, unsafe_skip_rsa_key_validation=True)
    except UnsupportedAlgorithm:
        raise _unknown_encryption(field) from None
    except Exception:  # noqa: BLE001 - a wrong passphrase decrypts to noise, about which a parser may say anything
        raise PassphraseWrong(field="passphrase") from None
    return _checked(key, field)


def _open_der(data: bytes, passphrase: str | None, field: str) -> PrivateKey:
    der = data if pem.content_of(data) is not Content.OTHER else data.rstrip()
    match pem.content_of(der):
        case Content.ENCRYPTED_KEY:
            algorithm = elements(der)[0].children[0]
            _check_cost(_cost(algorithm, field), field)
            return _open_encrypted(der, _secret(passphrase), field)
        case Content.KEY:
            if passphrase:
                raise PassphraseUnneeded(field="passphrase")
            return _open_plain(der, field)
        case _:
            raise NotAKey(field=field)


def _secret(passphrase: str | None) -> bytes:
    if passphrase is None:
        raise PassphraseRequired(field="passphrase")
    # No tool can encrypt with such a passphrase. A NUL would also end it early in C.
    if "\0" in passphrase or len(passphrase) > PASSPHRASE_MAX:
        raise PassphraseWrong(field="passphrase")
    return passphrase.encode("utf-8", "surrogatepass")


def _open_encrypted(der: bytes, secret: bytes, field: str) -> PrivateKey:
    """An EncryptedPrivateKeyInfo (RFC 5958, section 3), whose cost has been checked."""
    _check_key_size(der, field)
    _check_readable(elements(der)[0].children[0], field)
    try:
        key = load_der_private_key(der, secret, unsafe_skip_rsa_key_validation=True)
    except UnsupportedAlgorithm:
        raise _unknown_encryption(field) from None
    except Exception:  # noqa: BLE001 - as above
        raise PassphraseWrong(field="passphrase") from None
    return _checked(key, field)


def _open_plain(der: bytes, field: str) -> PrivateKey:
    _check_key_size(der, field)
    try:
        key = load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
    except UnsupportedAlgorithm:
        raise KeyUnsupported(field=field, key="A key of this kind or curve") from None
    except Exception:  # noqa: BLE001 - the library's words could quote the key
        raise NotAKey(field=field, found="The private key cannot be read", hint="Export it again.") from None
    return _checked(key, field)


def _check_key_size(der: bytes, field: str) -> None:
    if len(der) > KEY_MAX:
        raise KeyUnsupported(field=field, key=f"A key of {len(der):,} bytes")


def _checked(key: object, field: str) -> PrivateKey:
    """*key*, whose numbers nobody has looked at yet, once they fit together."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key
    if not isinstance(key, rsa.RSAPrivateKey):
        raise KeyUnsupported(field=field, key=type(key).__name__.removesuffix("PrivateKey"))
    if key.key_size > RSA_MAX:
        raise KeyUnsupported(field=field, key=f"RSA {key.key_size}")
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
    except Exception:  # noqa: BLE001, S110 - said below, without the library's words
        pass
    raise NotAKey(field=field, found="The numbers of this RSA key do not fit together", hint="Make a new key.")


# ------------------------------------------------------------------------------------------------------- costs


class _Cost(msgspec.Struct, frozen=True):
    """What opening something takes: *rounds* of a hash, *memory* of scrypt in bytes."""

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


def _cost(algorithm: Element, field: str) -> _Cost:
    """The cost of an encryption's, or PBMAC1's, AlgorithmIdentifier (RFC 8018 appendix A; RFC 7292 appendix C).

    Raises: NotAKey where it is of a kind not known here: then its cost is not known either."""
    try:
        oid, parameters = algorithm.children
        values = parameters.children
        if oid.content in (_PBES2, _PBMAC1):
            return _cost(values[0], field)
        if oid.content == _SCRYPT:
            n, r, p = (_positive(one) for one in values[1:4])
            return _Cost(memory=128 * n * r * p)
        if (oid.content == _PBKDF2 or oid.content[:-1] == _PKCS12_PBE) and values[0].tag == OCTET_STRING:
            return _Cost(rounds=_positive(values[1]))
    except (ValueError, IndexError):
        pass
    raise _unknown_encryption(field)


# What cryptography decrypts a key with, as object identifiers. It has one error for all else and a wrong passphrase.
_PBES1_READ: Final = (_PKCS12_PBE + b"\x03", _PKCS12_PBE + b"\x06")  # 3DES; RC2 with 40 bits
_CIPHERS_READ: Final = (
    bytes.fromhex("2a864886f70d0307"),  # des-EDE3-CBC, RFC 8018 appendix B.2.2
    *(bytes.fromhex("6086480165030401") + one for one in (b"\x02", b"\x16", b"\x2a")),  # AES-128, 192, 256 in CBC
)
_PRFS_READ: Final = tuple(bytes.fromhex("2a864886f70d02") + bytes([one]) for one in range(7, 12))  # HMAC, SHA-1 to -512


def _check_readable(algorithm: Element, field: str) -> None:
    """Raises: NotAKey where a key encrypted with *algorithm* cannot be opened here whatever the passphrase."""
    try:
        oid, parameters = algorithm.children
        if oid.content in _PBES1_READ:
            return
        derivation, cipher = parameters.children
        kind, values = derivation.children
        prfs = [one.children[0].content for one in values.children if one.tag == SEQUENCE]
        known = oid.content == _PBES2 and kind.content in (_PBKDF2, _SCRYPT)
        if known and cipher.children[0].content in _CIPHERS_READ and all(prf in _PRFS_READ for prf in prfs):
            return
    except (ValueError, IndexError):
        pass
    raise _unknown_encryption(field)


def _positive(number: Element) -> int:
    value = int.from_bytes(number.content, signed=True)
    if number.tag != pem.INTEGER or value < 1:
        raise ValueError("not a positive INTEGER")
    return value


def _check_cost(cost: _Cost, field: str) -> None:
    if cost.rounds > ROUNDS_MAX:
        shown = f"{cost.rounds:,}" if cost.rounds < 10**18 else "more than 10^18"
        raise KdfTooCostly(field=field, found=f"{shown} rounds", limit=f"{ROUNDS_MAX:,}")
    if cost.memory > SCRYPT_MAX:
        mebibytes = -(-cost.memory // 2**20)
        shown = f"{mebibytes:,}" if mebibytes < 10**18 else "more than 10^18"
        raise KdfTooCostly(field=field, found=f"{shown} MiB of memory", limit=f"{SCRYPT_MAX // 2**20} MiB")


def _unknown_encryption(field: str) -> NotAKey:
    return NotAKey(
        field=field,
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
    """A PKCS#12 file, taken apart and priced, not opened."""

    def __init__(self, data: bytes, field: str) -> None:
        """Raises: NotAKey, KdfTooCostly."""
        self._field = field
        self._parts: list[Element] = []  # ContentInfo each
        self._plain: list[Element] = []  # PrivateKeyInfo
        self._shrouded: list[Element] = []  # EncryptedPrivateKeyInfo
        self._encrypted_parts = 0
        cost = _Cost()
        try:
            # PFX ::= SEQUENCE { version, authSafe ContentInfo, macData OPTIONAL } (section 4)
            _, outer, *mac = elements(data)[0].children
            kind, content = outer.children
            if kind.content != _DATA:
                raise self._unreadable()  # pkcs7-signedData: integrity by public key, which nobody uses
            [safes] = elements(_octets(content))
            for part in safes.children:
                cost += self._take_apart(part)
                self._parts.append(part)
            self._has_mac = bool(mac)
            for mac_data in mac:
                cost += self._mac_cost(mac_data)
            for one in self._shrouded:
                cost += _cost(one.children[0], field)
        except (ValueError, IndexError):
            raise self._unreadable() from None
        _check_cost(cost, field)

    def _take_apart(self, part: Element) -> _Cost:
        """Finds the keys in one ContentInfo of the AuthenticatedSafe (section 4.1); its own cost is the answer."""
        kind, content = part.children
        if kind.content == _ENCRYPTED_DATA:
            # EncryptedData ::= SEQUENCE { version, EncryptedContentInfo { type, algorithm, [0] content } }
            [encrypted] = content.children
            _, algorithm, _ = encrypted.children[1].children
            self._encrypted_parts += 1
            return _cost(algorithm, self._field)
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
        """MacData ::= SEQUENCE { DigestInfo { algorithm, digest }, macSalt, iterations DEFAULT 1 } (section 4).

        Not paid for here, but by whoever opens the file elsewhere; it counts as part of what the file asks for."""
        digest_info, _, *iterations = mac_data.children
        algorithm = digest_info.children[0]
        if algorithm.children[0].content == _PBMAC1:
            return _cost(algorithm, self._field)
        return _Cost(rounds=sum(map(_positive, iterations)))

    def _unreadable(self) -> NotAKey:
        return NotAKey(
            field=self._field,
            found="This PKCS#12 file cannot be read",
            hint="Export it again: openssl pkcs12 -export",
        )

    def key(self, passphrase: str | None) -> PrivateKey:
        """Raises: as load_private_key."""
        if passphrase and not (self._shrouded or self._encrypted_parts or self._has_mac):
            raise PassphraseUnneeded(field="passphrase")
        match self._plain, self._shrouded:
            case [one], []:
                return _open_plain(one.whole, self._field)
            case [], [one]:
                if pem.content_of(one.whole) is not Content.ENCRYPTED_KEY:
                    raise self._unreadable()
                # cryptography takes no empty passphrase here. One NUL derives the same keys: HMAC pads its key with
                # NULs (RFC 2104, section 2), and RFC 7292 B.2 repeats the passphrase, NUL-ended, over a whole block.
                secret = _secret(passphrase) if passphrase else b"\0"
                try:
                    return _open_encrypted(one.whole, secret, self._field)
                except PassphraseWrong:
                    raise self._refusal(passphrase) from None
            case [], []:
                raise NotAKey(
                    field=self._field,
                    found="No private key found in the open part of this PKCS#12 file",
                    hint="Export it again with its key: openssl pkcs12 -export",
                )
            case _:
                raise NotAKey(
                    field=self._field,
                    found=f"{len(self._plain) + len(self._shrouded)} private keys are in this PKCS#12 file",
                    hint="Export the server's alone.",
                )

    def certificates(self, passphrase: str | None) -> list[x509.Certificate]:
        """All certificates in the file.

        Raises: PassphraseRequired, PassphraseWrong, NotACertificate, ChainTooLong, WeakKey."""
        secret = _secret(passphrase) if passphrase else b""
        try:
            _, own, others = pkcs12.load_key_and_certificates(self._behind_a_throwaway_key(secret), secret)
            found = [*([own] if own else []), *others]
        except Exception:  # noqa: BLE001 - the library's words are not the user's
            if self._encrypted_parts:
                raise self._refusal(passphrase) from None
            raise NotACertificate(
                field=self._field,
                found="The certificates in this PKCS#12 file cannot be read",
                hint="Export it again: openssl pkcs12 -export",
            ) from None
        if not found:
            raise NotACertificate(field=self._field, found="No certificate found in this PKCS#12 file")
        if len(found) > CERTIFICATES_MAX:
            raise ChainTooLong(field=self._field, n=len(found), limit=CERTIFICATES_MAX)
        return [pem.parse(one.public_bytes(Encoding.DER), field=self._field) for one in found]

    def _refusal(self, passphrase: str | None) -> PassphraseWrong | PassphraseRequired:
        return PassphraseWrong(field="passphrase") if passphrase else PassphraseRequired(field="passphrase")

    def _behind_a_throwaway_key(self, secret: bytes) -> bytes:
        """A PKCS#12 file of the same parts, with a plain key before them."""
        own = ed25519.Ed25519PrivateKey.generate()
        plain = own.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        bag = _tlv(SEQUENCE, _tlv(OID, _KEY_BAG), _tlv(pem.CONTEXT_0, plain))
        safes = _tlv(SEQUENCE, _data(_tlv(SEQUENCE, bag)), *(part.whole for part in self._parts))
        # Without MacData OpenSSL takes an empty passphrase for none at all, which derives other keys in the older
        # schemes (RFC 7292, B.1).
        mac = b"" if secret else _mac_of_empty_passphrase(safes)
        return _tlv(SEQUENCE, _tlv(pem.INTEGER, b"\3"), _data(safes), mac)


def _octets(explicit: Element) -> bytes:
    """The bytes of `[0] EXPLICIT OCTET STRING`, in its one DER form (X.690, 10.2)."""
    [octets] = explicit.children
    if octets.tag != OCTET_STRING:
        raise ValueError("not an OCTET STRING")
    return octets.content


def _data(content: bytes) -> bytes:
    """*content* as ContentInfo of type data (RFC 5652, section 4)."""
    return _tlv(SEQUENCE, _tlv(OID, _DATA), _tlv(pem.CONTEXT_0, _tlv(OCTET_STRING, content)))


def _mac_of_empty_passphrase(content: bytes) -> bytes:
    """MacData for the empty passphrase: HMAC-SHA-256, one iteration (RFC 7292, section 4 and appendix B.2).

    The key is SHA-256 of the diversifier 3, the salt and the passphrase with its two NULs, each repeated to 64 bytes.
    """
    salt = b"no salt."
    key = hashlib.sha256(b"\3" * 64 + salt * 8 + bytes(64)).digest()
    algorithm = _tlv(SEQUENCE, _tlv(OID, _SHA256), b"\5\0")
    digest = _tlv(OCTET_STRING, hmac.digest(key, content, "sha256"))
    return _tlv(SEQUENCE, _tlv(SEQUENCE, algorithm, digest), _tlv(OCTET_STRING, salt))


def _tlv(tag: int, *contents: bytes) -> bytes:
    """One DER element."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(octets)]) + octets + content
