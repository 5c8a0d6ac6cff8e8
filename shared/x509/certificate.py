"""A certificate (RFC 5280): the model for certificates of clients, of servers, and of registered CAs.

A `Certificate` is read here and nowhere else, field by field, when it is made. Its attributes never raise, and it does
not change. What a certificate may look like (docs/decisions/0129):

* Outside of tbsCertificate, which alone is signed, there is one way to write each certificate: shortest lengths,
  nothing behind the end, whole octets in the signature, the algorithm octet for octet as inside. So the
  fingerprint of a certificate cannot be changed without the issuer's key, but for the second form of an ECDSA signature
  (`fingerprints`).
* Inside of tbsCertificate, what the issuer signed is read as OpenSSL reads it, as far as a rule needs it. Extensions
  that no rule asks for are not decoded.
"""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple, TypeVar

from shared.errors import CertificateExpired, CertificateMalformed, CertificateNotYetValid
from shared.text import format_age, format_time
from shared.x509 import der, extensions, pem, plain, public_keys, strength
from shared.x509.algorithms import read_algorithm
from shared.x509.der import NotDER
from shared.x509.distinguished_name import DistinguishedName, read_issuer
from shared.x509.fingerprints import find_twin, fingerprint_of
from shared.x509.once import once

EXTENSIONS_MAX: Final = 128
DIGEST_DIGITS: Final = 12  # hexadecimal digits of a digest for TLS edges

_SIGNERS_MAX: Final = 8  # keys known to have signed one certificate: one, or a few where CAs share a name
_VERSION: Final = der.CONTEXT_0
_UNIQUE_IDS: Final = (0x81, 0x82)  # [1] and [2], implicit BIT STRING
_EXTENSIONS: Final = 0xA3  # [3]
_SHORT: Final = 128  # octets of an extension that a process may keep
_TIME_SIZES: Final = {der.UTC_TIME: 13, der.GENERALIZED_TIME: 15}

_SERVER_AUTH: Final = "1.3.6.1.5.5.7.3.1"
_CLIENT_AUTH: Final = "1.3.6.1.5.5.7.3.2"
_ANY_PURPOSE: Final = "2.5.29.37.0"
_PURPOSES: Final = {
    _SERVER_AUTH: "serverAuth",
    _CLIENT_AUTH: "clientAuth",
    "1.3.6.1.5.5.7.3.3": "codeSigning",
    "1.3.6.1.5.5.7.3.4": "emailProtection",
    "1.3.6.1.5.5.7.3.8": "timeStamping",
    "1.3.6.1.5.5.7.3.9": "OCSPSigning",
    _ANY_PURPOSE: "anyExtendedKeyUsage",
}

# Fields outside of the signed part: a program between the CA and this service may have changed them
_UNSIGNED: Final = {"certificate", "signatureAlgorithm", "signatureValue"}
_NEW_KEY: Final = "Make a new key, and issue a new certificate for it."
_INSTALL_AGAIN: Final = (
    "Use the file that the CA issued, unchanged. If that file is refused too, issue a new certificate with software "
    "that follows RFC 5280, such as OpenSSL."
)

# Critical extensions that OpenSSL processes
_PROCESSED: Final = {
    extensions.BASIC_CONSTRAINTS,
    extensions.KEY_USAGE,
    extensions.EXTENDED_KEY_USAGE,
    extensions.SUBJECT_ALTERNATIVE_NAME,
    extensions.NAME_CONSTRAINTS,
    extensions.CRL_DISTRIBUTION_POINTS,
    extensions.CERTIFICATE_POLICIES,
    extensions.POLICY_MAPPINGS,
    extensions.POLICY_CONSTRAINTS,
    extensions.INHIBIT_ANY_POLICY,
}


# Extensions that nearly no device's certificate has, of those that are read for each certificate
_RARE: Final = frozenset(
    {
        extensions.NAME_CONSTRAINTS,
        extensions.CERTIFICATE_POLICIES,
        extensions.POLICY_MAPPINGS,
        extensions.POLICY_CONSTRAINTS,
        extensions.INHIBIT_ANY_POLICY,
    }
)

_Value = TypeVar("_Value")


class Extension(NamedTuple):
    """An extension as it is encoded: whether it is critical, and the content of its OCTET STRING."""

    is_critical: bool
    value: bytes


