"""Every private key file that openssl makes opens with its passphrase, within a bounded cost, and nothing leaks."""

import itertools
import random
from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12
from hypothesis import given
from hypothesis import strategies as st

from shared import errors
from shared.x509.certificate_files import read_one_certificate
from shared.x509.der import elements
from shared.x509.pkcs12 import load_pkcs12, looks_like_pkcs12
from shared.x509.private_key_files import KEY_FILE_MAX, load_private_key
from shared.x509.private_keys import PrivateKey
from shared.x509.public_keys import public_key_info
from tests.support import certs
from tests.support.der import der, number, octets, oid, seq
from tests.support.openssl import OpenSSL

KEY = certs.key("P-256", 7)
KEY_PEM = certs.key_pem(KEY)
KEY_DER = KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
ENCRYPTED = KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret"))
LEAF = certs.server("h.example.com", private=KEY)
ROOT = certs.ca("Root")

PBES2, PBKDF2, PBMAC1 = "2a864886f70d01050d", "2a864886f70d01050c", "2a864886f70d01050e"
PBE_3DES = "2a864886f70d010c0103"
SCRYPT = "2b06010401da47040b"
AES_256 = "60864801650304012a"
DATA, ENCRYPTED_DATA = "2a864886f70d010701", "2a864886f70d010706"
KEY_BAG, SHROUDED, CERT_BAG = (f"2a864886f70d010c0a010{n}" for n in (1, 2, 3))


# --- DER by hand, for files that no tool makes


def pbkdf2(rounds: int) -> bytes:
    return seq(oid(PBKDF2), seq(octets(b"saltsalt"), number(rounds), seq(oid("2a864886f70d0209"), b"\5\0")))


def scrypt(n: int, r: int, p: int) -> bytes:
    return seq(oid(SCRYPT), seq(octets(b"saltsalt"), number(n), number(r), number(p)))


def pbes2(derivation: bytes) -> bytes:
    return seq(oid(PBES2), seq(derivation, seq(oid(AES_256), octets(bytes(16)))))


def encrypted(algorithm: bytes, content: bytes = bytes(160)) -> bytes:
    """Return an EncryptedPrivateKeyInfo that holds noise."""
    return seq(algorithm, octets(content))


def content_info(content: bytes) -> bytes:
    return seq(oid(DATA), der(0xA0, octets(content)))


def encrypted_part(algorithm: bytes, content: bytes = bytes(160)) -> bytes:
    info = seq(oid(DATA), algorithm, der(0x80, content))
    return seq(oid(ENCRYPTED_DATA), der(0xA0, seq(number(0), info)))


def bag(kind: str, value: bytes) -> bytes:
    return seq(oid(kind), der(0xA0, value))


def cert_bag(cert: certs.Issued) -> bytes:
    return bag(CERT_BAG, seq(oid("2a864886f70d01091601"), der(0xA0, octets(cert.der))))


def pfx(*parts: bytes, mac: bytes = b"") -> bytes:
    return seq(number(3), content_info(seq(*parts)), mac)


def sealed(content: bytes, passphrase: bytes) -> bytes:
    """Return an encrypted part that really holds *content*: PBES2, 2,048 rounds, AES-256."""
    key = PBKDF2HMAC(hashes.SHA256(), 32, b"saltsalt", 2048).derive(passphrase)
    pad = padding.PKCS7(128).padder()
    run = Cipher(algorithms.AES(key), modes.CBC(bytes(16))).encryptor()
    return encrypted_part(pbes2(pbkdf2(2048)), run.update(pad.update(content) + pad.finalize()))


def costly(data: bytes) -> str:
    with pytest.raises(errors.KdfTooCostly) as refused:
        (load_pkcs12 if looks_like_pkcs12(data) else load_private_key)(data, "secret")
    return refused.value.reason


