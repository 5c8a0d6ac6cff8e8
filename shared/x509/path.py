"""May this client certificate be believed? A pure decision about chains: steps 4 and 6 to 8 of verifyClient.

    path = verify(leaf, intermediates, anchors, inactive, at)     # leaf..anchor, or raises what is wrong

Python proposes, OpenSSL judges. OpenSSL takes the first issuer whose name fits and never tries another, so two CAs of
one name (a rotation, a cross-signature) defeat it. So the issuers' names are walked here, and OpenSSL is given one
whole path at a time: a store with one anchor, and the certificates in between. It judges signatures, the CA bit,
keyCertSign, path lengths, name constraints and critical extensions. What it leaves to its caller is judged here:
strength, the extended key usage of CAs, inactive CAs, dates, and the purpose of the leaf.

Most paths are plain (`Certificate.is_plain`): of all that OpenSSL would look at, they have the signatures only, the
rest being judged here anyway. There the signatures are verified one by one, which spares OpenSSL's own parsing. Where
one does not hold, or a path is not plain, OpenSSL is asked.

All paths are tried, the shortest first, in an order that depends on the certificates alone. If none passes, the one
that got furthest through the steps speaks.

Not done here: revocation lists, certificate policies (RFC 5280, 6.1.5 (g): nobody states any for devices), identities.
"""

import datetime as dt
from collections import deque
from collections.abc import Container, Iterator, Sequence
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto
from OpenSSL.SSL import X509VerificationCodes

from shared.errors import (
    CAExpired,
    CAInactive,
    CertificateExpired,
    CertificateMalformed,
    CertificateNotYetValid,
    ChainInvalid,
    Refused,
    SignatureInvalid,
    UntrustedIssuer,
    WeakKey,
    WeakSignature,
    WrongKeyUsage,
)
from shared.x509 import certificate, strength
from shared.x509.certificate import CLIENT, Certificate
from shared.x509.distinguished_name import shown

SENT_MAX: Final = 10  # certificates a device may send
SENT_BYTES_MAX: Final = 64 * 1024  # all of them together, as DER
DEPTH_MAX: Final = 10  # certificates above the leaf on one path
ATTEMPTS_MAX: Final = 64  # times OpenSSL is asked in one decision, and, separately, single signatures looked at
STEPS_MAX: Final = 500  # paths begun in one decision
WORK_MAX: Final = 2000  # signature checks in one decision, counted as RSA-2048: 40 ms

Path = tuple[Certificate, ...]
"""Leaf..anchor."""

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
    # OpenSSL gives its names-times-constraints limit this number
    _V.ERR_OUT_OF_MEM,
}

# The steps in their order. Of several paths, the one whose fault stands furthest down speaks.
_ORDER: Final[tuple[type[Refused], ...]] = (
    UntrustedIssuer,
    CertificateMalformed,
    SignatureInvalid,
    WeakKey,
    WeakSignature,
    ChainInvalid,
    CAInactive,
    CertificateNotYetValid,
    CertificateExpired,
    CAExpired,
    WrongKeyUsage,
)
_RANK: Final = {kind: rank for rank, kind in enumerate(_ORDER)} | dict.fromkeys(
    (CertificateNotYetValid, CertificateExpired, CAExpired), _ORDER.index(CertificateNotYetValid)
)

_PURPOSES: Final = {
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CODE_SIGNING: "codeSigning",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "emailProtection",
    ExtendedKeyUsageOID.TIME_STAMPING: "timeStamping",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSPSigning",
}
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


# -------------------------------------------------------------------------------------------------------- the decision


