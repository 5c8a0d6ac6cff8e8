"""A messaging server certificate is accepted by five rules."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID

from shared import errors
from shared.validation.notices import Notice
from shared.validation.server_cert import (
    CertificateWithKey,
    adds_to_chain,
    check_server_certificate,
    has_private_key,
    hosts_covered,
    is_chain_complete,
    lost_from_chain,
    names_of,
    read_leaf,
    read_server_certificate,
    root_of,
)
from tests.support import certs
from tests.support.certs import CLIENT_AUTH, DAY, NOON, SERVER_AUTH, YEAR, Issued
from tests.support.openssl import OpenSSL

PLATFORM = "iot.example.net"
HOST = f"mtxpd0.messaging.{PLATFORM}"
ROOT = certs.ca("Root")
UPPER = certs.ca("Upper", ROOT)
LOWER = certs.ca("Lower", UPPER)
LEAF = certs.server(HOST, LOWER)
KEY = LEAF.key_pem.encode()


def pem(*issued: Issued) -> bytes:
    return certs.bundle(*issued).encode()


def read(certificate: bytes, chain: bytes | None = None, key: bytes | None = KEY) -> CertificateWithKey:
    return read_server_certificate(certificate, chain=chain, private_key=key)


def check(leaf: Issued, *chain: Issued, domains: Sequence[str] = ()) -> list[Notice]:
    return check_server_certificate(
        leaf.certificate,
        [ca.certificate for ca in chain],
        host=HOST,
        custom_domains=domains,
        platform_domain=PLATFORM,
        org_id="mtxpd0",
        at=NOON,
    )


# --- reading


@pytest.mark.parametrize(
    ("certificate", "chain"),
    [
        (pem(LEAF, LOWER, UPPER, ROOT), None),
        (pem(ROOT, UPPER, LEAF, LOWER), None),
        (pem(LEAF), pem(LOWER, UPPER, ROOT)),
        (pem(LEAF), pem(ROOT, LOWER, UPPER)),
        (pem(LEAF), pem(LEAF, UPPER, LOWER, ROOT)),
        (LEAF.der, UPPER.der + LOWER.der + ROOT.der),
        (LEAF.der + ROOT.der + UPPER.der + LOWER.der, b""),
        (pem(LOWER, UPPER, ROOT), pem(LEAF)),
    ],
)
def test_the_chain_is_put_in_order(certificate: bytes, chain: bytes | None) -> None:
    """In the file or beside it, PEM or DER, in any order, the leaf repeated or not (RFC 8446, 4.4.2)."""
    got = read(certificate, chain)
    assert (got.leaf, got.chain) == (LEAF.certificate, (LOWER.certificate, UPPER.certificate, ROOT.certificate))
    assert read_leaf(certificate, chain=chain) == (got.leaf, got.chain)


OLD_ROOT = certs.ca("Old root", private=certs.key("P-256", 31))
CROSS = certs.ca("Root", OLD_ROOT, private=ROOT.key)
OLDER_ROOT = certs.ca("Older root", private=certs.key("P-256", 32))
SECOND_CROSS = certs.ca("Root", OLDER_ROOT, private=ROOT.key)
CROSS_UPPER = certs.ca("Upper", OLD_ROOT, private=UPPER.key)


@pytest.mark.parametrize(
    ("sent", "served"),
    [
        ((LOWER, UPPER, ROOT, CROSS), (LOWER, UPPER, CROSS)),
        ((LOWER, UPPER, CROSS, OLD_ROOT, ROOT), (LOWER, UPPER, CROSS, OLD_ROOT)),
        ((LOWER, UPPER, CROSS, SECOND_CROSS, OLD_ROOT), (LOWER, UPPER, CROSS, OLD_ROOT)),
        ((LOWER, UPPER, CROSS, OLD_ROOT, SECOND_CROSS, OLDER_ROOT), (LOWER, UPPER, CROSS, OLD_ROOT)),
        ((LOWER, UPPER, CROSS_UPPER, ROOT, OLD_ROOT), (LOWER, UPPER, ROOT)),
    ],
    ids=["root and cross", "both roots", "two crosses", "two crosses, both roots", "intermediate twice"],
)
def test_a_cross_signed_chain_is_taken_in_every_order(sent: tuple[Issued, ...], served: tuple[Issued, ...]) -> None:
    """One path is served: each name and key once, in a form that another CA signed where there is one."""
    for order in itertools.permutations(sent):
        chain = read(pem(LEAF), pem(*order)).chain
        assert len(chain) == len({(cert.subject_text, cert.public_key_info) for cert in chain})
        if order == sent:
            assert chain == tuple(each.certificate for each in served)
        for below, above in itertools.pairwise((LEAF.certificate, *chain)):
            assert below.is_signed_by(above)


EXPIRED_CROSS = certs.ca("Root", OLD_ROOT, private=ROOT.key, not_after=NOON - 30 * DAY)
EXPIRED_ROOT = certs.ca("Root", private=ROOT.key, not_after=NOON - 30 * DAY)
EXPIRED_OLD_ROOT = certs.ca("Old root", private=OLD_ROOT.key, not_after=NOON - 30 * DAY)
FUTURE_LOWER = certs.ca("Lower", UPPER, private=LOWER.key, not_before=NOON + DAY, not_after=NOON + 20 * YEAR)
FUTURE_CROSS = certs.ca("Root", OLD_ROOT, private=ROOT.key, not_before=NOON + DAY)
FUTURE_OLD_ROOT = certs.ca("Old root", private=OLD_ROOT.key, not_before=NOON + DAY)


@pytest.mark.parametrize(
    ("sent", "served"),
    [
        ((LOWER, UPPER, CROSS, SECOND_CROSS, OLDER_ROOT), (LOWER, UPPER, SECOND_CROSS, OLDER_ROOT)),
        ((LOWER, UPPER, CROSS_UPPER, OLD_ROOT), (LOWER, CROSS_UPPER, OLD_ROOT)),
        ((LOWER, UPPER, EXPIRED_CROSS, OLD_ROOT, ROOT), (LOWER, UPPER, ROOT)),
        ((LOWER, UPPER, EXPIRED_ROOT, CROSS, OLD_ROOT), (LOWER, UPPER, CROSS, OLD_ROOT)),
        ((LOWER, UPPER, EXPIRED_CROSS, SECOND_CROSS, OLD_ROOT), (LOWER, UPPER, SECOND_CROSS)),
        (
            (LOWER, UPPER, CROSS, SECOND_CROSS, EXPIRED_OLD_ROOT, OLDER_ROOT),
            (LOWER, UPPER, SECOND_CROSS, OLDER_ROOT),
        ),
        ((LOWER, FUTURE_LOWER, UPPER), (LOWER, UPPER)),
        ((LOWER, UPPER, FUTURE_CROSS, OLD_ROOT, ROOT), (LOWER, UPPER, ROOT)),
        ((LOWER, UPPER, CROSS, SECOND_CROSS, FUTURE_OLD_ROOT, OLDER_ROOT), (LOWER, UPPER, SECOND_CROSS, OLDER_ROOT)),
    ],
    ids=[
        "issuer here",
        "intermediate",
        "expired cross",
        "expired root",
        "expired with issuer",
        "expired issuer",
        "not valid yet",
        "cross not valid yet",
        "issuer not valid yet",
    ],
)
def test_the_best_form_of_a_cross_signed_ca_is_served(sent: tuple[Issued, ...], served: tuple[Issued, ...]) -> None:
    """In every order: a form that is valid, and of those the form whose own issuer was sent with it."""
    for order in itertools.permutations(sent):
        chain = read(pem(LEAF), pem(*order)).chain
        assert chain == tuple(each.certificate for each in served), [each.certificate.subject_text for each in order]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\r"])
def test_a_passphrase_with_a_line_break_at_its_end_is_explained(end: str) -> None:
    """`echo` without -n, a Kubernetes Secret, `curl -F passphrase=<file`. Without the line break the key opens."""
    encrypted = certs.key_pem(LEAF.key, "right").encode()
    with pytest.raises(errors.PassphraseWrong, match=r"It ends with a line break\. Remove the line break"):
        read_server_certificate(pem(LEAF), private_key=encrypted, passphrase=f"right{end}")
    file = pkcs12.serialize_key_and_certificates(None, LEAF.key, LEAF.cert, None, BestAvailableEncryption(b"right"))
    with pytest.raises(errors.PassphraseWrong, match=r"It ends with a line break\. Remove the line break"):
        read_server_certificate(file, passphrase=f"right{end}")
    with pytest.raises(errors.PassphraseWrong, match="Type the passphrase again"):
        read_server_certificate(pem(LEAF), private_key=encrypted, passphrase=f"wrong{end}")
    with_line_break = certs.key_pem(LEAF.key, f"right{end}").encode()
    assert read_server_certificate(pem(LEAF), private_key=with_line_break, passphrase=f"right{end}").leaf


def test_the_key_may_be_in_the_certificates_file() -> None:
    """A PEM bundle as object stores and proxies use it, or PKCS#12."""
    bundle = pem(LEAF, LOWER) + KEY
    file = pkcs12.serialize_key_and_certificates(
        None, LEAF.key, LEAF.cert, [UPPER.cert, LOWER.cert], BestAvailableEncryption(b"x")
    )
    assert has_private_key(bundle)
    assert has_private_key(file)
    assert not has_private_key(pem(LEAF))
    assert read(bundle, key=None).chain == (LOWER.certificate,)
    got = read_server_certificate(file, passphrase="x", chain=pem(ROOT, LOWER))
    assert got.chain == (LOWER.certificate, UPPER.certificate, ROOT.certificate)
    with pytest.raises(errors.PassphraseRequired):
        read(file, key=None)


