"""Which certificates are plain, and that both judgements agree on the paths that they make."""

import itertools
import subprocess
import sys
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from shared.errors import CertificateMalformed
from shared.x509.certificate import Certificate
from shared.x509.certificate_files import read_one_certificate
from shared.x509.path import verify
from shared.x509.plain import is_plainly_signed
from tests.support import certs
from tests.support.certs import CLIENT_AUTH, NOON, SERVER_AUTH, Issued
from tests.support.differential import compare
from tests.support.openssl import OpenSSL

K = certs.key
ROOT = certs.ca("Root", private=K("P-256", 1))
INTER = certs.ca("Inter", ROOT, private=K("P-256", 2))
LEAF = certs.leaf("d:thermo:42", INTER)


def test_a_leaf_without_extensions_is_plain() -> None:
    assert certs.leaf("d:thermo:42", ROOT).certificate.is_plain


def unusual() -> dict[str, Issued]:
    constraints = x509.NameConstraints([x509.DNSName("example.com")], None)
    by_two_names = x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(ROOT.cert.subject)] * 2, 7)
    by_address = x509.AuthorityKeyIdentifier(None, [x509.DNSName("ca.example")], 7)
    other_name = x509.SubjectAlternativeName([x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00")])
    directory_name = x509.SubjectAlternativeName([x509.DirectoryName(certs.name("x"))])
    relative = x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    points = x509.CRLDistributionPoints([x509.DistributionPoint(None, relative, None, None)])
    blocks = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.7"), b"\x30\x00")  # RFC 3779
    proxy = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14"), b"\x30\x00")  # RFC 3820
    more: dict[str, x509.ExtensionType] = {
        "name constraints": constraints,
        "issuer by two names": by_two_names,
        "issuer by address": by_address,
        "other name": other_name,
        "directory name": directory_name,
        "distribution point by name": points,
        "address blocks": blocks,
        "proxy": proxy,
    }
    return {
        **{name: certs.leaf("d:thermo:42", ROOT, more=[(value, False)]) for name, value in more.items()},
        "K-256": certs.leaf("d:thermo:42", ROOT, private=K("K-256", 2)),
    }


@pytest.mark.parametrize("name", unusual())
def test_what_openssl_might_object_to_is_not_plain(name: str) -> None:
    assert not unusual()[name].certificate.is_plain


def test_rsa_pss_is_not_plain() -> None:
    key = K("RSA-2048", 1)
    assert isinstance(key, rsa.RSAPrivateKey)
    builder = (
        x509.CertificateBuilder()
        .subject_name(certs.name("d:thermo:42"))
        .issuer_name(ROOT.cert.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOON)
        .not_valid_after(NOON + certs.YEAR)
    )
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    with_pss, without = builder.sign(key, hashes.SHA256(), rsa_padding=pss), builder.sign(key, hashes.SHA256())
    assert not Certificate.from_der(with_pss.public_bytes(Encoding.DER)).is_plain
    assert Certificate.from_der(without.public_bytes(Encoding.DER)).is_plain


def test_a_curve_that_is_written_out_is_not_plain(openssl: OpenSSL) -> None:
    """The same numbers as P-256's, so cryptography reads it; OpenSSL refuses such keys."""
    openssl("ecparam -name prime256v1 -genkey -noout -param_enc explicit -out key.pem")
    openssl("req -x509 -new -key key.pem -subj /CN=d:thermo:42 -days 30 -out cert.pem")
    cert = read_one_certificate(openssl.bytes("cert.pem"))
    assert isinstance(cert.public_key, ec.EllipticCurvePublicKey)
    assert cert.has_curve_parameters
    assert not cert.is_plain


def test_an_algorithm_that_differs_inside_and_outside_is_refused() -> None:
    """RFC 5280, 4.1.1.2: only the outer one is not signed."""
    sha256, sha384 = bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06082a8648ce3d040303")
    head, outer, tail = LEAF.der.rpartition(sha256)
    assert outer
    with pytest.raises(CertificateMalformed, match="its signatureAlgorithm is not the algorithm in the signed part"):
        Certificate.from_der(head + sha384 + tail)


def usual() -> dict[str, tuple[x509.ExtensionType, bool]]:
    """Extensions that fleets have and that OpenSSL does not apply."""
    url = x509.UniformResourceIdentifier("http://ca.example/ca.crl")
    by_serial = x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(ROOT.cert.issuer)], ROOT.cert.serial_number)
    access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, url)
    return {
        "unknown": (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05"), False),
        "policies": (x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3.5"), None)]), False),
        "critical policies": (
            x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3.5"), None)]),
            True,
        ),
        "policy constraints": (x509.PolicyConstraints(0, 0), True),
        "inhibit any policy": (x509.InhibitAnyPolicy(0), True),
        "issuer by serial": (by_serial, False),
        "OCSP": (x509.AuthorityInformationAccess([access]), False),
        "CRL": (x509.CRLDistributionPoints([x509.DistributionPoint([url], None, None, None)]), False),
        "addresses": (x509.SubjectAlternativeName([url, x509.IPAddress(ip_address("10.0.0.7"))]), True),
    }


@pytest.mark.parametrize("name", usual())
def test_what_openssl_does_not_apply_is_plain(name: str) -> None:
    assert certs.leaf("d:thermo:42", ROOT, more=[usual()[name]]).certificate.is_plain


def test_a_leaf_for_clients_with_everything_is_plain() -> None:
    keys = [
        (x509.SubjectKeyIdentifier.from_public_key(LEAF.key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(ROOT.key.public_key()), False),
        (x509.BasicConstraints(False, None), True),
    ]
    usage = certs.usage(digital_signature=True)
    leaf = certs.leaf(
        "d:thermo:42", ROOT, emails=["d:thermo:42"], extended_key_usage=[CLIENT_AUTH], key_usage=usage, more=keys
    )
    assert leaf.certificate.is_plain


# --------------------------------------------------------------------------- both judgements on a corpus of plain paths

_KINDS = ["RSA-2048", "RSA-3072", "P-256", "P-384", "P-521", "Ed25519", "Ed448"]
_EXTENSIONS = {
    "none": [],
    "not a CA": [(x509.BasicConstraints(False, None), True)],
    "key id": [(x509.SubjectKeyIdentifier(b"own"), False)],
    "names": [(x509.SubjectAlternativeName([x509.RFC822Name("d:thermo:42"), x509.DNSName("*")]), True)],
    "for clients": [(x509.ExtendedKeyUsage([CLIENT_AUTH]), True)],
    "for servers": [(x509.ExtendedKeyUsage([SERVER_AUTH]), False)],
    "signs": [(certs.usage(digital_signature=True), True)],
    "signs certificates": [(certs.usage(key_cert_sign=True), False)],
    "issuer's key id": [(x509.AuthorityKeyIdentifier(b"inter", None, None), False)],
    "another key id": [(x509.AuthorityKeyIdentifier(b"other", None, None), False)],
}


def three(kinds: tuple[str, str, str], *, forger: str | None = None, at: int = 0) -> list[Issued]:
    """Return leaf, intermediate and root with keys of *kinds*; the *forger* signed the certificate *at*."""
    of_root, of_inter, of_leaf = kinds
    forged = K(forger, 9) if forger else None
    root = certs.ca("Root", private=K(of_root, 1))
    signer = Issued(root.cert, forged) if forged and at == 1 else root
    inter = certs.ca("Inter", signer, private=K(of_inter, 2))
    leaf = certs.leaf("d:thermo:42", inter, private=K(of_leaf, 3), signing_key=forged if at == 0 else None)
    return [leaf, inter, root]


@pytest.mark.parametrize("kinds", list(itertools.product(["RSA-2048", "P-256", "P-384"], repeat=3)), ids="-".join)
def test_good_paths_of_every_kind_of_key_pass_both(kinds: tuple[str, str, str]) -> None:
    leaf, inter, root = (issued.certificate for issued in three(kinds))
    assert compare(leaf, [inter], [root]) == 1
    assert is_plainly_signed((leaf, inter, root))


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("forger", _KINDS)
@pytest.mark.parametrize("kind", _KINDS)
def test_forged_paths_of_every_kind_of_key_pass_neither(kind: str, forger: str, at: int) -> None:
    """A key of the same kind, or of another, signed the leaf or the intermediate in place of the issuer's key."""
    leaf, inter, root = (issued.certificate for issued in three((kind, kind, kind), forger=forger, at=at))
    assert compare(leaf, [inter], [root]) == 1
    assert not is_plainly_signed((leaf, inter, root))


@pytest.mark.parametrize("name", _EXTENSIONS)
@pytest.mark.parametrize("forged", [False, True])
def test_both_agree_whatever_plain_extensions_a_leaf_has(name: str, forged: bool) -> None:
    inter = certs.ca("Inter", ROOT, private=K("P-256", 2), more=[(x509.SubjectKeyIdentifier(b"inter"), False)])
    signing_key = K("P-256", 9) if forged else None
    leaf = certs.leaf("d:thermo:42", inter, more=_EXTENSIONS[name], signing_key=signing_key)  # type: ignore[arg-type]
    assert leaf.certificate.is_plain
    assert compare(leaf.certificate, [inter.certificate], [ROOT.certificate]) == 1


@pytest.mark.filterwarnings("ignore")  # cryptography warns of odd values
@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80])
def test_both_agree_on_a_leaf_with_one_changed_octet(mask: int) -> None:
    """Nothing that can be read passes one judgement and fails the other."""
    compared = 0
    for at in range(len(LEAF.der)):
        changed = bytearray(LEAF.der)
        changed[at] ^= mask
        try:
            leaf = Certificate.from_der(bytes(changed))
        except CertificateMalformed:
            continue
        compared += compare(leaf, [INTER.certificate], [ROOT.certificate])
    assert compared > 50


def test_a_serial_number_used_twice_does_not_hide_a_path() -> None:
    """Root, rolled-over root and leaf with one serial number. OpenSSL takes the root for its successor, and refuses."""
    keys = [(x509.SubjectKeyIdentifier(b"old"), False)], [(x509.SubjectKeyIdentifier(b"new"), False)]
    by_old, by_new = ([(x509.AuthorityKeyIdentifier(each, None, None), False)] for each in (b"old", b"new"))
    old = certs.ca("Roll", private=K("P-256", 1), serial=7, more=keys[0])
    new = certs.ca("Roll", old, private=K("P-256", 2), serial=7, more=[*keys[1], *by_old])
    path = [issued.certificate for issued in (certs.leaf("d:thermo:42", new, serial=7, more=by_new), new, old)]
    assert verify(path[0], path[1:2], path[2:], [], NOON) == tuple(path)


def test_a_plain_path_loads_no_openssl_binding() -> None:
    """Cold starts: importing pyOpenSSL takes longer than a decision."""
    code = f"""
import datetime, sys
from shared.validation.presented import ConnectingClient, Presented
from shared.x509.cache import read_registered
from shared.x509.path import verify
sent = bytes.fromhex("{LEAF.der.hex()}"), bytes.fromhex("{INTER.der.hex()}")
leaf, inter = Presented.read(ConnectingClient(certificate=sent[0], chain=sent[1])).chain
root = read_registered(bytes.fromhex("{ROOT.der.hex()}"))
assert len(verify(leaf, [inter], [root], [], datetime.datetime.fromisoformat("{NOON.isoformat()}"))) == 3
assert "OpenSSL" not in sys.modules
assert "cryptography.x509" not in sys.modules
assert "cryptography.hazmat.primitives.serialization" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