class Certificate:
    """A certificate whose fields all can be read. Two certificates are equal if their DER is equal.

    Args:
        encoded: the certificate as DER.

    Attributes:
        der: the certificate as it was given.
        subject, issuer: its names.
        serial_number: of any size, possibly negative or 0.
        signed: tbsCertificate as DER: the octets that the signature covers.
        signature: the octets of signatureValue, without the number of unused bits.
        not_before, not_after: its validity, aware, both ends included.
        public_key: a key of cryptography's, or `UnsupportedKey`.
        key_info: SubjectPublicKeyInfo as it is encoded in the certificate.
        version: 1 to 4. Versions 2 and 4 are read like version 3, as OpenSSL does.
        has_unique_ids: the certificate has an issuerUniqueID or a subjectUniqueID (4.1.2.8).
        is_ca: BasicConstraints says CA:TRUE, critical or not (RFC 5280, 4.2.1.9).
        path_length: of BasicConstraints; None without a limit.
        key_usage: the bits of KeyUsage (4.2.1.3); None without one.
        purposes_by_id: the object identifiers in ExtendedKeyUsage (4.2.1.12); None without one.
        names: tag and content of each name in the SubjectAltName (4.2.1.6).
        key_id: SubjectKeyIdentifier (4.2.1.2); None without one.
        authority_key_id: AuthorityKeyIdentifier (4.2.1.1); None without one.
        policy_constraints: requireExplicitPolicy and inhibitPolicyMapping (4.2.1.11); None without the extension.
        subtree_count: how many subtrees the NameConstraints have (4.2.1.10); 0 without any.
        extensions: by the content of their object identifiers.
        signature_algorithm: signatureAlgorithm, which is the same inside and outside (4.1.1.2).
        signature_weakness: the weak or unknown algorithm for people ("SHA-1"), or None.

    Raises: NotDER, which names the first field that cannot be read.
    """

    def __init__(self, encoded: bytes) -> None:
        self.der = encoded
        parts = _split(encoded)
        self.signed = parts.signed
        self.signature = parts.signature
        self.version = parts.version
        self.serial_number = parts.serial_number
        self.key_info = parts.key_info
        self.not_before, self.not_after = _read_validity(parts.validity)
        self.signature_algorithm = read_algorithm(parts.algorithm)
        self.signature_weakness = self.signature_algorithm.weakness
        self.subject = DistinguishedName(parts.subject, "subject")
        self.issuer = read_issuer(parts.issuer)
        self.has_unique_ids, self.extensions = _read_rest(parts.rest)
        self._read_extensions()
        # The key comes last: where it is named as the fault, it is the only one
        self.public_key = public_keys.read_key(parts.key_info)
        self._signers: set[bytes] = set()

    def _read_extensions(self) -> None:
        """Set the attributes that come from extensions. Raises: NotDER."""
        read = self.read_extension
        constraints = read(extensions.BASIC_CONSTRAINTS, extensions.read_basic_constraints)
        self.is_ca = constraints is not None and constraints.is_ca
        self.path_length = constraints.path_length if constraints is not None else None
        self.key_usage = read(extensions.KEY_USAGE, extensions.read_key_usage)
        self.purposes_by_id = read(extensions.EXTENDED_KEY_USAGE, extensions.read_extended_key_usage)
        self.names = read(extensions.SUBJECT_ALTERNATIVE_NAME, extensions.read_general_names) or ()
        self.key_id = read(extensions.SUBJECT_KEY_IDENTIFIER, extensions.read_subject_key_identifier)
        self.authority_key_id = read(extensions.AUTHORITY_KEY_IDENTIFIER, extensions.read_authority_key_identifier)
        self.subtree_count = 0
        self.policy_constraints: tuple[int | None, int | None] | None = None
        if not _RARE.isdisjoint(self.extensions):
            self.subtree_count = read(extensions.NAME_CONSTRAINTS, extensions.count_subtrees) or 0
            self.policy_constraints = read(extensions.POLICY_CONSTRAINTS, extensions.read_policy_constraints)
            read(extensions.POLICY_MAPPINGS, extensions.read_policy_mappings)
            read(extensions.INHIBIT_ANY_POLICY, extensions.read_inhibit_any_policy)
            policies = self.extensions.get(extensions.CERTIFICATE_POLICIES)
            if policies is not None and policies.is_critical:
                extensions.read_policies(policies.value)

    @classmethod
    def from_der(cls, encoded: bytes) -> "Certificate":
        """Read one certificate. Raises: CertificateMalformed."""
        try:
            return cls(encoded)
        except NotDER as error:
            whole = error.field == "certificate"
            found = f"{'the' if whole else 'its'} {error.field} {error.issue}"
            cert = _read_unreadable(encoded)
            if error.field == public_keys.KEY_FIELD:
                raise CertificateMalformed(found=found, hint=_NEW_KEY, cert=cert) from error
            if error.field in _UNSIGNED:
                raise CertificateMalformed(found=found, hint=_INSTALL_AGAIN, cert=cert) from error
            raise CertificateMalformed(found=found, cert=cert) from error

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Certificate) and self.der == other.der)

    def __hash__(self) -> int:
        return hash(self.der)

    def __repr__(self) -> str:
        return f"Certificate({self.subject_text!r})"

    # ------------------------------------------------------------------------------------------------------- names

    @property
    def subject_text(self) -> str:
        """The subject for people."""
        return self.subject.text

    @once
    def is_self_issued(self) -> bool:
        """Whether subject and issuer are the same name (RFC 5280, 3.2 and 7.1)."""
        return self.subject.canonical == self.issuer.canonical

    def may_be_issued_by(self, ca: "Certificate") -> bool:
        """Whether *ca* can be the issuer by its name and key identifier. The signature is not verified."""
        return self.issuer.canonical == ca.subject.canonical and self.has_key_id_of(ca)

    def has_key_id_of(self, ca: "Certificate") -> bool:
        """Whether AuthorityKeyIdentifier of this certificate and *ca*, its issuer, agree, or one says nothing.

        RFC 5280, 4.2.1.1."""
        identifier = self.authority_key_id
        return identifier is None or (
            (identifier.key_id is None or ca.key_id is None or identifier.key_id == ca.key_id)
            and (identifier.serial_number is None or identifier.serial_number == ca.serial_number)
            and (identifier.issuer is None or identifier.issuer == ca.issuer.canonical)
        )

    @property
    def name_count(self) -> int:
        """How many names the name constraints of a CA are held against: those of the SubjectAltName and the subject.

        OpenSSL compares the subject as a whole, and each common name and e-mail address in it."""
        return 1 + self.subject.compared_alone_count + self.alternative_name_count

    @property
    def alternative_name_count(self) -> int:
        """How many names of any kind the SubjectAltName has."""
        return len(self.names)

    @property
    def dns_names(self) -> list[str]:
        """Every dNSName of the SubjectAltName that is ASCII, unchanged."""
        return self._ascii_names(extensions.DNS)

    @property
    def email_names(self) -> list[str]:
        """Every rfc822Name of the SubjectAltName that is ASCII, unchanged."""
        return self._ascii_names(extensions.EMAIL)

    def _ascii_names(self, tag: int) -> list[str]:
        return [content.decode() for kind, content in self.names if kind == tag and content.isascii()]

    # ---------------------------------------------------------------------------------------------------- validity

    def check_dates(self, at: datetime) -> None:
        """Refuse the certificate unless *at* is in its validity (RFC 5280, 4.1.2.5).

        Raises: CertificateNotYetValid, CertificateExpired; ValueError where *at* is naive."""
        second = whole_second(at)
        if second < self.not_before:
            age = format_age(self.not_before, second)
            raise CertificateNotYetValid(cert=self, time=format_time(self.not_before), age=age)
        if second > self.not_after:
            age = format_age(self.not_after, second)
            raise CertificateExpired(cert=self, time=format_time(self.not_after), age=age)

    # ---------------------------------------------------------------------------------------------------- purposes

    @property
    def has_basic_constraints(self) -> bool:
        return extensions.BASIC_CONSTRAINTS in self.extensions

    @property
    def has_name_constraints(self) -> bool:
        return extensions.NAME_CONSTRAINTS in self.extensions

    @property
    def may_sign_certificates(self) -> bool:
        """Whether KeyUsage, if present, includes keyCertSign (RFC 5280, 4.2.1.3)."""
        return self.key_usage is None or bool(self.key_usage & extensions.KEY_CERT_SIGN)

    @property
    def may_sign_data(self) -> bool:
        """Whether KeyUsage, if present, includes digitalSignature (RFC 5280, 4.2.1.3)."""
        return self.key_usage is None or bool(self.key_usage & extensions.DIGITAL_SIGNATURE)

    @property
    def is_for_clients(self) -> bool:
        """Whether ExtendedKeyUsage, if present, includes clientAuth or anyExtendedKeyUsage (RFC 5280, 4.2.1.12)."""
        purposes = self.purposes_by_id
        return purposes is None or _CLIENT_AUTH in purposes or _ANY_PURPOSE in purposes

    @property
    def is_for_servers(self) -> bool:
        """Whether ExtendedKeyUsage, if present, includes serverAuth (RFC 5280, 4.2.1.12)."""
        return self.purposes_by_id is None or _SERVER_AUTH in self.purposes_by_id

    @property
    def purposes(self) -> list[str]:
        """The purposes in ExtendedKeyUsage, by name or object identifier."""
        return [_PURPOSES.get(purpose, purpose) for purpose in self.purposes_by_id or ()]

    @property
    def unknown_critical_extensions(self) -> list[str]:
        """The object identifiers of the critical extensions that are not processed, or else of all critical ones."""
        critical = [oid for oid, extension in self.extensions.items() if extension.is_critical]
        unknown = [oid for oid in critical if oid not in _PROCESSED]
        return [der.read_oid(oid, "extension") for oid in unknown or critical]

    # ---------------------------------------------------------------------------------------------------- strength

    @once
    def weakness(self) -> str | None:
        """What is weak about the key, in words, or None."""
        return strength.find_weakness(self.public_key)

    @once
    def verification_cost(self) -> int:
        """What verifying a signature with the key costs, if the key has no weakness (`strength.verification_cost`)."""
        return strength.verification_cost(self.public_key)

    @once
    def is_plain(self) -> bool:
        """Whether OpenSSL would check nothing beside the signature that is not checked here (`plain.is_plain`)."""
        return plain.is_plain(self)

    @property
    def has_curve_parameters(self) -> bool:
        """Whether the curve of its elliptic-curve key is written out, not named (RFC 5480, 2.1.1)."""
        return public_keys.has_curve_parameters(self.key_info)

    # --------------------------------------------------------------------------------------------------- signature

    def is_signed_by(self, ca: "Certificate") -> bool:
        """Whether the key of *ca* made the signature. Names are not compared.

        The answer follows from the octets of this certificate and of the key, so it is kept with the certificate."""
        if ca.key_info in self._signers:
            return True
        if not self.signature_algorithm.verify(ca.public_key, self.signature, self.signed):
            return False
        if len(self._signers) < _SIGNERS_MAX:
            self._signers.add(ca.key_info)
        return True

    @property
    def is_self_signed(self) -> bool:
        """Whether the certificate is self-issued and its own key verifies it (RFC 5280, 3.2)."""
        return self.is_self_issued and self.is_signed_by(self)

    # ------------------------------------------------------------------------------------------------- identifiers

    @once
    def fingerprint(self) -> str:
        """SHA-256 of the certificate in hexadecimal."""
        return fingerprint_of(self.der)

    @once
    def fingerprints(self) -> tuple[str, ...]:
        """Every fingerprint that the certificate can be presented under, its own first."""
        twin = find_twin(self.der, self.signature) if self.signature_algorithm.is_ecdsa else None
        return (self.fingerprint,) if twin is None else (self.fingerprint, fingerprint_of(twin))

    @once
    def public_key_info(self) -> bytes:
        """SubjectPublicKeyInfo in one encoding, whatever encoding the certificate uses.

        The usual encoding is that one encoding; a key that cannot be loaded has no other."""
        if public_keys.is_usual(self.key_info) or isinstance(self.public_key, public_keys.UnsupportedKey):
            return self.key_info
        return public_keys.public_key_info(self.public_key)

    @once
    def key_hash(self) -> str:
        """SHA-256 of `public_key_info` in hexadecimal."""
        return hashlib.sha256(self.public_key_info).hexdigest()

    @once
    def key_digest(self) -> str:
        """A short digest of subject and key, for the registers of TLS edges (`shared.x509.digests`).

        The digest is the beginning of SHA-256 over 64 octets: SHA-256 of the subject in canonical form
        (`distinguished_name.canonical`), and SHA-256 of SubjectPublicKeyInfo."""
        return hashlib.sha256(bytes.fromhex(self.subject.digest + self.key_hash)).hexdigest()[:DIGEST_DIGITS]

    @property
    def pem(self) -> str:
        """The certificate as PEM."""
        return pem.encode("CERTIFICATE", self.der)

    def read_extension(self, oid: bytes, read: Callable[[bytes], _Value]) -> _Value | None:
        """Return what *read* makes of the value of an extension; None without the extension."""
        extension = self.extensions.get(oid)
        return None if extension is None else read(extension.value)


