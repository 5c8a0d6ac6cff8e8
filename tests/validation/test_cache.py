"""The caches of parsed certificates: bounded, and keyed by the octets of each certificate."""

import gc
import tracemalloc

import pytest
from cryptography import x509

from shared import errors
from shared.x509 import cache, certificate, distinguished_name
from shared.x509 import path as certification_path
from shared.x509.cache import read_intermediate, read_registered
from shared.x509.certificate import Certificate
from tests.support import certs
from tests.support.certs import NOON, Issued

K = certs.key
ROOT = certs.ca("Root", private=K("P-256", 1))
INTER = certs.ca("Inter", ROOT, private=K("P-256", 2))
LEAF = certs.leaf("d:thermo:42", INTER)


@pytest.fixture(autouse=True)
def empty_caches() -> None:
    cache._registered.clear()
    cache._intermediates.clear()
    distinguished_name._kept.clear()


def is_trusted(leaf: Issued, inter: bytes, root: Issued) -> bool:
    try:
        certification_path.verify(leaf.certificate, [read_intermediate(inter)], [read_registered(root.der)], [], NOON)
    except errors.SignatureInvalid:
        return False
    return True


def test_the_same_octets_are_read_once() -> None:
    assert read_registered(ROOT.der) is read_registered(bytes(bytearray(ROOT.der)))
    assert read_intermediate(INTER.der) is read_intermediate(bytes(bytearray(INTER.der)))
    assert read_intermediate(ROOT.der) is not read_registered(ROOT.der)  # strangers fill one of the two


def test_what_differs_in_one_octet_is_another_certificate() -> None:
    """The last octet is the signature's: name, key and extensions are all the same."""
    forged = INTER.der[:-1] + bytes([INTER.der[-1] ^ 1])
    for _ in range(2):
        assert is_trusted(LEAF, INTER.der, ROOT)
        assert not is_trusted(LEAF, forged, ROOT)


def test_a_verified_signature_is_good_under_that_key_only() -> None:
    """Another org's root of the same name: the intermediate was kept while the first org's device connected."""
    namesake = certs.ca("Root", private=K("P-256", 5))
    assert is_trusted(LEAF, INTER.der, ROOT)
    assert not is_trusted(LEAF, INTER.der, namesake)
    assert is_trusted(LEAF, INTER.der, ROOT)


def test_a_renewed_root_of_the_same_key_vouches_as_well() -> None:
    renewed = certs.ca("Root", private=K("P-256", 1), serial=77)
    assert is_trusted(LEAF, INTER.der, ROOT)
    assert is_trusted(LEAF, INTER.der, renewed)


def test_malformed_certificates_are_not_kept() -> None:
    for _ in range(2):
        with pytest.raises(errors.CertificateMalformed):
            read_intermediate(b"\x30\x03\x02\x01\x01")
    assert len(cache._intermediates) == 0


def test_what_strangers_send_does_not_push_out_what_orgs_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    small = cache.CertificateCache(256 * 1024)
    monkeypatch.setattr(cache, "_intermediates", small)
    kept = read_registered(ROOT.der)
    for number in range(100):
        read_intermediate(certs.ca(f"Stranger {number}", private=K("P-256", 3)).der)
    assert 1 < len(small) < 100
    assert small.taken <= 256 * 1024
    assert read_registered(ROOT.der) is kept


def test_the_certificate_that_was_not_used_for_longest_gives_way() -> None:
    first, second, third = (certs.ca(f"CA {number}", private=K("P-256", 3)).der for number in range(3))
    small = cache.CertificateCache(100_000)
    kept = small.read(first)
    room = 100_000 // small.taken - 1
    others = [certs.ca(f"Other {number}", private=K("P-256", 3)).der for number in range(2 * room)]
    for other in others:
        small.read(other)
        assert small.read(first) is kept
    assert len(small) < len(others)
    assert small.read(second) is not small.read(third)


def test_a_certificate_is_counted_with_the_memory_that_it_takes() -> None:
    """What the cache counts for a certificate of many parts is at least what Python allocates for it."""
    many = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a")] * 300)
    names = [x509.DNSName("")] * 1000
    wide = certs.ca("Wide", private=K("P-256", 9), more=[(x509.SubjectAlternativeName(names), False)])
    for der in (ROOT.der, certs.ca(many, private=K("P-256", 9)).der, wide.der):
        counted = cache.CertificateCache(2**30)
        Certificate.from_der(der)
        gc.collect()
        tracemalloc.start()
        cert = counted.read(der)
        assert cert.subject.canonical
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert size <= counted.taken


def test_certificates_longer_than_a_ca_may_be_are_read_each_time() -> None:
    names = [x509.DNSName("x" * 60 + f".{number}") for number in range(300)]
    long = certs.ca("Long", private=K("P-256", 9), more=[(x509.SubjectAlternativeName(names), False)])
    assert len(long.der) > cache.BYTES_MAX
    assert read_registered(long.der) is not read_registered(long.der)
    assert read_intermediate(long.der) is not read_intermediate(long.der)


def test_issuers_names_are_bounded() -> None:
    for number in range(distinguished_name.NAMES_KEPT_MAX + 10):
        signer = Issued(certs.ca(f"Issuer {number}", private=K("P-256", 3)).cert, K("P-256", 3))
        assert certs.leaf("d:thermo:42", signer).certificate
    assert len(distinguished_name._kept) <= distinguished_name.NAMES_KEPT_MAX
    long = certs.name("x" * 64, organization="y" * 64)
    many = x509.Name([*long, *[x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "z" * 64)] * 20])
    distinguished_name._kept.clear()
    assert certs.leaf("d:thermo:42", certs.ca(many, private=K("P-256", 3))).certificate
    assert distinguished_name._kept == {}


def test_an_issuers_name_is_kept_in_little_memory() -> None:
    """Strangers fill this cache: a thousand names of the longest form take 4 MiB, not 48."""
    parts = [x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "a") for _ in range(80)]
    issuers = [x509.Name([*parts, *certs.name(f"{number:03}")]) for number in range(50)]
    ders = [
        certs.leaf("d:thermo:42", Issued(certs.ca(name, private=K("P-256", 3)).cert, K("P-256", 3))).der
        for name in issuers
    ]
    Certificate.from_der(LEAF.der)
    gc.collect()
    tracemalloc.start()
    for der in ders:
        assert Certificate.from_der(der).issuer.text
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(distinguished_name._kept) == len(issuers) + 1
    assert size / len(issuers) < 6 * 1024


def test_the_keys_that_are_known_to_have_signed_a_certificate_are_bounded() -> None:
    leaf = LEAF.certificate
    others = {bytes([number]) for number in range(certificate._SIGNERS_MAX)}  # as if so many keys had signed it
    leaf._signers |= others
    assert leaf.is_signed_by(INTER.certificate)
    assert leaf._signers == others


def test_an_issuers_name_in_two_spellings_is_one_name() -> None:
    """Kept by its octets, compared in canonical form."""
    cas = [certs.ca(text, private=K("P-256", 3)) for text in ("Acme CA", "ACME  ca")]
    first, second = (certs.leaf("d:thermo:42", ca).certificate for ca in cas)
    assert first.issuer.canonical == second.issuer.canonical
    assert first.issuer.digest == second.issuer.digest
    assert len(distinguished_name._kept) == 2
