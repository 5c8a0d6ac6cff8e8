"""The fast way to judge a path: plain certificates are judged without OpenSSL.

`path` checks CAs, path lengths, dates and purposes itself. For a plain certificate, OpenSSL would check only the
signature beside that. Verifying the signature here is faster, because OpenSSL need not parse the certificate. A path
that is not plain, or whose signatures do not verify, goes to `openssl_judge`. So this module refuses no path.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from shared.x509.algorithms import USUAL

if TYPE_CHECKING:
    from shared.x509.certificate import Certificate

_EXTENSIONS: Final[set[type[x509.ExtensionType]]] = {
    x509.AuthorityKeyIdentifier,
    x509.BasicConstraints,
    x509.ExtendedKeyUsage,
    x509.KeyUsage,
    x509.SubjectAlternativeName,
    x509.SubjectKeyIdentifier,
}
_KEY_IDS: Final[set[type[x509.ExtensionType]]] = {x509.AuthorityKeyIdentifier, x509.SubjectKeyIdentifier}
_LONG_HEADER: Final = 4  # octets: tag, the number of length octets, and two of these
_RSA_ENCRYPTION: Final = bytes.fromhex("300d06092a864886f70d0101010500")  # RFC 4055, 1.2: not a key for PSS alone
# How a SubjectPublicKeyInfo begins whose curve is named (RFC 5480, 2.1.1) and whose point is not compressed
_NAMED_CURVES: Final = (
    bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"),
    bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004"),
    bytes.fromhex("30819b301006072a8648ce3d020106052b810400230381860004"),
)


def is_plainly_signed(path: "Sequence[Certificate]") -> bool:
    """Whether *path* is plain throughout, and each certificate below the anchor is signed by the next one."""
    return all(cert.is_plain for cert in path) and all(
        cert.signature_algorithm.fits(ca.public_key) and cert.is_signed_by(ca) for cert, ca in pairwise(path)
    )


def is_plain(cert: "Certificate") -> bool:
    """Whether OpenSSL would check nothing in *cert* beside the signature and what `path` checks.

    A plain certificate has

    * one algorithm, inside and outside, of those that nearly all certificates have;
    * extensions of six kinds and no other, critical or not; key identifiers are not critical (RFC 5280, 4.2.1.1 and
      4.2.1.2);
    * names in the usual types of text;
    * a key in the usual encoding.
    """
    if not (cert.has_one_algorithm and cert.algorithm_identifier in USUAL):
        return False
    if not cert.extensions.keys() <= _EXTENSIONS or not cert.critical_extensions.isdisjoint(_KEY_IDS):
        return False
    if cert.extensions and not cert.is_version_3:
        return False
    above = cert.extensions.get(x509.AuthorityKeyIdentifier)
    if isinstance(above, x509.AuthorityKeyIdentifier) and (
        above.authority_cert_issuer is not None or above.key_identifier is None
    ):
        return False
    if not (cert.issuer.has_usual_text and cert.subject.has_usual_text):
        return False
    if isinstance(cert.public_key, rsa.RSAPublicKey):
        return cert.key_info.startswith(_RSA_ENCRYPTION, _LONG_HEADER)
    return cert.key_info.startswith(_NAMED_CURVES)
