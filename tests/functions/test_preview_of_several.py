"""A preview of a file with several certificates: both judgements are told, whichever the file was meant for."""

from tests import certs
from tests.harness import Client


def test_two_cas_in_a_file_are_several_certificates_to_one_who_adds_a_ca(operator: Client) -> None:
    """They are no chain either; that belongs to the judgement as a server's certificate."""
    file = certs.bundle(certs.ca("One"), certs.ca("Two"))
    found = operator.post("/authentication/preview", {"certificate": file}).ok()
    assert found["subject"] == "CN=One"
    assert (found["ca"]["accepted"], found["ca"]["code"]) == (False, "several_certificates")
    assert (found["server"]["accepted"], found["server"]["code"]) == (False, "chain_broken")


def test_a_server_certificate_with_its_chain_is_read_as_one(operator: Client) -> None:
    root = certs.ca("Root")
    leaf = certs.server("mtxpd0.messaging.example.com", root)
    found = operator.post("/authentication/preview", {"certificate": certs.bundle(root, leaf)}).ok()
    assert found["subject"] == "CN=mtxpd0.messaging.example.com"
    assert found["server"]["accepted"] is True
    assert found["ca"]["code"] == "several_certificates"
