"""What is kept of a certificate, and that it is kept under those very bytes only."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from shared import errors
from shared.x509 import certificate
from shared.x509 import path as trust
from shared.x509.certificate import Certificate, read, registered, sent
from tests import certs
from tests.certs import CLIENT_AUTH, NOON, Issued
from tests.openssl import OpenSSL

K = certs.key
ROOT = certs.ca("Root", private=K("P-256", 1))
INTER = certs.ca("Inter", ROOT, private=K("P-256", 2))
LEAF = certs.leaf("d:thermo:42", INTER)


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    certificate._registered.cache_clear()
    certificate._sent.cache_clear()
    certificate._issuer_names.clear()


def believed(leaf: Issued, inter: bytes, root: Issued) -> bool:
    try:
        trust.verify(read(leaf.cert), [sent(inter)], [registered(root.der)], [], NOON)
    except errors.SignatureInvalid:
        return False
    return True


# ---------------------------------------------------------------------------------------------------- what is kept


def test_the_same_bytes_are_read_once() -> None:
    assert registered(ROOT.der) is registered(bytes(bytearray(ROOT.der)))
    assert sent(INTER.der) is sent(bytes(bytearray(INTER.der)))
    assert sent(ROOT.der) is not registered(ROOT.der)  # strangers fill one of the two


def test_what_differs_in_one_byte_is_another_certificate() -> None:
    """The last byte is the signature's: name, key and extensions are all the same."""
    forged = INTER.der[:-1] + bytes([INTER.der[-1] ^ 1])
    for _ in range(2):
        assert believed(LEAF, INTER.der, ROOT)
        assert not believed(LEAF, forged, ROOT)


def test_a_signature_that_was_found_good_is_good_under_that_key_only() -> None:
    """Another org's root of the same name: the intermediate was kept while the first org's device connected."""
    namesake = certs.ca("Root", private=K("P-256", 5))
    assert believed(LEAF, INTER.der, ROOT)
    assert not believed(LEAF, INTER.der, namesake)
    assert believed(LEAF, INTER.der, ROOT)


def test_a_renewed_root_of_the_same_key_vouches_as_well() -> None:
    renewed = certs.ca("Root", private=K("P-256", 1), serial=77)
    assert believed(LEAF, INTER.der, ROOT)
    assert believed(LEAF, INTER.der, renewed)


def test_what_is_malformed_is_not_kept() -> None:
    for _ in range(2):
        with pytest.raises(errors.CertificateMalformed):
            sent(b"\x30\x03\x02\x01\x01")
    assert certificate._sent.cache_info().currsize == 0


def test_what_strangers_send_does_not_push_out_what_orgs_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = registered(ROOT.der)
    for number in range(certificate.SENT_MAX + 10):
        sent(certs.ca(f"Stranger {number}", private=K("P-256", 3)).der)
    assert certificate._sent.cache_info().currsize == certificate.SENT_MAX
    assert registered(ROOT.der) is kept


def test_long_ones_are_read_each_time() -> None:
    names = [x509.DNSName("x" * 60 + f".{number}") for number in range(80)]
    long = certs.ca("Long", private=K("P-256", 9), more=[(x509.SubjectAlternativeName(names), False)])
    assert len(long.der) > certificate.KEPT_BYTES_MAX
    assert registered(long.der) is not registered(long.der)
    assert sent(long.der) is not sent(long.der)


def test_issuers_names_are_bounded() -> None:
    for number in range(certificate._NAMES_MAX + 10):
        signer = Issued(certs.ca(f"Issuer {number}", private=K("P-256", 3)).cert, K("P-256", 3))
        read(certs.leaf("d:thermo:42", signer).cert)
    assert len(certificate._issuer_names) <= certificate._NAMES_MAX
    long = certs.name("x" * 64, organization="y" * 64)
    many = x509.Name([*long, *[x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "z" * 64)] * 20])
    certificate._issuer_names.clear()
    read(certs.leaf("d:thermo:42", certs.ca(many, private=K("P-256", 3))).cert)
    assert certificate._issuer_names == {}


def test_the_keys_that_are_known_to_have_signed_one_are_bounded() -> None:
    one = read(LEAF.cert)
    others = {bytes([number]) for number in range(certificate._SIGNERS_MAX)}  # as if so many keys had made it
    one._signers |= others
    assert one.is_signed_by(read(INTER.cert))
    assert one._signers == others


