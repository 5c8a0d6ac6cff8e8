"""The certificates that fleets have, made with the openssl command line as their makers did."""

import datetime as dt
from collections.abc import Sequence

import pytest

from shared import errors
from shared.errors import Refused
from shared.x509 import path as certification_path
from shared.x509.certificate import Certificate
from shared.x509.certificate_files import split
from tests.support.differential import compare
from tests.support.openssl import OpenSSL

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(hours=1)  # openssl dates from now on
SERIAL = "0x0111111111"
DEVICE, LONG = "d:thermo:42", f"d:{'T' * 36}:{'i' * 36}"

CA_ONLY = "basicConstraints=CA:true\n"


class Workshop:
    """Makes keys and certificates in one folder, named by their files."""

    def __init__(self, openssl: OpenSSL, kind: str) -> None:
        self.run = openssl
        self.kind = kind

    def key(self, name: str, *, kind: str | None = None) -> str:
        """A private key, with the EC PARAMETERS block that `ecparam -genkey` writes before it."""
        kind = kind or self.kind
        if kind.startswith("rsa:"):
            self.run(f"genrsa -out {name}.key {kind.removeprefix('rsa:')}")
        else:
            self.run(f"ecparam -name {kind} -genkey -out {name}.key")
            assert "EC PARAMETERS" in self.run.read(f"{name}.key")
        return name

    def root(self, name: str, subject: str, options: str = "") -> str:
        self.run(f"req -x509 -new -key {self.key(name)}.key -days 3650 {options} -out {name}.pem", "-subj", subject)
        return name

    def signed(
        self,
        name: str,
        subject: str,
        by: str,
        extensions: str | None = None,
        *,
        kind: str | None = None,
        options: str = "-days 365 -set_serial 7",
    ) -> str:
        """`openssl req -new` and `x509 -req`, with an extension file or without."""
        self.run(f"req -new -key {self.key(name, kind=kind)}.key -out {name}.csr", "-subj", subject)
        extra = ""
        if extensions is not None:
            self.run.write(f"{name}.ext", extensions)
            extra = f"-extfile {name}.ext"
        self.run(f"x509 -req -in {name}.csr -CA {by}.pem -CAkey {by}.key -out {name}.pem {options} {extra}")
        return name

    def cert(self, name: str) -> Certificate:
        """Return a certificate through DER, as a broker passes it on."""
        [encoded] = split(self.run.bytes(f"{name}.pem"))
        return Certificate.from_der(encoded)

    def accept(self, leaf: str, anchors: Sequence[str], sent: Sequence[str] = (), at: dt.datetime = NOW) -> list[str]:
        """Return the files of the path of a leaf that is trusted; plain paths are compared with OpenSSL."""
        cert, above, cas = self.cert(leaf), list(map(self.cert, sent)), list(map(self.cert, anchors))
        files = {self.cert(name): name for name in (leaf, *anchors, *sent)}
        try:
            return [files[each] for each in certification_path.verify(cert, above, cas, [], at)]
        finally:
            compare(cert, above, cas)

    def refuse(
        self, leaf: str, anchors: Sequence[str], sent: Sequence[str] = (), at: dt.datetime = NOW
    ) -> type[Refused]:
        """Return the kind of refusal of a leaf that is not trusted."""
        with pytest.raises(Refused) as refusal:
            self.accept(leaf, anchors, sent, at)
        return type(refusal.value)


@pytest.fixture
def rsa(openssl: OpenSSL) -> Workshop:
    return Workshop(openssl, "rsa:2048")


@pytest.fixture
def ec(openssl: OpenSSL) -> Workshop:
    return Workshop(openssl, "prime256v1")


# --------------------------------------------------------------------------------------------------- what must pass


