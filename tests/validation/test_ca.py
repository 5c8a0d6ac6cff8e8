"""A CA certificate is accepted by five rules, in their order."""

import pytest
from cryptography import x509

from shared import errors
from shared.validation.ca import ca_id, check_ca, read_ca
from shared.x509.certificate import Certificate
from shared.x509.certificate_files import read_certificates
from tests.support import certs
from tests.support.certs import DAY, NOON, YEAR
from tests.support.openssl import OpenSSL

ROOT = certs.ca("Root")


def read(openssl: OpenSSL, name: str) -> Certificate:
    [cert] = read_certificates(openssl.bytes(name))
    return cert


def check(issued: certs.Issued) -> None:
    check_ca(issued.certificate, at=NOON)


def refusal(issued: certs.Issued) -> errors.NotACA:
    with pytest.raises(errors.NotACA) as refused:
        check(issued)
    return refused.value


@pytest.mark.parametrize(
    "ca",
    [
        ROOT,
        certs.ca("Intermediate", ROOT),
        certs.ca("Not critical", critical=False),
        certs.ca("With usage", key_usage=certs.usage(key_cert_sign=True)),
        *(certs.ca(kind, private=certs.key(kind)) for kind in ("P-384", "P-521", "Ed25519", "Ed448", "RSA-2048")),
    ],
    ids=lambda ca: str(ca.cert.subject.rfc4514_string()),
)
def test_good_cas_are_accepted(ca: certs.Issued) -> None:
    """Root or intermediate; BasicConstraints critical or not; with or without KeyUsage; every kind of key."""
    assert read_ca(ca.pem.encode(), at=NOON) == ca.certificate


def test_what_openssl_makes_is_accepted(openssl: OpenSSL) -> None:
    """Plain `openssl req -x509`: CA:TRUE, no KeyUsage. Real fleets run on such roots."""
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 30 -subj", "/O=Fleet/CN=My Root")
    cert = read(openssl, "c.pem")
    assert read_ca(openssl.bytes("c.pem"), at=cert.not_before) == cert


def test_a_ca_must_be_valid_now() -> None:
    with pytest.raises(errors.CertificateExpired):
        check(certs.ca(not_after=NOON - DAY))
    with pytest.raises(errors.CertificateNotYetValid):
        check(certs.ca(not_before=NOON + DAY, not_after=NOON + YEAR))


def test_a_device_certificate_is_refused_and_its_issuer_named() -> None:
    """The most frequent mistake: the device's own certificate in place of the CA that signed it."""
    refused = refusal(certs.leaf("d:thermo:42", ROOT))
    assert (
        str(refused) == "This is not a CA certificate: it does not say CA:TRUE. "
        "Add the CA certificate that signed it, CN=Root (usually ca.pem or root.pem)."
    )


def test_ca_false_is_refused() -> None:
    """RFC 5280, 4.2.1.9."""
    assert str(refusal(certs.ca("Leaf", ROOT, is_ca=False))).startswith(
        "This is not a CA certificate: it says CA:FALSE, as device and server certificates do. Add the CA certificate"
    )
    assert str(refusal(certs.ca("Alone", is_ca=False))).endswith(
        "Issue the certificate again with basicConstraints=CA:TRUE."
    )


def test_a_key_usage_without_key_cert_sign_is_refused() -> None:
    """RFC 5280, 4.2.1.3."""
    refused = refusal(certs.ca(key_usage=certs.usage(digital_signature=True)))
    assert refused.advice == "Issue the certificate again with keyUsage=keyCertSign."


def test_x509_v1_is_refused(openssl: OpenSSL) -> None:
    """`openssl x509 -req` without an extension file makes v1, which cannot carry CA:TRUE."""
    openssl("req -new -newkey rsa:2048 -nodes -keyout k.pem -out r.pem -subj", "/CN=Old")
    openssl("x509 -req -in r.pem -signkey k.pem -out c.pem -days 30")
    cert = read(openssl, "c.pem")
    assert cert.version == 1
    with pytest.raises(errors.NotACA, match=r"X\.509 version 1 .*basicConstraints=CA:TRUE"):
        check_ca(cert, at=cert.not_before)


