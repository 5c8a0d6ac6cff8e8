"""What a chain of certificates is worth: steps 4 and 6 to 8 of verifyClient."""

import datetime as dt
import itertools
import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import crypto

from shared import errors
from shared.errors import Refused
from shared.x509 import certificate, strength
from shared.x509 import path as trust
from shared.x509.certificate import Certificate, read
from tests import certs
from tests.certs import CLIENT_AUTH, DAY, NOON, SERVER_AUTH, Issued

K = certs.key
ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE


def believed(
    leaf: Issued,
    anchors: Iterable[Issued],
    sent: Iterable[Issued] = (),
    inactive: Iterable[Issued] = (),
    at: dt.datetime = NOON,
) -> list[x509.Certificate]:
    """The path, or the refusal raised."""
    path = trust.verify(read(leaf.cert), _sent(sent), _registered(anchors), _registered(inactive), at)
    return [one.cert for one in path]


def refused(
    leaf: Issued,
    anchors: Iterable[Issued],
    sent: Iterable[Issued] = (),
    inactive: Iterable[Issued] = (),
    at: dt.datetime = NOON,
    weak: Iterable[str] = (),
) -> Refused:
    """The refusal; every fact its sentence names is given."""
    with pytest.raises(Refused) as refusal:
        trust.verify(
            read(leaf.cert), _sent(sent), _registered(anchors), _registered(inactive), at, weak=frozenset(weak)
        )
    return refusal.value


def _certs(issued: Iterable[Issued]) -> list[x509.Certificate]:
    return [one.cert for one in issued]


def _sent(issued: Iterable[Issued]) -> list[Certificate]:
    return [certificate.sent(one.der) for one in issued]


def _registered(issued: Iterable[Issued]) -> list[Certificate]:
    return [certificate.registered(one.der) for one in issued]


def path_of(*issued: Issued) -> list[x509.Certificate]:
    return _certs(issued)


def constraints(
    permitted: Sequence[x509.GeneralName] | None = None, excluded: Sequence[x509.GeneralName] | None = None
) -> tuple[x509.ExtensionType, bool]:
    return x509.NameConstraints(permitted, excluded), True


def key_ids(own: Issued | None, issuer: Issued | None) -> list[tuple[x509.ExtensionType, bool]]:
    """SubjectKeyIdentifier of *own*'s key, AuthorityKeyIdentifier of *issuer*'s."""
    made: list[tuple[x509.ExtensionType, bool]] = []
    if own:
        made.append((x509.SubjectKeyIdentifier.from_public_key(own.key.public_key()), False))
    if issuer:
        made.append((x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), False))
    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each path OpenSSL was asked about, the number of certificates sent along."""
    calls: list[int] = []
    real = crypto.X509StoreContext

    class Counted(real):  # type: ignore[valid-type, misc]
        def __init__(self, store: crypto.X509Store, cert: crypto.X509, chain: Sequence[crypto.X509] = ()) -> None:
            calls.append(len(chain))
            super().__init__(store, cert, chain)

    monkeypatch.setattr(crypto, "X509StoreContext", Counted)
    return calls


@pytest.fixture
def never_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every path is OpenSSL's to judge."""
    monkeypatch.setattr(trust, "_is_plainly_signed", lambda path: False)


ROOT = certs.ca("Root", private=K("P-256", 1))
INTER = certs.ca("Inter", ROOT, private=K("P-256", 2))
LEAF = certs.leaf("d:thermo:42", INTER)


# ------------------------------------------------------------------------------------------------------ what passes


def test_a_device_under_a_registered_root_passes() -> None:
    leaf = certs.leaf("d:thermo:42", ROOT)
    assert believed(leaf, [ROOT]) == path_of(leaf, ROOT)


def test_the_device_may_send_its_intermediate() -> None:
    assert believed(LEAF, [ROOT], sent=[INTER]) == path_of(LEAF, INTER, ROOT)


def test_the_org_may_have_registered_the_intermediate_beside_the_root() -> None:
    """Each registered CA is trusted by itself: the nearest one vouches."""
    assert believed(LEAF, [ROOT, INTER]) == path_of(LEAF, INTER)


def test_an_intermediate_alone_is_an_anchor() -> None:
    """A fleet whose signing CA is an intermediate registers just that one."""
    assert believed(LEAF, [INTER]) == path_of(LEAF, INTER)


@pytest.mark.parametrize("sent", list(itertools.permutations([INTER, ROOT])))
def test_the_device_may_send_the_anchor_and_more_in_any_order(sent: tuple[Issued, ...]) -> None:
    assert believed(LEAF, [INTER], sent=sent) == path_of(LEAF, INTER)
    assert believed(LEAF, [ROOT], sent=sent) == path_of(LEAF, INTER, ROOT)
    assert believed(LEAF, [ROOT], sent=[*sent, LEAF, *sent]) == path_of(LEAF, INTER, ROOT)


def test_ten_cas_above_the_leaf_are_the_most() -> None:
    line = [ROOT]
    for number in range(10):
        line.insert(0, certs.ca(f"CA {number}", line[0], private=K("P-256", 10 + number)))
    nine = certs.leaf("d:thermo:42", line[1])
    assert believed(nine, [ROOT], sent=line[1:-1]) == path_of(nine, *line[1:])
    assert isinstance(refused(certs.leaf("d:thermo:42", line[0]), [ROOT], sent=line[:-1]), errors.UntrustedIssuer)


@pytest.mark.parametrize("kind", ["RSA-2048", "P-384", "P-521", "Ed25519", "Ed448"])
def test_every_kind_of_strong_key_passes(kind: str) -> None:
    root = certs.ca("R", private=K(kind, 1))
    inter = certs.ca("I", root, private=K(kind, 2))
    leaf = certs.leaf("d:thermo:42", inter, private=K(kind, 3))
    assert believed(leaf, [root], sent=[inter]) == path_of(leaf, inter, root)