def test_pkcs12_needs_no_key_file() -> None:
    """A key file that is sent all the same is ignored: the file's own key is its leaf's."""
    file = pkcs12.serialize_key_and_certificates(None, LEAF.key, LEAF.cert, None, BestAvailableEncryption(b"x"))
    got = read_server_certificate(file, private_key=certs.key_pem(certs.key("RSA-2048")).encode(), passphrase="x")
    assert got.leaf == LEAF.certificate


def test_what_openssl_makes_is_read(openssl: OpenSSL) -> None:
    """A self-signed certificate, its encrypted key, and both in one PKCS#12 file."""
    openssl("req -x509 -newkey rsa:2048 -keyout k.pem -passout pass:x -out c.pem -subj", f"/CN={HOST}")
    openssl("pkcs12 -export -in c.pem -inkey k.pem -passin pass:x -passout pass:y -out c.p12")
    pair = read_server_certificate(openssl.bytes("c.pem"), private_key=openssl.bytes("k.pem"), passphrase="x")
    file = read_server_certificate(openssl.bytes("c.p12"), passphrase="y")
    assert (pair.leaf, pair.chain) == (file.leaf, file.chain)


def test_a_missing_key_is_reported() -> None:
    with pytest.raises(errors.PrivateKeyMissing):
        read(pem(LEAF), key=None)