# --- what tools make


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> OpenSSL:
    """rsa.pem and ec.pem (with EC PARAMETERS before it), and a certificate of the first."""
    openssl = OpenSSL(tmp_path_factory.mktemp("keys"))
    openssl("genrsa -out rsa.pem 2048")
    openssl("ecparam -name prime256v1 -genkey -out ec.pem")
    openssl("req -x509 -key rsa.pem -out c.pem -days 30 -subj", "/CN=h.example.com")
    return openssl


def public_info(key: PrivateKey) -> bytes:
    return public_key_info(key.public_key())


def public_of(openssl: OpenSSL, name: str) -> bytes:
    return public_info(load_private_key(openssl.bytes(name), None))


@pytest.mark.parametrize(
    "command",
    [
        "rsa -in rsa.pem -traditional",
        "rsa -in rsa.pem -outform DER",
        "pkcs8 -topk8 -nocrypt -in rsa.pem",
        "pkcs8 -topk8 -nocrypt -in rsa.pem -outform DER",
        "rsa -in rsa.pem -traditional -outform DER",
    ],
)
def test_plain_keys_open(tools: OpenSSL, command: str) -> None:
    """PKCS#8 (RFC 5958) and PKCS#1 (RFC 8017, A.1.2), PEM and DER."""
    tools(f"{command} -out plain")
    assert public_info(load_private_key(tools.bytes("plain"), None)) == public_of(tools, "rsa.pem")
    assert public_info(load_private_key(tools.bytes("plain"), "")) == public_of(tools, "rsa.pem")
    with pytest.raises(errors.PassphraseUnneeded):
        load_private_key(tools.bytes("plain"), "secret")


def test_an_ec_key_opens_with_its_parameters_block_before_it(tools: OpenSSL) -> None:
    """SEC1 (RFC 5915) as `openssl ecparam -genkey` writes it."""
    assert tools.read("ec.pem").startswith("-----BEGIN EC PARAMETERS-----")
    load_private_key(tools.bytes("ec.pem"), None)


@pytest.mark.parametrize(
    "command",
    [
        "rsa -in rsa.pem -traditional -aes256",
        "rsa -in rsa.pem -traditional -des3",
        "pkcs8 -topk8 -in rsa.pem",
        "pkcs8 -topk8 -in rsa.pem -outform DER",
        "pkcs8 -topk8 -in rsa.pem -v2 des3 -iter 10000",
        "pkcs8 -topk8 -in rsa.pem -v2 aes-128-cbc -v2prf hmacWithSHA512",
        "pkcs8 -topk8 -in rsa.pem -v1 PBE-SHA1-3DES",
        "pkcs8 -topk8 -in rsa.pem -scrypt",
    ],
)
def test_encrypted_keys_open_with_their_passphrase_only(tools: OpenSSL, command: str) -> None:
    """PBES2 with PBKDF2 and scrypt (RFC 8018, RFC 7914), PBES1 of PKCS#12, traditional PEM encryption."""
    tools(f"{command} -passout pass:pässword -out encrypted")
    data = tools.bytes("encrypted")
    assert public_info(load_private_key(data, "pässword")) == public_of(tools, "rsa.pem")
    for wrong in ("password", "nul\0", "x" * 2000, "\udc80"):
        with pytest.raises(errors.PassphraseWrong) as refused:
            load_private_key(data, wrong)
        assert refused.value.part == "passphrase"
    for none in (None, ""):
        with pytest.raises(errors.PassphraseRequired):
            load_private_key(data, none)


def test_a_wrong_passphrase_that_decrypts_to_noise_is_a_wrong_passphrase(tools: OpenSSL) -> None:
    """With traditional encryption, one wrong passphrase in 256 gives right padding: about six of 1,500."""
    tools("ec -in ec.pem -aes128 -passout pass:right -out noise.pem")
    for n in range(1500):
        with pytest.raises(errors.PassphraseWrong):
            load_private_key(tools.bytes("noise.pem"), f"wrong {n}")