def test_family_a_rsa_with_an_intermediate_and_an_unrelated_dns_name(rsa: Workshop) -> None:
    """BasicConstraints CA:true and nothing else on the CAs; a DNS name on the device beside its CN."""
    rsa.root("root", "/O=Acme/CN=Acme Root", "-addext basicConstraints=CA:true")
    rsa.signed("inter", "/O=Acme/CN=Acme Devices", "root", CA_ONLY)
    rsa.signed("device", f"/CN={DEVICE}", "inter", "subjectAltName=DNS:thermo42.example.com\n")
    rsa.signed("type", "/CN=d:thermo:", "inter", "subjectAltName=DNS:thermo.example.com\n")
    for leaf in ("device", "type"):
        assert rsa.accept(leaf, ["root"], sent=["inter"]) == [leaf, "inter", "root"]
        assert rsa.accept(leaf, ["root", "inter"]) == [leaf, "inter"]
        assert rsa.accept(leaf, ["inter"]) == [leaf, "inter"]
        assert rsa.accept(leaf, ["root"], sent=["root", "inter"]) == [leaf, "inter", "root"]
        assert rsa.refuse(leaf, ["root"]) is errors.UntrustedIssuer


def test_family_b_version_1_leaves(rsa: Workshop) -> None:
    """`x509 -req` without an extension file makes X.509 v1: no extension at all (RFC 5280, 4.1.2.1)."""
    rsa.root("root", "/CN=Acme Root")
    rsa.signed("device", f"/CN={DEVICE}", "root")
    assert rsa.cert("device").version == 1
    assert rsa.accept("device", ["root"]) == ["device", "root"]


def test_family_b_an_empty_extension_section_makes_version_1_too(rsa: Workshop) -> None:
    rsa.root("root", "/CN=Acme Root")
    rsa.signed("device", f"/CN={DEVICE}", "root", "# nothing\n")
    assert rsa.accept("device", ["root"]) == ["device", "root"]


def test_family_c_p256_with_email_identities_and_one_serial_for_all(ec: Workshop) -> None:
    """pathlen:0; the recipes' serial 0x0111111111 on each; only the leaf is sent, only the intermediate registered."""
    every = f"-days 365 -set_serial {SERIAL}"
    ec.root("root", "/CN=Sample Root", f"-set_serial {SERIAL}")
    ec.signed("inter", "/CN=Sample Inter", "root", "basicConstraints=critical,CA:true,pathlen:0\n", options=every)
    mail = f"subjectAltName=email:{DEVICE}"
    ec.signed("device", "/CN=Sample Cert", "inter", f"{mail}\n", options=every)
    ec.signed("uri", "/CN=Sample Cert", "inter", f"{mail},URI:urn:acme:42\n", options=every)
    for leaf in ("device", "uri"):
        assert ec.cert(leaf).serial_number == 0x0111111111
        assert ec.accept(leaf, ["inter"]) == [leaf, "inter"]
        assert ec.accept(leaf, ["root"], sent=["inter"]) == [leaf, "inter", "root"]


def test_family_d_gateways_long_names_and_several_names(ec: Workshop) -> None:
    """A CN holds 64 characters (RFC 5280, appendix A.1, ub-common-name): longer names are in the SAN."""
    ec.root("root", "/CN=Acme Root")
    ec.signed("in_cn", "/CN=g:thermo:42", "root")
    ec.signed("in_san", "/CN=Gateway", "root", "subjectAltName=email:g:thermo:42\n")
    ec.signed("long", "/CN=Sample Cert", "root", f"subjectAltName=email:{LONG}\n")
    several = "subjectAltName=email:ops@acme.example,email:d:thermo:42,email:d:thermo:43\n"
    ec.signed("several", "/CN=Sample Cert", "root", several)
    ec.signed("no_subject", "/", "root", f"subjectAltName=critical,email:{LONG}\n")
    for leaf in ("in_cn", "in_san", "long", "several", "no_subject"):
        assert ec.accept(leaf, ["root"]) == [leaf, "root"]


