"""When a messaging server certificate is accepted: five rules.

Reading (rules 1 and 2): the files -> leaf, sorted chain, key that fit together.
Checking (rules 2 to 5): that an edge may present leaf and chain to this organization's devices.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import takewhile
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from shared.errors import (
    ChainBroken,
    ChainTooLong,
    HostMismatch,
    KeyMismatch,
    KeyUnsupported,
    PassphraseRequired,
    PassphraseWrong,
    PrivateKeyMissing,
    Rejected,
    SelfSignatureInvalid,
    WeakKey,
    WrongKeyUsage,
)
from shared.text import printable
from shared.validation.ca import has_harmless_signature
from shared.validation.names import messaging_host
from shared.validation.notices import Notice
from shared.x509 import extensions
from shared.x509.certificate import Certificate, Extension
from shared.x509.certificate_files import BUNDLE_MAX, Part, read_certificates
from shared.x509.file_forms import unwrap
from shared.x509.pkcs12 import load_pkcs12, looks_like_pkcs12
from shared.x509.private_key_files import holds_private_key, load_private_key
from shared.x509.private_keys import PrivateKey
from shared.x509.public_keys import describe_key, public_key_info
from shared.x509.strength import check_key, check_signature

CHAIN_MAX: Final = 10  # certificates after the leaf
RSA_BITS: Final = range(2048, 4096 + 1)
CURVES: Final = ("secp256r1", "secp384r1")

_LIMITS: Final = {
    extensions.BASIC_CONSTRAINTS,
    extensions.KEY_USAGE,
    extensions.EXTENDED_KEY_USAGE,
    extensions.NAME_CONSTRAINTS,
}
_SHOWN_MAX: Final = 5  # names or purposes in a refusal
_NAME_MAX: Final = 253  # characters of a name in a refusal


class CertificateWithKey(msgspec.Struct, frozen=True):
    """A server's certificate, the certificates sent after it in that order, and its private key."""

    leaf: Certificate
    chain: tuple[Certificate, ...]
    private_key: PrivateKey

    def __repr__(self) -> str:
        """Without the private key."""
        return f"CertificateWithKey({self.leaf!r}, {len(self.chain)} above it)"


# ----------------------------------------------------------------------------------------------------- reading


def has_private_key(certificate: bytes) -> bool:
    """Whether the certificate's own file brings the private key: PKCS#12, or a PEM bundle."""
    certificate = unwrap(certificate)
    return looks_like_pkcs12(certificate) or holds_private_key(certificate)


def read_leaf(
    certificate: bytes, *, chain: bytes | None = None, public_key: bytes | None = None, at: datetime | None = None
) -> tuple[Certificate, tuple[Certificate, ...]]:
    """Return the leaf and its sorted chain, from PEM, DER or PKCS#7 in any order. A repeated certificate counts once.

    The leaf is the certificate of *public_key* (a SubjectPublicKeyInfo) or, without one, the certificate that issued no
    other. *at*: see sort_chain.

    Raises: TooLarge, NotACertificate, CSRGiven, PrivateKeyGiven, WeakKey, ChainTooLong, ChainBroken; KeyMismatch
    where no certificate is of *public_key*."""
    certs = _read(certificate, part="certificate")
    if chain:
        certs += _read(chain, part="chain")
    certs = list(dict.fromkeys(certs))
    leaf = _find_leaf(certs) if public_key is None else _find_by_key(certs, public_key)
    return leaf, sort_chain(leaf, [cert for cert in certs if cert is not leaf], at)


