"""Public paths with certificate policies: NIST's Public Key Interoperability Test Suite, with its default settings.

The judge beside this project's is the `openssl` command with its policy check: any-policy is the initial policy set,
and nothing but the certificates requires an explicit policy.
"""

import datetime as dt
from functools import cache
from pathlib import Path

import cryptography_vectors
import pytest

from shared.errors import CertificateMalformed, Refused
from shared.x509.certificate import Certificate
from shared.x509.path import verify
from tests.support.openssl import OpenSSL

FOLDER = Path(cryptography_vectors.__file__).parent / "x509" / "PKITS_data" / "certs"
AT = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
# Rules of this project: DSA is not taken, and a device's certificate is no CA
OWN_RULES = {"weak_key", "wrong_key_usage"}
LEAVES = sorted(path.name for path in FOLDER.glob("*EE.crt"))


@cache
def read(name: str) -> Certificate | None:
    """Return a certificate of the suite; None where it cannot be read."""
    try:
        return Certificate.from_der((FOLDER / name).read_bytes())
    except CertificateMalformed:
        return None


@cache
def cas() -> dict[bytes, list[Certificate]]:
    """Return the CAs of the suite by name, without the root."""
    by_name: dict[bytes, list[Certificate]] = {}
    for path in sorted(FOLDER.glob("*.crt")):
        cert = read(path.name)
        if cert is not None and cert.is_ca and not path.name.endswith("EE.crt") and not cert.is_self_signed:
            by_name.setdefault(cert.subject.canonical, []).append(cert)
    return by_name


def chain_of(leaf: Certificate) -> list[Certificate]:
    """Return every CA that may be above *leaf*."""
    sent: list[Certificate] = []
    pending = [leaf]
    while pending:
        for ca in cas().get(pending.pop().issuer.canonical, []):
            if ca not in sent:
                sent.append(ca)
                pending.append(ca)
    return sent


def judge(leaf: Certificate, sent: list[Certificate], root: Certificate) -> str:
    """Return the code of the decision on *leaf*; "" where the leaf is trusted."""
    try:
        verify(leaf, sent, [root], [], AT)
    except Refused as refusal:
        return refusal.code
    return ""


def test_every_path_is_judged_as_openssl_judges_it(openssl: OpenSSL) -> None:
    """More than 200 leaves, 70 of them about policies."""
    root = read("TrustAnchorRootCertificate.crt")
    assert root is not None
    openssl.write("root.pem", root.pem)
    differences, compared = [], 0
    for name in LEAVES:
        leaf = read(name)
        if leaf is None:
            continue
        sent = chain_of(leaf)
        code = judge(leaf, sent, root)
        if code in OWN_RULES:
            continue
        openssl.write("leaf.pem", leaf.pem)
        openssl.write("sent.pem", "".join(ca.pem for ca in sent) or root.pem)
        accepted = openssl.accepts(
            f"verify -attime {int(AT.timestamp())} -policy_check -policy anyPolicy "
            "-CAfile root.pem -untrusted sent.pem leaf.pem"
        )
        compared += 1
        if accepted != (code == ""):
            differences.append((name, code, accepted))
    assert differences == []
    assert compared > 200


@pytest.mark.parametrize(
    "name",
    [
        "DifferentPoliciesTest4EE.crt",
        "InvalidPolicyMappingTest2EE.crt",
        "InvalidinhibitPolicyMappingTest1EE.crt",
        "InvalidinhibitAnyPolicyTest1EE.crt",
        "InvalidrequireExplicitPolicyTest3EE.crt",
    ],
)
def test_the_ca_that_requires_a_policy_is_named(name: str) -> None:
    leaf, root = read(name), read("TrustAnchorRootCertificate.crt")
    assert leaf is not None
    assert root is not None
    with pytest.raises(Refused, match="requireExplicitPolicy") as refusal:
        verify(leaf, chain_of(leaf), [root], [], AT)
    assert refusal.value.code == "chain_invalid"