def test_a_bad_certificate_is_reported_before_a_missing_key() -> None:
    with pytest.raises(errors.NotACertificate):
        read(b"hello", key=None)


def test_the_key_must_be_that_of_the_leaf() -> None:
    """Not the key of a CA above it, and no other key."""
    with pytest.raises(errors.KeyMismatch):
        read(pem(LEAF), key=certs.key_pem(certs.key("P-256", 1)).encode())
    with pytest.raises(errors.ChainBroken):
        read(pem(LEAF, LOWER), key=LOWER.key_pem.encode())


def test_a_certificate_that_has_no_place_in_the_chain_is_named() -> None:
    """An extra certificate, a gap, and a right name with another key are refused."""
    stranger = certs.ca("Stranger")
    impostor = certs.ca("Lower", UPPER, private=certs.key("P-256", 3))
    for chain, name in ((pem(LOWER, stranger), "Stranger"), (pem(LOWER, ROOT), "Root"), (pem(impostor), "Lower")):
        with pytest.raises(errors.ChainBroken, match=f"CN={name} did not sign the certificate before it"):
            read(pem(LEAF), chain)


def test_issuers_are_found_whatever_the_case_of_their_name() -> None:
    """RFC 5280, 7.1."""
    leaf = certs.certificate(certs.name(HOST), signer=LOWER, issuer=certs.name("LOWER"), private=certs.key("P-256", 98))
    assert read(pem(leaf, LOWER)).chain == (LOWER.certificate,)