def read_server_certificate(
    certificate: bytes,
    *,
    chain: bytes | None = None,
    private_key: bytes | None = None,
    passphrase: str | None = None,
    at: datetime | None = None,
) -> CertificateWithKey:
    """Return a server certificate whose key and chain belong to it, from the files of one upload.

    Args:
        certificate: PEM, DER or PKCS#7, with its chain or not, with its key or not; or PKCS#12.
        chain: more certificates, in any order.
        private_key: its key. It takes precedence over a key in a PEM *certificate*, and is ignored where PKCS#12 brings
            its own.
        passphrase: of an encrypted key; an empty one counts as not given.
        at: see sort_chain.

    Raises: PrivateKeyMissing, and what read_leaf and private_key_files.load_private_key raise."""
    try:
        return _read_server_certificate(certificate, chain, private_key, passphrase, at)
    except PassphraseWrong:
        typed = (passphrase or "").rstrip("\r\n")
        if typed == passphrase or not _opens(certificate, private_key, typed):
            raise
    raise PassphraseWrong(
        part="passphrase",
        found="The passphrase does not open the key. It ends with a line break",
        hint="Remove the line break at the end of the passphrase.",
    )


def _opens(certificate: bytes, private_key: bytes | None, passphrase: str) -> bool:
    try:
        _read_server_certificate(certificate, None, private_key, passphrase, None)
    except (PassphraseWrong, PassphraseRequired):
        return False
    except Rejected:  # the key was opened, and something else is wrong
        return True
    return True


def _read_server_certificate(
    certificate: bytes, chain: bytes | None, private_key: bytes | None, passphrase: str | None, at: datetime | None
) -> CertificateWithKey:
    certificate = unwrap(certificate)
    if looks_like_pkcs12(certificate):
        key, leaf, others = load_pkcs12(certificate, passphrase)
        others += _read(chain, part="chain") if chain else []
        others = [cert for cert in dict.fromkeys(others) if cert != leaf]
        return CertificateWithKey(leaf, sort_chain(leaf, others, at), key)
    if private_key:
        key = load_private_key(private_key, passphrase)
    elif holds_private_key(certificate):
        key = load_private_key(certificate, passphrase, limit=BUNDLE_MAX, part="certificate")
    else:
        read_leaf(certificate, chain=chain)  # what is wrong with the certificate is said first
        raise PrivateKeyMissing(part="private_key")
    leaf, above = read_leaf(certificate, chain=chain, public_key=public_key_info(key.public_key()), at=at)
    return CertificateWithKey(leaf, above, key)


def sort_chain(leaf: Certificate, others: Sequence[Certificate], at: datetime | None = None) -> tuple[Certificate, ...]:
    """Return the chain of *leaf* out of *others*: each certificate signed the one before, the first one *leaf*.

    RFC 8446, section 4.4.2, says this order. Where several certificates have one name and one key, as a root and its
    cross-signed form have, one of them is returned, a form that is valid *at* that time: see `_rank`. Without *at*, the
    start of the leaf's validity counts.

    Raises: ChainTooLong; WeakKey (a chain key is judged before it is used); ChainBroken, naming a certificate that
    has no place in the chain."""
    if len(others) > CHAIN_MAX:
        raise ChainTooLong(part="chain", n=len(others), limit=CHAIN_MAX)
    chain: list[Certificate] = []
    rest, last = list(dict.fromkeys(others)), leaf
    while True:
        named = [cert for cert in rest if cert.subject.canonical == last.issuer.canonical]
        for cert in named:
            check_key(cert)
        issuers = [cert for cert in named if last.is_signed_by(cert)]
        if not issuers:
            break
        last = _best_form(issuers, rest, at or leaf.not_before)
        rest = [cert for cert in rest if _identity(cert) != _identity(last)]
        chain.append(last)
    # What is left may have signed a form that is left out.
    left_out = [cert for cert in others if cert not in chain and cert not in rest]
    while signers := [cert for cert in rest if any(form.is_signed_by(cert) for form in left_out)]:
        left_out += signers
        rest = [cert for cert in rest if cert not in signers]
    if rest:
        named = [cert for cert in rest if cert.subject.canonical == last.issuer.canonical]
        culprit = (named or rest)[0]
        raise ChainBroken(part="chain", cert=culprit, subject=culprit.subject_text)
    return tuple(chain)