def test_issuer_names_match_in_canonical_form() -> None:
    """RFC 5280, 7.1: case, spacing and string type are no difference."""
    leaf = certs.certificate(
        certs.name("d:thermo:42"), signer=ROOT, private=K(), issuer=certs.name("  rOOt "), not_after=NOON + DAY
    )
    assert believed(leaf, [ROOT]) == path_of(leaf, ROOT)


def test_sibling_certificates_do_not_matter() -> None:
    """What the device sends beside its chain is not its chain."""
    stranger = certs.ca("Stranger", private=K("P-256", 50))
    assert believed(LEAF, [ROOT], sent=[stranger, INTER]) == path_of(LEAF, INTER, ROOT)


@pytest.mark.parametrize("usage", [None, certs.usage(digital_signature=True)])
@pytest.mark.parametrize("purposes", [(), (CLIENT_AUTH,), (SERVER_AUTH, CLIENT_AUTH), (ANY,)])
def test_a_tls_client_passes(usage: x509.KeyUsage | None, purposes: tuple[x509.ObjectIdentifier, ...]) -> None:
    leaf = certs.leaf("d:thermo:42", ROOT, key_usage=usage, extended_key_usage=purposes)
    assert believed(leaf, [ROOT]) == path_of(leaf, ROOT)


@pytest.mark.parametrize("critical", [True, False])
@pytest.mark.parametrize("usage", [None, certs.usage(key_cert_sign=True)])
def test_basic_constraints_need_not_be_critical_nor_key_usage_there(
    critical: bool, usage: x509.KeyUsage | None
) -> None:
    root = certs.ca("R", critical=critical, key_usage=usage)
    leaf = certs.leaf("d:thermo:42", root)
    assert believed(leaf, [root]) == path_of(leaf, root)


# ------------------------------------------------------------------------------------- step 4: what cannot be read


def test_presented_certificates_are_read() -> None:
    assert [one.cert for one in trust.parse_presented([LEAF.der, INTER.der])] == path_of(LEAF, INTER)


@pytest.mark.parametrize(
    "ders",
    [
        [],
        [b""],
        [b"\x30\x80"],
        [LEAF.der + b"\0"],
        [LEAF.der, b"junk"],
        [LEAF.pem.encode()],
        [LEAF.der] * 11,
        [b"\0" * 65537],
    ],
    ids=["none", "empty", "cut", "trailing", "second", "pem", "eleven", "64KiB+1"],
)
def test_what_cannot_be_read_is_malformed(ders: list[bytes]) -> None:
    with pytest.raises(errors.CertificateMalformed) as refusal:
        trust.parse_presented(ders)
    assert refusal.value.facts["found"]


def with_extension(oid: str, content: bytes, *, critical: bool = False, signer: Issued = ROOT) -> Issued:
    value = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), content)
    return certs.leaf("d:thermo:42", signer, more=[(value, critical)])


@pytest.mark.parametrize(
    ("oid", "content"),
    [("2.5.29.17", b"\x30\x03\x81\x01\xff"), ("2.5.29.37", b"\x30\x00"), ("2.5.29.15", b"\x01")],
    ids=["e-mail not ASCII", "empty EKU", "KeyUsage no bits"],
)
def test_a_field_that_cannot_be_read_is_malformed(oid: str, content: bytes) -> None:
    """cryptography reads extensions late; no later step may stumble over one. Sent along, it counts as well."""
    bad = with_extension(oid, content)
    for refusal in (refused(bad, [ROOT]), refused(LEAF, [ROOT], sent=[INTER, bad])):
        assert isinstance(refusal, errors.CertificateMalformed)
        assert refusal.cert == bad.cert
        assert refusal.facts["found"]
    with pytest.raises(errors.CertificateMalformed):
        read(bad.cert)


def test_what_only_openssl_cannot_read_is_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise crypto.Error([("asn1", "", "bad")])

    leaf = with_extension("1.2.3.4.5", b"\x05\x00")  # so that OpenSSL is asked
    assert believed(leaf, [ROOT])
    monkeypatch.setattr(crypto, "load_certificate", fails)
    refusal = refused(leaf, [ROOT])
    assert isinstance(refusal, errors.CertificateMalformed)
    assert refusal.cert is leaf.cert


def test_a_naive_time_is_a_mistake_of_the_caller() -> None:
    """A naive time would be read as local time."""
    with pytest.raises(ValueError, match="aware"):
        trust.verify(read(LEAF.cert), [], _registered([INTER]), [], NOON.replace(tzinfo=None))


# --------------------------------------------------------------------------------------------------- step 6: the chain


def test_another_orgs_ca_is_not_trusted() -> None:
    """The issuer's name is nobody's here."""
    other = certs.ca("Other Root", private=K("P-256", 3))
    refusal = refused(certs.leaf("d:thermo:42", other), [ROOT], sent=[other])
    assert isinstance(refusal, errors.UntrustedIssuer)
    assert refusal.facts == {"issuer": "CN=Other Root"}


def test_without_any_ca_nothing_is_trusted() -> None:
    assert isinstance(refused(LEAF, []), errors.UntrustedIssuer)


def test_the_missing_issuer_is_named() -> None:
    """Without its intermediate: that one is missing. With it: the one above is."""
    root = certs.ca("Unknown Root", private=K("P-256", 3))
    inter = certs.ca("Known Inter", root, private=K("P-256", 4))
    leaf = certs.leaf("d:thermo:42", inter)
    alone, sent = refused(leaf, [ROOT]), refused(leaf, [ROOT], sent=[inter])
    assert alone.reason == "Issued by CN=Known Inter, not among your CAs."
    assert alone.cert is leaf.cert
    assert sent.reason == "Issued by CN=Unknown Root, not among your CAs."
    assert sent.cert == inter.cert