CertificationPath = tuple[Certificate, ...]
"""Certificates from a leaf to its anchor, each signed by the next one."""


class UnreadableCertificate(NamedTuple):
    """What a refusal says about a certificate with a field that cannot be read."""

    fingerprint: str
    subject_text: str


def _read_unreadable(encoded: bytes) -> UnreadableCertificate | None:
    """Return what can be said about *encoded*; None where it does not have the form of a certificate."""
    try:
        subject = _split(encoded).subject
    except NotDER:
        return None
    try:
        text = DistinguishedName(subject).text
    except NotDER:
        text = "(unreadable name)"
    return UnreadableCertificate(fingerprint_of(encoded), text)


def whole_second(at: datetime) -> datetime:
    """Return *at* in UTC without the fraction of a second: certificates are dated in whole seconds.

    Raises: ValueError where *at* is naive: Python would take it for local time."""
    if at.utcoffset() is None:
        raise ValueError("a naive time cannot be compared with a certificate's: pass an aware datetime")
    return at.astimezone(UTC).replace(microsecond=0)


# ------------------------------------------------------------------------------------------------- parts of the DER


class _Parts(NamedTuple):
    """The pieces of a certificate as they are encoded (RFC 5280, 4.1)."""

    signed: bytes  # tbsCertificate: what the signature covers
    version: int
    serial_number: int
    algorithm: bytes
    issuer: bytes
    validity: bytes
    subject: bytes
    key_info: bytes  # subjectPublicKeyInfo
    rest: bytes  # unique identifiers and extensions
    signature: bytes