@pytest.mark.parametrize(
    "command",
    [
        "rsa -in rsa.pem -traditional -aes192",
        "rsa -in rsa.pem -traditional -camellia256",
        "pkcs8 -topk8 -in rsa.pem -v2 camellia-256-cbc",
        "pkcs8 -topk8 -in rsa.pem -provider legacy -provider default -v1 PBE-MD5-DES",
        "pkcs8 -topk8 -in rsa.pem -provider legacy -provider default -v1 PBE-SHA1-RC2-128",
    ],
)
def test_unsupported_ciphers_are_named_and_the_passphrase_is_not_blamed(tools: OpenSSL, command: str) -> None:
    tools(f"{command} -passout pass:secret -out strange.pem")
    with pytest.raises(errors.NotAKey, match="openssl pkcs8 -topk8 -v2 aes-256-cbc"):
        load_private_key(tools.bytes("strange.pem"), "secret")


PKCS12_OPTIONS = ["", "-legacy", "-nomac", "-legacy -nomac", "-iter 10000", "-keypbe AES-128-CBC -certpbe NONE"]


@pytest.mark.parametrize("passphrase", ["secret", "", "pässword ☃"])
@pytest.mark.parametrize("options", PKCS12_OPTIONS)
def test_pkcs12_opens(tools: OpenSSL, options: str, passphrase: str) -> None:
    """RFC 7292, as openssl writes it now and wrote it before; with the empty passphrase as key vaults export."""
    tools(f"pkcs12 -export -in c.pem -inkey rsa.pem {options} -out c.p12 -passout", f"pass:{passphrase}")
    data = tools.bytes("c.p12")
    assert looks_like_pkcs12(data)
    key, leaf, chain = load_pkcs12(data, passphrase)
    assert leaf == read_one_certificate(tools.bytes("c.pem"))
    assert (public_info(key), chain) == (public_of(tools, "rsa.pem"), [])
    with pytest.raises(errors.PassphraseWrong):
        load_pkcs12(data, "wrong")
    assert public_info(load_private_key(data, passphrase)) == public_info(key)
    if passphrase:
        with pytest.raises(errors.PassphraseRequired):
            load_pkcs12(data, None)


def test_a_nul_is_not_the_empty_passphrase(tools: OpenSSL) -> None:
    """It would derive the same keys (RFC 7292, appendix B.2)."""
    tools("pkcs12 -export -in c.pem -inkey rsa.pem -out empty.p12 -passout pass:")
    for wrong in ("\0", "\0\0", "a\0b"):
        with pytest.raises(errors.PassphraseWrong):
            load_pkcs12(tools.bytes("empty.p12"), wrong)


def test_pkcs12_of_other_writers_opens() -> None:
    """cryptography's own, with a chain."""
    data = pkcs12.serialize_key_and_certificates(
        b"name", KEY, LEAF.cert, [ROOT.cert], serialization.BestAvailableEncryption(b"secret")
    )
    _, leaf, chain = load_pkcs12(data, "secret")
    assert (leaf, chain) == (LEAF.certificate, [ROOT.certificate])


def test_pkcs12_without_any_passphrase_opens_without() -> None:
    data = pfx(content_info(seq(bag(KEY_BAG, KEY_DER), cert_bag(LEAF))))
    assert load_pkcs12(data, None)[1] == LEAF.certificate
    with pytest.raises(errors.PassphraseUnneeded):
        load_pkcs12(data, "secret")


def test_pkcs12_needs_one_key_and_its_certificate() -> None:
    with pytest.raises(errors.NotAKey, match="No private key found in the open part"):
        load_pkcs12(pfx(content_info(seq(cert_bag(LEAF)))), None)
    with pytest.raises(errors.NotAKey, match="2 private keys"):
        load_pkcs12(pfx(content_info(seq(bag(KEY_BAG, KEY_DER), bag(SHROUDED, ENCRYPTED)))), None)
    with pytest.raises(errors.NotACertificate, match="No certificate found in this PKCS#12"):
        load_pkcs12(pfx(content_info(seq(bag(KEY_BAG, KEY_DER)))), None)
    with pytest.raises(errors.KeyMismatch):
        load_pkcs12(pfx(content_info(seq(bag(KEY_BAG, KEY_DER), cert_bag(ROOT)))), None)