@pytest.mark.parametrize("with_ids", [False, True])
def test_the_right_name_from_the_wrong_signer_is_a_bad_signature(with_ids: bool) -> None:
    """With key identifiers or without: a CA of that name is here, and its key did not sign this."""
    real, forger = certs.ca("Acme", private=K("P-256", 3)), certs.ca("Acme", private=K("P-256", 4))
    if with_ids:
        real = certs.ca("Acme", private=K("P-256", 3), more=key_ids(real, None))
    leaf = certs.leaf("d:thermo:42", forger, more=key_ids(None, forger) if with_ids else ())
    for sent in ([], [forger]):
        refusal = refused(leaf, [real], sent=sent)
        assert isinstance(refusal, errors.SignatureInvalid)
        assert refusal.facts == {"issuer": "CN=Acme"}
        assert refusal.reason == "Not signed by CN=Acme's key: forged, or another CA of that name."


def test_a_self_signed_device_with_a_cas_name_is_a_bad_signature() -> None:
    mimic = certs.ca("Root", private=K("P-256", 5), is_ca=None)
    refusal = refused(mimic, [ROOT])
    assert isinstance(refusal, errors.SignatureInvalid)
    assert refusal.cert is mimic.cert


@pytest.mark.parametrize("is_ca", [False, None])
@pytest.mark.parametrize("usage", [None, certs.usage(key_cert_sign=True)])
def test_an_intermediate_without_ca_true_may_not_sign(is_ca: bool | None, usage: x509.KeyUsage | None) -> None:
    """RFC 5280, 6.1.4 (k). keyCertSign alone makes no CA, whatever OpenSSL thinks."""
    inter = certs.ca("Device", ROOT, private=K("P-256", 3), is_ca=is_ca, key_usage=usage)
    refusal = refused(certs.leaf("d:thermo:42", inter), [ROOT], sent=[inter])
    assert isinstance(refusal, errors.ChainInvalid)
    assert refusal.cert == inter.cert
    assert refusal.reason.startswith("CN=Device may not sign this: it is not a CA")


def test_an_anchor_without_ca_true_vouches_for_nobody() -> None:
    """Not even for itself."""
    anchor = certs.ca("Self", private=K("P-256", 3), is_ca=None)
    assert isinstance(refused(certs.leaf("d:thermo:42", anchor), [anchor]), errors.ChainInvalid)
    assert isinstance(refused(anchor, [anchor]), errors.ChainInvalid)


def test_a_ca_without_key_cert_sign_may_not_sign() -> None:
    """RFC 5280, 4.2.1.3."""
    usage = certs.usage(crl_sign=True)
    inter = certs.ca("No Sign", ROOT, private=K("P-256", 3), key_usage=usage)
    refusal = refused(certs.leaf("d:thermo:42", inter), [ROOT], sent=[inter])
    assert isinstance(refusal, errors.ChainInvalid)
    assert refusal.facts == {"subject": "CN=No Sign", "limit": "its KeyUsage lacks keyCertSign"}
    anchor = certs.ca("R", key_usage=usage)
    assert isinstance(refused(certs.leaf("d:thermo:42", anchor), [anchor]), errors.ChainInvalid)


def test_path_length_zero_allows_devices_only() -> None:
    """RFC 5280, 4.2.1.9."""
    root = certs.ca("R", path_length=0, private=K("P-256", 3))
    inter = certs.ca("I", root, private=K("P-256", 4))
    direct, leaf = certs.leaf("d:thermo:42", root), certs.leaf("d:thermo:42", inter)
    assert believed(direct, [root]) == path_of(direct, root)
    refusal = refused(leaf, [root], sent=[inter])
    assert isinstance(refusal, errors.ChainInvalid)
    assert refusal.facts["subject"] == "CN=R"
    assert refusal.cert == root.cert
    assert believed(leaf, [inter]) == path_of(leaf, inter)


def test_self_issued_cas_do_not_count_in_the_path_length() -> None:
    """RFC 5280, 6.1.4 (l): a key rollover needs no longer path."""
    old = certs.ca("R", path_length=0, private=K("P-256", 3))
    new_key = K("P-256", 4)
    new_with_old = certs.ca("R", old, private=new_key, path_length=0)
    leaf = certs.leaf("d:thermo:42", Issued(new_with_old.cert, new_key))
    assert believed(leaf, [old], sent=[new_with_old]) == path_of(leaf, new_with_old, old)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("purposes", [[SERVER_AUTH], [ExtendedKeyUsageOID.CODE_SIGNING, SERVER_AUTH]])
def test_a_ca_for_servers_may_not_sign_clients(purposes: list[x509.ObjectIdentifier], depth: int) -> None:
    """EKU on a CA is a limit for all below it, be it an intermediate or the anchor."""
    limit = [(x509.ExtendedKeyUsage(purposes), False)]
    root = certs.ca("R", private=K("P-256", 3), more=limit if depth == 2 else ())
    inter = certs.ca("I", root, private=K("P-256", 4), more=limit if depth == 1 else ())
    leaf = certs.leaf("d:thermo:42", inter, extended_key_usage=[CLIENT_AUTH])
    refusal = refused(leaf, [root], sent=[inter])
    assert isinstance(refusal, errors.ChainInvalid)
    assert "serverAuth" in str(refusal.facts["limit"])
    assert refusal.cert == (inter, root)[depth - 1].cert


@pytest.mark.parametrize("purpose", [CLIENT_AUTH, ANY])
def test_a_ca_for_clients_may_sign_them(purpose: x509.ObjectIdentifier) -> None:
    limit = [(x509.ExtendedKeyUsage([SERVER_AUTH, purpose]), False)]
    root = certs.ca("R", private=K("P-256", 3), more=limit)
    inter = certs.ca("I", root, private=K("P-256", 4), more=limit)
    leaf = certs.leaf("d:thermo:42", inter)
    assert believed(leaf, [root], sent=[inter]) == path_of(leaf, inter, root)


