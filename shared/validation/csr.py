"""Certificate requests: the key pair, the request (PKCS#10, RFC 2986), and the certificate that comes back for it."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtensionOID, NameOID

from shared.errors import InvalidSubject, WrongValue
from shared.validation import server_cert
from shared.x509.certificate import Certificate
from shared.x509.distinguished_name import DistinguishedName
from shared.x509.private_keys import PrivateKey

KEY_ALGORITHMS: Final = ("RSA-2048", "RSA-3072", "RSA-4096", "P-256", "P-384")
COMMON_NAME_MAX: Final = 64  # characters: ub-common-name, RFC 5280 appendix A.1

_E_MAIL: Final = r"[!-?A-~]+@[!-?A-~]+"  # printable ASCII around one @
_COUNTRY: Final = r"[A-Za-z]{2}"


class _Attribute(msgspec.Struct, frozen=True):
    """One attribute of the subject: its name in a request, its type, and its upper bound in characters."""

    name: str
    oid: x509.ObjectIdentifier
    limit: int


# In the order in which a distinguished name is usually written; upper bounds of RFC 5280, appendix A.1.
_COUNTRY_NAME: Final = _Attribute("country", NameOID.COUNTRY_NAME, 2)
_STATE: Final = _Attribute("state", NameOID.STATE_OR_PROVINCE_NAME, 128)
_LOCALITY: Final = _Attribute("locality", NameOID.LOCALITY_NAME, 128)
_ORGANIZATION: Final = _Attribute("organization", NameOID.ORGANIZATION_NAME, 64)
_UNIT: Final = _Attribute("organizationalUnit", NameOID.ORGANIZATIONAL_UNIT_NAME, 64)
_E_MAIL_ADDRESS: Final = _Attribute("emailAddress", NameOID.EMAIL_ADDRESS, 255)


def check_algorithm(algorithm: str) -> None:
    """Refuse what is none of KEY_ALGORITHMS. Raises: WrongValue."""
    if algorithm not in KEY_ALGORITHMS:
        raise WrongValue(part="key_algorithm", found=f"keyAlgorithm takes {', '.join(KEY_ALGORITHMS)}")


def make_key(algorithm: str = "RSA-2048") -> PrivateKey:
    """Make a private key of one of KEY_ALGORITHMS. Raises: WrongValue."""
    check_algorithm(algorithm)
    match algorithm:
        case "P-256":
            return ec.generate_private_key(ec.SECP256R1())
        case "P-384":
            return ec.generate_private_key(ec.SECP384R1())
        case _:
            return rsa.generate_private_key(65537, int(algorithm.removeprefix("RSA-")))


def subject_name(
    *,
    host: str,
    organization: str | None = None,
    organizational_unit: str | None = None,
    locality: str | None = None,
    state: str | None = None,
    country: str | None = None,
    email_address: str | None = None,
) -> x509.Name:
    """Return the subject of a request for *host*, a DNS name in lower-case A-labels.

    CN is *host*, if *host* has no more than 64 characters. Empty fields count as not given.

    Raises: InvalidSubject, whose `part` is the attribute's name."""
    pairs = [
        (_COUNTRY_NAME, _check_country(country)),
        (_STATE, _check_text(state, _STATE)),
        (_LOCALITY, _check_text(locality, _LOCALITY)),
        (_ORGANIZATION, _check_text(organization, _ORGANIZATION)),
        (_UNIT, _check_text(organizational_unit, _UNIT)),
    ]
    attributes = [x509.NameAttribute(attribute.oid, value) for attribute, value in pairs if value]
    if len(host) <= COMMON_NAME_MAX:
        attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, host))
    if mail := _check_e_mail(email_address):
        attributes.append(x509.NameAttribute(NameOID.EMAIL_ADDRESS, mail))
    return x509.Name(attributes)


