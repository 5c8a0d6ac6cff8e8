"""A denied certificate cannot be changed into one that is not."""

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes

from shared.errors import SignatureInvalid
from shared.x509 import certificate, fingerprints
from shared.x509 import path as trust
from shared.x509.certificate import Certificate
from tests import certs
from tests.certs import NOON, Issued
from tests.der import der, number, seq
from tests.harness import Client
from tests.malleable import loosened, twin, with_signature
from tests.openssl import OpenSSL

CURVES = ["P-256", "P-384", "P-521"]
KINDS = [*CURVES, "RSA-2048", "Ed25519", "Ed448"]


def root_of(kind: str) -> Issued:
    return certs.ca(f"Root {kind}", private=certs.key(kind, 61))


def read(der: bytes) -> Certificate:
    return certificate.read(certificate.parse(der), der)


def openssl_says(root: Issued, der: bytes, folder: Path) -> str:
    """ "" where the openssl command believes it, else its words."""
    openssl = OpenSSL(folder)
    openssl.write("root.pem", root.pem)
    (folder / "leaf.der").write_bytes(der)
    try:
        openssl(f"verify -attime {int(NOON.timestamp())} -CAfile root.pem leaf.der")
    except AssertionError as refusal:
        return str(refusal)
    return ""


@pytest.mark.parametrize("curve", CURVES)
def test_a_certificate_signed_with_ecdsa_has_two_fingerprints(curve: str, tmp_path: Path) -> None:
    """Anyone can make the other one, and it is as good; each tells of both. Signatures of every length."""
    root = root_of(curve)
    for serial in range(50):
        one = certs.leaf(f"d:thermo:{serial}", root)
        other = twin(one, curve)
        assert trust.verify(read(other.der), [], [read(root.der)], [], NOON)
        assert fingerprints.of(one.cert, one.der) == (one.fingerprint, other.fingerprint)
        assert fingerprints.of(other.cert, other.der) == (other.fingerprint, one.fingerprint)
    assert openssl_says(root, other.der, tmp_path) == ""


@pytest.mark.parametrize("kind", ["RSA-2048", "Ed25519", "Ed448"])
def test_every_other_certificate_has_one(kind: str) -> None:
    """The signature of such a key has one form only."""
    one = certs.leaf("d:thermo:42", root_of(kind))
    assert fingerprints.of(one.cert, one.der) == (one.fingerprint,)


NO_SIGNATURES = {
    "empty": b"",
    "noise": b"noise",
    "s is 0": seq(number(1), number(0)),
    "r is negative": seq(der(2, b"\xff"), number(5)),
    "s is not below the order": seq(number(1), number(2**256 - 1)),
    "too large for any curve": seq(number(2**600), number(2**600)),
    "one number": seq(number(1)),
}


@pytest.mark.parametrize("signature", NO_SIGNATURES.values(), ids=NO_SIGNATURES.keys())
def test_what_cannot_be_a_signature_has_no_twin(signature: bytes) -> None:
    """Nothing is raised: whether it was signed is for a later step to say."""
    root = root_of("P-256")
    changed = read(with_signature(certs.leaf("d:thermo:42", root).cert, b"\0" + signature))
    assert changed.fingerprints == (changed.cert.fingerprint(hashes.SHA256()).hex(),)
    with pytest.raises(SignatureInvalid):
        trust.verify(changed, [], [read(root.der)], [], NOON)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [1, 2, 7])
def test_a_signature_is_whole_octets(kind: str, bits: int, tmp_path: Path) -> None:
    """A certificate that says otherwise would be the same under another fingerprint. OpenSSL refuses it too."""
    root = root_of(kind)
    leaf = next(one for n in range(5000) if not (one := certs.leaf(f"d:thermo:{n}", root)).der[-1] & (2**bits - 1))
    changed = loosened(leaf.cert, bits)
    assert read(changed).cert.signature == leaf.cert.signature, "cryptography reads over it"
    assert "signature failure" in openssl_says(root, changed, tmp_path)
    with pytest.raises(SignatureInvalid):
        trust.verify(read(changed), [], [read(root.der)], [], NOON)


@pytest.mark.parametrize("which", range(3))
def test_a_signature_is_whole_octets_anywhere_on_a_path(which: int) -> None:
    """Also where OpenSSL is not given the link, because it would read a key rolled over as another path."""
    root = certs.ca("Root", private=certs.key("P-256", 61))
    old = certs.ca("Inter", root, private=certs.key("P-256", 62))
    for number_ in range(100):
        rolled = certs.ca("Inter", old, private=certs.key("P-256", 63))
        leaf = certs.leaf(f"d:thermo:{number_}", rolled)
        ders = [leaf.der, rolled.der, old.der]
        if not ders[which][-1] & 1:
            break
        old = certs.ca("Inter", root, private=certs.key("P-256", 62))
    first, *sent = trust.parse_presented(ders)
    assert trust.verify(first, sent, [read(root.der)], [], NOON)
    ders[which] = loosened(certificate.parse(ders[which]))
    first, *sent = trust.parse_presented(ders)
    with pytest.raises(SignatureInvalid):
        trust.verify(first, sent, [read(root.der)], [], NOON)


def test_such_a_certificate_cannot_be_uploaded(operator: Client) -> None:
    """Nor made the object of a denial: the answer is that it is damaged."""
    damaged = next(loosened(one.cert) for n in range(100) if not (one := certs.ca(f"Root {n}")).der[-1] & 1)
    upload = {"certificate": base64.b64encode(damaged).decode()}
    for path in ("/authentication/cacertificates", "/authorization/denylist"):
        refused = operator.post(path, upload)
        assert (refused.status, refused.code) == (422, "not_a_certificate")
