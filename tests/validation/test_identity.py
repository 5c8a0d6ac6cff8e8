"""Which device a certificate identifies: by CN and e-mail SANs, and by nothing else."""

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from shared.errors import IdentityMismatch, IdentityMissing, TypeCertificateRefused
from shared.validation.identity import candidates, match
from shared.validation.names import DeviceName
from tests.support import certs

ROOT = certs.ca()


def names(issued: certs.Issued) -> list[str]:
    return list(map(str, candidates(issued.certificate)))


def match_name(issued: certs.Issued, expected: str | None, *, type_certificates: bool = False) -> str:
    cert, device = issued.certificate, DeviceName.parse(expected) if expected else None
    return str(match(cert, candidates(cert), device, type_certificates=type_certificates, org_id="mtxpd0"))


def test_cn_and_every_email_are_candidates_and_nothing_else_is() -> None:
    leaf = certs.leaf(
        "d:thermo:1",
        ROOT,
        emails=["g:hub:2", "someone@example.com", "d:thermo:1"],
        dns=["d.thermo.3"],
        uris=["d:thermo:4"],
    )
    assert names(leaf) == ["d:thermo:1", "g:hub:2"]


def test_a_subject_with_two_common_names_gives_none_of_them() -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"d:thermo:{number}") for number in (1, 2)])
    assert names(certs.leaf(subject, ROOT)) == []
    assert names(certs.leaf(subject, ROOT, emails=["d:thermo:3"])) == ["d:thermo:3"]


@pytest.mark.parametrize("cn", ["d:thermo:42\n", "d:thermo:4\x002", "d:thermö:42", "D:thermo:42", "d:thermo:42 "])
def test_text_that_resembles_a_device_name_is_no_candidate(cn: str) -> None:
    assert names(certs.leaf(cn, ROOT)) == []


def test_the_client_id_must_be_exactly_an_identity_of_the_certificate() -> None:
    leaf = certs.leaf("d:thermo:42", ROOT, emails=["d:thermo:43"])
    assert match_name(leaf, "d:thermo:42") == "d:thermo:42"
    assert match_name(leaf, "d:thermo:43") == "d:thermo:43"
    for other in ("d:thermo:44", "d:Thermo:42", "g:thermo:42", "d:thermo2:42"):
        with pytest.raises(IdentityMismatch) as refusal:
            match_name(leaf, other)
        facts = refusal.value.facts
        assert (facts["found"], facts["expected"]) == ("d:thermo:42, d:thermo:43", other)
        assert ("upper and lower case only" in refusal.value.reason) == (other == "d:Thermo:42")
        advice = f"Set the client ID to d:mtxpd0:thermo:42, or issue a certificate with CN {other}."
        assert refusal.value.advice == advice


def test_the_advice_for_a_certificate_without_identity_names_the_device() -> None:
    with pytest.raises(IdentityMissing) as refusal:
        match_name(certs.leaf("Sample Cert", ROOT), "d:thermo:42")
    assert refusal.value.advice == "Issue the certificate again with CN d:thermo:42."


def test_without_a_client_id_the_certificate_must_name_exactly_one_device() -> None:
    assert match_name(certs.leaf("d:thermo:", ROOT, emails=["d:thermo:42"]), None) == "d:thermo:42"
    with pytest.raises(IdentityMissing, match="several"):
        match_name(certs.leaf("d:thermo:42", ROOT, emails=["d:thermo:43"]), None)


def test_a_type_certificate_is_accepted_only_if_the_organization_allows_them() -> None:
    leaf = certs.leaf("d:thermo:", ROOT)
    with pytest.raises(TypeCertificateRefused):
        match_name(leaf, "d:thermo:42")
    assert match_name(leaf, "d:thermo:42", type_certificates=True) == "d:thermo:42"
    with pytest.raises(IdentityMismatch):
        match_name(leaf, "d:other:42", type_certificates=True)
    with pytest.raises(IdentityMismatch):
        match_name(leaf, "g:thermo:42", type_certificates=True)
    with pytest.raises(TypeCertificateRefused):
        match_name(leaf, None)
    with pytest.raises(IdentityMissing, match="no client ID is known"):
        match_name(leaf, None, type_certificates=True)