def test_pkcs12_whose_parts_have_other_passphrases_is_refused() -> None:
    parts = content_info(seq(bag(KEY_BAG, KEY_DER))), sealed(seq(cert_bag(LEAF)), b"secret")
    assert load_pkcs12(pfx(*parts), "secret")[1] == LEAF.certificate
    with pytest.raises(errors.PassphraseWrong):
        load_pkcs12(pfx(*parts), "wrong")
    with pytest.raises(errors.PassphraseRequired):
        load_pkcs12(pfx(*parts), None)


# --- costs


def test_twenty_million_rounds_are_refused_before_they_are_run() -> None:
    """PBES2 (RFC 8018, A.2) and PBES1 (RFC 7292, appendix C), in a key and in PEM."""
    for algorithm in (
        pbes2(pbkdf2(20_000_000)),
        seq(oid(PBE_3DES), seq(octets(b"saltsalt"), number(20_000_000))),
    ):
        assert costly(encrypted(algorithm)) == (
            "To open this key takes 20,000,000 rounds of key derivation; the limit is 3,000,000 rounds."
        )
    with pytest.raises(errors.KdfTooCostly):
        load_private_key(encrypted(pbes2(pbkdf2(2**31))), None)  # before a passphrase is asked for
    costly(encrypted(pbes2(pbkdf2(2**4000))))


def test_a_real_key_with_patched_rounds_is_refused(tools: OpenSSL) -> None:
    """The count is read where the decryption would read it: 65,537 rounds become 8,323,073, the length stays."""
    tools("pkcs8 -topk8 -in ec.pem -iter 65537 -passout pass:secret -outform DER -out counted.der")
    real = tools.bytes("counted.der")
    load_private_key(real, "secret")
    patched = real.replace(number(65537), number(0x7F0001))
    assert patched != real
    assert "8,323,073 rounds" in costly(patched)


def test_three_million_rounds_are_still_done() -> None:
    with pytest.raises(errors.PassphraseWrong):
        load_private_key(encrypted(pbes2(pbkdf2(3_000_000))), "secret")
    costly(encrypted(pbes2(pbkdf2(3_000_001))))


@pytest.mark.parametrize(
    ("n", "r", "p"), [(2**15, 8, 2), (2**20, 8, 1), (2, 1, 2**18), (2, 2**18, 1), (2**40, 2**40, 9)]
)
def test_scrypt_is_bounded_by_memory_and_time(n: int, r: int, p: int) -> None:
    """128·N·r·p bytes of at most 32 MiB (RFC 7914, section 2): p costs time where N and r cost memory."""
    assert "MiB of memory of key derivation; the limit is 32 MiB" in costly(encrypted(pbes2(scrypt(n, r, p))))


def test_scrypt_of_32_mib_is_still_done() -> None:
    with pytest.raises(errors.PassphraseWrong):
        load_private_key(encrypted(pbes2(scrypt(2**15, 8, 1))), "secret")


def mac(rounds: int) -> bytes:
    digest = seq(seq(oid("608648016503040201"), b"\5\0"), octets(bytes(32)))
    return seq(digest, octets(b"saltsalt"), number(rounds))


def pbmac1(rounds: int) -> bytes:
    algorithm = seq(oid(PBMAC1), seq(pbkdf2(rounds), seq(oid("2a864886f70d0209"), b"\5\0")))
    return seq(seq(algorithm, octets(bytes(32))), octets(b"unused"), number(1))


HALF = pbes2(pbkdf2(1_600_000))
PLAIN_PART = content_info(seq(bag(KEY_BAG, KEY_DER), cert_bag(LEAF)))