DIRECTORY = x509.DirectoryName(certs.name(None, organization="Acme"))


def acme(common_name: str) -> x509.Name:
    return certs.name(common_name, organization="Acme")


def test_a_kept_name_constraint_passes() -> None:
    """RFC 5280, 4.2.1.10."""
    root = certs.ca("R", private=K("P-256", 3), more=[constraints([DIRECTORY])])
    leaf = certs.leaf(acme("d:thermo:42"), root)
    assert believed(leaf, [root]) == path_of(leaf, root)


@pytest.mark.parametrize("at_root", [True, False])
def test_a_broken_name_constraint_is_refused(at_root: bool) -> None:
    limit = [constraints([DIRECTORY])]
    root = certs.ca(acme("R"), private=K("P-256", 3), more=limit if at_root else ())
    inter = certs.ca(acme("I"), root, private=K("P-256", 4), more=() if at_root else limit)
    refusal = refused(certs.leaf("d:thermo:42", inter), [root], sent=[inter])
    assert isinstance(refusal, errors.ChainInvalid)
    assert refusal.cert == (root if at_root else inter).cert
    assert "name constraints forbid CN=d:thermo:42" in refusal.reason


def test_an_excluded_name_is_refused() -> None:
    root = certs.ca("R", private=K("P-256", 3), more=[constraints(None, [x509.DNSName("example.com")])])
    assert isinstance(refused(certs.leaf("d:thermo:42", root, dns=["a.example.com"]), [root]), errors.ChainInvalid)
    leaf = certs.leaf("d:thermo:42", root, dns=["example.org"])
    assert believed(leaf, [root]) == path_of(leaf, root)


def test_an_email_constraint_forbids_every_device_name_in_san_and_says_so() -> None:
    """d:type:device is no mailbox (RFC 5280, 4.2.1.10): such a CA cannot vouch for it, by any engine."""
    root = certs.ca("R", private=K("P-256", 3), more=[constraints([x509.RFC822Name("acme.com")])])
    refusal = refused(certs.leaf("x", root, emails=["d:thermo:42"]), [root])
    assert isinstance(refusal, errors.ChainInvalid)
    assert refusal.cert == root.cert
    assert "is no e-mail address" in refusal.reason
    in_cn = certs.leaf("d:thermo:42", root)
    assert believed(in_cn, [root]) == path_of(in_cn, root)


def test_an_unknown_critical_extension_is_refused() -> None:
    """RFC 5280, 4.2. On the leaf, its issuer is told; on a CA, that one."""
    leaf = with_extension("1.2.3.4", b"\x05\x00", critical=True)
    refusal = refused(leaf, [ROOT])
    assert isinstance(refusal, errors.ChainInvalid)
    assert refusal.cert is leaf.cert
    assert refusal.reason == (
        "CN=Root may not sign this: the certificate has a critical extension that is unknown here (1.2.3.4)."
    )
    unknown = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)
    ca = certs.ca("C", private=K("P-256", 3), more=[unknown])
    refusal = refused(certs.leaf("d:thermo:42", ca), [ca])
    assert isinstance(refusal, errors.ChainInvalid)
    assert refusal.cert == ca.cert
    assert refusal.facts["subject"] == "CN=C"


def test_an_unknown_extension_that_is_not_critical_passes() -> None:
    leaf = with_extension("1.2.3.4", b"\x05\x00")
    assert believed(leaf, [ROOT]) == path_of(leaf, ROOT)


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
        refusal = refused(leaf, [anchor], sent=sent)
        assert isinstance(refusal, errors.WeakKey)
        assert refusal.cert == at_fault.cert
        assert refusal.facts["found"] == {"RSA-1024": "RSA 1024 bits", "K-256": "secp256k1"}[kind]


@pytest.mark.parametrize("which", [LEAF, INTER, ROOT])
def test_a_key_on_the_weak_list_is_refused_anywhere(which: Issued) -> None:
    refusal = refused(LEAF, [ROOT], sent=[INTER], weak=strength.key_ids(which.key.public_key()))
    assert isinstance(refusal, errors.WeakKey)
    assert refusal.cert == which.cert


def test_a_key_of_unknown_kind_is_weak_not_malformed() -> None:
    """It can be read, just not used."""
    leaf = certs.leaf("d:thermo:42", ROOT)
    curve, odd = bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0209")
    strange = x509.load_der_x509_certificate(leaf.der.replace(curve, odd))
    with pytest.raises(errors.WeakKey) as refusal:
        trust.verify(read(strange), [], _registered([ROOT]), [], NOON)
    assert refusal.value.facts["found"] == "A key of algorithm 1.2.840.10045.2.9"


# ------------------------------------------------------------------------------------------------------ inactive CAs


def test_an_inactive_ca_vouches_for_nobody() -> None:
    leaf = certs.leaf("d:thermo:42", ROOT)
    refusal = refused(leaf, [], inactive=[ROOT])
    assert isinstance(refusal, errors.CAInactive)
    assert refusal.cert == ROOT.cert
    assert refusal.facts == {"subject": "CN=Root", "when": ""}
    assert refusal.reason == "CN=Root is deactivated."
    assert isinstance(refused(leaf, [certs.ca("Else")], inactive=[ROOT]), errors.CAInactive)


@pytest.mark.parametrize("sent", [(), (INTER,)])
def test_no_path_passes_through_an_inactive_ca(sent: tuple[Issued, ...]) -> None:
    """Registered or sent by the device, under an active root."""
    refusal = refused(LEAF, [ROOT], sent=sent, inactive=[INTER])
    assert isinstance(refusal, errors.CAInactive)
    assert refusal.cert == INTER.cert


