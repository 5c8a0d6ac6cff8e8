"""python -m functions.check_cert: the device maker's own check, offline, with the service's engine."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from functions.check_cert import main
from shared.config import base_url
from tests.support.openssl import OpenSSL


def check(openssl: OpenSSL, device: str, *words: str) -> Result:
    return CliRunner().invoke(main, [str(openssl.folder / device), *words])


def page_in(output: str) -> str:
    """Return the page in this checkout that the output leads to."""
    return Path(output.partition("More: file://")[2].split()[0]).read_text()


def make(openssl: OpenSSL) -> tuple[str, ...]:
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj", "/CN=Factory")
    openssl("req -newkey rsa:2048 -nodes -keyout device.key -out device.csr -subj", "/CN=d:thermo:42")
    openssl("x509 -req -in device.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out device.pem")
    return ("--ca", str(openssl.folder / "ca.pem"), "--org", "mtxpd0")


def test_a_good_device_passes_all_ten_steps(openssl: OpenSSL) -> None:
    words = make(openssl)
    done = check(openssl, "device.pem", *words, "--client-id", "d:mtxpd0:thermo:42")
    assert done.exit_code == 0, done.output
    assert done.output.count("✓") == 11
    assert "d:thermo:42 is allowed" in done.output


def test_a_refusal_has_its_reason_and_its_remedy(openssl: OpenSSL) -> None:
    words = make(openssl)
    done = check(openssl, "device.pem", *words, "--client-id", "d:mtxpd0:thermo:43")
    assert done.exit_code == 1
    assert "✕ 10 Identity" in done.output
    assert "The certificate is for d:thermo:42, and the client ID is for d:thermo:43." in done.output
    assert "identity_mismatch" in page_in(done.output)


def test_the_link_leads_to_the_service_where_it_is_known(openssl: OpenSSL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUST_URL", "https://trust.example.com")
    base_url.cache_clear()
    done = check(openssl, "device.pem", *make(openssl), "--client-id", "d:mtxpd0:thermo:43")
    assert "More: https://trust.example.com/docs/errors/identity_mismatch" in done.output
    base_url.cache_clear()


def test_a_ca_file_that_would_be_refused_is_reported(openssl: OpenSSL) -> None:
    make(openssl)
    device = str(openssl.folder / "device.pem")
    done = check(openssl, "device.pem", "--ca", device, "--org", "mtxpd0")
    assert done.exit_code == 1
    assert "This is not a CA certificate" in done.output
    assert "not_a_ca" in page_in(done.output)
