"""No private key, passphrase or token in log lines, responses, errors, activity entries or reprs.

A test calls every function that receives a secret, with known secrets, and then searches all output.
"""

import ast
import base64
import gc
import io
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_der_private_key

from functions.api.server_view import ServerView
from functions.api.servers import UploadServerCert
from functions.call import credentials_of
from functions.web.message import Request
from shared import log
from shared.records import to_body
from shared.refs import default_ref, org_ref, server_ref
from shared.validation.server_cert import read_server_certificate
from tests.support import certs
from tests.support.harness import Answer, Client, Service, basic

PASSPHRASE = "correct horse battery staple"
SERVERS = "/authentication/servercertificates"


class Output:
    """All output of a test run."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.stream = io.StringIO()

    def add(self, answer: Answer) -> Answer:
        self.texts += [answer.text, repr(answer), repr(answer.reply), str(dict(answer.reply.headers))]
        return answer

    def contains(self, secret: str) -> bool:
        text = "\n".join([*self.texts, self.stream.getvalue()])
        return secret in text


@pytest.fixture
def output() -> Iterator[Output]:
    """Collect log lines of every level in their final form."""
    output = Output()
    handler = logging.StreamHandler(output.stream)
    handler.setFormatter(log.JsonLines())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield output
    root.removeHandler(handler)
    root.setLevel(level)


def list_forms(private: certs.PrivateKey) -> list[str]:
    """Return text forms of a private key: PEM body, DER as base64 and hex, and its numbers."""
    pem_lines = certs.key_pem(private).splitlines()[1:-1]
    der = base64.b64decode("".join(pem_lines))
    numbers: Any = private.private_numbers()  # type: ignore[union-attr]
    secret = numbers.private_value if hasattr(numbers, "private_value") else numbers.d
    return [
        max(pem_lines, key=len),
        base64.b64encode(der).decode()[20:80],
        der.hex()[40:100],
        str(secret),
        f"{secret:x}",
    ]


def test_the_output_of_a_run_contains_no_known_secret(service: Service, output: Output) -> None:
    """Responses, logs, activity entries and reprs contain no private key, passphrase or token."""
    operator = service.client("operator")
    add = output.add
    own = certs.server(service.host(), private=certs.key("P-256", 31))
    encrypted = certs.key_pem(own.key, PASSPHRASE)
    upload = {"certificate": own.pem, "privateKey": encrypted, "passphrase": PASSPHRASE}

    add(operator.post(SERVERS, {**upload, "passphrase": PASSPHRASE + "!"})).ok(422)
    add(operator.post(SERVERS, {**upload, "passphrase": None})).ok(422)
    add(operator.post(SERVERS, {**upload, "passphrase": 7})).ok(400)
    add(operator.post(SERVERS, {**upload, "keyPassword": PASSPHRASE})).ok(400)
    add(operator.post(SERVERS, {**upload, "certificate": own.key_pem})).ok(422)
    add(operator.post(SERVERS, {**upload, "privateKey": own.key_pem})).ok(422)
    other = certs.server(service.host(), private=certs.key("P-256", 32))
    add(operator.post(SERVERS, {"certificate": own.pem, "privateKey": other.key_pem})).ok(422)
    add(operator.post("/authentication/cacertificates", {"certificate": own.key_pem})).ok(422)
    add(operator.post("/authentication/preview", {"certificate": own.key_pem})).ok(422)
    add(operator.post("/authorization/denylist", {"certificate": own.key_pem})).ok(422)
    uploaded = add(operator.post(SERVERS, upload)).ok(201)["id"]
    requested = add(operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"})).ok(201)["id"]
    for certificate_id in (uploaded, requested, "default"):
        add(operator.get(f"{SERVERS}/{certificate_id}")).ok()
    add(operator.get(f"{SERVERS}/{uploaded}/pem"))
    add(operator.get(f"{SERVERS}/{requested}/csr"))
    add(operator.get(SERVERS))
    add(operator.put(f"{SERVERS}/active", {"id": uploaded})).ok()
    add(operator.post(f"{SERVERS}/{uploaded}/renewal", {})).ok(201)
    add(service.client("viewer").get(f"{SERVERS}/{uploaded}"))
    add(Client(service.app, operator.key, operator.token + "x").get("/session")).ok(401)
    add(operator.get("/activity?limit=200")).ok()
    _cause_internal_error(service, operator, output, upload)

    repository = service.app.context.repository
    server = read_server_certificate(own.pem.encode(), private_key=encrypted.encode(), passphrase=PASSPHRASE)
    stored_record = repository.get(server_ref(service.org_id, uploaded))
    assert stored_record is not None
    request = repository.get(server_ref(service.org_id, requested))
    assert request is not None
    sealed = service.app.sealer.open(request.key, org_id=service.org_id, certificate_id=requested)
    generated: Any = load_der_private_key(sealed, None)
    output.texts += [
        repr(value)
        for value in (
            server,
            stored_record,
            stored_record.key,
            repository.get(default_ref()),
            repository.get(org_ref(service.org_id)),
            service,
            service.app,
            operator,
            UploadServerCert(certificate=own.pem, private_key=encrypted, passphrase=PASSPHRASE),
            Request("POST", SERVERS, headers={}, body=encrypted.encode()),
            credentials_of(Request("GET", "/", headers={"authorization": basic(operator.key, operator.token)})),
        )
    ]
    output.texts.append(str(to_body(stored_record)))

    assert output.contains(uploaded), "the output is not empty"
    secrets = [PASSPHRASE, operator.token, *list_forms(own.key), *list_forms(other.key), *list_forms(generated)]
    secrets.append(max(encrypted.splitlines(), key=len))
    assert [secret for secret in secrets if output.contains(secret)] == []


def _cause_internal_error(service: Service, operator: Client, output: Output, upload: dict[str, str]) -> None:
    """Raise an unexpected error that quotes a secret. The response is a 500 with an id, which is in the log."""

    def crash(*_: object, **__: object) -> None:
        raise RuntimeError(f"could not seal {upload['privateKey']} with {PASSPHRASE}")

    sealer: Any = service.app.sealer
    original = sealer.seal
    sealer.seal = crash
    try:
        fresh = certs.server(service.host(), private=certs.key("P-256", 33))
        answer = operator.post(SERVERS, {"certificate": fresh.pem, "privateKey": fresh.key_pem})
    finally:
        sealer.seal = original
    problem = output.add(answer).ok(500)
    number = problem["detail"].split()[-1].rstrip(".")
    assert number in output.stream.getvalue(), "the log contains the id"
    assert "in crash" in output.stream.getvalue(), "the log contains the traceback"


def test_responses_have_no_field_for_a_private_key() -> None:
    """A view without such a field cannot reveal a key."""
    names = {name.lower() for name in ServerView.__struct_fields__}
    assert not {name for name in names if "private" in name or "passphrase" in name or name == "key"}


def test_a_sealed_key_is_opened_in_four_modules_only() -> None:
    """edgeFeed exports a private key, a renewal signs with one, and `reseal` seals them again. An import opens the key
    of an export, which is no private key. No other code opens a key."""
    root = Path(__file__).parents[1]
    openers = {
        module.relative_to(root).as_posix()
        for folder in ("shared", "functions")
        for module in (root / folder).rglob("*.py")
        if "open" in (text := module.read_text()) and any(map(_opens_key, ast.walk(_parse(text))))
    }
    assert openers == {
        "shared/usecases/edges/serve.py",
        "shared/usecases/servers/renew.py",
        "shared/usecases/jobs/reseal.py",
        "shared/usecases/jobs/export_file.py",
    }


def _parse(text: str) -> ast.AST:
    """Parse without garbage collection: a finalizer during the parse is an error of Python 3.11 (CPython 106905)."""
    gc.disable()
    try:
        return ast.parse(text)
    finally:
        gc.enable()


def _opens_key(node: ast.AST) -> bool:
    """Return whether *node* is a call of `KeySealer.open`."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    return node.func.attr == "open" and {keyword.arg for keyword in node.keywords} >= {"org_id", "certificate_id"}


def test_the_store_contains_no_secret_in_the_clear(service: Service, tmp_path: Path) -> None:
    """Neither the database file nor the files beside it."""
    operator = service.client("operator")
    issued = certs.server(service.host(), private=certs.key("RSA-2048", 5))
    encrypted = certs.key_pem(issued.key, PASSPHRASE)
    fields = {"certificate": issued.pem, "privateKey": encrypted, "passphrase": PASSPHRASE}
    operator.post(SERVERS, fields).ok(201)
    der = base64.b64decode("".join(issued.key_pem.splitlines()[1:-1]))
    needles = [PASSPHRASE.encode(), operator.token.encode(), der[320:420], base64.b64encode(der)[640:700]]
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        data = path.read_bytes()
        assert not [needle for needle in needles if needle in data], path.name


def test_the_response_to_an_unexpected_error_does_not_quote_the_error() -> None:
    """An unexpected error becomes a 500 without the error's text."""
    from functions.web.problem import problem

    try:
        raise ValueError(PASSPHRASE)
    except ValueError as error:
        reply = problem(Request("GET", "/"), error)
        assert PASSPHRASE in traceback.format_exc()
    assert PASSPHRASE.encode() not in reply.body