def test_another_certificate_of_an_inactive_cas_name_and_key_is_inactive_too() -> None:
    """Renewed or cross-signed: the key is what was switched off. Its name may be spelled otherwise."""
    again = certs.ca("INTER", ROOT, private=K("P-256", 2), serial=77)
    refusal = refused(LEAF, [ROOT], sent=[again], inactive=[INTER])
    assert isinstance(refusal, errors.CAInactive)
    assert isinstance(refused(LEAF, [ROOT, again], inactive=[INTER]), errors.CAInactive)
    assert isinstance(refused(LEAF, [again], inactive=[INTER, ROOT]), errors.CAInactive)


def test_a_ca_of_an_inactive_cas_name_with_another_key_is_not_inactive() -> None:
    """A rotation: the old one is switched off, the new one signs."""
    new = certs.ca("Inter", ROOT, private=K("P-256", 6))
    leaf = certs.leaf("d:thermo:42", new)
    assert believed(leaf, [ROOT], sent=[new], inactive=[INTER]) == path_of(leaf, new, ROOT)
    assert believed(leaf, [new], inactive=[INTER]) == path_of(leaf, new)
    assert isinstance(refused(LEAF, [new], inactive=[INTER]), errors.CAInactive)


def test_another_way_around_an_inactive_ca_is_fine() -> None:
    other = certs.ca("Other Root", private=K("P-256", 3))
    cross = certs.ca("Cross", other, private=K("P-256", 7))
    same_by_root = certs.ca("Cross", ROOT, private=K("P-256", 7))
    leaf = certs.leaf("d:thermo:42", cross)
    assert believed(leaf, [ROOT], sent=[cross, same_by_root], inactive=[other]) == path_of(leaf, same_by_root, ROOT)


def test_a_forged_chain_to_an_inactive_ca_is_forged() -> None:
    """ca_inactive is said only where nothing else is wrong."""
    forger = certs.ca("Root", private=K("P-256", 8))
    assert isinstance(refused(certs.leaf("d:thermo:42", forger), [], inactive=[ROOT]), errors.SignatureInvalid)


def test_inactive_comes_before_expired() -> None:
    """Step 6 before step 7."""
    leaf = certs.leaf("d:thermo:42", ROOT, not_after=NOON - DAY)
    assert isinstance(refused(leaf, [], inactive=[ROOT]), errors.CAInactive)


# --------------------------------------------------------------------------------------------------- step 7: dates

START, END = NOON - DAY, NOON + DAY
SECOND, MICRO = dt.timedelta(seconds=1), dt.timedelta(microseconds=1)


@pytest.mark.parametrize("at", [START, START + MICRO, NOON, END, END + SECOND - MICRO])
def test_both_ends_are_inside_in_whole_seconds(at: dt.datetime) -> None:
    """RFC 5280, 4.1.2.5: "from notBefore through notAfter, inclusive"."""
    leaf = certs.leaf("d:thermo:42", ROOT, not_before=START, not_after=END)
    assert believed(leaf, [ROOT], at=at)
    assert believed(leaf, [ROOT], at=at.astimezone(dt.timezone(dt.timedelta(hours=14))))


@pytest.mark.parametrize(
    ("at", "kind", "sentence"),
    [
        (START - MICRO, errors.CertificateNotYetValid, "Begins 31 May 2026, 12:00 UTC."),
        (END + SECOND, errors.CertificateExpired, "Ended 2 Jun 2026, 12:00 UTC."),
    ],
)
def test_outside_its_time_a_leaf_is_refused(at: dt.datetime, kind: type[Refused], sentence: str) -> None:
    leaf = certs.leaf("d:thermo:42", ROOT, not_before=START, not_after=END)
    refusal = refused(leaf, [ROOT], at=at)
    assert type(refusal) is kind
    assert refusal.reason == sentence
    assert refusal.cert is leaf.cert


@pytest.mark.parametrize("depth", [1, 2])
def test_an_expired_ca_is_refused(depth: int) -> None:
    """An intermediate or the anchor: no CA outlives itself."""
    ended = {"not_after": NOON - SECOND}
    root = certs.ca("R", private=K("P-256", 3), **(ended if depth == 2 else {}))  # type: ignore[arg-type]
    inter = certs.ca("I", root, private=K("P-256", 4), **(ended if depth == 1 else {}))  # type: ignore[arg-type]
    refusal = refused(certs.leaf("d:thermo:42", inter), [root], sent=[inter])
    assert isinstance(refusal, errors.CAExpired)
    assert refusal.cert == (inter, root)[depth - 1].cert
    assert refusal.reason == f"CA CN={'IR'[depth - 1]} ended 1 Jun 2026, 11:59 UTC."


def test_a_ca_that_has_not_begun_is_refused() -> None:
    root = certs.ca("R", not_before=NOON + DAY)
    refusal = refused(certs.leaf("d:thermo:42", root), [root])
    assert isinstance(refusal, errors.CertificateNotYetValid)
    assert refusal.cert == root.cert


def test_the_chain_is_judged_before_the_dates() -> None:
    """Step 6 before step 7: an expired forgery is a forgery."""
    forger = certs.ca("Root", private=K("P-256", 8))
    leaf = certs.leaf("d:thermo:42", forger, not_after=NOON - DAY)
    assert isinstance(refused(leaf, [ROOT]), errors.SignatureInvalid)


# --------------------------------------------------------------------------------------------------- step 8: purpose


@pytest.mark.parametrize(
    ("purposes", "usage", "found"),
    [
        ([SERVER_AUTH], None, "Made for serverAuth."),
        ([x509.ObjectIdentifier("1.2.3")], None, "Made for 1.2.3."),
        (
            [x509.ObjectIdentifier(f"1.2.{n}") for n in range(9)],
            None,
            "Made for 1.2.0, 1.2.1, 1.2.2, 1.2.3, 1.2.4 and more.",
        ),
        ((), certs.usage(key_encipherment=True), "Lacks digitalSignature."),
    ],
)
def test_a_leaf_for_something_else_is_refused(
    purposes: Sequence[x509.ObjectIdentifier], usage: x509.KeyUsage | None, found: str
) -> None:
    """RFC 5280, 4.2.1.12 and 4.2.1.3."""
    leaf = certs.leaf("d:thermo:42", ROOT, extended_key_usage=purposes, key_usage=usage)
    refusal = refused(leaf, [ROOT])
    assert isinstance(refusal, errors.WrongKeyUsage)
    assert refusal.reason == found
    assert refusal.advice == "Reissue as a client certificate (clientAuth, digitalSignature)."


