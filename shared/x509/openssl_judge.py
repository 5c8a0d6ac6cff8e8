"""OpenSSL's judgement on a path. The only module that imports pyOpenSSL.

OpenSSL judges signatures, the CA bit, keyCertSign, path lengths, name constraints and critical extensions. It takes the
first issuer whose name fits and never tries another, so it is given one path at a time: a store with one anchor, and
the certificates in between.
"""

from itertools import pairwise
from typing import Final
from weakref import WeakKeyDictionary

from OpenSSL import crypto
from OpenSSL.SSL import X509VerificationCodes

from shared.errors import CertificateMalformed, ChainInvalid, Refused, SignatureInvalid, UntrustedIssuer
from shared.x509.certificate import Certificate, CertificationPath

# X509_V_FLAG_NO_CHECK_TIME, which pyOpenSSL does not name. `path` judges dates: a store that holds no time can be kept
# and shared by threads, and dates come after the chain in the order of the steps.
_NO_CHECK_TIME: Final = 0x200000
_STORE_FLAGS: Final = crypto.X509StoreFlags.PARTIAL_CHAIN | _NO_CHECK_TIME

_V: Final = X509VerificationCodes
_SIGNATURE_ERRORS: Final = {
    _V.ERR_UNABLE_TO_DECRYPT_CERT_SIGNATURE,
    _V.ERR_UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY,
    _V.ERR_CERT_SIGNATURE_FAILURE,
}
_ISSUER_ERRORS: Final = {
    _V.ERR_UNABLE_TO_GET_ISSUER_CERT,
    _V.ERR_DEPTH_ZERO_SELF_SIGNED_CERT,
    _V.ERR_SELF_SIGNED_CERT_IN_CHAIN,
    _V.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
    _V.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE,
    _V.ERR_CERT_UNTRUSTED,
    _V.ERR_CERT_REJECTED,
    _V.ERR_SUBJECT_ISSUER_MISMATCH,
    _V.ERR_AKID_SKID_MISMATCH,
    _V.ERR_AKID_ISSUER_SERIAL_MISMATCH,
}
_CONSTRAINT_BROKEN: Final = {_V.ERR_PERMITTED_VIOLATION, _V.ERR_EXCLUDED_VIOLATION}
_CONSTRAINT_UNREADABLE: Final = {
    _V.ERR_UNSUPPORTED_NAME_SYNTAX,
    _V.ERR_UNSUPPORTED_CONSTRAINT_SYNTAX,
    _V.ERR_UNSUPPORTED_CONSTRAINT_TYPE,
    _V.ERR_SUBTREE_MINMAX,
    # OpenSSL gives this number to its limit of names times constraints
    _V.ERR_OUT_OF_MEM,
}

# What OpenSSL made of a certificate, for as long as the certificate is kept. A store never changes once it is here, so
# threads may share it.
_loaded: Final[WeakKeyDictionary[Certificate, crypto.X509]] = WeakKeyDictionary()
_stores: Final[WeakKeyDictionary[Certificate, crypto.X509Store]] = WeakKeyDictionary()


def judge(path: CertificationPath) -> Refused | None:
    """Return what OpenSSL objects to in *path*, as a refusal, or None.

    Raises: CertificateMalformed where OpenSSL cannot read a certificate that cryptography could read."""
    leaf, above = _load(path[0]), [_load(ca) for ca in path[1:-1]]
    try:
        crypto.X509StoreContext(_store(path[-1]), leaf, above).verify_certificate()
    except crypto.X509StoreContextError as objection:
        _clear_error_queue()
        return _refusal(objection, path)
    return None


def split(path: CertificationPath) -> list[CertificationPath]:
    """Cut *path* into pieces that OpenSSL can read in one way only, from the leaf up. Mostly there is one piece.

    A piece begins with the last certificate of the piece below, or with the issuer of that certificate."""
    size = len(path)
    while not _is_unambiguous(path[:size]):
        size -= 1
    if size == len(path):
        return [path]
    return [path[:size], *split(path[max(size - 1, 1) :])]