def _best_form(forms: Sequence[Certificate], others: Sequence[Certificate], at: datetime) -> Certificate:
    if len(forms) == 1:  # no signature needs to be verified
        return forms[0]
    return min(forms, key=lambda form: _rank(form, others, at))


def _rank(form: Certificate, others: Sequence[Certificate], at: datetime) -> tuple[bool, bool, bool, float]:
    """Return the rank of a form of a cross-signed CA; the form with the smallest rank is served.

    A form that is valid comes first; then a form that another CA signed, because a device may trust either CA; then a
    form whose own issuer is among *others* and is valid; then the form that expires last."""
    has_issuer = any(
        _is_valid(cert, at) and _identity(cert) != _identity(form) and _has_signed(cert, form)
        for cert in others
        if cert.subject.canonical == form.issuer.canonical
    )
    return not _is_valid(form, at), form.is_self_issued, not has_issuer, -form.not_after.timestamp()


def _is_valid(cert: Certificate, at: datetime) -> bool:
    return cert.not_before <= at <= cert.not_after


def _has_signed(ca: Certificate, cert: Certificate) -> bool:
    try:
        check_key(ca)
    except WeakKey:
        return False
    return cert.is_signed_by(ca)


def _identity(cert: Certificate) -> tuple[bytes, bytes]:
    """Return what the forms of a cross-signed certificate have in common: subject and key."""
    return cert.subject.canonical, cert.public_key_info


def _read(data: bytes, *, part: Part) -> list[Certificate]:
    return read_certificates(data, limit=BUNDLE_MAX, at_most=2 * (CHAIN_MAX + 1), part=part)


def _find_by_key(certs: Sequence[Certificate], public_key: bytes) -> Certificate:
    """Return the certificate of *public_key*, a SubjectPublicKeyInfo. Raises: KeyMismatch."""
    for cert in certs:
        if cert.public_key_info == public_key:
            return cert
    raise KeyMismatch(part="private_key", cert=certs[0])


def _find_leaf(certs: Sequence[Certificate]) -> Certificate:
    """Return the first certificate that issued no other, or else the first one."""
    for cert in certs:
        name = cert.subject.canonical
        if not any(other.issuer.canonical == name for other in certs if other is not cert):
            return cert
    return certs[0]


# ---------------------------------------------------------------------------------------------------- checking


def check_server_certificate(
    leaf: Certificate,
    chain: Sequence[Certificate],
    *,
    host: str,
    custom_domains: Sequence[str],
    platform_domain: str,
    org_id: str,
    at: datetime,
    weak: Container[str] = frozenset(),
) -> list[Notice]:
    """Refuse *leaf* as a messaging server certificate of *org_id*, or return warnings for its operator.

    Args:
        chain: as sort_chain returns it.
        host: the org's messaging host under *platform_domain*.
        custom_domains: those the org has listed, lower-case A-labels.
        at: the time that counts, aware.
        weak: the published keys, as strength.check_key takes them.

    Raises: KeyUnsupported, WeakKey, WeakSignature, SelfSignatureInvalid, CertificateExpired,
    CertificateNotYetValid, WrongKeyUsage, HostMismatch."""
    _check_as_server(leaf, chain, at=at, weak=weak)
    _check_hosts(leaf, host=host, custom_domains=custom_domains, platform_domain=platform_domain, org_id=org_id)
    return warnings_for(leaf, chain)


def check_default_certificate(
    leaf: Certificate,
    chain: Sequence[Certificate],
    *,
    platform_domain: str,
    at: datetime,
    weak: Container[str] = frozenset(),
) -> list[Notice]:
    """Refuse *leaf* as the platform's default, or return warnings for its operator. It serves every org's host.

    Raises: as check_server_certificate; HostMismatch where *leaf* does not name `*.messaging.` and the domain."""
    _check_as_server(leaf, chain, at=at, weak=weak)
    host = messaging_host("*", platform_domain)
    if host not in names_of(leaf):
        raise _host_mismatch(leaf, names_of(leaf), host, note="")
    return warnings_for(leaf, chain)


