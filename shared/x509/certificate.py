"""A certificate (RFC 5280): the model for certificates of clients, of servers, and of registered CAs.

cryptography parses a field when the field is first used, and raises then. A `Certificate` reads every field when it is
made, so its attributes never raise. A `Certificate` does not change.
"""

import hashlib
from datetime import UTC, datetime
from functools import cached_property
from typing import Final, NamedTuple, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.errors import CertificateExpired, CertificateMalformed, CertificateNotYetValid, KeyUnreadable
from shared.text import format_age, format_time
from shared.x509 import der, pem, plain, public_keys, strength
from shared.x509.algorithms import read_algorithm
from shared.x509.distinguished_name import DistinguishedName, format_subject, read_issuer
from shared.x509.fingerprints import fingerprint_of, fingerprints_of
from shared.x509.public_keys import UnsupportedKey

_SIGNERS_MAX: Final = 8  # keys known to have signed one certificate: one, or a few where CAs share a name
# A parser's message is for programmers, and is not shown.
UNREADABLE: Final = "a part of it does not follow the rules for certificates (RFC 5280)"
_KEY_UNREADABLE: Final = "its public key does not follow the rules for keys (RFC 5280, 4.1.2.7)"

_PURPOSES: Final = {
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.CODE_SIGNING: "codeSigning",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "emailProtection",
    ExtendedKeyUsageOID.TIME_STAMPING: "timeStamping",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSPSigning",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "anyExtendedKeyUsage",
}
_FOR_CLIENTS: Final = frozenset((ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE))

_COMPARED_ALONE: Final = frozenset((NameOID.COMMON_NAME, NameOID.EMAIL_ADDRESS))

_E = TypeVar("_E", bound=x509.ExtensionType)