@pytest.mark.parametrize(
    "data",
    [
        pfx(PLAIN_PART, encrypted_part(pbes2(pbkdf2(20_000_000)))),
        pfx(PLAIN_PART, encrypted_part(HALF), encrypted_part(HALF)),
        pfx(content_info(seq(bag(SHROUDED, encrypted(HALF)))), encrypted_part(HALF)),
        pfx(content_info(seq(bag(SHROUDED, encrypted(pbes2(scrypt(2**20, 8, 1))))))),
    ],
)
def test_a_pkcs12_files_costs_are_summed(data: bytes) -> None:
    """Encrypted parts and encrypted keys. The refusal says how to make a file that costs less."""
    with pytest.raises(errors.KdfTooCostly, match=r"openssl pkcs12 -in file\.p12 -aes256 -out new-file\.pem$"):
        load_pkcs12(data, "secret")


@pytest.mark.parametrize("integrity", [mac(20_000_000), pbmac1(20_000_000)], ids=["RFC 7292", "PBMAC1, RFC 9579"])
def test_the_rounds_of_an_integrity_code_cost_nothing(integrity: bytes) -> None:
    """The code is not computed."""
    assert load_pkcs12(pfx(PLAIN_PART, mac=integrity), "")[1] == LEAF.certificate


def test_costs_hidden_in_an_encrypted_part_are_not_paid() -> None:
    """2^31 rounds would take longer than a test may: an encrypted key inside an encrypted part is never opened."""
    hidden = bag(SHROUDED, encrypted(pbes2(pbkdf2(2**31 - 1))))
    for inside in (seq(hidden, cert_bag(LEAF)), seq(cert_bag(LEAF), hidden)):
        part = sealed(inside, b"secret")
        assert load_pkcs12(pfx(part, content_info(seq(bag(KEY_BAG, KEY_DER)))), "secret")[1] == LEAF.certificate
        with pytest.raises(errors.NotAKey):
            load_pkcs12(pfx(part), "secret")


# --- BER (RFC 7292, section 4; X.690, 8.1.3.6 and 8.7.3)


def indefinite(data: bytes) -> bytes:
    """Return DER with lengths of indefinite form in every constructed element, and octet strings in two pieces."""
    encoded = b""
    for element in elements(data):
        if element.tag & 0x20:
            encoded += bytes([element.tag, 0x80]) + indefinite(element.content) + b"\0\0"
        elif element.tag == 0x04 and len(element.content) > 2:
            first, second = element.content[:2], element.content[2:]
            encoded += b"\x24\x80" + octets(first) + octets(second) + b"\0\0"
        elif element.tag == 0x80:
            encoded += b"\xa0\x80" + octets(element.content[:1]) + octets(element.content[1:]) + b"\0\0"
        else:
            encoded += element.whole
    return encoded


def long_lengths(data: bytes) -> bytes:
    """Return DER with all lengths of constructed elements in four octets."""
    encoded = b""
    for element in elements(data):
        content = long_lengths(element.content) if element.tag & 0x20 else element.content
        head = bytes([element.tag, 0x84]) + len(content).to_bytes(4) if element.tag & 0x20 else None
        encoded += head + content if head else element.whole
    return encoded


def only_outside(data: bytes) -> bytes:
    return b"\x30\x80" + elements(data)[0].content + b"\0\0"


REAL = pkcs12.serialize_key_and_certificates(
    b"name", KEY, LEAF.cert, [ROOT.cert], serialization.BestAvailableEncryption(b"secret")
)


@pytest.mark.parametrize("rewrite", [indefinite, long_lengths, only_outside])
@pytest.mark.parametrize(("data", "passphrase"), [(REAL, "secret"), (pfx(PLAIN_PART), None)], ids=["sealed", "plain"])
def test_pkcs12_in_ber_is_read(rewrite: Callable[[bytes], bytes], data: bytes, passphrase: str | None) -> None:
    """As NSS's pk12util, Firefox, BouncyCastle and Apple's tools write it."""
    assert looks_like_pkcs12(rewrite(data))
    assert load_pkcs12(rewrite(data), passphrase)[1] == LEAF.certificate


