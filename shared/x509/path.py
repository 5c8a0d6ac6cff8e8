"""Certification paths (RFC 5280, 6.1): a pure decision about chains, steps 4 and 6 to 8 of verifyClient.

    path = verify(leaf, intermediates, anchors, inactive, at)     # leaf..anchor, or raises what is wrong

`PathBuilder` follows issuers' names and tries every path, because two CAs may share a name (a rotation, a
cross-signature). Each path is then checked here: keys, strength of signatures, CAs and their path lengths, the extended
key usage of CAs, certificate policies (`policies`), inactive CAs, dates, and the purpose of the leaf. Signatures, name
constraints and critical extensions are checked by `plain`, where the signatures are all that is left to check, or else
by OpenSSL (`openssl_judge`).

The shortest paths are tried first, in an order that depends on the certificates alone. If none passes, the refusal of
the path that got furthest through the steps is raised.

Not checked here: revocation lists, identities.
"""

import datetime as dt
from collections import deque
from collections.abc import Container, Iterator, Sequence
from itertools import pairwise
from typing import Final

from shared.errors import (
    CAExpired,
    CAInactive,
    CertificateExpired,
    CertificateMalformed,
    CertificateNotYetValid,
    ChainInvalid,
    ChainTooCostly,
    Refused,
    SelfSigned,
    SignatureInvalid,
    UntrustedIssuer,
    WeakKey,
    WeakSignature,
    WrongKeyUsage,
)
from shared.text import format_age, format_time
from shared.x509 import strength
from shared.x509.budget import Budget
from shared.x509.certificate import Certificate, CertificationPath
from shared.x509.moment import Moment
from shared.x509.plain import is_plainly_signed
from shared.x509.policies import find_missing_policy

DEPTH_MAX: Final = 10  # certificates above the leaf on one path

_PURPOSES_SHOWN: Final = 5  # in a refusal

# How far a path got before it was refused. Of several paths, the refusal of the path that got furthest is raised.
_PROGRESS: Final[dict[type[Refused], int]] = {
    UntrustedIssuer: 0,
    SelfSigned: 0,
    CertificateMalformed: 1,
    SignatureInvalid: 2,
    WeakKey: 3,
    WeakSignature: 4,
    ChainInvalid: 5,
    ChainTooCostly: 5,
    CAInactive: 6,
    CertificateNotYetValid: 7,
    CertificateExpired: 7,
    CAExpired: 7,
    WrongKeyUsage: 8,
}


def verify(
    leaf: Certificate,
    intermediates: Sequence[Certificate],
    anchors: Sequence[Certificate],
    inactive: Sequence[Certificate],
    at: dt.datetime,
    *,
    weak: Container[str] = frozenset(),
    budget: Budget | None = None,
) -> CertificationPath:
    """Return the first of `good_paths` at *at*, an aware time. The other arguments and the refusals: see there.

    Raises: ValueError where *at* is naive."""
    return next(good_paths(leaf, intermediates, anchors, inactive, Moment(at), weak=weak, budget=budget))


def good_paths(
    leaf: Certificate,
    intermediates: Sequence[Certificate],
    anchors: Sequence[Certificate],
    inactive: Sequence[Certificate],
    moment: Moment,
    *,
    weak: Container[str] = frozenset(),
    avoided: Container[bytes] = frozenset(),
    budget: Budget | None = None,
) -> Iterator[CertificationPath]:
    """Yield each path by which *leaf* is trusted at *moment*: the leaf, the CAs above it, and last its anchor.

    The next path is looked for when the caller asks for it, and costs no more than going on. There is at least one
    path, or a refusal; after the first path, a spent budget ends the search.

    Args:
        leaf: what the device presented.
        intermediates: what the device sent after its leaf, in any order, needed or not.
        anchors: the org's active CAs, roots or intermediates; at most 10 of one name. Each is trusted by itself and may
            also be in the middle of a path.
        inactive: the org's inactive CAs. No path may pass through one, nor through another certificate with its
            subject and public key, unless that certificate is one of *anchors*.
        moment: the time that counts. It records every comparison with a date.
        weak: identifiers of known weak keys (`public_keys.key_ids`).
        avoided: certificates, as DER, that no path may have. The caller may add to them between two paths.
        budget: of the whole decision; None: a new one.

    Raises:
        Refused: one of its subclasses in `_PROGRESS`, with the certificate at fault and its facts.
        and what the budget's time limit raises.
    """
    builder = PathBuilder(leaf, intermediates, anchors, inactive, budget)
    furthest: Refused | None = None
    is_found = False
    try:
        for path in builder.paths(avoided):
            try:
                builder.check_keys(path, weak)
                builder.budget.charge_path(path)
                _check_chain(path, builder)
                _check_active(path, builder)
                _check_dates(path, moment)
                _check_purpose(leaf)
            except ChainTooCostly:
                raise
            except Refused as refusal:
                furthest = _further(furthest, refusal)
            else:
                is_found = True
                yield path
    except ChainTooCostly as refusal:
        furthest = _further(furthest, refusal)
    if not is_found:
        raise furthest or builder.no_path()