class Certificate:
    """A certificate whose fields all can be read. Two certificates are equal if their DER is equal.

    Attributes:
        der: the certificate as it was given.
        subject, issuer: its names.
        serial_number: of any size, possibly negative or 0.
        signed: tbsCertificate as DER: the octets that the signature covers.
        signature: the octets of signatureValue, without the number of unused bits.
        not_before, not_after: its validity, aware, both ends included.
        public_key: a key of cryptography's, or `UnsupportedKey`.
        key_info: SubjectPublicKeyInfo as it is encoded in the certificate.
        is_version_3: X.509 v3; only such a certificate may have extensions.
        is_ca: BasicConstraints says CA:TRUE, critical or not (RFC 5280, 4.2.1.9).
        path_length: of BasicConstraints; None without a limit.
        may_sign_certificates: KeyUsage, if present, includes keyCertSign (4.2.1.3).
        may_sign_data: KeyUsage, if present, includes digitalSignature (4.2.1.3).
        is_for_clients: ExtendedKeyUsage, if present, includes clientAuth or anyExtendedKeyUsage (4.2.1.12).
        key_id: SubjectKeyIdentifier (4.2.1.2); None without one.
        issuer_key_id: keyIdentifier of AuthorityKeyIdentifier (4.2.1.1); None without one.
        subtree_count: how many subtrees the NameConstraints have (4.2.1.10); 0 without any.
        extensions: by the type of their values.
        critical_extensions: the types of those that are critical.
        algorithm_identifier: signatureAlgorithm as DER, from the unsigned part.
        signature_algorithm: the same, parsed.
        signature_weakness: the weak or unknown algorithm for people ("SHA-1"), or None.
        has_one_algorithm: the signed part has the same algorithm_identifier (4.1.1.2).
        has_unused_bits: signatureValue is not whole octets; such a signature verifies under no key.
        weakness: what is weak about the key, in words, or None.
        is_plain: OpenSSL would check nothing beside the signature that is not checked here (`plain.is_plain`).
    """

    def __init__(self, encoded: bytes, parsed: x509.Certificate) -> None:
        """Read every field of *parsed*, whose DER is *encoded*.

        Raises: an exception of any type, where *parsed* is malformed."""
        self.der = encoded
        self._parsed = parsed
        parts = _split(encoded)
        self.signed = parts.signed
        self.signature = parts.signature
        self.has_unused_bits = parts.unused_bits != 0
        self.key_info = parts.key_info
        self.subject = DistinguishedName(parts.subject, parsed.subject)
        self.issuer = read_issuer(parts.issuer, lambda: parsed.issuer)
        self.serial_number = parsed.serial_number
        self.not_before = parsed.not_valid_before_utc
        self.not_after = parsed.not_valid_after_utc
        self.public_key = _read_key(
            encoded, parsed
        )  # before the extensions: a refusal names a bad key rather than a bad extension
        self.weakness = strength.find_weakness(self.public_key)
        self.is_version_3 = parsed.version is x509.Version.v3
        self.extensions: dict[type[x509.ExtensionType], x509.ExtensionType] = {}
        self.critical_extensions: set[type[x509.ExtensionType]] = set()
        for extension in parsed.extensions:
            kind = type(extension.value)
            self.extensions[kind] = extension.value
            if extension.critical:
                self.critical_extensions.add(kind)
        constraints, usage = self._extension(x509.BasicConstraints), self._extension(x509.KeyUsage)
        limits = self._extension(x509.NameConstraints)
        self._purposes = self._extension(x509.ExtendedKeyUsage)
        self._names = self._extension(x509.SubjectAlternativeName)
        self.subtree_count = 0
        if limits is not None:
            self.subtree_count = len(limits.permitted_subtrees or ()) + len(limits.excluded_subtrees or ())
        self.is_ca = constraints is not None and constraints.ca
        self.path_length = constraints.path_length if constraints is not None else None
        self.may_sign_certificates = usage is None or usage.key_cert_sign
        self.may_sign_data = usage is None or usage.digital_signature
        self.is_for_clients = self._purposes is None or not _FOR_CLIENTS.isdisjoint(self._purposes)
        own, above = self._extension(x509.SubjectKeyIdentifier), self._extension(x509.AuthorityKeyIdentifier)
        self.key_id = own.digest if own is not None else None
        self.issuer_key_id = above.key_identifier if above is not None else None
        self.signature_algorithm = read_algorithm(parts.algorithm, parsed)
        self.signature_weakness = self.signature_algorithm.weakness
        self.has_one_algorithm = parts.algorithm == parts.inner_algorithm
        self.algorithm_identifier = parts.algorithm
        self.is_plain = plain.is_plain(self)
        self._signers: set[bytes] = set()

    @classmethod
    def from_der(cls, encoded: bytes) -> "Certificate":
        """Read one certificate. Raises: CertificateMalformed; KeyUnreadable where nothing but its key is at fault."""
        try:
            parsed = x509.load_der_x509_certificate(encoded)
        except Exception as error:  # parsers raise exceptions of many kinds
            raise CertificateMalformed(found=UNREADABLE) from error
        try:
            return cls(encoded, parsed)
        except CertificateMalformed:
            raise
        except Exception as error:  # ValueError, DuplicateExtension, UnsupportedGeneralNameType, ...
            raise CertificateMalformed(found=UNREADABLE, cert=UnreadableCertificate(encoded, parsed)) from error

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

    @cached_property
    def is_self_issued(self) -> bool:
        """Whether subject and issuer are the same name (RFC 5280, 3.2 and 7.1)."""
        return self.subject.canonical == self.issuer.canonical

    def may_be_issued_by(self, ca: "Certificate") -> bool:
        """Whether *ca* can be the issuer by its name and key identifier. The signature is not verified."""
        return self.issuer.canonical == ca.subject.canonical and self.has_key_id_of(ca)

    def has_key_id_of(self, ca: "Certificate") -> bool:
        """Whether the key identifiers of this certificate and of *ca*, its issuer, agree, or one has none.

        RFC 5280, 4.2.1.1."""
        return self.issuer_key_id is None or ca.key_id is None or self.issuer_key_id == ca.key_id

    @cached_property
    def name_count(self) -> int:
        """How many names the name constraints of a CA are held against: those of the SubjectAltName and the subject.

        OpenSSL compares the subject as a whole, and each common name and e-mail address in it."""
        in_subject = sum(attribute.oid in _COMPARED_ALONE for attribute in self.subject.parsed)
        return 1 + in_subject + self.alternative_name_count

    @property
    def alternative_name_count(self) -> int:
        """How many names of any kind the SubjectAltName has."""
        return len(list(self._names)) if self._names is not None else 0

    @property
    def dns_names(self) -> list[str]:
        """Every dNSName of the SubjectAltName, unchanged."""
        return self._names.get_values_for_type(x509.DNSName) if self._names is not None else []

    @property
    def email_names(self) -> list[str]:
        """Every rfc822Name of the SubjectAltName, unchanged."""
        return self._names.get_values_for_type(x509.RFC822Name) if self._names is not None else []

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
        return x509.BasicConstraints in self.extensions

    @property
    def has_name_constraints(self) -> bool:
        return x509.NameConstraints in self.extensions

    @property
    def is_for_servers(self) -> bool:
        """Whether ExtendedKeyUsage, if present, includes serverAuth (RFC 5280, 4.2.1.12)."""
        return self._purposes is None or ExtendedKeyUsageOID.SERVER_AUTH in self._purposes

    @property
    def purposes(self) -> list[str]:
        """The purposes in ExtendedKeyUsage, by name or object identifier."""
        return [_PURPOSES.get(oid, oid.dotted_string) for oid in self._purposes or ()]

    @property
    def unknown_critical_extensions(self) -> list[str]:
        """The object identifiers of the critical extensions that cannot be read, or else of all critical ones."""
        critical = [extension for extension in self._parsed.extensions if extension.critical]
        unknown = [extension for extension in critical if isinstance(extension.value, x509.UnrecognizedExtension)]
        return [extension.oid.dotted_string for extension in unknown or critical]

    # ---------------------------------------------------------------------------------------------------- strength

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
        if self.has_unused_bits or not self.signature_algorithm.verify(ca.public_key, self.signature, self.signed):
            return False
        if len(self._signers) < _SIGNERS_MAX:
            self._signers.add(ca.key_info)
        return True

    @property
    def is_self_signed(self) -> bool:
        """Whether the certificate is self-issued and its own key verifies it (RFC 5280, 3.2)."""
        return self.is_self_issued and self.is_signed_by(self)

    # ------------------------------------------------------------------------------------------------- identifiers

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate in hexadecimal."""
        return fingerprint_of(self.der)

    @cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """Every fingerprint that the certificate can be presented under, its own first."""
        return fingerprints_of(self.der, ecdsa_signature=self.signature if self.signature_algorithm.is_ecdsa else None)

    @cached_property
    def public_key_info(self) -> bytes:
        """SubjectPublicKeyInfo in one encoding, whatever encoding the certificate uses."""
        return public_keys.public_key_info(self.public_key)

    @cached_property
    def key_hash(self) -> str:
        """SHA-256 of `public_key_info` in hexadecimal."""
        return hashlib.sha256(self.public_key_info).hexdigest()

    @property
    def pem(self) -> str:
        """The certificate as PEM."""
        return pem.encode("CERTIFICATE", self.der)

    def _extension(self, kind: type[_E]) -> _E | None:
        return self.extensions.get(kind)  # type: ignore[return-value]  # the value has the type that is its key


CertificationPath = tuple[Certificate, ...]
"""Certificates from a leaf to its anchor, each signed by the next one."""


class UnreadableCertificate:
    """A certificate with a field that cannot be read: what a refusal says about it."""

    def __init__(self, encoded: bytes, parsed: x509.Certificate) -> None:
        self.fingerprint = fingerprint_of(encoded)
        self.subject_text = format_subject(parsed)


def whole_second(at: datetime) -> datetime:
    """Return *at* in UTC without the fraction of a second: certificates are dated in whole seconds.

    Raises: ValueError where *at* is naive: Python would take it for local time."""
    if at.utcoffset() is None:
        raise ValueError("a naive time cannot be compared with a certificate's: pass an aware datetime")
    return at.astimezone(UTC).replace(microsecond=0)


def _read_key(encoded: bytes, parsed: x509.Certificate) -> object:
    try:
        return parsed.public_key()
    except UnsupportedAlgorithm:
        return UnsupportedKey(parsed.public_key_algorithm_oid.dotted_string)
    except Exception as error:
        refusal = KeyUnreadable if _is_readable_but_for_its_key(encoded, parsed) else CertificateMalformed
        raise refusal(found=_KEY_UNREADABLE, cert=UnreadableCertificate(encoded, parsed)) from error


def _is_readable_but_for_its_key(encoded: bytes, parsed: x509.Certificate) -> bool:
    """Whether nothing but the key is at fault in a certificate whose names and dates could be read."""
    try:
        _ = parsed.extensions
    except Exception:  # noqa: BLE001 -- parsers raise exceptions of many kinds
        return False
    return _split(encoded).unused_bits == 0


# ------------------------------------------------------------------------------------------------- parts of the DER


class _Parts(NamedTuple):
    """The pieces of a certificate as they are encoded (RFC 5280, 4.1)."""

    signed: bytes  # tbsCertificate: what the signature covers
    inner_algorithm: bytes
    issuer: bytes
    subject: bytes
    key_info: bytes  # subjectPublicKeyInfo
    algorithm: bytes  # signatureAlgorithm
    unused_bits: int
    signature: bytes


def _split(encoded: bytes) -> _Parts:
    """Cut the DER of a certificate into its parts. cryptography would encode them again, which takes longer.

    Raises: NotDER."""
    _, at, _ = der.header(encoded, 0)
    _, start, signed_end = der.header(encoded, at)
    tag, _, end = der.header(encoded, start)
    serial = end if tag != der.CONTEXT_0 else der.header(encoded, end)[2]  # behind the version, if it is present
    inner_algorithm = der.header(encoded, serial)[2]
    issuer = der.header(encoded, inner_algorithm)[2]
    validity = der.header(encoded, issuer)[2]
    subject = der.header(encoded, validity)[2]
    key_info = der.header(encoded, subject)[2]
    algorithm = der.header(encoded, signed_end)[2]
    _, bits, signature_end = der.header(encoded, algorithm)
    return _Parts(
        encoded[at:signed_end],
        encoded[serial:inner_algorithm],
        encoded[inner_algorithm:issuer],
        encoded[validity:subject],
        encoded[subject:key_info],
        encoded[signed_end:algorithm],
        encoded[bits],
        encoded[bits + 1 : signature_end],
    )