def test_a_ca_with_everything_modern_recipes_write(ec: Workshop) -> None:
    """Key identifiers with issuer and serial, critical KeyUsage, clientAuth."""
    ec.root("root", "/CN=Acme Root", "-addext keyUsage=critical,keyCertSign,cRLSign")
    ids = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid:always,issuer:always\n"
    limits = "basicConstraints=critical,CA:true,pathlen:0\nkeyUsage=critical,keyCertSign\n"
    ec.signed("inter", "/CN=Acme Devices", "root", limits + ids)
    usage = "basicConstraints=CA:false\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n"
    ec.signed("device", f"/CN={DEVICE}", "inter", usage + ids)
    assert ec.accept("device", ["root"], sent=["inter"]) == ["device", "inter", "root"]


@pytest.mark.parametrize("kind", ["ed25519", "ed448"])
def test_edwards_curves(openssl: OpenSSL, kind: str) -> None:
    """RFC 8410."""
    openssl(f"genpkey -algorithm {kind} -out root.key")
    openssl("req -x509 -new -key root.key -days 9 -out root.pem", "-subj", "/CN=R")
    openssl(f"genpkey -algorithm {kind} -out device.key")
    openssl("req -new -key device.key -out device.csr", "-subj", f"/CN={DEVICE}")
    openssl("x509 -req -in device.csr -CA root.pem -CAkey root.key -days 9 -set_serial 1 -out device.pem")
    assert Workshop(openssl, kind).accept("device", ["root"]) == ["device", "root"]


def test_pss_signatures(rsa: Workshop) -> None:
    """RFC 4055."""
    rsa.root("root", "/CN=R", "-sigopt rsa_padding_mode:pss")
    rsa.signed("device", f"/CN={DEVICE}", "root", options="-days 9 -set_serial 1 -sigopt rsa_padding_mode:pss")
    assert rsa.accept("device", ["root"]) == ["device", "root"]


def test_a_roots_own_sha1_signature_does_not_matter(rsa: Workshop) -> None:
    """The org trusts the root; the root's own signature proves nothing."""
    rsa.root("root", "/CN=Old Root", "-sha1")
    rsa.signed("device", f"/CN={DEVICE}", "root")
    assert rsa.accept("device", ["root"]) == ["device", "root"]


# ---------------------------------------------------------------------------------------------- what must not pass


def test_the_device_of_another_org_is_refused(rsa: Workshop) -> None:
    rsa.root("ours", "/CN=Our Root")
    rsa.root("theirs", "/CN=Their Root")
    rsa.signed("device", f"/CN={DEVICE}", "theirs")
    assert rsa.refuse("device", ["ours"], sent=["theirs"]) is errors.UntrustedIssuer


@pytest.mark.parametrize("extensions", [None, "authorityKeyIdentifier=keyid,issuer\n"])
def test_a_forger_with_the_name_of_a_ca_is_refused(rsa: Workshop, extensions: str | None) -> None:
    """With key identifiers in the certificates or without."""
    rsa.root("ours", "/CN=Our Root")
    rsa.root("forger", "/CN=Our Root")
    rsa.signed("device", f"/CN={DEVICE}", "forger", extensions)
    assert rsa.refuse("device", ["ours"]) is errors.SignatureInvalid
    assert rsa.refuse("device", ["ours"], sent=["forger"]) is errors.SignatureInvalid


@pytest.mark.parametrize("extensions", [None, "basicConstraints=CA:false\n", "keyUsage=keyCertSign\n"])
def test_a_device_may_not_sign_as_an_intermediate(rsa: Workshop, extensions: str | None) -> None:
    """A stolen device key must not issue certificates. X.509 v1 cannot say CA:TRUE and is refused too."""
    rsa.root("root", "/CN=Root")
    rsa.signed("stolen", "/CN=d:thermo:1", "root", extensions)
    rsa.signed("device", f"/CN={DEVICE}", "stolen")
    assert rsa.refuse("device", ["root"], sent=["stolen"]) is errors.ChainInvalid


def test_the_path_length_holds(ec: Workshop) -> None:
    ec.root("root", "/CN=Root")
    ec.signed("upper", "/CN=Upper", "root", "basicConstraints=CA:true,pathlen:0\n")
    ec.signed("lower", "/CN=Lower", "upper", CA_ONLY)
    ec.signed("device", f"/CN={DEVICE}", "lower")
    assert ec.refuse("device", ["root"], sent=["lower", "upper"]) is errors.ChainInvalid
    assert ec.accept("device", ["lower"]) == ["device", "lower"]