def gaps(pieces: list[CertificationPath]) -> list[tuple[Certificate, Certificate]]:
    """Return each certificate and its issuer that are in no piece together: OpenSSL does not see that signature."""
    ends = ((lower[-1], upper[0]) for lower, upper in pairwise(pieces))
    return [(cert, ca) for cert, ca in ends if cert is not ca]


def _is_unambiguous(path: CertificationPath) -> bool:
    """Whether OpenSSL, given *path*, cannot read it as another path.

    It would where the anchor could also have issued a certificate further down (it tries the anchor first), and where a
    certificate below the anchor looks as if it signed itself: a key rollover without key identifiers (RFC 4210, 4.4)
    looks so, and OpenSSL then refuses it as a mimic of the anchor."""
    anchor = path[-1]
    return not any(cert.may_be_issued_by(anchor) for cert in path[:-2]) and not any(
        cert.may_be_issued_by(cert) for cert in path[:-1]
    )


def _load(cert: Certificate) -> crypto.X509:
    """Return *cert* as OpenSSL reads it. Raises: CertificateMalformed."""
    loaded = _loaded.get(cert)
    if loaded is None:
        try:
            loaded = crypto.load_certificate(crypto.FILETYPE_ASN1, cert.der)
        except crypto.Error as error:
            raise CertificateMalformed(found="OpenSSL cannot read one of its unusual extensions", cert=cert) from error
        _loaded[cert] = loaded
    return loaded


def _store(anchor: Certificate) -> crypto.X509Store:
    """Return a store that trusts *anchor* alone. Raises: CertificateMalformed."""
    store = _stores.get(anchor)
    if store is None:
        store = crypto.X509Store()
        store.set_flags(_STORE_FLAGS)
        store.add_cert(_load(anchor))
        _stores[anchor] = store
    return store


def _clear_error_queue() -> None:
    """Clear the entries that a failed verification leaves in OpenSSL's error queue of this thread.

    The next caller would find the entries. pyOpenSSL clears the queue when it raises `crypto.Error`, and has no other
    public way."""
    try:
        crypto.load_certificate(crypto.FILETYPE_ASN1, b"")
    except crypto.Error:
        return


# ---------------------------------------------------------------------------------------------------------- refusals


def _refusal(objection: crypto.X509StoreContextError, path: CertificationPath) -> Refused:
    """Return the refusal for OpenSSL's error number."""
    number, depth, words = objection.errors
    depth = min(max(depth, 0), len(path) - 1)
    cert = path[depth]
    if number in _SIGNATURE_ERRORS:
        return SignatureInvalid(issuer=cert.issuer.text, cert=cert)
    if number in _ISSUER_ERRORS:
        return UntrustedIssuer(issuer=cert.issuer.text, cert=cert)
    if number in _CONSTRAINT_BROKEN:
        return _may_not_sign(
            _constraining(path, depth), f"its name constraints forbid {cert.subject_text} or a name in it"
        )
    if number in _CONSTRAINT_UNREADABLE:
        return _may_not_sign(
            _constraining(path, depth),
            f"its name constraints cannot be held against the names of this certificate ({words}). "
            "A device's name, email:d:type:device, is no e-mail address, so a CA with e-mail constraints cannot vouch "
            "for it: use a CA without them, or put the name in CN alone",
        )
    if number == _V.ERR_UNHANDLED_CRITICAL_EXTENSION:
        unknown = ", ".join(cert.unknown_critical_extensions)
        issue = f"has a critical extension that is unknown here ({unknown})"
    else:
        issue = f"is refused by OpenSSL: {words}"
    if depth == 0 and len(path) > 1:
        return _may_not_sign(path[1], f"the certificate {issue}", at_fault=cert)
    return _may_not_sign(cert, f"it {issue}")


def _constraining(path: CertificationPath, depth: int) -> Certificate:
    """Return the nearest CA with name constraints above *depth* (RFC 5280, 4.2.1.10)."""
    above = (ca for ca in path[depth + 1 :] if ca.has_name_constraints)
    return next(above, path[-1])


def _may_not_sign(ca: Certificate, limit: str, *, at_fault: Certificate | None = None) -> ChainInvalid:
    return ChainInvalid(subject=ca.subject_text, limit=limit, cert=at_fault or ca)