def test_a_chain_of_ten_is_taken_and_of_eleven_not() -> None:
    line = [certs.ca("CA 0")]
    for n in range(1, 11):
        line.insert(0, certs.ca(f"CA {n}", line[0]))
    leaf = certs.server(HOST, line[1])
    assert len(read(pem(leaf), pem(*line[1:])).chain) == 10
    with pytest.raises(errors.ChainTooLong, match="11 certificates"):
        read(pem(certs.server(HOST, line[0])), pem(*line))


def test_weak_chain_keys_are_refused_before_they_are_used() -> None:
    weak = certs.ca("Weak", private=certs.key("RSA-1024"))
    with pytest.raises(errors.WeakKey, match="RSA 1024"):
        read(pem(certs.server(HOST, weak)), pem(weak))


def test_the_private_key_is_not_in_the_repr() -> None:
    assert "private_key" not in repr(read(pem(LEAF)))


# --- checking


def test_a_good_certificate_is_accepted() -> None:
    assert check(LEAF, LOWER, UPPER, ROOT) == []
    assert check(LEAF, LOWER) == []  # the rest may be in the devices' trust stores


def test_self_signed_is_accepted_with_a_warning() -> None:
    message = "Browsers refuse this certificate until it is added to them; devices need it in their trust store."
    assert check(certs.server(HOST)) == [Notice("self_signed", message)]
    assert [notice.code for notice in check(certs.ca(HOST))] == ["self_signed"]  # CA:TRUE too, without ExtendedKeyUsage


def test_a_leaf_alone_is_accepted_with_a_warning_that_names_its_issuer() -> None:
    [notice] = check(LEAF)
    assert notice.code == "chain_incomplete"
    assert notice.message == (
        "The issuer of the certificate, CN=Lower, is not in its chain. Devices without this issuer in their trust "
        "store will not connect. Upload the certificate again with its intermediate certificates, which must be valid "
        "now."
    )
    assert not is_chain_complete(LEAF.certificate, ())
    assert is_chain_complete(LEAF.certificate, (LOWER.certificate,))


@pytest.mark.parametrize("kind", ["RSA-2048", "RSA-3072", "P-256", "P-384"])
def test_keys_that_mqtt_servers_support_are_accepted(kind: str) -> None:
    assert check(certs.server(HOST, LOWER, private=certs.key(kind)), LOWER) == []


@pytest.mark.parametrize(("kind", "text"), [("P-521", "P-521"), ("Ed25519", "Ed25519"), ("RSA-1024", "RSA 1024")])
def test_other_keys_are_refused(kind: str, text: str) -> None:
    with pytest.raises(errors.KeyUnsupported, match=f"{text} is not a key that MQTT servers can use"):
        check(certs.server(HOST, LOWER, private=certs.key(kind)), LOWER)