def _split(encoded: bytes) -> _Parts:
    """Cut the DER of a certificate into its parts. Raises: NotDER."""
    begin, end = der.expect_whole(encoded, der.SEQUENCE, "certificate")
    at, signed_end = der.expect(encoded, begin, end, der.SEQUENCE, "tbsCertificate")
    _, algorithm_end = der.expect(encoded, signed_end, end, der.SEQUENCE, "signatureAlgorithm")
    bits, bits_end = der.expect(encoded, algorithm_end, end, der.BIT_STRING, "signatureValue")
    if bits_end != end:
        raise NotDER("has octets after its end", "certificate")
    if bits == end or encoded[bits]:
        raise NotDER("is not whole octets", "signatureValue")
    version = 1
    if at < signed_end and encoded[at] == _VERSION:
        inside, at = der.expect(encoded, at, signed_end, _VERSION, "version")
        start, stop = der.expect(encoded, inside, at, der.INTEGER, "version")
        version = der.read_integer(encoded, start, stop, "version") + 1
        if stop != at or not 1 <= version <= 4:
            raise NotDER("is not 1, 2, 3 or 4", "version")
    start, serial_end = der.expect(encoded, at, signed_end, der.INTEGER, "serialNumber")
    serial_number = der.read_integer(encoded, start, serial_end, "serialNumber")
    _, inner_end = der.expect(encoded, serial_end, signed_end, der.SEQUENCE, "signature")
    if encoded[serial_end:inner_end] != encoded[signed_end:algorithm_end]:
        raise NotDER("is not the algorithm in the signed part", "signatureAlgorithm")
    _, issuer_end = der.expect(encoded, inner_end, signed_end, der.SEQUENCE, "issuer")
    _, validity_end = der.expect(encoded, issuer_end, signed_end, der.SEQUENCE, "validity")
    _, subject_end = der.expect(encoded, validity_end, signed_end, der.SEQUENCE, "subject")
    _, key_end = der.expect(encoded, subject_end, signed_end, der.SEQUENCE, public_keys.KEY_FIELD)
    return _Parts(
        encoded[begin:signed_end],
        version,
        serial_number,
        encoded[signed_end:algorithm_end],
        encoded[inner_end:issuer_end],
        encoded[issuer_end:validity_end],
        encoded[validity_end:subject_end],
        encoded[subject_end:key_end],
        encoded[key_end:signed_end],
        encoded[bits + 1 : end],
    )


