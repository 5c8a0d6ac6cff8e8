"""When a messaging server certificate is accepted: five rules.

Reading (rules 1 and 2): the files -> leaf, sorted chain, key that fit together.
Checking (rules 2 to 5): that leaf and chain may be shown to this organization's devices.
"""

from collections.abc import Container, Iterable, Sequence
from datetime import datetime
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from shared.errors import (
    ChainBroken,
    ChainTooLong,
    HostMismatch,
    KeyMismatch,
    KeyUnsupported,
    PrivateKeyMissing,
    SelfSignatureInvalid,
    WrongKeyUsage,
)
from shared.validation.ca import has_harmless_signature, is_self_issued, is_self_signed, is_signed_by
from shared.validation.names import messaging_host
from shared.validation.notices import Notice
from shared.x509 import pem
from shared.x509 import private_keys as key_files
from shared.x509.distinguished_name import canonical, digest, shown
from shared.x509.private_keys import PrivateKey, public_bytes
from shared.x509.strength import check_key, check_signature, describe_key
from shared.x509.validity import check_validity

CHAIN_MAX: Final = 10  # certificates after the leaf
FILES_MAX: Final = 256 * 1024  # bytes of one file: a whole request's worth
RSA_BITS: Final = range(2048, 4096 + 1)
CURVES: Final = ("secp256r1", "secp384r1")

_NAMES_SHOWN: Final = 5
_PURPOSES: Final = {
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.CODE_SIGNING: "codeSigning",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "emailProtection",
    ExtendedKeyUsageOID.TIME_STAMPING: "timeStamping",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSPSigning",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "anyExtendedKeyUsage",
}


class ServerCertificate(msgspec.Struct, frozen=True):
    """A server's certificate with what is sent after it, in that order, and its private key."""

    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    private_key: PrivateKey

    def __repr__(self) -> str:
        """Without the private key."""
        return f"ServerCertificate({self.leaf!r}, {len(self.chain)} above it)"


# ----------------------------------------------------------------------------------------------------- reading


def has_private_key(certificate: bytes) -> bool:
    """Whether the certificate's own file brings the private key: PKCS#12, or a PEM bundle."""
    return key_files.looks_like_pkcs12(certificate) or key_files.holds_private_key(certificate)


def read_leaf(
    certificate: bytes, *, chain: bytes | None = None, public_key: bytes | None = None
) -> tuple[x509.Certificate, tuple[x509.Certificate, ...]]:
    """The leaf and its sorted chain, from PEM, DER or PKCS#7 in any order; the same certificate twice counts once.

    The leaf is the certificate of *public_key* (a SubjectPublicKeyInfo) or, where none is given, the one that issued
    no other.

    Raises: TooLarge, NotACertificate, CSRGiven, PrivateKeyGiven, WeakKey, ChainTooLong, ChainBroken; KeyMismatch
    where no certificate is of *public_key*."""
    found = _read(certificate, field="certificate")
    if chain:
        found += _read(chain, field="chain")
    found = list(dict.fromkeys(found))
    leaf = _issuer_of_none(found) if public_key is None else _of_key(found, public_key)
    return leaf, sorted_chain(leaf, [one for one in found if one is not leaf])


def read_server_certificate(
    certificate: bytes, *, chain: bytes | None = None, private_key: bytes | None = None, passphrase: str | None = None
) -> ServerCertificate:
    """A server certificate whose key and chain belong to it, from the files of one upload.

    Args:
        certificate: PEM, DER or PKCS#7, with its chain or not, with its key or not; or PKCS#12.
        chain: more certificates, in any order.
        private_key: its key; wins over one in a PEM *certificate*, and is left aside where PKCS#12 brings its own.
        passphrase: of an encrypted key; an empty one is none.

    Raises: PrivateKeyMissing, and what read_leaf and key_files.load_private_key raise."""
    if key_files.looks_like_pkcs12(certificate):
        key, leaf, others = key_files.load_pkcs12(certificate, passphrase)
        others += _read(chain, field="chain") if chain else []
        return ServerCertificate(leaf, sorted_chain(leaf, [one for one in dict.fromkeys(others) if one != leaf]), key)
    if private_key:
        key = key_files.load_private_key(private_key, passphrase)
    elif key_files.holds_private_key(certificate):
        key = key_files.load_private_key(certificate, passphrase, limit=FILES_MAX, field="certificate")
    else:
        read_leaf(certificate, chain=chain)  # what is wrong with the certificate is said first
        raise PrivateKeyMissing(field="privateKey")
    leaf, sent = read_leaf(certificate, chain=chain, public_key=public_bytes(key))
    return ServerCertificate(leaf, sent, key)