def test_weak_signatures_are_refused_but_a_roots_own(openssl: OpenSSL) -> None:
    openssl("req -x509 -newkey rsa:2048 -nodes -sha1 -keyout r.key -out r.pem -days 30 -subj", "/CN=Old Root")
    openssl("req -new -newkey rsa:2048 -nodes -keyout k.pem -out l.csr -subj", f"/CN={HOST}")
    for digest in ("sha1", "sha256"):
        openssl(f"x509 -req -in l.csr -CA r.pem -CAkey r.key -CAcreateserial -{digest} -out {digest}.pem -days 30")
    for digest in ("sha256", "sha1"):
        got = read(openssl.bytes(f"{digest}.pem") + openssl.bytes("r.pem"), key=openssl.bytes("k.pem"))

        def run(got: CertificateWithKey = got) -> None:
            check_server_certificate(
                got.leaf,
                got.chain,
                host=HOST,
                custom_domains=[],
                platform_domain=PLATFORM,
                org_id="mtxpd0",
                at=got.leaf.not_before,
            )

        if digest == "sha256":
            run()
        else:
            with pytest.raises(errors.WeakSignature):
                run()


def test_a_self_issued_leaf_must_verify_itself() -> None:
    forged = certs.certificate(
        certs.name(HOST), signer=None, private=certs.key("P-256", 98), signing_key=certs.key("P-256", 3)
    )
    with pytest.raises(errors.SelfSignatureInvalid):
        check(forged)


def test_a_server_certificate_must_be_valid_now() -> None:
    with pytest.raises(errors.CertificateExpired):
        check(certs.server(HOST, not_after=NOON - DAY / 2))
    with pytest.raises(errors.CertificateNotYetValid):
        check(certs.server(HOST, not_before=NOON + DAY))


def test_the_purpose_must_include_server_auth() -> None:
    """RFC 5280, 4.2.1.12: an ExtendedKeyUsage must include serverAuth; anyExtendedKeyUsage is not enough."""
    check(certs.server(HOST, extended_key_usage=()))
    check(certs.server(HOST, extended_key_usage=(CLIENT_AUTH, SERVER_AUTH)))
    with pytest.raises(errors.WrongKeyUsage) as refused:
        check(certs.server(HOST, extended_key_usage=(CLIENT_AUTH,)))
    assert (
        str(refused.value) == "The certificate is for clientAuth only, and not for TLS servers. "
        "Issue the certificate again with extendedKeyUsage=serverAuth."
    )
    with pytest.raises(errors.WrongKeyUsage):
        check(certs.server(HOST, extended_key_usage=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)))


# --- hosts


@pytest.mark.parametrize(
    ("common_name", "dns"),
    [
        (HOST, []),
        ("anything", [HOST]),
        (HOST.upper(), []),
        ("x", ["other.example.com", HOST.title()]),
        ("www.example.com", [HOST, "*.example.com", "admin.example.org"]),
    ],
)
def test_the_org_host_may_be_in_cn_or_san_beside_foreign_names(common_name: str, dns: list[str]) -> None:
    assert check(certs.server(common_name, LOWER, dns=dns), LOWER) == []


@pytest.mark.parametrize(
    "name",
    ["mtxpd0.messaging.acme.com", "*.messaging.acme.com", "*.Messaging.ACME.com"],
)
def test_a_listed_custom_domain_by_name_or_wildcard(name: str) -> None:
    leaf = certs.server(name, LOWER, dns=[])
    assert check(leaf, LOWER, domains=["example.org", "acme.com"]) == []
    assert hosts_covered(leaf.certificate, [HOST, "mtxpd0.messaging.acme.com"]) == ["mtxpd0.messaging.acme.com"]
    with pytest.raises(errors.HostMismatch):
        check(leaf, LOWER)


