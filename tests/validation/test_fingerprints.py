"""A denied certificate cannot be changed into a certificate that is not denied."""

import base64
import hashlib
from pathlib import Path

import pytest
from cryptography import x509

from shared.errors import CertificateMalformed, SignatureInvalid
from shared.x509 import path as certification_path
from shared.x509.certificate import Certificate
from tests.support import certs
from tests.support.certs import NOON, Issued
from tests.support.der import der, number, seq
from tests.support.harness import Client
from tests.support.malleable import twin, with_signature, with_unused_bits
from tests.support.openssl import OpenSSL

CURVES = ["P-256", "P-384", "P-521"]
KINDS = [*CURVES, "RSA-2048", "Ed25519", "Ed448"]


def root_of(kind: str) -> Issued:
    return certs.ca(f"Root {kind}", private=certs.key(kind, 61))


def verify(root: Issued, leaf: bytes, *sent: bytes) -> bool:
    """Whether *leaf* is trusted. Raises: Refused."""
    return bool(
        certification_path.verify(
            Certificate.from_der(leaf), list(map(Certificate.from_der, sent)), [root.certificate], [], NOON
        )
    )


def openssl_says(root: Issued, der: bytes, folder: Path) -> str:
    """Return the message of the openssl command; "" where it accepts the leaf."""
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
    """Its holder can make the other certificate, which is as good. Each has both fingerprints."""
    root = root_of(curve)
    for serial in range(50):
        leaf = certs.leaf(f"d:thermo:{serial}", root)
        other = twin(leaf, curve)
        assert verify(root, other.der)
        assert leaf.certificate.fingerprints == (leaf.fingerprint, other.fingerprint)
        assert other.certificate.fingerprints == (other.fingerprint, leaf.fingerprint)
    assert openssl_says(root, other.der, tmp_path) == ""


@pytest.mark.parametrize("kind", ["RSA-2048", "Ed25519", "Ed448"])
def test_every_other_certificate_has_one(kind: str) -> None:
    """The signature of such a key has one form only."""
    leaf = certs.leaf("d:thermo:42", root_of(kind))
    assert leaf.certificate.fingerprints == (leaf.fingerprint,)


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
    """Nothing is raised: a later step checks the signature."""
    root = root_of("P-256")
    changed = with_signature(certs.leaf("d:thermo:42", root).cert, b"\0" + signature)
    assert Certificate.from_der(changed).fingerprints == (hashlib.sha256(changed).hexdigest(),)
    with pytest.raises(SignatureInvalid):
        verify(root, changed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [1, 2, 7])
def test_a_signature_is_whole_octets(kind: str, bits: int, tmp_path: Path) -> None:
    """A certificate with unused bits would be the same under another fingerprint. OpenSSL refuses it too."""
    root = root_of(kind)
    leaves = (certs.leaf(f"d:thermo:{n}", root) for n in range(5000))
    leaf = next(leaf for leaf in leaves if not leaf.der[-1] & (2**bits - 1))
    changed = with_unused_bits(leaf.cert, bits)
    parsed = x509.load_der_x509_certificate(changed)
    assert parsed.signature == leaf.cert.signature, "cryptography ignores the number"
    assert "signature failure" in openssl_says(root, changed, tmp_path)
    with pytest.raises(CertificateMalformed, match="signatureValue is not whole octets"):
        Certificate.from_der(changed)


@pytest.mark.parametrize("which", range(3))
def test_a_signature_is_whole_octets_anywhere_on_a_path(which: int) -> None:
    """Also for a certificate that the device sends after its own."""
    root = certs.ca("Root", private=certs.key("P-256", 61))
    old = certs.ca("Inter", root, private=certs.key("P-256", 62))
    for number_ in range(100):
        rolled = certs.ca("Inter", old, private=certs.key("P-256", 63))
        leaf = certs.leaf(f"d:thermo:{number_}", rolled)
        ders = [leaf.der, rolled.der, old.der]
        if not ders[which][-1] & 1:
            break
        old = certs.ca("Inter", root, private=certs.key("P-256", 62))
    assert verify(root, *ders)
    ders[which] = with_unused_bits(x509.load_der_x509_certificate(ders[which]))
    with pytest.raises(CertificateMalformed, match="signatureValue is not whole octets"):
        verify(root, *ders)


def test_such_a_certificate_cannot_be_uploaded(operator: Client) -> None:
    """Nor put on the deny list: the service answers that it is damaged."""
    cas = (certs.ca(f"Root {n}") for n in range(100))
    damaged = next(with_unused_bits(ca.cert) for ca in cas if not ca.der[-1] & 1)
    upload = {"certificate": base64.b64encode(damaged).decode()}
    for path in ("/authentication/cacertificates", "/authorization/denylist"):
        refused = operator.post(path, upload)
        assert (refused.status, refused.code) == (422, "not_a_certificate")
