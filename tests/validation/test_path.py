"""Which chains of certificates are trusted: steps 4 and 6 to 8 of verifyClient."""

import datetime as dt
import itertools
import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import crypto

from shared import errors
from shared.errors import CertificateMalformed, Refused
from shared.validation.presented import ConnectingClient, Presented
from shared.x509 import cache, openssl_judge, public_keys
from shared.x509 import path as certification_path
from shared.x509.budget import LIMITS
from shared.x509.cache import read_intermediate, read_registered
from shared.x509.certificate import Certificate, CertificationPath
from tests.support import certs
from tests.support.certs import CLIENT_AUTH, DAY, NOON, SERVER_AUTH, Issued
from tests.support.differential import compare

K = certs.key
ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE


def accept(
    leaf: Issued,
    anchors: Iterable[Issued],
    sent: Iterable[Issued] = (),
    inactive: Iterable[Issued] = (),
    at: dt.datetime = NOON,
) -> CertificationPath:
    """Return the path of a leaf that is trusted."""
    return judge(leaf, anchors, sent, inactive, at)


def refuse(
    leaf: Issued,
    anchors: Iterable[Issued],
    sent: Iterable[Issued] = (),
    inactive: Iterable[Issued] = (),
    at: dt.datetime = NOON,
    weak: Iterable[str] = (),
) -> Refused:
    """Return the refusal of a leaf that is not trusted."""
    with pytest.raises(Refused) as refusal:
        judge(leaf, anchors, sent, inactive, at, weak)
    return refusal.value


def judge(
    leaf: Issued,
    anchors: Iterable[Issued],
    sent: Iterable[Issued],
    inactive: Iterable[Issued],
    at: dt.datetime,
    weak: Iterable[str] = (),
) -> CertificationPath:
    """Return the path, or raise the refusal; the plain paths among the candidates are compared with OpenSSL."""
    cas = _registered(anchors), _registered(inactive)
    cert, above = leaf.certificate, _intermediates(sent)
    try:
        return certification_path.verify(cert, above, *cas, at, weak=frozenset(weak))
    finally:
        compare(cert, above, *cas)


def _intermediates(issued: Iterable[Issued]) -> list[Certificate]:
    return [read_intermediate(each.der) for each in issued]


def _registered(issued: Iterable[Issued]) -> list[Certificate]:
    return [read_registered(each.der) for each in issued]


def path_of(*issued: Issued) -> CertificationPath:
    return tuple(each.certificate for each in issued)


def constraints(
    permitted: Sequence[x509.GeneralName] | None = None, excluded: Sequence[x509.GeneralName] | None = None
) -> tuple[x509.ExtensionType, bool]:
    return x509.NameConstraints(permitted, excluded), True


def key_ids(own: Issued | None, issuer: Issued | None) -> list[tuple[x509.ExtensionType, bool]]:
    """Return SubjectKeyIdentifier of the key of *own*, and AuthorityKeyIdentifier of the key of *issuer*."""
    made: list[tuple[x509.ExtensionType, bool]] = []
    if own:
        made.append((x509.SubjectKeyIdentifier.from_public_key(own.key.public_key()), False))
    if issuer:
        made.append((x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), False))
    return made


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[CertificationPath]:
    """The paths, or pieces of paths, that OpenSSL was asked about."""
    asked: list[CertificationPath] = []
    answer = openssl_judge.judge

    def count(path: CertificationPath) -> Refused | None:
        asked.append(path)
        return answer(path)

    monkeypatch.setattr(openssl_judge, "judge", count)
    return asked