def _read_validity(encoded: bytes) -> tuple[datetime, datetime]:
    """Return both dates of Validity (RFC 5280, 4.1.2.5). Raises: NotDER."""
    at, end = der.expect_whole(encoded, der.SEQUENCE, "validity")
    tag, start, stop = der.element(encoded, at, end, "notBefore")
    not_before = _read_time(tag, encoded[start:stop], "notBefore")
    tag, start, stop = der.element(encoded, stop, end, "notAfter")
    if stop != end:
        raise NotDER("has more than two dates", "validity")
    return not_before, _read_time(tag, encoded[start:stop], "notAfter")


def _read_time(tag: int, content: bytes, field: str) -> datetime:
    """Return a UTCTime or GeneralizedTime as RFC 5280, 4.1.2.5 wants it: in UTC, with seconds. Raises: NotDER."""
    size = _TIME_SIZES.get(tag, 0)
    if len(content) != size or content[-1:] != b"Z" or not content[:-1].isdigit():
        raise NotDER("is not a date in UTC with seconds", field)
    year, rest = divmod(int(content[:-1]), 10**10)  # the rest is MMDDhhmmss
    if tag == der.UTC_TIME:
        year += 1900 if year >= 50 else 2000
    date, time = divmod(rest, 10**6)
    hour_and_minute, second = divmod(time, 100)
    try:
        return datetime(year, *divmod(date, 100), *divmod(hour_and_minute, 100), second, tzinfo=UTC)
    except ValueError as error:
        raise NotDER("is a date that does not exist", field) from error


