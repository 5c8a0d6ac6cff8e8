"""Hostile certificates: each gets its answer within 100 ms of CPU time and 64 MiB (a key file: 2 s).

Users are promised that for the whole way, so the whole way is measured: the file, the rules, an embedded store.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.usecases.callers import Credentials
from shared.usecases.devices.verify import verify_client
from shared.validation.policy import Decision
from shared.validation.presented import ConnectingClient, Presented
from shared.validation.verdict import Verdict
from shared.x509.cache import read_registered
from shared.x509.certificate_files import split
from tests.support import certs
from tests.support.bounds import CERTIFICATE, KEY_FILE, measure_cost
from tests.support.certs import DAY, NOON, Issued
from tests.support.der import der, dotted, number, octets, seq
from tests.support.differential import compare
from tests.support.harness import Answer, Client, Service
from tests.support.openssl import OpenSSL
from tests.validation import test_private_key_files as key_files

pytestmark = [
    pytest.mark.stores("sqlite"),
    pytest.mark.filterwarnings("ignore"),
]  # cryptography warns of odd certificates

CAS: Final = "/authentication/cacertificates"
SERVERS: Final = "/authentication/servercertificates"
DEVICE: Final = "d:thermo:42"
K = certs.key
ROOT = certs.ca("Root", private=K("P-256", 1))
TOP = certs.ca("Top", private=K("P-384", 1))


# ---------------------------------------------------------------------------------------------------------- the ways in


@pytest.fixture
def ask(service: Service, broker: Client) -> "Ask":
    return Ask(service, broker)


class Ask:
    """Asks the service about a file, within the limits of its kind."""

    def __init__(self, service: Service, broker: Client) -> None:
        self._service = service
        self._operator = service.client("operator")
        self._broker = Credentials(broker.key, broker.token)
        self._cas: list[bytes] = []

    def trusts(self, *cas: Issued) -> None:
        """Register the org's CAs."""
        for ca in cas:
            self._operator.form(CAS, {"certificate": ca.der}).ok(201)
            self._cas.append(ca.der)

    def connect(self, certificate: bytes, chain: bytes = b"", client_id: str | None = "d:mtxpd0:thermo:42") -> Verdict:
        """Present *certificate*, as a device does. Plain paths are compared with OpenSSL."""

        client = ConnectingClient(self._service.host(), client_id, certificate, chain)
        verdict = within(CERTIFICATE, lambda: verify_client(self._service.app.verifier, self._broker, client))
        if certs := Presented.read(client).certificates:
            compare(certs[0], certs[1:], list(map(read_registered, self._cas)))
        return verdict

    def refused(self, certificate: bytes, chain: bytes = b"") -> str:
        """Return the code with which a device that presents *certificate* is denied."""
        verdict = self.connect(certificate, chain)
        assert verdict.decision is Decision.DENY
        assert verdict.reason
        return verdict.code

    def ca(self, data: bytes) -> str:
        """Return the code with which *data* is refused as a CA, or "" where it is registered."""
        code = self._code(self._sent(CERTIFICATE, CAS, {"certificate": data}))
        self._cas += [] if code else split(data)
        return code

    def server(
        self, certificate: bytes, key: bytes | None = None, *, passphrase: str = "", seconds: float = KEY_FILE
    ) -> str:
        """Return the code with which *certificate* is refused as a server's, or ""."""
        fields: dict[str, str | bytes] = {"certificate": certificate, "passphrase": passphrase}
        return self._code(self._sent(seconds, SERVERS, fields if key is None else {**fields, "privateKey": key}))

    def _sent(self, seconds: float, path: str, fields: dict[str, str | bytes]) -> Answer:
        return within(seconds, lambda: self._operator.form(path, fields))

    def _code(self, answer: Answer) -> str:
        assert answer.status in (200, 201, 413, 422), answer.text
        return "" if answer.status < 400 else answer.code