@pytest.fixture
def never_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL judges every path."""
    monkeypatch.setattr(certification_path, "is_plainly_signed", lambda path: False)


ROOT = certs.ca("Root", private=K("P-256", 1))
INTER = certs.ca("Inter", ROOT, private=K("P-256", 2))
LEAF = certs.leaf("d:thermo:42", INTER)


# ------------------------------------------------------------------------------------------------------ what passes


def test_a_device_under_a_registered_root_passes() -> None:
    leaf = certs.leaf("d:thermo:42", ROOT)
    assert accept(leaf, [ROOT]) == path_of(leaf, ROOT)


def test_the_device_may_send_its_intermediate() -> None:
    assert accept(LEAF, [ROOT], sent=[INTER]) == path_of(LEAF, INTER, ROOT)


def test_the_org_may_have_registered_the_intermediate_beside_the_root() -> None:
    """Each registered CA is trusted by itself: the path ends at the nearest."""
    assert accept(LEAF, [ROOT, INTER]) == path_of(LEAF, INTER)


def test_an_intermediate_alone_is_an_anchor() -> None:
    """A fleet whose signing CA is an intermediate registers the intermediate alone."""
    assert accept(LEAF, [INTER]) == path_of(LEAF, INTER)


@pytest.mark.parametrize("sent", list(itertools.permutations([INTER, ROOT])))
def test_the_device_may_send_the_anchor_and_more_in_any_order(sent: tuple[Issued, ...]) -> None:
    assert accept(LEAF, [INTER], sent=sent) == path_of(LEAF, INTER)
    assert accept(LEAF, [ROOT], sent=sent) == path_of(LEAF, INTER, ROOT)
    assert accept(LEAF, [ROOT], sent=[*sent, LEAF, *sent]) == path_of(LEAF, INTER, ROOT)


def test_ten_cas_above_the_leaf_are_the_most() -> None:
    line = [ROOT]
    for number in range(10):
        line.insert(0, certs.ca(f"CA {number}", line[0], private=K("P-256", 10 + number)))
    nine = certs.leaf("d:thermo:42", line[1])
    assert accept(nine, [ROOT], sent=line[1:-1]) == path_of(nine, *line[1:])
    assert isinstance(refuse(certs.leaf("d:thermo:42", line[0]), [ROOT], sent=line[:-1]), errors.UntrustedIssuer)


@pytest.mark.parametrize("kind", ["RSA-2048", "P-384", "P-521", "Ed25519", "Ed448"])
def test_every_kind_of_strong_key_passes(kind: str) -> None:
    root = certs.ca("R", private=K(kind, 1))
    inter = certs.ca("I", root, private=K(kind, 2))
    leaf = certs.leaf("d:thermo:42", inter, private=K(kind, 3))
    assert accept(leaf, [root], sent=[inter]) == path_of(leaf, inter, root)


def test_issuer_names_match_in_canonical_form() -> None:
    """RFC 5280, 7.1: case, spacing and string type do not count."""
    leaf = certs.certificate(
        certs.name("d:thermo:42"), signer=ROOT, private=K(), issuer=certs.name("  rOOt "), not_after=NOON + DAY
    )
    assert accept(leaf, [ROOT]) == path_of(leaf, ROOT)


def test_unrelated_certificates_do_not_matter() -> None:
    """Certificates that the device sends beside its chain are ignored."""
    stranger = certs.ca("Stranger", private=K("P-256", 50))
    assert accept(LEAF, [ROOT], sent=[stranger, INTER]) == path_of(LEAF, INTER, ROOT)


@pytest.mark.parametrize("usage", [None, certs.usage(digital_signature=True)])
@pytest.mark.parametrize("purposes", [(), (CLIENT_AUTH,), (SERVER_AUTH, CLIENT_AUTH), (ANY,)])
def test_a_tls_client_passes(usage: x509.KeyUsage | None, purposes: tuple[x509.ObjectIdentifier, ...]) -> None:
    leaf = certs.leaf("d:thermo:42", ROOT, key_usage=usage, extended_key_usage=purposes)
    assert accept(leaf, [ROOT]) == path_of(leaf, ROOT)


@pytest.mark.parametrize("critical", [True, False])
@pytest.mark.parametrize("usage", [None, certs.usage(key_cert_sign=True)])
def test_basic_constraints_need_not_be_critical_and_key_usage_may_be_missing(
    critical: bool, usage: x509.KeyUsage | None
) -> None:
    root = certs.ca("R", critical=critical, key_usage=usage)
    leaf = certs.leaf("d:thermo:42", root)
    assert accept(leaf, [root]) == path_of(leaf, root)


# ------------------------------------------------------------------------------------- step 4: what cannot be read


def present(*ders: bytes) -> tuple[Certificate, ...] | CertificateMalformed:
    """What the service reads of a leaf and the certificates sent after it."""
    return Presented.read(ConnectingClient(certificate=ders[0], chain=b"".join(ders[1:]))).chain


def test_presented_certificates_are_read() -> None:
    assert present(LEAF.der, INTER.der) == path_of(LEAF, INTER)


@pytest.mark.parametrize(
    "ders",
    [
        [b"\n"],
        [b"\x30\x80"],
        [LEAF.der + b"\1"],
        [LEAF.der, b"junk"],
        [b"\0" + LEAF.pem.encode()[30:]],
        [LEAF.der] * 11,
        [b"\0" * 65537],
    ],
    ids=["empty", "cut", "trailing", "second", "no boundary", "eleven", "64KiB+1"],
)
def test_what_cannot_be_read_is_malformed(ders: list[bytes]) -> None:
    refusal = present(*ders)
    assert isinstance(refusal, CertificateMalformed)
    assert refusal.facts["found"]


def with_extension(oid: str, content: bytes, *, critical: bool = False, signer: Issued = ROOT) -> Issued:
    value = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), content)
    return certs.leaf("d:thermo:42", signer, more=[(value, critical)])


@pytest.mark.parametrize(
    ("oid", "content"),
    [("2.5.29.17", b"\x30\x03\x89\x01\xff"), ("2.5.29.37", b"\x30\x00"), ("2.5.29.15", b"\x01")],
    ids=["SAN of no type", "empty EKU", "KeyUsage no bits"],
)
def test_a_field_that_cannot_be_read_is_malformed(oid: str, content: bytes) -> None:
    """The extensions that limit a certificate must be readable, also those of intermediates."""
    bad = with_extension(oid, content)
    for refusal in (refuse(bad, [ROOT]), refuse(LEAF, [ROOT], sent=[INTER, bad])):
        assert isinstance(refusal, errors.CertificateMalformed)
        assert refusal.cert is not None
        assert refusal.cert.fingerprint == bad.fingerprint
        assert refusal.facts["found"]


def test_what_only_openssl_cannot_read_is_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise crypto.Error([("asn1", "", "bad")])

    leaf = with_extension("2.5.29.31", b"\x30\x00")  # not plain, so OpenSSL judges it
    assert accept(leaf, [ROOT])
    monkeypatch.setattr(crypto, "load_certificate", fails)
    refusal = refuse(leaf, [ROOT])
    assert isinstance(refusal, errors.CertificateMalformed)
    assert refusal.cert == leaf.certificate


def test_a_naive_time_is_a_mistake_of_the_caller() -> None:
    """Python would take a naive time for local time."""
    with pytest.raises(ValueError, match="aware"):
        certification_path.verify(LEAF.certificate, [], _registered([INTER]), [], NOON.replace(tzinfo=None))


# --------------------------------------------------------------------------------------------------- step 6: the chain


def test_another_orgs_ca_is_not_trusted() -> None:
    """No CA of this org has the issuer's name."""
    other = certs.ca("Other Root", private=K("P-256", 3))
    refusal = refuse(certs.leaf("d:thermo:42", other), [ROOT], sent=[other])
    assert isinstance(refusal, errors.UntrustedIssuer)
    assert refusal.facts == {"issuer": "CN=Other Root"}


def test_without_a_ca_no_device_is_trusted() -> None:
    assert isinstance(refuse(LEAF, []), errors.UntrustedIssuer)


def test_the_missing_issuer_is_named() -> None:
    """Without the intermediate, the intermediate is missing. With it, the CA above is."""
    root = certs.ca("Unknown Root", private=K("P-256", 3))
    inter = certs.ca("Known Inter", root, private=K("P-256", 4))
    leaf = certs.leaf("d:thermo:42", inter)
    alone, sent = refuse(leaf, [ROOT]), refuse(leaf, [ROOT], sent=[inter])
    assert alone.reason == "The certificate was issued by CN=Known Inter, which is not among your CA certificates."
    assert alone.cert == leaf.certificate
    assert sent.reason == "The certificate was issued by CN=Unknown Root, which is not among your CA certificates."
    assert sent.cert == inter.certificate


@pytest.mark.parametrize("with_ids", [False, True])
def test_the_right_name_from_the_wrong_signer_is_a_bad_signature(with_ids: bool) -> None:
    """With key identifiers or without: a CA has the name, and its key did not sign the certificate."""
    real, forger = certs.ca("Acme", private=K("P-256", 3)), certs.ca("Acme", private=K("P-256", 4))
    if with_ids:
        real = certs.ca("Acme", private=K("P-256", 3), more=key_ids(real, None))
    leaf = certs.leaf("d:thermo:42", forger, more=key_ids(None, forger) if with_ids else ())
    for sent in ([], [forger]):
        refusal = refuse(leaf, [real], sent=sent)
        assert isinstance(refusal, errors.SignatureInvalid)
        assert refusal.facts == {"issuer": "CN=Acme"}
        assert refusal.reason == "A CA named CN=Acme is registered, but this certificate was signed with another key."


def test_a_self_signed_device_with_a_cas_name_is_a_bad_signature() -> None:
    mimic = certs.ca("Root", private=K("P-256", 5), is_ca=None)
    refusal = refuse(mimic, [ROOT])
    assert isinstance(refusal, errors.SignatureInvalid)
    assert refusal.cert == mimic.certificate