def _read_rest(encoded: bytes) -> tuple[bool, dict[bytes, Extension]]:
    """Return whether there are unique identifiers, and the extensions (RFC 5280, 4.1.2.8 and 4.1.2.9).

    Raises: NotDER."""
    at, end = 0, len(encoded)
    for tag in _UNIQUE_IDS:
        if at < end and encoded[at] == tag:
            _, at = der.expect(encoded, at, end, tag, "uniqueID")
    has_unique_ids = at > 0
    if at == end:
        return has_unique_ids, {}
    at, stop = der.expect(encoded, at, end, _EXTENSIONS, "extensions")
    if stop != end:
        raise NotDER("has octets after its extensions", "tbsCertificate")
    at, stop = der.expect(encoded, at, end, der.SEQUENCE, "extensions")
    if stop != end:
        raise NotDER("has octets after its extensions", "tbsCertificate")
    table: dict[bytes, Extension] = {}
    while at < end:
        inside, at = der.expect(encoded, at, end, der.SEQUENCE, "extension")
        kept = _read_short_extension(encoded[inside:at]) if at - inside <= _SHORT else None
        oid, extension = kept or _read_extension(encoded, inside, at)
        if oid in table:
            raise NotDER(f"has the extension {der.read_oid(oid, 'extension')} twice", "tbsCertificate")
        if len(table) == EXTENSIONS_MAX:
            raise NotDER(f"has more than {EXTENSIONS_MAX} extensions", "tbsCertificate")
        table[oid] = extension
    return has_unique_ids, table


def _read_extension(encoded: bytes, at: int, end: int) -> tuple[bytes, Extension]:
    """Return identifier and content of one extension. Raises: NotDER."""
    field = "extension"
    start, stop = der.expect(encoded, at, end, der.OID, field)
    oid = encoded[start:stop]
    name = der.read_oid(oid, field)
    is_critical = False
    tag, start, stop = der.element(encoded, stop, end, field)
    if tag == der.BOOLEAN:
        is_critical = der.read_boolean(encoded, start, stop, field)
        tag, start, stop = der.element(encoded, stop, end, field)
    if tag != der.OCTET_STRING or stop != end:
        raise NotDER("is not an identifier and a value", f"{field} {name}")
    return oid, Extension(is_critical, encoded[start:stop])


@lru_cache(maxsize=1024)  # a fleet's certificates share most of their extensions
def _read_short_extension(content: bytes) -> tuple[bytes, Extension] | None:
    """Return identifier and content of the extension with that *content*; None where it cannot be read.

    The caller then reads the extension in the certificate, so that the fault is named as everywhere else."""
    try:
        return _read_extension(content, 0, len(content))
    except NotDER:
        return None
