"""A certificate as the rules of a chain ask for it: every field read once, and kept where that is safe.

    read(der)         a device's leaf: read now, kept by nobody
    sent(der)         what a device sent after its leaf: a fleet's devices send the same few intermediates
    registered(der)   an org's CA: the same at every connection

What is kept is what the bytes say: parsed fields, whether the key is weak, under which key the signature holds. All of
it follows from the bytes alone, is found again under the very same bytes only, and so can neither go stale nor stand
for another certificate. Whether a CA is registered, active or denied, and whether it is valid now, is never kept.

Two stores, because strangers fill one of them: what devices send cannot push out what orgs registered. Both are bounded
in number, and in the size of what they take.
"""

import hashlib
from functools import cached_property, lru_cache
from typing import Final, NamedTuple, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto

from shared.errors import CertificateMalformed
from shared.x509 import encoding, fingerprints, strength
from shared.x509.distinguished_name import canonical

REGISTERED_MAX: Final = 1024  # CAs of orgs kept parsed by this process
SENT_MAX: Final = 256  # and of what devices sent; at most this many ...
KEPT_BYTES_MAX: Final = 4096  # ... each at most this long as DER: up to 35 KiB of memory each, 45 MiB in all
_NAMES_MAX: Final = 1024  # issuers' names ...
_NAME_BYTES_MAX: Final = 1024  # ... each at most this long as DER
_SIGNERS_MAX: Final = 8  # keys that are known to have signed one certificate: one, or a few where CAs share a name

# X509_V_FLAG_NO_CHECK_TIME, which pyOpenSSL does not name. Dates are judged in trust.py: a store that holds no time can
# be kept and shared by threads, and dates come after the chain in the order of the steps.
_NO_CHECK_TIME: Final = 0x200000
_STORE_FLAGS: Final = crypto.X509StoreFlags.PARTIAL_CHAIN | _NO_CHECK_TIME

CLIENT: Final = frozenset({ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE})

_E = TypeVar("_E", bound=x509.ExtensionType)