@pytest.mark.parametrize("is_ca", [False, None])
@pytest.mark.parametrize("usage", [None, certs.usage(key_cert_sign=True)])
def test_an_intermediate_without_ca_true_may_not_sign(is_ca: bool | None, usage: x509.KeyUsage | None) -> None:
    """RFC 5280, 6.1.4 (k). keyCertSign alone makes no CA, although OpenSSL accepts it."""
    inter = certs.ca("Device", ROOT, private=K("P-256", 3), is_ca=is_ca, key_usage=usage)
    refusal = refuse(certs.leaf("d:thermo:42", inter), [ROOT], sent=[inter])
    assert isinstance(refusal, errors.ChainInvalid)
    assert refusal.cert == inter.certificate
    assert refusal.reason.startswith("CN=Device may not sign this certificate: it is not a CA")


def test_an_anchor_without_ca_true_is_refused() -> None:
    """Also as its own leaf."""
    anchor = certs.ca("Self", private=K("P-256", 3), is_ca=None)
    assert isinstance(refuse(certs.leaf("d:thermo:42", anchor), [anchor]), errors.ChainInvalid)
    assert isinstance(refuse(anchor, [anchor]), errors.ChainInvalid)


def test_a_ca_without_key_cert_sign_may_not_sign() -> None:
    """RFC 5280, 4.2.1.3."""
    usage = certs.usage(crl_sign=True)
    inter = certs.ca("No Sign", ROOT, private=K("P-256", 3), key_usage=usage)
    refusal = refuse(certs.leaf("d:thermo:42", inter), [ROOT], sent=[inter])
    assert isinstance(refusal, errors.ChainInvalid)
    assert refusal.facts == {"subject": "CN=No Sign", "limit": "its KeyUsage lacks keyCertSign"}
    anchor = certs.ca("R", key_usage=usage)
    assert isinstance(refuse(certs.leaf("d:thermo:42", anchor), [anchor]), errors.ChainInvalid)


def test_path_length_zero_allows_devices_only() -> None:
    """RFC 5280, 4.2.1.9."""
    root = certs.ca("R", path_length=0, private=K("P-256", 3))
    inter = certs.ca("I", root, private=K("P-256", 4))
    direct, leaf = certs.leaf("d:thermo:42", root), certs.leaf("d:thermo:42", inter)
    assert accept(direct, [root]) == path_of(direct, root)
    refusal = refuse(leaf, [root], sent=[inter])
    assert isinstance(refusal, errors.ChainInvalid)
    assert refusal.facts["subject"] == "CN=R"
    assert refusal.cert == root.certificate
    assert accept(leaf, [inter]) == path_of(leaf, inter)


def test_self_issued_cas_do_not_count_in_the_path_length() -> None:
    """RFC 5280, 6.1.4 (l): a key rollover does not lengthen the path."""
    old = certs.ca("R", path_length=0, private=K("P-256", 3))
    new_key = K("P-256", 4)
    new_with_old = certs.ca("R", old, private=new_key, path_length=0)
    leaf = certs.leaf("d:thermo:42", Issued(new_with_old.cert, new_key))
    assert accept(leaf, [old], sent=[new_with_old]) == path_of(leaf, new_with_old, old)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("purposes", [[SERVER_AUTH], [ExtendedKeyUsageOID.CODE_SIGNING, SERVER_AUTH]])
def test_a_ca_for_servers_may_not_sign_clients(purposes: list[x509.ObjectIdentifier], depth: int) -> None:
    """EKU on an intermediate or anchor limits everything below it."""
    limit = [(x509.ExtendedKeyUsage(purposes), False)]
    root = certs.ca("R", private=K("P-256", 3), more=limit if depth == 2 else ())
    inter = certs.ca("I", root, private=K("P-256", 4), more=limit if depth == 1 else ())
    leaf = certs.leaf("d:thermo:42", inter, extended_key_usage=[CLIENT_AUTH])
    refusal = refuse(leaf, [root], sent=[inter])
    assert isinstance(refusal, errors.ChainInvalid)
    assert "serverAuth" in str(refusal.facts["limit"])
    assert refusal.cert == (inter, root)[depth - 1].certificate


@pytest.mark.parametrize("purpose", [CLIENT_AUTH, ANY])
def test_a_ca_for_clients_may_sign_them(purpose: x509.ObjectIdentifier) -> None:
    limit = [(x509.ExtendedKeyUsage([SERVER_AUTH, purpose]), False)]
    root = certs.ca("R", private=K("P-256", 3), more=limit)
    inter = certs.ca("I", root, private=K("P-256", 4), more=limit)
    leaf = certs.leaf("d:thermo:42", inter)
    assert accept(leaf, [root], sent=[inter]) == path_of(leaf, inter, root)


DIRECTORY = x509.DirectoryName(certs.name(None, organization="Acme"))


def acme(common_name: str) -> x509.Name:
    return certs.name(common_name, organization="Acme")


def test_a_name_within_the_constraints_passes() -> None:
    """RFC 5280, 4.2.1.10."""
    root = certs.ca("R", private=K("P-256", 3), more=[constraints([DIRECTORY])])
    leaf = certs.leaf(acme("d:thermo:42"), root)
    assert accept(leaf, [root]) == path_of(leaf, root)


@pytest.mark.parametrize("at_root", [True, False])
def test_a_name_outside_the_constraints_is_refused(at_root: bool) -> None:
    limit = [constraints([DIRECTORY])]
    root = certs.ca(acme("R"), private=K("P-256", 3), more=limit if at_root else ())
    inter = certs.ca(acme("I"), root, private=K("P-256", 4), more=() if at_root else limit)
    refusal = refuse(certs.leaf("d:thermo:42", inter), [root], sent=[inter])
    assert isinstance(refusal, errors.ChainInvalid)
    assert refusal.cert == (root if at_root else inter).certificate
    assert "name constraints forbid CN=d:thermo:42" in refusal.reason


def test_an_excluded_name_is_refused() -> None:
    root = certs.ca("R", private=K("P-256", 3), more=[constraints(None, [x509.DNSName("example.com")])])
    assert isinstance(refuse(certs.leaf("d:thermo:42", root, dns=["a.example.com"]), [root]), errors.ChainInvalid)
    leaf = certs.leaf("d:thermo:42", root, dns=["example.org"])
    assert accept(leaf, [root]) == path_of(leaf, root)


def test_an_email_constraint_forbids_every_device_name_in_the_san() -> None:
    """d:type:device is no mailbox (RFC 5280, 4.2.1.10), so no verifier can accept it under such a CA."""
    root = certs.ca("R", private=K("P-256", 3), more=[constraints([x509.RFC822Name("acme.com")])])
    refusal = refuse(certs.leaf("x", root, emails=["d:thermo:42"]), [root])
    assert isinstance(refusal, errors.ChainInvalid)
    assert refusal.cert == root.certificate
    assert "is no e-mail address" in refusal.reason
    in_cn = certs.leaf("d:thermo:42", root)
    assert accept(in_cn, [root]) == path_of(in_cn, root)