def _further(one: Refused | None, other: Refused) -> Refused:
    """Return the refusal of the path that got further; the first one, if both got equally far."""
    return one if one is not None and _PROGRESS[type(one)] >= _PROGRESS[type(other)] else other


# -------------------------------------------------------------------------------------------------------- candidates


class PathBuilder:
    """Every path from a leaf to an anchor by issuers' names, within one budget.

    Remembers the results of verified signatures, and which keys are not weak."""

    def __init__(
        self,
        leaf: Certificate,
        intermediates: Sequence[Certificate],
        anchors: Sequence[Certificate],
        inactive: Sequence[Certificate],
        budget: Budget | None = None,
    ) -> None:
        self.budget = Budget() if budget is None else budget
        self._leaf = leaf
        self._inactive = {ca.der for ca in inactive}
        self._inactive_subjects = {ca.subject.canonical for ca in inactive}
        # A CA with a weak key is left out: no path gets past that key
        self._inactive_keys = {(ca.subject.canonical, ca.public_key_info) for ca in inactive if ca.weakness is None}
        self._anchors = {ca.der for ca in anchors}
        # An inactive CA ends a path like an anchor, so that the path can be refused as inactive
        self._ends = self._inactive | self._anchors
        self._cas_by_name: dict[bytes, list[Certificate]] = {}
        known = {leaf.der}
        for ca in (*anchors, *intermediates, *inactive):
            if ca.der not in known:
                known.add(ca.der)
                self._cas_by_name.setdefault(ca.subject.canonical, []).append(ca)
        for name, siblings in self._cas_by_name.items():
            if len(siblings) > 1:
                siblings.sort(key=self._preference)
                self._cas_by_name[name] = self.budget.take_namesakes(siblings)
        self._strong: set[bytes] = set()
        self._signed: dict[
            tuple[Certificate, Certificate], bool | None
        ] = {}  # (certificate, CA) -> whether the CA signed it
        self._dead_end: CertificationPath = (leaf,)

    def _preference(self, ca: Certificate) -> tuple[bool, bool, float, bytes]:
        """Anchors first, inactive ones last, then the newest; nothing that depends on the order of the arguments."""
        return ca.der in self._inactive, ca.der not in self._ends, -ca.not_after.timestamp(), ca.der

    def paths(self, avoided: Container[bytes] = frozenset()) -> Iterator[CertificationPath]:
        """Return each path once, the shortest first, none over a link whose signature is known to fail.

        *avoided*: certificates, as DER, that no path has. Raises: ChainTooCostly, and what the time limit raises."""
        pending: deque[CertificationPath] = deque([(self._leaf,)])
        while pending:
            path = pending.popleft()
            if self._signed and any(self._signed.get(link) is False for link in pairwise(path)):
                continue
            if avoided and any(cert.der in avoided for cert in path):
                continue
            top = path[-1]
            if top.der in self._ends:
                yield path
                continue
            has_grown = False
            named = self._cas_by_name.get(top.issuer.canonical, ()) if len(path) <= DEPTH_MAX else ()
            # Key identifiers order the candidates and exclude none (RFC 5280, 4.2.1.1). The sort is stable.
            for ca in named if len(named) < 2 else sorted(named, key=top.has_key_id_of, reverse=True):
                if ca in path:
                    continue
                self.budget.charge_step()
                has_grown = True
                pending.append((*path, ca))
            if not has_grown and len(path) > len(self._dead_end):
                self._dead_end = path

    def no_path(self) -> Refused:
        """Return the refusal for a leaf from which no path leads to a CA of the org."""
        top = self._dead_end[-1]  # the issuer of the last certificate that was sent is missing
        is_own_issuer = top is self._leaf and top.is_self_issued and not top.is_ca and top.weakness is None
        if is_own_issuer and self.is_signed(top, top):
            return SelfSigned(issuer=top.issuer.text, cert=top)
        return UntrustedIssuer(issuer=top.issuer.text, cert=top)

    def is_signed(self, cert: Certificate, ca: Certificate) -> bool | None:
        """Whether the key of *ca* made the signature on *cert*; None where OpenSSL must judge, or the budget is spent.

        OpenSSL judges a link whose algorithm is weak (but for RSA-PSS), unknown or for another kind of key, and a link
        whose two names are equal in canonical form only."""
        link = cert, ca
        if link not in self._signed:
            is_clear = (
                (cert.signature_weakness is None or cert.signature_algorithm.is_pss)
                and cert.signature_algorithm.fits(ca.public_key)
                and cert.issuer.der == ca.subject.der
            )
            if is_clear and not self.budget.may_verify_link(ca):
                return None
            self._signed[link] = cert.is_signed_by(ca) if is_clear else None
        return self._signed[link]

    def check_keys(self, path: CertificationPath, weak: Container[str]) -> None:
        """Check keys first, because OpenSSL would spend seconds on a key of absurd size. Raises: WeakKey."""
        for cert in path:
            if cert.der not in self._strong:
                strength.check_key(cert, weak=weak)
                self._strong.add(cert.der)

    def check_signatures(self, path: CertificationPath) -> None:
        """Check what is left of *path*: its signatures, name constraints and critical extensions.

        Raises: SignatureInvalid, ChainInvalid, UntrustedIssuer, CertificateMalformed."""
        if is_plainly_signed(path):
            return
        self._check_key_ids(path)
        self._check_with_openssl(path)

    def _check_key_ids(self, path: CertificationPath) -> None:
        """Refuse *path*, which OpenSSL must judge, for a link whose key identifiers differ, as OpenSSL would.

        Raises: SignatureInvalid, ChainInvalid."""
        for cert, ca in pairwise(path):
            if not cert.has_key_id_of(ca):
                if not self.is_signed(cert, ca):
                    raise _not_signed(cert)
                raise _may_not_sign(
                    ca,
                    f"its subject key identifier is not the authority key identifier of {cert.subject_text}, "
                    "and a path with unusual extensions needs the same identifier",
                )

    def _check_with_openssl(self, path: CertificationPath) -> None:
        """Have OpenSSL judge *path*, in pieces where it would read the whole as another path."""
        # Imported here: importing pyOpenSSL takes 5 ms of a cold start, and a plain path does without it
        from shared.x509 import openssl_judge

        pieces = openssl_judge.split(path)
        for cert, ca in openssl_judge.gaps(pieces):
            if not self.is_signed(cert, ca):
                raise _not_signed(cert)
        for piece in pieces:
            self.budget.charge_question()
            refusal = openssl_judge.judge(piece)
            if refusal is not None:
                self._note_signature(refusal, piece)
                raise refusal
        # OpenSSL may take certificates with one issuer name and serial number for each other, and judge another path.
        # A CA must not issue such certificates (RFC 5280, 4.1.2.2), but a device may send them.
        if len({(cert.issuer.canonical, cert.serial_number) for cert in path}) < len(path):
            self.budget.charge_signatures(path)
            for cert, ca in pairwise(path):
                if not (cert.signature_algorithm.fits(ca.public_key) and cert.is_signed_by(ca)):
                    raise _not_signed(cert)
        # OpenSSL holds each name constraint against the names in the same piece; the lowest piece has all below its top
        for ca in path[len(pieces[0]) :]:
            if ca.has_name_constraints:
                raise _may_not_sign(
                    ca, "its name constraints cannot be followed past CAs of one name without key identifiers"
                )

    def _note_signature(self, refusal: Refused, path: CertificationPath) -> None:
        """Remember the link whose signature failed, so that no other path over it is tried."""
        if isinstance(refusal, SignatureInvalid):
            for link in pairwise(path):
                if link[0] is refusal.cert:
                    self._signed[link] = False

    @property
    def has_inactive(self) -> bool:
        """Whether the organization has an inactive CA that matters here."""
        return bool(self._inactive)

    def is_inactive(self, cert: Certificate) -> bool:
        """Whether *cert* is an inactive CA, or another certificate with the subject and key of one.

        A certificate that the organization registered and that is active is judged by itself: a renewed CA keeps its
        devices when its predecessor is deactivated."""
        if cert.der in self._anchors:
            return False
        subject = cert.subject.canonical
        return subject in self._inactive_subjects and (subject, cert.public_key_info) in self._inactive_keys