def sorted_chain(leaf: x509.Certificate, others: Sequence[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """*others* so that each signed the one before, the first one *leaf* (RFC 8446, 4.4.2).

    Raises: ChainTooLong; WeakKey (a chain key is judged before it is used); ChainBroken, naming a certificate that
    has no place in it."""
    if len(others) > CHAIN_MAX:
        raise ChainTooLong(field="chain", n=len(others), limit=CHAIN_MAX)
    chain: list[x509.Certificate] = []
    rest, last = list(others), leaf
    while rest:
        named = [one for one in rest if canonical(one.subject) == canonical(last.issuer)]
        for one in named:
            check_key(one.public_key(), cert=one)
        issuer = next((one for one in named if is_signed_by(last, one)), None)
        if issuer is None:
            culprit = (named or rest)[0]
            raise ChainBroken(field="chain", cert=culprit, subject=shown(culprit.subject))
        rest.remove(issuer)
        chain.append(issuer)
        last = issuer
    return tuple(chain)


def _read(data: bytes, *, field: str) -> list[x509.Certificate]:
    return pem.read_certificates(data, limit=FILES_MAX, at_most=2 * (CHAIN_MAX + 1), field=field)


def _of_key(certs: Sequence[x509.Certificate], public_key: bytes) -> x509.Certificate:
    for one in certs:
        if public_bytes(one) == public_key:
            return one
    raise KeyMismatch(field="privateKey", cert=certs[0])


def _issuer_of_none(certs: Sequence[x509.Certificate]) -> x509.Certificate:
    for one in certs:
        name = canonical(one.subject)
        if not any(canonical(other.issuer) == name for other in certs if other is not one):
            return one
    return certs[0]


# ---------------------------------------------------------------------------------------------------- checking


def check_server_certificate(
    leaf: x509.Certificate,
    chain: Sequence[x509.Certificate],
    *,
    host: str,
    custom_domains: Sequence[str],
    platform_domain: str,
    org_id: str,
    at: datetime,
    weak: Container[str] = frozenset(),
) -> list[Notice]:
    """Refuse *leaf* as a messaging server certificate of *org_id*, or tell what its operator should know.

    Args:
        chain: as sorted_chain gives it.
        host: the org's messaging host under *platform_domain*.
        custom_domains: those the org has listed, lower-case A-labels.
        at: the time that counts, aware.
        weak: the published keys, as strength.check_key takes them.

    Raises: KeyUnsupported, WeakKey, WeakSignature, SelfSignatureInvalid, CertificateExpired,
    CertificateNotYetValid, WrongKeyUsage, HostMismatch."""
    _check_as_server(leaf, chain, at=at, weak=weak)
    _check_hosts(leaf, host=host, custom_domains=custom_domains, platform_domain=platform_domain, org_id=org_id)
    return _notices(leaf, chain)


def check_default_certificate(
    leaf: x509.Certificate,
    chain: Sequence[x509.Certificate],
    *,
    platform_domain: str,
    at: datetime,
    weak: Container[str] = frozenset(),
) -> list[Notice]:
    """Refuse *leaf* as the platform's default, or tell what its operator should know: it serves every org's host.

    Raises: as check_server_certificate; HostMismatch where it does not name `*.messaging.` and the domain."""
    _check_as_server(leaf, chain, at=at, weak=weak)
    host = messaging_host("*", platform_domain)
    if host not in names_of(leaf):
        raise _host_mismatch(leaf, names_of(leaf), host, note="")
    return _notices(leaf, chain)


def _check_as_server(
    leaf: x509.Certificate, chain: Sequence[x509.Certificate], *, at: datetime, weak: Container[str]
) -> None:
    """All that does not depend on whose host it is for."""
    _check_own_key(leaf, weak)
    check_signature(leaf)
    for one in chain:
        if not has_harmless_signature(one):
            check_signature(one)
    if is_self_issued(leaf) and not is_self_signed(leaf) and not chain:
        raise SelfSignatureInvalid(field="certificate", cert=leaf)
    check_validity(leaf, at=at)
    _check_purpose(leaf)


def _notices(leaf: x509.Certificate, chain: Sequence[x509.Certificate]) -> list[Notice]:
    if is_self_signed(leaf):
        message = "Browsers refuse this certificate until it is added to them; devices need it in their trust store."
        return [Notice("self_signed", message)]
    if is_chain_complete(leaf, chain):
        return []
    message = (
        f"Its issuer, {shown(leaf.issuer)}, was not sent with it. Devices that do not have that one in their "
        "trust store will not connect; upload it again with its intermediates."
    )
    return [Notice("chain_incomplete", message)]


def is_chain_complete(leaf: x509.Certificate, chain: Sequence[x509.Certificate]) -> bool:
    """Whether devices get all they need beside their own trust store, as far as can be told from what was sent.

    A root is usually left out (RFC 8446, 4.4.2), so a chain that leads to an issuer not sent is complete. A leaf
    alone is complete only if it is self-signed: whether its issuer is a root in the devices' stores or an
    intermediate cannot be seen."""
    return bool(chain) or is_self_signed(leaf)


def root_of(leaf: x509.Certificate, chain: Sequence[x509.Certificate]) -> tuple[str, str]:
    """The root that devices must trust: its name's digest, to compare, and its name, to show. It need not be sent."""
    top = [leaf, *chain][-1]
    return digest(top.issuer), shown(top.issuer)


def names_of(leaf: x509.Certificate | x509.CertificateSigningRequest) -> list[str]:
    """The CN and every SAN dNSName as DNS names, in lower case, each once; other text in a CN is returned as well."""
    texts = [str(one.value) for one in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return list(dict.fromkeys(text.lower() for text in (*texts, *dns_names(leaf))))


def dns_names(of: x509.Certificate | x509.CertificateSigningRequest) -> list[str]:
    """Every SAN dNSName, as it stands."""
    try:
        san = of.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except x509.ExtensionNotFound:
        return []
    return san.get_values_for_type(x509.DNSName) if isinstance(san, x509.SubjectAlternativeName) else []


def hosts_covered(leaf: x509.Certificate, hosts: Iterable[str]) -> list[str]:
    """Those of *hosts* for which *leaf* speaks, by CN or SAN dNSName (RFC 9525, 6.3; CN: RFC 6125, 6.4.4).

    Case does not count. A wildcard is the whole leftmost label and stands for exactly one label."""
    names = set(names_of(leaf))
    covered = []
    for host in hosts:
        _, _, parent = host.lower().partition(".")
        if host.lower() in names or f"*.{parent}" in names:
            covered.append(host)
    return covered


def _check_own_key(leaf: x509.Certificate, weak: Container[str]) -> None:
    """RSA 2048 to 4096, P-256, P-384: what MQTT clients and edges take."""
    key = leaf.public_key()
    match key:
        case rsa.RSAPublicKey() if key.key_size in RSA_BITS:
            pass
        case ec.EllipticCurvePublicKey() if key.curve.name in CURVES:
            pass
        case _:
            raise KeyUnsupported(field="certificate", cert=leaf, key=describe_key(key))
    check_key(key, weak=weak, cert=leaf)


def _check_purpose(leaf: x509.Certificate) -> None:
    """serverAuth, where there is an ExtendedKeyUsage (RFC 5280, 4.2.1.12)."""
    try:
        usage = leaf.extensions.get_extension_for_oid(ExtensionOID.EXTENDED_KEY_USAGE).value
    except x509.ExtensionNotFound:
        return
    if isinstance(usage, x509.ExtendedKeyUsage) and ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        made_for = ", ".join(_PURPOSES.get(one, one.dotted_string) for one in list(usage)[:_NAMES_SHOWN])
        raise WrongKeyUsage(
            field="certificate", cert=leaf, found=f"Made for {made_for}", wanted="server certificate (serverAuth)"
        )


def _check_hosts(
    leaf: x509.Certificate, *, host: str, custom_domains: Sequence[str], platform_domain: str, org_id: str
) -> None:
    names = names_of(leaf)
    foreign = [one for one in names if one != host.lower() and _is_under(one, platform_domain)]
    if foreign:
        kind = "a wildcard: would" if any("*" in one for one in foreign) else "would"
        raise _host_mismatch(leaf, foreign, host, note=f" ({kind} speak for other orgs)")
    hosts = [host, *(messaging_host(org_id, domain) for domain in custom_domains)]
    if not hosts_covered(leaf, hosts):
        raise _host_mismatch(leaf, names, host, note="")


def _is_under(name: str, domain: str) -> bool:
    """Whether *name* is *domain* or below it, also where white space, a root dot or a NUL, which ends a name for
    clients written in C, tries to hide that."""
    seen = name.partition("\0")[0].strip().rstrip(".")
    return f".{seen}".endswith(f".{domain.lower()}")


def _host_mismatch(leaf: x509.Certificate, names: Sequence[str], host: str, *, note: str) -> HostMismatch:
    some = [_printable(one) for one in names[:_NAMES_SHOWN]]
    if len(names) > len(some):
        some.append(f"{len(names) - len(some)} more")
    return HostMismatch(
        field="certificate", cert=leaf, names=", ".join(some) or "no DNS name at all", host=host, note=note
    )


def _printable(name: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in name[:253])