def test_a_ca_is_no_device() -> None:
    """An intermediate, a registered one, and the anchor itself."""
    for ca, anchors in ((INTER, [ROOT]), (INTER, [INTER]), (ROOT, [ROOT])):
        refusal = refused(ca, anchors)
        assert isinstance(refusal, errors.WrongKeyUsage)
        assert refusal.reason == "A CA."
        assert refusal.cert == ca.cert


def test_dates_come_before_the_purpose() -> None:
    leaf = certs.leaf("d:thermo:42", ROOT, extended_key_usage=[SERVER_AUTH], not_after=NOON - DAY)
    assert isinstance(refused(leaf, [ROOT]), errors.CertificateExpired)


# ----------------------------------------------------------------------------------- several CAs of one name: any order


def answers(leaf: Issued, anchors: Sequence[Issued], sent: Sequence[Issued], **more: dt.datetime) -> set[object]:
    """Every answer that the orders of registering and of sending give."""
    given: set[object] = set()
    for registered in itertools.permutations(anchors):
        for order in itertools.permutations(sent):
            try:
                path = trust.verify(read(leaf.cert), _sent(order), _registered(registered), [], more.get("at", NOON))
                given.add(tuple(one.cert for one in path))
            except Refused as refusal:
                given.add((type(refusal), refusal.cert, str(refusal)))
    return given


@pytest.mark.parametrize("signer", range(4))
def test_a_rotation_gives_one_answer_in_every_order(signer: int) -> None:
    """Four CAs of one name without key identifiers: the one that signed is found wherever it stands."""
    generations = [certs.ca("Acme CA", private=K("P-256", 20 + n)) for n in range(4)]
    leaf = certs.leaf("d:thermo:42", generations[signer])
    assert answers(leaf, generations, []) == {(leaf.cert, generations[signer].cert)}
    others = [one for one in generations if one is not generations[signer]]
    (answer,) = answers(leaf, others, [])
    assert isinstance(answer, tuple)
    assert answer[0] is errors.SignatureInvalid


def test_same_named_intermediates_of_the_device_in_every_order() -> None:
    inters = [certs.ca("I", ROOT, private=K("P-256", 20 + n)) for n in range(4)]
    leaf = certs.leaf("d:thermo:42", inters[2])
    assert answers(leaf, [ROOT], inters) == {(leaf.cert, inters[2].cert, ROOT.cert)}


def test_a_cross_signed_ca_in_every_order() -> None:
    """One CA, three certificates: its own, by a registered root, by a stranger."""
    key, stranger = K("P-256", 30), certs.ca("Stranger", private=K("P-256", 31))
    own, by_root, by_stranger = (certs.ca("X", by, private=key) for by in (None, ROOT, stranger))
    leaf = certs.leaf("d:thermo:42", own)
    assert answers(leaf, [ROOT], [own, by_root, by_stranger]) == {(leaf.cert, by_root.cert, ROOT.cert)}
    assert answers(leaf, [ROOT, own], [by_root, by_stranger]) == {(leaf.cert, own.cert)}
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
    assert answers(by_new, [old], sent) == {(by_new.cert, new_with_old.cert, old.cert)}
    assert answers(by_old, [new], sent) == {(by_old.cert, old_with_new.cert, new.cert)}
    assert answers(by_new, [old, new], sent) == {(by_new.cert, new.cert)}
    if under:
        assert answers(by_new, [ROOT], [new_with_old, old]) == {(by_new.cert, new_with_old.cert, old.cert, ROOT.cert)}
        deep = answers(by_new, [ROOT], [*sent, old])
        assert deep == {(by_new.cert, new_with_old.cert, old.cert, ROOT.cert)}


def test_a_forged_rollover_is_a_bad_signature_in_every_order() -> None:
    """It names itself as its issuer, as OpenSSL's mimics do; the old key never signed it."""
    old, forger = certs.ca("Roll", private=K("P-256", 40)), certs.ca("Roll", private=K("P-256", 42))
    leaf = certs.leaf("d:thermo:42", forger)
    again = certs.ca("Roll", forger, private=K("P-256", 42), serial=5)
    (answer,) = answers(leaf, [old], [forger, again])
    assert isinstance(answer, tuple)
    assert answer[0] is errors.SignatureInvalid


def test_a_rollover_does_not_shake_off_name_constraints() -> None:
    """What OpenSSL cannot hold against the names below is refused, not forgotten. With key identifiers it can."""
    limit = [constraints([DIRECTORY])]
    old = certs.ca(acme("Roll"), private=K("P-256", 40), more=limit)
    new = certs.ca(acme("Roll"), old, private=K("P-256", 41))
    for common_name in (certs.name("d:thermo:42"), acme("d:thermo:42")):
        refusal = refused(certs.leaf(common_name, new), [old], sent=[new])
        assert isinstance(refusal, errors.ChainInvalid)
        assert refusal.cert == old.cert
    old = certs.ca(acme("Roll"), private=K("P-256", 40), more=[*limit, *key_ids(old, old)])
    new = certs.ca(acme("Roll"), old, private=K("P-256", 41), more=key_ids(new, old))
    leaf = certs.leaf(acme("d:thermo:42"), new, more=key_ids(None, new))
    assert believed(leaf, [old], sent=[new]) == path_of(leaf, new, old)
    foreign = certs.leaf("d:thermo:42", new, more=key_ids(None, new))
    assert isinstance(refused(foreign, [old], sent=[new]), errors.ChainInvalid)