def test_issuers_of_one_name_in_two_spellings_are_one() -> None:
    """Kept by their bytes, compared in canonical form."""
    spelled = [certs.ca(text, private=K("P-256", 3)) for text in ("Acme CA", "ACME  ca")]
    first, second = (read(certs.leaf("d:thermo:42", one).cert) for one in spelled)
    assert first.issuer == second.issuer
    assert first.issuer_digest == second.issuer_digest
    assert len(certificate._issuer_names) == 2


# -------------------------------------------------------------------------------------------------- its parts, plain


@pytest.mark.parametrize("kind", ["RSA-2048", "P-256", "P-384", "P-521"])
def test_its_parts_are_what_cryptography_finds(kind: str) -> None:
    root = certs.ca("Root", private=K(kind, 1))
    cert = certs.leaf("d:thermo:42", root, private=K(kind, 2), emails=["d:thermo:42"]).cert
    one = read(cert)
    assert one._parts is not None
    assert one._parts.signed == cert.tbs_certificate_bytes
    assert one._parts.issuer == cert.issuer.public_bytes()
    assert one._parts.key_info == one.public_key_info
    assert one._parts.algorithm == one._parts.inner_algorithm
    assert one.is_plain
    assert one.is_signed_by(read(root.cert))


def test_a_leaf_without_extensions_is_plain() -> None:
    assert read(certs.leaf("d:thermo:42", ROOT).cert).is_plain


def unplain() -> dict[str, Issued]:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    policies = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3.5"), None)])
    constraints = x509.NameConstraints([x509.DNSName("example.com")], None)
    by_serial = x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(ROOT.cert.subject)], 7)
    blocks = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.7"), b"\x30\x00")  # RFC 3779
    proxy = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14"), b"\x30\x00")  # RFC 3820
    more: dict[str, x509.ExtensionType] = {
        "unknown": unknown,
        "policies": policies,
        "name constraints": constraints,
        "issuer by serial": by_serial,
        "address blocks": blocks,
        "proxy": proxy,
    }
    edwards = certs.ca("Root", private=K("Ed25519", 1))
    return {
        **{name: certs.leaf("d:thermo:42", ROOT, more=[(one, False)]) for name, one in more.items()},
        "Ed25519 signature": certs.leaf("d:thermo:42", edwards),
        "Ed25519 key": certs.leaf("d:thermo:42", ROOT, private=K("Ed25519", 2)),
        "K-256": certs.leaf("d:thermo:42", ROOT, private=K("K-256", 2)),
    }


@pytest.mark.parametrize("name", unplain())
def test_what_openssl_might_object_to_is_openssls(name: str) -> None:
    assert not read(unplain()[name].cert).is_plain


def test_rsa_pss_is_openssls() -> None:
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
    assert not read(builder.sign(key, hashes.SHA256(), rsa_padding=pss)).is_plain
    assert read(builder.sign(key, hashes.SHA256())).is_plain


def test_a_curve_that_is_written_out_is_openssls(openssl: OpenSSL) -> None:
    """The same numbers as P-256's, so cryptography reads it; OpenSSL refuses such keys."""
    openssl("ecparam -name prime256v1 -genkey -noout -param_enc explicit -out key.pem")
    openssl("req -x509 -new -key key.pem -subj /CN=d:thermo:42 -days 30 -out cert.pem")
    cert = x509.load_pem_x509_certificate(openssl.bytes("cert.pem"))
    assert isinstance(cert.public_key(), ec.EllipticCurvePublicKey)
    assert not read(cert).is_plain


def test_an_algorithm_that_differs_inside_and_outside_is_openssls() -> None:
    """RFC 5280, 4.1.1.2: only the outer one is not signed."""
    sha256, sha384 = bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06082a8648ce3d040303")
    head, outer, tail = LEAF.der.rpartition(sha256)
    changed = Certificate(x509.load_der_x509_certificate(head + sha384 + tail), head + sha384 + tail)
    assert outer
    assert not changed.is_plain


def test_a_signature_of_another_key_is_none() -> None:
    assert not read(LEAF.cert).is_signed_by(read(ROOT.cert))
    assert not read(LEAF.cert).is_signed_by(read(certs.ca("Inter", private=K("RSA-2048", 1)).cert))


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
    assert read(leaf.cert).is_plain