def test_weak_keys_are_refused() -> None:
    for kind in ("RSA-1024", "K-256"):
        with pytest.raises(errors.WeakKey):
            check(certs.ca(private=certs.key(kind)))


class _Everything:
    """A list of weak keys that contains every key."""

    def __contains__(self, key: object) -> bool:
        return True


def test_a_key_on_the_list_is_refused() -> None:
    with pytest.raises(errors.WeakKey):
        check_ca(ROOT.certificate, at=NOON, weak=_Everything())


def test_a_roots_own_sha1_signature_passes(openssl: OpenSSL) -> None:
    """A root is trusted without its signature. MD5 does not pass, nor does SHA-1 by another CA."""
    openssl("req -x509 -newkey rsa:2048 -nodes -sha1 -keyout k.pem -out rsa.pem -days 30 -subj", "/CN=Old Root")
    openssl("ecparam -name prime256v1 -genkey -noout -out e.pem")
    openssl("req -x509 -new -key e.pem -sha1 -out ec.pem -days 30 -subj", "/CN=Old EC Root")
    openssl("req -x509 -key k.pem -md5 -out md5.pem -days 30 -subj", "/CN=Older Root")
    openssl("req -new -newkey rsa:2048 -nodes -keyout i.pem -out i.csr -subj", "/CN=Intermediate")
    openssl.write("ca.ext", "basicConstraints=CA:TRUE\n")
    openssl("x509 -req -in i.csr -CA rsa.pem -CAkey k.pem -CAcreateserial -sha1 -extfile ca.ext -out i.crt -days 30")
    for name in ("rsa.pem", "ec.pem"):
        cert = read(openssl, name)
        check_ca(cert, at=cert.not_before)
    for name in ("md5.pem", "i.crt"):
        cert = read(openssl, name)
        with pytest.raises(errors.WeakSignature):
            check_ca(cert, at=cert.not_before)


@pytest.mark.parametrize("kind", ["P-256", "RSA-2048", "Ed25519"])
def test_a_self_issued_certificate_must_verify_itself(kind: str) -> None:
    """Signed by another key than its own, under the same name: damaged, or forged."""
    made = certs.certificate(
        certs.name("Root"),
        signer=None,
        private=certs.key(kind),
        signing_key=certs.key(kind, 1),
        extensions=[(x509.BasicConstraints(True, None), True)],
    )
    with pytest.raises(errors.SelfSignatureInvalid):
        check(made)


def test_the_name_of_a_self_issued_certificate_is_compared_without_case() -> None:
    """RFC 5280, 7.1: CN=ROOT issued by CN=root is self-issued, so its signature counts."""
    made = certs.certificate(
        certs.name("ROOT"),
        issuer=certs.name("root"),
        signer=None,
        private=certs.key(),
        signing_key=certs.key("P-256", 1),
        extensions=[(x509.BasicConstraints(True, None), True)],
    )
    with pytest.raises(errors.SelfSignatureInvalid):
        check(made)


def test_a_signature_by_a_key_of_another_kind_verifies_nothing() -> None:
    for kind in ("RSA-2048", "Ed25519", "P-384"):
        assert not ROOT.certificate.is_signed_by(certs.ca(kind, private=certs.key(kind)).certificate)


def test_the_id_is_made_of_canonical_subject_and_fingerprint() -> None:
    """16 and 32 hex digits. CAs of one name share the first half, whatever the case and string type of the name."""
    other = certs.ca("ROOT", private=certs.key("P-256", 5))
    assert ca_id(ROOT.certificate).partition("-")[0] == ca_id(other.certificate).partition("-")[0]
    assert ca_id(ROOT.certificate).partition("-")[2] == ROOT.fingerprint[:32]
    assert len(ca_id(ROOT.certificate)) == 49
    assert ca_id(ROOT.certificate) != ca_id(other.certificate)
