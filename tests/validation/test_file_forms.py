"""The same certificate or key is found in every form in which files arrive."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12
from hypothesis import given
from hypothesis import strategies as st

from shared import errors
from shared.validation.server_cert import has_private_key, read_server_certificate
from shared.x509 import pem
from shared.x509.certificate_files import read_certificates, read_one_certificate, split
from shared.x509.file_forms import unwrap
from shared.x509.private_key_files import holds_private_key, load_private_key
from tests.support import certs
from tests.support.missing import skip_or_fail

ROOT: Final = certs.ca("Root")
SERVER: Final = certs.server("h.example.com", ROOT)
KEY_DER: Final = SERVER.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def with_plus_escaped(text: bytes) -> bytes:
    """Return *text* as .NET's JSON writer escapes it, line ends and plus signs."""
    return text.replace(b"+", b"\\u002B").replace(b"\n", b"\\r\\n")


TEXT_FORMS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "UTF-8 with mark": lambda text: b"\xef\xbb\xbf" + text,
    "UTF-16 LE with mark": lambda text: b"\xff\xfe" + text.decode().encode("utf-16-le"),
    "UTF-16 BE with mark": lambda text: b"\xfe\xff" + text.decode().encode("utf-16-be"),
    "UTF-16 LE": lambda text: text.decode().encode("utf-16-le"),
    "UTF-16 BE": lambda text: text.decode().encode("utf-16-be"),
    "literal \\n": lambda text: text.replace(b"\n", b"\\n"),
    "literal \\r\\n": lambda text: text.replace(b"\n", b"\\r\\n"),
    "JSON string": lambda text: json.dumps(text.decode()).encode(),
    "JSON string in a JSON string": lambda text: json.dumps(json.dumps(text.decode())).encode(),
    "JSON string of PHP": lambda text: json.dumps(text.decode()).replace("/", "\\/").encode(),
    "JSON string of .NET": with_plus_escaped,
    "base64 of PEM": base64.b64encode,
    "base64 of PEM, in lines": base64.encodebytes,
    "base64 of base64 of PEM": lambda text: base64.b64encode(base64.encodebytes(text)),
    "base64 of UTF-16": lambda text: base64.b64encode(text.decode().encode("utf-16")),
    "base64 in quotes": lambda text: b'"' + base64.b64encode(text) + b'"\n',
}
BINARY_FORMS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "base64": base64.b64encode,
    "base64 in lines": base64.encodebytes,
    "base64url": base64.urlsafe_b64encode,
    "base64url without padding": lambda der: base64.urlsafe_b64encode(der).rstrip(b"="),
    "base64 in UTF-16": lambda der: base64.b64encode(der).decode().encode("utf-16-le"),
}
EVERY_FORM: Final = [
    *(pytest.param(form, True, id=f"PEM as {name}") for name, form in TEXT_FORMS.items()),
    *(pytest.param(form, False, id=f"DER as {name}") for name, form in BINARY_FORMS.items()),
]


@pytest.mark.parametrize(("form", "is_text"), EVERY_FORM)
def test_a_certificate_is_found(form: Callable[[bytes], bytes], is_text: bool) -> None:
    data = form(ROOT.pem.encode() if is_text else ROOT.der)
    assert read_one_certificate(data) == ROOT.certificate
    assert split(data) == [ROOT.der]


@pytest.mark.parametrize(("form", "is_text"), EVERY_FORM)
def test_a_key_is_found_and_refused_where_a_certificate_belongs(form: Callable[[bytes], bytes], is_text: bool) -> None:
    data = form(SERVER.key_pem.encode() if is_text else KEY_DER)
    assert holds_private_key(data)
    load_private_key(data, None)
    for read in (read_one_certificate, read_certificates, split):
        with pytest.raises(errors.PrivateKeyGiven):
            read(data)


@pytest.mark.parametrize("form", TEXT_FORMS.values(), ids=TEXT_FORMS)
def test_a_key_beside_its_certificate_is_found(form: Callable[[bytes], bytes]) -> None:
    data = form((SERVER.pem + SERVER.key_pem).encode())
    assert has_private_key(data)
    assert read_server_certificate(data).leaf == SERVER.certificate
    with pytest.raises(errors.PrivateKeyGiven):
        read_one_certificate(data)


@pytest.mark.parametrize("label", ["PKCS12", "PKCS #12", "PFX"])
def test_pkcs12_between_begin_and_end_is_found(label: str) -> None:
    file = pkcs12.serialize_key_and_certificates(None, SERVER.key, SERVER.cert, None, NoEncryption())
    for data in (pem.encode(label, file).encode(), base64.b64encode(file)):
        assert has_private_key(data)
        assert read_server_certificate(data).leaf == SERVER.certificate


KEY_STORES: Final = {
    "JKS": bytes.fromhex("feedfeed 00000002 00000001"),
    "JCEKS": bytes.fromhex("cececece 00000002 00000001"),
    "BKS": bytes.fromhex("00000002 00000014") + b"a salt of 20 octets." + bytes.fromhex("000007d0"),
}


@pytest.mark.parametrize("kind", KEY_STORES)
def test_a_java_key_store_is_named_with_the_command_that_converts_it(kind: str) -> None:
    store = KEY_STORES[kind] + bytes(800)
    with pytest.raises(errors.NotACertificate, match=rf"Java key store \({kind}\).*keytool -exportcert -rfc"):
        read_one_certificate(store)
    with pytest.raises(errors.NotACertificate, match="keytool -importkeystore"):
        read_one_certificate(base64.b64encode(store))
    with pytest.raises(errors.NotAKey, match="keytool -importkeystore"):
        load_private_key(store, None)


@pytest.mark.parametrize("kind", ["JKS", pytest.param("JCEKS", marks=pytest.mark.slow)])
def test_the_command_converts_a_key_store_of_keytool(tmp_path: Path, kind: str) -> None:
    """As it is in the advice: the new file has the certificate and its key, and is accepted."""
    if shutil.which("keytool") is None:
        skip_or_fail("keytool is missing: apt-get install default-jre-headless (tools/apt-packages.sh)")
    name = f"store.{kind.lower()}"
    made = f"-genkeypair -keyalg EC -groupname secp256r1 -dname CN=h.example.com -alias NAME -storetype {kind}"
    _keytool(tmp_path, f"{made} -keystore {name} -storepass secret -keypass secret")
    with pytest.raises(errors.NotACertificate) as refused:
        read_one_certificate((tmp_path / name).read_bytes())
    export, convert = re.findall(r"keytool (-.+?)(?: For|$)", refused.value.advice)
    _keytool(tmp_path, f"{convert} -srcstorepass secret -deststorepass secret")
    server = read_server_certificate((tmp_path / "file.p12").read_bytes(), passphrase="secret")
    _keytool(tmp_path, f"{export} -storepass secret")
    assert read_one_certificate((tmp_path / "certificate.pem").read_bytes()) == server.leaf


def _keytool(folder: Path, arguments: str) -> None:
    done = subprocess.run(["keytool", *arguments.split()], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_other_content_stays_as_it_is(data: bytes) -> None:
    """Or it is what its base64 says."""
    content = unwrap(data)
    assert content == data or b"-----" in content or len(content) < len(data)


def test_der_stays_as_it_is() -> None:
    """No octet of binary content is taken for text."""
    for data in (ROOT.der, KEY_DER, ROOT.der + SERVER.der):
        assert unwrap(data) == data