def test_a_name_constraint_holds(ec: Workshop) -> None:
    """RFC 5280, 4.2.1.10, for directory names and for e-mail."""
    ec.root("root", "/CN=Root")
    section = "nameConstraints=critical,permitted;dirName:only\n[only]\nO=Acme\n"
    ec.signed("inter", "/O=Acme/CN=Inter", "root", CA_ONLY + section)
    ec.signed("inside", f"/O=Acme/CN={DEVICE}", "inter")
    ec.signed("outside", f"/O=Else/CN={DEVICE}", "inter")
    assert ec.accept("inside", ["root"], sent=["inter"]) == ["inside", "inter", "root"]
    assert ec.refuse("outside", ["root"], sent=["inter"]) is errors.ChainInvalid
    ec.signed("mail", "/CN=Mail", "root", CA_ONLY + "nameConstraints=permitted;email:.acme.example\n")
    ec.signed("named", "/CN=x", "mail", f"subjectAltName=email:{DEVICE}\n")
    assert ec.refuse("named", ["root"], sent=["mail"]) is errors.ChainInvalid


def test_a_server_certificate_is_refused_as_a_client(ec: Workshop) -> None:
    ec.root("root", "/CN=Root")
    ec.signed("server", f"/CN={DEVICE}", "root", "extendedKeyUsage=serverAuth\n")
    ec.signed("encrypts", f"/CN={DEVICE}", "root", "keyUsage=keyEncipherment\n")
    ec.signed("inter", "/CN=Servers", "root", CA_ONLY + "extendedKeyUsage=serverAuth\n")
    ec.signed("device", f"/CN={DEVICE}", "inter", "extendedKeyUsage=clientAuth\n")
    assert ec.refuse("server", ["root"]) is errors.WrongKeyUsage
    assert ec.refuse("encrypts", ["root"]) is errors.WrongKeyUsage
    assert ec.refuse("device", ["root"], sent=["inter"]) is errors.ChainInvalid
    assert ec.refuse("device", ["inter"]) is errors.ChainInvalid


def test_a_ca_is_refused_as_a_device(ec: Workshop) -> None:
    ec.root("root", "/CN=Root")
    ec.signed("inter", f"/CN={DEVICE}", "root", CA_ONLY)
    assert ec.refuse("inter", ["root"]) is errors.WrongKeyUsage
    assert ec.refuse("root", ["root"]) is errors.WrongKeyUsage


@pytest.mark.parametrize("digest", ["-sha1", "-md5"])
def test_collidable_hashes_are_weak(rsa: Workshop, digest: str) -> None:
    """RFC 6194, RFC 6151: on a device and on an intermediate."""
    rsa.root("root", "/CN=Root")
    weak = f"-days 9 -set_serial 1 {digest}"
    rsa.signed("device", f"/CN={DEVICE}", "root", options=weak)
    rsa.signed("inter", "/CN=Inter", "root", CA_ONLY, options=weak)
    rsa.signed("below", f"/CN={DEVICE}", "inter")
    assert rsa.refuse("device", ["root"]) is errors.WeakSignature
    assert rsa.refuse("below", ["root"], sent=["inter"]) is errors.WeakSignature
    assert rsa.accept("below", ["inter"]) == ["below", "inter"]


def test_a_forged_pss_signature_is_forged_before_it_is_weak(rsa: Workshop) -> None:
    """RSA-PSS with SHA-1. With PKCS#1 v1.5, the weak hash is what the refusal names."""
    rsa.root("ours", "/CN=Our Root")
    rsa.root("forger", "/CN=Our Root")
    weak = "-days 9 -set_serial 1 -sha1"
    rsa.signed("good", f"/CN={DEVICE}", "ours", options=f"{weak} -sigopt rsa_padding_mode:pss")
    rsa.signed("forged", f"/CN={DEVICE}", "forger", options=f"{weak} -sigopt rsa_padding_mode:pss")
    rsa.signed("pkcs1", f"/CN={DEVICE}", "forger", options=weak)
    assert rsa.refuse("good", ["ours"]) is errors.WeakSignature
    assert rsa.refuse("forged", ["ours"]) is errors.SignatureInvalid
    assert rsa.refuse("pkcs1", ["ours"]) is errors.WeakSignature


