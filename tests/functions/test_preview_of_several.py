"""The preview of a file with several certificates has both judgements: as a CA and as a server certificate."""

from tests.support import certs
from tests.support.harness import Client


def test_two_cas_in_a_file_are_refused_as_a_ca(operator: Client) -> None:
    """They are no chain either, which is the judgement as a server certificate."""
    file = certs.bundle(certs.ca("One"), certs.ca("Two"))
    view = operator.post("/authentication/preview", {"certificate": file}).ok()
    assert view["subject"] == "CN=One"
    assert (view["ca"]["accepted"], view["ca"]["code"]) == (False, "several_certificates")
    assert (view["server"]["accepted"], view["server"]["code"]) == (False, "chain_broken")


def test_a_server_certificate_with_its_chain_is_accepted(operator: Client) -> None:
    root = certs.ca("Root")
    leaf = certs.server("mtxpd0.messaging.example.com", root)
    view = operator.post("/authentication/preview", {"certificate": certs.bundle(root, leaf)}).ok()
    assert view["subject"] == "CN=mtxpd0.messaging.example.com"
    assert view["server"]["accepted"] is True
    assert view["ca"]["code"] == "several_certificates"