def test_an_unknown_critical_extension_is_refused() -> None:
    """RFC 5280, 4.2. The refusal names the issuer of a leaf, or the CA that has the extension."""
    leaf = with_extension("1.2.3.4", b"\x05\x00", critical=True)
    refusal = refuse(leaf, [ROOT])
    assert isinstance(refusal, errors.ChainInvalid)
    assert refusal.cert == leaf.certificate
    assert refusal.reason == (
        "CN=Root may not sign this certificate: "
        "the certificate has a critical extension that is unknown here (1.2.3.4)."
    )
    unknown = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)
    ca = certs.ca("C", private=K("P-256", 3), more=[unknown])
    refusal = refuse(certs.leaf("d:thermo:42", ca), [ca])
    assert isinstance(refusal, errors.ChainInvalid)
    assert refusal.cert == ca.certificate
    assert refusal.facts["subject"] == "CN=C"


def test_an_unknown_extension_that_is_not_critical_passes() -> None:
    leaf = with_extension("1.2.3.4", b"\x05\x00")
    assert accept(leaf, [ROOT]) == path_of(leaf, ROOT)


@pytest.mark.parametrize("kind", ["RSA-1024", "K-256"])
def test_a_weak_key_anywhere_is_refused(kind: str) -> None:
    weak_leaf = certs.leaf("d:thermo:42", ROOT, private=K(kind))
    weak_inter = certs.ca("W", ROOT, private=K(kind))
    weak_root = certs.ca("W", private=K(kind))
    for leaf, anchor, sent, at_fault in (
        (weak_leaf, ROOT, [], weak_leaf),
        (certs.leaf("d:thermo:42", weak_inter), ROOT, [weak_inter], weak_inter),
        (certs.leaf("d:thermo:42", weak_root), weak_root, [], weak_root),
    ):
        refusal = refuse(leaf, [anchor], sent=sent)
        assert isinstance(refusal, errors.WeakKey)
        assert refusal.cert == at_fault.certificate
        assert refusal.facts["found"] == {"RSA-1024": "RSA 1024 bits", "K-256": "secp256k1"}[kind]


@pytest.mark.parametrize("which", [LEAF, INTER, ROOT])
def test_a_key_on_the_weak_list_is_refused_anywhere(which: Issued) -> None:
    refusal = refuse(LEAF, [ROOT], sent=[INTER], weak=public_keys.key_ids(which.key.public_key()))
    assert isinstance(refusal, errors.WeakKey)
    assert refusal.cert == which.certificate


def test_a_key_of_unknown_kind_is_weak_not_malformed() -> None:
    """The certificate can be read, and its key cannot be used."""
    leaf = certs.leaf("d:thermo:42", ROOT)
    curve, odd = bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0209")
    strange = Certificate.from_der(leaf.der.replace(curve, odd))
    with pytest.raises(errors.WeakKey) as refusal:
        certification_path.verify(strange, [], _registered([ROOT]), [], NOON)
    assert refusal.value.facts["found"] == "A key of algorithm 1.2.840.10045.2.9"


# ------------------------------------------------------------------------------------------------------ inactive CAs


def test_an_inactive_ca_is_no_anchor() -> None:
    leaf = certs.leaf("d:thermo:42", ROOT)
    refusal = refuse(leaf, [], inactive=[ROOT])
    assert isinstance(refusal, errors.CAInactive)
    assert refusal.cert == ROOT.certificate
    assert refusal.facts == {"subject": "CN=Root", "when": ""}
    assert refusal.reason == "The CA certificate CN=Root is deactivated."
    assert isinstance(refuse(leaf, [certs.ca("Else")], inactive=[ROOT]), errors.CAInactive)


@pytest.mark.parametrize("sent", [(), (INTER,)])
def test_no_path_passes_through_an_inactive_ca(sent: tuple[Issued, ...]) -> None:
    """Registered or sent by the device, under an active root."""
    refusal = refuse(LEAF, [ROOT], sent=sent, inactive=[INTER])
    assert isinstance(refusal, errors.CAInactive)
    assert refusal.cert == INTER.certificate


def test_another_certificate_of_an_inactive_cas_name_and_key_is_inactive_too() -> None:
    """Renewed or cross-signed: the key was switched off. Its name may be spelled in another way."""
    again = certs.ca("INTER", ROOT, private=K("P-256", 2), serial=77)
    refusal = refuse(LEAF, [ROOT], sent=[again], inactive=[INTER])
    assert isinstance(refusal, errors.CAInactive)
    assert isinstance(refuse(LEAF, [], sent=[again], inactive=[INTER, ROOT]), errors.CAInactive)


def test_an_active_registered_ca_with_the_name_and_key_of_an_inactive_ca_is_judged_by_itself() -> None:
    """A CA was renewed with its key, and its old certificate is deactivated: the devices stay."""
    again = certs.ca("INTER", ROOT, private=K("P-256", 2), serial=77)
    assert accept(LEAF, [again], inactive=[INTER]) == path_of(LEAF, again)
    assert accept(LEAF, [ROOT, again], inactive=[INTER]) == path_of(LEAF, again)
    assert accept(LEAF, [again], inactive=[INTER, ROOT]) == path_of(LEAF, again)
    third = certs.ca("Inter", ROOT, private=K("P-256", 2), serial=78)
    assert accept(LEAF, [again], sent=[third], inactive=[INTER]) == path_of(LEAF, again)
    assert isinstance(refuse(LEAF, [ROOT], sent=[third, again], inactive=[INTER]), errors.CAInactive)


def test_a_ca_of_an_inactive_cas_name_with_another_key_is_not_inactive() -> None:
    """A rotation: the old CA is switched off, the new CA signs."""
    new = certs.ca("Inter", ROOT, private=K("P-256", 6))
    leaf = certs.leaf("d:thermo:42", new)
    assert accept(leaf, [ROOT], sent=[new], inactive=[INTER]) == path_of(leaf, new, ROOT)
    assert accept(leaf, [new], inactive=[INTER]) == path_of(leaf, new)
    assert isinstance(refuse(LEAF, [new], inactive=[INTER]), errors.CAInactive)


def test_a_path_around_an_inactive_ca_passes() -> None:
    other = certs.ca("Other Root", private=K("P-256", 3))
    cross = certs.ca("Cross", other, private=K("P-256", 7))
    same_by_root = certs.ca("Cross", ROOT, private=K("P-256", 7))
    leaf = certs.leaf("d:thermo:42", cross)
    assert accept(leaf, [ROOT], sent=[cross, same_by_root], inactive=[other]) == path_of(leaf, same_by_root, ROOT)


def test_a_forged_chain_to_an_inactive_ca_is_refused_as_forged() -> None:
    """The refusal is ca_inactive only where nothing else is wrong with the chain."""
    forger = certs.ca("Root", private=K("P-256", 8))
    assert isinstance(refuse(certs.leaf("d:thermo:42", forger), [], inactive=[ROOT]), errors.SignatureInvalid)