@pytest.mark.parametrize("kind", ["rsa:1024", "secp256k1", "brainpoolP256r1"])
def test_weak_and_foreign_keys_are_refused(rsa: Workshop, kind: str) -> None:
    rsa.root("root", "/CN=Root")
    rsa.signed("device", f"/CN={DEVICE}", "root", kind=kind)
    assert rsa.refuse("device", ["root"]) is errors.WeakKey


def test_curves_written_out_are_refused(ec: Workshop) -> None:
    """RFC 5480, 2.1.1: specifiedCurve MUST NOT be used."""
    explicit = "ecparam -name prime256v1 -param_enc explicit -genkey -out"
    ec.root("root", "/CN=Root")
    ec.run(f"{explicit} device.key")
    ec.run("req -new -key device.key -out device.csr", "-subj", f"/CN={DEVICE}")
    ec.run("x509 -req -in device.csr -CA root.pem -CAkey root.key -days 9 -set_serial 1 -out device.pem")
    assert ec.refuse("device", ["root"]) is errors.ChainInvalid
    ec.run(f"{explicit} odd.key")
    ec.run("req -x509 -new -key odd.key -days 9 -out odd.pem", "-subj", "/CN=Odd Root")
    ec.signed("below", f"/CN={DEVICE}", "odd")
    assert ec.refuse("below", ["odd"]) is errors.ChainInvalid


def test_an_unknown_critical_extension_is_refused(ec: Workshop) -> None:
    """RFC 5280, 4.2."""
    ec.root("root", "/CN=Root")
    ec.signed("device", f"/CN={DEVICE}", "root", "1.2.3.4=critical,ASN1:NULL\n")
    assert ec.refuse("device", ["root"]) is errors.ChainInvalid


def test_the_dates_of_every_certificate_count(ec: Workshop) -> None:
    """The leaf, the intermediate and the anchor, each the first to end."""
    ec.root("root", "/CN=Root")
    ec.signed("inter", "/CN=Inter", "root", CA_ONLY, options="-days 100 -set_serial 2")
    ec.signed("short", f"/CN={DEVICE}", "inter", options="-days 10 -set_serial 3")
    ec.signed("longer", f"/CN={DEVICE}", "inter", options="-days 9000 -set_serial 4")

    def after(days: int) -> dt.datetime:
        return NOW + dt.timedelta(days=days)

    assert ec.accept("short", ["root"], sent=["inter"], at=after(9))
    assert ec.refuse("short", ["root"], ["inter"], after(11)) is errors.CertificateExpired
    assert ec.refuse("longer", ["root"], ["inter"], after(101)) is errors.CAExpired
    assert ec.refuse("longer", ["inter"], [], after(101)) is errors.CAExpired
    assert ec.refuse("longer", ["root"], ["inter"], after(3651)) is errors.CAExpired
    assert ec.refuse("short", ["root"], ["inter"], after(-2)) is errors.CertificateNotYetValid


def test_an_inactive_ca_in_the_middle(ec: Workshop) -> None:
    """A registered, inactive CA stays inactive where the device sends it under an active root."""
    ec.root("root", "/CN=Root")
    ec.signed("inter", "/CN=Inter", "root", CA_ONLY)
    ec.signed("device", f"/CN={DEVICE}", "inter")
    leaf, inter, root = map(ec.cert, ("device", "inter", "root"))
    for sent in ([], [inter]):
        with pytest.raises(errors.CAInactive) as refusal:
            certification_path.verify(leaf, sent, [root], [inter], NOW)
        assert refusal.value.cert == inter