@pytest.mark.parametrize("rewrite", [indefinite, long_lengths, only_outside])
def test_pkcs12_in_ber_is_named_in_a_field_for_certificates(rewrite: Callable[[bytes], bytes]) -> None:
    """Such a file is whole: it is not damaged, but it is no certificate."""
    with pytest.raises(errors.NotACertificate, match=r"This is a PKCS#12 file"):
        read_one_certificate(rewrite(REAL))


@pytest.mark.parametrize("rewrite", [indefinite, long_lengths, only_outside])
def test_no_cost_hides_in_ber(rewrite: Callable[[bytes], bytes]) -> None:
    for data in (
        pfx(PLAIN_PART, encrypted_part(pbes2(pbkdf2(20_000_000)))),
        pfx(content_info(seq(bag(SHROUDED, encrypted(pbes2(pbkdf2(20_000_000))))))),
    ):
        with pytest.raises(errors.KdfTooCostly):
            load_pkcs12(rewrite(data), "secret")


@pytest.mark.parametrize(
    "data",
    [
        b"\x30\x80" * 5000,
        b"\x30\x80" + b"\x04\x00" * 30_000 + b"\0\0",
        b"\x30\x80\x02\x01\x03",
        b"\x30\x80\x04\x80\0\0\0\0",
        b"\x30\x85\0\0\0\0\x01\0",
    ],
    ids=["deep", "many", "cut off", "primitive without length", "length of five octets"],
)
def test_hostile_ber_is_no_pkcs12(data: bytes) -> None:
    assert not looks_like_pkcs12(data)


# --- other keys


def test_a_key_that_takes_long_to_read_is_not_read(tools: OpenSSL) -> None:
    """RSA 8192 takes seconds to validate, DSA with large numbers to load (its public key is computed)."""
    big = certs.key_pem(rsa.generate_private_key(65537, 4096 + 512))
    with pytest.raises(errors.KeyUnsupported, match="is not a key that MQTT servers can use"):
        load_private_key(big.encode(), None)
    modulus = (1 << 20_000) - 3
    info = seq(oid("2a8648ce380401"), seq(number(modulus), number(3), number(2)))
    with pytest.raises(errors.KeyUnsupported, match=r"A key of 5,0\d\d bytes"):
        load_private_key(seq(number(0), info, octets(number(modulus - 7))), None)


@pytest.mark.parametrize("kind", ["Ed25519", "Ed448"])
def test_keys_that_servers_do_not_support_are_named(kind: str) -> None:
    with pytest.raises(errors.KeyUnsupported, match=kind):
        load_private_key(certs.key_pem(certs.key(kind)).encode(), None)


def test_rsa_4096_fits(tools: OpenSSL) -> None:
    tools("genrsa -out 4096.pem 4096")
    tools("pkcs8 -topk8 -in 4096.pem -scrypt -passout pass:x -out 4096.enc")
    assert public_info(load_private_key(tools.bytes("4096.enc"), "x")) == public_of(tools, "4096.pem")


def rsa_der(**changed: int) -> bytes:
    key = certs.key("RSA-2048")
    assert isinstance(key, rsa.RSAPrivateKey)
    own = key.private_numbers()
    parts = {"n": own.public_numbers.n, "e": 65537, "d": own.d, "p": own.p, "q": own.q}
    parts |= {"dp": own.dmp1, "dq": own.dmq1, "qi": own.iqmp} | changed
    return seq(number(0), *map(number, parts.values()))