def test_inactive_comes_before_expired() -> None:
    """Step 6 before step 7."""
    leaf = certs.leaf("d:thermo:42", ROOT, not_after=NOON - DAY)
    assert isinstance(refuse(leaf, [], inactive=[ROOT]), errors.CAInactive)


# --------------------------------------------------------------------------------------------------- step 7: dates

START, END = NOON - DAY, NOON + DAY
SECOND, MICRO = dt.timedelta(seconds=1), dt.timedelta(microseconds=1)


@pytest.mark.parametrize("at", [START, START + MICRO, NOON, END, END + SECOND - MICRO])
def test_both_ends_are_inside_in_whole_seconds(at: dt.datetime) -> None:
    """RFC 5280, 4.1.2.5: "from notBefore through notAfter, inclusive"."""
    leaf = certs.leaf("d:thermo:42", ROOT, not_before=START, not_after=END)
    assert accept(leaf, [ROOT], at=at)
    assert accept(leaf, [ROOT], at=at.astimezone(dt.timezone(dt.timedelta(hours=14))))


@pytest.mark.parametrize(
    ("at", "kind", "sentence"),
    [
        (
            START - MICRO,
            errors.CertificateNotYetValid,
            "The certificate is valid only from 31 May 2026, 12:00 UTC (in less than a minute).",
        ),
        (
            END + SECOND,
            errors.CertificateExpired,
            "The certificate expired less than a minute ago (2 Jun 2026, 12:00 UTC).",
        ),
    ],
)
def test_outside_its_time_a_leaf_is_refused(at: dt.datetime, kind: type[Refused], sentence: str) -> None:
    leaf = certs.leaf("d:thermo:42", ROOT, not_before=START, not_after=END)
    refusal = refuse(leaf, [ROOT], at=at)
    assert type(refusal) is kind
    assert refusal.reason == sentence
    assert refusal.cert == leaf.certificate


@pytest.mark.parametrize("depth", [1, 2])
def test_an_expired_ca_is_refused(depth: int) -> None:
    """An intermediate or the anchor."""
    ended = {"not_after": NOON - SECOND}
    root = certs.ca("R", private=K("P-256", 3), **(ended if depth == 2 else {}))  # type: ignore[arg-type]
    inter = certs.ca("I", root, private=K("P-256", 4), **(ended if depth == 1 else {}))  # type: ignore[arg-type]
    refusal = refuse(certs.leaf("d:thermo:42", inter), [root], sent=[inter])
    assert isinstance(refusal, errors.CAExpired)
    assert refusal.cert == (inter, root)[depth - 1].certificate
    assert refusal.reason == (
        f"The CA certificate CN={'IR'[depth - 1]} expired less than a minute ago (1 Jun 2026, 11:59 UTC)."
    )


def test_a_ca_that_has_not_begun_is_refused() -> None:
    root = certs.ca("R", not_before=NOON + DAY)
    refusal = refuse(certs.leaf("d:thermo:42", root), [root])
    assert isinstance(refusal, errors.CertificateNotYetValid)
    assert refusal.cert == root.certificate


def test_the_chain_is_judged_before_the_dates() -> None:
    """Step 6 before step 7: an expired forgery is refused as a forgery."""
    forger = certs.ca("Root", private=K("P-256", 8))
    leaf = certs.leaf("d:thermo:42", forger, not_after=NOON - DAY)
    assert isinstance(refuse(leaf, [ROOT]), errors.SignatureInvalid)


# --------------------------------------------------------------------------------------------------- step 8: purpose


@pytest.mark.parametrize(
    ("purposes", "usage", "reason"),
    [
        ([SERVER_AUTH], None, "The certificate is for serverAuth only, and not for TLS clients."),
        ([x509.ObjectIdentifier("1.2.3")], None, "The certificate is for 1.2.3 only, and not for TLS clients."),
        (
            [x509.ObjectIdentifier(f"1.2.{n}") for n in range(9)],
            None,
            "The certificate is for 1.2.0, 1.2.1, 1.2.2, 1.2.3, 1.2.4 and more only, and not for TLS clients.",
        ),
        ((), certs.usage(key_encipherment=True), "The key usage of the certificate does not include digitalSignature."),
    ],
)
def test_a_leaf_for_another_purpose_is_refused(
    purposes: Sequence[x509.ObjectIdentifier], usage: x509.KeyUsage | None, reason: str
) -> None:
    """RFC 5280, 4.2.1.12 and 4.2.1.3."""
    leaf = certs.leaf("d:thermo:42", ROOT, extended_key_usage=purposes, key_usage=usage)
    refusal = refuse(leaf, [ROOT])
    assert isinstance(refusal, errors.WrongKeyUsage)
    assert refusal.reason == reason
    wanted = "extendedKeyUsage=clientAuth" if purposes else "keyUsage=digitalSignature"
    assert refusal.advice == f"Issue the certificate again with {wanted}."


def test_a_ca_is_not_accepted_as_a_device() -> None:
    """An intermediate, a registered intermediate, and the anchor itself."""
    for ca, anchors in ((INTER, [ROOT]), (INTER, [INTER]), (ROOT, [ROOT])):
        refusal = refuse(ca, anchors)
        assert isinstance(refusal, errors.WrongKeyUsage)
        assert refusal.reason == "This certificate is marked as a CA (CA:TRUE). A device certificate must say CA:FALSE."
        assert refusal.cert == ca.certificate


def test_dates_come_before_the_purpose() -> None:
    leaf = certs.leaf("d:thermo:42", ROOT, extended_key_usage=[SERVER_AUTH], not_after=NOON - DAY)
    assert isinstance(refuse(leaf, [ROOT]), errors.CertificateExpired)


# ----------------------------------------------------------------------------------- several CAs of one name: any order


def answers(leaf: Issued, anchors: Sequence[Issued], sent: Sequence[Issued], at: dt.datetime = NOON) -> set[object]:
    """Return every answer that the orders of registering and of sending give."""
    given: set[object] = set()
    for registered in itertools.permutations(anchors):
        for order in itertools.permutations(sent):
            try:
                given.add(judge(leaf, registered, order, [], at))
            except Refused as refusal:
                given.add((type(refusal), refusal.cert, str(refusal)))
    return given


@pytest.mark.parametrize("signer", range(4))
def test_a_rotation_gives_one_answer_in_every_order(signer: int) -> None:
    """Four CAs of one name without key identifiers: the CA that signed is found in every position."""
    generations = [certs.ca("Acme CA", private=K("P-256", 20 + n)) for n in range(4)]
    leaf = certs.leaf("d:thermo:42", generations[signer])
    assert answers(leaf, generations, []) == {path_of(leaf, generations[signer])}
    others = [ca for ca in generations if ca is not generations[signer]]
    (answer,) = answers(leaf, others, [])
    assert isinstance(answer, tuple)
    assert answer[0] is errors.SignatureInvalid


def test_same_named_intermediates_of_the_device_in_every_order() -> None:
    inters = [certs.ca("I", ROOT, private=K("P-256", 20 + n)) for n in range(4)]
    leaf = certs.leaf("d:thermo:42", inters[2])
    assert answers(leaf, [ROOT], inters) == {path_of(leaf, inters[2], ROOT)}