# ------------------------------------------------------------------------------------------------- step 6: the chain


def _check_chain(path: CertificationPath, builder: PathBuilder) -> None:
    """Check signatures, and whether each CA may sign what is below it.

    The refusal of a failed signature comes before all others. Only if another check fails first are the signatures
    verified one by one, to find such a failure.

    Raises: SignatureInvalid, WeakSignature, ChainInvalid, UntrustedIssuer, CertificateMalformed."""
    try:
        for cert in path[:-1]:  # an anchor's own signature proves nothing
            if cert.signature_weakness is not None:
                strength.check_signature(cert)
        _check_cas(path)
        _check_policies(path)
        builder.check_signatures(path)
    except ChainTooCostly:
        raise
    except (WeakSignature, ChainInvalid):
        for cert, ca in pairwise(path):
            if builder.is_signed(cert, ca) is False:
                raise _not_signed(cert) from None
        raise


def _check_cas(path: CertificationPath) -> None:
    """Check that each certificate above the leaf may sign the certificates below it (RFC 5280, 6.1.4 (k)-(n)).

    OpenSSL alone takes X.509 v1 and keyCertSign without BasicConstraints for a CA. Raises: ChainInvalid."""
    below = 0  # CAs between this CA and the leaf; self-issued ones do not count (6.1.4 (l))
    for ca in path[1:] or path:
        if not ca.is_ca:
            raise _may_not_sign(ca, "it is not a CA certificate (BasicConstraints CA:TRUE)")
        if not ca.may_sign_certificates:
            raise _may_not_sign(ca, "its KeyUsage lacks keyCertSign")
        if ca.path_length is not None and below > ca.path_length:
            raise _may_not_sign(ca, f"its path length allows {ca.path_length} CAs below it, here are {below}")
        if not ca.is_for_clients:
            # Not in RFC 5280, which leaves it open; browsers and the CA/Browser Forum (7.1.2.10.6) read it as a limit
            raise _may_not_sign(ca, f"its ExtendedKeyUsage is {_format_purposes(ca)}, without clientAuth")
        below += not ca.is_self_issued