def verify(
    leaf: Certificate,
    intermediates: Sequence[Certificate],
    anchors: Sequence[Certificate],
    inactive: Sequence[Certificate],
    at: dt.datetime,
    *,
    weak: Container[str] = frozenset(),
) -> Path:
    """The path by which *leaf* is to be believed at *at*: itself, the CAs above it, and last the anchor that vouches.

    Args:
        leaf: what the device showed.
        intermediates: what it sent after it, in any order, needed or not.
        anchors: the org's active CAs, roots or intermediates; at most 10 of one name. Each is trusted by itself and may
            also stand in the middle of a path.
        inactive: the org's inactive CAs. No path may pass through one, nor through any other certificate with its
            subject and public key.
        at: an aware time; judged in whole seconds, as certificates are written (RFC 5280, 4.1.2.5).
        weak: identifiers of known weak keys (`strength.key_ids`).

    Raises:
        Refused: one of its subclasses named in `_ORDER`, with the certificate at fault and its facts.
        ValueError: *at* is naive. That is a mistake of the caller, not of the device.
    """
    if at.utcoffset() is None:
        raise ValueError("a time without a zone is nobody's time: pass an aware datetime")
    now = at.astimezone(dt.UTC).replace(microsecond=0)
    walk = _Walk(leaf, intermediates, anchors, inactive)
    furthest: Refused | None = None
    for path in walk.paths():
        try:
            _check_keys(path, weak)
            walk.afford(path)
            _check_chain(path, walk)
            _check_active(path, walk)
            _check_dates(path, now)
            _check_purpose(leaf)
        except Refused as fault:
            if furthest is None or _RANK[type(fault)] > _RANK[type(furthest)]:
                furthest = fault
        except _OutOfAttempts:
            break
        else:
            return path
    raise furthest or walk.no_path()


def parse_presented(ders: Sequence[bytes]) -> tuple[Certificate, ...]:
    """What a device showed: its leaf, then what it sent after it, every field read. *ders* is DER, the leaf first.

    A key or signature of an unknown algorithm is readable: it is weak, which is for a later step to say.

    Raises: CertificateMalformed, also where nothing, more than 10 certificates or more than 64 KiB were sent."""
    if not 1 <= len(ders) <= SENT_MAX:
        raise CertificateMalformed(found=f"{len(ders)} certificates were sent, and 1 to {SENT_MAX} are taken")
    if (size := sum(map(len, ders))) > SENT_BYTES_MAX:
        raise CertificateMalformed(found=f"{size} bytes were sent, and at most {SENT_BYTES_MAX} are taken")
    leaf, *more = ders
    return certificate.read(certificate.parse(leaf), leaf), *map(certificate.sent, more)


def _fits(cert: Certificate, ca: Certificate) -> bool:
    """Whether *ca* can be the issuer of *cert* by name and, where both have them, by key identifiers."""
    return cert.issuer == ca.subject and _ids_fit(cert, ca)


def _ids_fit(cert: Certificate, ca: Certificate) -> bool:
    return cert.issuer_key_id is None or ca.key_id is None or cert.issuer_key_id == ca.key_id


# ------------------------------------------------------------------------------------------------------------ the walk


class _OutOfAttempts(Exception):
    """This decision has cost enough."""