class Certificate:
    """What the rules ask of a certificate. Nothing of it ever changes.

    Compared by identity: within one decision each certificate is one of these (`trust._Walk.known`)."""

    def __init__(self, cert: x509.Certificate, der: bytes) -> None:
        """Reads every field, because cryptography parses late and raises late: any exception means malformed."""
        self.cert = cert
        self.der = der
        self._parts = _parts(der)
        self.subject_name = cert.subject
        self.issuer, self.issuer_digest, self._issuer_is_usual = self._issuer()
        self.begins = cert.not_valid_before_utc
        self.ends = cert.not_valid_after_utc
        try:
            self.key: object = cert.public_key()
        except UnsupportedAlgorithm:
            self.key = cert.public_key_algorithm_oid
        values = [one.value for one in cert.extensions]
        self._is_rsa = isinstance(self.key, rsa.RSAPublicKey)
        self._extensions: dict[type, x509.ExtensionType] = dict(zip(map(type, values), values, strict=True))
        self._is_critical_key_id = any(one.critical and type(one.value) in _KEY_IDS for one in cert.extensions)
        self.constraints = self._extension(x509.BasicConstraints)
        self.usage = self._extension(x509.KeyUsage)
        self.purposes = self._extension(x509.ExtendedKeyUsage)
        self.names = self._extension(x509.SubjectAlternativeName)
        own, self._above = self._extension(x509.SubjectKeyIdentifier), self._extension(x509.AuthorityKeyIdentifier)
        self.key_id = own.digest if own else None  # RFC 5280, 4.2.1.2
        self.issuer_key_id = self._above.key_identifier if self._above else None  # RFC 5280, 4.2.1.1
        self._signers: set[bytes] = set()
        self.has_unused_bits = fingerprints.has_unused_bits(cert, der)
        self.is_plain = self._is_plain()

    def _issuer(self) -> "_Issuer":
        raw = self._parts.issuer if self._parts else b""
        if not 0 < len(raw) <= _NAME_BYTES_MAX:
            return _issuer_of(self.cert)
        known = _issuer_names.get(raw)
        if known is None:
            known = _issuer_of(self.cert)
            if len(_issuer_names) >= _NAMES_MAX:
                _issuer_names.clear()
            _issuer_names[raw] = known
        return known

    def _extension(self, kind: type[_E]) -> _E | None:
        return self._extensions.get(kind)  # type: ignore[return-value]  # it lies under its own type

    @property
    def has_name_constraints(self) -> bool:
        return x509.NameConstraints in self._extensions

    @cached_property
    def subject(self) -> bytes:
        return canonical(self.subject_name)

    @property
    def is_ca(self) -> bool:
        """BasicConstraints says so, critical or not (RFC 5280, 4.2.1.9)."""
        return self.constraints is not None and self.constraints.ca

    @cached_property
    def is_self_issued(self) -> bool:
        """Subject and issuer are one name (RFC 5280, 3.2)."""
        return self.subject == self.issuer

    @cached_property
    def weakness(self) -> str | None:
        return strength.weakness(self.key)

    @cached_property
    def signature_weakness(self) -> str | None:
        return strength.signature_weakness(self.cert)

    @cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """SHA-256, hex, of the certificate and of its twin, where there is one (`fingerprints.of`)."""
        return fingerprints.of(self.cert, self.der)

    @cached_property
    def public_key_info(self) -> bytes:
        """SubjectPublicKeyInfo in one encoding, whatever encoding the certificate uses."""
        assert isinstance(self.key, strength.PublicKey), "weak_key comes first"  # noqa: S101
        return encoding.public_key_info(self.key)

    # ----------------------------------------------------------------------------------------------- OpenSSL's own

    @cached_property
    def openssl(self) -> crypto.X509:
        """The same for OpenSSL. Raises: CertificateMalformed, where OpenSSL cannot read what cryptography could."""
        try:
            return crypto.load_certificate(crypto.FILETYPE_ASN1, self.der)
        except crypto.Error as error:
            raise CertificateMalformed(found=said(error), cert=self.cert) from error

    @cached_property
    def store(self) -> crypto.X509Store:
        """A store that trusts this certificate alone. Never changed afterwards, so threads may share it."""
        store = crypto.X509Store()
        store.set_flags(_STORE_FLAGS)
        store.add_cert(self.openssl)
        return store

    # -------------------------------------------------------------------------------------------------- plain ones

    def _is_plain(self) -> bool:
        """Whether everything in it is judged in trust.py, so that beside the signature OpenSSL would find nothing.

        Extensions of six kinds and no other, critical or not, but for key identifiers, which must not be (RFC 5280,
        4.2.1.1 and 4.2.1.2); one algorithm, inside and outside, of the two that nearly all certificates have (RSA
        PKCS#1 v1.5 and ECDSA, on SHA-2); a key in the usual encoding (no explicit curve); names in the usual types of
        text (cryptography reads some that OpenSSL does not).
        What is not plain is not wrong: OpenSSL judges it."""
        parts = self._parts
        if parts is None or parts.inner_algorithm != parts.algorithm or parts.algorithm not in _SCHEMES:
            return False
        if not self._extensions.keys() <= _PLAIN_EXTENSIONS or self._is_critical_key_id:
            return False
        if not (self._issuer_is_usual and _is_in_usual_text(self.subject_name)):
            return False
        if self.cert.version is not x509.Version.v3 and self._extensions:
            return False
        above = self._above
        if above is not None and (above.authority_cert_issuer is not None or above.key_identifier is None):
            return False
        if self._is_rsa:
            return parts.key_info.startswith(_RSA_ENCRYPTION, _LONG_HEADER)
        return isinstance(self.key, ec.EllipticCurvePublicKey) and parts.key_info.startswith(_NAMED_CURVES)

    def is_signed_by(self, ca: "Certificate") -> bool:
        """Whether *ca*'s key made the signature on this one; both are plain.

        That follows from the bytes of this one and of the key, so it is looked at once for as long as this is kept."""
        parts = ca._parts
        if parts is None:
            return False
        key_info = parts.key_info
        if key_info in self._signers:
            return True
        if not self._verifies(ca):
            return False
        if len(self._signers) < _SIGNERS_MAX:
            self._signers.add(key_info)
        return True

    def _verifies(self, ca: "Certificate") -> bool:
        parts, key = self._parts, ca.key
        if parts is None or self.has_unused_bits:
            return False
        for_rsa, scheme = _SCHEMES[parts.algorithm]
        if for_rsa is not ca._is_rsa:
            return False
        try:
            key.verify(self.cert.signature, parts.signed, *scheme)  # type: ignore[attr-defined]  # RSA's or EC's
        except InvalidSignature:
            return False
        return True


_PLAIN_EXTENSIONS: Final[set[type[x509.ExtensionType]]] = {
    x509.AuthorityKeyIdentifier,
    x509.BasicConstraints,
    x509.ExtendedKeyUsage,
    x509.KeyUsage,
    x509.SubjectAlternativeName,
    x509.SubjectKeyIdentifier,
}
_KEY_IDS: Final = (x509.AuthorityKeyIdentifier, x509.SubjectKeyIdentifier)
_USUAL_TEXT: Final = (_ASN1Type.UTF8String, _ASN1Type.PrintableString, _ASN1Type.IA5String)


def _is_in_usual_text(name: x509.Name) -> bool:
    return all(attribute._type in _USUAL_TEXT for attribute in name)