@pytest.mark.parametrize(
    "name",
    [
        "other1.messaging.acme.com",
        "*.acme.com",
        "*.*.acme.com",
        "mtx*.messaging.acme.com",
        "*",
        "*.com",
        "messaging.acme.com",
        "mtxpd0.messaging.acme.com.evil.com",
        "xmtxpd0.messaging.acme.com",
    ],
)
def test_names_that_only_resemble_a_host_are_refused(name: str) -> None:
    """A wildcard is the whole leftmost label and matches one label (RFC 9525, 6.3)."""
    with pytest.raises(errors.HostMismatch) as refused:
        check(certs.server("server", LOWER, dns=[name]), LOWER, domains=["acme.com"])
    assert refused.value.reason == f"The certificate is for server, {name}; the host of this organization is {HOST}."


@pytest.mark.parametrize(
    ("name", "note"),
    [
        (f"*.messaging.{PLATFORM}", "(a wildcard: the certificate would be valid for other organizations)"),
        (f"*.{PLATFORM}", "(a wildcard: the certificate would be valid for other organizations)"),
        (f"other1.messaging.{PLATFORM}", "(the certificate would be valid for other organizations)"),
        (f"OTHER1.Messaging.{PLATFORM.upper()}", "(the certificate would be valid for other organizations)"),
        (PLATFORM, "(the certificate would be valid for other organizations)"),
        (f"x.{HOST}", "(the certificate would be valid for other organizations)"),
    ],
)
def test_no_name_of_the_platform_but_the_orgs_own(name: str, note: str) -> None:
    """Even beside the right host: the certificate would be valid for hosts of other organizations."""
    for leaf in (certs.server(HOST, LOWER, dns=[HOST, name]), certs.server(name, LOWER, dns=[HOST])):
        with pytest.raises(errors.HostMismatch) as refused:
            check(leaf, LOWER)
        assert (
            refused.value.reason
            == f"The certificate is for {name.lower()}; the host of this organization is {HOST} {note}."
        )


def test_a_hidden_platform_name_is_found() -> None:
    """White space and a root dot in a CN, which some clients drop."""
    for name in (f" other1.messaging.{PLATFORM}. ", f"other1.messaging.{PLATFORM}."):
        with pytest.raises(errors.HostMismatch, match="other organizations"):
            check(certs.server(name, LOWER, dns=[HOST]), LOWER)


def test_many_names_are_shortened_in_the_refusal() -> None:
    dns = [f"h{n}.example.com" for n in range(9)]
    with pytest.raises(errors.HostMismatch, match=r"is for x, h0\.example\.com, .*, 5 more; the host"):
        check(certs.server("x", LOWER, dns=dns), LOWER)


def test_a_certificate_without_any_name_is_refused() -> None:
    nameless = certs.certificate(x509.Name([]), signer=LOWER, private=certs.key("P-256", 98))
    with pytest.raises(errors.HostMismatch, match="is for no DNS name at all"):
        check(nameless, LOWER)


def test_names_are_those_of_cn_and_dns_sans_once_each() -> None:
    assert names_of(certs.server(HOST, dns=[HOST.upper(), "a.b"]).certificate) == [HOST, "a.b"]


def test_a_wildcard_of_the_platforms_own_certificate_covers_each_org() -> None:
    """As in the default certificate. Hosts two labels down are not covered."""
    default = certs.server(f"*.messaging.{PLATFORM}").certificate
    assert hosts_covered(default, [HOST, f"a.b.messaging.{PLATFORM}", f"messaging.{PLATFORM}"]) == [HOST]


def test_the_root_is_the_same_whether_it_was_sent_or_not() -> None:
    """The preflight compares it. A self-signed leaf is its own root."""
    sent = root_of(LEAF.certificate, [LOWER.certificate, UPPER.certificate, ROOT.certificate])
    assert sent == root_of(LEAF.certificate, [LOWER.certificate, UPPER.certificate])
    assert sent[1] == "CN=Root"
    assert root_of(certs.server(HOST).certificate, ())[1] == f"CN={HOST}"


# --- a chain that is sent again