class _Walk:
    """Every way from a leaf to an anchor by issuer names, and what was learned on the way."""

    def __init__(
        self,
        leaf: Certificate,
        intermediates: Sequence[Certificate],
        anchors: Sequence[Certificate],
        inactive: Sequence[Certificate],
    ) -> None:
        self.leaf = leaf
        self.inactive = {one.der for one in inactive}
        self.inactive_subjects = {one.subject for one in inactive}
        # One with a weak key is left out: no path gets past that key
        self.inactive_keys = {(one.subject, one.public_key_info) for one in inactive if one.weakness is None}
        # An inactive CA ends a path like an anchor, so that there is a path of which to say that it is inactive
        self.ends = self.inactive | {one.der for one in anchors}
        self.known = {leaf.der: leaf}
        self.named: dict[bytes, list[Certificate]] = {}
        for ca in (*anchors, *intermediates, *inactive):
            if self.known.setdefault(ca.der, ca) is ca:
                siblings = self.named.setdefault(ca.subject, [])
                if ca not in siblings:
                    siblings.append(ca)
        for siblings in self.named.values():
            if len(siblings) > 1:
                siblings.sort(key=self._preference)
        self.asked = 0
        self.work = 0
        self.verdicts: dict[tuple[Certificate, Certificate], bool | None] = {}  # did the second sign the first?
        self._dead_end: Path = (leaf,)
        self._other_key: tuple[Certificate, Certificate] | None = None

    def _preference(self, ca: Certificate) -> tuple[bool, bool, float, bytes]:
        """Anchors first, inactive ones last, then the newest; nothing that depends on the order they came in."""
        return ca.der in self.inactive, ca.der not in self.ends, -ca.ends.timestamp(), ca.der

    def paths(self) -> Iterator[Path]:
        """Each path once, the shortest first, none over a link whose signature is known to fail."""
        pending: deque[Path] = deque([(self.leaf,)])
        begun = 0
        while pending:
            path = pending.popleft()
            if any(self.verdicts.get(link) is False for link in pairwise(path)):
                continue
            top = path[-1]
            if top.der in self.ends:
                yield path
                continue
            grown = False
            for ca in self.named.get(top.issuer, ()) if len(path) <= DEPTH_MAX else ():
                if ca in path:
                    continue
                if not _ids_fit(top, ca):
                    self._other_key = self._other_key or (top, ca)
                elif begun < STEPS_MAX:
                    begun += 1
                    grown = True
                    pending.append((*path, ca))
            if not grown and len(path) > len(self._dead_end):
                self._dead_end = path

    def no_path(self) -> Refused:
        """What to say where no path led to a CA of the org."""
        if self._other_key is not None:
            cert, _ = self._other_key
            return SignatureInvalid(issuer=shown(cert.cert.issuer), cert=cert.cert)
        top = self._dead_end[-1]  # what is missing is the issuer of the last one that was sent
        return UntrustedIssuer(issuer=shown(top.cert.issuer), cert=top.cert)

    def signed(self, cert: Certificate, ca: Certificate) -> bool | None:
        """Whether *ca*'s key made the signature on *cert*; None where that cannot be told."""
        link = cert, ca
        if link not in self.verdicts:
            if len(self.verdicts) >= ATTEMPTS_MAX:
                return None
            try:
                if cert.has_unused_bits:
                    raise InvalidSignature
                cert.cert.verify_directly_issued_by(ca.cert)
            except InvalidSignature:
                self.verdicts[link] = False
            except Exception:  # noqa: BLE001 -- unknown algorithm, names equal only in canonical form, ...: no verdict
                self.verdicts[link] = None
            else:
                self.verdicts[link] = True
        return self.verdicts[link]

    def afford(self, path: Path) -> None:
        """Count what the signatures on *path* cost: with large keys, 64 long paths would take half a second.

        Raises: _OutOfAttempts."""
        self.work += sum(strength.verification_cost(ca.key) for ca in path[1:])
        if self.work > WORK_MAX:
            raise _OutOfAttempts

    def ask(self, path: Path) -> crypto.X509StoreContextError | None:
        """OpenSSL's objection to *path*, or None."""
        if self.asked >= ATTEMPTS_MAX:
            raise _OutOfAttempts
        self.asked += 1
        return _ask_openssl(path[0].openssl, [ca.openssl for ca in path[1:-1]], path[-1].store)


def _ask_openssl(
    cert: crypto.X509, above: list[crypto.X509], store: crypto.X509Store
) -> crypto.X509StoreContextError | None:
    try:
        crypto.X509StoreContext(store, cert, above).verify_certificate()
    except crypto.X509StoreContextError as objection:
        _empty_error_queue()
        return objection
    return None


def _empty_error_queue() -> None:
    """A failed verification leaves entries in this thread's OpenSSL error queue, and the next caller would find them.

    pyOpenSSL empties the queue when it raises `crypto.Error`, and has no other public way to."""
    try:
        crypto.load_certificate(crypto.FILETYPE_ASN1, b"")
    except crypto.Error:
        return


# ------------------------------------------------------------------------------------------------- step 6: the chain


def _check_keys(path: Path, weak: Container[str]) -> None:
    """First of all, because OpenSSL would spend seconds on a key of absurd size. Raises: WeakKey."""
    for one in path:
        found = one.weakness or strength.listed(one.key, weak)
        if found is not None:
            raise WeakKey(found=found, cert=one.cert)


def _check_chain(path: Path, walk: _Walk) -> None:
    """Signatures, and whether each CA may sign what stands below it.

    The signature comes first in what is said: a link that was never signed has no rules to break. It is looked at only
    where something else is wrong, because OpenSSL looks at it anyhow.

    Raises: SignatureInvalid, WeakSignature, ChainInvalid, UntrustedIssuer, CertificateMalformed."""
    try:
        for one in path[:-1]:  # an anchor is believed because the org says so; its own signature is nobody's evidence
            if not one.is_plain and one.signature_weakness is not None:  # plain: SHA-2
                raise WeakSignature(found=one.signature_weakness, cert=one.cert)
        _check_cas(path)
        if not _is_plainly_signed(path):
            _check_with_openssl(path, walk)
    except (WeakSignature, ChainInvalid):
        for cert, ca in pairwise(path):
            if walk.signed(cert, ca) is False:
                raise _not_signed(cert) from None
        raise


