"""PKCS#12 files (RFC 7292) -> a private key and certificates.

A file can hide encrypted keys in its encrypted parts, and their cost with them. The key is therefore taken from the
open part only, where every usual writer puts it (openssl, Java, Windows, NSS), and opened by itself. For the
certificates, the parts are put into a new PKCS#12 file behind a throwaway key: OpenSSL opens the first key it meets and
no other, so it pays for the parts, whose cost is visible, and for nothing inside them.

The integrity code of a file (MacData) is not checked: it proves that the writer knew the passphrase, which opening the
file shows too, and the key is compared with the certificate anyway. Its rounds are not computed, so they cost nothing.

No error raised here carries the key, the passphrase, or a message of the library about them.
"""

import hashlib
import hmac
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12

from shared.errors import (
    ChainTooLong,
    KeyMismatch,
    NotACertificate,
    NotAKey,
    PassphraseRequired,
    PassphraseUnneeded,
    PassphraseWrong,
)
from shared.x509.ber import to_der
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
from shared.x509.der import CONTEXT_0, INTEGER, OCTET_STRING, OID, SEQUENCE, Element, NotDER, elements, encode
from shared.x509.key_costs import OpeningCost, check_cost, cost_of
from shared.x509.private_keys import PrivateKey, encode_passphrase, open_encrypted, open_plain
from shared.x509.public_keys import public_key_info

_DATA: Final = bytes.fromhex("2a864886f70d010701")  # 1.2.840.113549.1.7.1, RFC 5652 section 4
_ENCRYPTED_DATA: Final = bytes.fromhex("2a864886f70d010706")  # 1.2.840.113549.1.7.6, RFC 5652 section 8
_BAG: Final = bytes.fromhex("2a864886f70d010c0a01")  # 1.2.840.113549.1.12.10.1, RFC 7292 section 4.2
_KEY_BAG: Final = _BAG + b"\x01"
_SHROUDED_KEY_BAG: Final = _BAG + b"\x02"
_SHA256: Final = bytes.fromhex("608648016503040201")  # 2.16.840.1.101.3.4.2.1

# The key in new-file.pem is encrypted, with few rounds: no open key is left behind.
_CHEAPER_FILE: Final = "openssl pkcs12 -in file.p12 -aes256 -out new-file.pem"


def looks_like_pkcs12(data: bytes) -> bool:
    """Whether *data* has the outer shape of a PKCS#12 file (PFX version 3, RFC 7292 section 4), in DER or BER."""
    if content_of(data) is Content.PKCS12:
        return True
    try:
        return data[:1] == bytes([SEQUENCE]) and content_of(to_der(data)) is Content.PKCS12
    except NotDER:
        return False


def load_pkcs12(
    data: bytes, passphrase: str | None, *, part: Part = "certificate"
) -> tuple[PrivateKey, Certificate, list[Certificate]]:
    """Return the private key of a PKCS#12 file, the certificate of that key, and the other certificates in the file.

    Without a passphrase the empty one is tried, with which some tools export.

    Raises: as load_private_key; NotACertificate, ChainTooLong, WeakKey, KeyMismatch where no certificate in the file is
    the key's."""
    check_size(data, BUNDLE_MAX, part=part, hint="Save the key, its certificate and chain alone.")
    file = Pkcs12(data, part)
    key = file.key(passphrase or None)
    certificates = file.certificates(passphrase or None)
    own = public_key_info(key.public_key())
    leaf = next((cert for cert in certificates if cert.public_key_info == own), None)
    if leaf is None:
        raise KeyMismatch(part=part)
    return key, leaf, [cert for cert in certificates if cert is not leaf]


class Pkcs12:
    """A PKCS#12 file: its structure and its cost are read, its contents are not opened."""

    def __init__(self, data: bytes, part: Part) -> None:
        """Read the structure of *data*. Raises: NotAKey, KdfTooCostly."""
        self._part = part
        self._safes: list[Element] = []  # ContentInfo each
        self._plain: list[Element] = []  # PrivateKeyInfo
        self._shrouded: list[Element] = []  # EncryptedPrivateKeyInfo
        self._encrypted_safes = 0
        cost = OpeningCost()
        try:
            # PFX ::= SEQUENCE { version, authSafe ContentInfo, macData OPTIONAL } (section 4)
            _, outer, *mac = elements(to_der(data))[0].children
            kind, content = outer.children
            if kind.content != _DATA:
                raise self._unreadable()  # pkcs7-signedData: integrity by public key, which no tool uses
            [safes] = elements(_octets(content))
            for safe in safes.children:
                cost += self._read_safe(safe)
                self._safes.append(safe)
            self._has_mac = bool(mac)
            for key in self._shrouded:
                cost += cost_of(key.children[0], part)
        except (ValueError, IndexError):
            raise self._unreadable() from None
        check_cost(cost, part, _CHEAPER_FILE)

    def _read_safe(self, safe: Element) -> OpeningCost:
        """Find the keys in one ContentInfo of the AuthenticatedSafe (section 4.1). Return its own cost."""
        kind, content = safe.children
        if kind.content == _ENCRYPTED_DATA:
            # EncryptedData ::= SEQUENCE { version, EncryptedContentInfo { type, algorithm, [0] content } }
            [encrypted] = content.children
            _, algorithm, _ = encrypted.children[1].children
            self._encrypted_safes += 1
            return cost_of(algorithm, self._part)
        if kind.content != _DATA:
            raise self._unreadable()  # pkcs7-envelopedData: privacy by public key
        [bags] = elements(_octets(content))
        for bag in bags.children:
            bag_kind, value = bag.children[:2]
            if bag_kind.content == _KEY_BAG:
                self._plain += value.children
            elif bag_kind.content == _SHROUDED_KEY_BAG:
                self._shrouded += value.children
        return OpeningCost()

    def _unreadable(self) -> NotAKey:
        return NotAKey(
            part=self._part,
            found="This PKCS#12 file cannot be read",
            hint="Export it again: openssl pkcs12 -export",
        )

    def key(self, passphrase: str | None) -> PrivateKey:
        """Return the private key in the file. Raises: as `load_private_key`."""
        if passphrase and not (self._shrouded or self._encrypted_safes or self._has_mac):
            raise PassphraseUnneeded(part="passphrase")
        match self._plain, self._shrouded:
            case [plain], []:
                return open_plain(plain.whole, self._part)
            case [], [shrouded]:
                if content_of(shrouded.whole) is not Content.ENCRYPTED_KEY:
                    raise self._unreadable()
                # cryptography takes no empty passphrase here. One NUL derives the same keys: HMAC pads its key with
                # NULs (RFC 2104, section 2), and RFC 7292 B.2 repeats the passphrase, NUL-ended, over a whole block.
                secret = encode_passphrase(passphrase) if passphrase else b"\0"
                try:
                    return open_encrypted(shrouded.whole, secret, self._part)
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
        secret = encode_passphrase(passphrase) if passphrase else b""
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
    """Return the element in `[0] EXPLICIT OCTET STRING`, in DER. Raises: ValueError."""
    [octets] = explicit.children
    if octets.tag != OCTET_STRING:
        raise ValueError("not an OCTET STRING")
    return to_der(octets.content)


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