def lower(signer: Issued = UPPER, key_id: bytes | None = None, **more: Any) -> Issued:
    """Issue a certificate of the name and the key of LOWER, whose end is later unless *more* says otherwise."""
    limits = more.pop("more", [])
    if key_id is not None:
        limits = [*limits, (x509.AuthorityKeyIdentifier(key_id, None, None), False)]
    return certs.ca("Lower", signer, private=LOWER.key, more=limits, **{"not_after": NOON + 20 * YEAR, **more})


NEWER_LOWER = lower()
EXPIRED_LOWER = lower(not_after=NOON - DAY)
CROSS_LOWER = lower(OLD_ROOT)
OTHER_UPPER = certs.ca("Upper", private=certs.key("P-256", 33))  # of the same name and another key
LOWER_OF_OTHER_UPPER = lower(OTHER_UPPER)
LOWER_WITH_ID, NEWER_LOWER_WITH_ID = lower(key_id=b"upper", not_after=NOON + YEAR), lower(key_id=b"upper")
LOWER_WITH_OTHER_ID = lower(OTHER_UPPER, key_id=b"other")
CROSS_LOWER_WITH_ID = lower(OLD_ROOT, key_id=b"upper")
NEWER_UPPER = certs.ca("Upper", ROOT, private=UPPER.key, not_after=NOON + 20 * YEAR)
FUTURE_UPPER = certs.ca("Upper", ROOT, private=UPPER.key, not_before=NOON + DAY, not_after=NOON + 20 * YEAR)
LOWER_NO_CA = lower(is_ca=False)
LOWER_NOT_CRITICAL, NO_CA_NOT_CRITICAL = (
    lower(critical=False, not_after=NOON + YEAR),
    lower(critical=False, is_ca=False),
)
LOWER_FOR_CLIENTS = lower(more=[(x509.ExtendedKeyUsage([CLIENT_AUTH]), False)])
LOWER_FOR_OTHER_HOSTS = lower(more=[(x509.NameConstraints(None, [x509.DNSName(HOST)]), False)])
LOWER_THAT_SIGNS_NOTHING = lower(more=[(certs.usage(crl_sign=True), False)])
LOWER_WITH_UNKNOWN = lower(more=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.9"), b"\5\0"), True)])

NOTHING_NEW, REPLACES = "nothing new", "replaces"


@pytest.mark.parametrize(
    ("stored", "sent", "expected"),
    [
        ((), (), NOTHING_NEW),
        ((), (LOWER,), REPLACES),
        ((), (EXPIRED_LOWER,), NOTHING_NEW),
        ((), (EXPIRED_LOWER, UPPER), NOTHING_NEW),
        ((LOWER, UPPER), (LOWER, UPPER, EXPIRED_CROSS, OLD_ROOT), NOTHING_NEW),
        ((LOWER,), (LOWER, UPPER, EXPIRED_ROOT), REPLACES),
        ((LOWER, UPPER), (), NOTHING_NEW),
        ((LOWER, UPPER), (LOWER,), NOTHING_NEW),
        ((LOWER, UPPER), (LOWER, UPPER), NOTHING_NEW),
        ((LOWER,), (LOWER, UPPER), REPLACES),
        ((LOWER, UPPER), (LOWER, UPPER, CROSS), REPLACES),
        ((LOWER, UPPER, ROOT), (LOWER, UPPER, CROSS), [ROOT]),
        ((LOWER, UPPER, CROSS), (LOWER, UPPER, ROOT), [CROSS]),
        ((LOWER, UPPER, ROOT), (LOWER, CROSS_UPPER), [UPPER, ROOT]),
        ((LOWER, UPPER, ROOT), (CROSS_LOWER, OLD_ROOT), [LOWER, UPPER, ROOT]),
        ((LOWER,), (CROSS_LOWER, OLD_ROOT), [LOWER]),
        ((LOWER,), (NEWER_LOWER,), [LOWER]),
        ((LOWER,), (NEWER_LOWER, UPPER), REPLACES),
        ((LOWER,), (LOWER_OF_OTHER_UPPER,), [LOWER]),
        ((LOWER,), (LOWER_OF_OTHER_UPPER, OTHER_UPPER), [LOWER]),
        ((LOWER, UPPER), (LOWER_OF_OTHER_UPPER, OTHER_UPPER), [LOWER, UPPER]),
        ((LOWER_WITH_ID,), (NEWER_LOWER_WITH_ID,), REPLACES),
        ((LOWER_WITH_ID,), (LOWER_WITH_OTHER_ID,), [LOWER_WITH_ID]),
        ((LOWER_WITH_ID,), (CROSS_LOWER_WITH_ID,), [LOWER_WITH_ID]),
        ((LOWER, UPPER), (NEWER_LOWER_WITH_ID, UPPER), REPLACES),
        ((NEWER_LOWER_WITH_ID,), (LOWER_WITH_ID,), NOTHING_NEW),
        ((NEWER_LOWER, UPPER), (LOWER,), NOTHING_NEW),
        ((NEWER_LOWER,), (LOWER, UPPER), [NEWER_LOWER]),
        ((LOWER, UPPER), (LOWER_NO_CA, UPPER), [LOWER]),
        ((LOWER_NOT_CRITICAL, UPPER), (NO_CA_NOT_CRITICAL, UPPER), [LOWER_NOT_CRITICAL]),
        ((LOWER, UPPER), (LOWER_FOR_CLIENTS, UPPER), [LOWER]),
        ((LOWER, UPPER), (LOWER_FOR_OTHER_HOSTS, UPPER), [LOWER]),
        ((LOWER, UPPER), (LOWER_THAT_SIGNS_NOTHING, UPPER), [LOWER]),
        ((LOWER, UPPER), (LOWER_WITH_UNKNOWN, UPPER), [LOWER]),
        ((LOWER, UPPER), (NEWER_LOWER, UPPER), REPLACES),
        ((LOWER, UPPER), (NEWER_LOWER,), [UPPER]),
        ((LOWER,), (FUTURE_LOWER,), NOTHING_NEW),
        ((LOWER,), (FUTURE_LOWER, UPPER), NOTHING_NEW),
        ((LOWER, UPPER), (FUTURE_LOWER, CROSS_UPPER), NOTHING_NEW),
        ((FUTURE_LOWER,), (LOWER,), REPLACES),
        ((FUTURE_LOWER, UPPER), (LOWER, UPPER), REPLACES),
        ((LOWER, UPPER, ROOT), (NEWER_LOWER, FUTURE_UPPER, ROOT), [UPPER]),
        ((LOWER, UPPER, ROOT), (LOWER, NEWER_UPPER), [ROOT]),
        ((EXPIRED_LOWER, UPPER, ROOT), (CROSS_LOWER,), REPLACES),
        ((LOWER, UPPER, EXPIRED_CROSS, OLD_ROOT), (LOWER, UPPER, ROOT), REPLACES),
        ((LOWER, UPPER, EXPIRED_CROSS), (LOWER, CROSS_UPPER), [UPPER]),
        ((LOWER, UPPER, EXPIRED_ROOT), (LOWER, UPPER), NOTHING_NEW),
    ],
)
def test_a_stored_chain_is_replaced_if_devices_lose_nothing(
    stored: tuple[Issued, ...], sent: tuple[Issued, ...], expected: str | list[Issued]
) -> None:
    """Each stored certificate was sent, or a renewed form, or no device accepts a path through the certificate."""
    old, new = [ca.certificate for ca in stored], [ca.certificate for ca in sent]
    assert adds_to_chain(new, old, NOON) == (expected != NOTHING_NEW)
    if expected != NOTHING_NEW:
        lost = [] if expected == REPLACES else [ca.certificate for ca in expected if isinstance(ca, Issued)]
        assert lost_from_chain(new, old, NOON) == lost