def _check_cas(path: Path) -> None:
    """Each certificate above the leaf is a CA that may sign device certificates, this deep (RFC 5280, 6.1.4 (k)-(n)).

    OpenSSL alone takes X.509 v1 and keyCertSign without BasicConstraints for a CA. Raises: ChainInvalid."""
    below = 0  # CAs between this one and the leaf; self-issued ones do not count (6.1.4 (l))
    for ca in path[1:] or path:
        constraints, usage, purposes = ca.constraints, ca.usage, ca.purposes
        if constraints is None or not constraints.ca:
            raise _may_not_sign(ca, "it is not a CA certificate (BasicConstraints CA:TRUE)")
        if usage is not None and not usage.key_cert_sign:
            raise _may_not_sign(ca, "its KeyUsage lacks keyCertSign")
        if constraints.path_length is not None and below > constraints.path_length:
            raise _may_not_sign(ca, f"its path length allows {constraints.path_length} CAs below it, here are {below}")
        if purposes is not None and CLIENT.isdisjoint(purposes):
            # Not in RFC 5280, which leaves it open; browsers and the CA/Browser Forum (7.1.2.10.6) read it as a limit
            raise _may_not_sign(ca, f"its ExtendedKeyUsage is {_named(purposes)}, without clientAuth")
        below += not ca.is_self_issued


def _is_plainly_signed(path: Path) -> bool:
    """Whether *path* is plain throughout and each certificate below the anchor is signed by the one above.

    False says nothing yet: OpenSSL then judges the path, and has the words for what is wrong."""
    return all(one.is_plain for one in path) and all(cert.is_signed_by(ca) for cert, ca in pairwise(path))


def _check_with_openssl(path: Path, walk: _Walk) -> None:
    """Have OpenSSL judge *path*, in pieces where it would read the whole as another path than this.

    Raises: SignatureInvalid, ChainInvalid, UntrustedIssuer, CertificateMalformed."""
    pieces = _pieces(path)
    for lower, upper in pairwise(pieces):
        if lower[-1] is not upper[0] and not walk.signed(lower[-1], upper[0]):
            raise _not_signed(lower[-1])
    for piece in pieces:
        objection = walk.ask(piece)
        if objection is not None:
            raise _refusal(objection, piece, walk)
    # OpenSSL holds each name constraint against the names in the same piece; the lowest piece has all below its top
    for ca in path[len(pieces[0]) :]:
        if ca.has_name_constraints:
            raise _may_not_sign(
                ca, "its name constraints cannot be followed past CAs of one name without key identifiers"
            )


def _pieces(path: Path) -> list[Path]:
    """*path* cut into pieces that OpenSSL can only read one way, from the leaf up; mostly one.

    A piece begins with the last certificate of the piece below, or with its issuer."""
    size = len(path)
    while not _is_plain(path[:size]):
        size -= 1
    if size == len(path):
        return [path]
    return [path[:size], *_pieces(path[max(size - 1, 1) :])]


def _is_plain(path: Path) -> bool:
    """Whether OpenSSL, given *path*, cannot read it as another.

    It would where the anchor could also have issued a certificate further down (it tries the anchor first), and where a
    certificate below the anchor looks as if it signed itself: a key rollover without key identifiers (RFC 4210, 4.4)
    looks so, and OpenSSL then refuses it as a mimic of the anchor."""
    anchor = path[-1]
    return not any(_fits(one, anchor) for one in path[:-2]) and not any(_fits(one, one) for one in path[:-1])


def _refusal(objection: crypto.X509StoreContextError, path: Path, walk: _Walk) -> Refused:
    """OpenSSL's error number as one of ours."""
    number, depth, words = objection.errors
    depth = min(max(depth, 0), len(path) - 1)
    one = path[depth]
    if number in _SIGNATURE_ERRORS:
        if depth + 1 < len(path):
            walk.verdicts[one, path[depth + 1]] = False
        return _not_signed(one)
    if number in _ISSUER_ERRORS:
        return UntrustedIssuer(issuer=shown(one.cert.issuer), cert=one.cert)
    if number in _CONSTRAINT_BROKEN:
        return _may_not_sign(
            _constraining(path, depth), f"its name constraints forbid {shown(one.cert.subject)} or a name in it"
        )
    if number in _CONSTRAINT_UNREADABLE:
        return _may_not_sign(
            _constraining(path, depth),
            f"its name constraints cannot be held against the names of this certificate ({words}). "
            "A device's name, email:d:type:device, is no e-mail address, so a CA with e-mail constraints cannot vouch "
            "for it: use a CA without them, or put the name in CN alone",
        )
    if number == _V.ERR_UNHANDLED_CRITICAL_EXTENSION:
        issue = f"has a critical extension that is unknown here ({_unknown_critical(one.cert)})"
    else:
        issue = f"is refused by OpenSSL: {words}"
    if depth == 0 and len(path) > 1:
        return _may_not_sign(path[1], f"the certificate {issue}", at_fault=one)
    return _may_not_sign(one, f"it {issue}")


