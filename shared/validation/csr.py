"""Certificate requests: the key pair, the request (PKCS#10, RFC 2986), and the certificate that comes back for it."""

import re
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from shared.errors import InvalidSubject, WrongValue
from shared.validation import server_cert
from shared.x509.private_keys import PrivateKey

KEY_ALGORITHMS: Final = ("RSA-2048", "RSA-3072", "RSA-4096", "P-256", "P-384")
COMMON_NAME_MAX: Final = 64  # characters: ub-common-name, RFC 5280 appendix A.1

_E_MAIL: Final = r"[!-?A-~]+@[!-?A-~]+"  # printable ASCII around one @
_COUNTRY: Final = r"[A-Za-z]{2}"


class _Field(msgspec.Struct, frozen=True):
    """One field of the subject: its name in a request, its attribute, and its upper bound in characters."""

    name: str
    oid: x509.ObjectIdentifier
    most: int


# In the order a distinguished name is usually written; upper bounds of RFC 5280, appendix A.1.
_COUNTRY_FIELD: Final = _Field("country", NameOID.COUNTRY_NAME, 2)
_STATE: Final = _Field("state", NameOID.STATE_OR_PROVINCE_NAME, 128)
_LOCALITY: Final = _Field("locality", NameOID.LOCALITY_NAME, 128)
_ORGANIZATION: Final = _Field("organization", NameOID.ORGANIZATION_NAME, 64)
_UNIT: Final = _Field("organizationalUnit", NameOID.ORGANIZATIONAL_UNIT_NAME, 64)
_E_MAIL_FIELD: Final = _Field("emailAddress", NameOID.EMAIL_ADDRESS, 255)


def make_key(algorithm: str = "RSA-2048") -> PrivateKey:
    """A new private key of one of KEY_ALGORITHMS.

    Raises: WrongValue."""
    match algorithm:
        case "P-256":
            return ec.generate_private_key(ec.SECP256R1())
        case "P-384":
            return ec.generate_private_key(ec.SECP384R1())
        case "RSA-2048" | "RSA-3072" | "RSA-4096":
            return rsa.generate_private_key(65537, int(algorithm.removeprefix("RSA-")))
    raise WrongValue(field="keyAlgorithm", found=f"keyAlgorithm takes {', '.join(KEY_ALGORITHMS)}")


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
    """The subject of a request for *host*, a DNS name in lower-case A-labels.

    CN is *host*, if it has no more than 64 characters. Empty fields count as not given.

    Raises: InvalidSubject, whose `field` is the request's."""
    pairs = [
        (_COUNTRY_FIELD, _country(country)),
        (_STATE, _text(state, _STATE)),
        (_LOCALITY, _text(locality, _LOCALITY)),
        (_ORGANIZATION, _text(organization, _ORGANIZATION)),
        (_UNIT, _text(organizational_unit, _UNIT)),
    ]
    attributes = [x509.NameAttribute(one.oid, value) for one, value in pairs if value]
    if len(host) <= COMMON_NAME_MAX:
        attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, host))
    if mail := _e_mail(email_address):
        attributes.append(x509.NameAttribute(NameOID.EMAIL_ADDRESS, mail))
    return x509.Name(attributes)


def make_csr(key: PrivateKey, subject: x509.Name, *, host: str) -> x509.CertificateSigningRequest:
    """A request for *host* in the name of *subject* (see `subject_name`), signed with *key*.

    SAN dNSName is *host*; critical if the subject is empty (RFC 5280, 4.2.1.6)."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=not subject.rdns)
        .sign(key, _digest_for(key))
    )


def read_signed(
    data: bytes, *, public_key: bytes | None = None
) -> tuple[x509.Certificate, tuple[x509.Certificate, ...]]:
    """The certificate that a CA sent back, and its chain if it sent one: PEM, DER or PKCS#7, in any order.

    Args:
        public_key: the request's SubjectPublicKeyInfo; without it the leaf is the certificate that issued no other.

    Raises: as server_cert.read_leaf."""
    return server_cert.read_leaf(data, public_key=public_key)


def _text(value: str | None, field: _Field) -> str:
    text = (value or "").strip()
    if not text.isprintable():
        raise InvalidSubject(
            field=field.name, found=f"{field.name} has a character that cannot be printed", hint="Type it again."
        )
    if len(text) > field.most:
        raise InvalidSubject(
            field=field.name,
            found=f"{field.name} has {len(text)} characters; at most {field.most} fit in a certificate",
            hint="Shorten it.",
        )
    return text


def _country(value: str | None) -> str:
    text = (value or "").strip()
    if text and not re.fullmatch(_COUNTRY, text):
        raise InvalidSubject(
            field="country", found="country is not a code of two letters", hint="Write it as in DE, IN or US."
        )
    return text.upper()


def _e_mail(value: str | None) -> str:
    text = _text(value, _E_MAIL_FIELD)
    if text and not re.fullmatch(_E_MAIL, text):
        raise InvalidSubject(
            field="emailAddress", found="emailAddress is not an e-mail address in ASCII", hint="Write name@example.com."
        )
    return text


def renewed_csr(
    key: PrivateKey, of: x509.CertificateSigningRequest | x509.Certificate
) -> x509.CertificateSigningRequest:
    """A new request on the same *key*, for the same subject and DNS names as *of*."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(of.subject)
    names = server_cert.dns_names(of)
    if names:
        san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(san, critical=not of.subject.rdns)
    return builder.sign(key, _digest_for(key))


def _digest_for(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384:
    """The digest that fits the key's strength (RFC 5480, section 4)."""
    curve = key.curve.name if isinstance(key, ec.EllipticCurvePrivateKey) else ""
    return hashes.SHA384() if curve == "secp384r1" else hashes.SHA256()