def test_a_cross_signed_ca_in_every_order() -> None:
    """One CA, three certificates: its own, by a registered root, by a stranger."""
    key, stranger = K("P-256", 30), certs.ca("Stranger", private=K("P-256", 31))
    own, by_root, by_stranger = (certs.ca("X", by, private=key) for by in (None, ROOT, stranger))
    leaf = certs.leaf("d:thermo:42", own)
    assert answers(leaf, [ROOT], [own, by_root, by_stranger]) == {path_of(leaf, by_root, ROOT)}
    assert answers(leaf, [ROOT, own], [by_root, by_stranger]) == {path_of(leaf, own)}
    (answer,) = answers(leaf, [ROOT], [own, by_stranger])
    assert isinstance(answer, tuple)
    assert answer[0] is errors.UntrustedIssuer


@pytest.mark.parametrize("ids", [False, True], ids=["without key identifiers", "with key identifiers"])
@pytest.mark.parametrize("under", [False, True], ids=["root", "intermediate"])
def test_a_key_rollover_in_every_order(ids: bool, under: bool) -> None:
    """RFC 4210, 4.4: new-with-old and old-with-new, whichever key is registered, whichever signed the device."""
    old_key, new_key = K("P-256", 40), K("P-256", 41)
    above = ROOT if under else None

    def made(key: certs.PrivateKey, signer: Issued | None) -> Issued:
        own = Issued(ROOT.cert, key)
        return certs.ca("Roll", signer, private=key, more=key_ids(own, signer or own) if ids else ())

    old, new = made(old_key, above), made(new_key, above)
    new_with_old, old_with_new = made(new_key, old), made(old_key, new)
    by_new = certs.leaf("d:thermo:42", new, more=key_ids(None, new) if ids else ())
    by_old = certs.leaf("d:thermo:42", old, more=key_ids(None, old) if ids else ())
    sent = [new_with_old, old_with_new]
    assert answers(by_new, [old], sent) == {path_of(by_new, new_with_old, old)}
    assert answers(by_old, [new], sent) == {path_of(by_old, old_with_new, new)}
    assert answers(by_new, [old, new], sent) == {path_of(by_new, new)}
    if under:
        assert answers(by_new, [ROOT], [new_with_old, old]) == {path_of(by_new, new_with_old, old, ROOT)}
        deep = answers(by_new, [ROOT], [*sent, old])
        assert deep == {path_of(by_new, new_with_old, old, ROOT)}


def test_a_forged_rollover_is_a_bad_signature_in_every_order() -> None:
    """The new CA names itself as its issuer, and the old key did not sign the certificate."""
    old, forger = certs.ca("Roll", private=K("P-256", 40)), certs.ca("Roll", private=K("P-256", 42))
    leaf = certs.leaf("d:thermo:42", forger)
    again = certs.ca("Roll", forger, private=K("P-256", 42), serial=5)
    (answer,) = answers(leaf, [old], [forger, again])
    assert isinstance(answer, tuple)
    assert answer[0] is errors.SignatureInvalid


def test_name_constraints_hold_across_a_rollover() -> None:
    """Constraints that OpenSSL cannot compare with the names below are refused. With key identifiers it can."""
    limit = [constraints([DIRECTORY])]
    old = certs.ca(acme("Roll"), private=K("P-256", 40), more=limit)
    new = certs.ca(acme("Roll"), old, private=K("P-256", 41))
    for common_name in (certs.name("d:thermo:42"), acme("d:thermo:42")):
        refusal = refuse(certs.leaf(common_name, new), [old], sent=[new])
        assert isinstance(refusal, errors.ChainInvalid)
        assert refusal.cert == old.certificate
    old = certs.ca(acme("Roll"), private=K("P-256", 40), more=[*limit, *key_ids(old, old)])
    new = certs.ca(acme("Roll"), old, private=K("P-256", 41), more=key_ids(new, old))
    leaf = certs.leaf(acme("d:thermo:42"), new, more=key_ids(None, new))
    assert accept(leaf, [old], sent=[new]) == path_of(leaf, new, old)
    foreign = certs.leaf("d:thermo:42", new, more=key_ids(None, new))
    assert isinstance(refuse(foreign, [old], sent=[new]), errors.ChainInvalid)


def test_a_path_length_holds_across_a_rollover() -> None:
    """RFC 5280, 6.1.4 (m), also where OpenSSL judges the path in pieces."""
    old = certs.ca("Roll", private=K("P-256", 40), path_length=0)
    new = certs.ca("Roll", old, private=K("P-256", 41))
    inter = certs.ca("I", new, private=K("P-256", 43))
    refusal = refuse(certs.leaf("d:thermo:42", inter), [old], sent=[inter, new])
    assert isinstance(refusal, errors.ChainInvalid)
    assert refusal.cert == old.certificate
    assert refusal.facts["limit"] == "its path length allows 0 CAs below it, here are 1"


def test_an_unknown_critical_extension_above_a_rollover_is_refused() -> None:
    """Every certificate of the path is judged, in whichever piece it is."""
    unknown = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)
    for bad_old, bad_new in ((True, False), (False, True)):
        old = certs.ca("Roll", private=K("P-256", 40), more=[unknown] if bad_old else ())
        new = certs.ca("Roll", old, private=K("P-256", 41), more=[unknown] if bad_new else ())
        refusal = refuse(certs.leaf("d:thermo:42", new), [old], sent=[new])
        assert isinstance(refusal, errors.ChainInvalid)
        assert refusal.cert == (old if bad_old else new).certificate


def test_a_name_twice_on_a_path_in_every_order() -> None:
    """R signed X, and X signed another R: OpenSSL alone takes the first R for the leaf's issuer."""
    top = certs.ca("R", private=K("P-256", 60))
    middle = certs.ca("X", top, private=K("P-256", 61))
    lower = certs.ca("R", middle, private=K("P-256", 62))
    leaf = certs.leaf("d:thermo:42", lower)
    assert answers(leaf, [top], [middle, lower]) == {path_of(leaf, lower, middle, top)}


def test_the_refusal_is_that_of_the_path_that_got_furthest_in_every_order() -> None:
    """One of three CAs of one name signed the leaf, which has expired. The refusal is not "not signed by"."""
    generations = [certs.ca("Acme CA", private=K("P-256", 20 + n)) for n in range(3)]
    leaf = certs.leaf("d:thermo:42", generations[1], not_after=NOON - DAY)
    (answer,) = answers(leaf, generations, [])
    assert isinstance(answer, tuple)
    assert answer[:2] == (errors.CertificateExpired, leaf.certificate)