T = TypeVar("T")


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return the result of *work*, which must cost no more than *seconds*."""
    results: list[T] = []
    cost = measure_cost(lambda: results.append(work()), seconds=seconds)
    assert not cost.exceeds(seconds), cost
    return results[-1]


# ------------------------------------------------------------------------------------------------------ made by hand

_SHA256_ECDSA = seq(dotted("1.2.840.10045.4.3.2"))
_RSA = seq(dotted("1.2.840.113549.1.1.1"), b"\5\0")
_VALIDITY = seq(der(0x17, b"250601000000Z"), der(0x17, b"270601000000Z"))
UTF8, PRINTABLE, T61, BMP, UNIVERSAL = 0x0C, 0x13, 0x14, 0x1E, 0x1C


def rdn(oid: str, tag: int, content: bytes) -> bytes:
    return der(0x31, seq(dotted(oid), der(tag, content)))


def common_name(content: bytes, tag: int = UTF8) -> bytes:
    return seq(rdn("2.5.4.3", tag, content))


def extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    return seq(dotted(oid), b"\1\1\xff" if critical else b"", octets(value))


def rsa_key(n: int, e: int) -> bytes:
    return seq(_RSA, der(3, b"\0" + seq(number(n), number(e))))


def key_info(private: certs.PrivateKey) -> bytes:
    return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


CA_TRUE = extension("2.5.29.19", seq(b"\1\1\xff"), critical=True)
KEY = key_info(K("P-256", 5))


def made(
    *,
    subject: bytes = common_name(DEVICE.encode()),
    issuer: bytes | None = None,
    key: bytes = KEY,
    extensions: Sequence[bytes] = (),
    signer: certs.PrivateKey = ROOT.key,
    serial: bytes = b"\2\1\7",
    validity: bytes = _VALIDITY,
) -> bytes:
    """Return a certificate of exactly these parts, signed by *signer*."""
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    name = issuer or ROOT.cert.subject.public_bytes()
    more = der(0xA3, seq(*extensions)) if extensions else b""
    signed = seq(der(0xA0, b"\2\1\2"), serial, _SHA256_ECDSA, name, validity, subject, key, more)
    return seq(signed, _SHA256_ECDSA, der(3, b"\0" + signer.sign(signed, ec.ECDSA(hashes.SHA256()))))


def names(count: int) -> bytes:
    """Return a SubjectAltName of *count* DNS names."""
    return extension("2.5.29.17", seq(*(der(0x82, b"h%d.example.org" % n) for n in range(count))))


def constraints(count: int) -> bytes:
    """Return NameConstraints that exclude *count* DNS names, none of them in `names`."""
    trees = (seq(der(0x82, b"x%d.example.net" % n)) for n in range(count))
    return extension("2.5.29.30", seq(der(0xA1, b"".join(trees))), critical=True)


def test_good_certificates_made_by_hand_are_accepted(ask: Ask) -> None:
    """So the certificates below are refused for their faults alone."""
    ask.trusts(ROOT)
    assert ask.connect(made()).decision is Decision.ALLOW
    assert ask.connect(made(extensions=[names(3)])).decision is Decision.ALLOW
    own = common_name(b"Own")
    assert ask.ca(made(subject=own, issuer=own, key=key_info(ROOT.key), extensions=[CA_TRUE])) == ""


# ------------------------------------------------------------------------------------------- many names, many limits


def test_thousands_of_names(ask: Ask) -> None:
    """At most 128 are read, of a CA and of what a device sends."""
    ask.trusts(ROOT)
    assert ask.connect(made(extensions=[names(128)])).decision is Decision.ALLOW
    for count in (129, 3000, 5000):
        assert ask.refused(made(extensions=[names(count)])) == "certificate_malformed"
    own = common_name(b"Own")
    assert ask.ca(made(subject=own, issuer=own, extensions=[CA_TRUE, names(5000)])) == "file_too_large"
    assert ask.ca(made(subject=own, issuer=own, extensions=[CA_TRUE, names(129)])) == "too_complex"
    sent = made(subject=own, extensions=[CA_TRUE, names(129)])
    assert ask.refused(made(issuer=own), sent) == "certificate_malformed"


def test_a_hundred_identities(ask: Ask) -> None:
    """Of many identities, the one that the client ID names counts. Without a client ID the device is refused."""
    ask.trusts(ROOT)
    mails = seq(*(der(0x81, b"d:thermo:%d" % n) for n in range(128)))
    crowd = made(subject=common_name(b"x"), extensions=[extension("2.5.29.17", mails)])
    assert ask.connect(crowd).code == "allowed"
    assert ask.connect(crowd, client_id="d:mtxpd0:thermo:3000").code == "identity_mismatch"
    assert ask.connect(crowd, client_id=None).code == "identity_missing"


def test_many_constraints_against_many_names(ask: Ask) -> None:
    """128 constraints of a CA, and a few such CAs below it, against 128 names: refused by name, at no cost."""
    signer, own = K("P-256", 1), common_name(b"Limits")

    def top(count: int) -> bytes:
        return made(subject=own, issuer=own, key=key_info(signer), extensions=[CA_TRUE, constraints(count)])

    assert ask.ca(top(129)) == "too_complex"
    assert ask.ca(top(128)) == ""
    assert ask.refused(made(issuer=own, extensions=[names(128)])) == "chain_invalid"
    assert ask.connect(made(issuer=own, extensions=[names(70)])).decision is Decision.ALLOW
    line, above = [], own
    for n in range(9):
        mine = common_name(b"Limits %d" % n)
        line.append(made(subject=mine, issuer=above, key=key_info(signer), extensions=[CA_TRUE, constraints(60)]))
        above = mine
    assert ask.refused(made(issuer=above, extensions=[names(128)]), b"".join(line)) == "chain_invalid"
    too_many = made(subject=common_name(b"More"), issuer=own, extensions=[CA_TRUE, constraints(129)])
    assert ask.refused(made(issuer=common_name(b"More")), too_many) == "certificate_malformed"


def test_elements_of_many_kinds(ask: Ask) -> None:
    """Attributes, policies and points of distribution have no limits of their own: all elements have one."""
    ask.trusts(ROOT)
    own = common_name(b"Own")
    wide = seq(*(rdn("2.5.4.3", UTF8, b"") for _ in range(1100)))
    policies = extension("2.5.29.32", seq(*(seq(dotted("1.2")) for _ in range(2200))))
    points = extension("2.5.29.31", seq(*(seq(der(0xA0, der(0xA0, der(0x86, b"")))) for _ in range(1100))))
    for subject, more in ((wide, []), (common_name(DEVICE.encode()), [policies]), (own, [points])):
        assert ask.refused(made(subject=subject, extensions=more)) == "certificate_malformed"
        assert ask.ca(made(subject=subject, extensions=[CA_TRUE, *more])) == "too_complex"
        assert ask.refused(made(), made(subject=subject, extensions=[CA_TRUE, *more])) == "certificate_malformed"


@pytest.mark.parametrize(
    ("policies", "code"), [((1, 2), "allowed"), ((3,), "chain_invalid"), ((), "chain_invalid")], ids=str
)
@pytest.mark.parametrize("is_required", [True, False])
def test_policies_that_multiply(ask: Ask, policies: tuple[int, ...], code: str, is_required: bool) -> None:
    """CVE-2023-0464: a policy tree that doubles with every CA. The work here grows with the number of policies."""
    signer = K("P-256", 1)
    ask.trusts(ROOT)
    oids = [dotted(f"1.3.6.1.4.1.99.{n}") for n in range(4)]
    two = seq(seq(oids[1]), seq(oids[2]))
    pairs = seq(*(seq(oids[a], oids[b]) for a in (1, 2) for b in (1, 2)))
    more = [CA_TRUE, extension("2.5.29.32", two, critical=True), extension("2.5.29.33", pairs, critical=True)]
    required = [extension("2.5.29.36", seq(der(0x80, b"\0")), critical=True)] if is_required else []
    line, above = [], ROOT.cert.subject.public_bytes()
    for n in range(9):
        mine = common_name(b"Policy %d" % n)
        line.append(made(subject=mine, issuer=above, key=key_info(signer), extensions=[*more, *required]))
        above = mine
    stated = [extension("2.5.29.32", seq(*(seq(oids[n]) for n in policies)))] if policies else []
    verdict = ask.connect(made(issuer=above, extensions=stated), b"".join(line))
    assert verdict.code == (code if is_required else "allowed")


@pytest.mark.parametrize(
    ("oid", "content", "field"),
    [
        ("2.5.29.32", seq(), "certificatePolicies names no policy"),
        (
            "2.5.29.32",
            seq(seq(dotted("1.2.3")), seq(dotted("1.2.3"))),
            "certificatePolicies names the policy 1.2.3 twice",
        ),
        ("2.5.29.32", seq(seq(seq())), "certificatePolicies is not a list of policies"),
        ("2.5.29.33", seq(), "policyMappings names no policy"),
        ("2.5.29.33", seq(seq(dotted("1.2.3"), dotted("2.5.29.32.0"))), "policyMappings maps anyPolicy"),
        ("2.5.29.33", seq(seq(dotted("1.2.3"))), "policyMappings is not a list of pairs"),
        ("2.5.29.36", seq(), "policyConstraints has other parts"),
        ("2.5.29.36", seq(der(0x80, b"\xff")), "policyConstraints has a negative number"),
        ("2.5.29.36", seq(der(0x82, b"\0")), "policyConstraints has other parts"),
        ("2.5.29.54", der(2, b"\x80"), "inhibitAnyPolicy has a negative number"),
        ("2.5.29.54", seq(), "inhibitAnyPolicy has the type"),
    ],
)
def test_policies_that_cannot_be_read_are_named(ask: Ask, oid: str, content: bytes, field: str) -> None:
    ask.trusts(ROOT)
    verdict = ask.connect(made(extensions=[extension(oid, content, critical=True)]))
    assert verdict.code == "certificate_malformed"
    assert field in str(verdict.reason)


def test_policies_that_are_broken_matter_where_a_policy_is_required(ask: Ask) -> None:
    """Policies that are not critical are read where they are needed, and nowhere else."""
    ask.trusts(ROOT)
    broken, required = extension("2.5.29.32", seq()), extension("2.5.29.36", seq(der(0x80, b"\0")), critical=True)
    assert ask.connect(made(extensions=[broken])).code == "allowed"
    verdict = ask.connect(made(extensions=[broken, required]))
    assert verdict.code == "certificate_malformed"
    assert "certificatePolicies names no policy" in str(verdict.reason)


# -------------------------------------------------------------------------------------------------------- long chains


def test_a_chain_of_a_hundred(ask: Ask) -> None:
    """Refused for its length, before any certificate is parsed."""
    ask.trusts(ROOT)
    line = [ROOT]
    for n in range(99):
        line.append(certs.ca(f"C{n}", line[-1], private=K("P-256", 2)))
    device = certs.leaf(DEVICE, line[-1])
    assert ask.refused(device.der, b"".join(ca.der for ca in line[1:])) == "certificate_malformed"
    assert ask.refused(certs.bundle(device, *line[1:]).encode()) == "certificate_malformed"
    assert ask.server((device.key_pem + certs.bundle(device, *line[1:])).encode()) == "chain_too_long"
    assert ask.ca(certs.bundle(*line).encode()[: 60 * 1024]) == "several_certificates"


def test_ten_cas_that_sign_each_other(ask: Ask) -> None:
    """As many loops as ten certificates can make, with no anchor, and with an anchor that signed none of them.

    Without an anchor the budget ends before all loops are tried."""
    ask.trusts(TOP)
    own = [certs.ca(f"Loop {n}", private=K("P-384", 10 + n)) for n in range(3)]
    loop = [certs.ca(f"Loop {n}", own[m], private=K("P-384", 10 + n)) for n in range(3) for m in range(3)]
    device = certs.leaf(DEVICE, own[0])
    assert ask.refused(device.der, b"".join(ca.der for ca in loop)) == "chain_invalid"
    forged = certs.ca("Loop 0", certs.ca("Top", private=K("P-384", 20)), private=K("P-384", 10))
    assert ask.refused(device.der, b"".join(ca.der for ca in [*loop[1:], forged])) == "signature_invalid"


_LIST = x509.CRLDistributionPoints(
    [x509.DistributionPoint([x509.UniformResourceIdentifier("http://c.example/l")], None, None, None)]
)


def many_ways(shape: Sequence[int], end: Issued, *, plain: bool) -> tuple[Issued, list[Issued]]:
    """Return an expired device and CAs with many paths between it and *end*, every signature good.

    *plain*: with nothing in them for which OpenSSL is asked about every path."""
    above, sent = end, []
    for level, width in enumerate(shape):
        here = [
            certs.ca(
                f"L{level}",
                above,
                private=end.key,
                serial=100 * level + n + 1,
                more=[] if plain else [(_LIST, False)],
            )
            for n in range(width)
        ]
        sent += here
        above = here[0]
    return certs.leaf(DEVICE, above, not_after=NOON - DAY), sent


@pytest.mark.parametrize("kind", ["P-256", "P-384", "Ed448"])
@pytest.mark.parametrize("shape", [(3, 3, 3), (2, 2, 2, 2), (9,), (1,) * 8])
@pytest.mark.parametrize("plain", [True, False])
def test_ten_cas_of_one_name_and_every_way_to_them(ask: Ask, kind: str, shape: tuple[int, ...], plain: bool) -> None:
    """The worst case of one org: hundreds of paths, each good but for the date of the device, and slow keys.

    The refusal is that of the paths judged within the budget."""
    private = K(kind, 1)
    tops = [certs.ca("Ten", private=private, serial=n + 1) for n in range(10)]
    ask.trusts(*tops)
    device, sent = many_ways(shape, tops[0], plain=plain)
    assert ask.refused(device.der, b"".join(ca.der for ca in sent)) == "certificate_expired"


def test_the_right_one_of_ten_cas_of_one_name_is_found(ask: Ask) -> None:
    """Also with slow keys: the budget never refuses a good device."""
    tops = [certs.ca("Ten", private=K("P-521", n)) for n in range(10)]
    ask.trusts(*tops)
    for top in tops:
        line = [top]
        for n in range(4):
            line.append(certs.ca(f"Below {n}", line[-1], private=K("P-384", n)))
        device = certs.leaf(DEVICE, line[-1])
        assert ask.connect(device.der, b"".join(ca.der for ca in line[1:])).decision is Decision.ALLOW


# ---------------------------------------------------------------------------------------------------------- odd keys


def odd(bits: int) -> int:
    """Return a number of *bits* bits without a small factor, which passes every test for weak keys."""
    number_ = (1 << bits) - (1 << (bits // 2)) + 1
    small = [p for p in range(3, 2000, 2) if all(p % q for q in range(3, int(p**0.5) + 1, 2))]
    while any(number_ % p == 0 for p in small):
        number_ -= 2
    return number_


@pytest.mark.parametrize(
    ("bits", "exponent"),
    [
        (16384, 65537),
        (8193, 65537),
        (2048, 1),
        (2048, 2),
        (2048, 65536),
        pytest.param(2048, (1 << 257) + 1, id="2048-257 bits"),
        pytest.param(2048, (1 << 2040) + 1, id="2048-2041 bits"),
        (1024, 65537),
        (512, 3),
    ],
)
def test_rsa_keys_of_absurd_size_or_exponent(ask: Ask, bits: int, exponent: int) -> None:
    """Refused on a device, an intermediate, a CA and a server, before anything is verified with them."""
    ask.trusts(ROOT)
    key = rsa_key(odd(bits), exponent)
    refusals = {"weak_key", "certificate_malformed"}
    assert ask.refused(made(key=key)) in refusals
    between = made(subject=common_name(b"Between"), key=key, extensions=[CA_TRUE])
    assert ask.refused(made(issuer=common_name(b"Between")), between) in refusals
    own = common_name(b"Own")
    assert ask.ca(made(subject=own, issuer=own, key=key, extensions=[CA_TRUE])) in {"weak_key", "not_a_certificate"}
    server = made(subject=common_name(b"mtxpd0.messaging.example.com"), key=key)
    assert ask.server(server, certs.key_pem(K("P-256", 5)).encode()) in {"key_mismatch", "not_a_certificate"}


def test_the_largest_keys_that_are_taken(ask: Ask) -> None:
    """RSA-8192 and the largest exponents: the bad signature is found in time."""
    for bits, exponent in ((8192, (1 << 63) + 1), (8192, (1 << 255) + 1), (3072, (1 << 255) + 1)):
        own, key = common_name(b"Big %d" % bits), rsa_key(odd(bits), exponent)
        unsigned = made(subject=own, issuer=own, key=key, extensions=[CA_TRUE])
        assert ask.ca(unsigned) in {"self_signature_invalid", "weak_key"}
        assert ask.ca(made(subject=own, key=key, extensions=[CA_TRUE])) in {"", "weak_key"}
        device = made(issuer=own)
        assert ask.refused(device) in {"signature_invalid", "untrusted_issuer", "no_trusted_ca"}


def test_a_modulus_that_is_negative_or_even(ask: Ask) -> None:
    ask.trusts(ROOT)
    negative = seq(_RSA, der(3, b"\0" + seq(der(2, b"\xff" * 256), number(65537))))
    for key in (negative, rsa_key(odd(2048) - 1, 65537), rsa_key(0, 65537), rsa_key(odd(2048), 0)):
        assert ask.refused(made(key=key)) in {"weak_key", "certificate_malformed"}


def test_explicit_parameters_of_a_curve(ask: Ask, openssl: OpenSSL) -> None:
    """CVE-2020-0601: a forger can choose a generator that makes any public key the forger's own.

    No key with written-out parameters is accepted, not even with those of the usual curve (RFC 5480, 2.1.1)."""
    openssl.write("named.pem", certs.key_pem(K("P-256", 5)))
    openssl("pkey -in named.pem -pubout -outform DER -out explicit.der -ec_param_enc explicit")
    key, own = openssl.bytes("explicit.der"), common_name(b"Explicit")
    assert len(key) > 2 * len(KEY)
    ask.trusts(ROOT)
    assert ask.refused(made(key=key)) == "chain_invalid"
    top = made(subject=own, issuer=own, key=key, signer=K("P-256", 5), extensions=[CA_TRUE])
    assert ask.ca(top) == "weak_key", "refused at upload, where it can be mended"
    named = made(subject=own, issuer=own, key=key_info(K("P-256", 5)), signer=K("P-256", 5), extensions=[CA_TRUE])
    assert ask.ca(named) == ""


@pytest.mark.parametrize("point", [b"\4" + b"\1" * 64, b"\0", b"\2" + b"\xff" * 32, b"", b"\4" + b"\0" * 64])
def test_points_that_are_on_no_curve(ask: Ask, point: bytes) -> None:
    ask.trusts(ROOT)
    key = seq(seq(dotted("1.2.840.10045.2.1"), dotted("1.2.840.10045.3.1.7")), der(3, b"\0" + point))
    assert ask.refused(made(key=key)) == "certificate_malformed"
    own = common_name(b"Own")
    assert ask.ca(made(subject=own, issuer=own, key=key, extensions=[CA_TRUE])) == "not_a_certificate"


# --------------------------------------------------------------------------------------------------------- odd files


def test_pkcs12_that_asks_for_a_billion_rounds(ask: Ask) -> None:
    """Refused for its cost before it is opened: the cost of its parts or its keys. The integrity code costs nothing."""
    costly = key_files.pbes2(key_files.pbkdf2(10**9))
    for data in (
        key_files.pfx(key_files.encrypted_part(costly)),
        key_files.pfx(key_files.content_info(seq(key_files.bag(key_files.SHROUDED, key_files.encrypted(costly))))),
    ):
        assert ask.server(data, passphrase="secret", seconds=CERTIFICATE) == "kdf_too_costly"
    digest = seq(seq(dotted("2.16.840.1.101.3.4.2.1"), b"\5\0"), octets(bytes(32)))
    only_mac = key_files.pfx(mac=seq(digest, octets(b"salt"), number(10**9)))
    assert ask.server(only_mac, passphrase="secret", seconds=CERTIFICATE) == "not_a_key"


@pytest.mark.parametrize("rounds", [10**9, 2**63, 2**2000])
def test_a_key_that_asks_for_a_billion_rounds(ask: Ask, rounds: int) -> None:
    server = certs.server("mtxpd0.messaging.example.com")
    key = key_files.encrypted(key_files.pbes2(key_files.pbkdf2(rounds)))
    assert ask.server(server.der, key, passphrase="secret", seconds=CERTIFICATE) == "kdf_too_costly"


_LINE = "A comment that somebody wrote, line after line after line.\n"


@pytest.mark.parametrize(
    "filler",
    [
        _LINE,
        "-----BEGIN CERTIFICATE-----\n",
        "-----END CERTIFICATE-----\n",
        "-----BEGIN ",
        "-----",
        "Header: value\n",
        "\r",
        "\0",
        "-----BEGIN X-----\nA: b\n",
    ],
)
def test_megabytes_around_a_certificate(ask: Ask, filler: str) -> None:
    """Text within 64 KiB is skipped; more is too large. A bundle with its key may have 256 KiB."""
    ask.trusts(ROOT)
    for size, refusals in (
        (1024 * 1024, {"file_too_large"}),
        (60 * 1024, {"", "not_a_certificate", "several_certificates"}),
    ):
        text = filler * (size // len(filler))
        assert ask.ca(text.encode() + ROOT.pem.encode()) in refusals
    device = certs.leaf(DEVICE, ROOT)
    text = filler * (1024 * 1024 // len(filler))
    assert ask.refused(text.encode() + device.pem.encode()) == "certificate_malformed"
    server = certs.server("mtxpd0.messaging.example.com")
    bundle = filler * (200 * 1024 // len(filler)) + server.key_pem + server.pem
    ask.server(bundle.encode(), seconds=CERTIFICATE)


def test_elements_within_elements(ask: Ask) -> None:
    """Thousands deep, in every place that takes any content: no parser here recurses."""
    ask.trusts(ROOT)
    deep = b""
    while len(deep) < 14_000:
        deep = seq(deep)
    own = common_name(b"Own")
    for extensions in ([extension("1.2.3.4", deep)], [extension("2.5.29.17", deep)], [extension("2.5.29.32", deep)]):
        assert ask.connect(made(extensions=extensions)).decision in (Decision.ALLOW, Decision.DENY)
        ask.ca(made(subject=own, issuer=own, extensions=[CA_TRUE, *extensions]))
    assert ask.refused(deep) == "certificate_malformed"
    assert ask.ca(deep) == "not_a_certificate"
    assert ask.server(deep, deep) in {"not_a_key", "not_a_certificate"}


# --------------------------------------------------------------------------------------------------------- odd names


@pytest.mark.parametrize(
    ("tag", "content"),
    [(BMP, "Root".encode("utf-16-be")), (UNIVERSAL, "Root".encode("utf-32-be")), (T61, b"Root"), (PRINTABLE, b"ROOT")],
)
def test_an_issuer_in_another_string_type(ask: Ask, tag: int, content: bytes) -> None:
    """It is the same name or another, and never an error."""
    ask.trusts(ROOT)
    assert ask.connect(made(issuer=common_name(content, tag))).code in {
        "allowed",
        "untrusted_issuer",
        "certificate_malformed",
        "signature_invalid",
    }


@pytest.mark.parametrize(
    ("tag", "content"),
    [
        (BMP, b"\0R\0o\0o\0"),  # half a character
        (BMP, b"\xd8\x00"),  # half a surrogate pair
        (UNIVERSAL, b"\xff\xff\xff\xff"),
        (UTF8, b"\xff\xfe"),
        (PRINTABLE, b"\xff"),
        (UTF8, b""),
        (UTF8, b"A" * 7000),
        (0x05, b""),
        (0x30, b""),
    ],
)
def test_names_that_are_no_text(ask: Ask, tag: int, content: bytes) -> None:
    ask.trusts(ROOT)
    name = common_name(content, tag)
    assert ask.refused(made(subject=name)) in {"certificate_malformed", "identity_missing", "identity_mismatch"}
    assert ask.refused(made(issuer=name)) in {"certificate_malformed", "untrusted_issuer"}
    assert ask.ca(made(subject=name, issuer=name, key=key_info(ROOT.key), extensions=[CA_TRUE])) in {
        "",
        "not_a_certificate",
    }


@pytest.mark.parametrize(
    "text", [b"d:thermo:42\0.evil.example", b"\0d:thermo:42", b"d:thermo:42\0", b"d:thermo:4\x002"]
)
def test_a_nul_does_not_end_a_name(ask: Ask, text: bytes) -> None:
    """The text before the NUL, which C would read, is another name (CVE-2009-2408)."""
    ask.trusts(ROOT)
    for tag, content in ((UTF8, text), (BMP, text.decode().encode("utf-16-be")), (0x16, text)):
        assert ask.refused(made(subject=common_name(content, tag))) in {"identity_missing", "certificate_malformed"}
    mail = extension("2.5.29.17", seq(der(0x81, text)))
    assert ask.refused(made(subject=common_name(b"x"), extensions=[mail])) in {
        "identity_missing",
        "certificate_malformed",
    }


@pytest.mark.parametrize("host", [b"mtxpd0.messaging.example.com\0.evil.example", b"other1.messaging.example.com\0"])
def test_a_nul_does_not_end_a_hosts_name(ask: Ask, host: bytes) -> None:
    """Such a name covers no host, neither in CN nor as dNSName."""
    san = extension("2.5.29.17", seq(der(0x82, host)))
    private = certs.key_pem(K("P-256", 5)).encode()
    for certificate in (
        made(subject=common_name(host)),
        made(subject=common_name(b"x"), extensions=[san]),
        made(subject=common_name(b"mtxpd0.messaging.example.com"), extensions=[san]),
    ):
        assert ask.server(certificate, private) in {"host_mismatch", "not_a_certificate"}


def test_a_name_of_a_thousand_parts(ask: Ask) -> None:
    """A CA may have any name that fits into 16 KiB twice; a refusal shows only its beginning."""
    parts = [rdn("2.5.4.11", UTF8, b"unit %d" % n) for n in range(350)]
    long, wide = seq(*parts), seq(der(0x31, *(seq(dotted("2.5.4.11"), der(UTF8, b"%04d" % n)) for n in range(350))))
    for name in (long, wide):
        top = made(subject=name, issuer=name, key=key_info(ROOT.key), extensions=[CA_TRUE])
        assert ask.ca(top) == ""
        assert ask.connect(made(issuer=name)).decision is Decision.ALLOW
        verdict = ask.connect(made(issuer=name, signer=K("P-256", 9)))
        assert verdict.code == "signature_invalid"
        assert len(verdict.reason) < 1000


# ---------------------------------------------------------------------------------------------------- odd structures


@pytest.mark.parametrize(
    "extensions",
    [
        [CA_TRUE, CA_TRUE],
        [extension("2.5.29.19", seq()), CA_TRUE],
        [names(1), names(2)],
        [extension("2.5.29.15", b"\3\2\7\x80"), extension("2.5.29.15", b"\3\2\2\4")],
        [extension("2.5.29.37", seq(dotted("1.3.6.1.5.5.7.3.2"))), extension("2.5.29.37", seq())],
        [extension("1.2.3.4", b""), extension("1.2.3.4", b"x")],
    ],
)
def test_an_extension_twice(ask: Ask, extensions: list[bytes]) -> None:
    """RFC 5280, 4.2: at most one extension of a kind. The certificate is malformed."""
    ask.trusts(ROOT)
    assert ask.refused(made(extensions=extensions)) == "certificate_malformed"
    own = common_name(b"Own")
    for more in (extensions, [CA_TRUE, *extensions]):
        assert ask.ca(made(subject=own, issuer=own, key=key_info(ROOT.key), extensions=more)) == "not_a_certificate"
    server = made(subject=common_name(b"mtxpd0.messaging.example.com"), extensions=extensions)
    assert ask.server(server, certs.key_pem(K("P-256", 5)).encode()) == "not_a_certificate"


@pytest.mark.parametrize(
    ("oid", "value"),
    [
        ("2.5.29.19", b""),
        ("2.5.29.19", seq(b"\1\1\xff", der(2, b"\xff" * 40))),
        ("2.5.29.15", b""),
        ("2.5.29.37", seq()),
        ("2.5.29.17", seq()),
        ("2.5.29.30", seq()),
        ("2.5.29.14", octets(b"x" * 10_000)),
        ("2.5.29.35", seq(der(0x80, b"x" * 10_000))),
        ("2.5.29.17", seq(der(0xA4, seq()), der(0x87, b"x" * 5), der(0x88, b"\x80" * 50))),
        ("2.5.29.31", b"\xff" * 100),
    ],
)
@pytest.mark.parametrize("critical", [True, False])
def test_an_extension_with_the_wrong_content(ask: Ask, oid: str, value: bytes, critical: bool) -> None:
    ask.trusts(ROOT)
    broken = extension(oid, value, critical=critical)
    assert ask.connect(made(extensions=[broken])).decision in (Decision.ALLOW, Decision.DENY)
    own = common_name(b"Own")
    ask.ca(
        made(subject=own, issuer=own, key=key_info(ROOT.key), extensions=[broken, *([CA_TRUE] * (oid != "2.5.29.19"))])
    )


def test_a_key_identifier_that_is_critical(ask: Ask) -> None:
    """RFC 5280, 4.2.1.1 and 4.2.1.2: it must not be. OpenSSL then treats it as unknown, and the path is refused."""
    ask.trusts(ROOT)
    own, above = extension("2.5.29.14", octets(b"x"), critical=True), seq(der(0x80, b"x"))
    assert ask.refused(made(extensions=[own])) == "chain_invalid"
    assert ask.refused(made(extensions=[extension("2.5.29.35", above, critical=True)])) == "chain_invalid"


@pytest.mark.parametrize(
    "serial", [der(2, b"\xff" * 20), der(2, b"\x7f" * 5000), der(2, b"\0"), der(2, b""), der(2, b"\x80")]
)
def test_serial_numbers_of_any_size(ask: Ask, serial: bytes) -> None:
    """RFC 5280, 4.1.2.2: positive, up to 20 octets. Fleets have other numbers, which are accepted."""
    ask.trusts(ROOT)
    assert ask.connect(made(serial=serial)).decision in (Decision.ALLOW, Decision.DENY)
    own = common_name(b"Own")
    ask.ca(made(serial=serial, subject=own, issuer=own, key=key_info(ROOT.key), extensions=[CA_TRUE]))


@pytest.mark.parametrize(
    "validity",
    [
        seq(der(0x18, b"00000101000000Z"), der(0x18, b"99991231235959Z")),
        seq(der(0x17, b"250601000000Z"), der(0x18, b"99991231235960Z")),
        seq(der(0x17, b"2506010000Z"), der(0x17, b"270601000000+0100")),
        seq(der(0x17, b"270601000000Z"), der(0x17, b"250601000000Z")),
        seq(der(0x17, b""), der(0x17, b"")),
        seq(),
    ],
)
def test_impossible_times(ask: Ask, validity: bytes) -> None:
    ask.trusts(ROOT)
    assert ask.connect(made(validity=validity)).decision in (Decision.ALLOW, Decision.DENY)
    own = common_name(b"Own")
    ask.ca(made(validity=validity, subject=own, issuer=own, key=key_info(ROOT.key), extensions=[CA_TRUE]))


def test_a_signature_of_sixteen_kibibytes(ask: Ask) -> None:
    ask.trusts(ROOT)
    good = made()
    parts = x509.load_der_x509_certificate(good).tbs_certificate_bytes
    for signature in (bytes(15_000), b"", b"\x30\x06\2\1\1\2\1\1"):
        forged = seq(parts, _SHA256_ECDSA, der(3, b"\0" + signature))
        assert ask.refused(forged) in {"signature_invalid", "certificate_malformed"}
