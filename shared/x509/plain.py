"""The fast way to judge a path: plain certificates are judged without OpenSSL.

`path` checks CAs, path lengths, dates and purposes itself. For a plain certificate, OpenSSL would check only the
signature beside that. Verifying the signature here is faster, because OpenSSL need not parse the certificate. A path
that is not plain, or whose signatures do not verify, goes to `openssl_judge`. So this module refuses no path.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from shared.x509 import der, extensions, public_keys

if TYPE_CHECKING:
    from shared.x509.certificate import Certificate

# Judged in `path` and `policies`, so these may be critical. No identifier of a key may (RFC 5280, 4.2.1.1 and 4.2.1.2).
_MAY_BE_CRITICAL: Final = {
    extensions.BASIC_CONSTRAINTS,
    extensions.KEY_USAGE,
    extensions.EXTENDED_KEY_USAGE,
    extensions.SUBJECT_ALTERNATIVE_NAME,
    extensions.CERTIFICATE_POLICIES,
    extensions.POLICY_MAPPINGS,
    extensions.POLICY_CONSTRAINTS,
    extensions.INHIBIT_ANY_POLICY,
}
# OpenSSL decodes and applies these whether they are critical or not
_FOR_OPENSSL: Final = {
    extensions.NAME_CONSTRAINTS,
    der.encode_oid("1.3.6.1.5.5.7.1.7"),  # addresses and numbers of autonomous systems (RFC 3779) ...
    der.encode_oid("1.3.6.1.5.5.7.1.8"),
    der.encode_oid("1.3.6.1.5.5.7.1.28"),  # ... and their other form (RFC 8360)
    der.encode_oid("1.3.6.1.5.5.7.1.29"),
    der.encode_oid("1.3.6.1.5.5.7.1.14"),  # proxyCertInfo (RFC 3820)
    der.encode_oid("2.16.840.1.113730.1.1"),  # nsCertType
}
# Of other names, OpenSSL decodes the content
_PLAIN_NAMES: Final = {extensions.EMAIL, extensions.DNS, extensions.URI, extensions.IP_ADDRESS}


def is_plainly_signed(path: "Sequence[Certificate]") -> bool:
    """Whether *path* is plain throughout, and each certificate below the anchor is signed by the next one."""
    return all(cert.is_plain for cert in path) and all(cert.is_signed_by(ca) for cert, ca in pairwise(path))


def is_plain(cert: "Certificate") -> bool:
    """Whether OpenSSL would check nothing in *cert* beside the signature and what `path` checks.

    A plain certificate has

    * a usual signature algorithm, and a key in the usual encoding;
    * names in types of text that OpenSSL compares as `distinguished_name` does, and no unique identifiers;
    * no critical extension but those that `path` checks, and none that OpenSSL alone applies;
    * in the SubjectAltName names that OpenSSL need not decode, and CRL distribution points that are addresses.
    """
    if not cert.signature_algorithm.is_usual or cert.has_unique_ids or not public_keys.is_usual(cert.key_info):
        return False
    for oid, extension in cert.extensions.items():
        if oid in _FOR_OPENSSL or (extension.is_critical and oid not in _MAY_BE_CRITICAL):
            return False
    if not (cert.issuer.has_usual_text and cert.subject.has_usual_text):
        return False
    if cert.names and not all(tag in _PLAIN_NAMES for tag, _ in cert.names):
        return False
    points = cert.extensions.get(extensions.CRL_DISTRIBUTION_POINTS)
    if points is not None and not extensions.are_addresses(points.value):
        return False
    return cert.authority_key_id is None or cert.authority_key_id.is_usual