def _check_policies(path: CertificationPath) -> None:
    """Check that a policy is valid for *path*, where a certificate of it requires one (RFC 5280, 6.1.5 (g)).

    Raises: ChainInvalid; CertificateMalformed where policies cannot be read that are needed here."""
    cert = find_missing_policy(path)
    if cert is not None:
        raise _may_not_sign(
            cert,
            "it requires a certificate policy (requireExplicitPolicy), and no policy is valid for all certificates "
            "below the registered CA",
        )


def _check_active(path: CertificationPath, builder: PathBuilder) -> None:
    """Refuse an inactive CA on *path*, or a certificate with its subject and key. Raises: CAInactive."""
    for cert in path if builder.has_inactive else ():
        if builder.is_inactive(cert):
            raise CAInactive(subject=cert.subject_text, when="", cert=cert)


def _may_not_sign(ca: Certificate, limit: str) -> ChainInvalid:
    return ChainInvalid(subject=ca.subject_text, limit=limit, cert=ca)


def _not_signed(cert: Certificate) -> SignatureInvalid:
    return SignatureInvalid(issuer=cert.issuer.text, cert=cert)


# ------------------------------------------------------------------------------------- step 7: dates, step 8: purpose


def _check_dates(path: CertificationPath, moment: Moment) -> None:
    """Check that *moment* is inside every certificate's validity, both ends included (RFC 5280, 4.1.2.5).

    The refusal of an expired leaf comes first.

    Raises: CertificateExpired for the leaf, CAExpired for a CA,
    CertificateNotYetValid for either."""
    leaf, *cas = path
    if moment.is_after(leaf.not_after):
        raise CertificateExpired(time=format_time(leaf.not_after), age=format_age(leaf.not_after, moment.at), cert=leaf)
    for cert in path:
        if moment.is_before(cert.not_before):
            age = format_age(cert.not_before, moment.at)
            raise CertificateNotYetValid(time=format_time(cert.not_before), age=age, cert=cert)
    for ca in cas:
        if moment.is_after(ca.not_after):
            age = format_age(ca.not_after, moment.at)
            raise CAExpired(subject=ca.subject_text, time=format_time(ca.not_after), age=age, cert=ca)


def _check_purpose(leaf: Certificate) -> None:
    """Check that the leaf may be a TLS client (RFC 5280, 4.2.1.3, 4.2.1.12; RFC 5246, 7.4.6).

    An absent extension sets no limit.

    Raises: WrongKeyUsage."""
    if leaf.is_ca:
        raise WrongKeyUsage(found=_IS_CA, wanted="with basicConstraints=CA:FALSE", cert=leaf)
    if not leaf.is_for_clients:
        found = f"The certificate is for {_format_purposes(leaf)} only, and not for TLS clients"
        raise WrongKeyUsage(found=found, wanted="with extendedKeyUsage=clientAuth", cert=leaf)
    if not leaf.may_sign_data:
        found = "The key usage of the certificate does not include digitalSignature"
        raise WrongKeyUsage(found=found, wanted="with keyUsage=digitalSignature", cert=leaf)


_IS_CA: Final = "This certificate is marked as a CA (CA:TRUE). A device certificate must say CA:FALSE"


def _format_purposes(cert: Certificate) -> str:
    purposes = cert.purposes
    more = " and more" if len(purposes) > _PURPOSES_SHOWN else ""
    return ", ".join(purposes[:_PURPOSES_SHOWN]) + more