@pytest.mark.parametrize(
    "changed",
    [
        {"d": 3},
        {"p": 2**21701 - 1, "n": 2**2047 + 1},  # a prime that would be tested for a minute
        {"p": 2**9689 - 1, "n": 2**2047 + 1, "q": 3},
        {"p": 3, "q": 2**2048 + 1, "n": 3 * (2**2048 + 1)},
        {"n": 2**2047 + 1},
    ],
)
def test_rsa_numbers_that_do_not_fit_together_are_no_key(changed: dict[str, int]) -> None:
    with pytest.raises((errors.NotAKey, errors.KeyUnsupported)):
        load_private_key(rsa_der(**changed), None)
    load_private_key(rsa_der(), None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        LEAF.pem.encode(),
        LEAF.der,
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        KEY_PEM[:80].encode(),
        KEY_PEM.replace("M", "*").encode(),
        KEY_PEM.encode() * 2,
        KEY_DER[:-1],
        encrypted(seq(oid(PBES2), seq())),
        encrypted(pbes2(pbkdf2(0))),
        encrypted(pbes2(scrypt(3, 8, 0))),
        b"\x30\x80" * 30_000,
    ],
)
def test_other_files_are_not_keys(data: bytes) -> None:
    """Empty, text, certificates, SSH keys, damaged keys, nonsense in the parameters, deep nests: never a 500."""
    with pytest.raises(errors.NotAKey):
        load_private_key(data, None)


def test_the_size_of_key_files_is_bounded() -> None:
    with pytest.raises(errors.TooLarge):
        load_private_key(b" " * (64 * 1024 + 1), None)
    with pytest.raises(errors.TooLarge):
        load_pkcs12(b"\x30" * (256 * 1024 + 1), None)


def test_no_error_carries_the_key_or_the_passphrase() -> None:
    """Nor does the error that caused it, which a log shows too."""
    secret = "Tr0ub4dor"
    for data in (KEY_PEM.encode(), ENCRYPTED, KEY_DER[:-1], rsa_der(d=3)):
        with pytest.raises(errors.TrustError) as refused:
            load_private_key(data, secret)
        chained: list[BaseException | None] = [refused.value, refused.value.__cause__]
        if not refused.value.__suppress_context__:
            chained.append(refused.value.__context__)
        for error in chained:
            assert secret not in repr(error)
            assert "MIG" not in repr(error)


# --- noise


def mutants(samples: list[bytes], count: int) -> Iterator[bytes]:
    dice = random.Random(11)
    for sample in itertools.islice(itertools.cycle(samples), count):
        data = bytearray(sample)
        for _ in range(dice.randint(1, 3)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        yield bytes(data)


def test_mutated_files_raise_nothing_but_refusals() -> None:
    """3,000 key files with up to 3 wrong bytes."""
    traditional = KEY.private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, serialization.BestAvailableEncryption(b"secret")
    )
    p12 = pfx(sealed(seq(cert_bag(LEAF)), b"secret"), content_info(seq(bag(KEY_BAG, KEY_DER))), mac=mac(2))
    shrouded = pfx(content_info(seq(bag(SHROUDED, encrypted(pbes2(pbkdf2(9)))), cert_bag(LEAF))))
    plain = certs.key("RSA-2048").private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    samples = [
        KEY_DER,
        plain,
        encrypted(pbes2(pbkdf2(9))),
        encrypted(pbes2(scrypt(2, 1, 1))),
        traditional,
        p12,
        shrouded,
    ]
    for data in mutants(samples, 3000):
        for load in (load_private_key, load_pkcs12):
            try:
                load(data, "secret")
            except errors.TrustError:
                continue


@given(st.binary(max_size=200), st.none() | st.text(max_size=20))
def test_no_bytes_raise_anything_but_a_refusal(data: bytes, passphrase: str | None) -> None:
    for prefix in (
        b"",
        b"\x30\x82\x00\xc8\x30",
        b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: ",
    ):
        for load in (load_private_key, load_pkcs12):
            with pytest.raises(errors.TrustError):
                load(prefix + data + b"\n-----END RSA PRIVATE KEY-----", passphrase)


def test_the_limit_is_the_callers_where_a_key_is_in_a_bundle() -> None:
    bundle = LEAF.pem.encode() * 200 + KEY_PEM.encode()
    assert len(bundle) > KEY_FILE_MAX
    load_private_key(bundle, None, limit=256 * 1024)