def make_csr(key: PrivateKey, subject: x509.Name, *, host: str) -> x509.CertificateSigningRequest:
    """Make a request for *host* with *subject* (see `subject_name`), signed with *key*.

    SAN dNSName is *host*; critical if the subject is empty (RFC 5280, 4.2.1.6)."""
    return _sign(key, subject, [host])


def renew_csr(key: PrivateKey, old: x509.CertificateSigningRequest | Certificate) -> x509.CertificateSigningRequest:
    """Make a request on the same *key*, for the same subject and DNS names as *old*."""
    if isinstance(old, Certificate):
        return _sign(key, _copy_subject(old), old.dns_names)
    return _sign(key, old.subject, _dns_names(old))


def requested_names(request: x509.CertificateSigningRequest) -> list[str]:
    """Return the names that *request* asks for, as `server_cert.names_of` does."""
    return server_cert.lower_names([*read_subject(request).common_names, *_dns_names(request)])


def read_subject(request: x509.CertificateSigningRequest) -> DistinguishedName:
    """Return the subject of *request*."""
    return DistinguishedName(request.subject.public_bytes(), "subject")


def read_signed(
    data: bytes, *, public_key: bytes | None = None, at: datetime | None = None
) -> tuple[Certificate, tuple[Certificate, ...]]:
    """Return the certificate that a CA sent back, and its chain if the CA sent one: PEM, DER or PKCS#7, in any order.

    Args:
        public_key: the request's SubjectPublicKeyInfo; without it the leaf is the certificate that issued no other.
        at: see server_cert.sort_chain.

    Raises: as server_cert.read_leaf."""
    return server_cert.read_leaf(data, public_key=public_key, at=at)


def _copy_subject(cert: Certificate) -> x509.Name:
    """Return the subject of *cert*; only its common names where cryptography cannot read the certificate."""
    try:
        return x509.load_der_x509_certificate(cert.der).subject
    except Exception:  # noqa: BLE001 -- cryptography refuses some certificates that OpenSSL and this service read
        names = [name for name in cert.subject.common_names if 1 <= len(name) <= COMMON_NAME_MAX]
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])


def _sign(key: PrivateKey, subject: x509.Name, names: Sequence[str]) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(san, critical=not subject.rdns)
    return builder.sign(key, _digest_for(key))


def _digest_for(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384:
    """Return the digest that fits the key's strength (RFC 5480, section 4)."""
    curve = key.curve.name if isinstance(key, ec.EllipticCurvePrivateKey) else ""
    return hashes.SHA384() if curve == "secp384r1" else hashes.SHA256()


def _dns_names(request: x509.CertificateSigningRequest) -> list[str]:
    try:
        san = request.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except x509.ExtensionNotFound:
        return []
    return san.get_values_for_type(x509.DNSName) if isinstance(san, x509.SubjectAlternativeName) else []


# ------------------------------------------------------------------------------------------------- subject attributes


def _check_text(value: str | None, attribute: _Attribute) -> str:
    text = (value or "").strip()
    if not text.isprintable():
        raise InvalidSubject(
            part=attribute.name,
            found=f"{attribute.name} has a character that cannot be printed",
            hint="Type it again.",
        )
    if len(text) > attribute.limit:
        raise InvalidSubject(
            part=attribute.name,
            found=f"{attribute.name} has {len(text)} characters; at most {attribute.limit} fit in a certificate",
            hint="Shorten it.",
        )
    return text


def _check_country(value: str | None) -> str:
    text = (value or "").strip()
    if text and not re.fullmatch(_COUNTRY, text):
        raise InvalidSubject(
            part="country", found="country is not a code of two letters", hint="Write it as in DE, IN or US."
        )
    return text.upper()


def _check_e_mail(value: str | None) -> str:
    text = _check_text(value, _E_MAIL_ADDRESS)
    if text and not re.fullmatch(_E_MAIL, text):
        raise InvalidSubject(
            part="emailAddress", found="emailAddress is not an e-mail address in ASCII", hint="Write name@example.com."
        )
    return text