def test_an_expired_ca_gives_way_to_its_renewal_in_every_order() -> None:
    """Same name, same key, new dates."""
    old = certs.ca("Acme CA", private=K("P-256", 20), not_after=NOON - DAY)
    renewed = certs.ca("Acme CA", private=K("P-256", 20))
    leaf = certs.leaf("d:thermo:42", old)
    assert answers(leaf, [old, renewed], []) == {path_of(leaf, renewed)}
    assert answers(leaf, [renewed], [old]) == {path_of(leaf, renewed)}


def test_a_failed_signature_comes_before_the_limits_of_a_ca() -> None:
    """The intermediate is no CA either, and the refusal is about the signature."""
    fake = certs.ca("Fake", private=K("P-256", 70), is_ca=False)
    claims = certs.certificate(
        certs.name("Fake"), signer=ROOT, private=K("P-256", 70), signing_key=K("P-256", 71), not_after=NOON + DAY
    )
    refusal = refuse(certs.leaf("d:thermo:42", fake), [ROOT], sent=[claims])
    assert isinstance(refusal, errors.SignatureInvalid)
    assert refusal.cert == claims.certificate


# ------------------------------------------------------------------------------------------------------------ hostile


def test_one_serial_number_for_several_certificates_hides_no_failed_signature() -> None:
    """A third key signed the leaf, whose key identifier is that of the new key.

    OpenSSL takes one of the two CAs for the other."""
    old_key, new_key = Issued(ROOT.cert, K("P-256", 40)), Issued(ROOT.cert, K("P-256", 41))
    old = certs.ca("Roll", private=old_key.key, serial=7, more=key_ids(old_key, None))
    new = certs.ca("Roll", old, private=new_key.key, serial=7, more=key_ids(new_key, old_key))
    forged = certs.leaf("d:thermo:42", new, serial=7, more=key_ids(None, new_key), signing_key=K("P-256", 42))
    with pytest.raises(errors.SignatureInvalid) as refusal:
        certification_path.verify(forged.certificate, [new.certificate], [old.certificate], [], NOON)
    assert refusal.value.cert == forged.certificate


# ---------------------------------------------------------------------------------- key identifiers that differ


def with_id(own: bytes | None, issuer: bytes | None = None) -> list[tuple[x509.ExtensionType, bool]]:
    """Return SubjectKeyIdentifier *own* and AuthorityKeyIdentifier *issuer*, as far as given."""
    made: list[tuple[x509.ExtensionType, bool]] = []
    if own is not None:
        made.append((x509.SubjectKeyIdentifier(own), False))
    if issuer is not None:
        made.append((x509.AuthorityKeyIdentifier(issuer, None, None), False))
    return made


RENEWED = certs.ca("Renewed", private=K("P-256", 50), more=with_id(b"new id"))


@pytest.mark.parametrize("kind", ["P-256", "P-384", "RSA-2048"])
def test_a_renewed_ca_with_another_key_identifier_keeps_its_devices(kind: str) -> None:
    """The same name and key. Some tools make the identifier of other octets (RFC 5280, 4.2.1.2, leaves the method)."""
    key = K(kind, 51)
    renewed = certs.ca("Renewed", private=key, more=with_id(b"new id"), serial=8)
    before = certs.ca("Renewed", private=key, more=with_id(b"old id"))
    leaf = certs.leaf("d:thermo:42", before, more=with_id(b"leaf", b"old id"))
    assert accept(leaf, [renewed]) == (leaf.certificate, renewed.certificate)
    assert accept(leaf, [renewed, before]) == (leaf.certificate, before.certificate)  # the identifier chooses


def test_an_intermediate_with_another_key_identifier_is_passed() -> None:
    inter = certs.ca("Inter", RENEWED, private=K("P-256", 52), more=with_id(b"its id", b"another id"))
    leaf = certs.leaf("d:thermo:42", inter, more=with_id(None, b"an older id of the intermediate"))
    assert accept(leaf, [RENEWED], sent=[inter]) == (leaf.certificate, inter.certificate, RENEWED.certificate)


@pytest.mark.parametrize("issuer_id", [b"new id", b"another id", b"x", b"\0" * 20, bytes(range(64))])
def test_no_key_identifier_makes_a_forged_signature_good(issuer_id: bytes) -> None:
    forged = certs.leaf("d:thermo:42", RENEWED, more=with_id(None, issuer_id), signing_key=K("P-256", 53))
    assert isinstance(refuse(forged, [RENEWED]), errors.SignatureInvalid)


def test_a_path_that_openssl_must_judge_needs_the_same_key_identifier() -> None:
    """OpenSSL refuses identifiers that differ. The refusal says so, and a forged signature is called forged."""
    constrained = certs.ca(
        "Constrained",
        private=K("P-256", 54),
        more=[
            (x509.NameConstraints([x509.DNSName("example.com")], None), True),
            *with_id(b"new id"),
        ],
    )
    leaf = certs.leaf("d:thermo:42", constrained, more=with_id(None, b"old id"))
    refusal = refuse(leaf, [constrained])
    assert isinstance(refusal, errors.ChainInvalid)
    assert "its subject key identifier is not the authority key identifier of CN=d:thermo:42" in refusal.reason
    forged = certs.leaf("d:thermo:42", constrained, more=with_id(None, b"old id"), signing_key=K("P-256", 55))
    assert isinstance(refuse(forged, [constrained]), errors.SignatureInvalid)


def test_an_inactive_predecessor_with_another_key_identifier_takes_no_device_along() -> None:
    """The renewed CA is registered and active, so its devices stay; without it they are refused."""
    before = certs.ca("Renewed", private=RENEWED.key, more=with_id(b"old id"), serial=9)
    leaf = certs.leaf("d:thermo:42", before, more=with_id(None, b"old id"))
    assert accept(leaf, [RENEWED], inactive=[before]) == (leaf.certificate, RENEWED.certificate)
    assert isinstance(refuse(leaf, [ROOT], inactive=[before]), errors.CAInactive)
    assert isinstance(refuse(leaf, [ROOT], sent=[RENEWED], inactive=[before]), errors.Refused)


def test_a_hundred_intermediates_of_one_name_are_bounded(questions: list[CertificationPath]) -> None:
    """At most 32 are tried, and the refusal is that of the paths which were tried."""
    crowd = [certs.ca("Crowd", ROOT, private=K("P-256", 200 + n % 3), serial=n + 1) for n in range(100)]
    leaf = certs.leaf("d:thermo:42", certs.ca("Crowd", private=K("P-256", 300)))
    assert isinstance(refuse(leaf, [ROOT], sent=crowd), errors.SignatureInvalid)
    assert 0 < len(questions) <= LIMITS.questions


def test_a_link_that_fails_is_tried_once(questions: list[CertificationPath]) -> None:
    """Five registered roots of one name above one forged link: the link is ruled out for all of them."""
    roots = [certs.ca("R", private=K("P-256", 20), serial=n + 1) for n in range(5)]
    inter = certs.ca("I", roots[0], private=K("P-256", 25))
    leaf = certs.leaf("d:thermo:42", inter, signing_key=K("P-256", 26))
    assert isinstance(refuse(leaf, roots, sent=[inter]), errors.SignatureInvalid)
    assert len(questions) == 1