_PKCS1: Final = padding.PKCS1v15()
# AlgorithmIdentifier, whole, as RFC 4055 (5) and RFC 5758 (3.2) have it -> by an RSA key, and what to verify with
_SCHEMES: Final[dict[bytes, tuple[bool, tuple[object, ...]]]] = {
    bytes.fromhex("300d06092a864886f70d01010b0500"): (True, (_PKCS1, hashes.SHA256())),
    bytes.fromhex("300d06092a864886f70d01010c0500"): (True, (_PKCS1, hashes.SHA384())),
    bytes.fromhex("300d06092a864886f70d01010d0500"): (True, (_PKCS1, hashes.SHA512())),
    bytes.fromhex("300a06082a8648ce3d040302"): (False, (ec.ECDSA(hashes.SHA256()),)),
    bytes.fromhex("300a06082a8648ce3d040303"): (False, (ec.ECDSA(hashes.SHA384()),)),
    bytes.fromhex("300a06082a8648ce3d040304"): (False, (ec.ECDSA(hashes.SHA512()),)),
}
_LONG_HEADER: Final = 4  # bytes: tag, and a length in two octets behind their number
_RSA_ENCRYPTION: Final = bytes.fromhex("300d06092a864886f70d0101010500")  # RFC 4055, 1.2: not one for PSS alone
# How a SubjectPublicKeyInfo begins whose curve is named (RFC 5480, 2.1.1) and whose point is not compressed
_NAMED_CURVES: Final = (
    bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"),
    bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004"),
    bytes.fromhex("30819b301006072a8648ce3d020106052b810400230381860004"),
)


# ------------------------------------------------------------------------------------------------------------ reading


def read(cert: x509.Certificate, der: bytes | None = None) -> Certificate:
    """*cert*, whose bytes are *der*, with every field read. Raises: CertificateMalformed."""
    try:
        return Certificate(cert, encoding.certificate_der(cert) if der is None else der)
    except Exception as error:  # ValueError, DuplicateExtension, UnsupportedGeneralNameType, ...
        raise CertificateMalformed(found=said(error), cert=cert) from error


def parse(der: bytes) -> x509.Certificate:
    """Raises: CertificateMalformed."""
    try:
        return x509.load_der_x509_certificate(der)
    except Exception as error:  # parsers raise many kinds; whichever it is, it cannot be read
        raise CertificateMalformed(found=said(error)) from error


def registered(der: bytes) -> Certificate:
    """A CA that an org registered. Raises: CertificateMalformed."""
    return _registered(der) if len(der) <= KEPT_BYTES_MAX else read(parse(der), der)


def sent(der: bytes) -> Certificate:
    """What a device sent after its leaf. Raises: CertificateMalformed."""
    return _sent(der) if len(der) <= KEPT_BYTES_MAX else read(parse(der), der)


@lru_cache(maxsize=REGISTERED_MAX)
def _registered(der: bytes) -> Certificate:
    return read(parse(der), der)


@lru_cache(maxsize=SENT_MAX)
def _sent(der: bytes) -> Certificate:
    return read(parse(der), der)


_Issuer = tuple[bytes, str, bool]  # canonical form, that form's digest, whether all of it is in the usual text
_issuer_names: Final[dict[bytes, _Issuer]] = {}  # by the Name as DER


def _issuer_of(cert: x509.Certificate) -> _Issuer:
    name = cert.issuer
    form = canonical(name)
    return form, hashlib.sha256(form).hexdigest(), _is_in_usual_text(name)


def said(error: Exception) -> str:
    """A parser's words on one line, at most 200 characters."""
    words = " ".join(str(error).split()) or type(error).__name__
    return "".join(one if one.isprintable() else "?" for one in words)[:200].rstrip(".")


# ---------------------------------------------------------------------------------------------------------- its parts


class _Parts(NamedTuple):
    """The pieces of a certificate as they stand in its bytes (RFC 5280, 4.1)."""

    signed: bytes  # tbsCertificate: what the signature is over
    algorithm: bytes  # signatureAlgorithm
    inner_algorithm: bytes  # the same inside tbsCertificate
    issuer: bytes
    key_info: bytes  # subjectPublicKeyInfo


_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0  # [0] EXPLICIT
# serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo
_FIELDS: Final = (0x02, _SEQUENCE, _SEQUENCE, _SEQUENCE, _SEQUENCE, _SEQUENCE)


def _parts(der: bytes) -> _Parts | None:
    """Where a certificate that cryptography has parsed has its parts; None where anything is not as expected.

    cryptography gives these only as written anew, which takes as long as all the rest."""
    try:
        inside, end = _span(der, 0)
        signed_inside, signed_end = _span(der, inside)
        algorithm_end = _span(der, signed_end)[1]
        at = _span(der, signed_inside)[1] if der[signed_inside] == _VERSION else signed_inside
        ends = []
        for tag in _FIELDS:
            if der[at] != tag:
                return None
            at = _span(der, at)[1]
            ends.append(at)
    except IndexError:
        return None
    serial, algorithm, issuer, _, subject, key_info = ends
    if not (der[0] == der[inside] == der[signed_end] == _SEQUENCE and key_info <= signed_end < algorithm_end < end):
        return None
    return _Parts(
        der[inside:signed_end],
        der[signed_end:algorithm_end],
        der[serial:algorithm],
        der[algorithm:issuer],
        der[subject:key_info],
    )


def _span(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the DER element at *at* begins and ends. Raises: IndexError, beyond the end."""
    length = der[at + 1]
    at += 2
    if length > 0x7F:
        octets = length & 0x7F
        length = int.from_bytes(der[at : at + octets])
        at += octets
    return at, at + length