def _check_as_server(leaf: Certificate, chain: Sequence[Certificate], *, at: datetime, weak: Container[str]) -> None:
    """Check all rules that do not depend on the host."""
    _check_own_key(leaf, weak)
    check_signature(leaf)
    for cert in chain:
        if not has_harmless_signature(cert):
            check_signature(cert)
    if leaf.is_self_issued and not leaf.is_self_signed and not chain:
        raise SelfSignatureInvalid(part="certificate", cert=leaf)
    leaf.check_dates(at)
    _check_purpose(leaf)


def warnings_for(leaf: Certificate, chain: Sequence[Certificate]) -> list[Notice]:
    """Return warnings about a server certificate that is accepted with *chain*."""
    if leaf.is_self_signed:
        message = "Browsers refuse this certificate until it is added to them; devices need it in their trust store."
        return [Notice("self_signed", message)]
    if is_chain_complete(leaf, chain):
        return []
    message = (
        f"The issuer of the certificate, {leaf.issuer.text}, is not in its chain. Devices without this issuer in their "
        "trust store will not connect. Upload the certificate again with its intermediate certificates, which must be "
        "valid now."
    )
    return [Notice("chain_incomplete", message)]


def is_chain_complete(leaf: Certificate, chain: Sequence[Certificate]) -> bool:
    """Whether devices get all they need beside their own trust store, as far as the certificates sent can show.

    A root is usually left out (RFC 8446, 4.4.2), so a chain that leads to an issuer not sent is complete. A leaf
    alone is complete only if it is self-signed: its issuer may be a root in the devices' stores or an intermediate."""
    return bool(chain) or leaf.is_self_signed


def adds_to_chain(sent: Sequence[Certificate], stored: Sequence[Certificate], at: datetime) -> bool:
    """Whether a chain that was *sent* again has a certificate that the *stored* chain of the leaf does not have.

    A certificate counts as present if a renewed form is: see `_has_form`. The first sent certificate that is not valid
    adds nothing, and neither do the certificates after it: see `_usable`."""
    return not all(_has_form(stored, cert, sent, at) for cert in _usable(sent, at))


def lost_from_chain(sent: Sequence[Certificate], stored: Sequence[Certificate], at: datetime) -> Sequence[Certificate]:
    """Return the certificates that devices would lose if *sent* replaced the *stored* chain of the same leaf.

    The first stored certificate that is not valid does not count, and neither do the certificates after it: see
    `_usable`."""
    return [cert for cert in _usable(stored, at) if not _has_form(sent, cert, stored, at)]


def _usable(chain: Sequence[Certificate], at: datetime) -> Iterator[Certificate]:
    """Return the certificates before the first that is not valid: no device accepts a path through that certificate."""
    return takewhile(lambda cert: _is_valid(cert, at), chain)


def _has_form(
    chain: Sequence[Certificate], cert: Certificate, chain_of_cert: Sequence[Certificate], at: datetime
) -> bool:
    """Whether *chain* has *cert*, or a renewed form of *cert* that has begun and has a later end."""
    return cert in chain or any(
        form.not_before <= at
        and form.not_after > cert.not_after
        and _identity(form) == _identity(cert)
        and _limits(form) == _limits(cert)
        and _have_one_issuer(form, cert, [*chain, *chain_of_cert])
        for form in chain
    )


def _limits(cert: Certificate) -> dict[bytes, Extension]:
    """Return the extensions that can make devices refuse a chain with this certificate."""
    return {oid: extension for oid, extension in cert.extensions.items() if extension.is_critical or oid in _LIMITS}


def _have_one_issuer(form: Certificate, cert: Certificate, known: Sequence[Certificate]) -> bool:
    """Whether one CA issued both certificates: one name, and one key by key identifier or by a *known* certificate.

    The name alone is not enough: a new root may have the name of the old root."""
    if form.issuer.canonical != cert.issuer.canonical:
        return False
    key_id = _issuer_key_id(cert)
    if key_id is not None and key_id == _issuer_key_id(form):
        return True
    return any(_has_signed(ca, form) and _has_signed(ca, cert) for ca in known)