@pytest.mark.usefixtures("never_plain")
def test_a_chain_among_many_strangers_costs_one_question(questions: list[CertificationPath]) -> None:
    strangers = [certs.ca(f"S {n}", private=K("P-256", 200)) for n in range(100)]
    assert accept(LEAF, [ROOT], sent=[*strangers, INTER]) == path_of(LEAF, INTER, ROOT)
    assert len(questions) == 1


def test_cross_signed_loops_are_bounded(questions: list[CertificationPath]) -> None:
    """Ten CAs, each signed by each of the others: millions of paths without an anchor."""
    own = [certs.ca(f"Loop {n}", private=K("P-256", 200 + n)) for n in range(10)]
    loop = [certs.ca(f"Loop {n}", own[m], private=K("P-256", 200 + n)) for n in range(10) for m in range(10) if n != m]
    leaf = certs.leaf("d:thermo:42", own[0])
    refusal = refuse(leaf, [ROOT], sent=loop)
    assert isinstance(refusal, errors.ChainTooCostly)
    assert refusal.code == "chain_invalid"
    assert "500 candidates for an issuer" in refusal.reason
    assert len(questions) == 0
    ends = [certs.ca(f"Loop {n}", ROOT, private=K("P-256", 400)) for n in range(10)]  # never the right key
    assert isinstance(refuse(leaf, [ROOT], sent=[*loop, *ends]), errors.ChainTooCostly)
    assert 0 < len(questions) <= LIMITS.questions


def test_a_crowd_of_rollovers_is_bounded(questions: list[CertificationPath]) -> None:
    """Paths of self-issued CAs are judged in pieces, and each piece counts."""
    line = [certs.ca("Roll", private=K("P-256", 200))]
    for n in range(1, 9):
        line.append(certs.ca("Roll", line[-1], private=K("P-256", 200 + n)))
    leaf = certs.leaf("d:thermo:42", certs.ca("Roll", private=K("P-256", 300)))
    assert isinstance(refuse(leaf, line[:1], sent=line[1:]), errors.ChainTooCostly)
    assert len(questions) <= LIMITS.questions


def test_thousands_of_names_are_no_question(questions: list[CertificationPath]) -> None:
    """5,000 constraints against 1,000 names are refused by name, before OpenSSL is asked. Names alone cost nothing."""
    names = [x509.DNSName(f"h{n}.example.com") for n in range(5000)]
    root = certs.ca("R", private=K("P-256", 3), more=[constraints(None, names)])
    leaf = certs.leaf("d:thermo:42", root, dns=[f"x{n}.example.org" for n in range(1000)])
    refusal = refuse(leaf, [root])
    assert refusal.code == "chain_invalid"
    assert "10,000 comparisons of names with name constraints" in refusal.reason
    assert "fewer name constraints" in refusal.advice
    assert questions == []
    few = certs.leaf("d:thermo:42", root)
    assert accept(few, [root]) == path_of(few, root)
    assert len(questions) == 1, "the subject and its CN, with 5,000 subtrees each"
    many = certs.leaf("d:thermo:42", ROOT, dns=[f"x{n}.example.org" for n in range(3000)])
    assert accept(many, [ROOT]) == path_of(many, ROOT)


def test_an_absurd_key_is_refused_before_openssl_sees_it(questions: list[CertificationPath]) -> None:
    leaf = certs.leaf("d:thermo:42", ROOT, private=K("RSA-1024"))
    assert isinstance(refuse(leaf, [ROOT]), errors.WeakKey)
    assert questions == []


def test_a_refusal_leaves_nothing_in_openssls_error_queue() -> None:
    """The next caller in this thread would take the entry for its own."""
    forger = certs.ca("Root", private=K("P-256", 8))
    refuse(certs.leaf("d:thermo:42", forger), [ROOT])
    with pytest.raises(crypto.Error) as error:
        crypto.load_certificate(crypto.FILETYPE_ASN1, b"")
    assert "signature" not in str(error.value)
    assert "verif" not in str(error.value)


def flipped(der: bytes, random_: random.Random) -> bytes:
    changed = bytearray(der)
    for _ in range(random_.choice([1, 1, 1, 2, 4])):
        changed[random_.randrange(len(changed))] = random_.randrange(256)
    return bytes(changed)


def decide(ders: Sequence[bytes], root: Issued) -> CertificationPath:
    leaf, sent, cas = Certificate.from_der(ders[0]), list(map(read_intermediate, ders[1:])), _registered([root])
    try:
        return certification_path.verify(leaf, sent, cas, [], NOON)
    finally:
        compare(leaf, sent, cas)


@pytest.mark.filterwarnings("ignore")  # odd serials and lengths are cryptography's warnings, not our answers
@pytest.mark.parametrize("seed", range(4))
def test_a_changed_certificate_is_refused_and_nothing_else(seed: int) -> None:
    """4,000 chains with changed bytes are refused, and nothing else is raised."""
    source = random.Random(seed)
    root = certs.ca("Root", private=K("RSA-2048", 1)) if seed % 2 else ROOT
    inter = certs.ca("Inter", root, private=K("P-256", 2), more=key_ids(INTER, None))
    rolled = certs.ca("Inter", inter, private=K("P-256", 12))
    leaf = certs.leaf("d:thermo:42", rolled, emails=["d:thermo:42"], extended_key_usage=[CLIENT_AUTH])
    assert accept(leaf, [root], sent=[inter, rolled]) == path_of(leaf, rolled, inter, root)
    for _ in range(1000):
        ders = [leaf.der, inter.der, rolled.der]
        which = source.randrange(3)
        ders[which] = flipped(ders[which], source)
        if ders[which] in (leaf.der, inter.der, rolled.der):
            continue
        with pytest.raises(Refused) as refusal:
            decide(ders, root)
        assert str(refusal.value)


def test_eight_threads_give_no_wrong_answer() -> None:
    """Threads share stores and CAs, and never each other's results."""
    cache._intermediates.clear()
    cache._registered.clear()
    generations = [certs.ca("Acme CA", private=K("P-256", 20 + n)) for n in range(4)]
    leaves = [certs.leaf(f"d:thermo:{n}", generations[n % 4]) for n in range(8)]
    bad = certs.leaf("d:thermo:9", certs.ca("Acme CA", private=K("P-256", 29)))

    def work(number: int) -> bool:
        leaf = leaves[number % 8]
        right = accept(leaf, generations) == path_of(leaf, generations[number % 4])
        return right and isinstance(refuse(bad, generations), errors.SignatureInvalid)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(400)))


def test_a_subject_with_two_common_names_passes() -> None:
    """Identities are matched in a later step."""
    odd = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text) for text in ("d:a:b", "d:a:c")])
    leaf = certs.leaf(odd, ROOT)
    assert accept(leaf, [ROOT])[0].der == leaf.der