def test_a_path_length_holds_across_a_rollover() -> None:
    """RFC 5280, 6.1.4 (m), also where OpenSSL judges the path in pieces."""
    old = certs.ca("Roll", private=K("P-256", 40), path_length=0)
    new = certs.ca("Roll", old, private=K("P-256", 41))
    inter = certs.ca("I", new, private=K("P-256", 43))
    refusal = refused(certs.leaf("d:thermo:42", inter), [old], sent=[inter, new])
    assert isinstance(refusal, errors.ChainInvalid)
    assert refusal.cert == old.cert
    assert refusal.facts["limit"] == "its path length allows 0 CAs below it, here are 1"


def test_an_unknown_critical_extension_above_a_rollover_is_seen() -> None:
    """Every certificate of the path is judged, in whichever piece it is."""
    unknown = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)
    for bad_old, bad_new in ((True, False), (False, True)):
        old = certs.ca("Roll", private=K("P-256", 40), more=[unknown] if bad_old else ())
        new = certs.ca("Roll", old, private=K("P-256", 41), more=[unknown] if bad_new else ())
        refusal = refused(certs.leaf("d:thermo:42", new), [old], sent=[new])
        assert isinstance(refusal, errors.ChainInvalid)
        assert refusal.cert == (old if bad_old else new).cert


def test_a_name_that_comes_twice_with_others_between_in_every_order() -> None:
    """R signed X, and X signed another R: OpenSSL alone takes the first R for the leaf's issuer."""
    top = certs.ca("R", private=K("P-256", 60))
    middle = certs.ca("X", top, private=K("P-256", 61))
    lower = certs.ca("R", middle, private=K("P-256", 62))
    leaf = certs.leaf("d:thermo:42", lower)
    assert answers(leaf, [top], [middle, lower]) == {(leaf.cert, lower.cert, middle.cert, top.cert)}


def test_the_path_that_got_furthest_speaks_in_every_order() -> None:
    """Of three CAs of one name one signed, and the leaf has expired: that helps more than "not signed by"."""
    generations = [certs.ca("Acme CA", private=K("P-256", 20 + n)) for n in range(3)]
    leaf = certs.leaf("d:thermo:42", generations[1], not_after=NOON - DAY)
    (answer,) = answers(leaf, generations, [])
    assert isinstance(answer, tuple)
    assert answer[:2] == (errors.CertificateExpired, leaf.cert)


def test_an_expired_ca_gives_way_to_its_renewal_in_every_order() -> None:
    """Same name, same key, new dates."""
    old = certs.ca("Acme CA", private=K("P-256", 20), not_after=NOON - DAY)
    renewed = certs.ca("Acme CA", private=K("P-256", 20))
    leaf = certs.leaf("d:thermo:42", old)
    assert answers(leaf, [old, renewed], []) == {(leaf.cert, renewed.cert)}
    assert answers(leaf, [renewed], [old]) == {(leaf.cert, renewed.cert)}


def test_a_signature_that_fails_comes_before_what_the_ca_may() -> None:
    """A certificate that only calls itself Root is no CA, and that is not the point."""
    fake = certs.ca("Fake", private=K("P-256", 70), is_ca=False)
    claims = certs.certificate(
        certs.name("Fake"), signer=ROOT, private=K("P-256", 70), signing_key=K("P-256", 71), not_after=NOON + DAY
    )
    refusal = refused(certs.leaf("d:thermo:42", fake), [ROOT], sent=[claims])
    assert isinstance(refusal, errors.SignatureInvalid)
    assert refusal.cert == claims.cert


# ------------------------------------------------------------------------------------------------------------ hostile


def test_a_hundred_intermediates_of_one_name_are_bounded(asked: list[int]) -> None:
    crowd = [certs.ca("Crowd", ROOT, private=K("P-256", 200 + n % 3), serial=n + 1) for n in range(100)]
    leaf = certs.leaf("d:thermo:42", certs.ca("Crowd", private=K("P-256", 300)))
    assert isinstance(refused(leaf, [ROOT], sent=crowd), errors.SignatureInvalid)
    assert 0 < len(asked) <= trust.ATTEMPTS_MAX


def test_a_link_that_fails_is_tried_once(asked: list[int]) -> None:
    """Five registered roots of one name above one forged link: the link is ruled out for all of them."""
    roots = [certs.ca("R", private=K("P-256", 20), serial=n + 1) for n in range(5)]
    inter = certs.ca("I", roots[0], private=K("P-256", 25))
    leaf = certs.leaf("d:thermo:42", inter, signing_key=K("P-256", 26))
    assert isinstance(refused(leaf, roots, sent=[inter]), errors.SignatureInvalid)
    assert len(asked) == 1


@pytest.mark.usefixtures("never_plain")
def test_a_chain_among_many_strangers_costs_one_question(asked: list[int]) -> None:
    strangers = [certs.ca(f"S {n}", private=K("P-256", 200)) for n in range(100)]
    assert believed(LEAF, [ROOT], sent=[*strangers, INTER]) == path_of(LEAF, INTER, ROOT)
    assert len(asked) == 1


def test_cross_signed_loops_are_bounded(asked: list[int]) -> None:
    """Ten CAs, each signed by each of the others: millions of ways that lead nowhere."""
    own = [certs.ca(f"Loop {n}", private=K("P-256", 200 + n)) for n in range(10)]
    loop = [certs.ca(f"Loop {n}", own[m], private=K("P-256", 200 + n)) for n in range(10) for m in range(10) if n != m]
    leaf = certs.leaf("d:thermo:42", own[0])
    assert isinstance(refused(leaf, [ROOT], sent=loop), errors.UntrustedIssuer)
    assert len(asked) == 0
    ends = [certs.ca(f"Loop {n}", ROOT, private=K("P-256", 400)) for n in range(10)]  # never the right key
    assert isinstance(refused(leaf, [ROOT], sent=[*loop, *ends]), errors.SignatureInvalid)
    assert 0 < len(asked) <= trust.ATTEMPTS_MAX