def _issuer_key_id(cert: Certificate) -> bytes | None:
    return cert.authority_key_id.key_id if cert.authority_key_id is not None else None


def root_of(leaf: Certificate, chain: Sequence[Certificate]) -> tuple[str, str]:
    """Return the name of the root that devices must trust: its digest, to compare, and its text, to show.

    The root itself need not be sent."""
    top = [leaf, *chain][-1]
    return top.issuer.digest, top.issuer.text


def names_of(leaf: Certificate) -> list[str]:
    """Return the CN and every SAN dNSName in lower case, each once. Text in a CN that is no DNS name is included."""
    return lower_names([*leaf.subject.common_names, *leaf.dns_names])


def lower_names(names: Iterable[str]) -> list[str]:
    """Return *names* in lower case, each once."""
    return list(dict.fromkeys(name.lower() for name in names))


def hosts_covered(leaf: Certificate, hosts: Iterable[str]) -> list[str]:
    """Return those of *hosts* that *leaf* names, in CN or SAN dNSName (RFC 9525, 6.3; CN: RFC 6125, 6.4.4).

    Case does not count. A wildcard is the whole leftmost label and matches exactly one label."""
    names = set(names_of(leaf))
    covered = []
    for host in hosts:
        _, _, parent = host.lower().partition(".")
        if host.lower() in names or f"*.{parent}" in names:
            covered.append(host)
    return covered


def _check_own_key(leaf: Certificate, weak: Container[str]) -> None:
    """Check for a key that MQTT clients and edges support: RSA 2048 to 4096, P-256, P-384.

    Raises: KeyUnsupported, WeakKey."""
    key = leaf.public_key
    match key:
        case rsa.RSAPublicKey() if key.key_size in RSA_BITS:
            pass
        case ec.EllipticCurvePublicKey() if key.curve.name in CURVES:
            pass
        case _:
            raise KeyUnsupported(part="certificate", cert=leaf, key=describe_key(key))
    check_key(leaf, weak=weak)


def _check_purpose(leaf: Certificate) -> None:
    """Check for serverAuth, if there is an ExtendedKeyUsage (RFC 5280, 4.2.1.12). Raises: WrongKeyUsage."""
    if not leaf.is_for_servers:
        raise WrongKeyUsage(
            part="certificate",
            cert=leaf,
            found=f"The certificate is for {', '.join(leaf.purposes[:_SHOWN_MAX])} only, and not for TLS servers",
            wanted="with extendedKeyUsage=serverAuth",
        )


def _check_hosts(
    leaf: Certificate, *, host: str, custom_domains: Sequence[str], platform_domain: str, org_id: str
) -> None:
    names = names_of(leaf)
    foreign = [name for name in names if name != host.lower() and _is_under(name, platform_domain)]
    if foreign:
        kind = "a wildcard: " if any("*" in name for name in foreign) else ""
        raise _host_mismatch(
            leaf, foreign, host, note=f" ({kind}the certificate would be valid for other organizations)"
        )
    hosts = [host, *(messaging_host(org_id, domain) for domain in custom_domains)]
    if not hosts_covered(leaf, hosts):
        raise _host_mismatch(leaf, names, host, note="")


def _is_under(name: str, domain: str) -> bool:
    """Whether *name* is *domain* or below it.

    White space, a root dot and all text from a NUL on are ignored, as some clients ignore them."""
    visible = name.partition("\0")[0].strip().rstrip(".")
    return f".{visible}".endswith(f".{domain.lower()}")


def _host_mismatch(leaf: Certificate, names: Sequence[str], host: str, *, note: str) -> HostMismatch:
    texts = [printable(name, _NAME_MAX) for name in names[:_SHOWN_MAX]]
    if len(names) > len(texts):
        texts.append(f"{len(names) - len(texts)} more")
    return HostMismatch(
        part="certificate", cert=leaf, names=", ".join(texts) or "no DNS name at all", host=host, note=note
    )