def _constraining(path: Path, depth: int) -> Certificate:
    """The nearest CA with name constraints above *depth* (RFC 5280, 4.2.1.10)."""
    above = (ca for ca in path[depth + 1 :] if ca.has_name_constraints)
    return next(above, path[-1])


def _unknown_critical(cert: x509.Certificate) -> str:
    unknown = [one.oid.dotted_string for one in cert.extensions if one.critical]
    read = [
        one.oid.dotted_string
        for one in cert.extensions
        if one.critical and isinstance(one.value, x509.UnrecognizedExtension)
    ]
    return ", ".join(read or unknown)


def _may_not_sign(ca: Certificate, limit: str, *, at_fault: Certificate | None = None) -> ChainInvalid:
    return ChainInvalid(subject=shown(ca.cert.subject), limit=limit, cert=(at_fault or ca).cert)


def _not_signed(one: Certificate) -> SignatureInvalid:
    return SignatureInvalid(issuer=shown(one.cert.issuer), cert=one.cert)


def _check_active(path: Path, walk: _Walk) -> None:
    """No inactive CA stands on *path*, nor another certificate of its subject and key. Raises: CAInactive."""
    for one in path if walk.inactive else ():
        if one.subject in walk.inactive_subjects and (one.subject, one.public_key_info) in walk.inactive_keys:
            raise CAInactive(subject=shown(one.cert.subject), when="", cert=one.cert)


# ------------------------------------------------------------------------------------- step 7: dates, step 8: purpose


def _check_dates(path: Path, now: dt.datetime) -> None:
    """*now* is inside every certificate's validity, both ends included (RFC 5280, 4.1.2.5). The leaf speaks first.

    Raises: CertificateExpired for the leaf, CAExpired for a CA, CertificateNotYetValid for either."""
    leaf, *cas = path
    if now > leaf.ends:
        raise CertificateExpired(time=_time(leaf.ends), cert=leaf.cert)
    for one in path:
        if now < one.begins:
            raise CertificateNotYetValid(time=_time(one.begins), cert=one.cert)
    for ca in cas:
        if now > ca.ends:
            raise CAExpired(subject=shown(ca.cert.subject), time=_time(ca.ends), cert=ca.cert)


def _check_purpose(leaf: Certificate) -> None:
    """The leaf may be a TLS client (RFC 5280, 4.2.1.3, 4.2.1.12; RFC 5246, 7.4.6). What it does not say, it allows.

    Raises: WrongKeyUsage."""
    wanted = "client certificate (clientAuth, digitalSignature)"
    purposes, usage = leaf.purposes, leaf.usage
    if leaf.is_ca:
        raise WrongKeyUsage(found="A CA", wanted=wanted, cert=leaf.cert)
    if purposes is not None and CLIENT.isdisjoint(purposes):
        raise WrongKeyUsage(found=f"Made for {_named(purposes)}", wanted=wanted, cert=leaf.cert)
    if usage is not None and not usage.digital_signature:
        raise WrongKeyUsage(found="Lacks digitalSignature", wanted=wanted, cert=leaf.cert)


# --------------------------------------------------------------------------------------------------------------- words


def _named(purposes: x509.ExtendedKeyUsage) -> str:
    names = [_PURPOSES.get(oid, oid.dotted_string) for oid in purposes]
    return ", ".join(names[:5]) + (" and more" if len(names) > 5 else "")


def _time(moment: dt.datetime) -> str:
    """ "16 Dec 2026, 09:30 UTC", in every locale."""
    return f"{moment.day} {_MONTHS[moment.month - 1]} {moment.year}, {moment:%H:%M} UTC"
