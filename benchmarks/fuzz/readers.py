"""Targets for the reader of certificates: it is compared with OpenSSL and with cryptography on the same octets."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from benchmarks.fuzz import world
from benchmarks.fuzz.refusals import Run, check_refusal
from shared.errors import TrustError
from shared.x509 import der
from shared.x509 import path as certification_path
from shared.x509.certificate import Certificate
from shared.x509.public_keys import UnsupportedKey
from tests.support.certs import NOON, PrivateKey
from tests.support.differential import compare, is_explained, openssl_accepts

CORPUS: Final = Path(__file__).parent / "corpus"

_ECDSA: Final = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256, RFC 5758, 3.2
_UNREADABLE: Final = (
    *(ValueError, TypeError, UnsupportedAlgorithm),
    *(x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
)
_TEXT_TYPES: Final = {0x04, 0x0C, 0x12, 0x13, 0x14, 0x16, 0x1A, 0x1C, 0x1E}
_USAGES: Final = (  # in the order of the bits of KeyUsage
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "key_cert_sign", "crl_sign"),
)


def sign(tbs: bytes, key: PrivateKey) -> bytes:
    """Return the certificate of *tbs*, whatever it contains, with the algorithm that it names, signed with *key*."""
    match key:
        case ec.EllipticCurvePrivateKey():
            signature = key.sign(tbs, ec.ECDSA(hashes.SHA256()))
        case rsa.RSAPrivateKey():
            signature = key.sign(tbs, padding.PKCS1v15(), hashes.SHA256())
        case _:
            signature = key.sign(tbs)
    return der.encode(der.SEQUENCE, tbs, _algorithm_of(tbs), der.encode(der.BIT_STRING, b"\0", signature))


def _algorithm_of(tbs: bytes) -> bytes:
    with suppress(der.NotDER, IndexError):
        parts = der.elements(tbs)[0].children
        return parts[2 if parts[0].tag == der.CONTEXT_0 else 1].whole
    return _ECDSA


@contextmanager
def device_plain() -> Iterator[Run]:
    """Use the input as the leaf, as the CA above a valid leaf, and as the registered CA above both.

    Nothing is accepted that OpenSSL refuses, but for the identifiers of keys. On every plain path the fast way and
    OpenSSL give the same answer. What cryptography reads, it reads alike.
    """
    root, device = world.root().certificate, world.device().certificate

    def check(leaf: Certificate, sent: list[Certificate], anchor: Certificate) -> None:
        try:
            path = certification_path.verify(leaf, sent, [anchor], [], NOON)
        except TrustError as refusal:
            check_refusal(refusal)
        else:
            assert is_explained(path) or openssl_accepts(path), f"{path} is accepted, and OpenSSL refuses it"
        compare(leaf, sent, [anchor])

    def run(tbs: bytes) -> None:
        try:
            cert = Certificate.from_der(sign(tbs, world.key(1001)))  # the root's key
        except TrustError as refusal:
            check_refusal(refusal)
            return
        check_reading(cert)
        check(cert, [], root)
        check(device, [cert], root)
        check(device, [world.intermediate().certificate], cert)

    yield run


def check_reading(cert: Certificate) -> None:
    """Check that cryptography reads the same in *cert*, as far as it can read it."""
    with suppress(*_UNREADABLE):  # it reads a field when the field is first used, and raises then
        parsed = x509.load_der_x509_certificate(cert.der)
        assert cert.signed == parsed.tbs_certificate_bytes
        assert cert.signature == parsed.signature
        assert cert.serial_number == parsed.serial_number
        assert cert.not_before == parsed.not_valid_before_utc
        assert cert.not_after == parsed.not_valid_after_utc
        assert cert.fingerprints[0] == parsed.fingerprint(hashes.SHA256()).hex()
        common_names = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        text = [each.value for each in common_names if each._type.value in _TEXT_TYPES]  # not a date, for example
        assert cert.subject.common_names == text
        if not isinstance(cert.public_key, UnsupportedKey):
            assert parsed.public_key() == cert.public_key
        for extension in parsed.extensions:
            _check_extension(cert, extension.value)


def _check_extension(cert: Certificate, value: x509.ExtensionType) -> None:
    match value:
        case x509.BasicConstraints():
            assert (cert.is_ca, cert.path_length) == (value.ca, value.path_length)
        case x509.KeyUsage():
            assert cert.key_usage is not None
            named = [name for bit, name in enumerate(_USAGES) if cert.key_usage & 0x8000 >> bit]
            assert named == [name for name in _USAGES if getattr(value, name)]
        case x509.ExtendedKeyUsage():
            assert cert.purposes_by_id == tuple(purpose.dotted_string for purpose in value)
        case x509.SubjectKeyIdentifier():
            assert cert.key_id == value.digest
        case x509.AuthorityKeyIdentifier():
            assert cert.authority_key_id is not None
            assert cert.authority_key_id.key_id == value.key_identifier
            assert cert.authority_key_id.serial_number == value.authority_cert_serial_number
        case x509.SubjectAlternativeName():
            assert cert.dns_names == value.get_values_for_type(x509.DNSName)
            assert cert.email_names == value.get_values_for_type(x509.RFC822Name)


@contextmanager
def denied() -> Iterator[Run]:
    """Use the input as a certificate that a device presents after its certificate was put on the deny list.

    A certificate with the same signed part is refused, or has the fingerprint that is on the list."""
    known = {}
    for file in (CORPUS / "denied").glob("*.leaf"):
        leaf, ca = (Certificate.from_der(path.read_bytes()) for path in (file, file.with_suffix(".ca")))
        assert leaf.is_signed_by(ca)
        known[leaf.signed] = leaf.fingerprint, ca

    def run(data: bytes) -> None:
        try:
            cert = Certificate.from_der(data)
        except TrustError as refusal:
            check_refusal(refusal)
            return
        fingerprint, ca = known.get(cert.signed, ("", cert))
        if fingerprint and cert.is_signed_by(ca):
            assert fingerprint in cert.fingerprints, "a denied certificate has another fingerprint"

    yield run