def test_a_crowd_of_rollovers_is_bounded(asked: list[int]) -> None:
    """Self-issued ones are judged in pieces; pieces count."""
    line = [certs.ca("Roll", private=K("P-256", 200))]
    for n in range(1, 9):
        line.append(certs.ca("Roll", line[-1], private=K("P-256", 200 + n)))
    leaf = certs.leaf("d:thermo:42", certs.ca("Roll", private=K("P-256", 300)))
    assert isinstance(refused(leaf, line[:1], sent=line[1:]), errors.SignatureInvalid)
    assert len(asked) <= trust.ATTEMPTS_MAX


def test_thousands_of_names_are_one_question(asked: list[int]) -> None:
    """5,000 constraints against 1,000 names: refused, by one call."""
    names = [x509.DNSName(f"h{n}.example.com") for n in range(5000)]
    root = certs.ca("R", private=K("P-256", 3), more=[constraints(None, names)])
    leaf = certs.leaf("d:thermo:42", root, dns=[f"x{n}.example.org" for n in range(1000)])
    refusal = refused(leaf, [root])
    assert isinstance(refusal, errors.ChainInvalid)
    assert len(asked) == 1
    many = certs.leaf("d:thermo:42", ROOT, dns=[f"x{n}.example.org" for n in range(3000)])
    assert believed(many, [ROOT]) == path_of(many, ROOT)


def test_an_absurd_key_is_refused_before_openssl_sees_it(asked: list[int]) -> None:
    leaf = certs.leaf("d:thermo:42", ROOT, private=K("RSA-1024"))
    assert isinstance(refused(leaf, [ROOT]), errors.WeakKey)
    assert asked == []


def test_what_is_kept_is_bounded() -> None:
    """A leaf is never kept; nor is what a device sends, if it is longer than CAs are."""
    certificate._sent.cache_clear()
    certificate._registered.cache_clear()
    long = certs.ca(
        "Long",
        ROOT,
        private=K("P-256", 9),
        more=[constraints(None, [x509.DNSName("x" * 60 + f".{n}") for n in range(80)])],
    )
    leaf = certs.leaf("d:thermo:42", long)
    for _ in range(3):
        assert believed(leaf, [ROOT], sent=[long])
    assert certificate._sent.cache_info().currsize == 0
    assert certificate._registered.cache_info().currsize == 1
    assert certificate._sent.cache_info().maxsize == certificate.SENT_MAX
    assert certificate._registered.cache_info().maxsize == certificate.REGISTERED_MAX


def test_a_refusal_leaves_nothing_in_openssls_error_queue() -> None:
    """The next caller in this thread would take it for its own."""
    forger = certs.ca("Root", private=K("P-256", 8))
    refused(certs.leaf("d:thermo:42", forger), [ROOT])
    with pytest.raises(crypto.Error) as error:
        crypto.load_certificate(crypto.FILETYPE_ASN1, b"")
    assert "signature" not in str(error.value)
    assert "verif" not in str(error.value)


def flipped(der: bytes, random_: random.Random) -> bytes:
    changed = bytearray(der)
    for _ in range(random_.choice([1, 1, 1, 2, 4])):
        changed[random_.randrange(len(changed))] = random_.randrange(256)
    return bytes(changed)


def decided(ders: Sequence[bytes], root: Issued) -> trust.Path:
    leaf, *sent = trust.parse_presented(ders)
    return trust.verify(leaf, sent, _registered([root]), [], NOON)


@pytest.mark.filterwarnings("ignore")  # odd serials and lengths are cryptography's warnings, not our answers
@pytest.mark.parametrize("seed", range(4))
def test_a_changed_certificate_is_refused_and_nothing_else(seed: int) -> None:
    """4,000 chains with some byte changed: never believed, never anything but a refusal."""
    source = random.Random(seed)
    root = certs.ca("Root", private=K("RSA-2048", 1)) if seed % 2 else ROOT
    inter = certs.ca("Inter", root, private=K("P-256", 2), more=key_ids(INTER, None))
    rolled = certs.ca("Inter", inter, private=K("P-256", 12))
    leaf = certs.leaf("d:thermo:42", rolled, emails=["d:thermo:42"], extended_key_usage=[CLIENT_AUTH])
    assert believed(leaf, [root], sent=[inter, rolled]) == path_of(leaf, rolled, inter, root)
    for _ in range(1000):
        ders = [leaf.der, inter.der, rolled.der]
        which = source.randrange(3)
        ders[which] = flipped(ders[which], source)
        if ders[which] in (leaf.der, inter.der, rolled.der):
            continue
        with pytest.raises(Refused) as refusal:
            decided(ders, root)
        assert str(refusal.value)


def test_eight_threads_give_no_wrong_answer() -> None:
    """Stores and CAs are shared; answers are not."""
    certificate._sent.cache_clear()
    certificate._registered.cache_clear()
    generations = [certs.ca("Acme CA", private=K("P-256", 20 + n)) for n in range(4)]
    leaves = [certs.leaf(f"d:thermo:{n}", generations[n % 4]) for n in range(8)]
    bad = certs.leaf("d:thermo:9", certs.ca("Acme CA", private=K("P-256", 29)))

    def work(number: int) -> bool:
        leaf = leaves[number % 8]
        right = believed(leaf, generations) == path_of(leaf, generations[number % 4])
        return right and isinstance(refused(bad, generations), errors.SignatureInvalid)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(400)))


def test_a_two_valued_subject_is_fine() -> None:
    """What the names mean is for a later step to say."""
    odd = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one) for one in ("d:a:b", "d:a:c")])
    leaf = certs.leaf(odd, ROOT)
    assert believed(leaf, [ROOT])[0].public_bytes(Encoding.DER) == leaf.der
